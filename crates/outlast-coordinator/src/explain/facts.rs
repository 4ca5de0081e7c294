//! The facts that a task's explanation is made of.

use outlast_core::coord::Faults;
use outlast_model::LinkCause;
use outlast_store::{StoredCheckpoint, StoredEvent, StoredTask, TaskExtra};
use std::collections::HashMap;
use std::sync::Arc;

/// The present state of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Whereabouts {
    pub name: Arc<str>,
    /// Set while its link is up.
    pub there: bool,
    /// An operator lets it have no new work.
    pub drained: bool,
    /// Faults that it reports.
    pub unfit: Option<Arc<Faults>>,
    /// Time that its link ended, in Unix milliseconds.
    pub gone_at: Option<i64>,
    pub gone_cause: LinkCause,
}

impl Whereabouts {
    /// Returns whether it takes no work because its machine is at fault.
    pub fn is_unfit(&self) -> bool {
        self.unfit.as_ref().is_some_and(|f| f.unfit)
    }
}

/// The facts of a task. Times are Unix milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub task: StoredTask,
    pub extra: TaskExtra,
    /// In the order in which they were recorded.
    pub events: Vec<StoredEvent>,
    /// Checkpoints by epoch and number.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// The scheduler's reason for having no worker for it.
    pub waiting_for: Option<String>,
    /// Workers by store id.
    pub workers: HashMap<Arc<str>, Whereabouts>,
    pub now: i64,
}

impl Facts {
    /// The name of the worker with this store.
    pub fn name(&self, store: Option<&Arc<str>>) -> String {
        let Some(store) = store else { return "a worker".into() };
        let shown = self.task.worker.as_ref().filter(|w| *w == store);
        let known = self.workers.get(store).map(|w| &w.name);
        let name = known.or(shown.and(self.task.worker_name.as_ref()));
        name.map_or_else(|| format!("a worker that was removed ({store})"), ToString::to_string)
    }
}
