//! The events of the simulated world.

use crate::peer::Former;
use crate::v1::peer::V1Event;
use outlast_core::AttemptId;
use outlast_core::coord::{Fact, LoadId, Query};
use outlast_model::OutcomeKind;
use outlast_wire::v2::body::Kind;

/// An event. Numbers named "life" are of the process that it concerns: an event for a former
/// process is ignored.
pub(crate) enum Event {
    CoordTick(u32),
    CoordDisk(u32),
    /// The coordinator's driver reads the facts of a load: (life, load, queries)
    CoordReads(u32, LoadId, Vec<Query>),
    /// The core has the facts: (life, load, facts)
    CoordLoaded(u32, LoadId, Vec<Fact>),
    /// (worker, life)
    WorkerTick(usize, u32),
    /// (worker, life)
    WorkerDisk(usize, u32),
    /// (worker, life of its keeper, attempt, how it ends)
    TaskEnds(usize, u32, AttemptId, OutcomeKind),
    /// A running task writes a checkpoint or a state: (worker, life of its keeper, attempt)
    TaskReports(usize, u32, AttemptId),
    /// (link, to the coordinator, message)
    Arrives(u64, bool, Box<Kind>),
    /// The other side learns that the link ended: (link, the coordinator learns it)
    Closed(u64, bool),
    /// (worker, life, link)
    Dialled(usize, u32, u64),
    /// (worker, life)
    Probed(usize, u32),
    StartCoord,
    StartWorker(usize),
    /// The next fault.
    Strike,
    /// The end of all faults.
    Heal,
    /// The client's next request.
    Client,
    /// A stopped process continues.
    Resume,
    /// (worker, life, number of the upload, blob)
    Uploaded(usize, u32, u64, Vec<u8>),
    /// Blobs without a reference are collected.
    Collect,
    /// A worker's state folder is copied.
    Copy,
    /// The client resumes all that is paused or drained.
    Settle,
    /// A former incarnation of this worker wakes and dials too.
    Former(usize, Box<Former>),
    /// The keepers of all workers are killed.
    KeepersDie,
    /// An event of workers of the v1 dialect.
    V1(V1Event),
}
