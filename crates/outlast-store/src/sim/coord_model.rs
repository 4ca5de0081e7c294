//! The coordinator's store as a model: its state in memory, and the change that each record makes to it.

use super::disk::Model;
use crate::StoreError;
use crate::types::{EventKind, PastOutcome, StoredEvent};
use outlast_core::coord::may_come_again;
use outlast_core::ids::TaskId;
use outlast_core::records::{CoordRecord, Reported, TaskRow, TaskState, WorkerRow};
use outlast_core::recovery::{Failure, Learned, Quarantine};
use outlast_model::TaskSpec;
use outlast_model::{Cause, Checkpoint, Lane, StateUpdate, TaskOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state that records change.
#[derive(Debug, Clone, Default)]
pub(super) struct Coord {
    pub(super) id: Arc<str>,
    pub(super) last_number: u64,
    pub(super) numbers: BTreeMap<TaskId, u64>,
    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) workers: BTreeMap<Arc<str>, WorkerRow>,
    pub(super) cursors: BTreeMap<(Arc<str>, Lane), u64>,
    pub(super) orphans: Vec<PastOutcome>,
    pub(super) removed: BTreeMap<TaskId, u64>,
    pub(super) failures: BTreeMap<u64, Failure>,
    pub(super) quarantines: BTreeMap<Arc<str>, Quarantine>,
    pub(super) learned: BTreeMap<(String, String), Learned>,
}

/// A task, with its history written out in full.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) row: TaskRow,
    /// The worker of the newest attempt, also after its end.
    pub(super) held_by: Option<Arc<str>>,
    pub(super) outcome: Option<Arc<TaskOutcome>>,
    pub(super) history: Vec<StoredEvent>,
    pub(super) superseded: Vec<PastOutcome>,
    /// All reported checkpoints, with whether they are kept.
    pub(super) checkpoints: BTreeMap<(u64, u64), (Arc<Checkpoint>, bool)>,
    pub(super) state: Option<Arc<StateUpdate>>,
    /// Every outcome that was recorded: attempt, worker, outcome.
    pub(super) outcomes: Vec<(u64, Option<Arc<str>>, Arc<TaskOutcome>)>,
}

impl Model for Coord {
    type Record = CoordRecord;

    fn apply(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::Submitted { task, number, spec, after, owner: _, at } => {
                return self.on_submitted(task, *number, spec, *after, *at);
            }
            R::TasksRemoved { tasks, before, at: _ } => return self.on_removed(tasks, *before),
            R::Assigned { .. } | R::Started { .. } | R::Requeued { .. } | R::Ended { .. } => {
                return self.on_attempt(record);
            }
            R::Superseded { .. } => self.on_superseded(record),
            R::CancelRequested { .. }
            | R::Retried { .. }
            | R::Noted { .. }
            | R::Paused { .. }
            | R::Asked { .. } => return self.on_request(record),
            R::Recovered { .. }
            | R::FailureSeen { .. }
            | R::FailuresForgotten { .. }
            | R::Quarantined { .. }
            | R::Learned { .. }
            | R::Unlearned { .. } => return self.on_recovery(record),
            R::WorkerSeen { .. }
            | R::WorkerGone { .. }
            | R::WorkerDrained { .. }
            | R::WorkerUnbound { .. }
            | R::WorkerForgotten { .. }
            | R::Cursor { .. } => self.on_worker(record),
            R::Checkpoint { .. } | R::CheckpointsPruned { .. } | R::State { .. } => {
                self.on_report(record);
            }
        }
        Ok(())
    }
}

impl Coord {
    /// A task by its id.
    pub(super) fn find(&self, id: &str) -> Option<&Task> {
        self.numbers.get(id).and_then(|n| self.tasks.get(n))
    }

    fn known(&mut self, id: &str) -> Result<&mut Task, StoreError> {
        let task = self.numbers.get(id).and_then(|n| self.tasks.get_mut(n));
        task.ok_or_else(|| StoreError::Contradiction(format!("there is no task {id}")))
    }

    fn on_submitted(
        &mut self,
        id: &TaskId,
        number: u64,
        spec: &Arc<TaskSpec>,
        after: u64,
        at: i64,
    ) -> Result<(), StoreError> {
        if self.numbers.contains_key(id) || self.tasks.contains_key(&number) {
            return Err(StoreError::Contradiction(format!("{id}, {number}: not new")));
        }
        let row = TaskRow::submitted(id.clone(), number, spec.clone(), after);
        let mut task = Task {
            row,
            held_by: None,
            outcome: None,
            history: Vec::new(),
            superseded: Vec::new(),
            checkpoints: BTreeMap::new(),
            state: None,
            outcomes: Vec::new(),
        };
        task.record(at, EventKind::Submitted, 0, None, "");
        self.last_number = self.last_number.max(number);
        self.numbers.insert(id.clone(), number);
        self.tasks.insert(number, task);
        Ok(())
    }

    fn on_removed(&mut self, tasks: &[TaskId], before: i64) -> Result<(), StoreError> {
        for id in tasks {
            let Some(number) = self.numbers.remove(id) else { continue };
            let Some(task) = self.tasks.remove(&number) else { continue };
            if !task.row.state.is_terminal() {
                return Err(StoreError::Contradiction(format!("{id} goes on")));
            }
            if may_come_again(id) {
                self.removed.insert(id.clone(), task.row.epoch);
            }
        }
        self.orphans.retain(|o| o.event.at >= before);
        Ok(())
    }

    /// Applies a record of an attempt.
    fn on_attempt(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::Assigned { task, epoch, worker, at } => {
                let task = self.known(task)?;
                task.back_to_pending();
                task.row.state = TaskState::Assigned;
                task.row.epoch = *epoch;
                task.row.assigned.worker = Some(worker.clone());
                task.held_by = Some(worker.clone());
                task.record(*at, EventKind::Assigned, *epoch, Some(worker.clone()), "");
            }
            R::Started { task, epoch, started_at, at: _ } => {
                let task = self.known(task)?;
                if task.is_current(*epoch) && task.row.assigned.started_at.is_none() {
                    task.row.assigned.started_at = Some(*started_at);
                }
                let worker = task.holder(*epoch);
                task.record(*started_at, EventKind::Started, *epoch, worker, "");
            }
            R::Requeued { task, epoch, retries, reason, cause, outcome, at } => {
                let task = self.known(task)?;
                let worker = task.holder(*epoch);
                task.keep(*epoch, worker.clone(), outcome.as_ref());
                let started = outcome.as_ref().map(|o| o.started_at_ms).filter(|ms| *ms > 0);
                if let (true, None, Some(ms)) =
                    (task.is_current(*epoch), task.row.assigned.started_at, started)
                {
                    task.record(ms, EventKind::Started, *epoch, worker.clone(), "");
                }
                task.record(*at, EventKind::Requeued, *epoch, worker, reason);
                task.because(*cause);
                task.back_to_pending();
                task.row.losses.retries = *retries;
            }
            R::Ended { task: id, epoch, state, reason, cause, outcome, worker, at } => {
                let kind = EventKind::of_end(*state)
                    .ok_or_else(|| StoreError::Contradiction(format!("{id} cannot end so")))?;
                let task = self.known(id)?;
                task.keep(*epoch, worker.clone(), outcome.as_ref());
                let started = outcome.as_ref().map(|o| o.started_at_ms);
                let started = started.filter(|ms| *ms > 0 && *epoch != 0);
                let same_worker = worker.is_none() || *worker == task.held_by;
                let current = task.is_current(*epoch) && same_worker;
                // A result has a start that was not reported.
                if let (true, None, Some(ms)) = (current, task.row.assigned.started_at, started) {
                    task.record(ms, EventKind::Started, *epoch, task.holder(*epoch), "");
                }
                let goes_on = current
                    || (task.row.state == TaskState::Assigned && *epoch == 0 && same_worker);
                task.row.assigned.started_at =
                    task.row.assigned.started_at.filter(|_| goes_on).or(started);
                task.record(*at, kind, *epoch, worker.clone(), reason);
                task.because(*cause);
                task.row.losses.lost = *state == TaskState::Failed && cause.is_loss();
                task.row.state = *state;
                task.row.assigned.cancelling = false;
                task.row.assigned.worker = None;
                task.held_by = worker.clone().or(task.held_by.take());
                task.outcome = outcome.clone();
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps an outcome that does not count, also of an unknown task.
    fn on_superseded(&mut self, record: &CoordRecord) {
        let CoordRecord::Superseded { task: id, epoch, reason, outcome, worker, at } = record
        else {
            return;
        };
        let (kind, worker) = (EventKind::Superseded, Some(worker.clone()));
        let (at, epoch, reason) = (*at, *epoch, reason.clone());
        let cause = outcome.cause;
        let decision = None;
        let event = StoredEvent { at, kind, epoch, worker, reason, cause, decision };
        let outcome = outcome.clone();
        let past = PastOutcome { task: id.clone(), event: event.clone(), outcome };
        match self.known(id) {
            Ok(task) => {
                task.keep(epoch, event.worker.clone(), Some(&past.outcome));
                task.history.push(event);
                task.superseded.push(past);
            }
            Err(_) => self.orphans.push(past),
        }
    }

    /// Applies a record of an operator's request.
    fn on_request(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::CancelRequested { task, at } => {
                let task = self.known(task)?;
                task.row.assigned.cancelling = true;
                let (epoch, worker) = (task.row.epoch, task.held_by.clone());
                task.record(*at, EventKind::CancelRequested, epoch, worker, "");
            }
            R::Retried { task, at } => {
                let task = self.known(task)?;
                task.record(*at, EventKind::Retried, task.row.epoch, None, "");
                task.back_to_pending();
                task.row.losses.retries = 0;
                task.row.recovery = None;
                task.row.assigned.cancelling = false;
                task.row.paused = false;
            }
            R::Noted { task, epoch, note, at } => {
                self.known(task)?.record(*at, EventKind::Noted, *epoch, None, note);
            }
            R::Paused { task, on, at } => {
                let task = self.known(task)?;
                task.row.paused = *on;
                let kind = if *on { EventKind::PauseRequested } else { EventKind::ResumeRequested };
                let (epoch, worker) = (task.row.epoch, task.held_by.clone());
                task.record(*at, kind, epoch, worker, "");
            }
            R::Asked { task, asked } => self.known(task)?.row.asked = asked.clone(),
            _ => {}
        }
        Ok(())
    }

    /// Applies a record of recovery.
    fn on_recovery(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::Recovered { task, epoch, decision, state, at } => {
                let task = self.known(task)?;
                task.record(*at, EventKind::Recovery, *epoch, None, &decision.text);
                if let Some(event) = task.history.last_mut() {
                    event.decision = Some(decision.clone());
                }
                task.row.recovery = Some(state.clone());
            }
            R::FailureSeen { failure, forget } => {
                self.failures.retain(|number, _| number > forget);
                self.failures.insert(failure.number, Failure::clone(failure));
            }
            R::FailuresForgotten { worker, task_type } => {
                self.failures.retain(|_, f| {
                    worker.as_ref().is_some_and(|w| **w != *f.worker)
                        || task_type.as_ref().is_some_and(|t| *t != f.task_type)
                });
            }
            R::Quarantined { worker, quarantine } => match quarantine {
                Some(q) => drop(self.quarantines.insert(worker.clone(), Quarantine::clone(q))),
                None => drop(self.quarantines.remove(worker)),
            },
            R::Learned { learned } => {
                let place = (learned.task_type.clone(), learned.hardware.clone());
                self.learned.insert(place, Learned::clone(learned));
            }
            R::Unlearned { task_type, hardware } => {
                self.learned.retain(|(kind, on), _| {
                    task_type.as_ref().is_some_and(|t| t != kind)
                        || hardware.as_ref().is_some_and(|h| h != on)
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Applies a record of a worker.
    fn on_worker(&mut self, record: &CoordRecord) {
        use CoordRecord as R;
        match record {
            R::WorkerSeen { worker, at: _ } => {
                self.workers.insert(worker.store_id.clone(), WorkerRow::clone(worker));
            }
            R::WorkerDrained { worker, on, at: _ } => {
                if let Some(row) = self.workers.get_mut(worker) {
                    row.drained = *on;
                }
            }
            R::WorkerUnbound { worker, at: _ } => {
                if let Some(row) = self.workers.get_mut(worker) {
                    row.principal = "".into();
                }
            }
            R::WorkerForgotten { worker, at: _ } => {
                self.workers.remove(worker);
                self.cursors.retain(|(id, _), _| id != worker);
            }
            R::Cursor { worker, lane, seq } => {
                let last = self.cursors.entry((worker.clone(), *lane)).or_default();
                *last = (*last).max(*seq);
            }
            _ => {}
        }
    }

    /// Applies a record of a checkpoint or state. One of an unknown task is ignored.
    fn on_report(&mut self, record: &CoordRecord) {
        use CoordRecord as R;
        match record {
            R::Checkpoint { checkpoint, worker: _, at: _ } => {
                if let Ok(task) = self.known(&checkpoint.task) {
                    let place = (checkpoint.epoch, checkpoint.number);
                    let new = (checkpoint.clone(), !checkpoint.dropped);
                    task.checkpoints.entry(place).or_insert(new);
                }
            }
            R::CheckpointsPruned { task, which, at: _ } => {
                let Ok(task) = self.known(task) else { return };
                for place in which {
                    if let Some((_, kept)) = task.checkpoints.get_mut(place) {
                        *kept = false;
                    }
                }
            }
            R::State { update } => {
                if let Ok(task) = self.known(&update.task) {
                    let known = task.state.as_ref().map_or((0, 0), |s| (s.epoch, s.version));
                    if (update.epoch, update.version) > known {
                        task.state = Some(update.clone());
                    }
                }
            }
            _ => {}
        }
    }
}

impl Task {
    fn record(
        &mut self,
        at: i64,
        kind: EventKind,
        epoch: u64,
        worker: Option<Arc<str>>,
        reason: &str,
    ) {
        let (reason, cause) = (reason.to_owned(), Cause::Unspecified);
        let decision = None;
        self.history.push(StoredEvent { at, kind, epoch, worker, reason, cause, decision });
    }

    fn keep(&mut self, epoch: u64, worker: Option<Arc<str>>, outcome: Option<&Arc<TaskOutcome>>) {
        self.outcomes.extend(outcome.map(|o| (epoch, worker, o.clone())));
    }

    /// Sets the cause of the newest entry.
    fn because(&mut self, cause: Cause) {
        if let Some(event) = self.history.last_mut() {
            event.cause = cause;
        }
    }

    /// The task as the core knows it.
    pub(super) fn as_row(&self) -> TaskRow {
        let is_kept = |c: &&(Arc<Checkpoint>, bool)| c.1 && c.0.artifact.is_empty();
        let kept = self.checkpoints.values().filter(is_kept);
        TaskRow {
            reported: Reported {
                checkpoints: kept.map(|(c, _)| c.clone()).collect(),
                state_version: self.state.as_ref().map_or((0, 0), |s| (s.epoch, s.version)),
            },
            ..self.row.clone()
        }
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.row.state == TaskState::Assigned && self.row.epoch == epoch
    }

    /// The worker of the newest attempt, if that is the attempt meant.
    fn holder(&self, epoch: u64) -> Option<Arc<str>> {
        self.held_by.clone().filter(|_| self.row.epoch == epoch)
    }

    fn back_to_pending(&mut self) {
        self.row.state = TaskState::Pending;
        self.row.assigned.worker = None;
        self.row.assigned.started_at = None;
        self.row.losses.lost = false;
        self.held_by = None;
        self.outcome = None;
    }
}
