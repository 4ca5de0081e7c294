//! Requests of users: submit, cancel, retry, forget. A request about a task that is not in memory waits for
//! what the store has of it.

use super::coordinator::Coordinator;
use super::ends::End;
use super::ids::RequestId;
use super::loads::{Facts, Query, Waiter, Wants};
use super::request::{Owner, Request, Response, Submission, Submitted};
use super::task::Origin;
use crate::records::{CoordRecord, TaskRow, TaskState};
use crate::recovery::Rules;
use crate::{Epoch, Now, TaskId};
use outlast_model::message::StopReason;
use outlast_model::requires::Requires;
use outlast_model::{Cause, TaskSpec};
use std::collections::HashMap;
use std::sync::Arc;

impl Coordinator {
    /// Handles a request; exactly one `Reply` follows.
    pub fn on_request(&mut self, now: Now, id: RequestId, request: Request) {
        self.serve(now, id, request, self.journal.durable(), Facts::default());
    }

    /// Handles a request with what was loaded for it since batch `since` was the newest durable one; or
    /// loads what it needs first.
    pub(super) fn serve(
        &mut self,
        now: Now,
        id: RequestId,
        request: Request,
        since: u64,
        facts: Facts,
    ) {
        let mut wants = Wants::new(&facts);
        self.wants_of_request(&request, &mut wants);
        let missing = wants.missing();
        if !missing.is_empty() {
            return self.begin_load(since, Waiter::Request(id, Box::new(request)), missing, facts);
        }
        let response = match request {
            Request::Submit(tasks, owner) => self.submit(now, tasks, &owner, &facts),
            Request::Cancel(task) => self.cancel(now, &task, &facts),
            Request::Retry(task) => self.retry(now, &task, &facts),
            Request::Pause(task, on) => self.pause(now, &task, on, &facts),
            Request::Checkpoint(task) => self.ask_checkpoint(now, &task, &facts),
            Request::Move(task, to) => self.move_task(now, &task, to, &facts),
            Request::Prune(task, which) => self.prune(now, task, which),
            Request::Remove(tasks, before) => self.remove(now, tasks, before, &facts),
            Request::Recovery(what) => self.overrule(now, what),
            Request::Drain(worker, on) => self.drain_worker(now, &worker, on),
            Request::Unbind(worker) => self.unbind(now, &worker),
            Request::Act(worker, action) => self.act(now, &worker, action),
            Request::Forget(name) => match self.fleet.named(&name) {
                None => Response::NotFound,
                Some(key) if self.fleet.get(key).link.conn.is_some() => Response::Connected,
                Some(key) => {
                    self.forget(now, key);
                    Response::Forgotten
                }
            },
        };
        self.loads.used(&facts);
        self.schedule(now);
        self.reply(id, response);
    }

    fn wants_of_request(&self, request: &Request, wants: &mut Wants<'_>) {
        match request {
            Request::Submit(tasks, owner) => {
                let private = owner.name.as_ref().filter(|_| owner.private);
                for id in tasks.iter().filter(|s| s.chosen).map(|s| &s.id) {
                    if let Some(name) = private {
                        wants.add(Query::Task(id.clone()));
                        wants.add(Query::Owned(id.clone(), name.clone()));
                    }
                    if self.tasks.may_be_stored(id) {
                        wants.add(Query::Task(id.clone()));
                        wants.add(Query::Former(id.clone()));
                    }
                }
            }
            Request::Cancel(id)
            | Request::Retry(id)
            | Request::Pause(id, _)
            | Request::Checkpoint(id)
            | Request::Move(id, _) => self.wants_row(id, wants),
            Request::Remove(ids, _) => ids.iter().for_each(|id| self.wants_row(id, wants)),
            Request::Prune(..)
            | Request::Recovery(_)
            | Request::Act(..)
            | Request::Unbind(_)
            | Request::Drain(..)
            | Request::Forget(_) => {}
        }
    }

    fn submit(
        &mut self,
        now: Now,
        tasks: Vec<Submission>,
        owner: &Owner,
        facts: &Facts,
    ) -> Response {
        let mut conflicts = Vec::new();
        let mut fresh: HashMap<TaskId, Arc<TaskSpec>> = HashMap::new();
        let mut results = Vec::with_capacity(tasks.len());
        for s in &tasks {
            let known = if s.chosen { self.look_up(facts, &s.id) } else { None };
            let memory = self.tasks.get(&s.id).map(|t| (&t.spec, t.state()));
            let found = memory
                .or(known.as_ref().map(|k| (&k.spec, k.state)))
                .or(fresh.get(&s.id).map(|spec| (spec, TaskState::Pending)));
            let taken = s.chosen && self.is_taken(&s.id, owner, facts);
            if taken || found.is_some_and(|(spec, _)| !spec.is_same(&s.spec)) {
                conflicts.push(s.id.clone());
                continue;
            }
            let (created, state) = (found.is_none(), found.map_or(TaskState::Pending, |f| f.1));
            if created {
                if let Err(error) = Requires::parse(&s.spec.requires) {
                    return Response::Invalid(s.id.clone(), error.to_string());
                }
                if let Some(recovery) = &s.spec.recovery
                    && let Err(error) = Rules::new(&recovery.rules)
                {
                    return Response::Invalid(s.id.clone(), format!("recovery.{error}"));
                }
                fresh.insert(s.id.clone(), s.spec.clone());
            }
            results.push(Submitted { id: s.id.clone(), created, state });
        }
        if !conflicts.is_empty() {
            return Response::Conflict(conflicts);
        }
        let limit = self.config.max_unfinished;
        // Waiting would not help.
        if fresh.len() > limit {
            return Response::TooBig { fresh: fresh.len(), limit };
        }
        if !self.tasks.has_room(fresh.len(), limit) {
            return Response::Full { limit };
        }
        for (s, result) in tasks.into_iter().zip(&results) {
            if result.created {
                let after = self.former(&s, facts);
                self.accept(now, s.id, s.spec, after, owner.name.clone());
            }
        }
        Response::Submitted(results)
    }

    /// Returns true if the id is of a task that its submitter may not know of.
    fn is_taken(&self, id: &TaskId, owner: &Owner, facts: &Facts) -> bool {
        let Some(name) = owner.name.as_ref().filter(|_| owner.private) else { return false };
        match self.tasks.get(id).map(|task| &task.origin) {
            // The store may not have it yet.
            Some(Origin::Accepted(owner)) => owner.as_ref() != Some(name),
            _ if self.tasks.removed(id).is_some() => false,
            _ => facts.task(id).is_some() && !facts.is_owned(id, name),
        }
    }

    /// Returns the newest attempt of the former task of a new one's id.
    fn former(&self, new: &Submission, facts: &Facts) -> Epoch {
        match self.tasks.removed(&new.id) {
            Some(epoch) => epoch,
            None if new.chosen => facts.former(&new.id),
            None => 0,
        }
    }

    fn accept(
        &mut self,
        now: Now,
        id: TaskId,
        spec: Arc<TaskSpec>,
        after: Epoch,
        owner: Option<Arc<str>>,
    ) {
        self.tasks.last_number += 1;
        self.counters.tasks.submitted += 1;
        let number = self.tasks.last_number;
        self.journal.record(CoordRecord::Submitted {
            task: id.clone(),
            number,
            spec: spec.clone(),
            after,
            owner: owner.clone(),
            at: now.wall,
        });
        let task = self.tasks.remember(TaskRow::submitted(id.clone(), number, spec, after));
        task.origin = Origin::Accepted(owner);
        self.enqueue(&id);
    }

    fn cancel(&mut self, now: Now, id: &TaskId, facts: &Facts) -> Response {
        let Some(task) = self.tasks.get_mut(id) else { return self.absent(id, facts) };
        match task.state() {
            TaskState::Pending => {
                let end = End::without(TaskState::Cancelled, "cancelled", Cause::Cancelled);
                self.end(now, id, end);
                Response::Done(TaskState::Cancelled)
            }
            TaskState::Assigned => {
                let (key, epoch) = (task.worker(), task.epoch);
                if task.cancel() {
                    let (task, at) = (id.clone(), now.wall);
                    self.journal.record(CoordRecord::CancelRequested { task, at });
                }
                if let Some(key) = key {
                    self.send_stop(key, id, epoch, StopReason::Cancelled);
                }
                Response::Done(TaskState::Assigned)
            }
            over => Response::WrongState(over),
        }
    }

    fn retry(&mut self, now: Now, id: &TaskId, facts: &Facts) -> Response {
        let known = self.look_up(facts, id);
        let state = self.tasks.get(id).map(|t| t.state()).or(known.as_ref().map(|k| k.state));
        match state {
            None => return Response::NotFound,
            Some(TaskState::Failed | TaskState::Cancelled) => {}
            Some(other) => return Response::WrongState(other),
        }
        if let Some(row) = known
            && !self.tasks.contains_key(id)
        {
            if !self.tasks.has_room(1, self.config.max_unfinished) {
                return Response::Full { limit: self.config.max_unfinished };
            }
            self.tasks.remember(row);
        }
        let Some(task) = self.tasks.get_mut(id) else { return Response::NotFound };
        task.become_pending_again();
        self.journal.record(CoordRecord::Retried { task: id.clone(), at: now.wall });
        self.enqueue(id);
        Response::Done(TaskState::Pending)
    }
}
