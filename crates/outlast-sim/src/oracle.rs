//! The judge. Knows what was synced, sent and executed; nothing of how the machines decide.

use crate::copies::Copies;
use crate::failures::Recovery;
use crate::runs::Blobs;
use outlast_core::coord::{LinkChange, LinkNews};
use outlast_core::records::{Batch, CoordRecord, TaskState, WorkerRecord};
use outlast_core::recovery::knobs;
use outlast_core::{AttemptId, TaskId};
use outlast_store::{EventKind, sim::SimCoordStore};
use outlast_wire::TaskSpec;
use outlast_wire::spec::{LateResult, Rerun};
use outlast_wire::v2::{Checkpoint, TaskOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
struct Task {
    spec: Option<Arc<TaskSpec>>,
    /// Attempts up to this one are of a former task of the same id.
    after: u64,
    /// The newest attempt, and whose it is.
    epoch: u64,
    worker: Arc<str>,
    over: Option<TaskState>,
    /// It is over because attempts were lost: a late success may still count.
    lost: bool,
    /// Its newest attempt was given out and not given up.
    open: bool,
    /// Of attempts after `floor`, the newest when a person last asked for another run.
    executions: u32,
    floor: u64,
    recovery: Recovery,
}

/// What is known, and the first thing that was wrong.
#[derive(Default)]
pub(crate) struct Oracle {
    tasks: BTreeMap<TaskId, Task>,
    cursors: BTreeMap<(Arc<str>, i32), u64>,
    /// Checkpoints and states that are durable at a worker.
    told: BTreeSet<(Arc<str>, AttemptId, u64)>,
    checkpoints: BTreeMap<(TaskId, u64, u64), bool>,
    states: BTreeMap<TaskId, (u64, u64)>,
    /// The newest checkpoint that a lost or failed attempt's outcome named, and that attempt.
    named: BTreeMap<TaskId, ((u64, u64), u64)>,
    assigned: BTreeMap<AttemptId, Arc<str>>,
    /// The newest attempt of each task that was removed: nobody need tell of it any more.
    removed: BTreeMap<TaskId, u64>,
    /// Acknowledged to the client.
    accepted: BTreeSet<TaskId>,
    /// Durable at a worker, or sent to the coordinator since it could not be.
    finished: BTreeSet<AttemptId>,
    /// Stores that can never be written again: what they owe stays there.
    pub broken: BTreeSet<Arc<str>>,
    /// Sent without being durable at the worker.
    offered: BTreeSet<AttemptId>,
    /// Attempts whose outcome the coordinator has made durable, by worker.
    kept: BTreeSet<(Arc<str>, AttemptId)>,
    /// How often each outcome took effect: by worker, attempt, kind and end.
    effects: BTreeMap<(Arc<str>, AttemptId, i32, i64), u32>,
    /// Tasks that a worker of the v1 dialect ended, in one way or another.
    v1_finished: BTreeSet<(Arc<str>, TaskId)>,
    /// How often each of its outcomes took effect: by attempt and what it says.
    v1_outcomes: BTreeMap<(AttemptId, i32, Vec<u8>, String), u32>,
    /// Checkpoints that came by it.
    v1_checkpoints: BTreeSet<(TaskId, Vec<u8>)>,
    /// When the coordinator last had a link to the worker, in true milliseconds.
    pub seen: BTreeMap<Arc<str>, u64>,
    /// Workers that have a link, as this life of the coordinator told those who watch, and
    /// whether it said that nothing is owed any more.
    pub links: BTreeMap<Arc<str>, (u64, bool)>,
    pub wrong: Option<String>,
    pub copies: Copies,
    /// When tasks that wait for their retry may be given out.
    earliest: BTreeMap<TaskId, Earliest>,
}

/// In true milliseconds, by a wall clock that was this far off.
struct Earliest {
    at: u64,
    skew: i64,
    synced: bool,
}

fn is_v1(worker: &str) -> bool {
    worker.starts_with("v1:")
}

impl Oracle {
    /// What was decided and not synced is gone.
    pub fn coord_crashed(&mut self) {
        self.earliest.retain(|_, e| e.synced);
    }

    /// A person does not want it to wait.
    pub fn hurried(&mut self, id: &TaskId) {
        self.earliest.remove(id);
    }

    /// Nobody is given a task that waits for its retry.
    fn keeps_waiting(&mut self, now: u64, skew: i64, records: &[CoordRecord]) {
        for record in records {
            match record {
                CoordRecord::Recovered { task, decision, .. } if decision.delay_ms > 0 => {
                    let at = now + decision.delay_ms;
                    self.earliest.insert(task.clone(), Earliest { at, skew, synced: false });
                }
                CoordRecord::Requeued { task, .. } | CoordRecord::Retried { task, .. } => {
                    self.earliest.remove(task);
                }
                CoordRecord::TasksRemoved { tasks, .. } => {
                    self.earliest.retain(|task, _| !tasks.contains(task));
                }
                CoordRecord::Assigned { task, epoch, .. } => {
                    let Some(wait) = self.earliest.remove(task) else { continue };
                    // Its worker runs it still: then there is nothing to wait for.
                    let readopted = self.tasks.get(task).is_some_and(|t| t.epoch == *epoch);
                    if now + 1 < wait.at && wait.skew == skew && !readopted {
                        let early = wait.at - now;
                        self.fail(format!("{task} was given out {early} ms before its time"));
                    }
                }
                _ => {}
            }
        }
    }

    /// An attempt runs with this value of its knob; the decision says which it should be.
    pub fn runs_with(&mut self, id: &AttemptId, store: &SimCoordStore, value: &str) {
        let Some(row) = store.committed_row(&id.task).filter(|row| row.epoch == id.epoch) else {
            return;
        };
        // A person's retry begins the knobs anew; an attempt from before it that comes back, and
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

    fn fail(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    /// The coordinator's store synced this.
    pub fn coord_synced(&mut self, batches: &[Batch<CoordRecord>]) {
        for record in batches.iter().flat_map(|b| &b.records) {
            self.coord_record(record);
        }
    }

    fn coord_record(&mut self, record: &CoordRecord) {
        self.note_named(record);
        use CoordRecord as R;
        match record {
            R::Submitted { task, spec, after, .. } => {
                let former = self.removed.get(task).copied().unwrap_or(0);
                let spec = Some(spec.clone());
                let (floor, after) = (*after, *after);
                let new = Task { spec, epoch: former, floor, after, ..Task::default() };
                // What a former task's attempts did after its removal is not this one's.
                let old = self.tasks.insert(task.clone(), new);
                if old.is_some_and(|old| old.spec.is_some()) {
                    self.fail(format!("I2: {task} was submitted twice"));
                }
                if after < former {
                    self.fail(format!("I3: {task} begins again at {after}, after {former}"));
                }
            }
            R::TasksRemoved { tasks, .. } => {
                for id in tasks {
                    let Some(task) = self.tasks.remove(id) else { continue };
                    if task.over.is_none() {
                        self.fail(format!("I1: {id} was removed and is not over"));
                    }
                    self.removed.insert(id.clone(), task.epoch);
                    // A v1 worker that repeats one then cannot say of which task it was.
                    self.v1_checkpoints.retain(|(of, _)| of != id);
                    // Nothing is known of its attempts any more: one that comes again is recorded.
                    self.effects.retain(|(_, attempt, ..), _| attempt.task != *id);
                    self.accepted.remove(id);
                }
            }
            R::Assigned { task: id, epoch, worker, .. } => {
                self.assigned.insert(AttemptId { task: id.clone(), epoch: *epoch }, worker.clone());
                let task = self.tasks.entry(id.clone()).or_default();
                let readopted = *epoch == task.epoch && *worker == task.worker;
                let (old, over, open) = (task.epoch, task.over, task.open);
                task.open = true;
                (task.epoch, task.worker) = (*epoch, worker.clone());
                if *epoch <= old && !readopted {
                    self.fail(format!("I3: {id} got epoch {epoch} after {old}"));
                }
                if open && !readopted {
                    self.fail(format!("I3: {id} got epoch {epoch} while {old} was not given up"));
                }
                if over.is_some() {
                    self.fail(format!("I5: {id} was assigned though it is over"));
                }
            }
            R::Requeued { task: id, retries, epoch, outcome, .. } => {
                let attempt = AttemptId { task: id.clone(), epoch: *epoch };
                let worker = self.assigned.get(&attempt).cloned();
                if let (Some(worker), Some(outcome)) = (worker, outcome) {
                    self.outcome(attempt, &worker, outcome);
                }
                let Some(task) = self.tasks.get_mut(id) else { return };
                task.open = false;
                let spec = task.spec.clone();
                let over = task.over;
                if over.is_some() {
                    self.fail(format!("I5: {id} was requeued though it is over"));
                }
                let Some(spec) = spec else { return };
                if *retries > spec.max_retries {
                    self.fail(format!("I6: {id} was retried {retries} times"));
                }
            }
            R::Superseded { task, epoch, outcome, worker, .. } => {
                let attempt = AttemptId { task: task.clone(), epoch: *epoch };
                self.outcome(attempt, worker, outcome);
            }
            // Merged at the coordinator: this is what was told.
            R::State { update: u } => {
                self.is_own(&u.task_id, u.epoch, "told its state");
                let task: TaskId = u.task_id.as_str().into();
                let id = AttemptId { task: task.clone(), epoch: u.epoch };
                if self.assigned.get(&id).is_some_and(|w| is_v1(w)) {
                    let newest = self.states.entry(task).or_default();
                    *newest = (*newest).max((u.epoch, u.version));
                }
            }
            R::Checkpoint { checkpoint: c, worker, .. } if is_v1(worker) => {
                self.is_own(&c.task_id, c.epoch, "made a checkpoint");
                let task: TaskId = c.task_id.as_str().into();
                if !self.v1_checkpoints.insert((task, c.manifest.to_vec())) {
                    self.fail(format!(
                        "I2: {}.{} #{} is there twice",
                        c.task_id, c.epoch, c.number
                    ));
                }
            }
            R::Ended { task: id, state, epoch, worker, cause, outcome, .. } => {
                let attempt = AttemptId { task: id.clone(), epoch: *epoch };
                self.is_own(id, *epoch, "decided");
                if let (Some(worker), Some(outcome)) = (worker, outcome) {
                    self.outcome(attempt.clone(), worker, outcome);
                }
                // A worker of the v1 dialect does not say which of its attempts it was.
                let ran = |worker: &Arc<str>| match is_v1(worker) {
                    true => self.v1_finished.contains(&(worker.clone(), id.clone())),
                    false => self.finished.contains(&attempt) || self.offered.contains(&attempt),
                };
                if let Some(worker) = worker
                    && (self.assigned.get(&attempt) != Some(worker) || !ran(worker))
                {
                    self.fail(format!("I3: {worker} decided {id}.{epoch}, which it did not run"));
                }
                let task = self.tasks.entry(id.clone()).or_default();
                let fenced = task.spec.as_ref().is_some_and(|s| s.late_result == LateResult::Fence);
                if fenced && *epoch != 0 && *epoch != task.epoch {
                    let newest = task.epoch;
                    self.fail(format!("I3: {id}.{epoch} decided though {newest} is current"));
                }
                let task = self.tasks.entry(id.clone()).or_default();
                let honoured = task.lost && *state == TaskState::Succeeded;
                task.lost = *state == TaskState::Failed && cause.is_loss();
                task.open = false;
                if let Some(before) = task.over.replace(*state)
                    && !honoured
                {
                    self.fail(format!("I2: {id} ended as {state:?} after {before:?}"));
                }
            }
            R::Retried { task: id, .. } => {
                let task = self.tasks.entry(id.clone()).or_default();
                (task.executions, task.floor) = (0, task.epoch);
                task.recovery = Recovery::default();
                (task.lost, task.open) = (false, false);
                if task.over.take() == Some(TaskState::Succeeded) {
                    self.fail(format!("{id} was retried though it had succeeded"));
                }
            }
            R::Checkpoint { checkpoint: c, .. } => {
                self.is_own(&c.task_id, c.epoch, "gave a checkpoint");
            }
            R::Recovered { task: id, decision, state, .. } => {
                if let Some(times) = self.earliest.get_mut(id) {
                    times.synced = true;
                }
                let Some(task) = self.tasks.get_mut(id) else { return };
                let Some(spec) = task.spec.clone() else { return };
                let (over, before) = (task.over, std::mem::take(&mut task.recovery));
                let after = before.after(&spec, decision, state, over);
                match after {
                    Ok(after) => task.recovery = after,
                    Err(wrong) => self.fail(format!("recovery of {id}: {wrong}")),
                }
            }
            R::Cursor { worker, lane, seq } => {
                let last = self.cursors.entry((worker.clone(), *lane)).or_default();
                *last = (*last).max(*seq);
            }
            R::WorkerForgotten { worker, .. } => {
                self.cursors.retain(|(of, _), _| of != worker);
            }
            _ => {}
        }
    }

    /// An attempt that counts is not one of a former task of the same id.
    fn is_own(&mut self, id: &str, epoch: u64, what: &str) {
        if epoch != 0 && self.tasks.get(id).is_some_and(|t| epoch <= t.after) {
            self.fail(format!("I3: {id}.{epoch}, of a former task, {what}"));
        }
    }

    /// A worker of the v1 dialect has a result of this task, or cancelled it.
    pub fn v1_finished(&mut self, task: &TaskId, store: &Arc<str>) {
        self.v1_finished.insert((store.clone(), task.clone()));
    }

    /// The same outcome of an attempt takes effect once, however often it is sent.
    fn outcome(&mut self, id: AttemptId, worker: &Arc<str>, o: &TaskOutcome) {
        if !is_v1(worker) {
            let key = (worker.clone(), id.clone(), o.kind, o.finished_at_ms);
            let times = self.effects.entry(key).or_default();
            *times += 1;
            self.kept.insert((worker.clone(), id.clone()));
            if *times > 1 {
                let (task, epoch) = (id.task, id.epoch);
                self.fail(format!("I2: one outcome of {task}.{epoch} took effect twice"));
            }
            return;
        }
        let (task, epoch) = (id.task.clone(), id.epoch);
        let key = (id, o.kind, o.value_json.to_vec(), o.message.clone());
        let times = self.v1_outcomes.entry(key).or_default();
        *times += 1;
        if *times > 1 {
            self.fail(format!("I2: an outcome of {task}.{epoch} from {worker} took effect twice"));
        }
    }

    /// The coordinator decided this.
    pub fn decided(&mut self, now: u64, skew: i64, records: &[CoordRecord]) {
        self.keeps_waiting(now, skew, records);
        for record in records {
            let CoordRecord::Requeued { task: id, epoch, reason, .. } = record else { continue };
            let Some(task) = self.tasks.get(id).filter(|t| t.epoch == *epoch) else { continue };
            let Task { spec: Some(spec), worker, .. } = task else { continue };
            let window = (spec.reconnect_window * 1000.0) as u64;
            let away = now - self.seen.get(worker).copied().unwrap_or(0);
            if reason.contains("did not return") && away < window {
                self.fail(format!("{id}.{epoch} was given up after {away} of {window} ms"));
            }
        }
    }

    /// The coordinator sent an acknowledgement.
    pub fn acked(&mut self, worker: &Arc<str>, lane: i32, seq: u64, how: &str) {
        let synced = self.cursors.get(&(worker.clone(), lane)).copied().unwrap_or(0);
        if seq > synced {
            self.fail(format!("{how} {seq} was sent when only {synced} was synced"));
        }
    }

    /// The coordinator sent an assignment.
    pub fn assignment(&mut self, id: AttemptId) {
        if !self.assigned.contains_key(&id) {
            self.fail(format!("{}.{} was sent before it was synced", id.task, id.epoch));
        }
    }

    /// The client was told that this task is accepted.
    pub fn accepted(&mut self, id: &TaskId) {
        let known = self.tasks.contains_key(id);
        // It ended, and was removed before the answer came.
        if !known && self.removed.contains_key(id) {
            return;
        }
        if !known {
            self.fail(format!("{id} was accepted before it was synced"));
        }
        self.accepted.insert(id.clone());
    }

    /// A worker's store synced this.
    pub fn worker_synced(&mut self, store: &Arc<str>, batches: &[Batch<WorkerRecord>]) {
        for record in batches.iter().flat_map(|b| &b.records) {
            match record {
                WorkerRecord::Finished { outcome, .. } => {
                    let task = outcome.task_id.as_str().into();
                    self.finished.insert(AttemptId { task, epoch: outcome.epoch });
                }
                WorkerRecord::Acked { lane, seq } => {
                    self.acked(store, *lane, *seq, "a deletion up to");
                }
                WorkerRecord::Checkpoint { checkpoint: c, .. } => {
                    let task: TaskId = c.task_id.as_str().into();
                    let id = AttemptId { task: task.clone(), epoch: c.epoch };
                    self.told.insert((store.clone(), id, c.number));
                    self.checkpoints.insert((task, c.epoch, c.number), c.dropped);
                }
                WorkerRecord::State { update: u, .. } => {
                    let task: TaskId = u.task_id.as_str().into();
                    let id = AttemptId { task: task.clone(), epoch: u.epoch };
                    self.told.insert((store.clone(), id, u.version << 32));
                    let newest = self.states.entry(task).or_default();
                    *newest = (*newest).max((u.epoch, u.version));
                }
                _ => {}
            }
        }
    }

    /// A task was told that its checkpoint or state is durable.
    pub fn told_durable(&mut self, store: &Arc<str>, (task, epoch): (&str, u64), what: u64) {
        let id = AttemptId { task: task.into(), epoch };
        if !self.told.contains(&(store.clone(), id, what)) {
            self.fail(format!("I4: {task}.{epoch} was answered before it was synced"));
        }
    }

    /// An attempt was told to go on from this checkpoint, or from a newer one if that has taken
    /// its place meanwhile.
    pub fn goes_on_from(&mut self, c: &Checkpoint, store: &SimCoordStore, blobs: &Blobs) {
        let known = store.checkpoints(&c.task_id);
        let newest = known.iter().rev().find(|(_, kept)| *kept).map(|(c, _)| c);
        match newest.filter(|n| (n.epoch, n.number) > (c.epoch, c.number)) {
            Some(newer) => self.restorable(newer, blobs),
            None => self.restorable(c, blobs),
        }
    }

    /// A checkpoint that is kept must be there.
    pub fn restorable(&mut self, c: &Checkpoint, blobs: &Blobs) {
        if !blobs.contains_key(&c.manifest[..]) {
            self.fail(format!("I4: {}.{} #{} cannot be restored", c.task_id, c.epoch, c.number));
        }
    }

    /// A worker sent an outcome that is not durable there.
    pub fn offered(&mut self, task: &str, epoch: u64) {
        self.offered.insert(AttemptId { task: task.into(), epoch });
    }

    /// The coordinator said that it keeps this outcome.
    pub fn saved(&mut self, worker: &Arc<str>, id: AttemptId) {
        let (task, epoch) = (id.task.clone(), id.epoch);
        if !self.kept.contains(&(worker.clone(), id)) && !self.is_removed(&task, epoch) {
            self.fail(format!("I1: the outcome of {task}.{epoch} was taken before it was synced"));
        }
    }

    /// An executor finished an attempt, and its worker sent the outcome.
    pub fn sent(&mut self, task: &str, epoch: u64) {
        let id = AttemptId { task: task.into(), epoch };
        if !self.finished.contains(&id) {
            self.fail(format!("the outcome of {task}.{epoch} left before it was synced"));
        }
    }

    /// The coordinator tells those who watch: each link is told to come before it is told to end.
    pub fn news(&mut self, news: LinkNews) {
        let (worker, name) = (news.worker, news.name);
        let good = match news.what {
            LinkChange::Connected(conn, _) => self.links.insert(worker, (conn, false)).is_none(),
            LinkChange::Switched(conn, _) => match self.links.get_mut(&worker) {
                Some((link, _)) => std::mem::replace(link, conn) != conn,
                None => false,
            },
            LinkChange::Resynced(_) => {
                self.links.get_mut(&worker).is_some_and(|(_, done)| !std::mem::replace(done, true))
            }
            LinkChange::Lost(..) => self.links.remove(&worker).is_some(),
            LinkChange::Adapted(_) | LinkChange::WorkerAdapted(_) => {
                self.links.contains_key(&worker)
            }
            LinkChange::Reset | LinkChange::Unfit(_) | LinkChange::Copied(_) => true,
            LinkChange::Forgotten => !self.links.contains_key(&worker),
        };
        if !good {
            self.fail(format!("news of {name}'s link came in an order that cannot be"));
        }
    }

    /// Which checkpoint the next attempt of a task must go on from, at least.
    fn note_named(&mut self, record: &CoordRecord) {
        use CoordRecord as R;
        match record {
            R::Requeued { task, epoch, outcome: Some(o), .. } if o.checkpoint_number > 0 => {
                let place = (o.checkpoint_epoch, o.checkpoint_number);
                self.named.insert(task.clone(), (place, *epoch));
            }
            R::Noted { task, note, .. } if note.contains("is out of reach") => {
                self.named.remove(task);
            }
            R::Submitted { task, .. } | R::Retried { task, .. } => drop(self.named.remove(task)),
            _ => {}
        }
    }

    /// An executor begins an attempt that goes on from this checkpoint.
    pub fn begins_from(&mut self, id: &AttemptId, from: Option<(u64, u64)>) {
        let Some((place, of)) = self.named.get(&id.task).copied() else { return };
        let dropped = self.checkpoints.get(&(id.task.clone(), place.0, place.1)) == Some(&true);
        // Of two processes that speak for one store only one has what the other made.
        let former = AttemptId { task: id.task.clone(), epoch: of };
        let two = [id, &former].iter().any(|a| self.copies.spoke_for(self.assigned.get(*a)));
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

    /// A worker that is connected, and of which nobody was told that it owes nothing.
    pub fn owing(&self) -> Option<&str> {
        self.links.iter().find(|(_, (_, done))| !done).map(|(worker, _)| &**worker)
    }

    /// Everything healed long ago.
    pub fn converged(&mut self, store: &SimCoordStore, blobs: &Blobs) {
        self.nothing_told_is_lost(store, blobs);
        for id in self.accepted.clone() {
            match store.task_row(&id) {
                Some(row) if row.state.is_terminal() => {}
                Some(row) => self.fail(format!("I6: {id} is still {}", row.state.as_str())),
                None => self.fail(format!("I1: {id} was accepted and is gone")),
            }
        }
        let orphans: BTreeSet<AttemptId> = store
            .orphans()
            .iter()
            .map(|o| AttemptId { task: o.task.clone(), epoch: o.event.epoch })
            .collect();
        for id in self.finished.clone() {
            let two = self.copies.spoke_for(self.assigned.get(&id));
            if two || self.is_removed(&id.task, id.epoch) {
                continue;
            }
            let told = |e: &outlast_store::StoredEvent| {
                use EventKind as K;
                let kinds = [K::Succeeded, K::Failed, K::Cancelled, K::Requeued, K::Superseded];
                e.epoch == id.epoch && kinds.contains(&e.kind)
            };
            if !store.history(&id.task).iter().any(told) && !orphans.contains(&id) {
                self.fail(format!("I1: nothing tells of {}.{}", id.task, id.epoch));
            }
        }
    }

    /// Whether the attempt was one of a task that was removed.
    fn is_removed(&self, task: &TaskId, epoch: u64) -> bool {
        self.removed.get(task).is_some_and(|newest| epoch <= *newest)
    }

    /// Whether the attempt was at a worker whose disk never works again.
    fn is_broken(&self, task: &TaskId, epoch: u64) -> bool {
        let worker = self.assigned.get(&AttemptId { task: task.clone(), epoch });
        worker.is_some_and(|w| self.broken.contains(w)) || self.copies.spoke_for(worker)
    }

    /// Every checkpoint and state that a worker made durable is known, or its loss is.
    fn nothing_told_is_lost(&mut self, store: &SimCoordStore, blobs: &Blobs) {
        for ((task, epoch, number), dropped) in self.checkpoints.clone() {
            if !self.accepted.contains(&task)
                || self.is_removed(&task, epoch)
                || self.is_broken(&task, epoch)
            {
                continue;
            }
            let known = store.checkpoints(&task);
            let newest =
                known.iter().filter(|(c, _)| !c.dropped).map(|(c, _)| (c.epoch, c.number)).max();
            let found = known.iter().find(|(c, _)| (c.epoch, c.number) == (epoch, number));
            match found {
                None => self.fail(format!("I4: nothing tells of {task}.{epoch} #{number}")),
                Some((_, false)) if newest == Some((epoch, number)) && !dropped => {
                    self.fail(format!("I4: the newest, {task}.{epoch} #{number}, was not kept"));
                }
                Some((c, true)) => self.restorable(c, blobs),
                _ => {}
            }
        }
        for (task, newest) in self.states.clone() {
            let known = store.state(&task).map_or((0, 0), |s| (s.epoch, s.version));
            let told = self.accepted.contains(&task)
                && !self.is_removed(&task, newest.0)
                && !self.is_broken(&task, newest.0);
            if told && known != newest {
                self.fail(format!("I5: {task} is known at {known:?}, and told {newest:?}"));
            }
        }
    }
}
