//! Life of tasks: assignment, start, outcome, loss, end.

use super::coordinator::Coordinator;
use super::ends::{End, Loss, Next};
use super::loads::Facts;
use super::output::Output;
use super::task::{Task, is_own};
use super::toll::Toll;
use crate::records::{Asked, CoordRecord, TaskState};
use crate::recovery::{TaskRecovery, knobs};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, Now, TaskId};
use outlast_model::message::{Assignment, StopReason, ToWorker};
use outlast_model::spec::{LateResult, Rerun};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Outcomes that are kept of one attempt, whether they count or not.
const MAX_OUTCOMES: usize = 16;

/// Consequence of a current attempt's outcome for its task.
enum Consequence {
    /// The task ends in this state.
    Ends(TaskState),
    /// The task waits again, as if the attempt had never been.
    Returned,
    /// The task continues elsewhere: a person moved it, and that is no loss.
    Moved,
    /// The attempt was lost, with its worker or because of it.
    Lost,
    /// The attempt failed by itself.
    Failed,
}

impl Consequence {
    fn of(task: &Task, kind: OutcomeKind, worker: &str) -> Consequence {
        // One that must not run twice is lost where it is stopped.
        let moved = task.is_misplaced(worker) && task.spec.rerun == Rerun::Allowed;
        match (kind, task.is_cancelling()) {
            (OutcomeKind::Succeeded, _) => Consequence::Ends(TaskState::Succeeded),
            (OutcomeKind::Cancelled, true) => Consequence::Ends(TaskState::Cancelled),
            (OutcomeKind::Returned, false) => Consequence::Returned,
            (OutcomeKind::Interrupted, false) if moved => Consequence::Moved,
            (OutcomeKind::Cancelled | OutcomeKind::Interrupted | OutcomeKind::Returned, _) => {
                Consequence::Lost
            }
            // The attempt failed before the cancel reached it.
            (_, true) => Consequence::Ends(TaskState::Failed),
            (_, false) => Consequence::Failed,
        }
    }
}

impl Coordinator {
    /// Gives waiting tasks to workers with room.
    pub(super) fn schedule(&mut self, now: Now) {
        let mut given: BTreeMap<WorkerKey, Vec<TaskId>> = BTreeMap::new();
        while let Some((id, key)) = self.scheduler.assign() {
            self.begin_knobs(now, &id, key);
            self.change_asked(&id, |asked| asked.place = None);
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.become_assigned(key);
            let (epoch, slots) = (task.epoch, task.spec.slots);
            let member = self.fleet.get_mut(key);
            member.hold(id.clone(), epoch, slots);
            let (task, worker, at) = (id.clone(), member.row.store_id.clone(), now.wall);
            self.journal.record(CoordRecord::Assigned { task, epoch, worker, at });
            self.counters.attempts.assigned += 1;
            given.entry(key).or_default().push(id);
        }
        for (key, tasks) in given {
            self.send_assignments(now, key, &tasks);
        }
    }

    /// Sends assignments to a worker with an outbox.
    pub(super) fn send_assigned(&mut self, now: Now, key: WorkerKey, ids: &[TaskId]) {
        let Some(conn) = self.fleet.get(key).link.conn else { return };
        self.wake_heartbeats(now, conn, key);
        let mut given = Vec::new();
        for id in ids {
            let Some(task) = self.tasks.get(id) else { continue };
            let spec = match &task.recovery {
                None if task.spec.is_plain() => task.spec.clone(),
                state => {
                    let blank = TaskRecovery::default();
                    let state = state.as_deref().unwrap_or(&blank);
                    Arc::new(knobs::effective(&task.spec, state).into_owned())
                }
            };
            given.push(Assignment {
                task: id.clone(),
                epoch: task.epoch,
                spec: Ok(spec),
                checkpoint: task.reported.checkpoints.last().cloned(),
                paused: task.paused,
                after: task.after,
            });
        }
        if !given.is_empty() {
            self.send(conn, ToWorker::Assign(given));
        }
    }

    pub(super) fn send_stop(
        &mut self,
        key: WorkerKey,
        task: &TaskId,
        epoch: Epoch,
        reason: StopReason,
    ) {
        let Some(conn) = self.fleet.get(key).link.conn else { return };
        let attempts = vec![AttemptId { task: task.clone(), epoch }];
        self.send(conn, ToWorker::Stop(attempts, reason));
    }

    pub(super) fn on_started(&mut self, now: Now, key: WorkerKey, started: Vec<(AttemptId, i64)>) {
        for (id, at) in started {
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.note_start(now, &id.task, id.epoch, at);
            }
        }
    }

    /// Records the start of a current attempt.
    pub(super) fn note_start(&mut self, now: Now, id: &TaskId, epoch: Epoch, started_at: i64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.start(started_at) {
            let (task, at) = (id.clone(), now.wall);
            self.journal.record(CoordRecord::Started { task, epoch, started_at, at });
            // It was to be moved before this was heard, and cannot go on elsewhere.
            let once = self.tasks.get(id).is_some_and(|t| t.spec.rerun == Rerun::Never);
            if once && self.change_asked(id, |asked| asked.place = None) {
                let note = "it had started already, and must not run twice: it is not moved";
                self.note(now, id, epoch, note.into());
            }
        }
    }

    /// An attempt ended. Of one that is not current, or was recorded before, the outcome is judged apart.
    pub(super) fn on_outcome(
        &mut self,
        now: Now,
        key: WorkerKey,
        outcome: Arc<TaskOutcome>,
        facts: &Facts,
    ) {
        let id = outcome.attempt();
        let (task_id, epoch) = (&id.task, id.epoch);
        self.fleet.get_mut(key).drop_attempt(&id);
        if !self.is_given(key, &id, facts) {
            return self.drop_foreign(now, key, "outcome", task_id, epoch);
        }
        let member = self.fleet.get_mut(key);
        if member.has_outbox() && self.is_recorded(key, &id, &outcome, facts) {
            self.counters.outbox.repeated += 1;
            return;
        }
        let member = self.fleet.get_mut(key);
        member.learn_duration(&outcome);
        let name = member.row.name.clone();
        let (kind, cause) = (outcome.kind, cause_of(&outcome));
        *self.counters.attempts.causes.entry(cause.word()).or_default() += 1;
        let reason = outcome.message.clone();
        let Some(task) = self.tasks.get(task_id).filter(|t| !t.state().is_terminal()) else {
            return self.on_outcome_of_over(now, key, id, outcome, facts);
        };
        if !task.is_current(key, epoch) {
            return self.on_late(now, key, id, kind, outcome, facts);
        }
        let retries = task.retries;
        match Consequence::of(task, kind, &name) {
            Consequence::Ends(state) => {
                if state == TaskState::Succeeded {
                    self.learn(now, task_id, key);
                    self.proved(key);
                }
                let worker = Some(self.fleet.get(key).row.store_id.clone());
                let outcome = Some(outcome);
                let end = End { epoch, state, reason: &reason, cause, outcome, worker };
                self.end(now, task_id, end);
            }
            Consequence::Returned => {
                let back = Loss { retries, reason: &reason, cause };
                self.requeue(now, task_id, back, Some(outcome), None);
            }
            Consequence::Moved => {
                let back = Loss { retries, reason: "moved", cause: Cause::Moved };
                self.requeue(now, task_id, back, Some(outcome), None);
            }
            Consequence::Lost => {
                self.lose(now, task_id, &reason, cause, Some(outcome));
                if cause == Cause::Machine {
                    self.prefer_another(now, task_id, key);
                }
            }
            Consequence::Failed => self.fail_or_retry(now, key, &id, outcome, cause),
        }
    }

    /// Handles an outcome of an ended or unknown task. A success counts if the task had failed only
    /// because its attempts were lost.
    fn on_outcome_of_over(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: AttemptId,
        outcome: Arc<TaskOutcome>,
        facts: &Facts,
    ) {
        let worker = self.fleet.get(key).row.store_id.clone();
        let good = outcome.kind == OutcomeKind::Succeeded;
        if !self.tasks.contains_key(&id.task)
            && let Some(row) = self.look_up(facts, &id.task)
        {
            self.tasks.remember(row);
        }
        let lost = |t: &Task| {
            t.state() == TaskState::Failed
                && t.is_lost()
                && t.spec.late_result == LateResult::Accept
                && is_own(id.epoch, t.after, t.epoch)
        };
        let known = self.tasks.get(&id.task);
        if good && known.is_some_and(lost) {
            self.counters.tasks.honoured += 1;
            let (epoch, state, cause) = (id.epoch, TaskState::Succeeded, Cause::Done);
            let reason = "it arrived after the task had failed for lost workers, and was accepted";
            let (outcome, worker) = (Some(outcome), Some(worker));
            let end = End { epoch, state, reason, cause, outcome, worker };
            return self.end(now, &id.task, end);
        }
        // What was looked up is not kept.
        self.tasks.forget_looked_up(&id.task);
        if self.is_surplus(&worker, &id, facts) {
            return;
        }
        let reason = "the task was already over";
        self.supersede(now, &id.task, id.epoch, reason, outcome, worker);
    }

    /// Handles an outcome of an abandoned attempt of an unfinished task.
    fn on_late(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: AttemptId,
        kind: OutcomeKind,
        outcome: Arc<TaskOutcome>,
        facts: &Facts,
    ) {
        let worker = self.fleet.get(key).row.store_id.clone();
        let task = &self.tasks[&id.task];
        let honoured = kind == OutcomeKind::Succeeded
            && task.spec.late_result == LateResult::Accept
            && is_own(id.epoch, task.after, task.epoch);
        if !honoured {
            let reason = match task.state() {
                _ if id.epoch <= task.after => "it is of a former task of the same id",
                TaskState::Assigned => "a newer attempt is current",
                _ => "the attempt had been abandoned",
            };
            if self.is_surplus(&worker, &id, facts) {
                return;
            }
            return self.supersede(now, &id.task, id.epoch, reason, outcome, worker);
        }
        let newer = task.worker().filter(|_| task.state() == TaskState::Assigned);
        if let Some(other) = newer {
            let epoch = task.epoch;
            self.send_stop(other, &id.task, epoch, StopReason::Superseded);
        }
        let (epoch, state, cause) = (id.epoch, TaskState::Succeeded, Cause::Done);
        let reason = "it came late, and was accepted";
        let (outcome, worker) = (Some(outcome), Some(worker));
        self.end(now, &id.task, End { epoch, state, reason, cause, outcome, worker });
    }

    /// Returns true if no more outcomes of this attempt are recorded.
    fn is_surplus(&mut self, worker: &Arc<str>, id: &AttemptId, facts: &Facts) -> bool {
        let past = facts.attempts(&id.task, worker);
        let known = past.iter().find(|a| a.epoch == id.epoch).map_or(0, |a| a.outcomes.len());
        // What belongs to no attempt of the worker's is gathered under 0.
        let stray = past.iter().find(|a| a.epoch == 0).map_or(0, |a| a.outcomes.len());
        let surplus = known.max(stray) >= MAX_OUTCOMES;
        self.counters.outbox.surplus += u64::from(surplus);
        surplus
    }

    pub(super) fn supersede(
        &mut self,
        now: Now,
        task: &TaskId,
        epoch: Epoch,
        reason: &str,
        outcome: Arc<TaskOutcome>,
        worker: Arc<str>,
    ) {
        self.counters.attempts.superseded += 1;
        let (task, reason, at) = (task.clone(), reason.to_owned(), now.wall);
        self.journal.record(CoordRecord::Superseded { task, epoch, reason, outcome, worker, at });
    }

    /// An attempt was lost: its worker died, stayed away or could not finish it.
    pub(super) fn lose(
        &mut self,
        now: Now,
        id: &TaskId,
        reason: &str,
        cause: Cause,
        outcome: Option<Arc<TaskOutcome>>,
    ) {
        let Some(task) = self.tasks.get(id) else { return };
        if outcome.is_none() {
            *self.counters.attempts.causes.entry(cause.word()).or_default() += 1;
        }
        let worker = outcome
            .as_ref()
            .and(task.worker())
            .and_then(|key| self.fleet.find(key))
            .map(|m| m.row.store_id.clone());
        let (epoch, retries, max) = (task.epoch, task.retries, task.spec.max_retries);
        let toll = Toll::of(task, outcome.as_deref());
        // Without word from the worker it may have started.
        let started = outcome.as_ref().is_none_or(|o| o.started_at_ms > 0);
        let tried = task.recovery.as_ref().map(|r| r.describe_tried()).filter(|t| !t.is_empty());
        let mut next = None;
        let ended = if task.is_cancelling() {
            Some((TaskState::Cancelled, reason.to_owned()))
        } else if task.spec.rerun == Rerun::Never && started {
            Some((TaskState::Failed, format!("{reason}; it must not run twice (rerun = never)")))
        } else if retries >= max && !toll.spared {
            Some((
                TaskState::Failed,
                format!(
                    "{reason}; lost {} times, max_retries is {max}{}",
                    retries + 1,
                    tried.map_or_else(String::new, |t| format!("; tried: {t}"))
                ),
            ))
        } else {
            next = self.after_loss(now, id, reason, cause, outcome.as_deref(), toll);
            let plan = next.as_ref().map(|n| &n.plan).filter(|p| p.gives_up());
            plan.map(|plan| (TaskState::Failed, format!("{reason}; {}", plan.reason)))
        };
        match ended {
            Some((state, reason)) => {
                let end = End { epoch, state, reason: &reason, cause, outcome, worker };
                self.end(now, id, end);
                if let Some(task) = self.tasks.get_mut(id).filter(|_| cause.is_loss()) {
                    task.mark_lost();
                }
                if let Some(next) = next {
                    self.carry_out(now, id, epoch, next);
                }
            }
            None => {
                let (retries, reason) = toll.charge(retries, reason);
                let back = Loss { retries, reason: &reason, cause };
                self.requeue(now, id, back, outcome, next);
            }
        }
    }

    pub(super) fn requeue(
        &mut self,
        now: Now,
        id: &TaskId,
        loss: Loss<'_>,
        outcome: Option<Arc<TaskOutcome>>,
        next: Option<Next>,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Loss { retries, reason, cause } = loss;
        let holder = task.become_pending(retries);
        let epoch = task.epoch;
        let (task, reason, at) = (id.clone(), reason.to_owned(), now.wall);
        let named = outcome.clone();
        let record = CoordRecord::Requeued { task, epoch, retries, reason, cause, outcome, at };
        self.journal.record(record);
        self.counters.attempts.requeued += 1;
        self.await_checkpoint(now, id, holder, named.as_deref());
        match next {
            Some(next) => self.carry_out(now, id, epoch, next),
            None => self.time_avoidance(now, id),
        }
        self.enqueue(id);
    }

    pub(super) fn end(&mut self, now: Now, id: &TaskId, end: End<'_>) {
        self.change_asked(id, |asked| *asked = Asked::default());
        let Some(task) = self.tasks.get_mut(id) else { return };
        let End { epoch, state, reason, cause, outcome, worker } = end;
        let holder = task.become_ended(state, self.journal.open());
        self.scheduler.remove(id);
        match state {
            TaskState::Succeeded => self.counters.tasks.ended[0] += 1,
            TaskState::Failed => self.counters.tasks.ended[1] += 1,
            _ => self.counters.tasks.ended[2] += 1,
        }
        let (task, reason, at) = (id.clone(), reason.to_owned(), now.wall);
        self.journal.record(CoordRecord::Ended {
            task,
            epoch,
            state,
            reason,
            cause,
            outcome,
            worker,
            at,
        });
        self.tasks.ends_with(self.journal.open(), id.clone());
        // A worker that is away is stopped when it returns with the attempt.
        if let Some(key) = holder
            && self.fleet.find(key).is_some_and(|m| m.link.conn.is_none())
        {
            self.forget_stale_attempts(key);
        }
    }

    pub(super) fn reply(&mut self, request: super::RequestId, response: super::Response) {
        self.journal.release(Output::Reply(request, response));
    }
}

/// Returns the cause of an outcome, derived if its worker is too old to report it.
fn cause_of(outcome: &TaskOutcome) -> Cause {
    match (outcome.cause, outcome.kind) {
        (Cause::Unspecified, OutcomeKind::Succeeded) => Cause::Done,
        (Cause::Unspecified, OutcomeKind::TimedOut) => Cause::TimedOut,
        (Cause::Unspecified, OutcomeKind::Cancelled) => Cause::Cancelled,
        (Cause::Unspecified, OutcomeKind::Interrupted) => Cause::Stopped,
        (Cause::Unspecified, OutcomeKind::Returned) => Cause::AskedBack,
        (Cause::Unspecified, OutcomeKind::Failed) if outcome.signal.is_some() => Cause::Signal,
        (Cause::Unspecified, OutcomeKind::Failed) if outcome.started_at_ms == 0 => {
            Cause::NotStarted
        }
        (Cause::Unspecified, OutcomeKind::Failed) => Cause::Exit,
        (cause, _) => cause,
    }
}
