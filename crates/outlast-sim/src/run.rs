//! The run of a seed: events in order, until nothing is left to do or something is wrong.

use crate::Bug;
use crate::event::Event;
use crate::v1::peer::V1Event;
use crate::world::World;
use outlast_core::Machine;
use outlast_core::coord::Coordinator;
use outlast_core::worker::Worker;
use outlast_model::LinkCause;
use outlast_model::message::ToWorker;
use rand::Rng;
use std::collections::BTreeMap;

/// Duration of convergence at most, in virtual milliseconds.
const CONVERGENCE: u64 = 3_600_000;
/// Events of one run; more is a livelock.
const EVENTS: u64 = 2_000_000;

/// The outcome of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// Number of times that each fault struck.
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
    Outcome {
        hash: world.hash(),
        wrong: world.oracle.wrong,
        faults: world.faults,
        tasks: world.specs.len() as u64,
        events: world.events.count,
        virtual_ms: world.now,
    }
}

impl World {
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
        while let Some((time, event)) = self.events.pop() {
            self.now = time;
            if self.bug == Some(Bug::ClockRuns) {
                self.coord.ahead = time * 19;
            }
            self.handle(event);
            self.note_links();
            self.check_machines();
            self.check_calm();
            if self.oracle.wrong.is_some() {
                break;
            }
            if self.healed && self.quiet() {
                break;
            }
            if self.events.count > EVENTS {
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

    /// A stopped process receives everything later, in order.
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

    /// The process that an event concerns: a worker, or (as the number after the last) the coordinator.
    fn target(&self, event: &Event) -> Option<usize> {
        match event {
            Event::CoordTick(_)
            | Event::CoordDisk(_)
            | Event::CoordReads(..)
            | Event::CoordLoaded(..)
            | Event::Former(..) => Some(self.workers.len()),
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

    fn occurs(&mut self, event: Event) {
        match event {
            Event::CoordTick(life) if life == self.coord.life && self.coord.armed <= self.now => {
                self.coord.armed = u64::MAX;
                self.feed_coord(Coordinator::on_tick);
            }
            Event::CoordDisk(life) if life == self.coord.life => self.on_coord_disk(),
            Event::CoordReads(life, load, queries) if life == self.coord.life => {
                self.coord_reads(load, &queries);
            }
            Event::CoordLoaded(life, load, facts) if life == self.coord.life => {
                self.feed_coord(|core, now| core.on_loaded(now, load, facts));
            }
            Event::StartCoord if self.coord.machine.is_none() => self.start_coord(),
            Event::WorkerTick(i, life) | Event::WorkerDisk(i, life) | Event::Probed(i, life)
                if life != self.workers[i].peer.life => {}
            Event::WorkerTick(i, _) if self.workers[i].peer.armed <= self.now => {
                self.workers[i].peer.armed = u64::MAX;
                self.feed_worker(i, Worker::on_tick);
            }
            Event::WorkerDisk(i, _) => self.on_worker_disk(i),
            Event::Probed(i, _) => self.on_probed(i),
            Event::Dialled(i, life, link) if life == self.workers[i].peer.life => {
                self.on_dialled(i, link);
            }
            Event::StartWorker(i) => {
                if self.workers[i].exited {
                    self.crash_worker(i, false);
                }
                if self.workers[i].peer.machine.is_none() {
                    self.start_worker(i);
                }
            }
            Event::TaskEnds(i, life, id, kind) if life == self.workers[i].keeper_life => {
                self.on_task_end(i, id, kind);
            }
            Event::TaskReports(i, life, id) if life == self.workers[i].keeper_life => {
                self.on_task_reports(i, id);
            }
            Event::Uploaded(i, life, upload, manifest) if life == self.workers[i].peer.life => {
                self.on_uploaded(i, upload, manifest);
            }
            Event::Arrives(..) | Event::Closed(..) => self.occurs_on_link(event),
            Event::V1(event) => self.on_v1_event(event),
            Event::Former(i, said) => self.former_wakes(i, *said),
            Event::Collect => {
                self.collect();
                let pause = self.rng.random_range(1_000..40_000);
                self.at(self.now + pause, Event::Collect);
            }
            Event::Strike | Event::Heal | Event::Copy | Event::KeepersDie => {
                self.occurs_as_fault(event);
            }
            Event::Client | Event::Settle => self.occurs_at_client(event),
            _ => {}
        }
    }

    fn occurs_on_link(&mut self, event: Event) {
        match event {
            Event::Arrives(link, true, kind) => self.arrives_up(link, *kind),
            Event::Arrives(link, false, kind) => {
                if let Some(i) = self.believer(link) {
                    match ToWorker::try_from(*kind) {
                        Ok(message) => {
                            self.feed_worker(i, |core, now| core.on_message(now, message));
                        }
                        Err(error) => self.oracle.fail(format!("the coordinator: {error}")),
                    }
                }
            }
            Event::Closed(link, true) => {
                // The core ignores links that it does not know.
                self.links.remove(&link);
                let cause = LinkCause::Closed;
                self.feed_coord(|core, now| core.on_close(now, link, cause, "the link ended"));
            }
            Event::Closed(link, false) => {
                if let Some(i) = self.believer(link) {
                    self.workers[i].link = None;
                    self.feed_worker(i, |core, now| core.on_disconnected(now, "the link ended"));
                }
            }
            _ => {}
        }
    }

    fn occurs_as_fault(&mut self, event: Event) {
        match event {
            Event::Strike if !self.healed => {
                self.restart_exited();
                self.strike();
            }
            Event::Heal => self.heal(),
            Event::Copy => self.copy(),
            Event::KeepersDie => self.keepers_die(),
            _ => {}
        }
    }

    fn occurs_at_client(&mut self, event: Event) {
        match event {
            Event::Settle => self.resume_everything(),
            Event::Client if self.now >= self.heal_at => {}
            Event::Client if self.is_paused(self.workers.len()) => {
                self.at(self.coord.paused_until, Event::Client);
            }
            Event::Client => {
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
}
