//! Workers and the attempts that run there: what must hold of their starts, reports and outcomes.

use super::Oracle;
use outlast_core::records::{Batch, TaskState, WorkerRecord};
use outlast_core::recovery::knobs;
use outlast_core::{AttemptId, TaskId};
use outlast_store::sim::SimCoordStore;
use outlast_wire::spec::Rerun;
use std::sync::Arc;

impl Oracle {
    /// A worker of the v1 dialect has a result of this task, or cancelled it.
    pub fn v1_finished(&mut self, task: &TaskId, store: &Arc<str>) {
        self.v1_finished.insert((store.clone(), task.clone()));
    }

    /// A worker's store synced this.
    pub fn worker_synced(&mut self, store: &Arc<str>, batches: &[Batch<WorkerRecord>]) {
        for record in batches.iter().flat_map(|b| &b.records) {
            match record {
                WorkerRecord::Finished { outcome, .. } => {
                    let task = outcome.task.clone();
                    self.finished.insert(AttemptId { task, epoch: outcome.epoch });
                }
                WorkerRecord::Acked { lane, seq } => {
                    self.acked(store, *lane, *seq, "a deletion up to");
                }
                WorkerRecord::Checkpoint { checkpoint: c, .. } => {
                    let task: TaskId = c.task.clone();
                    let id = AttemptId { task: task.clone(), epoch: c.epoch };
                    self.reported.insert((store.clone(), id, c.number));
                    self.checkpoints.insert((task, c.epoch, c.number), c.dropped);
                }
                WorkerRecord::State { update: u, .. } => {
                    let task: TaskId = u.task.clone();
                    let id = AttemptId { task: task.clone(), epoch: u.epoch };
                    self.reported.insert((store.clone(), id, u.version << 32));
                    let newest = self.states.entry(task).or_default();
                    *newest = (*newest).max((u.epoch, u.version));
                }
                _ => {}
            }
        }
    }

    /// A task has the answer that its checkpoint or state is durable.
    pub fn reported_durable(&mut self, store: &Arc<str>, (task, epoch): (&str, u64), what: u64) {
        let id = AttemptId { task: task.into(), epoch };
        if !self.reported.contains(&(store.clone(), id, what)) {
            self.fail(format!("I4: {task}.{epoch} was answered before it was synced"));
        }
    }

    /// A worker sent an outcome that is not durable there.
    pub fn offered(&mut self, task: &str, epoch: u64) {
        self.offered.insert(AttemptId { task: task.into(), epoch });
    }

    /// An executor finished an attempt, and its worker sent the outcome.
    pub fn sent(&mut self, task: &str, epoch: u64) {
        let id = AttemptId { task: task.into(), epoch };
        if !self.finished.contains(&id) {
            self.fail(format!("the outcome of {task}.{epoch} left before it was synced"));
        }
    }

    /// An attempt runs with this value of its knob; the decision names the one that it should be.
    pub fn runs_with(&mut self, id: &AttemptId, store: &SimCoordStore, value: &str) {
        let Some(row) = store.committed_row(&id.task).filter(|row| row.epoch == id.epoch) else {
            return;
        };
        // An operator's retry resets the knobs; an attempt from before it that comes back, and
        // is taken up again, has those that it was given.
        if self.tasks.get(&id.task).is_some_and(|task| id.epoch <= task.floor) {
            return;
        }
        let current = row.state == TaskState::Assigned;
        let state = row.recovery.as_deref().cloned().unwrap_or_default();
        let wanted = knobs::values(&row.spec.knobs, &state);
        let wanted = wanted.get("batch_size").map(knobs::text);
        if current && wanted.as_deref() != Some(value) {
            let (task, epoch) = (&id.task, id.epoch);
            self.fail(format!("{task}.{epoch} runs with {value}, and was to run with {wanted:?}"));
        }
    }

    /// An executor begins an attempt that continues from this checkpoint.
    pub fn begins_from(&mut self, id: &AttemptId, from: Option<(u64, u64)>) {
        let Some((place, of)) = self.named.get(&id.task).copied() else { return };
        let dropped = self.checkpoints.get(&(id.task.clone(), place.0, place.1)) == Some(&true);
        // Of two processes with one store only one has what the other made.
        let former = AttemptId { task: id.task.clone(), epoch: of };
        let two = [id, &former].iter().any(|a| self.copies.are_of(self.assigned.get(*a)));
        if id.epoch > of && from < Some(place) && !dropped && !two {
            let (task, epoch) = (&id.task, id.epoch);
            self.fail(format!(
                "{task}.{epoch} goes on from {from:?}: the newer {place:?} was passed over"
            ));
        }
    }

    /// An executor began an attempt.
    pub fn executed(&mut self, id: &TaskId, epoch: u64) {
        let task = self.tasks.entry(id.clone()).or_default();
        task.executions += u32::from(epoch > task.floor);
        let never = task.spec.as_ref().is_some_and(|s| s.rerun == Rerun::Never);
        if never && task.executions > 1 && !self.copies.waited(id) {
            let count = task.executions;
            self.fail(format!("{id} must not run twice, and ran {count} times"));
        }
    }
}
