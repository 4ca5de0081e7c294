//! Requests of users: submit, cancel, retry, forget.

use super::control::absent;
use super::tasks::End;
use super::{Coordinator, RequestId};
use crate::records::{Asked, CoordRecord, TaskRow, TaskState};
use crate::recovery::Rules;
use crate::requires::Requires;
use crate::{Epoch, Now, TaskId};
use outlast_model::message::Action;
use outlast_model::message::StopReason;
use outlast_model::{Cause, TaskSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// A question. `known` is what the store has of the task at the time of asking.
#[derive(Debug, Clone)]
pub enum Request {
    /// Accept all of these, or none.
    Submit(Vec<Submission>),
    /// End the task as cancelled, unless it succeeds first.
    Cancel {
        /// Id of the task.
        task: TaskId,
        /// Row from the store, if the task is not in memory.
        known: Option<TaskRow>,
    },
    /// Run a task again that failed or was cancelled.
    Retry {
        /// Id of the task.
        task: TaskId,
        /// Row from the store, if the task is not in memory.
        known: Option<TaskRow>,
    },
    /// Remove a worker that is not connected; its tasks go to others.
    Forget(String),
    /// Pause or resume an unfinished task.
    Pause {
        /// Id of the task.
        task: TaskId,
        /// Paused, or not any more.
        on: bool,
        /// Row from the store, if the task is not in memory.
        known: Option<TaskRow>,
    },
    /// Ask a task that is assigned for a checkpoint.
    Checkpoint {
        /// Id of the task.
        task: TaskId,
        /// Row from the store, if the task is not in memory.
        known: Option<TaskRow>,
    },
    /// Let a task go on at another worker.
    Move {
        /// Id of the task.
        task: TaskId,
        /// The worker's name; none: any but the one that has it.
        to: Option<String>,
        /// Row from the store, if the task is not in memory.
        known: Option<TaskRow>,
    },
    /// Remove checkpoints of an ended task.
    Prune {
        /// Id of the task.
        task: TaskId,
        /// Checkpoints by (epoch, number).
        which: Vec<(Epoch, u64)>,
    },
    /// Remove ended tasks.
    Remove {
        /// Row from the store, if the task is not in memory.
        known: Vec<TaskRow>,
        /// Time before which outcomes of unknown tasks are removed, too (Unix ms).
        before: i64,
    },
    /// Overrule what recovery decided.
    Recovery(super::RecoveryRequest),
    /// Ask something of a worker's link or memory, at once or when it is back.
    Act {
        /// Name or store id of the worker.
        worker: String,
        /// Requested action; workers of v2 know only the reset of statistics.
        action: Action,
    },
    /// Bind a worker to no key any more: the next one that comes with it is its own.
    Unbind(String),
    /// Give a worker no new work, and take back what it has not started; or not any more.
    Drain {
        /// Name or store id of the worker.
        worker: String,
        /// Drained, or not any more.
        on: bool,
    },
}

/// A task to accept. Its id and spec were checked.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Id of the task.
    pub id: TaskId,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// From the store: the task of that id.
    pub known: Option<TaskRow>,
    /// From the store: the newest attempt of a former task of that id, which was removed.
    pub former: Epoch,
    /// Name of the key that it is submitted with.
    pub owner: Option<Arc<str>>,
    /// From the store: the id belongs to a task that whoever submits this may not know of.
    pub taken: bool,
}

/// Answer to one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Id of the task.
    pub id: TaskId,
    /// True if the task is new.
    pub created: bool,
    /// State of the task.
    pub state: TaskState,
}

/// An answer, given once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// In the order of the submissions.
    Submitted(Vec<Submitted>),
    /// These ids are taken by tasks with another spec; nothing was submitted.
    Conflict(Vec<TaskId>),
    /// This task cannot be accepted; nothing was submitted.
    Invalid(TaskId, String),
    /// Too many unfinished tasks; nothing was submitted.
    Full {
        /// The limit.
        limit: usize,
    },
    /// More new tasks than there may ever be unfinished ones; nothing was submitted.
    TooBig {
        /// New tasks in the request.
        fresh: usize,
        /// Limit of unfinished tasks.
        limit: usize,
    },
    /// The task or worker does not exist.
    NotFound,
    /// No worker of that name.
    NoWorker,
    /// The task runs, and must not run twice: it cannot be moved.
    NotTwice,
    /// Success, with the task's new state.
    Done(TaskState),
    /// Not possible, because the task stands so.
    WrongState(TaskState),
    /// The recovery decision was overridden.
    Overruled,
    /// The worker takes no new work, or does again.
    Drained,
    /// The worker is bound to no key.
    Unbound,
    /// The worker is asked.
    Asked,
    /// The limit of actions that wait for the worker is reached.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A worker of v2 needs no such request.
    Needless,
    /// The checkpoints are removed.
    Pruned,
    /// Number of removed tasks.
    Removed(usize),
    /// The worker is removed.
    Forgotten,
    /// The worker is connected; it cannot be removed.
    Connected,
}

impl Coordinator {
    /// Handles a request; exactly one `Reply` follows.
    pub fn on_request(&mut self, now: Now, request: RequestId, what: Request) {
        let response = match self.without_removed(what) {
            Request::Submit(tasks) => self.submit(now, tasks),
            Request::Cancel { task, known } => self.cancel(now, &task, known),
            Request::Retry { task, known } => self.retry(now, &task, known),
            Request::Pause { task, on, known } => self.pause(now, &task, on, known),
            Request::Checkpoint { task, known } => self.ask_checkpoint(now, &task, known),
            Request::Move { task, to, known } => self.move_task(now, &task, to, known),
            Request::Prune { task, which } => self.prune(now, task, which),
            Request::Remove { known, before } => self.remove(now, known, before),
            Request::Recovery(what) => self.overrule(now, what),
            Request::Drain { worker, on } => self.drain_worker(now, &worker, on),
            Request::Unbind(worker) => self.unbind(now, &worker),
            Request::Act { worker, action } => self.act(now, &worker, action),
            Request::Forget(name) => match self.fleet.named(&name) {
                None => Response::NotFound,
                Some(key) if self.fleet.get(key).conn.is_some() => Response::Connected,
                Some(key) => {
                    self.forget(now, key);
                    Response::Forgotten
                }
            },
        };
        self.schedule(now);
        self.reply(request, response);
    }

    fn submit(&mut self, now: Now, tasks: Vec<Submission>) -> Response {
        let mut conflicts = Vec::new();
        let mut fresh: HashMap<TaskId, Arc<TaskSpec>> = HashMap::new();
        let mut results = Vec::with_capacity(tasks.len());
        for s in &tasks {
            let memory = self.tasks.get(&s.id).map(|t| (&t.spec, t.state));
            let found = memory
                .or(s.known.as_ref().map(|k| (&k.spec, k.state)))
                .or(fresh.get(&s.id).map(|spec| (spec, TaskState::Pending)));
            if s.taken || found.is_some_and(|(spec, _)| !spec.is_same(&s.spec)) {
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
        if self.tasks.len() + fresh.len() > limit && !fresh.is_empty() {
            return Response::Full { limit };
        }
        for (s, result) in tasks.into_iter().zip(&results) {
            if result.created {
                self.accept(now, s.id, s.spec, s.former, s.owner);
            }
        }
        Response::Submitted(results)
    }

    fn accept(
        &mut self,
        now: Now,
        id: TaskId,
        spec: Arc<TaskSpec>,
        after: Epoch,
        owner: Option<Arc<str>>,
    ) {
        self.last_number += 1;
        self.counters.submitted += 1;
        let number = self.last_number;
        self.records.push(CoordRecord::Submitted {
            task: id.clone(),
            number,
            spec: spec.clone(),
            after,
            owner,
            at: now.wall,
        });
        self.remember(TaskRow {
            id: id.clone(),
            number,
            spec,
            state: TaskState::Pending,
            epoch: after,
            after,
            retries: 0,
            worker: None,
            cancelling: false,
            started_at: None,
            paused: false,
            asked: Asked::default(),
            lost: false,
            checkpoints: Vec::new(),
            state_version: (0, 0),
            recovery: None,
        });
        self.enqueue(&id);
    }

    fn cancel(&mut self, now: Now, id: &TaskId, known: Option<TaskRow>) -> Response {
        let Some(task) = self.tasks.get_mut(id) else { return absent(known) };
        match task.state {
            TaskState::Pending => {
                let end = End::without(TaskState::Cancelled, "cancelled", Cause::Cancelled);
                self.end(now, id, end);
                Response::Done(TaskState::Cancelled)
            }
            TaskState::Assigned => {
                let (key, epoch, again) = (task.worker, task.epoch, task.cancelling);
                task.cancelling = true;
                if !again {
                    let (task, at) = (id.clone(), now.wall);
                    self.records.push(CoordRecord::CancelRequested { task, at });
                }
                if let Some(key) = key {
                    self.send_stop(key, id, epoch, StopReason::Cancelled);
                }
                Response::Done(TaskState::Assigned)
            }
            over => Response::WrongState(over),
        }
    }

    fn retry(&mut self, now: Now, id: &TaskId, known: Option<TaskRow>) -> Response {
        let state = self.tasks.get(id).map(|t| t.state).or(known.as_ref().map(|k| k.state));
        match state {
            None => return Response::NotFound,
            Some(TaskState::Failed | TaskState::Cancelled) => {}
            Some(other) => return Response::WrongState(other),
        }
        if let Some(row) = known
            && !self.tasks.contains_key(id)
        {
            if self.tasks.len() >= self.config.max_unfinished {
                return Response::Full { limit: self.config.max_unfinished };
            }
            self.remember(row);
        }
        let Some(task) = self.tasks.get_mut(id) else { return Response::NotFound };
        (task.state, task.retries, task.cancelling) = (TaskState::Pending, 0, false);
        (task.paused, task.lost) = (false, false);
        (task.worker, task.started_at) = (None, None);
        (task.recovery, task.due) = (None, None);
        self.records.push(CoordRecord::Retried { task: id.clone(), at: now.wall });
        self.enqueue(id);
        Response::Done(TaskState::Pending)
    }
}
