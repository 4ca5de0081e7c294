//! The facts that the coordinator makes durable.

use super::rows::{Asked, WorkerRow};
use crate::ids::{Epoch, TaskId};
use crate::recovery::{Decision, Failure, Learned, Quarantine, TaskRecovery};
use outlast_model::{
    Cause, Checkpoint, Lane, LinkCause, StateUpdate, TaskOutcome, TaskSpec, TaskState,
};
use std::sync::Arc;

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
