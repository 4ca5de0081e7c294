//! The facts that each side makes durable. A store applies a batch in one transaction, in order.

use crate::ids::{Epoch, Millis, Now, TaskId};
use crate::recovery::{Decision, Failure, Learned, Quarantine, TaskRecovery};
use outlast_model::{Cause, Checkpoint, Lane, LinkCause, StateUpdate, TaskOutcome, TaskSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records of one decision, to be applied together or not at all. Numbered from 1 without gaps.
#[derive(Debug, Clone)]
pub struct Batch<R> {
    /// Number of the batch, as passed to `on_persisted`.
    pub number: u64,
    /// Records in order.
    pub records: Vec<R>,
}

/// State of a task at the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// Waiting for a worker.
    Pending,
    /// Given to a worker; it may be running.
    Assigned,
    /// Ended successfully.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Cancelled on request.
    Cancelled,
}

impl TaskState {
    /// Returns true if the state is final, unless the task is retried.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
    /// The word that users see and the store keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Assigned, Self::Succeeded, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

/// A fact that the coordinator makes durable. `at` is Unix time in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordRecord {
    /// A task was accepted. Its state is pending, its epoch that of `after`.
    Submitted {
        /// Id of the task.
        task: TaskId,
        /// Grows with each submission; the order of service among equals.
        number: u64,
        /// Specification of the task.
        spec: Arc<TaskSpec>,
        /// The newest attempt of a former task of this id, which was removed; 0 when there was
        /// none.
        after: Epoch,
        /// Name of the key that it was submitted with.
        owner: Option<Arc<str>>,
        /// Time of the record.
        at: i64,
    },
    /// A worker was given the task: its state is assigned, its epoch is `epoch`.
    Assigned {
        /// Id of the task.
        task: TaskId,
        /// The new attempt.
        epoch: Epoch,
        /// The worker's store id.
        worker: Arc<str>,
        /// Time of the record.
        at: i64,
    },
    /// The worker said that the attempt runs. Only `started_at` of the task changes.
    Started {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Worker's Unix time in milliseconds.
        started_at: i64,
        /// Time at which the report arrived.
        at: i64,
    },
    /// The task is pending again; its epoch stays, its worker is none.
    Requeued {
        /// Id of the task.
        task: TaskId,
        /// The attempt that ended.
        epoch: Epoch,
        /// Losses counted toward `max_retries` so far.
        retries: u32,
        /// Reason in words.
        reason: String,
        /// Cause, for programs.
        cause: Cause,
        /// Outcome of that attempt, if it was received.
        outcome: Option<Arc<TaskOutcome>>,
        /// Time of the record.
        at: i64,
    },
    /// The task has ended.
    Ended {
        /// Id of the task.
        task: TaskId,
        /// The attempt that decided it; 0 when none did.
        epoch: Epoch,
        /// Succeeded, failed or cancelled.
        state: TaskState,
        /// Reason in words; empty on plain success.
        reason: String,
        /// Cause, for programs.
        cause: Cause,
        /// The result, when there is one.
        outcome: Option<Arc<TaskOutcome>>,
        /// The store id of the worker that delivered it.
        worker: Option<Arc<str>>,
        /// Time of the record.
        at: i64,
    },
    /// An outcome that does not count: kept on record, changes nothing else. The task may be
    /// over or unknown (then it is kept beside the tasks).
    Superseded {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Reason why it does not count.
        reason: String,
        /// The outcome.
        outcome: Arc<TaskOutcome>,
        /// The worker's store id.
        worker: Arc<str>,
        /// Time of the record.
        at: i64,
    },
    /// A cancel of an assigned task was requested; the task continues until its worker confirms.
    CancelRequested {
        /// Id of the task.
        task: TaskId,
        /// Time of the record.
        at: i64,
    },
    /// A task that was over is pending again, because somebody asked. Its result is cleared.
    Retried {
        /// Id of the task.
        task: TaskId,
        /// Time of the record.
        at: i64,
    },
    /// A note in the task's history, without a change of state.
    Noted {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Text of the note.
        note: String,
        /// Time of the record.
        at: i64,
    },
    /// Ended tasks are removed with everything known about them, except the epoch of their newest
    /// attempt: a later task of the same id continues from there.
    TasksRemoved {
        /// Ids of the tasks.
        tasks: Vec<TaskId>,
        /// Outcomes of tasks that are not known are removed too if they were heard before this.
        before: i64,
        /// Time of the record.
        at: i64,
    },
    /// A worker said hello: insert or replace what is known of it (not its cursors).
    WorkerSeen {
        /// The worker's row, without cursors.
        worker: Arc<WorkerRow>,
        /// Time of the record.
        at: i64,
    },
    /// A worker's link ended.
    WorkerGone {
        /// Store id of the worker.
        worker: Arc<str>,
        /// Reason in words.
        reason: String,
        /// Cause, for programs.
        cause: LinkCause,
        /// Time of the record.
        at: i64,
    },
    /// An operator wants the worker to take no new work, or wants that no more.
    WorkerDrained {
        /// Store id of the worker.
        worker: Arc<str>,
        /// Drained, or not any more.
        on: bool,
        /// Time of the record.
        at: i64,
    },
    /// An operator wants the worker to be bound to no key any more.
    WorkerUnbound {
        /// Store id of the worker.
        worker: Arc<str>,
        /// Time of the record.
        at: i64,
    },
    /// An operator removed the worker; delete its row and cursors.
    WorkerForgotten {
        /// Store id of the worker.
        worker: Arc<str>,
        /// Time of the record.
        at: i64,
    },
    /// A checkpoint of a task: kept, unless it was dropped at the worker. Known by (epoch, number).
    Checkpoint {
        /// The checkpoint.
        checkpoint: Arc<Checkpoint>,
        /// The worker's store id.
        worker: Arc<str>,
        /// Time of the record.
        at: i64,
    },
    /// These checkpoints, by (epoch, number), are not kept any more.
    CheckpointsPruned {
        /// Id of the task.
        task: TaskId,
        /// The affected checkpoints, by (epoch, number).
        which: Vec<(Epoch, u64)>,
        /// Time of the record.
        at: i64,
    },
    /// A task's state, which replaces what was known. Of an unknown task: nothing.
    State {
        /// The state update.
        update: Arc<StateUpdate>,
    },
    /// A pause or resume of the task was requested. It applies to all attempts.
    Paused {
        /// Id of the task.
        task: TaskId,
        /// Paused, or not any more.
        on: bool,
        /// Time of the record.
        at: i64,
    },
    /// Pending operator requests to a task, which replace the previous ones.
    Asked {
        /// Id of the task.
        task: TaskId,
        /// The pending requests.
        asked: Asked,
    },
    /// A decision after a failure, or about the initial knob positions: it is added to the history, and
    /// `state` replaces the task's recovery state.
    Recovered {
        /// Id of the task.
        task: TaskId,
        /// The attempt that failed; 0 before the first.
        epoch: Epoch,
        /// The decision with its reason.
        decision: Arc<Decision>,
        /// Previous recovery actions, and settings of the next attempt.
        state: Arc<TaskRecovery>,
        /// Time of the record.
        at: i64,
    },
    /// A failure to look back at. Those up to number `forget` are not kept any more.
    FailureSeen {
        /// The failure.
        failure: Arc<Failure>,
        /// See above.
        forget: u64,
    },
    /// These failures are not kept any more: those of a worker, or of a type of task.
    FailuresForgotten {
        /// Store id of the worker.
        worker: Option<Arc<str>>,
        /// The type.
        task_type: Option<String>,
    },
    /// A worker is given no work but probes; or (none) it is given work again.
    Quarantined {
        /// Store id of the worker.
        worker: Arc<str>,
        /// The quarantine; none: it has ended.
        quarantine: Option<Arc<Quarantine>>,
    },
    /// Knobs that worked; in place of what was known of that type on that hardware.
    Learned {
        /// Knob values that worked.
        learned: Arc<Learned>,
    },
    /// Knob values that worked are discarded: of this type, on this hardware; all of them if none is named.
    Unlearned {
        /// The type of task.
        task_type: Option<String>,
        /// Hardware, as in [`Learned`].
        hardware: Option<String>,
    },
    /// Outbox records of this lane up to `seq` have taken effect.
    Cursor {
        /// The worker's store id.
        worker: Arc<str>,
        /// `outlast_model::Lane` as a number.
        lane: Lane,
        /// The last sequence applied.
        seq: u64,
    },
}

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
    /// Losses counted toward `max_retries`.
    pub retries: u32,
    /// Store id of the worker that has it, while assigned.
    pub worker: Option<Arc<str>>,
    /// True if a requested cancel is still pending.
    pub cancelling: bool,
    /// Start of the current attempt (worker's Unix ms), if it was reported.
    pub started_at: Option<i64>,
    /// True if the task is paused.
    pub paused: bool,
    /// Pending operator requests.
    pub asked: Asked,
    /// True if it failed because attempts were lost, not by itself.
    pub lost: bool,
    /// Kept checkpoints, by (epoch, number).
    pub checkpoints: Vec<Arc<Checkpoint>>,
    /// (epoch, version) of its newest state.
    pub state_version: (Epoch, u64),
    /// Recovery state; none before the first failure.
    pub recovery: Option<Arc<TaskRecovery>>,
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

/// A fact that a worker makes durable.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerRecord {
    /// An assignment arrived: insert the attempt as queued (replacing an older epoch's row).
    Accepted {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Specification of the task.
        spec: Arc<TaskSpec>,
        /// Checkpoint to resume from.
        checkpoint: Option<Arc<Checkpoint>>,
        /// True if the attempt must not start yet.
        paused: bool,
        /// Attempts up to this one are of a former task of the same id; mostly 0.
        after: Epoch,
    },
    /// The attempt is about to run. Written only for tasks that must not run twice.
    Starting {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Unix time in milliseconds.
        at: i64,
    },
    /// The attempt ended: delete its row and append its outcome to the outbox.
    Finished {
        /// The lane (`outlast_model::Lane` as a number).
        lane: Lane,
        /// The sequence in that lane.
        seq: u64,
        /// The outcome.
        outcome: Arc<TaskOutcome>,
    },
    /// The attempt is dropped without an outcome (it was superseded before it started).
    Dropped {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
    },
    /// An attempt was paused, or not any more.
    Paused {
        /// Id of the task.
        task: TaskId,
        /// Number of the attempt.
        epoch: Epoch,
        /// Paused, or not.
        on: bool,
    },
    /// A checkpoint of a held attempt: append it to its lane, replacing what has this sequence,
    /// and unless it was dropped remember it as the attempt's newest.
    Checkpoint {
        /// The sequence in its lane.
        seq: u64,
        /// The checkpoint.
        checkpoint: Arc<Checkpoint>,
    },
    /// The state of a held attempt: append it to its lane, in place of an older one, and
    /// remember it as the attempt's.
    State {
        /// The sequence in its lane.
        seq: u64,
        /// The sequence of the update that it makes needless.
        replaces: Option<u64>,
        /// The state update.
        update: Arc<StateUpdate>,
    },
    /// The coordinator has everything of this lane up to `seq`: delete it from the outbox.
    Acked {
        /// The lane.
        lane: Lane,
        /// The last sequence acknowledged.
        seq: u64,
    },
    /// The coordinator that this store belongs to, learned at the first welcome.
    Joined {
        /// UUID of the coordinator's store.
        coordinator_id: Arc<str>,
    },
    /// The link was lost while attempts were held; or (none) it is back.
    LinkLost {
        /// Time of the record.
        at: Option<Now>,
    },
}

/// Start of a period without a link, as recorded by a previous process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostLink {
    /// Time of the record.
    pub at: Now,
    /// True if the machine was not rebooted since, so that the clock of `Now::mono` continues.
    pub same_boot: bool,
}

impl LostLink {
    /// For how long by `now`.
    pub fn age(&self, now: Now) -> Millis {
        match now.mono.checked_sub(self.at.mono) {
            Some(age) if self.same_boot => age,
            // It was lost before this boot. That the clock on the wall was set meanwhile cannot be
            // known.
            _ => now.wall.saturating_sub(self.at.wall).max(0).unsigned_abs().max(now.mono),
        }
    }
}

/// An attempt in a worker's store.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// Id of the task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// Set once `Starting` was written.
    pub started_at: Option<i64>,
    /// Incarnations that ended while they held it.
    pub survived: u32,
    /// Checkpoints and artifacts that it made: the last number given.
    pub made: u64,
    /// True if the attempt is paused.
    pub paused: bool,
    /// Attempts up to this one are of a former task of the same id; mostly 0.
    pub after: Epoch,
    /// Newest checkpoint, or the one to resume from.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// Newest reported state.
    pub state: Option<Arc<StateUpdate>>,
}

/// State that a worker's core needs to continue after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerSnapshot {
    /// UUID of this store.
    pub store_id: Arc<str>,
    /// This opening's number; already durable, one more than the last.
    pub incarnation: u64,
    /// The coordinator it belongs to, once known.
    pub coordinator_id: Option<Arc<str>>,
    /// Attempts that have no outcome yet, in order of arrival.
    pub attempts: Vec<AttemptRow>,
    /// Unacknowledged outcomes of the results lane, in sequence order.
    pub outbox: Vec<(u64, Arc<TaskOutcome>)>,
    /// The next sequence of the results lane (from 1; survives an empty outbox).
    pub next_seq: u64,
    /// Unacknowledged checkpoints, in sequence order.
    pub checkpoints: Vec<(u64, Arc<Checkpoint>)>,
    /// The next sequence of that lane.
    pub next_checkpoint: u64,
    /// Unacknowledged states, in sequence order.
    pub states: Vec<(u64, Arc<StateUpdate>)>,
    /// The next sequence of that lane.
    pub next_state: u64,
    /// Start of the period without a link, if attempts were held then.
    pub lost: Option<LostLink>,
}
