//! Adaptation compared with fixed settings: one worker, its coordinator, and a link of a certain
//! character between them, played twice from each seed. Both sides are the real machines.

use crate::lookup::fact;
use crate::queue::Queue;
use outlast_core::adapt::Pins;
use outlast_core::coord::{self, CoordConfig, Coordinator, LinkChange, Owner, Request, Submission};
use outlast_core::records::{Batch, CoordRecord, WorkerRecord};
use outlast_core::worker::{self, Worker, WorkerConfig};
use outlast_core::{Machine, Now, Step, TaskId};
use outlast_model::message::{ToCoordinator, ToWorker};
use outlast_model::{Lane, LinkCause, OutcomeKind, StatePatch, TaskOutcome};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_wire::frame::{Packing, encode_sized};
use outlast_wire::spec::Call;
use outlast_wire::v2::body::Kind;
use outlast_wire::{Bytes, Run, TaskSpec};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The character of the link, and of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A good link with work, cut for a minute every ten.
    Calm,
    /// A good link without work.
    Idle,
    /// Every two minutes or so nothing moves for 12 to 25 s, and then all of it.
    Stalls,
    /// Answers take from nothing to eight seconds.
    Uneven,
    /// Every ten minutes the link dies silently, and a new one works at once.
    Dying,
    /// 32 kB/s, and tasks that write much.
    Thin,
}

impl Scene {
    /// The list of all scenes.
    pub const ALL: [Scene; 6] =
        [Self::Calm, Self::Idle, Self::Stalls, Self::Uneven, Self::Dying, Self::Thin];

    /// A description for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Calm => "calm, at work, cut for 60 s every 10 min",
            Self::Idle => "calm, idle",
            Self::Stalls => "stalls of 12-25 s every 2 min",
            Self::Uneven => "answers within 0-8 s",
            Self::Dying => "dies silently every 10 min",
            Self::Thin => "32 kB/s, much output",
        }
    }
}

/// The figures of a run, or sums over runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Links closed for silence, by either side, that would have gone on.
    pub false_suspicions: u32,
    /// Deaths of the link, and the milliseconds until the coordinator noticed each.
    pub detections: (u32, u64),
    /// Bytes of messages, both ways.
    pub bytes: u64,
    /// The longest that the answer to a heartbeat took, in milliseconds.
    pub slowest_beat: u64,
    /// Tasks whose results arrived.
    pub results: u32,
    /// Settings that changed, except those that come and go with the work.
    pub changes: u32,
}

impl Figures {
    /// Adds another run.
    pub fn add(&mut self, other: Figures) {
        self.false_suspicions += other.false_suspicions;
        self.detections.0 += other.detections.0;
        self.detections.1 += other.detections.1;
        self.bytes += other.bytes;
        self.slowest_beat = self.slowest_beat.max(other.slowest_beat);
        self.results += other.results;
        self.changes += other.changes;
    }
}

/// Virtual milliseconds of a run.
pub const LONG: u64 = 2 * 3_600_000;

/// The output of tasks: text that people wrote, so that it is compressed as such is.
const TEXT: &str = concat!(include_str!("coordinator.rs"), include_str!("worker.rs"));
/// Bytes of it that one task writes.
const OUTPUT: usize = 12_000;

enum Event {
    CoordTick,
    WorkerTick,
    Up(u64, Kind),
    Down(u64, Kind),
    Dialled(u64),
    /// The other side learns that a link ended: (link, the coordinator learns it)
    Closed(u64, bool),
    Ends(TaskId, u64),
    Fault,
    State(TaskId, u64, u64),
}

/// One direction of the way between the two.
#[derive(Default)]
struct Way {
    /// Time at which all that was sent has left.
    free: u64,
    /// Time at which all that was sent has arrived.
    last: u64,
}

struct Stage {
    scene: Scene,
    now: u64,
    rng: SmallRng,
    events: Queue<Event>,
    coord: Coordinator,
    coord_store: SimCoordStore,
    worker: Worker,
    worker_store: SimWorkerStore,
    packing: Packing,
    link: Option<u64>,
    last_link: u64,
    /// Links that carry nothing any more, and since when.
    dead: BTreeMap<u64, u64>,
    open: BTreeMap<u64, bool>,
    refused_until: u64,
    /// The link that the coordinator took last.
    accepted: u64,
    stalled_until: u64,
    up: Way,
    down: Way,
    beats: BTreeMap<u64, u64>,
    /// Times at which the coordinator and the worker are to tick.
    armed: [u64; 2],
    figures: Figures,
}

/// Plays a scene once.
pub fn play(scene: Scene, seed: u64, adapts: bool) -> Figures {
    let pins = if adapts { Pins::NONE } else { Pins::ALL };
    let mut coord_store = SimCoordStore::new("coordinator");
    let mut worker_store = SimWorkerStore::new("store");
    let now = Now { mono: 0, wall: 1_700_000_000_000 };
    let config = CoordConfig { pins, seed, ..CoordConfig::default() };
    let coord = Coordinator::new(config, coord_store.snapshot(), now);
    let config = WorkerConfig { pins, slots: 16, name: "w".into(), ..WorkerConfig::default() };
    let worker = Worker::new(config, worker_store.open(), Vec::new(), seed, now);
    coord_store.sync();
    let mut stage = Stage {
        scene,
        now: 0,
        rng: SmallRng::seed_from_u64(seed),
        events: Queue::new(),
        coord,
        coord_store,
        worker,
        worker_store,
        packing: Packing::default(),
        link: None,
        last_link: 0,
        dead: BTreeMap::new(),
        open: BTreeMap::new(),
        refused_until: 0,
        accepted: 0,
        stalled_until: 0,
        up: Way::default(),
        down: Way::default(),
        beats: BTreeMap::new(),
        armed: [u64::MAX; 2],
        figures: Figures::default(),
    };
    stage.go();
    stage.figures
}

impl Stage {
    fn clock(&self) -> Now {
        Now { mono: self.now, wall: 1_700_000_000_000 + self.now as i64 }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events.push(time.max(self.now), event);
    }

    fn go(&mut self) {
        let tasks = match self.scene {
            Scene::Idle => 0,
            Scene::Thin => 3_000,
            _ => 1,
        };
        let call = Call { function: "work".into(), args: Value::Null };
        let spec = Arc::new(TaskSpec::new(Run::Call(call)));
        let submission = |n| {
            let id: TaskId = format!("t{n}").as_str().into();
            Submission { id, spec: spec.clone(), chosen: false }
        };
        let all = (0..tasks).map(submission).collect();
        let now = self.clock();
        self.coord.on_request(now, 1, Request::Submit(all, Owner::default()));
        if let Some(wait) = self.until_fault() {
            self.at(wait, Event::Fault);
        }
        self.pump();
        while let Some((time, event)) = self.events.pop() {
            if time > LONG {
                return;
            }
            self.now = time;
            self.occurs(event);
            self.pump();
        }
    }

    /// Milliseconds until the next fault of this scene.
    fn until_fault(&mut self) -> Option<u64> {
        match self.scene {
            Scene::Calm | Scene::Dying => Some(self.rng.random_range(540_000..660_000)),
            Scene::Stalls => Some(self.rng.random_range(60_000..180_000)),
            Scene::Idle | Scene::Uneven | Scene::Thin => None,
        }
    }

    fn fault(&mut self) {
        match self.scene {
            Scene::Stalls => self.stalled_until = self.now + self.rng.random_range(12_000..25_000),
            _ => {
                for link in self.open.keys() {
                    self.dead.entry(*link).or_insert(self.now);
                }
                if self.scene == Scene::Calm {
                    self.refused_until = self.now + 60_000;
                }
            }
        }
        if let Some(wait) = self.until_fault() {
            self.at(self.now + wait, Event::Fault);
        }
    }

    fn occurs(&mut self, event: Event) {
        let now = self.clock();
        match event {
            Event::CoordTick if self.armed[0] <= self.now => {
                self.armed[0] = u64::MAX;
                self.coord.on_tick(now);
            }
            Event::WorkerTick if self.armed[1] <= self.now => {
                self.armed[1] = u64::MAX;
                self.worker.on_tick(now);
            }
            Event::Fault => self.fault(),
            Event::Dialled(link) if self.link == Some(link) => {
                if self.refused_until > self.now {
                    self.link = None;
                    self.worker.on_disconnected(now, "refused");
                } else {
                    self.open.insert(link, false);
                    self.worker.on_connected(now);
                }
            }
            Event::Up(link, kind) if !self.dead.contains_key(&link) => {
                let Some(known) = self.open.get_mut(&link) else { return };
                if !std::mem::replace(known, true) {
                    self.coord.on_open(now, link);
                }
                if let Ok(message) = ToCoordinator::try_from(kind) {
                    self.coord.on_message(now, link, message);
                }
            }
            Event::Down(link, kind)
                if self.link == Some(link) && !self.dead.contains_key(&link) =>
            {
                if let Kind::HeartbeatReply(reply) = &kind
                    && let Some(sent) = self.beats.remove(&reply.seq)
                {
                    let took = self.now - sent;
                    self.figures.slowest_beat = self.figures.slowest_beat.max(took);
                }
                if let Ok(message) = ToWorker::try_from(kind) {
                    self.worker.on_message(now, message);
                }
            }
            Event::Closed(link, true) => {
                self.open.remove(&link);
                self.coord.on_close(now, link, LinkCause::Closed, "the link ended");
            }
            Event::Closed(link, false) if self.link == Some(link) => {
                self.link = None;
                self.worker.on_disconnected(now, "the link ended");
            }
            Event::Ends(task, epoch) => {
                let from = self.rng.random_range(0..TEXT.len() - OUTPUT);
                let text = TEXT.as_bytes()[from..from + OUTPUT].to_vec();
                let outcome = TaskOutcome {
                    task: task.clone(),
                    epoch,
                    kind: OutcomeKind::Succeeded,
                    started_at_ms: now.wall - 1_000,
                    finished_at_ms: now.wall,
                    stdout_tail: Bytes::from(text),
                    ..TaskOutcome::default()
                };
                self.worker.on_finished(now, outcome);
            }
            Event::State(task, epoch, n) => {
                let members = Map::from_iter([("step".to_owned(), Value::from(n))]);
                let patch = StatePatch { members, progress: Some(0.5) };
                self.worker.on_state(now, n, &task, epoch, patch);
                self.at(self.now + 20_000, Event::State(task, epoch, n + 1));
            }
            _ => {}
        }
    }

    /// Puts a message on its way.
    fn send(&mut self, link: u64, up: bool, kind: Kind) {
        let packing = if up { self.packing } else { Packing::default() };
        let size = encode_sized(kind.clone(), packing).0.len() as u64;
        self.figures.bytes += size;
        let latency = match self.scene {
            Scene::Uneven => self.rng.random_range(0..4_000),
            _ => self.rng.random_range(10..30),
        };
        let rate = if self.scene == Scene::Thin { 32_000 } else { 50_000_000 };
        let begins = self.now.max(self.stalled_until);
        let took = size * 1000 / rate;
        let way = if up { &mut self.up } else { &mut self.down };
        // In order: what is ahead goes first.
        let sent = way.free.max(begins) + took;
        way.free = sent;
        way.last = way.last.max(sent + latency);
        let arrives = way.last;
        let event = if up { Event::Up(link, kind) } else { Event::Down(link, kind) };
        self.at(arrives, event);
    }

    fn suspected(&mut self, link: u64) {
        if !self.dead.contains_key(&link) {
            self.figures.false_suspicions += 1;
        }
    }

    fn close(&mut self, link: u64, by_coord: bool) {
        if !self.dead.contains_key(&link) {
            let at = self.now.max(self.stalled_until) + 20;
            self.at(at, Event::Closed(link, !by_coord));
        }
        if by_coord {
            self.open.remove(&link);
        }
    }

    /// Carries out all outputs of both machines; what they persist is durable at once.
    fn pump(&mut self) {
        loop {
            if let Some(step) = self.coord.poll() {
                match step {
                    Step::Persist(batch) => self.coord_persists(batch),
                    Step::Perform(output) => self.coord_wants(output),
                }
            } else if let Some(step) = self.worker.poll() {
                match step {
                    Step::Persist(batch) => self.worker_persists(batch),
                    Step::Perform(output) => self.worker_wants(output),
                }
            } else {
                break;
            }
        }
        let wakes = [self.coord.next_wake().at, self.worker.next_wake().at];
        for (n, wake) in wakes.into_iter().enumerate() {
            let at = wake.max(self.now + 1);
            if at < self.armed[n] {
                self.armed[n] = at;
                self.at(at, if n == 0 { Event::CoordTick } else { Event::WorkerTick });
            }
        }
    }

    fn coord_persists(&mut self, batch: Batch<CoordRecord>) {
        let number = batch.number;
        self.coord_store.write(&[batch]).expect("decided by the machine itself");
        self.coord_store.sync();
        self.coord.on_persisted(number);
    }

    fn worker_persists(&mut self, batch: Batch<WorkerRecord>) {
        let number = batch.number;
        self.worker_store.write(&[batch]).expect("decided by the machine itself");
        self.worker_store.sync();
        let now = self.clock();
        self.worker.on_persisted(now, number);
    }

    fn coord_wants(&mut self, output: coord::Output) {
        match output {
            coord::Output::Send(link, message) => {
                for kind in outlast_wire::frames(message) {
                    self.send(link, false, kind);
                }
            }
            coord::Output::Close(link, _) => self.close(link, true),
            coord::Output::Load(load, queries) => {
                let facts = queries.iter().map(|q| fact(&self.coord_store, q, |_| false)).collect();
                self.coord.on_loaded(self.clock(), load, facts);
            }
            coord::Output::News(news) => match news.what {
                LinkChange::Connected(link, _) => self.accepted = link,
                LinkChange::Lost(cause, ..) => {
                    // Not the newest that is open: the worker may have dialled already.
                    let link = self.accepted;
                    if let Some(since) = self.dead.get(&link) {
                        self.figures.detections.0 += 1;
                        self.figures.detections.1 += self.now - since;
                    } else if cause == LinkCause::Silent {
                        self.suspected(link);
                    }
                    self.open.retain(|l, _| *l != link);
                }
                LinkChange::Adapted(c) if !c.minor => self.figures.changes += 1,
                _ => {}
            },
            _ => {}
        }
    }

    fn worker_wants(&mut self, output: worker::Output) {
        match output {
            worker::Output::Probe => {}
            worker::Output::Dial => {
                self.last_link += 1;
                self.link = Some(self.last_link);
                // What was on its way over the former link is not in the way of this one.
                (self.up, self.down) = (Way::default(), Way::default());
                let at = self.now.max(self.stalled_until) + 20;
                self.at(at, Event::Dialled(self.last_link));
            }
            worker::Output::Send(message) => {
                if let ToCoordinator::Heartbeat(beat) = &message {
                    self.beats.insert(beat.seq, self.now);
                }
                if let ToCoordinator::Outbox(batch) = &message
                    && batch.lane == Lane::Results
                {
                    self.figures.results += batch.items.len() as u32;
                }
                if let Some(link) = self.link {
                    self.send(link, true, message.into());
                }
            }
            worker::Output::Close(reason) => {
                if let Some(link) = self.link.take() {
                    if reason.contains("silent") {
                        self.suspected(link);
                    }
                    self.beats.clear();
                    self.close(link, false);
                }
            }
            worker::Output::Run(task, epoch, _) => {
                if self.scene == Scene::Thin {
                    self.at(self.now + 1_000, Event::Ends(task, epoch));
                } else {
                    self.at(self.now + 1_000, Event::State(task, epoch, 1));
                }
            }
            worker::Output::Packing(packing) => self.packing = packing,
            worker::Output::Adapted(c) if !c.minor => self.figures.changes += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(scene: Scene) -> (Figures, Figures) {
        let mut sums = [Figures::default(); 2];
        for seed in 0..4 {
            sums[0].add(play(scene, seed, false));
            sums[1].add(play(scene, seed, true));
        }
        (sums[0], sums[1])
    }

    fn mean((count, sum): (u32, u64)) -> u64 {
        sum / u64::from(count.max(1))
    }

    #[test]
    fn a_calm_link_loses_no_time_and_an_idle_one_no_bytes() {
        let (fixed, adaptive) = both(Scene::Calm);
        assert_eq!((fixed.false_suspicions, adaptive.false_suspicions), (0, 0));
        assert!(adaptive.detections.0 > 30, "{adaptive:?}");
        assert!(mean(adaptive.detections) * 10 < mean(fixed.detections) * 9, "{adaptive:?}");
        let (fixed, adaptive) = both(Scene::Idle);
        assert!(adaptive.bytes * 10 < fixed.bytes * 6, "{fixed:?} {adaptive:?}");
    }

    #[test]
    fn slow_is_not_dead_and_dead_is_not_slow() {
        let (fixed, adaptive) = both(Scene::Stalls);
        assert!(fixed.false_suspicions > 100, "{fixed:?}");
        assert!(adaptive.false_suspicions * 5 < fixed.false_suspicions, "{adaptive:?}");
        let (fixed, adaptive) = both(Scene::Dying);
        assert_eq!(adaptive.false_suspicions, 0);
        assert!(mean(adaptive.detections) * 2 < mean(fixed.detections) * 3, "{adaptive:?}");
    }

    #[test]
    fn a_thin_link_carries_fewer_bytes_and_prompt_heartbeats() {
        let (fixed, adaptive) = both(Scene::Thin);
        assert!(adaptive.results >= fixed.results, "{fixed:?} {adaptive:?}");
        assert!(adaptive.bytes < fixed.bytes, "{fixed:?} {adaptive:?}");
        assert!(adaptive.slowest_beat * 2 < fixed.slowest_beat, "{fixed:?} {adaptive:?}");
        assert!(adaptive.changes < 100, "it flaps: {adaptive:?}");
    }
}
