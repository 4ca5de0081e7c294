//! Control of running attempts, on request or by time: pause, resume, checkpoints.

use super::attempts::Due;
use super::machine::Worker;
use super::output::{Output, StopKind};
use crate::records::WorkerRecord;
use crate::{AttemptId, Epoch, Millis, Now, TaskId};
use outlast_model::message::{ControlKind, Happened, HappenedKind, ToCoordinator};
use outlast_model::spec::OnLeaseExpired;

/// Time limit in milliseconds for a task's checkpoint before it is paused.
const PAUSE_LIMIT: Millis = 10_000;

impl Worker {
    /// The executor paused a running attempt, or let it go on.
    pub fn on_paused(&mut self, now: Now, task: &TaskId, epoch: Epoch, on: bool) {
        if self.attempts.is_running(task, epoch) {
            let kind = if on { HappenedKind::Paused } else { HappenedKind::Resumed };
            self.happened(now, task, epoch, kind, "");
        }
    }

    pub(super) fn on_control(&mut self, now: Now, attempts: &[AttemptId], kind: ControlKind) {
        for attempt in attempts {
            let task: TaskId = attempt.task.clone();
            match kind {
                ControlKind::Pause => self.pause(now, &task, attempt.epoch),
                ControlKind::Resume => self.resume(now, &task, attempt.epoch),
                ControlKind::Checkpoint => {
                    if self.attempts.is_running(&task, attempt.epoch) {
                        self.journal.output(Output::AskCheckpoint(task, attempt.epoch));
                    } else {
                        let note = "no checkpoint: it does not run";
                        let kind = HappenedKind::Note;
                        self.happened(now, &task, attempt.epoch, kind, note);
                    }
                }
            }
        }
        self.start_queued(now);
    }

    fn pause(&mut self, now: Now, task: &TaskId, epoch: Epoch) {
        let Some(attempt) = self.attempts.get_mut(task, epoch) else { return };
        if std::mem::replace(&mut attempt.paused, true) {
            return;
        }
        self.journal.record(WorkerRecord::Paused { task: task.clone(), epoch, on: true });
        if attempt.is_staged() {
            // It goes back, and is not given out again before it is resumed.
            self.journal.output(Output::Recall(task.clone(), epoch));
        } else if !attempt.is_running() {
            self.attempts.hold_back(task, epoch, true);
            self.happened(now, task, epoch, HappenedKind::Paused, "before it started");
        } else if attempt.takes_requests() {
            attempt.plan_pause(now.mono + PAUSE_LIMIT);
            self.journal.output(Output::AskCheckpoint(task.clone(), epoch));
        } else {
            self.journal.output(Output::Pause(task.clone(), epoch, true));
        }
    }

    pub(super) fn resume(&mut self, now: Now, task: &TaskId, epoch: Epoch) {
        let Some(attempt) = self.attempts.get_mut(task, epoch) else { return };
        attempt.cancel_pause();
        if !std::mem::replace(&mut attempt.paused, false) {
            return;
        }
        attempt.plan_request(now.mono);
        self.journal.record(WorkerRecord::Paused { task: task.clone(), epoch, on: false });
        if attempt.is_handed_over() {
            self.journal.output(Output::Pause(task.clone(), epoch, false));
        } else {
            self.attempts.hold_back(task, epoch, false);
            self.happened(now, task, epoch, HappenedKind::Resumed, "before it started");
        }
    }

    /// Carries out what is due for running attempts: pauses, checkpoints, passed windows.
    pub(super) fn attend(&mut self, now: Now) {
        for (id, due) in self.attempts.due(now.mono) {
            self.journal.output(match due {
                Due::Checkpoint(every) if self.skips_checkpoint(now, &id.task, id.epoch, every) => {
                    continue;
                }
                Due::Checkpoint(_) => Output::AskCheckpoint(id.task, id.epoch),
                Due::Pause => Output::Pause(id.task, id.epoch, true),
            });
        }
        let Some((lost, before)) = self.uplink.outage() else { return };
        let away = now.mono.saturating_sub(lost).saturating_add(before);
        for (id, policy) in self.attempts.expire(away) {
            let (task, epoch) = (id.task, id.epoch);
            match policy {
                OnLeaseExpired::Continue => {}
                OnLeaseExpired::Pause => {
                    let Some(attempt) = self.attempts.get_mut(&task, epoch) else { continue };
                    if !attempt.paused {
                        attempt.paused = true;
                        let record = WorkerRecord::Paused { task: task.clone(), epoch, on: true };
                        self.journal.record(record);
                        self.journal.output(Output::Pause(task, epoch, true));
                    }
                }
                OnLeaseExpired::Stop => {
                    self.journal.output(Output::StopRun(task, epoch, StopKind::Interrupt));
                }
            }
        }
    }

    fn happened(&mut self, now: Now, task: &TaskId, epoch: Epoch, kind: HappenedKind, note: &str) {
        if self.uplink.is_up() {
            let attempt = AttemptId { task: task.clone(), epoch };
            let (kind, note, at_ms) = (kind, note.to_owned(), now.wall);
            let happened = Happened { attempt, kind, note, at_ms };
            self.journal.output(Output::Send(ToCoordinator::Happened(happened)));
        }
    }
}
