//! Messages of a worker.

use super::{Cursor, Heartbeat};
use crate::{
    AttemptId, Checkpoint, Epoch, Lane, LinkCause, StateUpdate, TaskId, TaskOutcome, Unfitness,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A message from a worker to its coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum ToCoordinator {
    /// The first message of a link.
    Hello(Box<Hello>),
    /// A part of what the worker holds.
    Inventory(Inventory),
    /// Durable records of one lane.
    Outbox(OutboxBatch),
    /// Attempts that started, with Unix times in milliseconds. Not durable: their outcomes carry the
    /// same times.
    Started(Vec<(AttemptId, i64)>),
    /// A clean goodbye, with its reason: the link closes on purpose.
    Bye(String),
    /// A note on an attempt, for its history. Not durable.
    Happened(Happened),
    /// A setting of the worker's side of the link changed. Not durable.
    Adapted(Adapted),
    /// Outcomes that the worker cannot make durable now, since its store cannot be written. They have no
    /// part in the sequence of their lane: the worker may crash and forget that it sent them.
    Unsaved(Vec<TaskOutcome>),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// Answer to the heartbeat of this number.
    HeartbeatReply(u64),
}

/// Introduction of a worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: u32,
    /// Display name of the worker.
    pub worker_id: String,
    /// UUID of its durable store: its identity.
    pub store_id: String,
    /// Openings of that store, this one too.
    pub incarnation: u64,
    /// Dials of this incarnation, this one too.
    pub connection: u64,
    /// The coordinator that the store belongs to; empty at first.
    pub coordinator_id: String,
    /// Tasks that may run at once.
    pub slots: u32,
    /// Further tasks that may wait there.
    pub prefetch: u32,
    /// A flat JSON object.
    pub capabilities_json: String,
    /// Labels that its user declared.
    pub labels: BTreeMap<String, String>,
    /// Version of the software, for people.
    pub version: String,
    /// True if it accepts no new work.
    pub draining: bool,
    /// Reason for people for which this incarnation's former link ended, as the worker saw it.
    pub lost_reason: String,
    /// The same for programs.
    pub lost_cause: LinkCause,
    /// Statistics of its links.
    pub link: Option<Box<LinkReport>>,
    /// Faults that keep it from working; empty: it can work.
    pub unfit: Vec<Unfitness>,
    /// True if it understands `Settled`.
    pub takes_settled: bool,
    /// Random number of this start of the process: two processes that use copies of one store differ in
    /// it. 0: a worker of a former version.
    pub nonce: u64,
}

/// Statistics that only the worker can know of its links, since its process started. For people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkReport {
    /// Dials, this one too.
    pub attempts: u64,
    /// Accepted dials before this one.
    pub welcomes: u64,
    /// Dials that were not accepted.
    pub failures: u64,
    /// Times from a loss to the next acceptance, before this one.
    pub reconnects: u64,
    /// Sum of these times, in milliseconds.
    pub reconnect_ms: u64,
    /// Longest of these times, in milliseconds.
    pub reconnect_max_ms: u64,
    /// Time since the loss of the former link, in milliseconds; 0: there was none.
    pub outage_ms: u64,
    /// Time with a link, in milliseconds.
    pub connected_ms: u64,
    /// Time without one, in milliseconds.
    pub disconnected_ms: u64,
    /// Heartbeats that it sent over its former link.
    pub beats: u64,
    /// Newest record of each lane that waits to be delivered.
    pub owed: Vec<Cursor>,
}

/// A part of what a worker holds, so that the coordinator can send the difference.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// Attempts.
    pub holdings: Vec<Holding>,
    /// This is the last part.
    pub last: bool,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holding {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// State of the attempt at the worker.
    pub state: HoldingState,
    /// Unix time in milliseconds; 0: it has not started.
    pub started_at_ms: i64,
    /// True if it is paused.
    pub paused: bool,
}

impl Holding {
    /// The attempt.
    pub fn attempt(&self) -> AttemptId {
        AttemptId { task: self.task.clone(), epoch: self.epoch }
    }
}

crate::cause::words! {
    /// State of an attempt at its worker.
    HoldingState {
        /// The attempt waits.
        Queued = 0 "queued",
        /// The attempt runs.
        Running = 1 "running",
        /// The attempt's result is in the outbox.
        Finished = 2 "finished",
    }
}

/// Durable records of one lane; the first has sequence `first_seq`, the rest follow without gaps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutboxBatch {
    /// The lane.
    pub lane: Lane,
    /// Sequence of the first record.
    pub first_seq: u64,
    /// The records.
    pub items: Vec<OutboxItem>,
    /// Sequence of each record, in lane [`Lane::State`] only, where newer updates replace older ones, so
    /// that sequences may skip.
    pub seqs: Vec<u64>,
    /// In that lane, the last sequence sent before on this connection, or its cursor.
    pub prev_seq: u64,
}

/// A record of an outbox.
#[derive(Debug, Clone, PartialEq)]
pub enum OutboxItem {
    /// Item of the lane of results.
    Outcome(Arc<TaskOutcome>),
    /// Item of the lane of checkpoints.
    Checkpoint(Arc<Checkpoint>),
    /// Item of the lane of states.
    State(Arc<StateUpdate>),
    /// Only a sequence: the coordinator has the record already, or cannot read it.
    Nothing,
}

/// A note on an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// The attempt.
    pub attempt: AttemptId,
    /// Kind of note.
    pub kind: HappenedKind,
    /// Text, for people.
    pub note: String,
    /// Unix time in milliseconds.
    pub at_ms: i64,
}

crate::cause::words! {
    /// Kind of a note on an attempt.
    HappenedKind {
        /// A text.
        Note = 0 "note",
        /// The attempt was paused.
        Paused = 1 "paused",
        /// The attempt was resumed.
        Resumed = 2 "resumed",
    }
}

/// A change of a setting of the worker's side of the link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adapted {
    /// Name of the setting: heartbeat, batch, compression, checkpoints, telemetry.
    pub setting: String,
    /// Former value.
    pub from: String,
    /// New value.
    pub to: String,
    /// Reason for people.
    pub why: String,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// True if the setting is back at its configured value.
    pub configured: bool,
    /// True if the change comes and goes with the work.
    pub minor: bool,
}
