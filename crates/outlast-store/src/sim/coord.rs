//! The coordinator's store as a model: tasks with their history written out in full.

use super::{Disk, Model};
use crate::types::{EventKind, PastOutcome, StoredEvent};
use crate::{CoordStorage, StoreError};
use outlast_core::coord::{Given, PastAttempt, may_come_again};
use outlast_core::ids::TaskId;
use outlast_core::records::{
    Asked, Batch, CoordRecord, CoordSnapshot, TaskRow, TaskState, WorkerRow,
};
use outlast_core::recovery::{Failure, Learned, Quarantine};
use outlast_wire::v2::{Cause, Checkpoint, StateUpdate, TaskOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A coordinator's store that forgets, in a crash, what was not synced.
#[derive(Debug, Clone)]
pub struct SimCoordStore {
    disk: Disk<Coord>,
}

#[derive(Debug, Clone, Default)]
struct Coord {
    id: Arc<str>,
    last_number: u64,
    numbers: BTreeMap<TaskId, u64>,
    tasks: BTreeMap<u64, Task>,
    workers: BTreeMap<Arc<str>, WorkerRow>,
    cursors: BTreeMap<(Arc<str>, i32), u64>,
    orphans: Vec<PastOutcome>,
    removed: BTreeMap<TaskId, u64>,
    failures: BTreeMap<u64, Failure>,
    quarantines: BTreeMap<Arc<str>, Quarantine>,
    learned: BTreeMap<(String, String), Learned>,
}

#[derive(Debug, Clone)]
struct Task {
    row: TaskRow,
    /// The worker of the newest attempt, also after its end.
    held_by: Option<Arc<str>>,
    outcome: Option<Arc<TaskOutcome>>,
    history: Vec<StoredEvent>,
    superseded: Vec<PastOutcome>,
    /// All that were told of, with whether they are kept.
    checkpoints: BTreeMap<(u64, u64), (Arc<Checkpoint>, bool)>,
    state: Option<Arc<StateUpdate>>,
    /// Every outcome that was recorded: attempt, worker, outcome.
    outcomes: Vec<(u64, Option<Arc<str>>, Arc<TaskOutcome>)>,
}

impl SimCoordStore {
    /// An empty store of the coordinator with this id.
    pub fn new(coordinator_id: impl Into<Arc<str>>) -> Self {
        SimCoordStore { disk: Disk::new(Coord { id: coordinator_id.into(), ..Coord::default() }) }
    }

    /// Applies the batches; a crash still undoes them.
    ///
    /// # Errors
    /// [`StoreError::Contradiction`]; then none was applied.
    pub fn write(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        self.disk.write(batches)
    }

    /// Makes durable whatever was written.
    pub fn sync(&mut self) {
        self.disk.sync();
    }

    /// How many batches were written and not synced.
    pub fn unsynced(&self) -> usize {
        self.disk.unsynced.len()
    }

    /// Loses whatever was not synced.
    pub fn crash(&mut self) {
        self.disk.crash(0);
    }

    /// Loses whatever was not synced but the first `kept` batches: a disk may have written some.
    pub fn crash_keeping(&mut self, kept: usize) {
        self.disk.crash(kept);
    }

    /// What a coordinator that starts now would be given.
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

    /// The task's result, when it is over and has one.
    pub fn outcome(&self, id: &str) -> Option<Arc<TaskOutcome>> {
        self.disk.written.find(id).and_then(|t| t.outcome.clone())
    }

    /// Everything that was recorded of a task, in that order; empty for an unknown one.
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

    /// The newest state that the task told.
    pub fn state(&self, id: &str) -> Option<Arc<StateUpdate>> {
        self.disk.written.find(id).and_then(|t| t.state.clone())
    }

    /// The checkpoints that were told of, with whether they are kept; by epoch and number.
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

    /// Whom an attempt was given to, as a reader sees it.
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

impl Coord {
    fn find(&self, id: &str) -> Option<&Task> {
        self.numbers.get(id).and_then(|n| self.tasks.get(n))
    }

    fn known(&mut self, id: &str) -> Result<&mut Task, StoreError> {
        let task = self.numbers.get(id).and_then(|n| self.tasks.get_mut(n));
        task.ok_or_else(|| StoreError::Contradiction(format!("there is no task {id}")))
    }
}

impl Task {
    fn tell(
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

    /// Says why, in the newest entry.
    fn because(&mut self, cause: Cause) {
        if let Some(event) = self.history.last_mut() {
            event.cause = cause;
        }
    }

    fn as_row(&self) -> TaskRow {
        let is_kept = |c: &&(Arc<Checkpoint>, bool)| c.1 && c.0.artifact.is_empty();
        let kept = self.checkpoints.values().filter(is_kept);
        TaskRow {
            checkpoints: kept.map(|(c, _)| c.clone()).collect(),
            state_version: self.state.as_ref().map_or((0, 0), |s| (s.epoch, s.version)),
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
        self.row.worker = None;
        self.row.started_at = None;
        self.row.lost = false;
        self.held_by = None;
        self.outcome = None;
    }
}

impl Model for Coord {
    type Record = CoordRecord;

    fn apply(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::Submitted { task: id, number, spec, after, owner: _, at } => {
                if self.numbers.contains_key(id) || self.tasks.contains_key(number) {
                    return Err(StoreError::Contradiction(format!("{id}, {number}: not new")));
                }
                let row = TaskRow {
                    id: id.clone(),
                    number: *number,
                    spec: spec.clone(),
                    state: TaskState::Pending,
                    epoch: *after,
                    after: *after,
                    retries: 0,
                    worker: None,
                    cancelling: false,
                    started_at: None,
                    paused: false,
                    asked: Asked::default(),
                    lost: false,
                    checkpoints: Vec::new(),
                    state_version: (0, 0),
                    recovery: None,
                };
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
                task.tell(*at, EventKind::Submitted, 0, None, "");
                self.last_number = self.last_number.max(*number);
                self.numbers.insert(id.clone(), *number);
                self.tasks.insert(*number, task);
            }
            R::Assigned { task, epoch, worker, at } => {
                let task = self.known(task)?;
                task.back_to_pending();
                task.row.state = TaskState::Assigned;
                task.row.epoch = *epoch;
                task.row.worker = Some(worker.clone());
                task.held_by = Some(worker.clone());
                task.tell(*at, EventKind::Assigned, *epoch, Some(worker.clone()), "");
            }
            R::Started { task, epoch, started_at, at: _ } => {
                let task = self.known(task)?;
                if task.is_current(*epoch) && task.row.started_at.is_none() {
                    task.row.started_at = Some(*started_at);
                }
                let worker = task.holder(*epoch);
                task.tell(*started_at, EventKind::Started, *epoch, worker, "");
            }
            R::Requeued { task, epoch, retries, reason, cause, outcome, at } => {
                let task = self.known(task)?;
                let worker = task.holder(*epoch);
                task.keep(*epoch, worker.clone(), outcome.as_ref());
                let told = outcome.as_ref().map(|o| o.started_at_ms).filter(|ms| *ms > 0);
                if let (true, None, Some(ms)) = (task.is_current(*epoch), task.row.started_at, told)
                {
                    task.tell(ms, EventKind::Started, *epoch, worker.clone(), "");
                }
                task.tell(*at, EventKind::Requeued, *epoch, worker, reason);
                task.because(*cause);
                task.back_to_pending();
                task.row.retries = *retries;
            }
            R::Ended { task: id, epoch, state, reason, cause, outcome, worker, at } => {
                let kind = EventKind::of_end(*state)
                    .ok_or_else(|| StoreError::Contradiction(format!("{id} cannot end so")))?;
                let task = self.known(id)?;
                task.keep(*epoch, worker.clone(), outcome.as_ref());
                let told = outcome.as_ref().map(|o| o.started_at_ms);
                let told = told.filter(|ms| *ms > 0 && *epoch != 0);
                let same_worker = worker.is_none() || *worker == task.held_by;
                let current = task.is_current(*epoch) && same_worker;
                // A result tells of a start that nobody heard of.
                if let (true, None, Some(ms)) = (current, task.row.started_at, told) {
                    task.tell(ms, EventKind::Started, *epoch, task.holder(*epoch), "");
                }
                let goes_on = current
                    || (task.row.state == TaskState::Assigned && *epoch == 0 && same_worker);
                task.row.started_at = task.row.started_at.filter(|_| goes_on).or(told);
                task.tell(*at, kind, *epoch, worker.clone(), reason);
                task.because(*cause);
                task.row.lost = *state == TaskState::Failed && cause.is_loss();
                task.row.state = *state;
                task.row.cancelling = false;
                task.row.worker = None;
                task.held_by = worker.clone().or(task.held_by.take());
                task.outcome = outcome.clone();
            }
            R::Superseded { task: id, epoch, reason, outcome, worker, at } => {
                let (kind, worker) = (EventKind::Superseded, Some(worker.clone()));
                let (at, epoch, reason) = (*at, *epoch, reason.clone());
                let cause = outcome.cause();
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
            R::CancelRequested { task, at } => {
                let task = self.known(task)?;
                task.row.cancelling = true;
                let (epoch, worker) = (task.row.epoch, task.held_by.clone());
                task.tell(*at, EventKind::CancelRequested, epoch, worker, "");
            }
            R::Retried { task, at } => {
                let task = self.known(task)?;
                task.tell(*at, EventKind::Retried, task.row.epoch, None, "");
                task.back_to_pending();
                task.row.retries = 0;
                task.row.recovery = None;
                task.row.cancelling = false;
                task.row.paused = false;
            }
            R::Noted { task, epoch, note, at } => {
                self.known(task)?.tell(*at, EventKind::Noted, *epoch, None, note);
            }
            R::TasksRemoved { tasks, before, at: _ } => {
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
                self.orphans.retain(|o| o.event.at >= *before);
            }
            R::Recovered { task, epoch, decision, state, at } => {
                let task = self.known(task)?;
                task.tell(*at, EventKind::Recovery, *epoch, None, &decision.text);
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
            R::WorkerSeen { worker, at: _ } => {
                self.workers.insert(worker.store_id.clone(), WorkerRow::clone(worker));
            }
            R::WorkerGone { .. } => {}
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
            R::Checkpoint { checkpoint, worker: _, at: _ } => {
                if let Ok(task) = self.known(&checkpoint.task_id) {
                    let place = (checkpoint.epoch, checkpoint.number);
                    let new = (checkpoint.clone(), !checkpoint.dropped);
                    task.checkpoints.entry(place).or_insert(new);
                }
            }
            R::CheckpointsPruned { task, which, at: _ } => {
                let Ok(task) = self.known(task) else { return Ok(()) };
                for place in which {
                    if let Some((_, kept)) = task.checkpoints.get_mut(place) {
                        *kept = false;
                    }
                }
            }
            R::State { update } => {
                if let Ok(task) = self.known(&update.task_id) {
                    let known = task.state.as_ref().map_or((0, 0), |s| (s.epoch, s.version));
                    if (update.epoch, update.version) > known {
                        task.state = Some(update.clone());
                    }
                }
            }
            R::Paused { task, on, at } => {
                let task = self.known(task)?;
                task.row.paused = *on;
                let kind = if *on { EventKind::PauseRequested } else { EventKind::ResumeRequested };
                let (epoch, worker) = (task.row.epoch, task.held_by.clone());
                task.tell(*at, kind, epoch, worker, "");
            }
            R::Asked { task, asked } => self.known(task)?.row.asked = asked.clone(),
            R::WorkerForgotten { worker, at: _ } => {
                self.workers.remove(worker);
                self.cursors.retain(|(id, _), _| id != worker);
            }
            R::Cursor { worker, lane, seq } => {
                let last = self.cursors.entry((worker.clone(), *lane)).or_default();
                *last = (*last).max(*seq);
            }
        }
        Ok(())
    }
}
