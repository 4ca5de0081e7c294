//! The difference between what a worker holds and what it should: computed when it connects,
//! and when it stays away.
//!
//! | the task's attempt is | the worker's inventory has it as | and then |
//! |---|---|---|
//! | current | waiting or running | it goes on; pending requests (cancel, move, pause) are sent again |
//! | current | finished | its outcome is on the way |
//! | current, never to run twice | waiting, though its start is on record | lost: that store is an older copy |
//! | current | missing | assigned again, or lost if it may have run and must not twice, or cancelled |
//! | abandoned, and not assigned again | waiting or running | it goes on, if it was this worker's and did not end |
//! | anything else | waiting or running | stopped as superseded |

use super::coordinator::Coordinator;
use super::ends::End;
use super::loads::Facts;
use super::news::LinkChange;
use super::task::Task;
use super::timers::Timer;
use crate::records::{CoordRecord, TaskState};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Now, TaskId};
use outlast_model::Cause;
use outlast_model::message::{Holding, HoldingState, StopReason};
use outlast_model::spec::Rerun;
use std::collections::BTreeMap;

/// Pairs of task and worker that one search for idle workers considers.
const BALANCE_TRIES: u32 = 20_000;

/// Slots of an attempt that its worker has finished, and whose outcome is on its way.
const DELIVERING: u32 = 0;

impl Coordinator {
    /// Compares a complete inventory with the worker's attempts, and sends the difference.
    pub(super) fn reconcile(
        &mut self,
        now: Now,
        key: WorkerKey,
        inventory: Vec<Holding>,
        facts: &Facts,
    ) {
        let inventory: BTreeMap<AttemptId, Holding> =
            inventory.into_iter().map(|h| (h.attempt(), h)).collect();
        let restarted = self.settle_process(now, key);
        let held = &mut self.fleet.get_mut(key).held;
        let expected = std::mem::take(&mut held.attempts);
        held.used = 0;
        let mut missing = Vec::new();
        for (id, slots) in expected {
            let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
            match inventory.get(&id) {
                Some(h) if current && h.state == HoldingState::Finished => {
                    self.fleet.get_mut(key).hold(id.task, id.epoch, DELIVERING);
                }
                None if current => missing.push((id, slots)),
                _ => {}
            }
        }
        for (id, holding) in inventory {
            if holding.state == HoldingState::Finished {
                continue;
            }
            let abandoned = |t: &Task| t.is_abandoned(id.epoch);
            if self.tasks.get(&id.task).is_some_and(abandoned) && self.has_ended(key, &id, facts) {
                // Its end came beside the lane, and the worker's store has forgotten it.
                self.send_stop(key, &id.task, id.epoch, StopReason::Superseded);
                continue;
            }
            self.reconcile_one(now, key, &id, holding.started_at_ms, facts);
            self.settle_pause(key, &id, holding.paused);
        }
        self.assign_missing(now, key, missing, restarted);
        self.fleet.get_mut(key).link.ready = true;
        if self.fleet.get(key).row.drained {
            self.take_back(key);
        }
        self.fleet.offer(&mut self.scheduler, key);
        self.send_actions(now, key);
    }

    /// Puts the process that sent an inventory on record; returns true if it is another one than before.
    fn settle_process(&mut self, now: Now, key: WorkerKey) -> bool {
        let member = self.fleet.get_mut(key);
        let process = (member.row.incarnation, member.row.connection);
        let restarted = process.0 != member.settled.0;
        member.settled = process;
        if restarted {
            let worker = member.row.clone();
            self.journal.record(CoordRecord::WorkerSeen { worker, at: now.wall });
        }
        restarted
    }

    /// Handles current attempts that a worker's inventory lacks.
    fn assign_missing(
        &mut self,
        now: Now,
        key: WorkerKey,
        missing: Vec<(AttemptId, u32)>,
        restarted: bool,
    ) {
        let mut again = Vec::new();
        for (id, slots) in missing {
            let task = self.tasks.get(&id.task).expect("it is current");
            let started = task.started_at().is_some();
            if task.is_cancelling() {
                let end = End::without(TaskState::Cancelled, "cancelled", Cause::Cancelled);
                self.end(now, &id.task, end);
            } else if task.spec.rerun == Rerun::Never && (restarted || started) {
                // The process that says so is not the one that it was given to: that one may have
                // run it, and its store may be an older copy.
                let reason = match started {
                    true => "its worker lost it while it ran",
                    false => "its worker was started again and does not know of it",
                };
                self.lose(now, &id.task, reason, Cause::Lost, None);
            } else {
                self.fleet.get_mut(key).hold(id.task.clone(), id.epoch, slots);
                again.push(id.task);
            }
        }
        self.send_assignments(now, key, &again);
    }

    /// The worker has nothing left to deliver: attempts that it said to have finished, and whose
    /// outcome did not come, are lost. Two processes that went on from copies of one store number
    /// their outboxes alike, and what one sends is taken for what the other sent before.
    pub(super) fn lose_undelivered(&mut self, now: Now, key: WorkerKey) {
        let attempts = self.fleet.get(key).held.attempts.iter();
        let finished = attempts.filter(|(_, slots)| **slots == DELIVERING);
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
        facts: &Facts,
    ) {
        let (task_id, epoch) = (&id.task, id.epoch);
        let slots = self.tasks.get(task_id).map_or(1, |t| t.spec.slots);
        self.fleet.get_mut(key).hold(task_id.clone(), epoch, slots);
        let Some(task) = self.tasks.get(task_id) else {
            return self.send_stop(key, task_id, epoch, StopReason::Superseded);
        };
        // Abandoned, but not assigned again yet: it continues where it is.
        if task.is_abandoned(epoch)
            && self.was_given(key, id, facts)
            && let Some(task) = self.tasks.get_mut(task_id)
        {
            let waited = task.become_assigned_again(key);
            self.scheduler.remove(task_id);
            let worker = self.fleet.get(key).row.store_id.clone();
            let (task, at) = (task_id.clone(), now.wall);
            self.journal.record(CoordRecord::Assigned { task, epoch, worker, at });
            if waited {
                let note = "its worker is back and runs it still: the retry is not needed";
                self.note(now, task_id, epoch, note.into());
            }
        }
        let Some(task) = self.tasks.get(task_id).filter(|t| t.is_current(key, epoch)) else {
            return self.send_stop(key, task_id, epoch, StopReason::Superseded);
        };
        let cancelling = task.is_cancelling();
        let name = self.fleet.get(key).row.name.clone();
        if started == 0 && task.spec.rerun == Rerun::Never && task.started_at().is_some() {
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
        let stale: Vec<AttemptId> = member.held.attempts.keys().filter(stale).cloned().collect();
        for id in stale {
            self.fleet.get_mut(key).drop_attempt(&id);
        }
    }

    /// Sets the time at which the first attempt of an absent worker is abandoned.
    pub(super) fn arm_window(&mut self, now: Now, key: WorkerKey) {
        let Some(member) = self.fleet.find(key).filter(|m| m.link.conn.is_none()) else { return };
        let window = |id: &AttemptId| self.tasks.get(&id.task).map(Task::window);
        if let Some(window) = member.held.attempts.keys().filter_map(window).min() {
            let at = (member.link.gone + window).max(now.mono + 1);
            self.timers.set(at, Timer::Window(key));
        }
    }

    /// Gives up the attempts of an absent worker whose window has passed.
    pub(super) fn on_window(&mut self, now: Now, key: WorkerKey) {
        let Some(member) = self.fleet.find(key).filter(|m| m.link.conn.is_none()) else { return };
        let away = now.mono.saturating_sub(member.link.gone);
        let passed = |id: &&AttemptId| self.tasks.get(&id.task).is_some_and(|t| t.window() <= away);
        let passed: Vec<AttemptId> = member.held.attempts.keys().filter(passed).cloned().collect();
        for id in passed {
            self.fleet.get_mut(key).drop_attempt(&id);
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.counters.attempts.expired += 1;
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
        let held: Vec<AttemptId> = member.held.attempts.keys().cloned().collect();
        for id in held {
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.lose(now, &id.task, &reason, Cause::Forgotten, None);
            }
        }
        self.forget_quarantine(&worker);
        self.journal.record(CoordRecord::WorkerForgotten { worker, at: now.wall });
        self.scheduler.leave(key);
        self.publish(now, key, LinkChange::Forgotten);
        self.fleet.forget(key);
    }

    /// Recalls attempts that wait at a full worker while an idle one could run them.
    pub(super) fn balance(&mut self) {
        if self.scheduler.waiting() > 0 {
            return;
        }
        let mut idle: Vec<(WorkerKey, u64)> = Vec::new();
        let mut full: Vec<WorkerKey> = Vec::new();
        for (key, m) in self.fleet.iter().filter(|(_, m)| m.link.ready) {
            let slots = u64::from(m.row.slots);
            if m.held.used < slots && !m.link.draining && !m.row.drained && !m.is_unfit() {
                idle.push((key, slots - m.held.used));
            } else if m.held.used > slots {
                full.push(key);
            }
        }
        // Enough for any fleet in a few rounds, and never so many that heartbeats would wait.
        let mut tries = BALANCE_TRIES;
        for key in full {
            let member = self.fleet.get(key);
            let mut excess = member.held.used - u64::from(member.row.slots);
            let mut back: Vec<(TaskId, u64)> = Vec::new();
            for id in member.held.attempts.keys() {
                let Some(task) = self.tasks.get(&id.task) else { continue };
                let slots = u64::from(task.spec.slots);
                if tries == 0 {
                    break;
                }
                let movable = task.is_current(key, id.epoch)
                    && task.started_at().is_none()
                    && !task.is_recalled()
                    && task.asked.awaited.is_none()
                    && !task.is_cancelling()
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
                    t.recall();
                }
                self.send_stop(key, &task, epoch, StopReason::Return);
            }
        }
    }
}
