//! Requests of users and of the coordinator's own upkeep, and the answers to them.

use crate::records::TaskState;
use crate::{Epoch, TaskId};
use outlast_model::TaskSpec;
use outlast_model::message::Action;
use std::sync::Arc;

/// A request of a user, or of the coordinator's own upkeep.
#[derive(Debug, Clone)]
pub enum Request {
    /// Accepts all of these tasks, or none.
    Submit(Vec<Submission>, Owner),
    /// Ends the task as cancelled, unless it succeeds first.
    Cancel(TaskId),
    /// Runs a task again that failed or was cancelled.
    Retry(TaskId),
    /// Pauses an unfinished task, or (false) resumes it.
    Pause(TaskId, bool),
    /// Requests a checkpoint of a task that is assigned.
    Checkpoint(TaskId),
    /// Moves a task to the worker of this name; none: to any but the one that has it.
    Move(TaskId, Option<String>),
    /// Removes checkpoints of an ended task, by (epoch, number).
    Prune(TaskId, Vec<(Epoch, u64)>),
    /// Removes these tasks, if they have ended; and outcomes of unknown tasks that were received before
    /// this time (Unix ms).
    Remove(Vec<TaskId>, i64),
    /// Overrides a recovery decision.
    Recovery(super::RecoveryRequest),
    /// Requests an action of a worker's link or memory, by its name or store id, at once or when it is
    /// back. Workers of v2 know only the reset of statistics.
    Act(String, Action),
    /// Removes a worker's binding to a key: the next key that it connects with is its own.
    Unbind(String),
    /// Gives a worker no new work, and takes back what it has not started; or (false) gives it work again.
    Drain(String, bool),
    /// Removes a worker that is not connected; its tasks go to others.
    Forget(String),
}

/// Operator override of recovery decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryRequest {
    /// Give a quarantined worker (name or store id) work again; its failures count no more.
    Release(String),
    /// Give a worker no work but probes.
    Quarantine(String),
    /// The failures of tasks of this type count no more.
    Allow(String),
    /// Forget the knobs that worked for this type; none: for all.
    Unlearn(Option<String>),
}

/// A task to accept. Its id and spec were checked.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Id of the task.
    pub id: TaskId,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// True if its client chose the id: then it may be known already.
    pub chosen: bool,
}

/// The submitter of tasks.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// Name of the key.
    pub name: Option<Arc<str>>,
    /// True if the key sees only its own tasks.
    pub private: bool,
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
