//! Heartbeats of v1 workers: what they name is what the worker has. What it does not name for a
//! while is asked for, then sent again or lost; what it names and should not have is cancelled.

use super::session::{AGAIN, Run};
use crate::coord::coordinator::Coordinator;
use crate::coord::ends::End;
use crate::coord::ids::ConnId;
use crate::coord::loads::Facts;
use crate::coord::output::Output;
use crate::records::TaskState;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Now, TaskId};
use outlast_model::Cause;
use outlast_model::message::{Action, ControlKind, StopReason};
use outlast_model::spec::Rerun;
use outlast_wire::v1::ToWorker;
use serde_json::Value;
use std::collections::BTreeSet;

/// Tasks named in one action.
const NAMED: usize = 1_000;

impl Coordinator {
    pub(super) fn on_beat_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        (response_to, active, answered): (Value, Option<Vec<String>>, bool),
        facts: &Facts,
    ) {
        let link = self.conns.get_mut(&conn).and_then(|c| c.v1.as_mut());
        let first = link.is_some_and(|l| !std::mem::replace(&mut l.registered, true));
        let mut actions = Vec::new();
        if let Some(active) = active {
            let active: BTreeSet<TaskId> = active.iter().map(|t| t.as_str().into()).collect();
            self.fleet.get_mut(key).link.beat.running = active.len().try_into().unwrap_or(u32::MAX);
            let (mut foreign, mut stateless) = (Vec::new(), false);
            for task in &active {
                if self.is_here(now, key, task, facts) {
                    stateless |= self.steer(now, key, task, first);
                } else {
                    foreign.push(task.to_string());
                }
            }
            let asked = self.look_for_missing(now, key, &active);
            foreign.truncate(NAMED);
            if !foreign.is_empty() {
                actions.push(Action::CancelTasks(foreign));
            }
            if !asked.is_empty() {
                actions.push(Action::ResendTaskResults(asked));
            }
            if first && stateless {
                actions.push(Action::SyncState);
            }
        }
        let member = self.fleet.get_mut(key);
        actions.extend(std::mem::take(&mut member.actions));
        if !member.link.ready {
            member.link.ready = true;
            self.fleet.offer(&mut self.scheduler, key);
        }
        self.fleet.update_room(&mut self.scheduler, key);
        self.settle_resync_v1(now, key);
        // It is sent at once as a sign of life, unless it has requests, which depend on decisions that are not
        // durable yet. Requests are not left for the answer to the next heartbeat, which may be late.
        let plain = actions.is_empty();
        let answer = ToWorker::Heartbeat { response_to, actions };
        match plain {
            true if answered => {}
            true => self.journal.output(Output::SendV1(conn, answer)),
            false => self.send_v1(conn, answer),
        }
    }

    /// Returns true if a task that the worker lists is assigned to it.
    fn is_here(&mut self, now: Now, key: WorkerKey, name: &TaskId, facts: &Facts) -> bool {
        let current = |c: &Coordinator| {
            let task = c.tasks.get(name)?;
            task.is_current(key, task.epoch).then_some(task.epoch)
        };
        if current(self).is_none() {
            let past = self.attempts_v1(key, name, facts);
            let newest = past.iter().rfind(|a| a.epoch > 0);
            let Some(epoch) = newest.map(|a| a.epoch) else { return false };
            let open = newest.is_some_and(|a| a.outcomes.is_empty());
            let task = self.tasks.get(name);
            let slots = task.map_or(1, |t| t.spec.slots);
            let idle = task.is_some_and(|t| t.state() == TaskState::Pending && t.epoch == epoch);
            if !(idle && open) {
                // It takes room until it is gone.
                self.fleet.get_mut(key).hold(name.clone(), epoch, slots);
                return false;
            }
            // Abandoned, but not assigned again yet: it continues where it is.
            let id = AttemptId { task: name.clone(), epoch };
            self.reconcile_one(now, key, &id, now.wall, facts);
        }
        let Some(epoch) = current(self) else { return false };
        self.note_start(now, name, epoch, now.wall);
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        session.saw(now, name, epoch);
        true
    }

    /// Sends pending requests for a task that the worker has; returns true if its state is not known.
    fn steer(&mut self, now: Now, key: WorkerKey, name: &TaskId, first: bool) -> bool {
        let wants = self.change_asked(name, |asked| asked.checkpoint = false);
        let Some(task) = self.tasks.get(name) else { return false };
        let (epoch, paused) = (task.epoch, task.paused);
        let stateless = task.reported.state_version.0 != epoch;
        let wanted = task.v1.as_ref().and_then(|t| t.wanted_of(epoch));
        let member = self.fleet.get_mut(key);
        let stop = match task.is_misplaced(&member.row.name) {
            _ if task.is_cancelling() => Some(StopReason::Cancelled),
            moved => moved.then_some(StopReason::Move),
        };
        let Some(run) = member.v1.as_mut().and_then(|s| s.run(name, epoch)) else { return false };
        let due = run.due(now, first, paused, wanted.as_deref());
        if let Some(reason) = stop {
            self.send_stop(key, name, epoch, reason);
            return false;
        }
        if due.pause {
            let kind = if paused { ControlKind::Pause } else { ControlKind::Resume };
            self.send_control(key, name, epoch, kind);
        }
        if due.state
            && let Some(conn) = self.fleet.get(key).link.conn
        {
            let task_id = Some(name.to_string());
            self.send_v1(conn, ToWorker::StateRequest { task_id });
        }
        if wants {
            self.send_control(key, name, epoch, ControlKind::Checkpoint);
        } else if due.checkpoint {
            self.fetch_v1(now, key, name, epoch, wanted);
        }
        stateless
    }

    /// Finds assigned tasks that the worker does not list; returns those whose results are requested.
    fn look_for_missing(
        &mut self,
        now: Now,
        key: WorkerKey,
        active: &BTreeSet<TaskId>,
    ) -> Vec<String> {
        let held: Vec<AttemptId> = self.fleet.get(key).held.attempts.keys().cloned().collect();
        let (mut asked, mut lost, mut probed) = (Vec::new(), Vec::new(), Vec::new());
        let alive = self.alive_v1(now, key);
        for id in held.into_iter().filter(|id| !active.contains(&id.task)) {
            if !self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.fleet.get_mut(key).drop_attempt(&id);
                continue;
            }
            let session = self.fleet.get_mut(key).v1.get_or_insert_default();
            let run = session.runs.entry(id.task.clone());
            let run = run.or_insert_with(|| Run::new(id.epoch, now));
            let back = run.evidence.link.is_none_or(|link| !alive.contains(&link));
            let (missed, abandoned) = run.patience(back);
            match run.evidence.asked {
                Some(at) if now.mono >= at + abandoned => lost.push(id),
                None if now.mono >= run.evidence.since + missed && asked.len() < NAMED => {
                    run.evidence.asked = Some(now.mono);
                    asked.push(id.task.to_string());
                    if run.evidence.accepted {
                        probed.push(id.task.to_string());
                    }
                }
                _ => {}
            }
        }
        // A worker that has it and left it out of its list has a state of it, mostly.
        for task_id in probed {
            if let Some(conn) = self.fleet.get(key).link.conn {
                self.send_v1(conn, ToWorker::StateRequest { task_id: Some(task_id) });
            }
        }
        for id in lost {
            self.is_missing(now, key, &id);
        }
        self.forget_runs(key);
        asked
    }

    /// The worker does not have it, and has no result of it.
    pub(super) fn is_missing(&mut self, now: Now, key: WorkerKey, id: &AttemptId) {
        let Some(task) = self.tasks.get(&id.task) else { return };
        let cancelling = task.is_cancelling();
        let (once, started) = (task.spec.rerun == Rerun::Never, task.started_at().is_some());
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let run = session.run(&id.task, id.epoch);
        let again = run.is_some_and(|r| !r.evidence.seen && r.sent < AGAIN) && !started && !once;
        if cancelling {
            self.fleet.get_mut(key).drop_attempt(id);
            let end = End::without(TaskState::Cancelled, "cancelled", Cause::Cancelled);
            self.end(now, &id.task, end);
        } else if again {
            self.assign_v1(now, key, std::slice::from_ref(&id.task));
        } else {
            self.fleet.get_mut(key).drop_attempt(id);
            let name = self.fleet.get(key).row.name.clone();
            let reason = format!("worker {name} does not have it any more, nor its result");
            self.lose(now, &id.task, &reason, Cause::Lost, None);
        }
        self.fleet.update_room(&mut self.scheduler, key);
    }

    /// Runs that are settled, or whose attempt is another worker's now.
    pub(super) fn forget_runs(&mut self, key: WorkerKey) {
        let member = self.fleet.get_mut(key);
        let attempts = &member.held.attempts;
        if let Some(session) = &mut member.v1 {
            session.runs.retain(|task, run| {
                attempts.contains_key(&AttemptId { task: task.clone(), epoch: run.epoch })
            });
        }
    }
}
