//! The workers' driver in virtual time: their starts and crashes, their disks, and what their cores put out.

use crate::Bug;
use crate::event::Event;
use crate::world::World;
use outlast_core::records::{Batch, WorkerRecord};
use outlast_core::worker::{HeartbeatConfig, Output, StageConfig, Unfit, Worker, WorkerConfig};
use outlast_core::{AttemptId, Machine, Now, Step};
use outlast_model::message::{OutboxItem, ToCoordinator, ToWorker};
use outlast_model::{OutcomeKind, TaskOutcome};
use rand::Rng;

impl World {
    /// A worker's process starts.
    pub fn start_worker(&mut self, i: usize) {
        let never = self.bug == Some(Bug::NeverTimesOut);
        if self.workers[i].out {
            return;
        }
        let w = &mut self.workers[i];
        w.peer.life += 1;
        w.peer.armed = u64::MAX;
        (w.exited, w.says_full, w.drains) = (false, false, None);
        let mut said = std::mem::take(&mut w.said);
        said.heard_by = self.coord.life;
        if said.hello.is_some() {
            // Soon after its successor's start, or late; no draw, so that other choices stay.
            let at = self.now + [20, 900, 30_000][self.now as usize % 3];
            self.at(at, Event::Former(i, Box::new(said)));
        }
        let w = &mut self.workers[i];
        let mut snapshot = w.peer.store.open();
        let mut alive = self.alive(i);
        self.plant_at_start(&mut snapshot, &mut alive);
        let w = &mut self.workers[i];
        let config = WorkerConfig {
            name: w.name.clone(),
            slots: w.slots,
            prefetch: w.slots,
            capabilities: if w.gpu { r#"{"gpu":"x"}"# } else { "{}" }.into(),
            stage: StageConfig {
                limit: 4,
                // Some workers hand over ahead whatever their tasks are like.
                below: if i.is_multiple_of(2) { 1e9 } else { 50.0 },
                ..Default::default()
            },
            heartbeat: HeartbeatConfig {
                timeout: if never { u64::MAX / 4 } else { 15_000 },
                ..Default::default()
            },
            nonce: ((i as u64 + 1) << 32) + u64::from(w.peer.life) + 1,
            ..Default::default()
        };
        let now = w.peer.now(self.now);
        w.peer.machine = Some(Worker::new(config, snapshot, alive, self.rng.random(), now));
        self.say(|| format!("worker {i} starts"));
        self.pump_worker(i);
        self.after_start(i);
    }

    /// A worker's process dies, or its machine.
    pub fn crash_worker(&mut self, i: usize, power: bool) {
        let w = &mut self.workers[i];
        if w.peer.machine.take().is_none() {
            return;
        }
        w.peer.queue.clear();
        let written = std::mem::take(&mut w.peer.writing);
        if w.exited {
            w.peer.store.end_well();
        }
        // Its keeper lives on, unless it goes too.
        if power || w.exited || self.rng.random_bool(0.4) {
            w.running.clear();
            w.keeper_life += 1;
        }
        w.upload += 1;
        let kept = self.rng.random_range(0..=w.peer.store.unsynced());
        w.peer.store.crash_keeping(kept);
        let store = w.store_id.clone();
        self.oracle.worker_synced(&store, &written[..kept]);
        let w = &mut self.workers[i];
        let link = w.link.take();
        self.say(|| format!("worker {i} crashes"));
        if let Some(link) = link {
            self.break_link(link, power);
        }
    }

    /// Passes an input to a worker and carries out its outputs.
    pub fn feed_worker(&mut self, i: usize, input: impl FnOnce(&mut Worker, Now)) {
        let w = &mut self.workers[i];
        let now = w.peer.now(self.now);
        let Some(core) = &mut w.peer.machine else { return };
        input(core, now);
        self.pump_worker(i);
    }

    /// Carries out the outputs of a worker, and plans its next wake-up.
    pub fn pump_worker(&mut self, i: usize) {
        loop {
            let Some(core) = &mut self.workers[i].peer.machine else { return };
            match core.poll() {
                Some(Step::Persist(batch)) => self.worker_persists(i, batch),
                Some(Step::Perform(output)) => self.worker_does(i, output),
                None => break,
            }
        }
        let w = &mut self.workers[i].peer;
        let Some(core) = &w.machine else { return };
        let at = core.next_wake().at.saturating_sub(w.ahead).max(self.now + 1);
        if at < w.armed {
            w.armed = at;
            let life = w.life;
            self.at(at, Event::WorkerTick(i, life));
        }
    }

    fn worker_does(&mut self, i: usize, output: Output) {
        match output {
            Output::Dial => self.dial(i),
            Output::Probe => self.probe(i),
            Output::Send(message) => self.worker_sends(i, message),
            Output::Close(_) => {
                if let Some(link) = self.workers[i].link.take() {
                    self.close(link, false);
                }
            }
            Output::Run(task, epoch, spec) => self.run_starts(i, task, epoch, &spec),
            Output::StopRun(task, epoch, kind) => {
                self.run_stops(i, AttemptId { task, epoch }, kind);
            }
            Output::Recall(task, epoch) => {
                let keeper = self.workers[i].keeper_life;
                let (id, kind) = (AttemptId { task, epoch }, OutcomeKind::Returned);
                if self.rng.random_bool(0.5) {
                    self.at(self.now + 5, Event::TaskEnds(i, keeper, id, kind));
                }
            }
            Output::Pause(task, epoch, on) => self.run_pauses(i, task, epoch, on),
            Output::AskCheckpoint(task, epoch) => {
                let keeper = self.workers[i].keeper_life;
                let id = AttemptId { task, epoch };
                self.at(self.now + 50, Event::TaskReports(i, keeper, id));
            }
            Output::Forget(task, epoch) => {
                let id = AttemptId { task, epoch };
                let runs = &mut self.workers[i].running;
                if runs.get(&id).is_some_and(|r| r.ended.is_some()) {
                    runs.remove(&id);
                }
            }
            Output::Upload(manifest) => self.on_upload(i, manifest),
            Output::Answer(_, answer) => self.on_answer(i, &answer),
            Output::State(state, why) => {
                self.say(|| format!("worker {i} is {} {why}", state.as_str()));
                self.note_copied(i);
            }
            Output::Packing(_) => {}
            Output::Adapted(c) => {
                self.say(|| format!("worker {i} adapts {}: {}: {}", c.setting.word(), c.to, c.why));
            }
            Output::Exit => {
                self.say(|| format!("worker {i} has ended cleanly"));
                self.workers[i].exited = true;
                self.check_drain(i);
                if self.healed {
                    self.at(self.now + 100, Event::StartWorker(i));
                }
            }
        }
    }

    fn worker_sends(&mut self, i: usize, message: ToCoordinator) {
        match &message {
            ToCoordinator::Hello(hello) => self.workers[i].said.hello = Some(hello.clone()),
            ToCoordinator::Unsaved(outcomes) => {
                self.count("outcomes beside their lane", outcomes.len() as u64);
                for o in outcomes {
                    self.oracle.offered(&o.task, o.epoch);
                }
                if self.bug == Some(Bug::SavesNothing) {
                    let saved =
                        ToWorker::Saved(outcomes.iter().map(TaskOutcome::attempt).collect());
                    return self.feed_worker(i, |core, now| core.on_message(now, saved));
                }
            }
            ToCoordinator::Outbox(batch) => {
                for item in &batch.items {
                    if let OutboxItem::Outcome(o) = item {
                        self.oracle.sent(&o.task, o.epoch);
                    }
                }
                self.workers[i].said.outbox = Some(batch.clone());
            }
            _ => {}
        }
        if let Some(link) = self.workers[i].link {
            self.send(link, true, message.into());
        }
    }

    fn worker_persists(&mut self, i: usize, mut batch: Batch<WorkerRecord>) {
        let number = batch.number;
        if self.bug == Some(Bug::LosesFinished) && self.rng.random_bool(0.1) {
            batch.records.retain(|r| !matches!(r, WorkerRecord::Finished { .. }));
        }
        self.workers[i].peer.queue.push(batch);
        self.write_worker(i);
        if matches!(self.bug, Some(Bug::WorkerAcksBeforeSync | Bug::AnswersBeforeSync)) {
            let now = self.workers[i].peer.now(self.now);
            if let Some(core) = &mut self.workers[i].peer.machine {
                core.on_persisted(now, number);
            }
        }
    }

    fn write_worker(&mut self, i: usize) {
        let w = &mut self.workers[i].peer;
        let life = w.life;
        if !w.writing.is_empty() || w.queue.is_empty() {
            return;
        }
        if w.disk_full_until > self.now {
            let at = w.disk_full_until;
            if at != u64::MAX {
                self.at(at, Event::WorkerDisk(i, life));
            }
            // Every other worker's writer is stuck, and does not report it.
            if i.is_multiple_of(2) && !self.workers[i].says_full {
                self.workers[i].says_full = true;
                self.feed_worker(i, |core, now| {
                    core.set_unfit(now, Unfit::Store, Some("it is full".into()));
                });
            }
            return;
        }
        self.workers[i].says_full = false;
        let w = &mut self.workers[i].peer;
        w.writing = std::mem::take(&mut w.queue);
        if let Err(error) = w.store.write(&w.writing) {
            self.oracle.fail(format!("the store of worker {i} refused: {error}"));
        }
        let slow = self.workers[i].peer.disk_slow;
        let took = self.disk_time(slow);
        self.at(self.now + took, Event::WorkerDisk(i, life));
    }

    /// The disk of a worker has synced.
    pub fn on_worker_disk(&mut self, i: usize) {
        let w = &mut self.workers[i].peer;
        let written = std::mem::take(&mut w.writing);
        if let Some(last) = written.last().map(|b| b.number) {
            w.store.sync();
            let store = self.workers[i].store_id.clone();
            self.oracle.worker_synced(&store, &written);
            self.feed_worker(i, |core, now| core.on_persisted(now, last));
        }
        self.write_worker(i);
    }

    /// The disks of a worker and of the coordinator go on.
    pub fn kick_worker_disk(&mut self, i: usize) {
        let life = self.workers[i].peer.life;
        self.at(self.now, Event::WorkerDisk(i, life));
        let life = self.coord.life;
        self.at(self.now, Event::CoordDisk(life));
    }
}
