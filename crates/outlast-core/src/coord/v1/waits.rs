//! Timeouts of v1 workers that do not answer: a pause is withdrawn, a task that runs too long is timed
//! out, and one that its worker accepted and does not know any more is lost.

use super::session::{LOST, PAUSE_LAPSES};
use crate::coord::coordinator::Coordinator;
use crate::coord::loads::Facts;
use crate::records::CoordRecord;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Now, TaskId};
use outlast_model::message::{ControlKind, StopReason};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};

impl Coordinator {
    /// Looks for what has waited too long.
    pub(super) fn end_waits_v1(&mut self, now: Now, key: WorkerKey) {
        let Some(session) = self.fleet.get_mut(key).v1.as_mut() else { return };
        let (mut lapsed, mut long, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for (id, run) in &mut session.runs {
            let Some(task) = self.tasks.get(id).filter(|t| t.is_current(key, run.epoch)) else {
                continue;
            };
            if let Some(counted) = &mut run.ran.1 {
                let more = now.mono.saturating_sub(std::mem::replace(counted, now.mono));
                run.ran.0 += if run.pause.paused == Some(true) { 0 } else { more };
            }
            let limit = task.spec.timeout.map(|s| (s * 1000.0) as u64);
            match run.stopping {
                Some(at) if now.mono >= at + LOST => late.push((id.clone(), run.epoch)),
                None if limit.is_some_and(|limit| run.ran.0 >= limit) => {
                    run.stopping = Some(now.mono);
                    long.push((id.clone(), run.epoch));
                }
                _ => {}
            }
            if !task.paused || run.pause.paused == Some(true) {
                run.pause.pausing = None;
                continue;
            }
            let since = *run.pause.pausing.get_or_insert(now.mono);
            if now.mono >= since + PAUSE_LAPSES {
                (run.pause.pausing, run.pause.lapsed, run.pause.paused) = (None, true, Some(false));
                lapsed.push((id.clone(), run.epoch));
            }
        }
        for (id, epoch) in lapsed {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.paused = false;
            }
            let record = CoordRecord::Paused { task: id.clone(), on: false, at: now.wall };
            self.journal.record(record);
            let s = PAUSE_LAPSES / 1000;
            let note = format!(
                "its worker did not answer within {s} s; the pause is withdrawn, it goes on"
            );
            self.note(now, &id, epoch, note);
            // It may have paused without a word.
            self.send_control(key, &id, epoch, ControlKind::Resume);
        }
        for (id, epoch) in long {
            self.send_stop(key, &id, epoch, StopReason::Cancelled);
        }
        for (id, epoch) in late {
            let outcome = self.timed_out_v1(now, &id);
            self.on_end_v1(now, key, &id, Some(epoch), outcome, &Facts::none());
        }
    }

    /// The outcome of what ran for too long.
    pub(super) fn timed_out_v1(&self, now: Now, task: &TaskId) -> TaskOutcome {
        let limit = self.tasks.get(task).and_then(|t| t.spec.timeout).unwrap_or_default();
        TaskOutcome {
            task: task.clone(),
            kind: OutcomeKind::TimedOut,
            cause: Cause::TimedOut,
            message: format!("it ran for longer than {limit} s"),
            finished_at_ms: now.wall,
            ..Default::default()
        }
    }

    /// The worker has no state of a task that it had accepted and does not name.
    pub(super) fn on_unknown_v1(&mut self, now: Now, key: WorkerKey, task: &TaskId) {
        let Some(epoch) = self.tasks.get(task).filter(|t| t.is_current(key, t.epoch)) else {
            return;
        };
        let epoch = epoch.epoch;
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let asked = session
            .run(task, epoch)
            .is_some_and(|r| r.evidence.accepted && r.evidence.asked.is_some());
        if asked {
            self.is_missing(now, key, &AttemptId { task: task.clone(), epoch });
        }
    }
}
