//! The coordinator and the workers with their stores: what a real driver does, in virtual time.

use crate::Bug;
use crate::runs::Look;
use crate::world::{Event, World};
use outlast_core::coord::{self, CoordConfig, Coordinator};
use outlast_core::records::{Batch, CoordRecord, WorkerRecord};
use outlast_core::worker::{self, Worker, WorkerConfig};
use outlast_core::{AttemptId, Now, TaskId};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, OutcomeKind, TaskOutcome, outbox_item};
use rand::Rng;
use std::cell::RefCell;
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
    /// What the monotonic clock gained over true time.
    pub ahead: u64,
}

impl<M, S, R> Peer<M, S, R> {
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
    pub fn now(&self, true_now: u64) -> Now {
        Now { mono: true_now + self.ahead, wall: 1_700_000_000_000 + true_now as i64 + self.skew }
    }
}

pub(crate) type Coord = Peer<Coordinator, SimCoordStore, CoordRecord>;

pub(crate) struct WorkerPeer {
    pub peer: Peer<Worker, SimWorkerStore, WorkerRecord>,
    pub name: String,
    pub store_id: Arc<str>,
    pub slots: u32,
    pub gpu: bool,
    /// The link that the machine believes in.
    pub link: Option<u64>,
    /// What its keeper runs, and what ended and was not taken yet.
    pub running: BTreeMap<AttemptId, RunState>,
    /// Grows when the keeper ends with its worker.
    pub keeper_life: u32,
    pub blobs: BTreeSet<Vec<u8>>,
    /// The number of the upload that is going on.
    pub upload: u64,
    /// Its driver has said that its disk is full.
    pub says_full: bool,
    /// Its devices fail until then.
    pub bad_until: u64,
    pub exited: bool,
    /// What this life said last.
    pub said: Former,
    /// Its folder is a copy of this worker's.
    pub copy_of: Option<usize>,
    /// It is not started: it was told to end for good, or is not there yet.
    pub out: bool,
}

impl WorkerPeer {
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
            said: Former::default(),
            copy_of: None,
            out: false,
        }
    }
}

/// What an incarnation said last: it says it again when it wakes after its successor started.
#[derive(Default)]
pub(crate) struct Former {
    hello: Option<v2::Hello>,
    outbox: Option<v2::OutboxBatch>,
    /// The coordinator's life when its successor started.
    heard_by: u32,
}

/// A run, as a keeper knows it.
pub(crate) struct RunState {
    pub started_at: i64,
    pub paused: bool,
    pub stop: Option<OutcomeKind>,
    /// It would have ended so while it was paused.
    pub due: Option<OutcomeKind>,
    pub ended: Option<TaskOutcome>,
    /// What it writes when it fails by itself.
    pub says: &'static str,
    pub n: u64,
}

impl World {
    pub fn start_coord(&mut self) {
        let peer = &mut self.coord;
        peer.life += 1;
        peer.armed = u64::MAX;
        let mut snapshot = peer.store.snapshot();
        if self.bug == Some(Bug::ReusesEpoch) {
            for task in &mut snapshot.tasks {
                task.epoch = task.epoch.saturating_sub(1);
            }
        }
        if self.bug == Some(Bug::ForgetsLease) {
            for task in &mut snapshot.tasks {
                task.state = outlast_core::records::TaskState::Pending;
            }
        }
        for recovery in snapshot.tasks.iter_mut().filter_map(|t| t.recovery.as_mut()) {
            let recovery = Arc::make_mut(recovery);
            match self.bug {
                Some(Bug::ForgetsDelay) => recovery.not_before = 0,
                Some(Bug::ForgetsTried) => *recovery = Default::default(),
                Some(Bug::ForgetsBudget) => recovery.oom_retries = 0,
                Some(Bug::ForgetsShared) => recovery.shared = 0,
                _ => {}
            }
        }
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

    pub fn crash_coord(&mut self, power: bool) {
        if self.coord.machine.take().is_none() {
            return;
        }
        self.say(|| "coordinator crashes".into());
        self.oracle.coord_crashed();
        let peer = &mut self.coord;
        peer.queue.clear();
        let written = std::mem::take(&mut peer.writing);
        let kept = self.rng.random_range(0..=peer.store.unsynced());
        peer.store.crash_keeping(kept);
        // What was on its way to the disk may have arrived.
        if self.bug != Some(Bug::LyingDisk) {
            self.oracle.coord_synced(&written[..kept]);
        }
        self.asked.clear();
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.break_link(link, power);
        }
        self.v1_orphaned();
    }

    pub fn start_worker(&mut self, i: usize) {
        let never = self.bug == Some(Bug::NeverTimesOut);
        let forgets = self.bug == Some(Bug::ForgetsStarted);
        if self.workers[i].out {
            return;
        }
        let w = &mut self.workers[i];
        w.peer.life += 1;
        w.peer.armed = u64::MAX;
        (w.exited, w.says_full) = (false, false);
        let mut said = std::mem::take(&mut w.said);
        said.heard_by = self.coord.life;
        if said.hello.is_some() {
            // Soon after its successor's start, or late; no draw, so that other choices stay.
            let at = self.now + [20, 900, 30_000][self.now as usize % 3];
            self.at(at, Event::Former(i, Box::new(said)));
        }
        let w = &mut self.workers[i];
        let mut snapshot = w.peer.store.open();
        if forgets {
            snapshot.attempts.iter_mut().for_each(|a| a.started_at = None);
        }
        let blind = self.bug == Some(Bug::ForgetsAlive);
        let alive = if blind { Vec::new() } else { self.alive(i) };
        let w = &mut self.workers[i];
        let config = WorkerConfig {
            name: w.name.clone(),
            slots: w.slots,
            prefetch: w.slots,
            capabilities: if w.gpu { r#"{"gpu":"x"}"# } else { "{}" }.into(),
            stage: 4,
            // Some workers hand over ahead whatever their tasks are like.
            stage_below: if i.is_multiple_of(2) { 1e9 } else { 50.0 },
            heartbeat_timeout: if never { u64::MAX / 4 } else { 15_000 },
            nonce: ((i as u64 + 1) << 32) + u64::from(w.peer.life) + 1,
            ..Default::default()
        };
        let now = w.peer.now(self.now);
        w.peer.machine = Some(Worker::new(config, snapshot, alive, self.rng.random(), now));
        self.say(|| format!("worker {i} starts"));
        self.pump_worker(i);
        self.after_start(i);
    }

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

    /// Feeds the coordinator and does what it says.
    pub fn feed_coord(&mut self, input: impl FnOnce(&mut Coordinator, Now)) {
        let now = self.coord.now(self.now);
        let Some(core) = &mut self.coord.machine else { return };
        input(core, now);
        self.pump_coord();
    }

    /// A message for the coordinator, with what its driver can look up.
    pub fn tell_coord(&mut self, link: u64, kind: Kind) {
        let (at, now) = (self.coord.now(self.now), self.now);
        let Some(core) = &mut self.coord.machine else { return };
        let blobs = RefCell::new(&mut self.blobs);
        let forgets = self.bug == Some(Bug::ForgetsUnsaved);
        let look = Look { store: &self.coord.store, blobs, now, forgets };
        core.on_message(at, link, kind, &look);
        self.pump_coord();
    }

    pub fn pump_coord(&mut self) {
        loop {
            let Some(core) = &mut self.coord.machine else { return };
            let Some(output) = core.poll_output() else { break };
            match output {
                coord::Output::Send(conn, kind) => self.coord_sends(conn, kind),
                coord::Output::SendV1(conn, message) => self.v1_sends(conn, message),
                coord::Output::Patience(..) => {}
                coord::Output::Ping(conn, seq) => self.v1_pings(conn, seq),
                coord::Output::Close(conn, why) if self.v1_closes(conn) => {
                    self.say(|| format!("link {conn} is closed: {why}"));
                }
                coord::Output::Close(conn, _) => self.close(conn, true),
                coord::Output::Persist(mut batch) => {
                    let number = batch.number;
                    self.oracle.decided(self.now, self.coord.skew, &batch.records);
                    for record in &batch.records {
                        if let CoordRecord::Checkpoint { checkpoint: c, .. } = record {
                            let text = format!(
                                "checkpoint {}.{} #{} is decided in batch {number}",
                                c.task_id, c.epoch, c.number
                            );
                            self.say(|| text);
                        }
                        if let CoordRecord::CheckpointsPruned { task, which, .. } = record {
                            let text = format!("checkpoints of {task} are pruned: {which:?}");
                            self.say(|| text);
                        }
                    }
                    match self.bug {
                        Some(Bug::ForgetsCursor) => {
                            batch.records.retain(|r| !matches!(r, CoordRecord::Cursor { .. }));
                        }
                        Some(Bug::StateGoesBack) if self.rng.random_bool(0.2) => {
                            for record in &mut batch.records {
                                if let CoordRecord::State { update } = record {
                                    Arc::make_mut(update).version = 1;
                                }
                            }
                        }
                        Some(Bug::SplitsDecision) if self.rng.random_bool(0.3) => {
                            batch.records.retain(|r| !matches!(r, CoordRecord::Recovered { .. }));
                        }
                        Some(Bug::ForgetsAssigned) => {
                            batch.records.retain(|r| !matches!(r, CoordRecord::Assigned { .. }));
                        }
                        _ => {}
                    }
                    self.coord.queue.push(batch);
                    self.write_coord();
                    if self.bug == Some(Bug::CoordinatorAcksBeforeSync)
                        && let Some(core) = &mut self.coord.machine
                    {
                        core.on_persisted(number);
                    }
                }
                coord::Output::Reply(request, response) => self.on_reply(request, response),
                coord::Output::News(news) => self.oracle.news(news),
                coord::Output::Warn(what) => self.say(|| what),
            }
        }
        let Some(core) = &self.coord.machine else { return };
        let at = core.next_wake().saturating_sub(self.coord.ahead).max(self.now + 1);
        if at < self.coord.armed {
            self.coord.armed = at;
            let life = self.coord.life;
            self.at(at, Event::CoordTick(life));
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
            self.oracle.wrong.get_or_insert(format!("the coordinator's store refused: {error}"));
        }
        let took = self.disk_time(self.coord.disk_slow);
        self.at(self.now + took, Event::CoordDisk(life));
    }

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
        let copied = self.oracle.copies.spoke_for(Some(&self.workers[i].store_id));
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
        *self.faults.entry("former incarnation").or_default() += 1;
        self.say(|| format!("a former incarnation of worker {i} dials on link {link}"));
        hello.connection += 1;
        if self.bug == Some(Bug::WelcomesFormer) {
            hello.incarnation += 1_000;
        }
        self.feed_coord(|core, now| core.on_open(now, link));
        self.tell_coord(link, Kind::Hello(hello));
        // It does not wait for the refusal. One that is welcome would begin at the cursors.
        if let Some(outbox) = said.outbox.filter(|_| outdated) {
            self.tell_coord(link, Kind::Outbox(outbox));
        }
    }

    fn coord_sends(&mut self, conn: u64, kind: Kind) {
        if self.outdated.contains(&conn) && matches!(kind, Kind::Welcome(_)) {
            let text = format!("a former incarnation is welcome on link {conn}");
            self.oracle.wrong.get_or_insert(text);
        }
        let Some(link) = self.links.get(&conn) else { return };
        let store = self.workers[link.worker].store_id.clone();
        match &kind {
            Kind::Ack(ack) => {
                ack.cursors.iter().for_each(|c| self.oracle.acked(&store, c.lane, c.seq, "ack"));
            }
            Kind::Welcome(w) => {
                let told = w.cursors.iter();
                told.for_each(|c| self.oracle.acked(&store, c.lane, c.seq, "welcome"));
            }
            Kind::Saved(saved) => {
                for a in &saved.attempts {
                    let task = a.task_id.as_str().into();
                    self.oracle.saved(&store, AttemptId { task, epoch: a.epoch });
                }
            }
            Kind::Assign(assign) => {
                for t in &assign.tasks {
                    self.say(|| {
                        format!("link {conn} assigns {}.{} to {store}", t.task_id, t.epoch)
                    });
                    let task = t.task_id.as_str().into();
                    self.oracle.assignment(AttemptId { task, epoch: t.epoch });
                    if let Some(c) = &t.checkpoint {
                        self.oracle.goes_on_from(c, &self.coord.store, &self.blobs);
                    }
                }
            }
            _ => {}
        }
        let welcome = matches!(kind, Kind::Welcome(_));
        let kind = self.old_knobs(kind);
        self.send(conn, false, kind);
        if welcome && self.bug == Some(Bug::SettlesAtOnce) {
            self.send(conn, false, Kind::Settled(v2::Settled {}));
        }
    }

    /// Planted bugs: the task as it was submitted, or without its checkpoint.
    fn old_knobs(&self, mut kind: Kind) -> Kind {
        if self.bug == Some(Bug::OldKnobs)
            && let Kind::Assign(assign) = &mut kind
        {
            for t in &mut assign.tasks {
                let spec = &self.specs[&TaskId::from(t.task_id.as_str())];
                let plain = crate::failures::first_values(spec);
                t.spec_json = plain.to_json().into();
            }
        }
        if self.bug == Some(Bug::PassesCheckpointsOver)
            && let Kind::Assign(assign) = &mut kind
        {
            assign.tasks.iter_mut().for_each(|t| t.checkpoint = None);
        }
        kind
    }

    pub fn feed_worker(&mut self, i: usize, input: impl FnOnce(&mut Worker, Now)) {
        let w = &mut self.workers[i];
        let now = w.peer.now(self.now);
        let Some(core) = &mut w.peer.machine else { return };
        input(core, now);
        self.pump_worker(i);
    }

    pub fn pump_worker(&mut self, i: usize) {
        loop {
            let Some(core) = &mut self.workers[i].peer.machine else { return };
            let Some(output) = core.poll_output() else { break };
            self.worker_does(i, output);
        }
        let w = &mut self.workers[i].peer;
        let Some(core) = &w.machine else { return };
        let at = core.next_wake().saturating_sub(w.ahead).max(self.now + 1);
        if at < w.armed {
            w.armed = at;
            let life = w.life;
            self.at(at, Event::WorkerTick(i, life));
        }
    }

    fn worker_does(&mut self, i: usize, output: worker::Output) {
        match output {
            worker::Output::Dial => self.dial(i),
            worker::Output::Probe => self.probe(i),
            worker::Output::Send(kind) => {
                match &kind {
                    Kind::Hello(hello) => self.workers[i].said.hello = Some(hello.clone()),
                    Kind::Unsaved(unsaved) => {
                        *self.faults.entry("outcomes beside their lane").or_default() +=
                            unsaved.outcomes.len() as u64;
                        for o in &unsaved.outcomes {
                            self.oracle.offered(&o.task_id, o.epoch);
                        }
                        if self.bug == Some(Bug::SavesNothing) {
                            let one = |o: &TaskOutcome| v2::AttemptRef {
                                task_id: o.task_id.clone(),
                                epoch: o.epoch,
                            };
                            let attempts = unsaved.outcomes.iter().map(one).collect();
                            let saved = Kind::Saved(v2::Saved { attempts });
                            return self.feed_worker(i, |core, now| core.on_message(now, saved));
                        }
                    }
                    Kind::Outbox(batch) => {
                        for item in &batch.items {
                            if let Some(outbox_item::Kind::Outcome(o)) = &item.kind {
                                self.oracle.sent(&o.task_id, o.epoch);
                            }
                        }
                        self.workers[i].said.outbox = Some(batch.clone());
                    }
                    _ => {}
                }
                if let Some(link) = self.workers[i].link {
                    self.send(link, true, kind);
                }
            }
            worker::Output::Close(_) => {
                if let Some(link) = self.workers[i].link.take() {
                    self.close(link, false);
                }
            }
            worker::Output::Persist(mut batch) => {
                let number = batch.number;
                if self.bug == Some(Bug::LosesFinished) && self.rng.random_bool(0.1) {
                    batch.records.retain(|r| !matches!(r, WorkerRecord::Finished { .. }));
                }
                self.workers[i].peer.queue.push(batch);
                self.write_worker(i);
                let early =
                    matches!(self.bug, Some(Bug::WorkerAcksBeforeSync | Bug::AnswersBeforeSync));
                if early {
                    let now = self.workers[i].peer.now(self.now);
                    if let Some(core) = &mut self.workers[i].peer.machine {
                        core.on_persisted(now, number);
                    }
                }
            }
            worker::Output::Run(task, epoch, spec) => self.run_starts(i, task, epoch, &spec),
            worker::Output::StopRun(task, epoch, kind) => {
                self.run_stops(i, AttemptId { task, epoch }, kind);
            }
            worker::Output::Recall(task, epoch) => {
                let keeper = self.workers[i].keeper_life;
                let (id, kind) = (AttemptId { task, epoch }, OutcomeKind::OutcomeReturned);
                if self.rng.random_bool(0.5) {
                    self.at(self.now + 5, Event::TaskEnds(i, keeper, id, kind));
                }
            }
            worker::Output::Pause(task, epoch, on) => self.run_pauses(i, task, epoch, on),
            worker::Output::AskCheckpoint(task, epoch) => {
                let keeper = self.workers[i].keeper_life;
                let id = AttemptId { task, epoch };
                self.at(self.now + 50, Event::TaskTells(i, keeper, id));
            }
            worker::Output::Forget(task, epoch) => {
                let id = AttemptId { task, epoch };
                let runs = &mut self.workers[i].running;
                if runs.get(&id).is_some_and(|r| r.ended.is_some()) {
                    runs.remove(&id);
                }
            }
            worker::Output::Upload(manifest) => self.on_upload(i, manifest),
            worker::Output::Answer(_, answer) => self.on_answer(i, &answer),
            worker::Output::State(state, why) => {
                self.say(|| format!("worker {i} is {} {why}", state.as_str()));
                self.note_copied(i);
            }
            worker::Output::Packing(_) => {}
            worker::Output::Adapted(c) => {
                self.say(|| format!("worker {i} adapts {}: {}: {}", c.setting.word(), c.to, c.why));
            }
            worker::Output::Exit => {
                self.say(|| format!("worker {i} has ended cleanly"));
                self.workers[i].exited = true;
                if self.healed {
                    self.at(self.now + 100, Event::StartWorker(i));
                }
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
            // Every other worker's writer is stuck, and says nothing of it.
            if i.is_multiple_of(2) && !self.workers[i].says_full {
                self.workers[i].says_full = true;
                self.feed_worker(i, |core, now| {
                    core.set_unfit(now, worker::Unfit::Store, Some("it is full".into()));
                });
            }
            return;
        }
        self.workers[i].says_full = false;
        let w = &mut self.workers[i].peer;
        w.writing = std::mem::take(&mut w.queue);
        if let Err(error) = w.store.write(&w.writing) {
            self.oracle.wrong.get_or_insert(format!("the store of worker {i} refused: {error}"));
        }
        let slow = self.workers[i].peer.disk_slow;
        let took = self.disk_time(slow);
        self.at(self.now + took, Event::WorkerDisk(i, life));
    }

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

    /// A planted bug: an outcome claims to be of the newest attempt.
    pub fn tamper(&mut self, mut kind: Kind) -> Kind {
        if self.bug == Some(Bug::ForgetsNonces)
            && let Kind::Hello(hello) = &mut kind
        {
            hello.nonce = 0;
        }
        if self.bug == Some(Bug::SkipsFencing)
            && let Kind::Outbox(batch) = &mut kind
        {
            for item in &mut batch.items {
                if let Some(outbox_item::Kind::Outcome(o)) = &mut item.kind {
                    let id: TaskId = o.task_id.as_str().into();
                    if let Some(row) = self.coord.store.task_row(&id) {
                        o.epoch = row.epoch;
                    }
                }
            }
        }
        kind
    }

    fn disk_time(&mut self, slow: bool) -> u64 {
        if slow { self.rng.random_range(100..4_000) } else { self.rng.random_range(1..15) }
    }
}
