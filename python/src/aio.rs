//! Requests for an event loop. Nothing here waits, and no thread of ours enters Python: answers are
//! laid in a box, and a byte in a socket tells the loop that there are some.

use crate::client::{Client, runtime, spec};
use crate::ends::{Awaited, Window, follow};
use crate::errors::{client_error, error, system};
use outlast::api::{EndedTasks, MAX_PAGE, TaskResult};
use outlast::{Error, TaskQuery};
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

/// Requests at a time, besides the one that waits for tasks to end; others wait their turn.
const AT_ONCE: usize = 64;

type Answer = Result<String, Failure>;

enum Failure {
    Coordinator(Error),
    Invalid(String),
    Missing(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Coordinator(error)
    }
}

#[derive(Default)]
struct State {
    answers: Vec<(u64, Answer)>,
    running: HashMap<u64, AbortHandle>,
    /// Waiting requests for each task's end.
    waits: HashMap<String, HashSet<u64>>,
    awaited: HashMap<u64, String>,
    /// Start of the next window of awaited tasks.
    turn: usize,
}

struct Shared {
    state: Mutex<State>,
    bell: UnixStream,
    slots: Semaphore,
    added: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays answers down and rings.
    fn tell(&self, answers: impl IntoIterator<Item = (u64, Answer)>) {
        let mut state = self.lock();
        let before = state.answers.len();
        state.answers.extend(answers);
        let ring = before == 0 && !state.answers.is_empty();
        drop(state);
        if ring {
            // A full socket has already woken the loop.
            let _ = (&self.bell).write(&[1]);
        }
    }

    fn ended(&self, id: &str, answer: impl Fn() -> Answer) {
        let tokens = self.lock().waits.remove(id).unwrap_or_default();
        self.tell(tokens.into_iter().map(|token| (token, answer())));
    }
}

/// One client's requests for one event loop.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Mailbox {
    client: outlast::Client,
    shared: Arc<Shared>,
    ear: UnixStream,
    follower: Mutex<Option<AbortHandle>>,
    process: u32,
}

fn text<T: Serialize>(value: &T) -> Answer {
    serde_json::to_string(value).map_err(|e| Failure::Invalid(e.to_string()))
}

fn argument(args: &Value, at: usize) -> Result<&str, Failure> {
    args[at].as_str().ok_or_else(|| Failure::Invalid(format!("argument {at} is no text: {args}")))
}

async fn perform(client: &outlast::Client, op: &str, args: Value) -> Answer {
    let id = || argument(&args, 0);
    match op {
        "submit" => {
            let task = spec(args).map_err(Failure::Invalid)?;
            let (task, new) = client.submit(&task).await?;
            text(&json!([task.id, new]))
        }
        "submit_all" => {
            let Value::Array(documents) = args else {
                return Err(Failure::Invalid("no list of tasks".into()));
            };
            let tasks: Result<Vec<_>, _> = documents.into_iter().map(spec).collect();
            let tasks = tasks.map_err(Failure::Invalid)?;
            client.submit_all(&tasks).await?;
            text(&tasks.iter().map(|t| &t.id).collect::<Vec<_>>())
        }
        "tasks" => {
            let query: Query = serde_json::from_value(args)
                .map_err(|e| Failure::Invalid(format!("invalid query of tasks: {e}")))?;
            let Query { states, labels, cursor } = query;
            text(&client.tasks(&TaskQuery { states, labels, cursor, ..Default::default() }).await?)
        }
        "task" => text(&client.task(id()?).await?),
        "history" => text(&client.history(id()?).await?),
        "state" => text(&client.task_state(id()?).await?),
        "checkpoints" => text(&client.checkpoints(id()?).await?),
        "explain" => text(&client.explain(id()?).await?),
        "cancel" => text(&client.cancel(id()?).await?),
        "retry" => text(&client.retry(id()?).await?),
        "pause" => text(&client.pause(id()?).await?),
        "resume" => text(&client.resume(id()?).await?),
        "workers" => text(&client.workers().await?),
        "counts" => text(&client.counts().await?),
        other => Err(Failure::Invalid(format!("nothing is called {other:?}"))),
    }
}

#[derive(serde::Deserialize)]
struct Query {
    states: Vec<String>,
    labels: Vec<(String, String)>,
    cursor: Option<String>,
}

impl Awaited for Shared {
    /// In turns, if there is more than a page.
    fn window(&self) -> Window {
        let mut state = self.lock();
        let count = state.waits.len();
        if count <= MAX_PAGE {
            return Window { ids: state.waits.keys().cloned().collect(), all: true };
        }
        let from = state.turn % count;
        state.turn = from + MAX_PAGE;
        let ids = state.waits.keys().cycle().skip(from).take(MAX_PAGE).cloned();
        Window { ids: ids.collect(), all: false }
    }

    fn added(&self) -> &Notify {
        &self.added
    }

    async fn answered(&self, window: Window, answer: Result<EndedTasks, Error>) -> bool {
        match answer {
            Ok(found) => {
                for result in &found.results {
                    self.ended(&result.id, || text::<TaskResult>(result));
                }
                for id in &found.unknown {
                    self.ended(id, || Err(Failure::Missing(format!("there is no task {id}"))));
                }
            }
            // The client's retry time has passed: all waiting requests fail.
            Err(error) => {
                for id in &window.ids {
                    self.ended(id, || Err(Failure::Coordinator(again(&error))));
                }
            }
        }
        true
    }
}

/// An error for each of those who wait.
fn again(error: &Error) -> Error {
    match error {
        Error::Problem(problem) => Error::Problem(problem.clone()),
        Error::Unreachable { url, why } => {
            Error::Unreachable { url: url.clone(), why: why.clone() }
        }
        Error::Strange { url, why } => Error::Strange { url: url.clone(), why: why.clone() },
        Error::Setup(why) => Error::Setup(why.clone()),
    }
}

impl Mailbox {
    fn here(&self, py: Python<'_>) -> PyResult<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        let why = "this event loop's requests belong to the process that this one was forked from";
        Err(error(py, "StoppedError", why))
    }

    fn end(&self) {
        let mut state = self.shared.lock();
        for (_, handle) in state.running.drain() {
            handle.abort();
        }
        state.waits.clear();
        state.awaited.clear();
        drop(state);
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = follower {
            handle.abort();
        }
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new(py: Python<'_>, client: &Client) -> PyResult<Mailbox> {
        let pair = || {
            let (bell, ear) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            ear.set_nonblocking(true)?;
            Ok((bell, ear))
        };
        let (bell, ear) = pair().map_err(|e| system("opening a pair of sockets", &e))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            bell,
            slots: Semaphore::new(AT_ONCE),
            added: Notify::new(),
        });
        let (client, process) = (client.client(py)?, std::process::id());
        Ok(Mailbox { client, shared, ear, follower: Mutex::new(None), process })
    }

    /// Descriptor to watch: readable when there are answers.
    fn fileno(&self) -> i32 {
        self.ear.as_raw_fd()
    }

    /// Begins a request; `args` is JSON. Its answer comes under this number.
    fn ask(&self, py: Python<'_>, token: u64, op: String, args: &str) -> PyResult<()> {
        self.here(py)?;
        let args = serde_json::from_str(args)
            .map_err(|e| error(py, "InvalidData", e.to_string().as_str()))?;
        let (client, shared) = (self.client.clone(), self.shared.clone());
        // Held until it is noted, so that it cannot be over before.
        let mut state = self.shared.lock();
        let task = runtime()?.spawn(async move {
            let Ok(_slot) = shared.slots.acquire().await else { return };
            let answer = perform(&client, &op, args).await;
            if shared.lock().running.remove(&token).is_some() {
                shared.tell([(token, answer)]);
            }
        });
        state.running.insert(token, task.abort_handle());
        Ok(())
    }

    /// Begins to wait for a task's end, with all others in one request.
    fn wait(&self, py: Python<'_>, token: u64, id: String) -> PyResult<()> {
        self.here(py)?;
        let mut state = self.shared.lock();
        state.waits.entry(id.clone()).or_default().insert(token);
        state.awaited.insert(token, id);
        drop(state);
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if follower.is_none() {
            let task = runtime()?.spawn(follow(self.client.clone(), self.shared.clone()));
            *follower = Some(task.abort_handle());
        }
        drop(follower);
        self.shared.added.notify_one();
        Ok(())
    }

    /// Drops an answer. A request that was already sent may still take effect.
    fn forget(&self, token: u64) {
        if self.process != std::process::id() {
            return;
        }
        let mut state = self.shared.lock();
        if let Some(handle) = state.running.remove(&token) {
            handle.abort();
        }
        if let Some(id) = state.awaited.remove(&token)
            && let Some(tokens) = state.waits.get_mut(&id)
        {
            tokens.remove(&token);
            if tokens.is_empty() {
                state.waits.remove(&id);
            }
        }
    }

    /// The answers that have come: (number, JSON or None, exception or None).
    fn drain(&self, py: Python<'_>) -> Vec<(u64, Option<String>, Option<PyErr>)> {
        // Emptied before the answers are taken: what comes later rings again.
        let mut rung = [0; 64];
        while matches!((&self.ear).read(&mut rung), Ok(n) if n == rung.len()) {}
        let mut state = self.shared.lock();
        let answers = std::mem::take(&mut state.answers);
        for (token, _) in &answers {
            state.awaited.remove(token);
        }
        drop(state);
        let told = answers.into_iter().map(|(token, answer)| match answer {
            Ok(json) => (token, Some(json), None),
            Err(failure) => (token, None, Some(exception(py, &failure))),
        });
        told.collect()
    }

    /// Cancels all requests.
    fn close(&self) {
        if self.process == std::process::id() {
            self.end();
        }
    }
}

fn exception(py: Python<'_>, failure: &Failure) -> PyErr {
    match failure {
        Failure::Coordinator(e) => client_error(py, e),
        Failure::Invalid(why) => error(py, "InvalidData", why.as_str()),
        Failure::Missing(why) => error(py, "NotFound", (why.as_str(), 404)),
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // In a forked child the threads that hold these locks may not exist.
        if self.process == std::process::id() {
            self.end();
        }
    }
}
