//! Events for those who watch: made from what was committed, so never ahead of the disk.

use crate::otel::backlog::Backlog;
use outlast_core::records::{Batch, CoordRecord, TaskState, WorkerRow};
use outlast_wire::api::Alert;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events kept for a slow watcher; it gets the number of those that it missed.
const BACKLOG: usize = 4096;

/// One event.
#[derive(Debug, Clone)]
pub(crate) enum FeedEvent {
    Task {
        id: Arc<str>,
        event: &'static str,
        epoch: u64,
        worker: Option<Arc<str>>,
        at: i64,
        reason: String,
        state: Option<TaskState>,
    },
    Worker {
        name: Arc<str>,
        event: &'static str,
        at: i64,
        reason: String,
    },
    /// Not committed: it is measured.
    Alert(Box<Alert>),
}

/// Sends what was committed to those who watch. Owned by the writer.
pub(crate) struct Feed {
    watchers: broadcast::Sender<Arc<FeedEvent>>,
    /// Names by store id.
    names: HashMap<Arc<str>, Arc<str>>,
    /// Ended tasks that are to be exported.
    backlog: Option<Arc<Backlog>>,
}

impl Feed {
    pub fn new<'a>(
        workers: impl Iterator<Item = &'a WorkerRow>,
        backlog: Option<Arc<Backlog>>,
    ) -> Feed {
        let names = workers.map(|w| (w.store_id.clone(), w.name.clone())).collect();
        Feed { watchers: broadcast::Sender::new(BACKLOG), names, backlog }
    }

    pub fn watchers(&self) -> broadcast::Sender<Arc<FeedEvent>> {
        self.watchers.clone()
    }

    pub fn publish(&mut self, batch: &Batch<CoordRecord>) {
        let logged = tracing::enabled!(tracing::Level::DEBUG);
        for record in &batch.records {
            if logged {
                log(record);
            }
            if let Some(backlog) = &self.backlog {
                backlog.see(record);
            }
            if let CoordRecord::WorkerSeen { worker, .. } = record {
                self.names.insert(worker.store_id.clone(), worker.name.clone());
            }
            if self.watchers.receiver_count() > 0
                && let Some(happened) = self.event(record)
            {
                let _ = self.watchers.send(Arc::new(happened));
            }
            if let CoordRecord::WorkerForgotten { worker, .. } = record {
                self.names.remove(worker);
            }
        }
    }

    /// The event of a record, if those who watch are to see it.
    fn event(&self, record: &CoordRecord) -> Option<FeedEvent> {
        use CoordRecord as R;
        let task =
            |id: &Arc<str>, event, epoch, worker: Option<&Arc<str>>, at, reason: &str, state| {
                let (worker, reason) = (worker.map(|w| self.name(w)), reason.to_owned());
                Some(FeedEvent::Task { id: id.clone(), event, epoch, worker, at, reason, state })
            };
        let pending = Some(TaskState::Pending);
        match record {
            R::Submitted { task: id, at, .. } => task(id, "submitted", 0, None, *at, "", pending),
            R::Assigned { task: id, epoch, worker, at } => {
                task(id, "assigned", *epoch, Some(worker), *at, "", Some(TaskState::Assigned))
            }
            R::Started { task: id, epoch, at, .. } => {
                task(id, "started", *epoch, None, *at, "", None)
            }
            R::Requeued { task: id, epoch, reason, at, .. } => {
                task(id, "requeued", *epoch, None, *at, reason, pending)
            }
            R::Ended { task: id, epoch, state, reason, worker, at, .. } => {
                task(id, state.as_str(), *epoch, worker.as_ref(), *at, reason, Some(*state))
            }
            R::Superseded { task: id, epoch, reason, worker, at, .. } => {
                task(id, "superseded", *epoch, Some(worker), *at, reason, None)
            }
            R::CancelRequested { task: id, at } => {
                task(id, "cancel_requested", 0, None, *at, "", None)
            }
            R::Retried { task: id, at } => task(id, "retried", 0, None, *at, "", pending),
            R::Noted { task: id, epoch, note, at } => {
                task(id, "noted", *epoch, None, *at, note, None)
            }
            R::Checkpoint { checkpoint: c, worker, at } => {
                let what = if c.dropped { "dropped " } else { "" };
                let reason = format!("{what}{} of {} bytes", c.id(), c.size);
                task(&c.task, "checkpoint", c.epoch, Some(worker), *at, &reason, None)
            }
            R::Paused { task: id, on, at } => {
                let event = if *on { "pause_requested" } else { "resume_requested" };
                task(id, event, 0, None, *at, "", None)
            }
            R::State { update } => {
                let reason = update.progress.map_or_else(String::new, |p| format!("{p:.4}"));
                task(&update.task, "state", update.epoch, None, update.at_ms, &reason, None)
            }
            R::Recovered { task: id, epoch, decision, at, .. } => {
                task(id, "recovery", *epoch, None, *at, &decision.text, None)
            }
            of_worker => self.of_worker(of_worker),
        }
    }

    /// The same of a record about a worker.
    fn of_worker(&self, record: &CoordRecord) -> Option<FeedEvent> {
        use CoordRecord as R;
        let worker = |name: Arc<str>, event, at: &i64, reason: &str| {
            Some(FeedEvent::Worker { name, event, at: *at, reason: reason.to_owned() })
        };
        match record {
            R::WorkerSeen { worker: row, at } => worker(row.name.clone(), "connected", at, ""),
            R::WorkerGone { worker: id, reason, at, .. } => {
                worker(self.name(id), "disconnected", at, reason)
            }
            R::WorkerForgotten { worker: id, at } => worker(self.name(id), "forgotten", at, ""),
            R::WorkerDrained { worker: id, on, at } => {
                worker(self.name(id), if *on { "drained" } else { "undrained" }, at, "")
            }
            R::WorkerUnbound { worker: id, at } => worker(self.name(id), "unbound", at, ""),
            _ => None,
        }
    }

    /// The name of the worker with this store.
    fn name(&self, store: &Arc<str>) -> Arc<str> {
        self.names.get(store).unwrap_or(store).clone()
    }
}

/// Ends and checkpoints, for who wants every one of them in the log.
fn log(record: &CoordRecord) {
    use CoordRecord as R;
    match record {
        R::Ended { task, epoch, state, reason, .. } => {
            tracing::debug!("TASK {task} attempt {epoch}: {} {reason}", state.as_str());
        }
        R::Requeued { task, epoch, reason, .. } => {
            tracing::debug!("TASK {task} attempt {epoch}: requeued: {reason}");
        }
        R::Checkpoint { checkpoint: c, .. } => {
            tracing::debug!("CHECKPOINT {} of {}: {} bytes", c.id(), c.task, c.size);
        }
        _ => {}
    }
}
