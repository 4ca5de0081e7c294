//! Operator requests to running tasks: pause, resume, a checkpoint, a move; draining.

use super::config::MOVE_PATIENCE;
use super::coordinator::Coordinator;
use super::loads::Facts;
use super::news::LinkChange;
use super::request::Response;
use super::task::Task;
use crate::records::{Asked, CoordRecord, TaskState, WorkerRow};
use crate::{Now, TaskId};
use outlast_model::message::{Action, ControlKind, StopReason, ToWorker};
use outlast_model::spec::Rerun;
use std::sync::Arc;

/// Actions that wait for one worker.
const ACTIONS: usize = 16;

impl Coordinator {
    pub(super) fn pause(&mut self, now: Now, id: &TaskId, on: bool, facts: &Facts) -> Response {
        let Some(task) = self.tasks.get_mut(id) else { return self.absent(id, facts) };
        let state = task.state();
        if state.is_terminal() {
            return Response::WrongState(state);
        }
        if std::mem::replace(&mut task.paused, on) != on {
            let (task, at) = (id.clone(), now.wall);
            self.journal.record(CoordRecord::Paused { task, on, at });
        }
        let Some(task) = self.tasks.get(id) else { return Response::NotFound };
        match (state, task.worker()) {
            (TaskState::Pending, _) if on => drop(self.scheduler.remove(id)),
            (TaskState::Pending, _) => self.enqueue(id),
            (_, Some(key)) => {
                let epoch = task.epoch;
                let kind = if on { ControlKind::Pause } else { ControlKind::Resume };
                self.send_control(key, id, epoch, kind);
            }
            _ => {}
        }
        Response::Done(state)
    }

    pub(super) fn ask_checkpoint(&mut self, now: Now, id: &TaskId, facts: &Facts) -> Response {
        let Some(task) = self.tasks.get(id) else { return self.absent(id, facts) };
        let (state, epoch) = (task.state(), task.epoch);
        let (TaskState::Assigned, Some(key)) = (state, task.worker()) else {
            return Response::WrongState(state);
        };
        let away = self.fleet.get(key).link.conn.is_none();
        let note = match away {
            true => "a checkpoint was requested; its worker will be notified when it is back",
            false => "a checkpoint was asked for",
        };
        self.change_asked(id, |asked| asked.checkpoint = away);
        self.note(now, id, epoch, note.into());
        self.send_control(key, id, epoch, ControlKind::Checkpoint);
        Response::Done(state)
    }

    pub(super) fn move_task(
        &mut self,
        now: Now,
        id: &TaskId,
        to: Option<String>,
        facts: &Facts,
    ) -> Response {
        let Some(task) = self.tasks.get(id) else { return self.absent(id, facts) };
        let (state, epoch, holder) = (task.state(), task.epoch, task.worker());
        if state.is_terminal() || task.is_cancelling() {
            return Response::WrongState(state);
        }
        if task.spec.rerun == Rerun::Never && task.started_at().is_some() {
            return Response::NotTwice;
        }
        let from = holder.map(|key| self.fleet.get(key).row.name.clone());
        let place = match &to {
            Some(name) => match self.fleet.named(name) {
                Some(key) if holder == Some(key) => return Response::Done(state),
                Some(key) => Some((self.fleet.get(key).row.name.clone(), true)),
                None => return Response::NoWorker,
            },
            None => from.clone().map(|name| (name, false)),
        };
        let note = match (&from, &to) {
            (Some(from), Some(to)) => format!("to be moved from {from} to {to}"),
            (Some(from), None) => format!("to be moved away from {from}"),
            (None, Some(to)) => format!("to be given to {to}"),
            (None, None) => return Response::Done(state),
        };
        self.note(now, id, epoch, note);
        let patience = if to.is_some() { MOVE_PATIENCE.1 } else { MOVE_PATIENCE.0 };
        self.tasks.placed.insert((now.mono + patience, id.clone()));
        // A person who moves a task wants it to go on there, paused or waiting.
        if let Some(task) = self.tasks.get_mut(id) {
            task.wait_until(None);
        }
        self.place(id, place);
        self.pause(now, id, false, facts);
        if let Some(key) = holder {
            self.send_stop(key, id, epoch, StopReason::Move);
        }
        Response::Done(state)
    }

    /// Sets the workers that a task may go to.
    pub(super) fn place(&mut self, id: &TaskId, place: Option<(Arc<str>, bool)>) {
        self.change_asked(id, |asked| asked.place = place);
        if self.tasks.get(id).is_some_and(|t| t.state() == TaskState::Pending) {
            self.scheduler.remove(id);
            self.enqueue(id);
        }
    }

    /// Changes the operator requests to a task; returns true if anything changed.
    pub(super) fn change_asked(&mut self, id: &TaskId, change: impl FnOnce(&mut Asked)) -> bool {
        let Some(task) = self.tasks.get_mut(id) else { return false };
        let before = task.asked.clone();
        change(&mut task.asked);
        let changed = task.asked != before;
        if changed {
            let (task, asked) = (id.clone(), task.asked.clone());
            self.journal.record(CoordRecord::Asked { task, asked });
        }
        changed
    }

    /// Tasks that were moved and that nobody took go wherever there is room.
    pub(super) fn unplace(&mut self, now: Now) {
        while let Some((at, id)) = self.tasks.placed.first().cloned()
            && at <= now.mono
        {
            self.tasks.placed.pop_first();
            let Some(task) = self.tasks.get(&id).filter(|t| t.asked.place.is_some()) else {
                continue;
            };
            let (epoch, state) = (task.epoch, task.state());
            if state == TaskState::Pending && task.asked.awaited.is_none() {
                self.note(now, &id, epoch, "no worker took it where it was moved".into());
                self.place(&id, None);
            } else if !state.is_terminal() {
                // Its worker has not given it back yet, or not delivered its last checkpoint.
                self.tasks.placed.insert((now.mono + MOVE_PATIENCE.0, id));
            }
        }
    }

    pub(super) fn drain_worker(&mut self, now: Now, name: &str, on: bool) -> Response {
        let Some(key) = self.fleet.named(name) else {
            return Response::NotFound;
        };
        let member = self.fleet.get_mut(key);
        if member.row.drained != on {
            member.row = Arc::new(WorkerRow { drained: on, ..WorkerRow::clone(&member.row) });
            let (worker, at) = (member.row.store_id.clone(), now.wall);
            self.journal.record(CoordRecord::WorkerDrained { worker, on, at });
        }
        self.fleet.offer(&mut self.scheduler, key);
        if on {
            self.take_back(key);
        }
        Response::Drained
    }

    /// Asked of a worker with an outbox at once, or as soon as it is back; of others with their next heartbeat.
    pub(super) fn act(&mut self, now: Now, name: &str, action: Action) -> Response {
        let Some(key) = self.fleet.named(name) else { return Response::NotFound };
        let member = self.fleet.get_mut(key);
        if member.has_outbox() && action != Action::ResetConnectionStats {
            return Response::Needless;
        }
        if member.actions.len() >= ACTIONS && !member.actions.contains(&action) {
            return Response::TooMany { limit: ACTIONS };
        }
        if action == Action::ResetConnectionStats {
            self.publish(now, key, LinkChange::Reset);
        }
        let member = self.fleet.get_mut(key);
        member.actions.insert(action);
        self.send_actions(now, key);
        Response::Asked
    }

    /// Sends pending actions to a connected worker with an outbox.
    pub(super) fn send_actions(&mut self, now: Now, key: crate::scheduler::WorkerKey) {
        let member = self.fleet.get_mut(key);
        let Some(conn) = member.link.conn.filter(|_| member.link.ready && member.has_outbox())
        else {
            return;
        };
        if !std::mem::take(&mut member.actions).is_empty() {
            // A request while it was away: its handshake has reported the previous statistics.
            self.publish(now, key, LinkChange::Reset);
            self.send(conn, ToWorker::ResetStats);
        }
    }

    /// Recalls attempts that the worker has not started.
    pub(super) fn take_back(&mut self, key: crate::scheduler::WorkerKey) {
        let held: Vec<_> = self.fleet.get(key).held.attempts.keys().cloned().collect();
        for id in held {
            let waits = |t: &Task| t.is_current(key, id.epoch) && t.started_at().is_none();
            if self.tasks.get(&id.task).is_some_and(waits) {
                self.send_stop(key, &id.task, id.epoch, StopReason::Return);
            }
        }
    }
}
