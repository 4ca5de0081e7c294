//! The faults of network, processes, disks and clocks, and their end.

use crate::event::Event;
use crate::world::World;
use rand::Rng;

impl World {
    /// Makes something go wrong.
    pub fn strike(&mut self) {
        let i = self.rng.random_range(0..self.workers.len());
        let time = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(100..3_000),
            1 => self.rng.random_range(1_000..30_000),
            _ => self.rng.random_range(10_000..150_000),
        };
        let until = self.now + time;
        let links: Vec<u64> = self.links.keys().copied().collect();
        let link = (!links.is_empty()).then(|| links[self.rng.random_range(0..links.len())]);
        let fault = self.rng.random_range(0..18);
        let name = match fault {
            0..=6 => self.strike_network(fault, i, link, until),
            7..=12 => self.strike_process(fault, i, until),
            _ => self.strike_machine(fault, i, until),
        };
        self.say(|| format!("FAULT {name} (worker {i}, {time} ms)"));
        self.count(name, 1);
        if self.now < self.heal_at {
            let next = self.now + self.rng.random_range(200..20_000);
            self.at(next.min(self.heal_at), Event::Strike);
        }
    }

    fn strike_network(
        &mut self,
        fault: u32,
        i: usize,
        link: Option<u64>,
        until: u64,
    ) -> &'static str {
        match fault {
            0 | 1 => {
                if let Some(link) = link {
                    self.break_link(link, false);
                }
                "cut"
            }
            2 | 3 => {
                let (up, down) =
                    [(true, true), (true, false), (false, true)][self.rng.random_range(0..3)];
                if let Some(link) = link.and_then(|l| self.links.get_mut(&l)) {
                    (link.mute_up, link.mute_down) = (link.mute_up || up, link.mute_down || down);
                }
                "half-open"
            }
            4 | 5 => {
                self.refused_until[i] = until;
                if let Some(link) = self.workers[i].link {
                    self.break_link(link, false);
                }
                "partition"
            }
            _ => {
                self.latency = self.rng.random_range(1..3_000);
                "latency"
            }
        }
    }

    fn strike_process(&mut self, fault: u32, i: usize, until: u64) -> &'static str {
        match fault {
            7 | 8 => {
                let power = self.rng.random_bool(0.5);
                self.crash_coord(power);
                self.at(until.min(self.now + 60_000), Event::StartCoord);
                "coordinator crash"
            }
            9 | 10 => {
                let power = self.rng.random_bool(0.5);
                self.crash_worker(i, power);
                self.at(until, Event::StartWorker(i));
                "worker crash"
            }
            11 => {
                self.coord.paused_until = until;
                self.at(until, Event::Resume);
                "coordinator stopped"
            }
            _ => {
                self.workers[i].peer.paused_until = until;
                self.at(until, Event::Resume);
                "worker stopped"
            }
        }
    }

    fn strike_machine(&mut self, fault: u32, i: usize, until: u64) -> &'static str {
        match fault {
            13 => {
                // A write that waits for an earlier end of the fault is not tried before that.
                let full = match self.rng.random_bool(0.5) {
                    true => &mut self.coord.disk_full_until,
                    false => &mut self.workers[i].peer.disk_full_until,
                };
                *full = until.max(*full);
                "disk full"
            }
            14 => {
                self.coord.disk_slow = self.rng.random_bool(0.5);
                self.workers[i].peer.disk_slow = self.rng.random_bool(0.5);
                let jump = self.rng.random_range(-10_000_000..10_000_000);
                self.workers[i].peer.skew += jump;
                self.coord.skew -= jump;
                "slow disk, wall clock jump"
            }
            15 | 16 => {
                self.workers[i].bad_until = until;
                "bad hardware"
            }
            _ => {
                let hard = self.rng.random_bool(0.5);
                let worker = &mut self.workers[i];
                match hard {
                    true => worker.drains = Some(false),
                    false => _ = worker.drains.get_or_insert(true),
                }
                self.feed_worker(
                    i,
                    |core, now| if hard { core.stop(now) } else { core.drain(now) },
                );
                "worker drain or stop"
            }
        }
    }

    /// Ends all faults: everything works from now on. Links that swallow stay so: nobody resets them.
    pub fn heal(&mut self) {
        self.say(|| "HEAL".into());
        self.healed = true;
        self.latency = 20;
        (self.coord.paused_until, self.coord.disk_full_until) = (self.now, self.now);
        self.coord.disk_slow = false;
        self.refused_until.iter_mut().for_each(|t| *t = self.now);
        for w in &mut self.workers {
            (w.peer.paused_until, w.peer.disk_full_until) = (self.now, self.now);
            w.peer.disk_slow = false;
            w.bad_until = self.now;
        }
        // Now and then one disk is broken for good: the others do its work. Not that of the only
        // worker, nor of the first one, which some tasks require.
        let copied = self.workers.iter().any(|w| w.copy_of.is_some());
        if self.workers.len() > 2 && self.heal_seed.is_multiple_of(3) && !copied {
            let last = self.workers.len() - 1;
            self.workers[last].peer.disk_full_until = u64::MAX;
            let store = self.workers[last].store_id.clone();
            self.oracle.broken.insert(store);
            self.count("disk broken for good", 1);
        }
        if self.coord.machine.is_none() {
            self.start_coord();
        }
        for i in 0..self.workers.len() {
            if self.workers[i].exited {
                self.crash_worker(i, false);
            }
            if self.workers[i].peer.machine.is_none() {
                self.start_worker(i);
            }
        }
        for i in 0..self.workers.len() {
            self.kick_worker_disk(i);
        }
        self.v1_heal();
        let quiet = self.now + 30_000;
        self.at(quiet, Event::Settle);
    }
}
