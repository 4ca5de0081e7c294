//! Rows and views for readers of a store.

use outlast_core::ids::{Epoch, TaskId};
use outlast_core::records::{TaskState, WorkerRow};
use outlast_core::recovery::Decision;
use outlast_model::{Cause, Checkpoint, LinkCause, TaskOutcome};
use outlast_wire::TaskSpec;
use std::sync::Arc;

/// A task with everything that is shown of it. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// Number in the order of submission.
    pub number: u64,
    /// Id of the task.
    pub id: TaskId,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// State of the task.
    pub state: TaskState,
    /// Number of the newest attempt; 0 before the first.
    pub epoch: Epoch,
    /// The attempt that decided it; 0 while it is not over or when none did.
    pub ended_epoch: Epoch,
    /// Losses counted toward `max_retries`.
    pub retries: u32,
    /// True if a requested cancel is still pending.
    pub cancelling: bool,
    /// Store id of the worker that has it or had it last; none while pending.
    pub worker: Option<Arc<str>>,
    /// Name of that worker when it was last seen.
    pub worker_name: Option<Arc<str>>,
    /// Time of submission.
    pub submitted_at: i64,
    /// Time of the shown attempt's assignment.
    pub assigned_at: Option<i64>,
    /// Start of the shown attempt, on the worker's clock.
    pub started_at: Option<i64>,
    /// Time of its end.
    pub ended_at: Option<i64>,
    /// Reason of its end in words; empty on plain success.
    pub reason: String,
    /// True if there is an outcome to read.
    pub has_outcome: bool,
    /// Name of the key that it was submitted with.
    pub owner: Option<String>,
}

/// Kind of an entry in a task's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// The task was accepted.
    Submitted = 0,
    /// A worker was given it.
    Assigned = 1,
    /// The worker said that it runs.
    Started = 2,
    /// The attempt was abandoned; the task is pending again.
    Requeued = 3,
    /// The task succeeded.
    Succeeded = 4,
    /// The task failed.
    Failed = 5,
    /// The task was cancelled.
    Cancelled = 6,
    /// An outcome arrived that does not count.
    Superseded = 7,
    /// A cancel was requested while the task was assigned.
    CancelRequested = 8,
    /// A retry was requested after the task had ended.
    Retried = 9,
    /// A remark.
    Noted = 10,
    /// A pause was requested.
    PauseRequested = 11,
    /// A resume was requested.
    ResumeRequested = 12,
    /// The decision after a failure, or about the initial knob positions.
    Recovery = 13,
}

impl EventKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Submitted,
        Self::Assigned,
        Self::Started,
        Self::Requeued,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::CancelRequested,
        Self::Retried,
        Self::Noted,
        Self::PauseRequested,
        Self::ResumeRequested,
        Self::Recovery,
    ];

    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Assigned => "assigned",
            Self::Started => "started",
            Self::Requeued => "requeued",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::CancelRequested => "cancel_requested",
            Self::Retried => "retried",
            Self::Noted => "noted",
            Self::PauseRequested => "pause_requested",
            Self::ResumeRequested => "resume_requested",
            Self::Recovery => "recovery",
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        usize::try_from(code).ok().and_then(|c| Self::ALL.get(c)).copied()
    }

    /// Returns the kind of entry for this end; none for a state that is not an end.
    pub(crate) fn of_end(state: TaskState) -> Option<Self> {
        match state {
            TaskState::Succeeded => Some(Self::Succeeded),
            TaskState::Failed => Some(Self::Failed),
            TaskState::Cancelled => Some(Self::Cancelled),
            TaskState::Pending | TaskState::Assigned => None,
        }
    }
}

/// An entry of a task's history.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Time in Unix milliseconds. A start carries the worker's clock, all others the
    /// coordinator's; entries are in the order in which they were recorded, whatever this says.
    pub at: i64,
    /// Kind of the entry.
    pub kind: EventKind,
    /// Number of the attempt; 0: none.
    pub epoch: Epoch,
    /// Store id of the worker concerned.
    pub worker: Option<Arc<str>>,
    /// Reason in words; may be empty.
    pub reason: String,
    /// Cause of an attempt's end, for programs.
    pub cause: Cause,
    /// Decision of a recovery.
    pub decision: Option<Arc<Decision>>,
}

/// A reported checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCheckpoint {
    /// Description of the checkpoint.
    pub checkpoint: Arc<Checkpoint>,
    /// True if it can be restored.
    pub kept: bool,
    /// Store id of the worker that made it.
    pub worker: Option<Arc<str>>,
    /// Name of that worker.
    pub worker_name: Option<Arc<str>>,
    /// Time of its record in Unix milliseconds.
    pub at: i64,
    /// Time at which it was removed, or reported as dropped.
    pub gone_at: Option<i64>,
}

/// An outcome that is not (or no longer) the task's result.
#[derive(Debug, Clone, PartialEq)]
pub struct PastOutcome {
    /// The task's id.
    pub task: TaskId,
    /// The entry of the history that it belongs to.
    pub event: StoredEvent,
    /// The outcome.
    pub outcome: Arc<TaskOutcome>,
}

/// Filter of tasks. Everything that is set must match.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskFilter {
    /// In any of these states; empty: in any.
    pub states: Vec<TaskState>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// Queue of the tasks; `default` is the one of tasks that name none.
    pub queue: Option<String>,
    /// Held, or last held, by this worker (store id).
    pub worker: Option<String>,
    /// With an id that begins so.
    pub id_prefix: Option<String>,
    /// Paused, and not over.
    pub paused: bool,
    /// Assigned tasks only where they have started.
    pub started: bool,
    /// Submitted with a key of this name.
    pub owner: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskPage {
    /// In order of submission, or the reverse.
    pub tasks: Vec<StoredTask>,
    /// Value of `cursor` for the next page; none when this is the last.
    pub next: Option<u64>,
}

/// Number of tasks in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting.
    pub pending: u64,
    /// Given to a worker.
    pub assigned: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
    /// Ended on request.
    pub cancelled: u64,
    /// Number of paused tasks among the unfinished ones.
    pub paused: u64,
    /// Assigned tasks that have started; counted where a filter or an owner is given.
    pub running: u64,
}

impl Counts {
    /// Returns the number of tasks in one state.
    pub fn of(&self, state: TaskState) -> u64 {
        match state {
            TaskState::Pending => self.pending,
            TaskState::Assigned => self.assigned,
            TaskState::Succeeded => self.succeeded,
            TaskState::Failed => self.failed,
            TaskState::Cancelled => self.cancelled,
        }
    }
    /// All tasks.
    pub fn total(&self) -> u64 {
        self.pending + self.assigned + self.succeeded + self.failed + self.cancelled
    }
}

/// A worker with everything that is shown of it beyond its connection.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorker {
    /// Description that the worker sent.
    pub row: WorkerRow,
    /// Per lane, the last sequence that took effect.
    pub cursors: Vec<(outlast_model::Lane, u64)>,
    /// Time of its last handshake in Unix milliseconds.
    pub seen_at: i64,
    /// Time of its link's end; none while it is considered connected.
    pub gone_at: Option<i64>,
    /// Reason of its link's end.
    pub gone_reason: String,
    /// The same, for programs.
    pub gone_cause: LinkCause,
}
