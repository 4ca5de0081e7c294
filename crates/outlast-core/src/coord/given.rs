//! Assignment check of attempts. A report about an attempt counts only if the attempt was assigned to
//! this worker's store, in every lane and in both dialects; other reports are counted and dropped, and
//! the lane continues.
//!
//! The current attempt is in memory, earlier ones are in the store: an assignment is durable before it
//! is sent, so every attempt that a worker can rightly report is on record.

use super::coordinator::Coordinator;
use super::loads::{Facts, Given};
use super::output::Output;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, Millis, Now};

/// Between two warnings of this kind in the log, in milliseconds.
const WARN_EVERY: Millis = 1_000;
/// The kind of a dropped artifact.
pub(super) const ARTIFACT: &str = "artifact";

impl Coordinator {
    /// Returns true if the attempt was assigned to this worker.
    pub(super) fn is_given(&self, key: WorkerKey, id: &AttemptId, facts: &Facts) -> bool {
        let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
        let store = &self.fleet.get(key).row.store_id;
        let listed = || {
            !self.tasks.is_removed(id)
                && (facts.lists(&id.task, id.epoch, store) || self.undurable.ended(store, id))
        };
        current
            || listed()
            || match self.given(id, facts) {
                Given::To(given) => given == *store,
                Given::Unrecorded => true,
                Given::Never => false,
            }
    }

    /// Returns true if the attempt is recorded as assigned to this worker.
    pub(super) fn was_given(&self, key: WorkerKey, id: &AttemptId, facts: &Facts) -> bool {
        let store = &self.fleet.get(key).row.store_id;
        matches!(self.given(id, facts), Given::To(given) if given == *store)
    }

    fn given(&self, id: &AttemptId, facts: &Facts) -> Given {
        if id.epoch == 0 || self.tasks.is_removed(id) {
            return Given::Never;
        }
        facts.given(&id.task, id.epoch)
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
        *self.counters.outbox.foreign.entry(what).or_default() += 1;
        if self.timers.warned.is_some_and(|at| now.mono < at + WARN_EVERY) {
            return;
        }
        self.timers.warned = Some(now.mono);
        let name = &self.fleet.get(key).row.name;
        let total: u64 = self.counters.outbox.foreign.values().sum();
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
        self.journal.output(Output::Warn(warning));
    }
}
