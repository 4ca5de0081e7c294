//! The state of the processes: coordinator, workers and what their keepers run.

use outlast_core::coord::Coordinator;
use outlast_core::records::{Batch, CoordRecord, WorkerRecord};
use outlast_core::worker::Worker;
use outlast_core::{AttemptId, Now};
use outlast_model::message::{Hello, OutboxBatch};
use outlast_model::{OutcomeKind, TaskOutcome};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A process, a disk and a clock.
pub(crate) struct Peer<M, S, R> {
    pub machine: Option<M>,
    pub store: S,
    /// Grows with each start: what belongs to a former life is ignored.
    pub life: u32,
    pub queue: Vec<Batch<R>>,
    pub writing: Vec<Batch<R>>,
    pub paused_until: u64,
    pub disk_full_until: u64,
    pub disk_slow: bool,
    pub armed: u64,
    pub skew: i64,
    /// Milliseconds that the monotonic clock gained over true time.
    pub ahead: u64,
}

impl<M, S, R> Peer<M, S, R> {
    /// A process with this store that has not been started.
    pub fn new(store: S) -> Self {
        Peer {
            machine: None,
            store,
            life: 0,
            queue: Vec::new(),
            writing: Vec::new(),
            paused_until: 0,
            disk_full_until: 0,
            disk_slow: false,
            armed: u64::MAX,
            skew: 0,
            ahead: 0,
        }
    }

    /// The time by its own clocks.
    pub fn now(&self, true_now: u64) -> Now {
        Now { mono: true_now + self.ahead, wall: 1_700_000_000_000 + true_now as i64 + self.skew }
    }
}

/// The coordinator.
pub(crate) type Coord = Peer<Coordinator, SimCoordStore, CoordRecord>;

/// A worker: its process, its keeper and its folder.
pub(crate) struct WorkerPeer {
    pub peer: Peer<Worker, SimWorkerStore, WorkerRecord>,
    pub name: String,
    pub store_id: Arc<str>,
    pub slots: u32,
    pub gpu: bool,
    /// The link that the machine takes for its own.
    pub link: Option<u64>,
    /// Runs of its keeper, and those that ended and were not collected yet.
    pub running: BTreeMap<AttemptId, RunState>,
    /// Grows when the keeper ends with its worker.
    pub keeper_life: u32,
    pub blobs: BTreeSet<Vec<u8>>,
    /// The number of the upload that is going on.
    pub upload: u64,
    /// The driver has reported that its disk is full.
    pub says_full: bool,
    /// Time until which its devices fail.
    pub bad_until: u64,
    pub exited: bool,
    /// Kind of its end: a drain, after which nothing is left to deliver, or else a stop.
    pub drains: Option<bool>,
    /// The last messages of this life.
    pub said: Former,
    /// The worker of whose folder this one has a copy.
    pub copy_of: Option<usize>,
    /// The process is not started: it had to end for good, or is not there yet.
    pub out: bool,
}

impl WorkerPeer {
    /// A copy of this worker, the one of this number, that is not made yet.
    pub fn copy(&self, original: usize) -> WorkerPeer {
        WorkerPeer {
            slots: self.slots,
            gpu: self.gpu,
            copy_of: Some(original),
            out: true,
            ..WorkerPeer::new(self.peer.store.clone(), self.name.clone(), self.store_id.clone())
        }
    }

    /// A worker with this store that has not been started.
    pub fn new(store: SimWorkerStore, name: String, store_id: Arc<str>) -> WorkerPeer {
        WorkerPeer {
            peer: Peer::new(store),
            name,
            store_id,
            slots: 1,
            gpu: false,
            link: None,
            running: BTreeMap::new(),
            keeper_life: 0,
            blobs: BTreeSet::new(),
            upload: 0,
            bad_until: 0,
            says_full: false,
            exited: false,
            drains: None,
            said: Former::default(),
            copy_of: None,
            out: false,
        }
    }
}

/// The last messages of an incarnation, which it repeats when it wakes after its successor started.
#[derive(Default)]
pub(crate) struct Former {
    pub hello: Option<Box<Hello>>,
    pub outbox: Option<OutboxBatch>,
    /// The coordinator's life when its successor started.
    pub heard_by: u32,
}

/// A run, as a keeper knows it.
pub(crate) struct RunState {
    pub started_at: i64,
    pub paused: bool,
    pub stop: Option<OutcomeKind>,
    /// The end that it would have had while it was paused.
    pub due: Option<OutcomeKind>,
    pub ended: Option<TaskOutcome>,
    /// The text that it writes when it fails by itself.
    pub says: &'static str,
    pub n: u64,
}
