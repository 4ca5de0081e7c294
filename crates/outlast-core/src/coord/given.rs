//! Assignment check of attempts. A report about an attempt counts only if the attempt was assigned to
//! this worker's store, in every lane and in both dialects; other reports are counted and dropped, and
//! the lane continues.
//!
//! The current attempt is in memory, earlier ones are in the store: an assignment is durable before it
//! is sent, so every attempt that a worker can rightly report is on record.

use super::{Coordinator, Lookup, Output};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, Millis, Now};
use std::sync::Arc;

/// Between two warnings of this kind in the log, in milliseconds.
const WARN_EVERY: Millis = 1_000;
/// The kind of a dropped artifact.
pub(super) const ARTIFACT: &str = "artifact";

/// Recorded assignment of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The worker with this store id.
    To(Arc<str>),
    /// No known worker, but the records may be lost: the store was restored from a backup, and the
    /// attempt may have been assigned after that was made.
    Unrecorded,
    /// The attempt was not assigned; or the task is not known.
    Never,
}

impl Coordinator {
    /// Returns true if the attempt was assigned to this worker.
    pub(super) fn is_given(&self, key: WorkerKey, id: &AttemptId, look: &dyn Lookup) -> bool {
        let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
        current
            || match self.given(id, look) {
                Given::To(store) => store == self.fleet.get(key).row.store_id,
                Given::Unrecorded => true,
                Given::Never => false,
            }
    }

    /// Returns true if the attempt is recorded as assigned to this worker.
    pub(super) fn was_given(&self, key: WorkerKey, id: &AttemptId, look: &dyn Lookup) -> bool {
        let store = &self.fleet.get(key).row.store_id;
        matches!(self.given(id, look), Given::To(given) if given == *store)
    }

    fn given(&self, id: &AttemptId, look: &dyn Lookup) -> Given {
        if id.epoch == 0 || self.removed.contains_key(&id.task) {
            return Given::Never;
        }
        look.given(&id.task, id.epoch)
    }

    /// Drops what a worker says of an attempt that it was not given, or an artifact whose name
    /// cannot be.
    pub(super) fn drop_foreign(
        &mut self,
        now: Now,
        key: WorkerKey,
        what: &'static str,
        task: &str,
        epoch: Epoch,
    ) {
        *self.counters.foreign.entry(what).or_default() += 1;
        if self.warned.is_some_and(|at| now.mono < at + WARN_EVERY) {
            return;
        }
        self.warned = Some(now.mono);
        let name = &self.fleet.get(key).row.name;
        let total: u64 = self.counters.foreign.values().sum();
        // Whoever sends it chooses the id.
        let task: String = task.chars().take(128).collect();
        let why = match what {
            ARTIFACT => "its name leads out of a folder",
            _ => "it was never given to this worker, or its task was removed",
        };
        let warning = format!(
            "worker {name}: {what} of attempt {epoch} of task {task:?} is dropped: {why} ({total} \
             records dropped so since the start)"
        );
        self.outputs.push_back(Output::Warn(warning));
    }
}
