//! The facts that a worker makes durable, and what its core reads of them at its start.

use crate::ids::{Epoch, Millis, Now, TaskId};
use outlast_model::{Checkpoint, Lane, StateUpdate, TaskOutcome, TaskSpec};
use std::sync::Arc;

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
        /// The lane.
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
            // The link was lost before this boot. That the clock on the wall was set meanwhile cannot be
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
