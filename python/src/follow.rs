//! Follows any number of tasks until they end, by one request at a time.

use crate::ends::{Awaited, Window, follow};
use crate::errors::client_error;
use crate::wait::{SLICE, wait};
use outlast::api::{EndedTasks, MAX_PAGE, TaskResult};
use outlast::{Client, Error};
use pyo3::prelude::*;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// Answers that nobody has taken yet; then no more are asked for. One is up to 8 MiB or so.
const WAITING: usize = 4;
/// Before the next try after an error.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Followed {
    ids: HashSet<String>,
    /// The followed tasks, and some that are not followed any more.
    order: VecDeque<String>,
}

impl Followed {
    /// Returns the first window of tasks.
    fn window(&mut self) -> Vec<String> {
        while self.order.front().is_some_and(|id| !self.ids.contains(id)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.ids.len() + MAX_PAGE {
            self.order.retain(|id| self.ids.contains(id));
        }
        let known = self.order.iter().filter(|id| self.ids.contains(*id));
        known.take(MAX_PAGE).cloned().collect()
    }

    /// Rotates the order, so that other tasks come first next time.
    fn rotate(&mut self, by: usize) {
        let by = by.min(self.order.len());
        self.order.rotate_left(by);
    }
}

struct Shared {
    followed: Mutex<Followed>,
    added: Notify,
    woken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Results as JSON, and `{"id": …, "state": "unknown"}`.
type Found = Result<Vec<String>, Error>;

/// Reports tasks as they end, to one thread that receives and any number that add.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Follower {
    shared: Arc<Shared>,
    found: Mutex<Receiver<Found>>,
    task: JoinHandle<()>,
    runtime: Handle,
}

impl Follower {
    pub fn start(runtime: Handle, client: Client) -> Follower {
        let shared = Arc::new(Shared {
            followed: Mutex::default(),
            added: Notify::new(),
            woken: Notify::new(),
        });
        let (sender, found) = channel(WAITING);
        let following = Following { shared: shared.clone(), found: sender };
        let task = runtime.spawn(follow(client, Arc::new(following)));
        Follower { shared, found: Mutex::new(found), task, runtime }
    }
}

/// The other end of a follower: dropped with its task, so that `next` does not wait any more.
struct Following {
    shared: Arc<Shared>,
    found: Sender<Found>,
}

impl Awaited for Following {
    fn window(&self) -> Window {
        let mut followed = self.shared.lock();
        let ids = followed.window();
        let all = ids.len() == followed.ids.len();
        Window { ids, all }
    }

    fn added(&self) -> &Notify {
        &self.shared.added
    }

    async fn answered(&self, window: Window, answer: Result<EndedTasks, Error>) -> bool {
        let ended = match answer {
            Ok(ended) => ended,
            Err(error) => {
                let taken = self.found.send(Err(error)).await.is_ok();
                tokio::time::sleep(PAUSE).await;
                return taken;
            }
        };
        let ends = {
            let mut followed = self.shared.lock();
            if ended.results.is_empty() && ended.unknown.is_empty() && !window.all {
                followed.rotate(window.ids.len());
            }
            // One that was forgotten meanwhile is nobody's.
            let results = ended.results.iter().filter(|r| followed.ids.remove(&r.id));
            let mut ends: Vec<String> = results.map(text).collect();
            let unknown = ended.unknown.into_iter().filter(|id| followed.ids.remove(id));
            ends.extend(unknown.map(|id| json!({ "id": id, "state": "unknown" }).to_string()));
            ends
        };
        ends.is_empty() || self.found.send(Ok(ends)).await.is_ok()
    }
}

fn text(result: &TaskResult) -> String {
    serde_json::to_string(result).unwrap_or_default()
}

#[pymethods]
impl Follower {
    fn add(&self, ids: Vec<String>) {
        let mut followed = self.shared.lock();
        for id in ids {
            if followed.ids.insert(id.clone()) {
                followed.order.push_back(id);
            }
        }
        drop(followed);
        self.shared.added.notify_one();
    }

    fn forget(&self, id: &str) {
        self.shared.lock().ids.remove(id);
    }

    /// Returns the tasks that have ended since, as JSON; waits up to `seconds` for the first, or until it
    /// is woken.
    fn next(&self, py: Python<'_>, seconds: f64) -> PyResult<Vec<String>> {
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let until = Instant::now().checked_add(limit);
        let found = wait(py, || {
            let left = until.map_or(SLICE, |u| u.saturating_duration_since(Instant::now()));
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    found = found.recv() => Some(found.unwrap_or_else(|| Ok(Vec::new()))),
                    () = self.shared.woken.notified() => Some(Ok(Vec::new())),
                    () = tokio::time::sleep(left.min(SLICE)) => {
                        (left <= SLICE && until.is_some()).then(|| Ok(Vec::new()))
                    }
                }
            })
        })?;
        found.map_err(|e| client_error(py, &e))
    }

    /// Has `next` return.
    fn wake(&self) {
        self.shared.woken.notify_one();
    }

    /// Closes the follower.
    fn close(&self) {
        self.task.abort();
        self.wake();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}
