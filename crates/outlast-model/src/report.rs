//! A worker's reports on its attempts, which it makes durable first: outcomes, checkpoints, states.

use crate::cause::words;
use crate::{AttemptId, Bytes, Cause, Epoch, OutcomeKind, TaskId};
use serde::{Deserialize, Serialize};

words! {
    /// Lane of a worker's outbox, in order of priority. Each has sequence numbers of its own.
    Lane {
        /// Not durable.
        Control = 0 "control",
        /// Outcomes of attempts.
        Results = 1 "results",
        /// Checkpoints and artifacts.
        Checkpoints = 2 "checkpoints",
        /// States, of which the newest of each attempt counts.
        State = 3 "state",
        /// Not durable.
        Telemetry = 4 "telemetry",
    }
}

/// Outcome of an attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskOutcome {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// Kind of its end.
    pub kind: OutcomeKind,
    /// Exit code of its process, where it exited.
    pub exit_code: Option<i32>,
    /// Signal that ended its process.
    pub signal: Option<i32>,
    /// Reason for people; empty on success.
    pub message: String,
    /// Start on the worker's clock, Unix time in milliseconds; 0: it never started.
    pub started_at_ms: i64,
    /// End on the worker's clock, Unix time in milliseconds.
    pub finished_at_ms: i64,
    /// Largest resident memory of its processes, in bytes.
    pub max_rss_bytes: u64,
    /// User and system time, in milliseconds.
    pub cpu_ms: u64,
    /// End of its standard output.
    pub stdout_tail: Bytes,
    /// End of its standard error.
    pub stderr_tail: Bytes,
    /// Bytes written to standard output, before any limit.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, before any limit.
    pub stderr_bytes: u64,
    /// Value that a called function returned, as JSON; empty: none.
    pub value_json: Bytes,
    /// Cause, for programs.
    pub cause: Cause,
    /// Newest checkpoint that the next attempt could go on from, by (epoch, number). It may still be
    /// on its way.
    pub checkpoint: Option<(Epoch, u64)>,
    /// Other attempts that ran at the keeper with which this one was lost. One of them may have killed
    /// it.
    pub beside: u32,
}

impl TaskOutcome {
    /// The attempt that ended.
    pub fn attempt(&self) -> AttemptId {
        AttemptId { task: self.task.clone(), epoch: self.epoch }
    }

    /// Estimate of the bytes that it takes in a message.
    pub fn message_size(&self) -> usize {
        let texts = self.task.len() + self.message.len() + self.value_json.len();
        80 + texts + self.stdout_tail.len() + self.stderr_tail.len()
    }
}

/// A checkpoint of an attempt. Its data is a blob, which is uploaded before this is sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt that made it.
    pub epoch: Epoch,
    /// Number within the attempt, from 1.
    pub number: u64,
    /// BLAKE3 of its blob's manifest.
    pub manifest: Bytes,
    /// Size of its data, in bytes.
    pub size: u64,
    /// Unix time in milliseconds.
    pub created_at_ms: i64,
    /// Metadata of the task and for the restore, as JSON.
    pub meta_json: Bytes,
    /// True if it cannot be restored: newer ones replaced it before its upload, or there was no room.
    pub dropped: bool,
    /// Not empty: no checkpoint, but a file of this name that belongs to the task's result.
    pub artifact: String,
}

impl Checkpoint {
    /// The attempt that made it.
    pub fn attempt(&self) -> AttemptId {
        AttemptId { task: self.task.clone(), epoch: self.epoch }
    }

    /// Returns the id for users: `EPOCH-NUMBER`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.epoch, self.number)
    }

    /// Returns the position in the order of a task's checkpoints.
    pub fn place(&self) -> (Epoch, u64) {
        (self.epoch, self.number)
    }

    /// Gives it memory of its own: it outlives the message in which it came, which may be large.
    pub fn detach(&mut self) {
        self.manifest = Bytes::copy_from_slice(&self.manifest);
        self.meta_json = Bytes::copy_from_slice(&self.meta_json);
    }

    /// Estimate of the bytes that it takes in a message.
    pub fn message_size(&self) -> usize {
        let texts = self.task.len() + self.artifact.len();
        48 + texts + self.manifest.len() + self.meta_json.len()
    }
}

/// The progress of an attempt. One with a greater version replaces it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateUpdate {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// Version within the attempt, from 1.
    pub version: u64,
    /// A JSON object.
    pub state_json: Bytes,
    /// Share that is done, from 0 to 1, where the task reports it.
    pub progress: Option<f64>,
    /// Unix time in milliseconds.
    pub at_ms: i64,
}

impl StateUpdate {
    /// The attempt that it is of.
    pub fn attempt(&self) -> AttemptId {
        AttemptId { task: self.task.clone(), epoch: self.epoch }
    }

    /// Estimate of the bytes that it takes in a message.
    pub fn message_size(&self) -> usize {
        48 + self.task.len() + self.state_json.len()
    }
}
