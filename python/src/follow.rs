//! Follows any number of tasks until they end, by one request at a time.

use crate::errors::client_error;
use crate::wait::{SLICE, wait};
use outlast::api::{MAX_PAGE, TaskResult};
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
/// Seconds that one request waits where it asks for all tasks, and where it does for some only.
const PATIENCE: (u64, u64) = (30, 1);
/// Between two requests, so that one answer has many ends.
const PACE: Duration = Duration::from_millis(3);
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
        let (tx, found) = channel(WAITING);
        let task = runtime.spawn(follow(client, shared.clone(), tx));
        Follower { shared, found: Mutex::new(found), task, runtime }
    }
}

async fn follow(client: Client, shared: Arc<Shared>, found: Sender<Found>) {
    let mut fresh = false;
    loop {
        let (window, all) = {
            let mut followed = shared.lock();
            let window = followed.window();
            let all = window.len() == followed.ids.len();
            (window, all)
        };
        if window.is_empty() {
            shared.added.notified().await;
            continue;
        }
        let answer = if fresh {
            // Not restarted for new ones, or none would ever be answered.
            fresh = false;
            client.results(&window, 0).await
        } else {
            let patience = if all { PATIENCE.0 } else { PATIENCE.1 };
            tokio::select! {
                answer = client.results(&window, patience) => answer,
                () = shared.added.notified(), if window.len() < MAX_PAGE => {
                    tokio::time::sleep(PACE).await;
                    fresh = true;
                    continue;
                }
            }
        };
        let ended = match answer {
            Ok(ended) => ended,
            Err(error) => {
                if found.send(Err(error)).await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let told = {
            let mut followed = shared.lock();
            if ended.results.is_empty() && ended.unknown.is_empty() && !all {
                followed.rotate(window.len());
            }
            let mut told: Vec<String> = Vec::new();
            // One that was forgotten meanwhile is nobody's.
            told.extend(ended.results.iter().filter(|r| followed.ids.remove(&r.id)).map(text));
            let unknown = ended.unknown.into_iter().filter(|id| followed.ids.remove(id));
            told.extend(unknown.map(|id| json!({ "id": id, "state": "unknown" }).to_string()));
            told
        };
        if !told.is_empty() && found.send(Ok(told)).await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
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
