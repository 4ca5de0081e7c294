//! What becomes of tasks: assignment, start, outcome, loss, end.

use super::{ConnId, Coordinator, Output};
use crate::records::{CoordRecord, TaskState};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, Now, TaskId};
use outlast_wire::frame::BULK_TARGET;
use outlast_wire::spec::{LateResult, Rerun};
use outlast_wire::v2::{self, OutcomeKind, RefusedCode, StopReason, TaskOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use v2::body::Kind;

impl Coordinator {
    /// Gives waiting tasks to workers with room.
    pub(super) fn schedule(&mut self, now: Now) {
        let mut given: BTreeMap<WorkerKey, Vec<TaskId>> = BTreeMap::new();
        while let Some((id, key)) = self.scheduler.assign() {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.epoch += 1;
            (task.state, task.worker) = (TaskState::Assigned, Some(key));
            (task.started_at, task.asked_back) = (None, false);
            let (epoch, slots) = (task.epoch, task.spec.slots);
            let member = self.fleet.get_mut(key);
            member.hold(id.clone(), epoch, slots);
            let (task, worker, at) = (id.clone(), member.row.store_id.clone(), now.wall);
            self.records.push(CoordRecord::Assigned { task, epoch, worker, at });
            self.counters.assigned += 1;
            given.entry(key).or_default().push(id);
        }
        for (key, tasks) in given {
            self.send_assignments(key, &tasks);
        }
    }

    pub(super) fn send_assignments(&mut self, key: WorkerKey, ids: &[TaskId]) {
        let Some(conn) = self.fleet.get(key).conn else { return };
        let (mut tasks, mut size) = (Vec::new(), 0);
        for id in ids {
            let Some(task) = self.tasks.get(id) else { continue };
            let spec_json = task.spec.to_json();
            size += spec_json.len() + id.len() + 16;
            let (task_id, epoch) = (id.to_string(), task.epoch);
            tasks.push(v2::Assignment { task_id, epoch, spec_json: spec_json.into() });
            if size >= BULK_TARGET {
                size = 0;
                let tasks = std::mem::take(&mut tasks);
                self.send(conn, Kind::Assign(v2::Assign { tasks }));
            }
        }
        if !tasks.is_empty() {
            self.send(conn, Kind::Assign(v2::Assign { tasks }));
        }
    }

    pub(super) fn send_stop(
        &mut self,
        key: WorkerKey,
        task: &TaskId,
        epoch: Epoch,
        reason: StopReason,
    ) {
        let Some(conn) = self.fleet.get(key).conn else { return };
        let attempts = vec![v2::AttemptRef { task_id: task.to_string(), epoch }];
        self.send(conn, Kind::Stop(v2::Stop { attempts, reason: reason.into() }));
    }

    pub(super) fn on_started(&mut self, now: Now, key: WorkerKey, started: &v2::Started) {
        for (attempt, at) in started.attempts.iter().zip(&started.at_ms) {
            let id: TaskId = attempt.task_id.as_str().into();
            if self.tasks.get(&id).is_some_and(|t| t.is_current(key, attempt.epoch)) {
                self.note_start(now, &id, attempt.epoch, *at);
            }
        }
    }

    /// Of a current attempt.
    pub(super) fn note_start(&mut self, now: Now, id: &TaskId, epoch: Epoch, started_at: i64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.started_at.is_none() {
            task.started_at = Some(started_at);
            let (task, at) = (id.clone(), now.wall);
            self.records.push(CoordRecord::Started { task, epoch, started_at, at });
        }
    }

    pub(super) fn on_outbox(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        batch: v2::OutboxBatch,
    ) {
        let lane = batch.lane;
        if batch.lane() != v2::Lane::Results || lane != i32::from(v2::Lane::Results) {
            return;
        }
        let before = self.fleet.get(key).cursor;
        let goes_on = self.outbox_goes_on(conn);
        if batch.first_seq > before + 1 {
            self.counters.gaps += 1;
            // The first batch may begin later than the cursor: the worker may have been forgotten
            // here. After that a gap means that something was lost on the way.
            if goes_on {
                let first = batch.first_seq;
                let reason = format!("the outbox went from {before} to {first}; send it again");
                return self.refuse(now, conn, RefusedCode::RefusedMalformed, true, &reason);
            }
        }
        let mut cursor = before;
        for (seq, item) in (batch.first_seq..).zip(batch.items) {
            if seq <= cursor {
                self.counters.repeated += 1;
                continue;
            }
            cursor = seq;
            if let Some(v2::outbox_item::Kind::Outcome(outcome)) = item.kind {
                self.on_outcome(now, key, outcome);
            }
        }
        let member = self.fleet.get_mut(key);
        member.cursor = cursor;
        let worker = member.row.store_id.clone();
        if cursor > before {
            self.records.push(CoordRecord::Cursor { worker, lane, seq: cursor });
        }
        self.fleet.reload(&mut self.scheduler, key);
        // Also when nothing was new: the former acknowledgement may be lost.
        let cursors = vec![v2::Cursor { lane, seq: cursor }];
        self.send(conn, Kind::Ack(v2::Ack { cursors }));
    }

    fn on_outcome(&mut self, now: Now, key: WorkerKey, outcome: TaskOutcome) {
        let id = AttemptId { task: outcome.task_id.as_str().into(), epoch: outcome.epoch };
        let (task_id, epoch) = (&id.task, id.epoch);
        let member = self.fleet.get_mut(key);
        member.drop_attempt(&id);
        member.learn_duration(&outcome);
        let worker = member.row.store_id.clone();
        let kind = outcome.kind();
        let reason = outcome.message.clone();
        let outcome = Arc::new(outcome);
        let Some(task) = self.tasks.get(task_id).filter(|t| !t.state.is_terminal()) else {
            let reason = "the task was already over, or is not known";
            return self.supersede(now, task_id, epoch, reason, outcome, worker);
        };
        if !task.is_current(key, epoch) {
            return self.on_late(now, key, id, kind, outcome);
        }
        let ended = |state| (state, Some(outcome.clone()), Some(worker.clone()));
        // At most once means that only a person may have it run again.
        let again = task.spec.retry_failures
            && task.spec.rerun == Rerun::Allowed
            && !task.cancelling
            && task.retries < task.spec.max_retries;
        let (state, outcome, worker) = match kind {
            OutcomeKind::OutcomeSucceeded => ended(TaskState::Succeeded),
            OutcomeKind::OutcomeCancelled if task.cancelling => ended(TaskState::Cancelled),
            OutcomeKind::OutcomeReturned if !task.cancelling => {
                let retries = task.retries;
                return self.requeue(now, task_id, retries, &reason, Some(outcome));
            }
            OutcomeKind::OutcomeCancelled
            | OutcomeKind::OutcomeInterrupted
            | OutcomeKind::OutcomeReturned => {
                return self.lose(now, task_id, &reason, Some(outcome));
            }
            _ if again => {
                let retries = task.retries + 1;
                return self.requeue(now, task_id, retries, &reason, Some(outcome));
            }
            _ => ended(TaskState::Failed),
        };
        self.end(now, task_id, epoch, state, &reason, outcome, worker);
    }

    /// An outcome of an attempt that was given up, of a task that is not over.
    fn on_late(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: AttemptId,
        kind: OutcomeKind,
        outcome: Arc<TaskOutcome>,
    ) {
        let worker = self.fleet.get(key).row.store_id.clone();
        let task = &self.tasks[&id.task];
        let honoured = kind == OutcomeKind::OutcomeSucceeded
            && task.spec.late_result == LateResult::Accept
            && id.epoch <= task.epoch;
        if !honoured {
            let reason = match task.state {
                TaskState::Assigned => "a newer attempt is current",
                _ => "the attempt had been given up",
            };
            return self.supersede(now, &id.task, id.epoch, reason, outcome, worker);
        }
        let newer = task.worker.filter(|_| task.state == TaskState::Assigned);
        if let Some(other) = newer {
            let epoch = task.epoch;
            self.send_stop(other, &id.task, epoch, StopReason::StopSuperseded);
        }
        let reason = "it came late, and was accepted";
        let state = TaskState::Succeeded;
        self.end(now, &id.task, id.epoch, state, reason, Some(outcome), Some(worker));
    }

    fn supersede(
        &mut self,
        now: Now,
        task: &TaskId,
        epoch: Epoch,
        reason: &str,
        outcome: Arc<TaskOutcome>,
        worker: Arc<str>,
    ) {
        self.counters.superseded += 1;
        let (task, reason, at) = (task.clone(), reason.to_owned(), now.wall);
        self.records.push(CoordRecord::Superseded { task, epoch, reason, outcome, worker, at });
    }

    /// An attempt was lost: its worker died, stayed away or could not finish it.
    pub(super) fn lose(
        &mut self,
        now: Now,
        id: &TaskId,
        reason: &str,
        outcome: Option<Arc<TaskOutcome>>,
    ) {
        let Some(task) = self.tasks.get(id) else { return };
        let worker = outcome
            .as_ref()
            .and(task.worker)
            .and_then(|key| self.fleet.find(key))
            .map(|m| m.row.store_id.clone());
        let (epoch, retries, max) = (task.epoch, task.retries, task.spec.max_retries);
        // Without word from the worker it may have started.
        let started = outcome.as_ref().is_none_or(|o| o.started_at_ms > 0);
        let ended = if task.cancelling {
            Some((TaskState::Cancelled, reason.to_owned()))
        } else if task.spec.rerun == Rerun::Never && started {
            Some((TaskState::Failed, format!("{reason}; it must not run twice (rerun = never)")))
        } else if retries >= max {
            Some((
                TaskState::Failed,
                format!("{reason}; lost {} times, max_retries is {max}", retries + 1),
            ))
        } else {
            None
        };
        match ended {
            Some((state, reason)) => self.end(now, id, epoch, state, &reason, outcome, worker),
            None => self.requeue(now, id, retries + 1, reason, outcome),
        }
    }

    fn requeue(
        &mut self,
        now: Now,
        id: &TaskId,
        retries: u32,
        reason: &str,
        outcome: Option<Arc<TaskOutcome>>,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        (task.state, task.worker, task.retries) = (TaskState::Pending, None, retries);
        task.started_at = None;
        let epoch = task.epoch;
        let (task, reason, at) = (id.clone(), reason.to_owned(), now.wall);
        self.records.push(CoordRecord::Requeued { task, epoch, retries, reason, outcome, at });
        self.counters.requeued += 1;
        self.enqueue(id);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn end(
        &mut self,
        now: Now,
        id: &TaskId,
        epoch: Epoch,
        state: TaskState,
        reason: &str,
        outcome: Option<Arc<TaskOutcome>>,
        worker: Option<Arc<str>>,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        (task.state, task.worker, task.cancelling) = (state, None, false);
        task.over_in = self.batch;
        self.scheduler.remove(id);
        match state {
            TaskState::Succeeded => self.counters.ended[0] += 1,
            TaskState::Failed => self.counters.ended[1] += 1,
            _ => self.counters.ended[2] += 1,
        }
        let (task, reason, at) = (id.clone(), reason.to_owned(), now.wall);
        self.records.push(CoordRecord::Ended { task, epoch, state, reason, outcome, worker, at });
        self.over.push_back((self.batch, id.clone()));
    }

    pub(super) fn reply(&mut self, request: super::RequestId, response: super::Response) {
        self.effect(Output::Reply(request, response));
    }
}
