//! The coordinator's store for the simulator: what is written, synced, lost, and read of it.

use super::coord_model::{Coord, Task};
use super::disk::{Disk, crashing};
use crate::types::{EventKind, PastOutcome, StoredEvent};
use crate::{CoordStorage, StoreError};
use outlast_core::coord::{Given, PastAttempt};
use outlast_core::ids::TaskId;
use outlast_core::records::{Batch, CoordRecord, CoordSnapshot, TaskRow, WorkerRow};
use outlast_model::{Checkpoint, StateUpdate, TaskOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A coordinator's store that forgets, in a crash, what was not synced.
#[derive(Debug, Clone)]
pub struct SimCoordStore {
    disk: Disk<Coord>,
}

crashing!(SimCoordStore, CoordRecord);

impl SimCoordStore {
    /// An empty store of the coordinator with this id.
    pub fn new(coordinator_id: impl Into<Arc<str>>) -> Self {
        SimCoordStore { disk: Disk::new(Coord { id: coordinator_id.into(), ..Coord::default() }) }
    }

    /// The snapshot that a coordinator that starts now is given.
    pub fn snapshot(&self) -> CoordSnapshot {
        let model = &self.disk.written;
        let of = |worker: &WorkerRow| {
            let lanes = model.cursors.iter().filter(|((id, _), _)| *id == worker.store_id);
            lanes.map(|((_, lane), seq)| (*lane, *seq)).collect()
        };
        CoordSnapshot {
            coordinator_id: model.id.clone(),
            last_number: model.last_number,
            tasks: (model.tasks.values())
                .filter(|t| !t.row.state.is_terminal())
                .map(Task::as_row)
                .collect(),
            workers: model.workers.values().map(|w| (w.clone(), of(w))).collect(),
            failures: model.failures.values().cloned().collect(),
            quarantines: model.quarantines.iter().map(|(w, q)| (w.clone(), q.clone())).collect(),
            learned: model.learned.values().cloned().collect(),
        }
    }

    /// A task as the core knows it, over or not.
    pub fn task_row(&self, id: &str) -> Option<TaskRow> {
        self.disk.written.find(id).map(Task::as_row)
    }

    /// The task's result, when it has ended and has one.
    pub fn outcome(&self, id: &str) -> Option<Arc<TaskOutcome>> {
        self.disk.written.find(id).and_then(|t| t.outcome.clone())
    }

    /// The history as it was recorded of a task, in that order; empty for an unknown one.
    pub fn history(&self, id: &str) -> Vec<StoredEvent> {
        self.disk.written.find(id).map(|t| t.history.clone()).unwrap_or_default()
    }

    /// The outcomes of this task that did not count; those that came before it was known first.
    pub fn superseded(&self, id: &str) -> Vec<PastOutcome> {
        let model = &self.disk.written;
        let known = model.find(id).map(|t| t.superseded.clone()).unwrap_or_default();
        let before = model.orphans.iter().filter(|o| &*o.task == id).cloned();
        before.chain(known).collect()
    }

    /// Outcomes of tasks that were not known when they came, oldest first.
    pub fn orphans(&self) -> &[PastOutcome] {
        &self.disk.written.orphans
    }

    /// The newest state that the task reported.
    pub fn state(&self, id: &str) -> Option<Arc<StateUpdate>> {
        self.disk.written.find(id).and_then(|t| t.state.clone())
    }

    /// The checkpoints that were reported, with whether they are kept; by epoch and number.
    pub fn checkpoints(&self, id: &str) -> Vec<(Arc<Checkpoint>, bool)> {
        let known = self.disk.written.find(id).map(|t| t.checkpoints.values().cloned().collect());
        known.unwrap_or_default()
    }

    /// A task as a reader beside the writer sees it: what is not synced is not visible yet.
    pub fn committed_row(&self, id: &str) -> Option<TaskRow> {
        self.disk.synced.find(id).map(Task::as_row)
    }

    /// The newest attempt of a removed task of this id, as a reader sees it; 0 for none.
    pub fn former(&self, id: &str) -> u64 {
        self.disk.synced.removed.get(id).copied().unwrap_or(0)
    }

    /// The attempts of a task that this worker was given, by number, with the outcomes of each; as
    /// a reader sees it.
    pub fn attempts(&self, id: &str, worker: &str) -> Vec<PastAttempt> {
        let model = &self.disk.synced;
        let mut found: BTreeMap<u64, Vec<Arc<TaskOutcome>>> = BTreeMap::new();
        let of = |w: &Option<Arc<str>>| w.as_deref() == Some(worker);
        for past in model.orphans.iter().filter(|o| &*o.task == id && of(&o.event.worker)) {
            found.entry(past.event.epoch).or_default().push(past.outcome.clone());
        }
        if let Some(task) = model.find(id) {
            let given = |e: &&StoredEvent| e.kind == EventKind::Assigned && of(&e.worker);
            for event in task.history.iter().filter(given) {
                found.entry(event.epoch).or_default();
            }
            for (epoch, _, outcome) in task.outcomes.iter().filter(|(_, w, _)| of(w)) {
                found.entry(*epoch).or_default().push(outcome.clone());
            }
        }
        let attempt = |(epoch, outcomes)| PastAttempt { epoch, outcomes };
        found.into_iter().map(attempt).collect()
    }

    /// The worker that an attempt was assigned to, as a reader sees it.
    pub fn given(&self, id: &str, epoch: u64) -> Given {
        let given = |e: &&StoredEvent| e.kind == EventKind::Assigned && e.epoch == epoch;
        let task = self.disk.synced.find(id);
        let worker = task.and_then(|t| t.history.iter().rfind(given)?.worker.clone());
        worker.map_or(Given::Never, Given::To)
    }

    /// The newest state and all checkpoints of a task, as a reader sees them.
    pub fn committed_told(&self, id: &str) -> (Option<Arc<StateUpdate>>, Vec<Arc<Checkpoint>>) {
        let Some(task) = self.disk.synced.find(id) else { return Default::default() };
        (task.state.clone(), task.checkpoints.values().map(|(c, _)| c.clone()).collect())
    }

    /// The manifests that kept checkpoints refer to, as a reader sees it.
    pub fn referenced(&self) -> BTreeSet<Vec<u8>> {
        let all = self.disk.synced.tasks.values().flat_map(|t| t.checkpoints.values());
        all.filter(|(_, kept)| *kept).map(|(c, _)| c.manifest.to_vec()).collect()
    }

    /// The ids of all tasks, in order of submission.
    pub fn task_ids(&self) -> Vec<TaskId> {
        self.disk.written.tasks.values().map(|t| t.row.id.clone()).collect()
    }
}

impl CoordStorage for SimCoordStore {
    fn commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        self.write(batches)?;
        self.sync();
        Ok(())
    }
    fn snapshot(&self) -> Result<CoordSnapshot, StoreError> {
        Ok(self.snapshot())
    }
    fn task_row(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        Ok(self.task_row(id))
    }
}
