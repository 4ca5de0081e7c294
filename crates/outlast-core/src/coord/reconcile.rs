//! The difference between what a worker holds and what it should: computed when it connects,
//! and when it stays away.

use super::links::LinkChange;
use super::tasks::End;
use super::{Coordinator, Lookup, Timer};
use crate::records::{CoordRecord, TaskState};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Now, TaskId};
use outlast_model::Cause;
use outlast_model::message::{Holding, HoldingState, StopReason};
use outlast_model::spec::Rerun;
use std::collections::BTreeMap;

/// Pairs of task and worker that one search for idle workers considers.
const BALANCE_TRIES: u32 = 20_000;

impl Coordinator {
    /// The worker has said everything that it holds.
    pub(super) fn reconcile(
        &mut self,
        now: Now,
        key: WorkerKey,
        held: Vec<Holding>,
        look: &dyn Lookup,
    ) {
        let member = self.fleet.get_mut(key);
        let expected = std::mem::take(&mut member.attempts);
        member.used = 0;
        let told = (member.row.incarnation, member.row.connection);
        let anew = told.0 != std::mem::replace(&mut member.settled, told).0;
        if anew {
            let worker = member.row.clone();
            self.records.push(CoordRecord::WorkerSeen { worker, at: now.wall });
        }
        let mut holds = BTreeMap::new();
        for h in held {
            let id = h.attempt();
            holds.insert(id, (h.state, h.started_at_ms, h.paused));
        }
        let mut missing = Vec::new();
        for (id, slots) in expected {
            let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
            match holds.get(&id) {
                // Its outcome is on the way; it takes no slot.
                Some((HoldingState::Finished, ..)) if current => {
                    self.fleet.get_mut(key).hold(id.task, id.epoch, 0);
                }
                None if current => missing.push((id, slots)),
                _ => {}
            }
        }
        for (id, (state, started, paused)) in holds {
            if state != HoldingState::Finished {
                let given_up = |t: &super::Task| t.is_given_up(id.epoch);
                if self.tasks.get(&id.task).is_some_and(given_up) && self.has_ended(key, &id, look)
                {
                    // Its end came beside the lane, and the worker's store has forgotten it.
                    self.send_stop(key, &id.task, id.epoch, StopReason::Superseded);
                    continue;
                }
                self.reconcile_one(now, key, &id, started, look);
                self.settle_pause(key, &id, paused);
            }
        }
        let mut again = Vec::new();
        for (id, slots) in missing {
            let task = self.tasks.get(&id.task).expect("it is current");
            if task.cancelling {
                let end = End::without(TaskState::Cancelled, "cancelled", Cause::Cancelled);
                self.end(now, &id.task, end);
            } else if task.spec.rerun == Rerun::Never && (anew || task.started_at.is_some()) {
                // The process that says so is not the one that it was given to: that one may have
                // run it, and its store may be an older copy.
                let reason = match task.started_at {
                    Some(_) => "its worker lost it while it ran",
                    None => "its worker was started again and does not know of it",
                };
                self.lose(now, &id.task, reason, Cause::Lost, None);
            } else {
                self.fleet.get_mut(key).hold(id.task.clone(), id.epoch, slots);
                again.push(id.task);
            }
        }
        self.send_assignments(now, key, &again);
        self.fleet.get_mut(key).ready = true;
        if self.fleet.get(key).row.drained {
            self.take_back(key);
        }
        self.fleet.offer(&mut self.scheduler, key);
        self.tell_actions(now, key);
    }

    /// The worker has nothing left to deliver: attempts that it said to have finished, and whose
    /// outcome did not come, are lost. Two processes that went on from copies of one store number
    /// their outboxes alike, and what one sends is taken for what the other sent before.
    pub(super) fn lose_undelivered(&mut self, now: Now, key: WorkerKey) {
        let finished = self.fleet.get(key).attempts.iter().filter(|(_, slots)| **slots == 0);
        let lost: Vec<AttemptId> = finished.map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.fleet.get_mut(key).drop_attempt(&id);
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                let reason = "its worker finished it, and has no outcome of it to deliver";
                self.lose(now, &id.task, reason, Cause::Lost, None);
            }
        }
    }

    /// An attempt that the worker has not finished.
    pub(super) fn reconcile_one(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: &AttemptId,
        started: i64,
        look: &dyn Lookup,
    ) {
        let (task_id, epoch) = (&id.task, id.epoch);
        let slots = self.tasks.get(task_id).map_or(1, |t| t.spec.slots);
        self.fleet.get_mut(key).hold(task_id.clone(), epoch, slots);
        let Some(task) = self.tasks.get(task_id) else {
            return self.send_stop(key, task_id, epoch, StopReason::Superseded);
        };
        // Abandoned, but not assigned again yet: it continues where it is.
        if task.is_given_up(epoch)
            && self.was_given(key, id, look)
            && let Some(task) = self.tasks.get_mut(task_id)
        {
            (task.state, task.worker) = (TaskState::Assigned, Some(key));
            (task.started_at, task.asked_back) = (None, false);
            let waited = task.due.take().is_some();
            self.scheduler.remove(task_id);
            let worker = self.fleet.get(key).row.store_id.clone();
            let (task, at) = (task_id.clone(), now.wall);
            self.records.push(CoordRecord::Assigned { task, epoch, worker, at });
            if waited {
                let note = "its worker is back and runs it still: the retry is not needed";
                self.note(now, task_id, epoch, note.into());
            }
        }
        let Some(task) = self.tasks.get(task_id).filter(|t| t.is_current(key, epoch)) else {
            return self.send_stop(key, task_id, epoch, StopReason::Superseded);
        };
        let cancelling = task.cancelling;
        let name = self.fleet.get(key).row.name.clone();
        if started == 0 && task.spec.rerun == Rerun::Never && task.started_at.is_some() {
            // A start becomes durable before it is reported: this store is an older copy.
            let reason = "its worker forgot that it had started";
            self.lose(now, task_id, reason, Cause::Lost, None);
            return self.send_stop(key, task_id, epoch, StopReason::Superseded);
        }
        if started > 0 {
            self.note_start(now, task_id, epoch, started);
        }
        let moved = self.tasks.get(task_id).is_some_and(|t| t.is_misplaced(&name));
        if cancelling {
            self.send_stop(key, task_id, epoch, StopReason::Cancelled);
        } else if moved {
            self.send_stop(key, task_id, epoch, StopReason::Move);
        }
    }

    /// Drops stale attempts of a lost link: only current ones matter, and the rest is reported again on
    /// return.
    pub(super) fn forget_stale_attempts(&mut self, key: WorkerKey) {
        let member = self.fleet.get(key);
        let stale = |id: &&AttemptId| {
            !self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch))
        };
        let stale: Vec<AttemptId> = member.attempts.keys().filter(stale).cloned().collect();
        for id in stale {
            self.fleet.get_mut(key).drop_attempt(&id);
        }
    }

    /// Sets the time at which the first attempt of an absent worker is abandoned.
    pub(super) fn arm_window(&mut self, now: Now, key: WorkerKey) {
        let Some(member) = self.fleet.find(key).filter(|m| m.conn.is_none()) else { return };
        let window = |id: &AttemptId| self.tasks.get(&id.task).map(super::Task::window);
        if let Some(window) = member.attempts.keys().filter_map(window).min() {
            let at = (member.gone + window).max(now.mono + 1);
            self.timers.insert((at, Timer::Window(key)));
        }
    }

    /// Gives up the attempts of an absent worker whose window has passed.
    pub(super) fn on_window(&mut self, now: Now, key: WorkerKey) {
        let Some(member) = self.fleet.find(key).filter(|m| m.conn.is_none()) else { return };
        let away = now.mono.saturating_sub(member.gone);
        let passed = |id: &&AttemptId| self.tasks.get(&id.task).is_some_and(|t| t.window() <= away);
        let passed: Vec<AttemptId> = member.attempts.keys().filter(passed).cloned().collect();
        for id in passed {
            self.fleet.get_mut(key).drop_attempt(&id);
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.counters.expired += 1;
                let name = &self.fleet.get(key).row.name;
                let reason = format!("worker {name} did not return within {} s", away / 1000);
                self.lose(now, &id.task, &reason, Cause::Network, None);
            }
        }
        self.arm_window(now, key);
    }

    /// Removes a worker that is not connected; what it had is given to others.
    pub(super) fn forget(&mut self, now: Now, key: WorkerKey) {
        let member = self.fleet.get(key);
        let worker = member.row.store_id.clone();
        let reason = format!("worker {} was forgotten", member.row.name);
        let held: Vec<AttemptId> = member.attempts.keys().cloned().collect();
        for id in held {
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.lose(now, &id.task, &reason, Cause::Forgotten, None);
            }
        }
        self.forget_quarantine(&worker);
        self.records.push(CoordRecord::WorkerForgotten { worker, at: now.wall });
        self.scheduler.leave(key);
        self.tell(now, key, LinkChange::Forgotten);
        self.fleet.forget(key);
    }

    /// Recalls attempts that wait at a full worker while an idle one could run them.
    pub(super) fn balance(&mut self) {
        if self.scheduler.waiting() > 0 {
            return;
        }
        let mut idle: Vec<(WorkerKey, u64)> = Vec::new();
        let mut full: Vec<WorkerKey> = Vec::new();
        for (key, m) in self.fleet.iter().filter(|(_, m)| m.ready) {
            let slots = u64::from(m.row.slots);
            if m.used < slots && !m.draining && !m.row.drained && !m.is_unfit() {
                idle.push((key, slots - m.used));
            } else if m.used > slots {
                full.push(key);
            }
        }
        // Enough for any fleet in a few rounds, and never so many that heartbeats would wait.
        let mut tries = BALANCE_TRIES;
        for key in full {
            let member = self.fleet.get(key);
            let mut excess = member.used - u64::from(member.row.slots);
            let mut back: Vec<(TaskId, u64)> = Vec::new();
            for id in member.attempts.keys() {
                let Some(task) = self.tasks.get(&id.task) else { continue };
                let slots = u64::from(task.spec.slots);
                if tries == 0 {
                    break;
                }
                let movable = task.is_current(key, id.epoch)
                    && task.started_at.is_none()
                    && !task.asked_back
                    && task.asked.awaited.is_none()
                    && !task.cancelling
                    && !task.paused
                    && slots <= excess;
                if !movable {
                    continue;
                }
                let (requires, needs) = (self.requires_of(task), task.spec.slots);
                let place = idle.iter_mut().find(|(other, room)| {
                    tries = tries.saturating_sub(1);
                    tries > 0 && *room >= slots && self.scheduler.fits(*other, &requires, needs)
                });
                if let Some((_, room)) = place {
                    *room -= slots;
                    excess -= slots;
                    back.push((id.task.clone(), id.epoch));
                }
            }
            for (task, epoch) in back {
                if let Some(t) = self.tasks.get_mut(&task) {
                    t.asked_back = true;
                }
                self.send_stop(key, &task, epoch, StopReason::Return);
            }
        }
    }
}
