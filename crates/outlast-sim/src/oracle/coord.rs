//! The coordinator's records, acknowledgements and news: what must hold of each.

use super::{Oracle, Recovery, Task, is_v1};
use crate::world::Blobs;
use outlast_core::coord::{LinkChange, LinkNews};
use outlast_core::records::{Batch, CoordRecord, TaskState};
use outlast_core::recovery::{Decision, TaskRecovery};
use outlast_core::{AttemptId, TaskId};
use outlast_model::{Checkpoint, Lane, StateUpdate, TaskOutcome};
use outlast_store::sim::SimCoordStore;
use outlast_wire::TaskSpec;
use outlast_wire::spec::LateResult;
use std::sync::Arc;

impl Oracle {
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
            R::Submitted { task, spec, after, .. } => self.on_submitted(task, spec, *after),
            R::TasksRemoved { tasks, .. } => tasks.iter().for_each(|id| self.on_removed(id)),
            R::Assigned { task, epoch, worker, .. } => self.on_assigned(task, *epoch, worker),
            R::Requeued { task, retries, epoch, outcome, .. } => {
                self.on_requeued(task, *epoch, *retries, outcome.as_deref());
            }
            R::Superseded { task, epoch, outcome, worker, .. } => {
                let attempt = AttemptId { task: task.clone(), epoch: *epoch };
                self.outcome(attempt, worker, outcome);
            }
            R::State { update } => self.on_state(update),
            R::Checkpoint { checkpoint: c, worker, .. } => self.on_checkpoint(c, worker),
            R::Ended { .. } => self.on_ended(record),
            R::Retried { task, .. } => self.on_retried(task),
            R::Recovered { task, decision, state, .. } => self.on_recovered(task, decision, state),
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

    fn on_submitted(&mut self, id: &TaskId, spec: &Arc<TaskSpec>, after: u64) {
        let former = self.removed.get(id).copied().unwrap_or(0);
        let spec = Some(spec.clone());
        let new = Task { spec, epoch: former, floor: after, after, ..Task::default() };
        // What a former task's attempts did after its removal is not this one's.
        let old = self.tasks.insert(id.clone(), new);
        if old.is_some_and(|old| old.spec.is_some()) {
            self.fail(format!("I2: {id} was submitted twice"));
        }
        if after < former {
            self.fail(format!("I3: {id} begins again at {after}, after {former}"));
        }
    }

    fn on_removed(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.remove(id) else { return };
        if task.ended.is_none() {
            self.fail(format!("I1: {id} was removed and is not over"));
        }
        self.removed.insert(id.clone(), task.epoch);
        // A v1 worker that repeats one then cannot say of which task it was.
        self.v1_checkpoints.retain(|(of, _)| of != id);
        // Nothing is known of its attempts any more: one that comes again is recorded.
        self.effects.retain(|(_, attempt, ..), _| attempt.task != *id);
        self.accepted.remove(id);
    }

    fn on_assigned(&mut self, id: &TaskId, epoch: u64, worker: &Arc<str>) {
        self.assigned.insert(AttemptId { task: id.clone(), epoch }, worker.clone());
        let task = self.tasks.entry(id.clone()).or_default();
        let readopted = epoch == task.epoch && *worker == task.worker;
        let (old, ended, open) = (task.epoch, task.ended, task.open);
        task.open = true;
        (task.epoch, task.worker) = (epoch, worker.clone());
        if epoch <= old && !readopted {
            self.fail(format!("I3: {id} got epoch {epoch} after {old}"));
        }
        if open && !readopted {
            self.fail(format!("I3: {id} got epoch {epoch} while {old} was not abandoned"));
        }
        if ended.is_some() {
            self.fail(format!("I5: {id} was assigned though it has ended"));
        }
    }

    fn on_requeued(
        &mut self,
        id: &TaskId,
        epoch: u64,
        retries: u32,
        outcome: Option<&TaskOutcome>,
    ) {
        let attempt = AttemptId { task: id.clone(), epoch };
        let worker = self.assigned.get(&attempt).cloned();
        if let (Some(worker), Some(outcome)) = (worker, outcome) {
            self.outcome(attempt, &worker, outcome);
        }
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.open = false;
        let (spec, ended) = (task.spec.clone(), task.ended);
        if ended.is_some() {
            self.fail(format!("I5: {id} was requeued though it has ended"));
        }
        if spec.is_some_and(|spec| retries > spec.max_retries) {
            self.fail(format!("I6: {id} was retried {retries} times"));
        }
    }

    fn on_state(&mut self, u: &StateUpdate) {
        self.is_own(&u.task, u.epoch, "reported a state");
        let task: TaskId = u.task.clone();
        let id = AttemptId { task: task.clone(), epoch: u.epoch };
        // States of v1 workers are merged at the coordinator: its record is the report.
        if self.assigned.get(&id).is_some_and(|w| is_v1(w)) {
            let newest = self.states.entry(task).or_default();
            *newest = (*newest).max((u.epoch, u.version));
        }
    }

    fn on_checkpoint(&mut self, c: &Checkpoint, worker: &Arc<str>) {
        self.is_own(&c.task, c.epoch, "made a checkpoint");
        let place = (c.task.clone(), c.manifest.to_vec());
        if is_v1(worker) && !self.v1_checkpoints.insert(place) {
            self.fail(format!("I2: {}.{} #{} is there twice", c.task, c.epoch, c.number));
        }
    }

    fn on_ended(&mut self, record: &CoordRecord) {
        let CoordRecord::Ended { task: id, state, epoch, worker, cause, outcome, .. } = record
        else {
            return;
        };
        let attempt = AttemptId { task: id.clone(), epoch: *epoch };
        self.is_own(id, *epoch, "decided");
        if let (Some(worker), Some(outcome)) = (worker, outcome) {
            self.outcome(attempt.clone(), worker, outcome);
        }
        if let Some(worker) = worker
            && (self.assigned.get(&attempt) != Some(worker) || !self.ran(&attempt, worker))
        {
            self.fail(format!("I3: {worker} decided {id}.{epoch}, which it did not run"));
        }
        let task = self.tasks.entry(id.clone()).or_default();
        let fenced = task.spec.as_ref().is_some_and(|s| s.late_result == LateResult::Fence);
        let newest = task.epoch;
        let honoured = task.lost && *state == TaskState::Succeeded;
        task.lost = *state == TaskState::Failed && cause.is_loss();
        task.open = false;
        let before = task.ended.replace(*state);
        if fenced && *epoch != 0 && *epoch != newest {
            self.fail(format!("I3: {id}.{epoch} decided though {newest} is current"));
        }
        if let Some(before) = before
            && !honoured
        {
            self.fail(format!("I2: {id} ended as {state:?} after {before:?}"));
        }
    }

    /// Returns whether this worker ended the attempt.
    fn ran(&self, attempt: &AttemptId, worker: &Arc<str>) -> bool {
        // A worker of the v1 dialect does not say which of its attempts it was.
        match is_v1(worker) {
            true => self.v1_finished.contains(&(worker.clone(), attempt.task.clone())),
            false => self.finished.contains(attempt) || self.offered.contains(attempt),
        }
    }

    fn on_retried(&mut self, id: &TaskId) {
        let task = self.tasks.entry(id.clone()).or_default();
        (task.executions, task.floor) = (0, task.epoch);
        task.recovery = Recovery::default();
        (task.lost, task.open) = (false, false);
        if task.ended.take() == Some(TaskState::Succeeded) {
            self.fail(format!("{id} was retried though it had succeeded"));
        }
    }

    fn on_recovered(&mut self, id: &TaskId, decision: &Decision, state: &TaskRecovery) {
        self.delays.synced(id);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(spec) = task.spec.clone() else { return };
        let (ended, before) = (task.ended, std::mem::take(&mut task.recovery));
        match before.after(&spec, decision, state, ended) {
            Ok(after) => task.recovery = after,
            Err(wrong) => self.fail(format!("recovery of {id}: {wrong}")),
        }
    }

    /// An attempt that counts is not one of a former task of the same id.
    fn is_own(&mut self, id: &str, epoch: u64, what: &str) {
        if epoch != 0 && self.tasks.get(id).is_some_and(|t| epoch <= t.after) {
            self.fail(format!("I3: {id}.{epoch}, of a former task, {what}"));
        }
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
    /// The coordinator decided this, and nothing of it is synced yet.
    pub fn decided(&mut self, now: u64, skew: i64, records: &[CoordRecord]) {
        let newest = |id: &TaskId| self.tasks.get(id).map(|task| task.epoch);
        if let Some(wrong) = self.delays.decided((now, skew), records, newest) {
            self.fail(wrong);
        }
        for record in records {
            let CoordRecord::Requeued { task: id, epoch, reason, .. } = record else { continue };
            let Some(task) = self.tasks.get(id).filter(|t| t.epoch == *epoch) else { continue };
            let Task { spec: Some(spec), worker, .. } = task else { continue };
            let window = (spec.reconnect_window * 1000.0) as u64;
            let away = now - self.seen.get(worker).copied().unwrap_or(0);
            if reason.contains("did not return") && away < window {
                self.fail(format!("{id}.{epoch} was abandoned after {away} of {window} ms"));
            }
        }
    }

    /// The coordinator sent an acknowledgement.
    pub fn acked(&mut self, worker: &Arc<str>, lane: Lane, seq: u64, how: &str) {
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

    /// The client has the answer that this task is accepted.
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

    /// An attempt is to continue from this checkpoint, or from a newer one if that has taken its place
    /// meanwhile.
    pub fn goes_on_from(&mut self, c: &Checkpoint, store: &SimCoordStore, blobs: &Blobs) {
        let known = store.checkpoints(&c.task);
        let newest = known.iter().rev().find(|(_, kept)| *kept).map(|(c, _)| c);
        match newest.filter(|n| (n.epoch, n.number) > (c.epoch, c.number)) {
            Some(newer) => self.restorable(newer, blobs),
            None => self.restorable(c, blobs),
        }
    }

    /// A checkpoint that is kept must be there.
    pub fn restorable(&mut self, c: &Checkpoint, blobs: &Blobs) {
        if !blobs.contains_key(&c.manifest[..]) {
            self.fail(format!("I4: {}.{} #{} cannot be restored", c.task, c.epoch, c.number));
        }
    }

    /// The coordinator acknowledged this outcome.
    pub fn saved(&mut self, worker: &Arc<str>, id: AttemptId) {
        let (task, epoch) = (id.task.clone(), id.epoch);
        if !self.kept.contains(&(worker.clone(), id)) && !self.is_removed(&task, epoch) {
            self.fail(format!("I1: the outcome of {task}.{epoch} was taken before it was synced"));
        }
    }

    /// The coordinator publishes news: a link is reported as connected before it is reported as lost.
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

    /// Notes from which checkpoint the next attempt of a task must continue, at least.
    fn note_named(&mut self, record: &CoordRecord) {
        use CoordRecord as R;
        match record {
            R::Requeued { task, epoch, outcome: Some(o), .. } => {
                let Some(place) = o.checkpoint else { return };
                self.named.insert(task.clone(), (place, *epoch));
            }
            R::Noted { task, note, .. } if note.contains("is out of reach") => {
                self.named.remove(task);
            }
            R::Submitted { task, .. } | R::Retried { task, .. } => drop(self.named.remove(task)),
            _ => {}
        }
    }
}
