//! The facts that each side makes durable. A store applies a batch in one transaction, in order.

use crate::ids::{Epoch, Millis, Now, TaskId};
use crate::recovery::{Decision, Failure, Learned, Quarantine, TaskRecovery};
use outlast_wire::TaskSpec;
use outlast_wire::v2::{Cause, Checkpoint, LinkCause, StateUpdate, TaskOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records of one decision, to be applied together or not at all. Numbered from 1 without gaps.
#[derive(Debug, Clone)]
pub struct Batch<R> {
    /// Its number; `on_persisted` names it.
    pub number: u64,
    /// In order.
    pub records: Vec<R>,
}

/// Where a task stands, as the coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// Waiting for a worker.
    Pending,
    /// Given to a worker; it may be running.
    Assigned,
    /// Over, and it succeeded.
    Succeeded,
    /// Over, and it did not.
    Failed,
    /// Over, because somebody asked.
    Cancelled,
}

impl TaskState {
    /// Whether nothing more will happen unless somebody retries it.
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

/// What the coordinator makes durable. `at` is Unix time in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordRecord {
    /// A task was accepted. Its state is pending, its epoch that of `after`.
    Submitted {
        /// Its id.
        task: TaskId,
        /// Grows with each submission; the order of service among equals.
        number: u64,
        /// What to run.
        spec: Arc<TaskSpec>,
        /// The newest attempt of a former task of this id, which was removed; 0 when there was
        /// none.
        after: Epoch,
        /// Name of the key that it was submitted with.
        owner: Option<Arc<str>>,
        /// When.
        at: i64,
    },
    /// A worker was given the task: its state is assigned, its epoch is `epoch`.
    Assigned {
        /// Which task.
        task: TaskId,
        /// The new attempt.
        epoch: Epoch,
        /// The worker's store id.
        worker: Arc<str>,
        /// When.
        at: i64,
    },
    /// The worker said that the attempt runs. Only `started_at` of the task changes.
    Started {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// Worker's Unix time in milliseconds.
        started_at: i64,
        /// When it was heard.
        at: i64,
    },
    /// The task is pending again; its epoch stays, its worker is none.
    Requeued {
        /// Which task.
        task: TaskId,
        /// The attempt that ended.
        epoch: Epoch,
        /// Losses counted toward `max_retries` so far.
        retries: u32,
        /// Why, for people.
        reason: String,
        /// Why, for programs.
        cause: Cause,
        /// How that attempt ended, when it was heard of.
        outcome: Option<Arc<TaskOutcome>>,
        /// When.
        at: i64,
    },
    /// The task is over.
    Ended {
        /// Which task.
        task: TaskId,
        /// The attempt that decided it; 0 when none did.
        epoch: Epoch,
        /// Succeeded, failed or cancelled.
        state: TaskState,
        /// Why, for people; empty on plain success.
        reason: String,
        /// Why, for programs.
        cause: Cause,
        /// The result, when there is one.
        outcome: Option<Arc<TaskOutcome>>,
        /// The store id of the worker that delivered it.
        worker: Option<Arc<str>>,
        /// When.
        at: i64,
    },
    /// An outcome that does not count: kept on record, changes nothing else. The task may be
    /// over or unknown (then it is kept beside the tasks).
    Superseded {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// Why it does not count.
        reason: String,
        /// What it was.
        outcome: Arc<TaskOutcome>,
        /// The worker's store id.
        worker: Arc<str>,
        /// When.
        at: i64,
    },
    /// Somebody asked to cancel a task that is assigned; it goes on until its worker agrees.
    CancelRequested {
        /// Which task.
        task: TaskId,
        /// When.
        at: i64,
    },
    /// A task that was over is pending again, because somebody asked. Its result is cleared.
    Retried {
        /// Which task.
        task: TaskId,
        /// When.
        at: i64,
    },
    /// Something worth telling in the task's history; no state changes.
    Noted {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// What.
        note: String,
        /// When.
        at: i64,
    },
    /// These tasks, which are over, are removed with all that is known of them but the epoch of
    /// their newest attempt: a later task of the same id goes on from there.
    TasksRemoved {
        /// Which.
        tasks: Vec<TaskId>,
        /// Outcomes of tasks that are not known are removed too if they were heard before this.
        before: i64,
        /// When.
        at: i64,
    },
    /// A worker said hello: insert or replace what is known of it (not its cursors).
    WorkerSeen {
        /// Everything but cursors.
        worker: Arc<WorkerRow>,
        /// When.
        at: i64,
    },
    /// A worker's link ended.
    WorkerGone {
        /// Its store id.
        worker: Arc<str>,
        /// Why, for people.
        reason: String,
        /// Why, for programs.
        cause: LinkCause,
        /// When.
        at: i64,
    },
    /// An operator wants the worker to take no new work, or wants that no more.
    WorkerDrained {
        /// Its store id.
        worker: Arc<str>,
        /// Drained, or not any more.
        on: bool,
        /// When.
        at: i64,
    },
    /// An operator wants the worker to be bound to no key any more.
    WorkerUnbound {
        /// Its store id.
        worker: Arc<str>,
        /// When.
        at: i64,
    },
    /// An operator removed the worker; delete its row and cursors.
    WorkerForgotten {
        /// Its store id.
        worker: Arc<str>,
        /// When.
        at: i64,
    },
    /// A checkpoint of a task: kept, unless it was dropped at the worker. Known by (epoch, number).
    Checkpoint {
        /// What it is.
        checkpoint: Arc<Checkpoint>,
        /// The worker's store id.
        worker: Arc<str>,
        /// When.
        at: i64,
    },
    /// These checkpoints, by (epoch, number), are not kept any more.
    CheckpointsPruned {
        /// Which task.
        task: TaskId,
        /// Which of its checkpoints.
        which: Vec<(Epoch, u64)>,
        /// When.
        at: i64,
    },
    /// A task's state, which replaces what was known. Of an unknown task: nothing.
    State {
        /// What it is.
        update: Arc<StateUpdate>,
    },
    /// Somebody asked to pause the task, or to resume it. It stays so over attempts.
    Paused {
        /// Which task.
        task: TaskId,
        /// Paused, or not any more.
        on: bool,
        /// When.
        at: i64,
    },
    /// What a person asked of a task and was not done yet, in place of what was known of that.
    Asked {
        /// Which task.
        task: TaskId,
        /// What is still to be done.
        asked: Asked,
    },
    /// What was decided after a failure, or where a task's knobs start: it goes to the history,
    /// and `state` takes the place of what was known of the task's recovery.
    Recovered {
        /// Which task.
        task: TaskId,
        /// The attempt that failed; 0 before the first.
        epoch: Epoch,
        /// What was decided, and why.
        decision: Arc<Decision>,
        /// What was tried by now, and how the task is to run next.
        state: Arc<TaskRecovery>,
        /// When.
        at: i64,
    },
    /// A failure to look back at. Those up to number `forget` are not kept any more.
    FailureSeen {
        /// What it was.
        failure: Arc<Failure>,
        /// See above.
        forget: u64,
    },
    /// These failures are not kept any more: those of a worker, or of a type of task.
    FailuresForgotten {
        /// Its store id.
        worker: Option<Arc<str>>,
        /// The type.
        task_type: Option<String>,
    },
    /// A worker is given no work but probes; or (none) it is given work again.
    Quarantined {
        /// Its store id.
        worker: Arc<str>,
        /// Until when, and why.
        quarantine: Option<Arc<Quarantine>>,
    },
    /// Knobs that worked; in place of what was known of that type on that hardware.
    Learned {
        /// What worked.
        learned: Arc<Learned>,
    },
    /// What worked is forgotten: of this type, on this hardware; of all where there is none.
    Unlearned {
        /// The type of task.
        task_type: Option<String>,
        /// As in [`Learned`].
        hardware: Option<String>,
    },
    /// Outbox records of this lane up to `seq` have taken effect.
    Cursor {
        /// The worker's store id.
        worker: Arc<str>,
        /// `outlast_wire::v2::Lane` as a number.
        lane: i32,
        /// The last sequence applied.
        seq: u64,
    },
}

/// What is known of a worker beyond a connection.
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
    /// Of the process that opened its store for this incarnation; 0 when it is not known.
    pub nonce: u64,
    /// Name of the key that it is bound to; empty: none.
    pub principal: Arc<str>,
}

/// A task that is not over, as loaded at start (or one that is over, for a retry).
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Its id.
    pub id: TaskId,
    /// Its number in order of submission.
    pub number: u64,
    /// What to run.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub state: TaskState,
    /// Its newest attempt; `after` before the first.
    pub epoch: Epoch,
    /// Attempts up to this one are of a former task of the same id; mostly 0.
    pub after: Epoch,
    /// Losses counted toward `max_retries`.
    pub retries: u32,
    /// Store id of the worker that has it, while assigned.
    pub worker: Option<Arc<str>>,
    /// Whether a cancel was asked for and not yet settled.
    pub cancelling: bool,
    /// When the current attempt started (worker's Unix ms), if it was heard.
    pub started_at: Option<i64>,
    /// Somebody paused it.
    pub paused: bool,
    /// What a person asked of it and was not done yet.
    pub asked: Asked,
    /// It failed because attempts were lost, not by what it did.
    pub lost: bool,
    /// Its checkpoints that are kept, by (epoch, number).
    pub checkpoints: Vec<Arc<Checkpoint>>,
    /// (epoch, version) of its newest state.
    pub state_version: (Epoch, u64),
    /// What was tried for it; none while nothing was.
    pub recovery: Option<Arc<TaskRecovery>>,
}

/// What a person asked of a task that only its worker can do, or another one; and the checkpoint
/// that its next attempt waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// A checkpoint, of which its worker has not been told.
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
    /// Its number in that attempt.
    pub number: u64,
    /// Store id of the worker that has it.
    pub worker: Arc<str>,
}

impl Awaited {
    /// Its place in the order of a task's checkpoints.
    pub fn place(&self) -> (Epoch, u64) {
        (self.epoch, self.number)
    }
}

/// Everything that the coordinator's core needs to go on after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CoordSnapshot {
    /// UUID of this coordinator's store.
    pub coordinator_id: Arc<str>,
    /// The highest task number ever given.
    pub last_number: u64,
    /// Tasks that are not over, by number.
    pub tasks: Vec<TaskRow>,
    /// All known workers, with (lane, last applied sequence).
    pub workers: Vec<(WorkerRow, Vec<(i32, u64)>)>,
    /// Failures to look back at, oldest first.
    pub failures: Vec<Failure>,
    /// Workers in quarantine, by store id.
    pub quarantines: Vec<(Arc<str>, Quarantine)>,
    /// Knobs that worked.
    pub learned: Vec<Learned>,
}

/// What a worker makes durable.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerRecord {
    /// An assignment arrived: insert the attempt as queued (replacing an older epoch's row).
    Accepted {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// What to run.
        spec: Arc<TaskSpec>,
        /// To go on from.
        checkpoint: Option<Arc<Checkpoint>>,
        /// It must not start yet.
        paused: bool,
        /// Attempts up to this one are of a former task of the same id; mostly 0.
        after: Epoch,
    },
    /// The attempt is about to run. Written only for tasks that must not run twice.
    Starting {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// Unix time in milliseconds.
        at: i64,
    },
    /// The attempt ended: delete its row and append its outcome to the outbox.
    Finished {
        /// The lane (`outlast_wire::v2::Lane` as a number).
        lane: i32,
        /// The sequence in that lane.
        seq: u64,
        /// What happened.
        outcome: Arc<TaskOutcome>,
    },
    /// The attempt is dropped without an outcome (it was superseded before it started).
    Dropped {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
    },
    /// An attempt was paused, or not any more.
    Paused {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        epoch: Epoch,
        /// Paused, or not.
        on: bool,
    },
    /// A checkpoint of a held attempt: append it to its lane, replacing what has this sequence,
    /// and unless it was dropped remember it as the attempt's newest.
    Checkpoint {
        /// The sequence in its lane.
        seq: u64,
        /// What it is.
        checkpoint: Arc<Checkpoint>,
    },
    /// The state of a held attempt: append it to its lane, in place of an older one, and
    /// remember it as the attempt's.
    State {
        /// The sequence in its lane.
        seq: u64,
        /// The sequence of the update that it makes needless.
        replaces: Option<u64>,
        /// What it is.
        update: Arc<StateUpdate>,
    },
    /// The coordinator has everything of this lane up to `seq`: delete it from the outbox.
    Acked {
        /// The lane.
        lane: i32,
        /// The last sequence acknowledged.
        seq: u64,
    },
    /// The coordinator that this store belongs to, learned at the first welcome.
    Joined {
        /// Its UUID.
        coordinator_id: Arc<str>,
    },
    /// The link was lost while attempts were held; or (none) it is back.
    LinkLost {
        /// When.
        at: Option<Now>,
    },
}

/// Since when a worker has no link, as a former process noted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostLink {
    /// When.
    pub at: Now,
    /// The machine has not started anew since: the clock of `Now::mono` goes on.
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
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub epoch: Epoch,
    /// What to run.
    pub spec: Arc<TaskSpec>,
    /// Set once `Starting` was written.
    pub started_at: Option<i64>,
    /// Incarnations that ended while they held it.
    pub survived: u32,
    /// Checkpoints and artifacts that it made: the last number given.
    pub made: u64,
    /// It is paused.
    pub paused: bool,
    /// Attempts up to this one are of a former task of the same id; mostly 0.
    pub after: Epoch,
    /// Its newest checkpoint, or the one to go on from.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// Its newest state.
    pub state: Option<Arc<StateUpdate>>,
}

/// Everything that a worker's core needs to go on after a restart.
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
    /// Since when there is no link, if attempts were held then.
    pub lost: Option<LostLink>,
}
