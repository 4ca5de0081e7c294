//! The world: clock, events, network. One seed, one history.

use crate::Bug;
use crate::copies;
use crate::oracle::Oracle;
use crate::peers::{Coord, Former, Peer, WorkerPeer};
use crate::v1::{V1Event, V1World};
use outlast_core::coord::Coordinator;
use outlast_core::{AttemptId, TaskId};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_wire::TaskSpec;
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{LinkCause, OutcomeKind};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// How long things go wrong, in virtual milliseconds.
const FAULTS: u64 = 300_000;
/// How long convergence may take after that.
const CONVERGENCE: u64 = 3_600_000;
/// Events of one run; more is a livelock.
const EVENTS: u64 = 2_000_000;

pub(crate) enum Event {
    CoordTick(u32),
    CoordDisk(u32),
    WorkerTick(usize, u32),
    WorkerDisk(usize, u32),
    TaskEnds(usize, u32, AttemptId, OutcomeKind),
    /// (link, to the coordinator, message)
    Arrives(u64, bool, Box<Kind>),
    /// The other side learns that the link ended: (link, the coordinator learns it)
    Closed(u64, bool),
    Dialled(usize, u32, u64),
    Probed(usize, u32),
    StartCoord,
    StartWorker(usize),
    Strike,
    Heal,
    Client,
    /// Somebody goes on who was stopped.
    Resume,
    /// (worker, its keeper's life, which)
    TaskTells(usize, u32, AttemptId),
    /// (worker, its life, which upload, the blob)
    Uploaded(usize, u32, u64, Vec<u8>),
    Collect,
    /// A worker's state folder is copied.
    Copy,
    /// The user lets go on whatever was paused.
    Settle,
    /// A former incarnation of this worker wakes and dials too.
    Former(usize, Box<Former>),
    /// The keepers of all workers are killed.
    KeepersDie,
    /// Of workers of the v1 dialect.
    V1(V1Event),
}

pub(crate) struct Link {
    pub worker: usize,
    life: u32,
    /// The coordinator knows it.
    open: bool,
    pub mute_up: bool,
    pub mute_down: bool,
    last_up: u64,
    last_down: u64,
}

struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

pub(crate) struct World {
    pub now: u64,
    pub rng: SmallRng,
    pub bug: Option<Bug>,
    heap: BinaryHeap<Due>,
    events: u64,
    pub coord: Coord,
    pub workers: Vec<WorkerPeer>,
    pub links: BTreeMap<u64, Link>,
    pub last_link: u64,
    pub v1: V1World,
    /// Links of former incarnations whose successors the coordinator knew.
    pub outdated: BTreeSet<u64>,
    pub refused_until: Vec<u64>,
    pub latency: u64,
    stalled: Vec<Vec<Event>>,
    pub oracle: Oracle,
    pub specs: BTreeMap<TaskId, Arc<TaskSpec>>,
    pub asked: BTreeSet<u64>,
    pub blobs: crate::runs::Blobs,
    pub events_told: u64,
    /// Workers let in per second, and at once.
    pub admit: (u32, u32),
    pub requests: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub heal_at: u64,
    /// Of the choices at healing: no draw, so that others stay.
    pub heal_seed: u64,
    pub healed: bool,
    trace: bool,
    hash: DefaultHasher,
}

/// What became of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// Tasks submitted.
    pub tasks: u64,
    /// Events simulated.
    pub events: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Equal for equal histories.
    pub hash: u64,
}

/// Runs one seed, with a trace on standard output if wanted.
pub fn run(seed: u64, bug: Option<Bug>, trace: bool) -> Outcome {
    let mut world = World::new(seed, bug, trace);
    world.go();
    let hash = world.hash.finish();
    Outcome {
        wrong: world.oracle.wrong,
        faults: world.faults,
        tasks: world.specs.len() as u64,
        events: world.events,
        virtual_ms: world.now,
        hash,
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, trace: bool) -> World {
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
        if let Some(of) = copies::original(seed, count) {
            let copy = copies::slot(&workers[of], of);
            workers.push(copy);
        }
        World {
            now: 0,
            bug,
            heap: BinaryHeap::new(),
            events: 0,
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
            oracle: Oracle::default(),
            specs: BTreeMap::new(),
            asked: BTreeSet::new(),
            blobs: BTreeMap::new(),
            events_told: 0,
            requests: 0,
            faults: BTreeMap::new(),
            heal_at: FAULTS,
            heal_seed: seed,
            healed: false,
            trace,
            hash: DefaultHasher::new(),
        }
    }

    /// Tells the trace.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        let text = text();
        (self.now, &text).hash(&mut self.hash);
        if self.trace {
            println!("{:>10.3}  {text}", self.now as f64 / 1000.0);
        }
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.events += 1;
        self.heap.push(Due(time.max(self.now), self.events, event));
    }

    fn go(&mut self) {
        self.start_coord();
        (0..self.workers.len()).for_each(|i| self.start_worker(i));
        self.start_v1();
        self.at(1_000, Event::Strike);
        self.at(100, Event::Client);
        self.at(5_000, Event::Collect);
        self.plan_copy();
        self.plan_kills();
        self.at(self.heal_at, Event::Heal);
        while let Some(Due(time, _, event)) = self.heap.pop() {
            self.now = time;
            if self.bug == Some(Bug::ClockRuns) {
                self.coord.ahead = time * 19;
            }
            self.handle(event);
            self.note_links();
            if self.oracle.wrong.is_some() {
                break;
            }
            if self.healed && self.quiet() {
                break;
            }
            if self.events > EVENTS {
                self.oracle.wrong = Some(format!("a livelock: {EVENTS} events"));
            }
            if time > self.heal_at + CONVERGENCE {
                break;
            }
        }
        if self.oracle.wrong.is_none() {
            self.judge();
        }
        if let Some(wrong) = self.oracle.wrong.clone() {
            self.say(|| format!("WRONG {wrong}"));
        }
    }

    /// A stopped process gets everything later, in order.
    fn handle(&mut self, event: Event) {
        for target in 0..=self.workers.len() {
            if !self.is_paused(target) {
                for event in std::mem::take(&mut self.stalled[target]) {
                    self.occurs(event);
                }
            }
        }
        match self.target(&event).filter(|t| self.is_paused(*t)) {
            Some(target) => self.stalled[target].push(event),
            None => self.occurs(event),
        }
    }

    /// Who is concerned: a worker, or (as the number after the last) the coordinator.
    fn target(&self, event: &Event) -> Option<usize> {
        match event {
            Event::CoordTick(_) | Event::CoordDisk(_) | Event::Former(..) => {
                Some(self.workers.len())
            }
            Event::Arrives(_, true, _) | Event::Closed(_, true) => Some(self.workers.len()),
            Event::V1(V1Event::Up(..) | V1Event::Closed(_, true) | V1Event::Pong(..)) => {
                Some(self.workers.len())
            }
            Event::WorkerTick(i, _)
            | Event::WorkerDisk(i, _)
            | Event::Dialled(i, ..)
            | Event::Probed(i, _) => Some(*i),
            Event::Arrives(link, false, _) | Event::Closed(link, false) => {
                self.links.get(link).map(|l| l.worker)
            }
            _ => None,
        }
    }

    pub fn is_paused(&self, target: usize) -> bool {
        match self.workers.get(target) {
            Some(worker) => worker.peer.paused_until > self.now,
            None => self.coord.paused_until > self.now,
        }
    }

    fn occurs(&mut self, event: Event) {
        match event {
            Event::CoordTick(life) if life == self.coord.life && self.coord.armed <= self.now => {
                self.coord.armed = u64::MAX;
                self.feed_coord(Coordinator::on_tick);
            }
            Event::CoordDisk(life) if life == self.coord.life => self.on_coord_disk(),
            Event::WorkerTick(i, life)
                if life == self.workers[i].peer.life && self.workers[i].peer.armed <= self.now =>
            {
                self.workers[i].peer.armed = u64::MAX;
                self.feed_worker(i, outlast_core::worker::Worker::on_tick);
            }
            Event::WorkerDisk(i, life) if life == self.workers[i].peer.life => {
                self.on_worker_disk(i);
            }
            Event::TaskEnds(i, life, id, kind) if life == self.workers[i].keeper_life => {
                self.on_task_end(i, id, kind);
            }
            Event::TaskTells(i, life, id) if life == self.workers[i].keeper_life => {
                self.on_task_tells(i, id);
            }
            Event::Uploaded(i, life, upload, manifest) if life == self.workers[i].peer.life => {
                self.on_uploaded(i, upload, manifest);
            }
            Event::V1(event) => self.on_v1_event(event),
            Event::Settle => self.let_everything_go_on(),
            Event::Copy => self.copy(),
            Event::KeepersDie => self.keepers_die(),
            Event::Former(i, said) => self.former_wakes(i, *said),
            Event::Collect => {
                self.collect();
                let pause = self.rng.random_range(1_000..40_000);
                self.at(self.now + pause, Event::Collect);
            }
            Event::Arrives(link, true, kind) => self.arrives_up(link, *kind),
            Event::Arrives(link, false, kind) => {
                if let Some(i) = self.believer(link) {
                    self.feed_worker(i, |core, now| core.on_message(now, *kind));
                }
            }
            Event::Closed(link, true) => {
                // The core ignores links that it does not know.
                self.links.remove(&link);
                let cause = LinkCause::LinkClosed;
                self.feed_coord(|core, now| core.on_close(now, link, cause, "the link ended"));
            }
            Event::Closed(link, false) => {
                if let Some(i) = self.believer(link) {
                    self.workers[i].link = None;
                    self.feed_worker(i, |core, now| core.on_disconnected(now, "the link ended"));
                }
            }
            Event::Probed(i, life) if life == self.workers[i].peer.life => self.on_probed(i),
            Event::Dialled(i, life, link) if life == self.workers[i].peer.life => {
                self.on_dialled(i, link);
            }
            Event::StartCoord if self.coord.machine.is_none() => self.start_coord(),
            Event::StartWorker(i) => {
                if self.workers[i].exited {
                    self.crash_worker(i, false);
                }
                if self.workers[i].peer.machine.is_none() {
                    self.start_worker(i);
                }
            }
            Event::Strike if !self.healed => {
                self.restart_exited();
                self.strike();
            }
            Event::Heal => self.heal(),
            Event::Client if self.now < self.heal_at && self.is_paused(self.workers.len()) => {
                self.at(self.coord.paused_until, Event::Client);
            }
            Event::Client if self.now < self.heal_at => {
                self.client_acts();
                let pause = self.rng.random_range(50..8_000);
                self.at(self.now + pause, Event::Client);
            }
            _ => {}
        }
    }

    /// Workers that ended cleanly are started again, as an operator would.
    fn restart_exited(&mut self) {
        for i in 0..self.workers.len() {
            if self.workers[i].exited {
                self.crash_worker(i, false);
                self.start_worker(i);
            }
        }
    }

    /// The worker that thinks of this link as its own.
    fn believer(&self, link: u64) -> Option<usize> {
        self.workers.iter().position(|w| w.link == Some(link))
    }

    pub fn dial(&mut self, i: usize) {
        self.last_link += 1;
        let (link, life) = (self.last_link, self.workers[i].peer.life);
        let after = self.rng.random_range(0..=self.latency * 2 + 1);
        self.workers[i].link = Some(link);
        self.at(self.now + after, Event::Dialled(i, life, link));
    }

    /// A worker tries whether the coordinator's address accepts connections.
    pub fn probe(&mut self, i: usize) {
        let life = self.workers[i].peer.life;
        let after = self.rng.random_range(0..=self.latency * 2 + 1);
        self.at(self.now + after, Event::Probed(i, life));
    }

    fn on_probed(&mut self, i: usize) {
        let reached = self.refused_until[i] <= self.now && self.coord.machine.is_some();
        self.feed_worker(i, |core, now| core.on_probed(now, reached));
    }

    fn on_dialled(&mut self, i: usize, link: u64) {
        if self.workers[i].link != Some(link) {
            return;
        }
        // A stopped coordinator's kernel still accepts.
        if self.refused_until[i] > self.now || self.coord.machine.is_none() {
            self.workers[i].link = None;
            return self.feed_worker(i, |core, now| core.on_unreachable(now, "refused"));
        }
        let life = self.coord.life;
        let link_ = Link {
            worker: i,
            life,
            open: false,
            mute_up: false,
            mute_down: false,
            last_up: self.now,
            last_down: self.now,
        };
        self.links.insert(link, link_);
        self.feed_worker(i, |core, now| core.on_connected(now));
    }

    fn arrives_up(&mut self, link: u64, kind: Kind) {
        let life = self.coord.life;
        let Some(state) = self.links.get_mut(&link).filter(|l| l.life == life) else { return };
        if !std::mem::replace(&mut state.open, true) {
            self.feed_coord(|core, now| core.on_open(now, link));
        }
        let kind = self.tamper(kind);
        self.tell_coord(link, kind);
    }

    /// Puts a message on the link: in order, late, or nowhere.
    pub fn send(&mut self, link: u64, up: bool, kind: Kind) {
        let late = self.rng.random_range(0..=self.latency);
        let now = self.now;
        let Some(l) = self.links.get_mut(&link) else { return };
        if if up { l.mute_up } else { l.mute_down } {
            return;
        }
        let last = if up { &mut l.last_up } else { &mut l.last_down };
        *last = (*last).max(now + late);
        let at = *last;
        // Through the real framing, now and then: it costs time.
        let kind = if self.rng.random_bool(0.1) {
            match outlast_wire::decode(outlast_wire::encode(kind)) {
                Ok(kind) => kind,
                Err(error) => {
                    self.oracle.wrong.get_or_insert(format!("framing: {error}"));
                    return;
                }
            }
        } else {
            kind
        };
        self.at(at, Event::Arrives(link, up, Box::new(kind)));
    }

    /// One side closes: the other learns it, unless what it is told is swallowed.
    pub fn close(&mut self, link: u64, by_coord: bool) {
        let Some(l) = self.links.get(&link) else { return };
        let muted = if by_coord { l.mute_down } else { l.mute_up };
        let at = if by_coord { l.last_down } else { l.last_up };
        if !muted {
            self.at(at, Event::Closed(link, !by_coord));
        }
        if by_coord && let Some(l) = self.links.get_mut(&link) {
            (l.open, l.life) = (false, 0);
        }
    }

    /// The link breaks between the two; without power neither is told.
    pub fn break_link(&mut self, link: u64, silent: bool) {
        let Some(l) = self.links.get_mut(&link) else { return };
        (l.mute_up, l.mute_down) = (true, true);
        if !silent {
            let after = self.latency;
            self.at(self.now + after, Event::Closed(link, false));
            self.at(self.now + after, Event::Closed(link, true));
        }
    }

    pub fn kick_worker_disk(&mut self, i: usize) {
        let life = self.workers[i].peer.life;
        self.at(self.now, Event::WorkerDisk(i, life));
        let life = self.coord.life;
        self.at(self.now, Event::CoordDisk(life));
    }

    /// The oracle knows when the coordinator last had a link to each worker.
    fn note_links(&mut self) {
        let Some(core) = &self.coord.machine else { return };
        if self.coord.paused_until > self.now {
            return;
        }
        for view in core.workers().iter().filter(|v| v.conn.is_some()) {
            self.oracle.seen.insert(view.row.store_id.clone(), self.now);
        }
    }

    fn quiet(&self) -> bool {
        let idle = |w: &WorkerPeer| {
            if w.out {
                return true;
            }
            // Its disk never works again: it holds nothing, and everybody knows what it owes.
            if w.peer.disk_full_until == u64::MAX {
                let held = w.peer.machine.as_ref().map(|m| (m.load().0, m.load().1, m.owes()));
                return held == Some((0, 0, 0));
            }
            let load = w.peer.machine.as_ref().map(outlast_core::worker::Worker::load);
            load == Some((0, 0, 0)) && w.peer.queue.is_empty() && w.peer.writing.is_empty()
        };
        let core = self.coord.machine.as_ref();
        self.now > self.heal_at + 60_000.max(self.v1.watched())
            && !self.copies_unsettled()
            && core.is_some_and(|c| c.load() == (0, 0))
            && self.coord.queue.is_empty()
            && self.coord.writing.is_empty()
            && self.workers.iter().all(idle)
            && self.v1.idle()
            && self.oracle.owing().is_none()
    }

    fn judge(&mut self) {
        if let Some(worker) = self.oracle.owing() {
            let text = format!("{worker} is connected, and nobody was told that it owes nothing");
            self.oracle.wrong.get_or_insert(text);
        }
        self.judge_copies();
        if !self.quiet() {
            let load = self.coord.machine.as_ref().map(Coordinator::load);
            let loads: Vec<_> = self
                .workers
                .iter()
                .map(|w| w.peer.machine.as_ref().map(outlast_core::worker::Worker::load))
                .collect();
            let fleet: Vec<_> = self.coord.machine.iter().flat_map(Coordinator::workers).collect();
            let fleet: Vec<_> = fleet
                .iter()
                .map(|w| {
                    format!("{} {:?} holds {} of {}", w.row.name, w.state, w.attempts, w.row.slots)
                })
                .collect();
            let left: Vec<_> = self
                .coord
                .store
                .snapshot()
                .tasks
                .iter()
                .map(|t| {
                    let why = self.coord.machine.as_ref().and_then(|core| core.explain(&t.id));
                    format!(
                        "{}.{} {:?} at {:?} ({why:?}) {:?}",
                        t.id,
                        t.epoch,
                        t.state,
                        t.worker,
                        self.coord.store.history(&t.id)
                    )
                })
                .collect();
            let text = format!(
                "I6: no convergence: coordinator {load:?}, workers {loads:?} {fleet:?}, left {left:?}"
            );
            self.oracle.wrong.get_or_insert(text);
        }
        self.oracle.converged(&self.coord.store, &self.blobs);
        let snapshot = self.coord.store.snapshot();
        if !snapshot.tasks.is_empty() && self.oracle.wrong.is_none() {
            let text = format!("I9: memory is empty, the store has {:?}", snapshot.tasks);
            self.oracle.wrong = Some(text);
        }
    }
}
