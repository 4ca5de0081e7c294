//! The thread that keeps the history of links in its file, away from everything that must be
//! quick. What cannot be written is said once, and lost.

use crate::clock;
use outlast_core::quality::Point;
use outlast_store::{AlertEntry, LinkEntry, LinkStore, Resolution, StoreError};
use outlast_wire::api::Alert;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Things that may wait for the thread; more are dropped.
const WAITING: usize = 65_536;
/// Time after which an event of a link is written at the latest.
const LATE: Duration = Duration::from_secs(1);
/// Time between marks that the coordinator is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// Entries in one transaction.
const GROUP: usize = 8192;

enum Job {
    Link(LinkEntry),
    Minute(i64, Vec<(Arc<str>, Point)>),
    Forget(Arc<str>),
    Alerts(Vec<AlertEntry>),
    Ask(Box<dyn FnOnce(&LinkStore) + Send>),
    End,
}

/// A way to the thread. Without one nothing is kept, and nothing is known.
#[derive(Clone)]
pub(crate) struct History {
    jobs: Option<Sender<Job>>,
    /// Jobs that wait. The queue itself has no limit, since one that has takes all its room at once.
    count: Arc<AtomicUsize>,
}

/// An answer, or why there is none.
pub(crate) type Asked<T> = Result<T, String>;

impl History {
    /// Opens the file; when that fails the coordinator goes on without.
    pub fn start(path: &Path, budget: u64) -> (History, Option<std::thread::JoinHandle<()>>) {
        let store = match LinkStore::open(path, budget, clock::wall()) {
            Ok(store) => store,
            Err(error) => {
                tracing::warn!(
                    "{}: no history of links is kept: {error}; move the file away to start again",
                    path.display()
                );
                return (History::none(), None);
            }
        };
        let (jobs, queue) = channel();
        let count = Arc::new(AtomicUsize::new(0));
        let waiting = count.clone();
        let thread = std::thread::Builder::new().name("history".into()).spawn(move || {
            let count = waiting;
            Keeper { store, waiting: Vec::new(), trouble: false, count }.run(&queue);
        });
        match thread {
            Ok(thread) => (History { jobs: Some(jobs), count }, Some(thread)),
            Err(error) => {
                tracing::warn!("no history of links is kept: {error}");
                (History::none(), None)
            }
        }
    }

    fn none() -> History {
        History { jobs: None, count: Arc::default() }
    }

    fn put(&self, job: Job) -> bool {
        let Some(jobs) = &self.jobs else { return false };
        if self.count.fetch_add(1, Ordering::Relaxed) >= WAITING && !matches!(job, Job::End) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        jobs.send(job).is_ok()
    }
    pub fn link(&self, entry: LinkEntry) {
        self.put(Job::Link(entry));
    }
    pub fn minute(&self, at: i64, points: Vec<(Arc<str>, Point)>) {
        self.put(Job::Minute(at, points));
    }
    pub fn forget(&self, worker: Arc<str>) {
        self.put(Job::Forget(worker));
    }
    pub fn alerts(&self, changes: Vec<AlertEntry>) {
        if !changes.is_empty() {
            self.put(Job::Alerts(changes));
        }
    }
    /// Writes what waits, and ends.
    pub fn end(&self) {
        self.put(Job::End);
    }

    /// Reads, after everything that came before was written.
    pub async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&LinkStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<Option<T>> {
        if self.jobs.is_none() {
            return Ok(None);
        }
        let (tx, rx) = oneshot::channel();
        let job = Job::Ask(Box::new(move |store| drop(tx.send(ask(store)))));
        if !self.put(job) {
            return Err("the history of links is busy".into());
        }
        match rx.await {
            Ok(answer) => answer.map(Some).map_err(|e| e.to_string()),
            Err(_) => Err("the coordinator ends".into()),
        }
    }

    /// Returns the alerts that were firing when the former process ended; none if they cannot be read.
    pub async fn firing(&self) -> Vec<Alert> {
        let kept = match self.ask(LinkStore::alerts).await {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                tracing::warn!("alerts that were firing before are not known any more: {error}");
                Vec::new()
            }
        };
        kept.iter().filter_map(|json| serde_json::from_str(json).ok()).collect()
    }

    /// A worker's points of intervals that begin from `from` on and before `to`.
    pub async fn points(
        &self,
        worker: Arc<str>,
        resolution: Resolution,
        from: i64,
        to: i64,
    ) -> Asked<Vec<(i64, Point)>> {
        let ask = move |s: &LinkStore| s.points(&worker, resolution, from, to);
        Ok(self.ask(ask).await?.unwrap_or_default())
    }
}

struct Keeper {
    store: LinkStore,
    waiting: Vec<LinkEntry>,
    trouble: bool,
    count: Arc<AtomicUsize>,
}

impl Keeper {
    fn run(mut self, queue: &Receiver<Job>) {
        let mut due = Instant::now() + ALIVE;
        loop {
            let job = queue.recv_timeout(due.saturating_duration_since(Instant::now()));
            if job.is_ok() {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            match job {
                Ok(Job::Link(entry)) => {
                    self.waiting.push(entry);
                    due = due.min(Instant::now() + LATE);
                }
                Ok(job) => {
                    if self.work(job) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            if self.waiting.len() >= GROUP || Instant::now() >= due {
                self.flush();
                due = Instant::now() + ALIVE;
            }
        }
    }

    /// Does a job; returns whether it was the last.
    fn work(&mut self, job: Job) -> bool {
        let done = match job {
            Job::Link(entry) => {
                self.waiting.push(entry);
                Ok(())
            }
            Job::Minute(at, points) => {
                let now = clock::wall();
                let put = self.store.put_minute(at, &points, now);
                put.and_then(|()| self.store.tidy(now))
            }
            Job::Forget(worker) => {
                self.flush();
                self.store.forget(&worker)
            }
            Job::Alerts(changes) => self.store.put_alerts(&changes),
            Job::Ask(ask) => {
                if !self.waiting.is_empty() {
                    self.flush();
                }
                ask(&self.store);
                Ok(())
            }
            Job::End => {
                self.flush();
                return true;
            }
        };
        self.report(done);
        false
    }

    fn flush(&mut self) {
        let entries = std::mem::take(&mut self.waiting);
        let done = self.store.put_links(&entries, clock::wall());
        self.report(done);
    }

    /// Logs each trouble once, and its end.
    fn report(&mut self, done: Result<(), StoreError>) {
        match (&done, self.trouble) {
            (Ok(()), true) => tracing::info!("the history of links is kept again"),
            (Err(error), false) => tracing::warn!("the history of links is not kept: {error}"),
            _ => {}
        }
        self.trouble = done.is_err();
    }
}
