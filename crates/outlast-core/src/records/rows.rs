//! Rows of the coordinator's store: tasks and workers, as the core reads them at its start and later.

use crate::ids::{Epoch, TaskId};
use crate::recovery::{Failure, Learned, Quarantine, TaskRecovery};
use outlast_model::{Checkpoint, Lane, TaskSpec, TaskState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Durable description of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// UUID of its store: its identity.
    pub store_id: Arc<str>,
    /// The name people see; unique.
    pub name: Arc<str>,
    /// Grows each time its store is opened.
    pub incarnation: u64,
    /// Grows each time that incarnation dials.
    pub connection: u64,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Further tasks that may wait there.
    pub prefetch: u32,
    /// A flat JSON object.
    pub capabilities: String,
    /// Declared by the user.
    pub labels: BTreeMap<String, String>,
    /// Software version.
    pub version: String,
    /// An operator wants it to take no new work.
    pub drained: bool,
    /// Nonce of the process that opened its store for this incarnation; 0: unknown.
    pub nonce: u64,
    /// Name of the key that it is bound to; empty: none.
    pub principal: Arc<str>,
}

/// An unfinished task, as loaded at start (or an ended one, for a retry).
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Id of the task.
    pub id: TaskId,
    /// Number in the order of submission.
    pub number: u64,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// State of the task.
    pub state: TaskState,
    /// Number of the newest attempt; `after` before the first.
    pub epoch: Epoch,
    /// Attempts up to this one are of a former task of the same id; mostly 0.
    pub after: Epoch,
    /// Losses of its attempts.
    pub losses: Losses,
    /// Facts that hold only while it is assigned.
    pub assigned: Assigned,
    /// True if the task is paused.
    pub paused: bool,
    /// Pending operator requests.
    pub asked: Asked,
    /// Checkpoints and states that its attempts reported.
    pub reported: Reported,
    /// Recovery state; none before the first failure.
    pub recovery: Option<Arc<TaskRecovery>>,
}

/// Losses of a task's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Losses counted toward `max_retries`.
    pub retries: u32,
    /// True if the task failed because attempts were lost, not by itself.
    pub lost: bool,
}

/// Facts of a task that hold only while a worker has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// Store id of the worker.
    pub worker: Option<Arc<str>>,
    /// True if a requested cancel is still pending.
    pub cancelling: bool,
    /// Start of the current attempt (worker's Unix ms), if it was reported.
    pub started_at: Option<i64>,
}

/// Reports of a task's attempts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reported {
    /// Kept checkpoints, by (epoch, number).
    pub checkpoints: Vec<Arc<Checkpoint>>,
    /// (epoch, version) of its newest state.
    pub state_version: (Epoch, u64),
}

impl TaskRow {
    /// A task that was just accepted: pending, without an attempt after `after`.
    pub fn submitted(id: TaskId, number: u64, spec: Arc<TaskSpec>, after: Epoch) -> TaskRow {
        TaskRow {
            id,
            number,
            spec,
            state: TaskState::Pending,
            epoch: after,
            after,
            losses: Losses::default(),
            assigned: Assigned::default(),
            paused: false,
            asked: Asked::default(),
            reported: Reported::default(),
            recovery: None,
        }
    }
}

/// Pending requests to a task that only its worker, or another one, can carry out; and the checkpoint
/// that its next attempt waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// True if a checkpoint is requested, and its worker was not yet notified.
    pub checkpoint: bool,
    /// To run on the worker of this name, or (false) on any other.
    pub place: Option<(Arc<str>, bool)>,
    /// The last checkpoint of an earlier attempt, as its outcome named it, which has not arrived.
    pub awaited: Option<Awaited>,
}

/// A checkpoint that a worker made durable and has not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The attempt that made it.
    pub epoch: Epoch,
    /// Number within that attempt.
    pub number: u64,
    /// Store id of the worker that has it.
    pub worker: Arc<str>,
}

impl Awaited {
    /// Returns the position in the order of a task's checkpoints.
    pub fn place(&self) -> (Epoch, u64) {
        (self.epoch, self.number)
    }
}

/// State that the coordinator's core needs to continue after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CoordSnapshot {
    /// UUID of this coordinator's store.
    pub coordinator_id: Arc<str>,
    /// The highest task number ever given.
    pub last_number: u64,
    /// Unfinished tasks, by number.
    pub tasks: Vec<TaskRow>,
    /// Known workers, each with (lane, last applied sequence).
    pub workers: Vec<(WorkerRow, Vec<(Lane, u64)>)>,
    /// Failures to look back at, oldest first.
    pub failures: Vec<Failure>,
    /// Workers in quarantine, by store id.
    pub quarantines: Vec<(Arc<str>, Quarantine)>,
    /// Knobs that worked.
    pub learned: Vec<Learned>,
}
