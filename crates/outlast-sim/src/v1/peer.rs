//! The state of the workers of the v1 dialect, and of their links.

use outlast_core::TaskId;
use outlast_wire::v1::ToWorker;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Time between a worker's heartbeats, and until silence makes it dial again, in virtual milliseconds.
pub(super) const BEAT: (u64, u64) = (5_000, 15_000);
/// Time after which links have come to rest when everything works again, in virtual milliseconds.
pub(super) const REST: u64 = 45_000;
/// A span after that, in virtual milliseconds, and the number of dials within it at most.
pub(super) const DIALS: (u64, usize) = (45_000, 6);

/// An event of such workers.
pub(crate) enum V1Event {
    /// (link, text)
    Up(u64, String),
    Down(u64, Box<ToWorker>),
    /// (link, the coordinator learns it)
    Closed(u64, bool),
    Pong(u64, u64),
    /// (worker, its life)
    Dial(usize, u32),
    /// (worker, link)
    Beat(usize, u64),
    /// The thread of a client that watches heartbeats: (worker, its life).
    Watch(usize, u32),
    /// The run with this number ends: (worker, its life, run)
    Ends(usize, u32, u64),
    /// A task reports: (worker, its life, run)
    Reports(usize, u32, u64),
    Start(usize),
    Strike,
}

/// A link of such a worker.
pub(crate) struct V1Link {
    pub(super) peer: usize,
    pub(super) life: u32,
    pub(super) open: bool,
    pub(super) mute_up: bool,
    pub(super) mute_down: bool,
    pub(super) last_up: u64,
    pub(super) last_down: u64,
}

/// A blob that arrived and has no answer yet: its link, task, name and content.
type Sent = (u64, String, String, Vec<u8>);

/// A run of a task.
pub(crate) struct Run {
    pub number: u64,
    pub epoch: u64,
    pub checkpoints: u64,
}

/// A worker of the v1 dialect.
pub(crate) struct V1Peer {
    pub name: String,
    pub store: Arc<str>,
    /// Gives `attempt` back with results.
    pub echoes: bool,
    /// Two threads: one dials again whenever a connection ends, the other opens a second one beside
    /// the first after a silence.
    pub twofold: bool,
    /// The worker answers assignments with the status that they run.
    pub accepts: bool,
    pub alive: bool,
    pub life: u32,
    /// The newest link.
    pub link: Option<u64>,
    /// Former links that are still there.
    pub others: Vec<u64>,
    /// Times at which it dialled, since everything works.
    pub dialled: Vec<u64>,
    /// The blobs that arrived, in order. Their answers come in that order.
    pub(super) data: VecDeque<Sent>,
    pub heard: u64,
    pub refused_until: u64,
    pub active: BTreeMap<TaskId, Run>,
    /// Results that were not acknowledged.
    pub results: BTreeMap<TaskId, Value>,
    /// The checkpoints of each task that it still has, oldest first: name, run and attempt. Each run
    /// begins with the same names.
    pub saved: BTreeMap<TaskId, Vec<(String, u64, u64)>>,
    /// The newest data of each task that was not acknowledged.
    pub unkept: BTreeMap<TaskId, Value>,
    /// Runs that were cancelled, and whose threads go on.
    pub zombies: BTreeMap<u64, (TaskId, u64)>,
}

impl V1Peer {
    /// The oldest of this task's that arrived has an answer now, which is no acknowledgement.
    pub(super) fn refused(&mut self, task: &str) {
        if let Some(at) = self.data.iter().position(|(_, of, ..)| of == task) {
            self.data.remove(at);
        }
    }
    /// The data of this name is acknowledged; returns whether one that arrived is kept. Data that was lost with
    /// a link never has an answer.
    pub(super) fn acknowledged(
        &mut self,
        task: &str,
        name: &str,
        kept: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let mine = |sent: &Sent| sent.1 == task && sent.2 == name;
        if let Some(at) = self.data.iter().position(|sent| mine(sent) && kept(&sent.3)) {
            self.data.remove(at);
            return true;
        }
        !self.data.iter().any(mine)
    }
    pub(super) fn has(&self, link: u64) -> bool {
        self.link == Some(link) || self.others.contains(&link)
    }
}

/// All workers of this dialect, with randomness of their own: other choices stay as they are without them.
pub(crate) struct V1World {
    pub rng: SmallRng,
    pub peers: Vec<V1Peer>,
    pub links: BTreeMap<u64, V1Link>,
    pub numbers: u64,
    /// The first blob of each name, for a planted bug.
    pub(super) named: BTreeMap<String, Vec<u8>>,
    /// The worker of each link, also of former ones.
    pub(super) owners: BTreeMap<u64, usize>,
}

impl V1World {
    /// The workers of this seed.
    pub fn new(seed: u64) -> V1World {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5EED_0001);
        let count = if seed.is_multiple_of(2) { rng.random_range(1..=2) } else { 0 };
        let peer = |n: usize, rng: &mut SmallRng| V1Peer {
            name: format!("v{n}"),
            store: format!("v1:v{n}").into(),
            echoes: rng.random_bool(0.3),
            twofold: rng.random_bool(0.4),
            accepts: rng.random_bool(0.2),
            alive: true,
            life: 0,
            link: None,
            others: Vec::new(),
            dialled: Vec::new(),
            data: VecDeque::new(),
            heard: 0,
            refused_until: 0,
            active: BTreeMap::new(),
            results: BTreeMap::new(),
            saved: BTreeMap::new(),
            unkept: BTreeMap::new(),
            zombies: BTreeMap::new(),
        };
        let peers = (0..count).map(|n| peer(n, &mut rng)).collect();
        let (links, named, owners) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        V1World { rng, peers, links, numbers: 0, named, owners }
    }
    /// Returns the time for which a run goes on at least after everything works again, so that links can
    /// be watched.
    pub fn watched(&self) -> u64 {
        if self.peers.iter().any(|p| p.twofold) { REST + DIALS.0 } else { 0 }
    }
    /// Returns whether none of them has anything to do.
    pub fn idle(&self) -> bool {
        self.peers.iter().all(|p| p.active.is_empty() && p.results.is_empty())
    }
}
