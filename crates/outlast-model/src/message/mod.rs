//! The messages of a link between a worker and its coordinator, as both cores see them.

mod to_coordinator;
mod to_worker;

pub use to_coordinator::{
    Adapted, Happened, HappenedKind, Hello, Holding, HoldingState, Inventory, LinkReport,
    OutboxBatch, OutboxItem, ToCoordinator,
};
pub use to_worker::{Assignment, ControlKind, Refused, RefusedCode, StopReason, ToWorker, Welcome};

use crate::{Lane, Unfitness};

/// The last record of a lane that was applied, or that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The lane.
    pub lane: Lane,
    /// The sequence of that record.
    pub seq: u64,
}

/// A sign of life. All but `seq` and `interval_ms` is set by workers only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heartbeat {
    /// Number of this heartbeat, which its answer repeats.
    pub seq: u64,
    /// Attempts that run.
    pub running: u32,
    /// Attempts that wait.
    pub queued: u32,
    /// Outbox records that are not acknowledged.
    pub unacked: u64,
    /// Newest measured round trip, in milliseconds.
    pub rtt_ms: u32,
    /// True if it accepts no new work.
    pub draining: bool,
    /// Bytes of blobs.
    pub disk_used: u64,
    /// Limit of these bytes; 0: none.
    pub disk_budget: u64,
    /// Checkpoints that found no room, here or at the coordinator, since its start.
    pub refused: u64,
    /// Checkpoints that tasks read back, since its start.
    pub restored: u64,
    /// Time between heartbeats of this side, in milliseconds.
    pub interval_ms: u32,
    /// Faults that keep it from working; empty: it can work.
    pub unfit: Vec<Unfitness>,
}

/// An operator's request for a worker's link or memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Send results and states again.
    SyncState,
    /// Send these results again.
    ResendTaskResults(Vec<String>),
    /// Stop these tasks.
    CancelTasks(Vec<String>),
    /// Reset the link's statistics.
    ResetConnectionStats,
}
