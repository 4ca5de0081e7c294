//! The worker's store as a model.

use super::disk::{Disk, Model, crashing};
use crate::{StoreError, WorkerStorage};
use outlast_core::ids::TaskId;
use outlast_core::records::{AttemptRow, Batch, LostLink, WorkerRecord, WorkerSnapshot};
use outlast_model::{Checkpoint, Lane, StateUpdate, TaskOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A worker's store that forgets, in a crash, what was not synced.
#[derive(Debug, Clone)]
pub struct SimWorkerStore {
    disk: Disk<Worker>,
    store_id: Arc<str>,
    /// Incarnation of the running process; kept outside of the disk model because it is durable at once.
    incarnation: u64,
    /// The process before ended on purpose.
    ended_well: bool,
}

#[derive(Debug, Clone, Default)]
struct Worker {
    coordinator_id: Option<Arc<str>>,
    arrivals: u64,
    attempts: BTreeMap<u64, AttemptRow>,
    by_task: BTreeMap<TaskId, u64>,
    outbox: BTreeMap<(Lane, u64), Arc<TaskOutcome>>,
    checkpoints: BTreeMap<u64, Arc<Checkpoint>>,
    states: BTreeMap<u64, Arc<StateUpdate>>,
    next: BTreeMap<Lane, u64>,
    lost: Option<LostLink>,
}

crashing!(SimWorkerStore, WorkerRecord);

impl SimWorkerStore {
    /// An empty store with this id, not opened yet.
    pub fn new(store_id: impl Into<Arc<str>>) -> Self {
        let disk = Disk::new(Worker::default());
        SimWorkerStore { disk, store_id: store_id.into(), incarnation: 0, ended_well: false }
    }

    /// Returns the snapshot for a process that starts now, with a new incarnation, durable at once.
    pub fn open(&mut self) -> WorkerSnapshot {
        self.incarnation += 1;
        if !std::mem::take(&mut self.ended_well) {
            for model in [&mut self.disk.written, &mut self.disk.synced] {
                model.attempts.values_mut().for_each(|a| a.survived += 1);
            }
        }
        self.snapshot()
    }

    /// This process ends on purpose.
    pub fn end_well(&mut self) {
        self.ended_well = true;
    }

    /// Returns the stored state under the incarnation of the last [`open`](Self::open).
    pub fn snapshot(&self) -> WorkerSnapshot {
        let (model, results) = (&self.disk.written, Lane::Results);
        WorkerSnapshot {
            store_id: self.store_id.clone(),
            incarnation: self.incarnation,
            coordinator_id: model.coordinator_id.clone(),
            attempts: model.attempts.values().cloned().collect(),
            outbox: (model.outbox.range((results, 0)..=(results, u64::MAX)))
                .map(|((_, seq), outcome)| (*seq, outcome.clone()))
                .collect(),
            next_seq: model.next.get(&results).copied().unwrap_or(1),
            checkpoints: model.checkpoints.iter().map(|(s, c)| (*s, c.clone())).collect(),
            next_checkpoint: model.next.get(&(Lane::Checkpoints)).copied().unwrap_or(1),
            states: model.states.iter().map(|(s, u)| (*s, u.clone())).collect(),
            lost: model.lost,
            next_state: model.next.get(&(Lane::State)).copied().unwrap_or(1),
        }
    }

    /// Returns the number of unacknowledged outcomes.
    pub fn outbox_len(&self) -> usize {
        let model = &self.disk.written;
        model.outbox.len() + model.checkpoints.len() + model.states.len()
    }
}

impl WorkerStorage for SimWorkerStore {
    fn commit(&mut self, batches: &[Batch<WorkerRecord>]) -> Result<(), StoreError> {
        self.write(batches)?;
        self.sync();
        Ok(())
    }
    fn snapshot(&self) -> Result<WorkerSnapshot, StoreError> {
        Ok(self.snapshot())
    }
}

impl Worker {
    fn row(&mut self, task: &str, epoch: u64) -> Option<&mut AttemptRow> {
        let row = self.by_task.get(task).and_then(|a| self.attempts.get_mut(a))?;
        (row.epoch == epoch).then_some(row)
    }

    fn used(&mut self, lane: Lane, seq: u64) {
        let next = self.next.entry(lane).or_default();
        *next = (*next).max(seq + 1);
    }

    fn drop_attempt(&mut self, task: &str, epoch: u64) {
        let Some(arrival) = self.by_task.get(task).copied() else { return };
        if self.attempts.get(&arrival).is_some_and(|a| a.epoch == epoch) {
            self.attempts.remove(&arrival);
            self.by_task.remove(task);
        }
    }
}

impl Model for Worker {
    type Record = WorkerRecord;

    fn apply(&mut self, record: &WorkerRecord) -> Result<(), StoreError> {
        use WorkerRecord as R;
        match record {
            R::Accepted { task, epoch, spec, checkpoint, paused, after } => {
                self.arrivals += 1;
                if let Some(older) = self.by_task.insert(task.clone(), self.arrivals) {
                    self.attempts.remove(&older);
                }
                let (task, epoch, spec) = (task.clone(), *epoch, spec.clone());
                let row = AttemptRow {
                    task,
                    epoch,
                    spec,
                    started_at: None,
                    survived: 0,
                    made: 0,
                    paused: *paused,
                    after: *after,
                    checkpoint: checkpoint.clone(),
                    state: None,
                };
                self.attempts.insert(self.arrivals, row);
            }
            R::Starting { task, epoch, at } => {
                if let Some(row) = self.row(task, *epoch) {
                    row.started_at = Some(*at);
                }
            }
            R::Finished { lane, seq, outcome } => {
                self.drop_attempt(&outcome.task, outcome.epoch);
                if self.outbox.insert((*lane, *seq), outcome.clone()).is_some() {
                    return Err(StoreError::Contradiction(format!(
                        "{}, {seq}: not new",
                        lane.word()
                    )));
                }
                self.used(*lane, *seq);
            }
            R::Paused { task, epoch, on } => {
                if let Some(row) = self.row(task, *epoch) {
                    row.paused = *on;
                }
            }
            R::Checkpoint { seq, checkpoint } => {
                self.checkpoints.insert(*seq, checkpoint.clone());
                self.used(Lane::Checkpoints, *seq);
                if let Some(row) = self.row(&checkpoint.task, checkpoint.epoch) {
                    let newer = checkpoint.number >= row.made;
                    row.made = row.made.max(checkpoint.number);
                    if newer && !checkpoint.dropped && checkpoint.artifact.is_empty() {
                        row.checkpoint = Some(checkpoint.clone());
                    }
                }
            }
            R::State { seq, replaces, update } => {
                if let Some(old) = replaces {
                    self.states.remove(old);
                }
                self.states.insert(*seq, update.clone());
                self.used(Lane::State, *seq);
                if let Some(row) = self.row(&update.task, update.epoch) {
                    row.state = Some(update.clone());
                }
            }
            R::Dropped { task, epoch } => self.drop_attempt(task, *epoch),
            R::Acked { lane, seq } => {
                let lane = *lane;
                self.outbox.retain(|(l, s), _| *l != lane || *s > *seq);
                if lane == Lane::Checkpoints {
                    self.checkpoints.retain(|s, _| *s > *seq);
                } else if lane == Lane::State {
                    self.states.retain(|s, _| *s > *seq);
                }
            }
            R::LinkLost { at } => self.lost = at.map(|at| LostLink { at, same_boot: true }),
            R::Joined { coordinator_id } => self.coordinator_id = Some(coordinator_id.clone()),
        }
        Ok(())
    }
}
