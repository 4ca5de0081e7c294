//! Messages of a coordinator.

use super::{Cursor, Heartbeat};
use crate::{AttemptId, Bytes, Checkpoint, Epoch, SpecError, TaskId, TaskSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A message from the coordinator to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// The hello is accepted.
    Welcome(Welcome),
    /// The worker is refused; the link closes.
    Refused(Refused),
    /// Attempts for this worker.
    Assign(Vec<Assignment>),
    /// These attempts are to end.
    Stop(Vec<AttemptId>, StopReason),
    /// Records up to these are durable.
    Ack(Vec<Cursor>),
    /// An operator's request for attempts that the worker holds.
    Control(Vec<AttemptId>, ControlKind),
    /// The upload of this blob is not complete: upload it again, then send its checkpoint again.
    BlobMissing(Bytes),
    /// The statistics of the link are to start again from zero.
    ResetStats,
    /// Outcomes of these attempts, which travelled beside their lane, are durable.
    Saved(Vec<AttemptId>),
    /// The whole inventory is answered: what was not stopped is the worker's. An attempt that must not
    /// run twice, and that a former process of the worker accepted, starts only now.
    Settled,
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// Answer to the heartbeat of this number.
    HeartbeatReply(u64),
}

/// Acceptance of a worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Welcome {
    /// Version of the protocol.
    pub protocol: u32,
    /// UUID of the coordinator's store.
    pub coordinator_id: String,
    /// Version of the software, for people.
    pub version: String,
    /// Last sequence that was applied, per lane.
    pub cursors: Vec<Cursor>,
    /// Outbox records that may be unacknowledged.
    pub credit: u32,
    /// Largest message that is accepted, in bytes.
    pub max_message_bytes: u64,
    /// Time between heartbeats of the coordinator, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// The coordinator's Unix time in milliseconds, for `doctor`.
    pub now_ms: i64,
    /// True if it understands `Unsaved`, and `unfit` of heartbeats.
    pub takes_unsaved: bool,
    /// Secret to be sent with requests for blobs: it stands for what this worker's store may read.
    pub session: String,
}

/// Refusal of a worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refused {
    /// Kind of refusal, for programs.
    pub code: RefusedCode,
    /// Reason for people: what is wrong and what to do.
    pub reason: String,
    /// Trying again can help.
    pub retry: bool,
    /// Time to wait before that, in milliseconds.
    pub retry_after_ms: u32,
}

crate::cause::words! {
    /// Kind of refusal.
    RefusedCode {
        /// Unknown value.
        Unspecified = 0 "REFUSED_UNSPECIFIED",
        /// No common version of the protocol.
        Protocol = 1 "REFUSED_PROTOCOL",
        /// This worker's name belongs to another store.
        Identity = 2 "REFUSED_IDENTITY",
        /// A newer incarnation or connection of this store is connected.
        Stale = 3 "REFUSED_STALE",
        /// This store belongs to another coordinator.
        Coordinator = 4 "REFUSED_COORDINATOR",
        /// The coordinator is busy: come back after `retry_after_ms`.
        Busy = 5 "REFUSED_BUSY",
        /// A frame that is no message.
        Malformed = 6 "REFUSED_MALFORMED",
        /// An operator removed this worker.
        Forgotten = 7 "REFUSED_FORGOTTEN",
        /// Another process uses a copy of this store.
        Copy = 100 "REFUSED_COPY",
    }
}

/// An attempt that a worker is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// The task as it is to run; an error where this version cannot read it.
    pub spec: Result<Arc<TaskSpec>, SpecError>,
    /// Checkpoint to go on from.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// True if the attempt must not start yet.
    pub paused: bool,
    /// Attempts up to this one are of a former task of the same id.
    pub after: Epoch,
}

impl Assignment {
    /// An attempt without a checkpoint that may start at once.
    pub fn new(task: TaskId, epoch: Epoch, spec: Arc<TaskSpec>) -> Assignment {
        Assignment { task, epoch, spec: Ok(spec), checkpoint: None, paused: false, after: 0 }
    }
}

crate::cause::words! {
    /// Reason for which an attempt is to end.
    StopReason {
        /// A user cancelled the task.
        Cancelled = 0 "cancelled",
        /// Another attempt is current, or the task has ended.
        Superseded = 1 "superseded",
        /// Return it unless it has started.
        Return = 2 "return",
        /// Return it also when it runs: it goes on elsewhere.
        Move = 3 "move",
    }
}

crate::cause::words! {
    /// An operator's request for an attempt.
    ControlKind {
        /// Pause it.
        Pause = 0 "pause",
        /// Let it go on.
        Resume = 1 "resume",
        /// Ask it for a checkpoint.
        Checkpoint = 2 "checkpoint",
    }
}
