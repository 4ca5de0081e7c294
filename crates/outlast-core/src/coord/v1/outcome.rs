//! Results of v1 workers: which attempt they belong to, and whether they were recorded before.
//!
//! A result names only its task. It belongs to the newest attempt of that task that the worker has
//! by record and that has no outcome; unless it equals the outcome of an earlier one and nothing
//! was heard of the newer: then it is that outcome, sent again. Where all have outcomes it is
//! compared with them: an equal one has no effect, another one (of a thread that a cancel did not
//! stop) is late, and judged as v2's late outcomes are. A worker that gives the assignment's
//! `attempt` back leaves nothing to be guessed.

use super::session::{OUTCOMES, Unsynced};
use crate::coord::coordinator::Coordinator;
use crate::coord::loads::{Facts, PastAttempt};
use crate::scheduler::WorkerKey;
use crate::{Epoch, Now, TaskId};
use outlast_model::{Bytes, Capabilities, Cause, OutcomeKind, TaskOutcome};
use outlast_wire::v1::{MAX_RESULT, TaskError, is_placeholder};
use serde_json::json;
use std::sync::Arc;

/// Returns true if two outcomes are the same.
fn same(a: &TaskOutcome, b: &TaskOutcome) -> bool {
    (a.kind, &a.value_json, &a.message) == (b.kind, &b.value_json, &b.message)
}

fn says(attempt: &PastAttempt, outcome: &TaskOutcome) -> bool {
    attempt.outcomes.iter().any(|known| same(known, outcome))
}

impl Coordinator {
    /// A result arrived; whether it is to be acknowledged.
    pub(super) fn on_result_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        attempt: Option<Epoch>,
        (result, error): (Bytes, Option<TaskError>),
        facts: &Facts,
    ) -> bool {
        if error.is_none() && is_placeholder(&result) && self.takes_placeholders_v1(key) {
            return self.on_accepted_v1(now, key, task, attempt);
        }
        let mut outcome = TaskOutcome {
            task: task.clone(),
            kind: OutcomeKind::Succeeded,
            cause: Cause::Done,
            finished_at_ms: now.wall,
            ..Default::default()
        };
        if let Some(TaskError { message, traceback }) = error {
            let value = json!({ "message": message, "traceback": traceback });
            outcome.kind = OutcomeKind::Failed;
            outcome.cause = Cause::Exit;
            outcome.message = message.lines().next().unwrap_or_default().into();
            outcome.value_json = value.to_string().into_bytes().into();
        } else if result.len() > MAX_RESULT {
            outcome.kind = OutcomeKind::Failed;
            outcome.cause = Cause::Exit;
            let size = result.len();
            outcome.message = format!(
                "its result takes {size} bytes, the limit is {MAX_RESULT}; keep large results \
                 elsewhere, or in a checkpoint"
            );
        } else {
            outcome.value_json = result;
        }
        self.on_end_v1(now, key, task, attempt, outcome, facts);
        true
    }

    /// The worker answered an assignment with word that it runs. That is acknowledged only if nothing
    /// is to follow: an acknowledgement names the task, and the worker would take it for that of the
    /// result. Sent again until then, it says that the worker has the task.
    fn on_accepted_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        attempt: Option<Epoch>,
    ) -> bool {
        let current = self.tasks.get(task).filter(|t| t.is_current(key, t.epoch));
        let Some(epoch) = current.map(|t| t.epoch).filter(|e| attempt.is_none_or(|a| a == *e))
        else {
            self.counters.outbox.repeated += 1;
            return true;
        };
        self.note_start(now, task, epoch, now.wall);
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        session.saw(now, task, epoch);
        let run = session.run(task, epoch);
        if run.is_some_and(|run| !std::mem::replace(&mut run.evidence.accepted, true)) {
            let note = "its worker answered that it runs; its result comes later";
            self.note(now, task, epoch, note.into());
        }
        false
    }

    /// Returns true if placeholder results are recognized: a worker whose results may be of that form sets
    /// `"placeholders": false`.
    fn takes_placeholders_v1(&self, key: WorkerKey) -> bool {
        let capabilities = Capabilities::of(&self.fleet.get(key).row.capabilities);
        !capabilities.is("placeholders", false)
    }

    pub(super) fn on_cancelled_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        facts: &Facts,
    ) {
        let name = &self.fleet.get(key).row.name;
        // Nobody cancelled what a person moves: it is to go on elsewhere.
        let known = self.tasks.get(task);
        let moved = known.is_some_and(|t| {
            !t.is_cancelling() && t.is_current(key, t.epoch) && t.is_misplaced(name)
        });
        let (kind, cause, message) = match moved {
            true => (OutcomeKind::Interrupted, Cause::Moved, "moved"),
            false => (OutcomeKind::Cancelled, Cause::Cancelled, "cancelled"),
        };
        let outcome = TaskOutcome {
            task: task.clone(),
            kind,
            cause,
            message: message.into(),
            finished_at_ms: now.wall,
            ..Default::default()
        };
        let epoch = known.filter(|t| !t.is_cancelling() && !moved).map_or(0, |t| t.epoch);
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let outcome = match session.run(task, epoch).is_some_and(|r| r.stopping.is_some()) {
            true => self.timed_out_v1(now, task),
            false => outcome,
        };
        self.on_end_v1(now, key, task, None, outcome, facts);
    }

    /// An attempt ended, if this was not heard before.
    pub(super) fn on_end_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        attempt: Option<Epoch>,
        mut outcome: TaskOutcome,
        facts: &Facts,
    ) {
        let Some(epoch) = self.attempt_of(key, task, attempt, &outcome, facts) else {
            self.counters.outbox.repeated += 1;
            return;
        };
        outcome.epoch = epoch;
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let given = session.run(task, epoch).map(|r| r.given);
        let started = self.tasks.get(task).and_then(|t| t.started_at());
        let started = started.filter(|_| given.is_some()).or(given);
        outcome.started_at_ms = started.unwrap_or(now.wall).min(now.wall).max(1);
        if epoch == 0 {
            self.drop_foreign(now, key, "outcome", task, 0);
        } else {
            let worker = self.fleet.get(key).row.store_id.clone();
            let known = Arc::new(outcome.clone());
            let task = task.clone();
            let item = Unsynced::Outcome { worker, task, epoch, outcome: known };
            self.undurable.v1.push_back((self.journal.open(), item));
            self.on_outcome(now, key, Arc::new(outcome), facts);
        }
        self.forget_runs(key);
        self.fleet.update_room(&mut self.scheduler, key);
    }

    /// The attempt that an outcome belongs to, 0 if none; nothing if it was recorded before.
    fn attempt_of(
        &mut self,
        key: WorkerKey,
        task: &TaskId,
        named: Option<Epoch>,
        outcome: &TaskOutcome,
        facts: &Facts,
    ) -> Option<Epoch> {
        let current = self.tasks.get(task).filter(|t| t.is_current(key, t.epoch));
        let current = current.map(|t| t.epoch);
        // The first attempt of all has nothing before it.
        if current == Some(1) && named.is_none_or(|n| n == 1) {
            return current;
        }
        let past = self.attempts_v1(key, task, facts);
        if let Some(named) = named
            && (current == Some(named) || past.iter().any(|a| a.epoch == named && named > 0))
        {
            let known = past.iter().find(|a| a.epoch == named);
            return known.is_none_or(|a| fresh(a, outcome)).then_some(named);
        }
        if let Some(epoch) = current {
            let session = self.fleet.get_mut(key).v1.get_or_insert_default();
            let seen = session.run(task, epoch).is_some_and(|r| r.evidence.seen);
            let again = past.iter().any(|a| a.epoch < epoch && a.epoch > 0 && says(a, outcome));
            return (seen || !again).then_some(epoch);
        }
        let open = past.iter().rfind(|a| a.epoch > 0 && a.outcomes.is_empty());
        if past.iter().any(|a| says(a, outcome)) {
            return None;
        }
        let chosen = open.or_else(|| past.iter().rfind(|a| a.epoch > 0)).or(past.first());
        match chosen {
            Some(attempt) => fresh(attempt, outcome).then_some(attempt.epoch),
            None => Some(0),
        }
    }

    /// The attempts of a task that the worker was given, with what is not durable yet.
    pub(super) fn attempts_v1(
        &self,
        key: WorkerKey,
        task: &TaskId,
        facts: &Facts,
    ) -> Vec<PastAttempt> {
        let store = &self.fleet.get(key).row.store_id;
        let mut past = facts.attempts(task, store);
        for (_, item) in &self.undurable.v1 {
            let Unsynced::Outcome { worker, task: of, epoch, outcome } = item else { continue };
            if worker != store || of != task {
                continue;
            }
            let at = match past.binary_search_by_key(epoch, |a| a.epoch) {
                Ok(at) => at,
                Err(at) => {
                    past.insert(at, PastAttempt { epoch: *epoch, outcomes: Vec::new() });
                    at
                }
            };
            if !says(&past[at], outcome) {
                past[at].outcomes.push(outcome.clone());
            }
        }
        past
    }
}

/// Returns true if this outcome is new for the attempt, and the number of outcomes is not exceeded.
fn fresh(attempt: &PastAttempt, outcome: &TaskOutcome) -> bool {
    !says(attempt, outcome) && attempt.outcomes.len() < OUTCOMES
}
