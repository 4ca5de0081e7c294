//! What readers of a store are given.

use outlast_core::ids::{Epoch, TaskId};
use outlast_core::records::{TaskState, WorkerRow};
use outlast_core::recovery::Decision;
use outlast_wire::TaskSpec;
use outlast_wire::v2::{Cause, Checkpoint, LinkCause, TaskOutcome};
use std::sync::Arc;

/// A task with everything that is shown of it. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// Its number in order of submission.
    pub number: u64,
    /// Its id.
    pub id: TaskId,
    /// What to run.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub state: TaskState,
    /// Its newest attempt; 0 before the first.
    pub epoch: Epoch,
    /// The attempt that decided it; 0 while it is not over or when none did.
    pub ended_epoch: Epoch,
    /// Losses counted toward `max_retries`.
    pub retries: u32,
    /// Whether a cancel was asked for and not yet settled.
    pub cancelling: bool,
    /// Store id of the worker that has it or had it last; none while pending.
    pub worker: Option<Arc<str>>,
    /// That worker's name when it was last seen.
    pub worker_name: Option<Arc<str>>,
    /// When it was submitted.
    pub submitted_at: i64,
    /// When the shown attempt was assigned.
    pub assigned_at: Option<i64>,
    /// When the shown attempt started, on the worker's clock.
    pub started_at: Option<i64>,
    /// When it was over.
    pub ended_at: Option<i64>,
    /// Why it ended, for people; empty on plain success.
    pub reason: String,
    /// Whether there is an outcome to read.
    pub has_outcome: bool,
    /// Name of the key that it was submitted with.
    pub owner: Option<String>,
}

/// What an entry of a task's history says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// It was accepted.
    Submitted = 0,
    /// A worker was given it.
    Assigned = 1,
    /// The worker said that it runs.
    Started = 2,
    /// The attempt was given up; the task is pending again.
    Requeued = 3,
    /// It ended well.
    Succeeded = 4,
    /// It ended badly.
    Failed = 5,
    /// It ended because somebody asked.
    Cancelled = 6,
    /// An outcome arrived that does not count.
    Superseded = 7,
    /// Somebody asked to cancel it while it was assigned.
    CancelRequested = 8,
    /// Somebody asked to run it again after it was over.
    Retried = 9,
    /// A remark.
    Noted = 10,
    /// Somebody asked to pause it.
    PauseRequested = 11,
    /// Somebody asked to let it go on.
    ResumeRequested = 12,
    /// What was decided after a failure, or where its knobs start.
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

    /// The entry that tells of this end; none for a state that is no end.
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
    /// When, in Unix milliseconds. A start carries the worker's clock, all else the
    /// coordinator's; entries are in the order in which they were recorded, whatever this says.
    pub at: i64,
    /// What happened.
    pub kind: EventKind,
    /// Which attempt; 0 when none.
    pub epoch: Epoch,
    /// Store id of the worker concerned.
    pub worker: Option<Arc<str>>,
    /// Why, for people; may be empty.
    pub reason: String,
    /// Why, for programs; of ends of attempts.
    pub cause: Cause,
    /// Of a recovery: what was decided.
    pub decision: Option<Arc<Decision>>,
}

/// A checkpoint that was told of.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCheckpoint {
    /// What it is.
    pub checkpoint: Arc<Checkpoint>,
    /// It can be restored.
    pub kept: bool,
    /// Store id of the worker that made it.
    pub worker: Option<Arc<str>>,
    /// That worker's name.
    pub worker_name: Option<Arc<str>>,
    /// When it was recorded, in Unix milliseconds.
    pub at: i64,
    /// When it was removed, or told of as dropped.
    pub gone_at: Option<i64>,
}

/// An outcome that is not (or no longer) the task's result.
#[derive(Debug, Clone, PartialEq)]
pub struct PastOutcome {
    /// The task's id.
    pub task: TaskId,
    /// The entry of the history that it belongs to.
    pub event: StoredEvent,
    /// What it was.
    pub outcome: Arc<TaskOutcome>,
}

/// Which tasks to list. Everything that is set must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskFilter {
    /// In any of these states; empty: in any.
    pub states: Vec<TaskState>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// In this queue; `default` is the one of tasks that name none.
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
    /// What to give as `cursor` for the next page; none when this is the last.
    pub next: Option<u64>,
}

/// How many tasks are in each state.
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
    /// Of those that are not over, the paused ones.
    pub paused: u64,
    /// Assigned tasks that have started; counted where a filter or an owner is given.
    pub running: u64,
}

impl Counts {
    /// Those in one state.
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
    /// What it said of itself.
    pub row: WorkerRow,
    /// Per lane, the last sequence that took effect.
    pub cursors: Vec<(i32, u64)>,
    /// When it last said hello, in Unix milliseconds.
    pub seen_at: i64,
    /// When its link ended; none while it is thought to be there.
    pub gone_at: Option<i64>,
    /// Why its link ended.
    pub gone_reason: String,
    /// The same, for programs.
    pub gone_cause: LinkCause,
}
