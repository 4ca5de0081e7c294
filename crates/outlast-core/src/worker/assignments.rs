//! Attempts from their assignment to their outcome: they arrive, start, are stopped, and end.

use super::attempt::Arrival;
use super::attempts::Reserved;
use super::machine::{Ending, Worker};
use super::output::{Output, StopKind};
use crate::records::WorkerRecord;
use crate::{AttemptId, Epoch, Now};
use outlast_model::message::{Assignment, StopReason, ToCoordinator};
use outlast_model::{Cause, Checkpoint, OutcomeKind, TaskOutcome};
use std::ops::Bound;
use std::sync::Arc;

/// End of an attempt that has not started.
#[derive(Debug, Clone, Copy)]
pub(super) struct NeverRan<'a> {
    pub kind: OutcomeKind,
    pub cause: Cause,
    pub message: &'a str,
}

impl NeverRan<'_> {
    /// The worker drains.
    pub const DRAINED: NeverRan<'static> =
        NeverRan { kind: OutcomeKind::Returned, cause: Cause::Drained, message: "worker drains" };
}

/// Arrivals of attempts.
impl Worker {
    pub(super) fn on_assign(&mut self, now: Now, assignments: Vec<Assignment>) {
        for given in assignments {
            let id = AttemptId { task: given.task.clone(), epoch: given.epoch };
            let held = self.attempts.newest(&id.task);
            if held.is_some_and(|e| e >= id.epoch) || self.lanes.has_outcome(&id) {
                continue;
            }
            if let Some(epoch) = held {
                let older = AttemptId { task: id.task.clone(), epoch };
                self.stop_one(now, older, StopReason::Superseded);
            }
            self.assigned(now, given);
            if self.ending != Ending::No && self.attempts.holds(&id.task, id.epoch) {
                self.end_waiting(now, id, NeverRan::DRAINED);
            }
        }
        if self.fitness.stops_work() {
            self.give_back(now);
        }
        self.start_queued(now);
    }

    fn assigned(&mut self, now: Now, given: Assignment) {
        let Assignment { task, epoch, paused, after, mut checkpoint, .. } = given;
        let spec = match given.spec {
            Ok(spec) => spec,
            Err(error) => {
                let message = &format!("this worker cannot read the task: {error}");
                let (kind, cause) = (OutcomeKind::Failed, Cause::NotStarted);
                let id = AttemptId { task, epoch };
                return self.end_waiting(now, id, NeverRan { kind, cause, message });
            }
        };
        checkpoint.iter_mut().for_each(|c| Arc::make_mut(c).detach());
        let checkpoint = self.newest_checkpoint(&task, epoch, after, checkpoint);
        self.journal.record(WorkerRecord::Accepted {
            task: task.clone(),
            epoch,
            spec: spec.clone(),
            checkpoint: checkpoint.clone(),
            paused,
            after,
        });
        let (batch, made, state) = (self.journal.open(), 0, None);
        self.attempts.insert(Arrival {
            task,
            epoch,
            spec,
            batch,
            paused,
            after,
            made,
            checkpoint,
            state,
        });
    }

    /// Returns the checkpoint that a new attempt resumes from: the coordinator's, or one of an older
    /// attempt here that has not reached the coordinator yet. Outcomes overtake checkpoints. Attempts up
    /// to `after` belong to a previous task of this id.
    fn newest_checkpoint(
        &self,
        task: &str,
        epoch: Epoch,
        after: Epoch,
        given: Option<Arc<Checkpoint>>,
    ) -> Option<Arc<Checkpoint>> {
        let own = (Bound::Excluded(after), Bound::Excluded(epoch));
        let sending = self.lanes.sending(task, own).cloned();
        sending.chain(given).max_by_key(|c| (c.epoch, c.number))
    }
}

/// Starts of attempts.
impl Worker {
    /// Lets waiting attempts start, as far as there are slots. Each starts once its arrival is
    /// durable (and, if it must not run twice, its start); it need not wait for other facts.
    pub(super) fn start_queued(&mut self, now: Now) {
        if self.ending >= Ending::Stop || self.fitness.stops_work() {
            return;
        }
        while let Some(Reserved { id, batch, once }) = self.attempts.reserve() {
            let mut rests_on = batch;
            if once {
                let (task, epoch) = (id.task.clone(), id.epoch);
                self.journal.record(WorkerRecord::Starting { task, epoch, at: now.wall });
                if let Some(attempt) = self.attempts.get_mut(&id.task, id.epoch) {
                    attempt.become_recorded();
                }
                rests_on = self.journal.open();
            }
            if rests_on <= self.journal.durable() {
                self.run(now, id);
            } else {
                self.starts.wait(rests_on, id);
            }
        }
    }

    /// Starts what has its slots and rests on nothing that is not durable.
    pub(super) fn start_reserved(&mut self, now: Now) {
        while !self.fitness.stops_work()
            && let Some(id) = self.starts.take_durable(self.journal.durable())
        {
            self.run(now, id);
        }
    }

    fn run(&mut self, now: Now, id: AttemptId) {
        let Some(attempt) = self.attempts.begin(&id, now) else { return };
        let (spec, paused) = (attempt.spec.clone(), attempt.paused);
        let recorded = attempt.is_recorded();
        self.journal.output(Output::Run(id.task.clone(), id.epoch, spec));
        if paused {
            self.journal.output(Output::Pause(id.task.clone(), id.epoch, true));
        }
        if recorded {
            self.report_later(id, now.wall);
        }
    }

    /// Keeps a start on record to be reported. Without a link, the next inventory reports it.
    pub(super) fn report_later(&mut self, id: AttemptId, at: i64) {
        if self.uplink.is_open() {
            self.starts.add_unreported(id, at);
        }
    }

    /// Reports the starts of running attempts; outcomes report the others.
    pub(super) fn report_starts(&mut self) {
        if !self.uplink.is_up() {
            return;
        }
        let mut started = self.starts.take_unreported();
        started.retain(|(id, _)| self.attempts.is_running(&id.task, id.epoch));
        if !started.is_empty() {
            self.journal.output(Output::Send(ToCoordinator::Started(started)));
        }
    }
}

/// Ends of attempts.
impl Worker {
    pub(super) fn on_stop(&mut self, now: Now, attempts: Vec<AttemptId>, reason: StopReason) {
        for attempt in attempts {
            self.stop_one(now, attempt, reason);
        }
        self.start_queued(now);
    }

    fn stop_one(&mut self, now: Now, id: AttemptId, reason: StopReason) {
        let Some(attempt) = self.attempts.get(&id.task, id.epoch) else { return };
        if attempt.is_handed_over() {
            let output = match reason {
                StopReason::Return if attempt.is_staged() => Output::Recall(id.task, id.epoch),
                StopReason::Return => return,
                // The task cannot go on elsewhere: the move came too late.
                StopReason::Move if attempt.is_running() && attempt.runs_once() => return,
                StopReason::Move => Output::StopRun(id.task, id.epoch, StopKind::Interrupt),
                StopReason::Cancelled | StopReason::Superseded => {
                    Output::StopRun(id.task, id.epoch, StopKind::Cancel)
                }
            };
            self.journal.output(output);
        } else {
            let (kind, cause, message) = match reason {
                StopReason::Return => (OutcomeKind::Returned, Cause::AskedBack, "recalled"),
                StopReason::Move => (OutcomeKind::Returned, Cause::Moved, "moved"),
                StopReason::Cancelled => (OutcomeKind::Cancelled, Cause::Cancelled, "cancelled"),
                StopReason::Superseded => (OutcomeKind::Cancelled, Cause::Superseded, "superseded"),
            };
            self.end_waiting(now, id, NeverRan { kind, cause, message });
        }
    }

    /// Ends an attempt that has not started.
    pub(super) fn end_waiting(&mut self, now: Now, id: AttemptId, end: NeverRan<'_>) {
        let outcome = TaskOutcome {
            task: id.task,
            epoch: id.epoch,
            kind: end.kind,
            message: end.message.into(),
            cause: end.cause,
            finished_at_ms: now.wall,
            ..Default::default()
        };
        self.finish(now, outcome);
    }

    /// An attempt that was started has ended.
    pub fn on_finished(&mut self, now: Now, outcome: TaskOutcome) {
        let id = outcome.attempt();
        let ran = self.attempts.get(&id.task, id.epoch).is_some_and(|a| a.is_handed_over());
        // One that did not run here: the former process had it, and ended before it could say so.
        let kept = ran || self.lanes.has_outcome(&id);
        if ran {
            if let Some(ahead) = self.starts.learn(&outcome) {
                self.attempts.set_ahead(ahead);
            }
            let outcome = self.fitness.doubted(outcome);
            self.finish(now, outcome);
        }
        let forget = Output::Forget(id.task, id.epoch);
        if kept {
            self.journal.release(forget);
        } else {
            self.journal.output(forget);
        }
        self.start_queued(now);
        self.settle();
    }

    /// Records a durable outcome; the attempt is no longer held.
    pub(super) fn finish(&mut self, now: Now, mut outcome: TaskOutcome) {
        self.name_checkpoint(&mut outcome);
        let gone = self.attempts.remove(&outcome.task, outcome.epoch, now);
        if gone.is_some_and(|attempt| attempt.is_reserved()) {
            self.starts.cancel(&outcome.attempt());
        }
        for id in self.attempts.take_to_pause() {
            self.journal.output(Output::Pause(id.task, id.epoch, true));
        }
        self.lanes.add_outcome(Arc::new(outcome), &mut self.journal);
    }

    /// Writes into an outcome which checkpoint the next attempt could go on from here, so that the
    /// coordinator does not pass over one that is still on its way.
    fn name_checkpoint(&self, outcome: &mut TaskOutcome) {
        let Some(attempt) = self.attempts.get(&outcome.task, outcome.epoch) else { return };
        let Some(newest) = attempt.checkpoint.as_deref() else { return };
        if !self.lanes.was_dropped(newest) {
            outcome.checkpoint = Some((newest.epoch, newest.number));
        }
    }
}
