//! The coordinator's driver in virtual time: its starts and crashes, its disk, and what its core puts out.

use crate::Bug;
use crate::event::Event;
use crate::peer::Former;
use crate::world::World;
use outlast_core::coord::{CoordConfig, Coordinator, Output};
use outlast_core::records::{Batch, CoordRecord};
use outlast_core::{AttemptId, Machine, Now, Step};
use outlast_model::message::{ToCoordinator, ToWorker};

use rand::Rng;

impl World {
    /// The coordinator's process starts.
    pub fn start_coord(&mut self) {
        let mut snapshot = self.coord.store.snapshot();
        self.plant_in_snapshot(&mut snapshot);
        let peer = &mut self.coord;
        peer.life += 1;
        peer.armed = u64::MAX;
        let (admit_per_second, admit_burst) = self.admit;
        // No draw, so that other choices stay.
        let seed = self.now ^ u64::from(peer.life);
        let mut config =
            CoordConfig { admit_per_second, admit_burst, seed, ..CoordConfig::default() };
        if self.bug == Some(Bug::NeverTimesOut) {
            config.heartbeat_timeout = u64::MAX / 4;
        }
        let now = peer.now(self.now);
        peer.machine = Some(Coordinator::new(config, snapshot, now));
        self.oracle.links.clear();
        let stores = self.workers.iter().map(|w| &w.store_id);
        for store in stores.chain(self.v1.peers.iter().map(|p| &p.store)) {
            self.oracle.seen.insert(store.clone(), self.now);
        }
        self.say(|| "coordinator starts".into());
        self.pump_coord();
    }

    /// The coordinator's process dies; without power its links end silently.
    pub fn crash_coord(&mut self, power: bool) {
        if self.coord.machine.take().is_none() {
            return;
        }
        self.say(|| "coordinator crashes".into());
        self.oracle.delays.coord_crashed();
        let peer = &mut self.coord;
        peer.queue.clear();
        let written = std::mem::take(&mut peer.writing);
        let kept = self.rng.random_range(0..=peer.store.unsynced());
        peer.store.crash_keeping(kept);
        // What was on its way to the disk may have arrived.
        if self.bug != Some(Bug::LyingDisk) {
            self.oracle.coord_synced(&written[..kept]);
        }
        self.unanswered.clear();
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.break_link(link, power);
        }
        self.v1_orphaned();
    }

    /// Passes an input to the coordinator and carries out its outputs.
    pub fn feed_coord(&mut self, input: impl FnOnce(&mut Coordinator, Now)) {
        let now = self.coord.now(self.now);
        let Some(core) = &mut self.coord.machine else { return };
        input(core, now);
        self.pump_coord();
    }

    /// Passes a message to the coordinator.
    pub fn message_coord(&mut self, link: u64, message: ToCoordinator) {
        self.feed_coord(|core, now| core.on_message(now, link, message));
    }

    /// Carries out the outputs of the coordinator, and plans its next wake-up.
    pub fn pump_coord(&mut self) {
        loop {
            let Some(core) = &mut self.coord.machine else { return };
            match core.poll() {
                Some(Step::Persist(batch)) => self.coord_persists(batch),
                Some(Step::Perform(output)) => self.coord_does(output),
                None => break,
            }
        }
        let Some(core) = &self.coord.machine else { return };
        let at = core.next_wake().at.saturating_sub(self.coord.ahead).max(self.now + 1);
        if at < self.coord.armed {
            self.coord.armed = at;
            let life = self.coord.life;
            self.at(at, Event::CoordTick(life));
        }
    }

    fn coord_does(&mut self, output: Output) {
        match output {
            Output::Send(conn, message) => self.coord_sends(conn, message),
            Output::SendV1(conn, message) => self.v1_sends(conn, message),
            Output::Timeout(..) => {}
            Output::Ping(conn, seq) => self.v1_pings(conn, seq),
            Output::Close(conn, why) if self.v1_closes(conn) => {
                self.say(|| format!("link {conn} is closed: {why}"));
            }
            Output::Close(conn, _) => self.close(conn, true),
            Output::Load(load, queries) => self.coord_loads(load, queries),
            Output::Reply(request, response) => self.on_reply(request, response),
            Output::News(news) => self.oracle.news(news),
            Output::Warn(what) => self.say(|| what),
        }
    }

    fn coord_persists(&mut self, mut batch: Batch<CoordRecord>) {
        let number = batch.number;
        self.oracle.decided(self.now, self.coord.skew, &batch.records);
        for record in &batch.records {
            if let CoordRecord::Checkpoint { checkpoint: c, .. } = record {
                let (task, epoch, n) = (&c.task, c.epoch, c.number);
                self.say(|| format!("checkpoint {task}.{epoch} #{n} is decided in batch {number}"));
            }
            if let CoordRecord::CheckpointsPruned { task, which, .. } = record {
                self.say(|| format!("checkpoints of {task} are pruned: {which:?}"));
            }
        }
        self.plant_in_batch(&mut batch);
        self.coord.queue.push(batch);
        self.write_coord();
        if self.bug == Some(Bug::CoordinatorAcksBeforeSync)
            && let Some(core) = &mut self.coord.machine
        {
            core.on_persisted(number);
        }
    }

    fn write_coord(&mut self) {
        let life = self.coord.life;
        if !self.coord.writing.is_empty() || self.coord.queue.is_empty() {
            return;
        }
        if self.coord.disk_full_until > self.now {
            self.at(self.coord.disk_full_until, Event::CoordDisk(life));
            return;
        }
        self.coord.writing = std::mem::take(&mut self.coord.queue);
        if let Err(error) = self.coord.store.write(&self.coord.writing) {
            self.oracle.fail(format!("the coordinator's store refused: {error}"));
        }
        let took = self.disk_time(self.coord.disk_slow);
        self.at(self.now + took, Event::CoordDisk(life));
    }

    /// The disk of the coordinator has synced.
    pub fn on_coord_disk(&mut self) {
        let written = std::mem::take(&mut self.coord.writing);
        if let Some(last) = written.last().map(|b| b.number) {
            let lies = self.bug == Some(Bug::LyingDisk) && self.rng.random_bool(0.2);
            if !lies {
                self.coord.store.sync();
            }
            self.oracle.coord_synced(&written);
            self.feed_coord(|core, _| core.on_persisted(last));
        }
        self.write_coord();
    }

    /// Two incarnations of one worker are alive: the older dials, as if it were the only one.
    pub fn former_wakes(&mut self, i: usize, said: Former) {
        let Some(mut hello) = said.hello else { return };
        let Some(core) = &self.coord.machine else { return };
        // The last words of a dead process do not reach a coordinator that started later. Where there
        // is a copy, they would be taken for the copy that lives, and the original be refused.
        let copied = self.oracle.copies.are_of(Some(&self.workers[i].store_id));
        if copied && said.heard_by != self.coord.life {
            return;
        }
        // Until its successor was there it may still be welcome.
        let known = core.worker(&hello.store_id);
        let outdated = known.is_some_and(|v| v.row.incarnation > hello.incarnation);
        self.last_link += 1;
        let link = self.last_link;
        if outdated {
            self.outdated.insert(link);
        }
        self.count("former incarnation", 1);
        self.say(|| format!("a former incarnation of worker {i} dials on link {link}"));
        hello.connection += 1;
        if self.bug == Some(Bug::WelcomesFormer) {
            hello.incarnation += 1_000;
        }
        self.feed_coord(|core, now| core.on_open(now, link));
        self.message_coord(link, ToCoordinator::Hello(hello));
        // It does not wait for the refusal. One that is accepted would begin at the cursors.
        if let Some(outbox) = said.outbox.filter(|_| outdated) {
            self.message_coord(link, ToCoordinator::Outbox(outbox));
        }
    }

    fn coord_sends(&mut self, conn: u64, message: ToWorker) {
        let welcome = matches!(message, ToWorker::Welcome(_));
        if self.outdated.contains(&conn) && welcome {
            let text = format!("a former incarnation is accepted on link {conn}");
            self.oracle.fail(text);
        }
        let Some(link) = self.links.get(&conn) else { return };
        let store = self.workers[link.worker].store_id.clone();
        match &message {
            ToWorker::Ack(cursors) => {
                cursors.iter().for_each(|c| self.oracle.acked(&store, c.lane, c.seq, "ack"));
            }
            ToWorker::Welcome(w) => {
                let cursors = w.cursors.iter();
                cursors.for_each(|c| self.oracle.acked(&store, c.lane, c.seq, "welcome"));
            }
            ToWorker::Saved(attempts) => {
                attempts.iter().for_each(|a| self.oracle.saved(&store, a.clone()));
            }
            ToWorker::Assign(tasks) => {
                for t in tasks {
                    self.say(|| format!("link {conn} assigns {}.{} to {store}", t.task, t.epoch));
                    self.oracle.assignment(AttemptId { task: t.task.clone(), epoch: t.epoch });
                    if let Some(c) = &t.checkpoint {
                        self.oracle.goes_on_from(c, &self.coord.store, &self.blobs);
                    }
                }
            }
            _ => {}
        }
        for kind in outlast_wire::frames(self.plant_below(message)) {
            self.send(conn, false, kind);
        }
        if welcome && self.bug == Some(Bug::SettlesAtOnce) {
            self.send(conn, false, ToWorker::Settled.into());
        }
    }

    /// Time that a sync takes.
    pub fn disk_time(&mut self, slow: bool) -> u64 {
        if slow { self.rng.random_range(100..4_000) } else { self.rng.random_range(1..15) }
    }
}
