//! The state of the simulated world: its clock, its processes and links, and the oracle. One seed is one
//! history.

use crate::Bug;
use crate::amiss::Amiss;
use crate::event::Event;
use crate::link::Link;
use crate::oracle::Oracle;
use crate::peer::{Coord, Peer, WorkerPeer};
use crate::queue::Queue;
use crate::v1::peer::V1World;
use outlast_core::TaskId;
use outlast_core::coord::{Fact, Query};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_wire::TaskSpec;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The coordinator's blobs, each with the time at which it was stored, or last queried. They outlive crashes.
pub(crate) type Blobs = BTreeMap<Vec<u8>, u64>;

/// Duration of the faults, in virtual milliseconds.
const FAULTS: u64 = 300_000;

/// The world. What happens in it is decided by the modules that know it.
pub(crate) struct World {
    pub now: u64,
    pub rng: SmallRng,
    /// The draws of how long loads take, so that other choices stay.
    pub loads: SmallRng,
    /// The first answers to queries, for a planted mistake.
    pub stale: BTreeMap<Query, Fact>,
    pub bug: Option<Bug>,
    pub events: Queue<Event>,
    pub coord: Coord,
    pub workers: Vec<WorkerPeer>,
    pub links: BTreeMap<u64, Link>,
    pub last_link: u64,
    pub v1: V1World,
    /// Links of former incarnations whose successors the coordinator knew.
    pub outdated: BTreeSet<u64>,
    /// By worker, the time until which it cannot reach the coordinator.
    pub refused_until: Vec<u64>,
    pub latency: u64,
    /// By process, the events that wait because it is stopped.
    pub stalled: Vec<Vec<Event>>,
    pub oracle: Oracle,
    pub amiss: Amiss,
    pub specs: BTreeMap<TaskId, Arc<TaskSpec>>,
    /// Requests of the client without an answer.
    pub unanswered: BTreeSet<u64>,
    pub blobs: Blobs,
    /// Checkpoints and states that tasks have reported.
    pub reports: u64,
    /// Workers accepted per second, and at once.
    pub admit: (u32, u32),
    pub requests: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub heal_at: u64,
    /// The seed for choices without a draw, so that others stay.
    pub heal_seed: u64,
    pub healed: bool,
    trace: bool,
    hash: DefaultHasher,
}

impl World {
    /// The world of a seed, in which nothing has been started.
    pub fn new(seed: u64, bug: Option<Bug>, trace: bool) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rng.random_range(1..=5);
        let worker = |i: usize, rng: &mut SmallRng| {
            let store_id: Arc<str> = format!("store-{i}").into();
            let store = SimWorkerStore::new(store_id.clone());
            WorkerPeer {
                // So that every task fits somewhere.
                slots: if i == 0 { 2 } else { rng.random_range(1..4) },
                gpu: i == 0,
                ..WorkerPeer::new(store, format!("w{i}"), store_id)
            }
        };
        let mut workers: Vec<WorkerPeer> = (0..count).map(|i| worker(i, &mut rng)).collect();
        // In some seeds one is copied. No draw, so that other choices stay.
        if seed.is_multiple_of(4) {
            let original = (seed / 4) as usize % count;
            let copy = workers[original].copy(original);
            workers.push(copy);
        }
        World {
            now: 0,
            bug,
            events: Queue::new(),
            coord: Peer::new(SimCoordStore::new("coordinator")),
            refused_until: vec![0; workers.len()],
            stalled: (0..=workers.len()).map(|_| Vec::new()).collect(),
            workers,
            links: BTreeMap::new(),
            last_link: 0,
            v1: V1World::new(seed),
            outdated: BTreeSet::new(),
            latency: rng.random_range(0..50),
            admit: [(1000, 500), (1, 1), (0, 0)][rng.random_range(0..3)],
            rng,
            loads: SmallRng::seed_from_u64(seed ^ 0x10ad),
            stale: BTreeMap::new(),
            oracle: Oracle::default(),
            amiss: Amiss::default(),
            specs: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            blobs: BTreeMap::new(),
            reports: 0,
            requests: 0,
            faults: BTreeMap::new(),
            heal_at: FAULTS,
            heal_seed: seed,
            healed: false,
            trace,
            hash: DefaultHasher::new(),
        }
    }

    /// Adds a line to the history, and to the trace.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        let text = text();
        (self.now, &text).hash(&mut self.hash);
        if self.trace {
            println!("{:>10.3}  {text}", self.now as f64 / 1000.0);
        }
    }

    /// Plans an event.
    pub fn at(&mut self, time: u64, event: Event) {
        self.events.push(time.max(self.now), event);
    }

    /// Counts faults of this name.
    pub fn count(&mut self, fault: &'static str, times: u64) {
        *self.faults.entry(fault).or_default() += times;
    }

    /// Returns whether a process is stopped: a worker's, or (as the number after the last) the coordinator's.
    pub fn is_paused(&self, target: usize) -> bool {
        match self.workers.get(target) {
            Some(worker) => worker.peer.paused_until > self.now,
            None => self.coord.paused_until > self.now,
        }
    }

    /// A number that is equal for equal histories.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
