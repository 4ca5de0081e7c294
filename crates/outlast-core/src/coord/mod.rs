//! The coordinator's half: sessions with workers, who has which task, what an outcome means.
//!
//! Drive it as the crate's documentation says. Tasks that are over leave memory once that is
//! durable; a request about such a task brings the row that the driver found in the store.
//! What is in memory always wins over what the driver read.

mod admission;
mod awaited;
mod control;
mod copies;
#[cfg(test)]
mod copies_tests;
mod given;
#[cfg(test)]
mod given_tests;
mod invariants;
mod links;
mod lookup;
mod outbox;
mod pace;
mod principal;
mod reconcile;
mod recover;
#[cfg(test)]
mod recover_tests;
mod removal;
mod requests;
mod revisions;
mod session;
mod takeover;
mod tasks;
#[cfg(test)]
mod tests;
mod told;
mod toll;
mod unfit;
mod v1;
mod workers;

use crate::records::{Asked, Batch, CoordRecord, CoordSnapshot, TaskRow, TaskState};
use crate::scheduler::{Scheduler, Wish, WorkerKey};
use crate::{Epoch, Millis, Now, TaskId};
use admission::Admission;
pub use copies::Copied;
pub use given::Given;
pub use invariants::Glance;
pub use links::{LinkChange, LinkNews, LinkSample, Tally};
pub use lookup::{Lookup, PastAttempt};
use outlast_model::message::ToWorker;
use outlast_model::{Cause, Checkpoint, TaskSpec};
use outlast_wire::v1 as dialect;
pub use principal::Principal;
pub use recover::{RecoveryRequest, RecoveryView};
pub use removal::may_come_again;
pub use requests::{Request, Response, Submission, Submitted};
use session::Conn;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
pub use unfit::Faults;
pub use v1::{MAX_LINKS as V1_MAX_LINKS, PAUSE_LAPSES as V1_PAUSE_LAPSES};
pub use v1::{PREFIX as V1_PREFIX, check_worker_id};
use workers::Fleet;
pub use workers::{Isolation, WorkerState, WorkerView};

/// A link, as its driver numbers it. Never used twice.
pub type ConnId = u64;
/// A question, as its driver numbers it.
pub type RequestId = u64;

/// A tick this much later than asked for means that the process was stopped or the machine
/// slept, in milliseconds.
const LATE: Millis = 5_000;
/// Time in milliseconds that a moved task waits for another worker, and for the one that was named.
/// Then it may go to any worker with room.
const MOVE_PATIENCE: (Millis, Millis) = (30_000, 600_000);
/// Between looks for workers that idle while tasks wait at others, in milliseconds.
const BALANCE_EVERY: Millis = 1_000;

/// Configuration of a coordinator. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct CoordConfig {
    /// Version of the software.
    pub version: String,
    /// Time between heartbeats.
    pub heartbeat_interval: Millis,
    /// Silence after which a link is closed.
    pub heartbeat_timeout: Millis,
    /// Time limit for a new link's handshake and inventory.
    pub hello_timeout: Millis,
    /// Tasks that may be unfinished at a time.
    pub max_unfinished: usize,
    /// Outbox records that a worker may send without acknowledgement.
    pub credit: u32,
    /// Workers that are known, there or not, and the bytes of what they said of themselves. Room for
    /// others is made by forgetting who is gone and has nothing.
    pub max_workers: (usize, usize),
    /// Workers admitted per second when many connect at once; 0: no limit. The others are notified of
    /// their admission time.
    pub admit_per_second: u32,
    /// Workers admitted at once before that limit applies.
    pub admit_burst: u32,
    /// Rules of failure recovery.
    pub recovery: Arc<crate::recovery::Config>,
    /// Seed of random variations; a different one for each start.
    pub seed: u64,
    /// Settings that do not adapt to links.
    pub pins: crate::adapt::Pins,
}

impl Default for CoordConfig {
    fn default() -> Self {
        CoordConfig {
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat_interval: 5_000,
            heartbeat_timeout: 15_000,
            hello_timeout: 15_000,
            max_unfinished: 1_000_000,
            credit: 4096,
            max_workers: (50_000, 256 << 20),
            admit_per_second: 1000,
            admit_burst: 500,
            recovery: Arc::default(),
            seed: 0,
            pins: crate::adapt::Pins::NONE,
        }
    }
}

/// Action for the driver.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send on a link, if it is still open.
    Send(ConnId, ToWorker),
    /// The same on a link of the v1 dialect.
    SendV1(ConnId, dialect::ToWorker),
    /// Send a WebSocket ping with this number on a link of the v1 dialect; answer with `on_pong`.
    Ping(ConnId, u64),
    /// A silence of so many milliseconds may happen on this link, and is not its end; 0: what is
    /// configured holds.
    Patience(ConnId, Millis),
    /// Close a link, after what was sent on it. No `on_close` need follow.
    Close(ConnId, String),
    /// Make durable, then call `on_persisted`.
    Persist(Batch<CoordRecord>),
    /// Answer a request.
    Reply(RequestId, Response),
    /// Tell those who watch; nothing rests on it.
    News(LinkNews),
    /// Write to the log. Comes once a second at most.
    Warn(String),
}

/// Counts since the start, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted.
    pub submitted: u64,
    /// Attempts given out.
    pub assigned: u64,
    /// Tasks that ended well, badly, on request.
    pub ended: [u64; 3],
    /// Attempts that were abandoned and retried.
    pub requeued: u64,
    /// Outcomes that did not count.
    pub superseded: u64,
    /// Outbox records that had been applied before.
    pub repeated: u64,
    /// Times that an outbox skipped sequences.
    pub gaps: u64,
    /// Hellos accepted.
    pub welcomed: u64,
    /// Links refused, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Links closed for silence.
    pub silent: u64,
    /// Attempts that were abandoned because their worker stayed away.
    pub expired: u64,
    /// Workers that were told to come back at their turn.
    pub postponed: u64,
    /// Checkpoints that took effect.
    pub checkpoints: u64,
    /// Times that a checkpoint came before its blob.
    pub blobs_missing: u64,
    /// Tasks removed long after their end.
    pub removed: u64,
    /// Successes that came for tasks which had failed for loss, and were honoured.
    pub honoured: u64,
    /// Texts of v1 workers that were no messages.
    pub v1_malformed: u64,
    /// Links that ended, by cause.
    pub links: BTreeMap<&'static str, u64>,
    /// Attempts that ended, by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// Recovery actions by strategy.
    pub recoveries: BTreeMap<&'static str, u64>,
    /// Times that a worker was quarantined.
    pub quarantines: u64,
    /// Outcomes that were kept here since their worker could not write its store.
    pub unsaved: u64,
    /// Outcomes beyond those that are kept of one attempt.
    pub surplus: u64,
    /// Outbox records that nothing can be made of.
    pub unusable: u64,
    /// Workers that were forgotten to make room for others.
    pub made_room: u64,
    /// Times that a process with a copy of a worker's state folder was refused.
    pub copies: u64,
    /// Records of attempts that were never given to the worker that sent them, or of tasks that
    /// are not known, by kind. They are not kept: anybody could fill the disk with them.
    pub foreign: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Conn(ConnId),
    Window(WorkerKey),
    Balance,
}

/// A task in memory: an unfinished one, or one whose end is not yet durable.
#[derive(Debug)]
struct Task {
    number: u64,
    spec: Arc<TaskSpec>,
    state: TaskState,
    epoch: Epoch,
    /// Attempts up to this one are of a former task of the same id.
    after: Epoch,
    retries: u32,
    worker: Option<WorkerKey>,
    cancelling: bool,
    started_at: Option<i64>,
    /// True if the current attempt was recalled.
    asked_back: bool,
    /// Batch that records its end.
    over_in: u64,
    /// True if paused: the task is not assigned, and suspended where it runs.
    paused: bool,
    /// True if it failed because attempts were lost.
    lost: bool,
    /// Kept checkpoints, by (epoch, number).
    checkpoints: Vec<Arc<Checkpoint>>,
    state_version: (Epoch, u64),
    /// Pending operator requests; changed by [`Coordinator::change_asked`].
    asked: Asked,
    /// Recovery state.
    recovery: Option<Arc<crate::recovery::TaskRecovery>>,
    /// Earliest time of its next assignment.
    due: Option<Millis>,
    /// Reports in the v1 dialect.
    v1: Option<Box<v1::Told>>,
}

impl Task {
    fn is_current(&self, key: WorkerKey, epoch: Epoch) -> bool {
        self.state == TaskState::Assigned && self.epoch == epoch && self.worker == Some(key)
    }
    /// Returns true if this attempt was abandoned, and the task is not assigned again yet.
    fn is_given_up(&self, epoch: Epoch) -> bool {
        self.state == TaskState::Pending && self.epoch == epoch && epoch > self.after
    }
    /// Returns true if it was moved away from this worker.
    fn is_misplaced(&self, name: &str) -> bool {
        self.asked.place.as_ref().is_some_and(|(worker, there)| (**worker == *name) != *there)
    }
    fn window(&self) -> Millis {
        (self.spec.reconnect_window * 1000.0) as Millis
    }
}

/// The state machine of a coordinator.
#[derive(Debug)]
pub struct Coordinator {
    config: CoordConfig,
    id: Arc<str>,
    last_number: u64,
    /// Never iterated: its order is not the same in every run.
    tasks: HashMap<TaskId, Task>,
    fleet: Fleet,
    conns: BTreeMap<ConnId, Conn>,
    scheduler: Scheduler,
    timers: BTreeSet<(Millis, Timer)>,
    counters: Counters,
    /// Records decided but not yet handed out, and the number of their batch.
    records: Vec<CoordRecord>,
    batch: u64,
    persisted: u64,
    outputs: VecDeque<Output>,
    /// Outputs that are released once their batch is durable.
    held: VecDeque<(u64, Output)>,
    /// Ended tasks, which are dropped from memory once their end is durable.
    over: VecDeque<(u64, TaskId)>,
    last_tick: Millis,
    /// Blobs of checkpoints that are decided and not yet durable, by batch.
    unsynced: VecDeque<(u64, outlast_model::Bytes)>,
    admission: Admission,
    /// Times from which on moved tasks may go to any worker.
    placed: BTreeSet<(Millis, TaskId)>,
    /// Tasks that wait for a checkpoint, and since when.
    awaiting: BTreeMap<TaskId, Millis>,
    /// Tasks whose removal is not durable yet, with their newest attempt; and the batch of each.
    removed: HashMap<TaskId, Epoch>,
    removing: VecDeque<(u64, TaskId)>,
    revisions: revisions::Revisions,
    recover: recover::State,
    /// Reports in the v1 dialect that are not durable yet, by batch.
    unsynced_v1: VecDeque<(u64, v1::Unsynced)>,
    /// Outcomes that came beside their lane and are not durable yet.
    beside: VecDeque<unfit::Beside>,
    /// Time of the last log warning about records of attempts that were never assigned.
    warned: Option<Millis>,
}

impl Coordinator {
    /// Goes on from what is durable. Workers that had tasks are given their whole reconnect
    /// window from now.
    pub fn new(config: CoordConfig, snapshot: CoordSnapshot, now: Now) -> Self {
        let admission = Admission::new(config.admit_per_second, config.admit_burst);
        let mut c = Coordinator {
            admission,
            unsynced: VecDeque::new(),
            placed: BTreeSet::new(),
            awaiting: BTreeMap::new(),
            removed: HashMap::new(),
            removing: VecDeque::new(),
            revisions: revisions::Revisions::default(),
            recover: recover::State::new(&config, now),
            unsynced_v1: VecDeque::new(),
            beside: VecDeque::new(),
            warned: None,
            config,
            id: snapshot.coordinator_id,
            last_number: snapshot.last_number,
            tasks: HashMap::with_capacity(snapshot.tasks.len()),
            fleet: Fleet::default(),
            conns: BTreeMap::new(),
            scheduler: Scheduler::default(),
            timers: BTreeSet::new(),
            counters: Counters::default(),
            records: Vec::new(),
            batch: 1,
            persisted: 0,
            outputs: VecDeque::new(),
            held: VecDeque::new(),
            over: VecDeque::new(),
            last_tick: now.mono,
        };
        for (row, cursors) in snapshot.workers {
            c.fleet.load(row, &cursors, now.mono);
        }
        c.load_recovery(now, snapshot.failures, snapshot.quarantines, snapshot.learned);
        let (mut orphaned, mut placed) = (Vec::new(), BTreeSet::new());
        let mut awaiting = BTreeMap::new();
        for row in snapshot.tasks {
            let id = row.id.clone();
            let holder = row.worker.as_ref().map(|w| c.fleet.by_store(w));
            let task = c.remember(row);
            if let Some((_, there)) = &task.asked.place {
                let patience = if *there { MOVE_PATIENCE.1 } else { MOVE_PATIENCE.0 };
                placed.insert((now.mono + patience, id.clone()));
            }
            if task.asked.awaited.is_some() {
                awaiting.insert(id.clone(), now.mono);
            }
            match holder {
                _ if task.state != TaskState::Assigned => {}
                Some(Some(key)) => {
                    task.worker = Some(key);
                    let (epoch, slots) = (task.epoch, task.spec.slots);
                    c.fleet.get_mut(key).hold(id, epoch, slots);
                    continue;
                }
                _ => {
                    orphaned.push(id);
                    continue;
                }
            }
            c.load_due(now, &id);
            c.enqueue(&id);
        }
        c.placed = placed;
        c.awaiting = awaiting;
        for id in orphaned {
            c.lose(now, &id, "its worker is not known any more", Cause::Lost, None);
        }
        for key in c.fleet.keys() {
            c.arm_window(now, key);
        }
        c.timers.insert((now.mono + BALANCE_EVERY, Timer::Balance));
        c
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Now) {
        let expected = self.next_wake().max(self.last_tick);
        let gap = now.mono.saturating_sub(expected);
        self.last_tick = now.mono;
        self.recover.see(now);
        if gap > LATE {
            self.forgive(now, gap);
        }
        while let Some(&(at, timer)) = self.timers.first() {
            if at > now.mono {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Conn(conn) => self.on_conn_timer(now, conn),
                Timer::Window(key) => self.on_window(now, key),
                Timer::Balance => {
                    self.balance();
                    self.unplace(now);
                    self.relieve(now);
                    self.end_awaiting(now);
                    self.end_patience(now);
                    self.end_probation(now);
                    self.timers.insert((now.mono + BALANCE_EVERY, Timer::Balance));
                }
            }
        }
        self.retry_due(now);
        self.schedule(now);
    }

    /// Returns the latest time for the next `on_tick`, in milliseconds of `Now::mono`.
    pub fn next_wake(&self) -> Millis {
        let timer = self.timers.first().map_or(Millis::MAX, |(at, _)| *at);
        timer.min(self.recover.next_due())
    }

    /// Handles that everything up to this batch is durable.
    pub fn on_persisted(&mut self, batch: u64) {
        self.persisted = self.persisted.max(batch);
        while self.held.front().is_some_and(|(b, _)| *b <= self.persisted) {
            let (_, output) = self.held.pop_front().expect("just looked");
            self.outputs.push_back(output);
        }
        while self.unsynced.front().is_some_and(|(b, _)| *b <= self.persisted) {
            self.unsynced.pop_front();
        }
        self.on_removal_persisted();
        self.revisions.persisted(self.persisted);
        self.forget_beside();
        while self.unsynced_v1.front().is_some_and(|(b, _)| *b <= self.persisted) {
            self.unsynced_v1.pop_front();
        }
        while self.over.front().is_some_and(|(b, _)| *b <= self.persisted) {
            let (number, id) = self.over.pop_front().expect("just looked");
            // It may have been retried meanwhile, or have ended again.
            if self.tasks.get(&id).is_some_and(|t| t.state.is_terminal() && t.over_in == number) {
                self.tasks.remove(&id);
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.records.is_empty() {
            return None;
        }
        let batch = Batch { number: self.batch, records: std::mem::take(&mut self.records) };
        self.batch += 1;
        Some(Output::Persist(batch))
    }

    /// UUID of this coordinator's store.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Returns the counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// (tasks in memory, tasks that wait for a worker)
    pub fn load(&self) -> (usize, usize) {
        (self.tasks.len(), self.scheduler.waiting())
    }

    /// Returns true if a worker, by its store id, holds more tasks than its slots run at once.
    pub fn has_work_ahead(&self, store_id: &str) -> bool {
        let worker = self.fleet.by_store(store_id);
        worker.is_some_and(|key| self.fleet.get(key).has_work_ahead())
    }

    /// Workers that were told to come back at their turn, and have not.
    pub fn postponed(&self) -> usize {
        self.admission.waiting()
    }

    /// Blobs that checkpoints refer to which the store does not know yet.
    pub fn unsynced_blobs(&self) -> impl Iterator<Item = &outlast_model::Bytes> {
        self.unsynced.iter().map(|(_, manifest)| manifest)
    }

    /// Explains why a task waits; `None` if it does not.
    pub fn explain(&self, task: &TaskId) -> Option<String> {
        let waits = || Some(self.with_unfit(self.with_quarantine(self.scheduler.explain(task)?)));
        let due = || self.explain_due(task);
        due().or_else(|| self.explain_awaited(task)).or_else(waits)
    }

    /// The batch that what was decided so far goes into.
    fn newest_batch(&self) -> u64 {
        if self.records.is_empty() { self.batch - 1 } else { self.batch }
    }

    /// The batch of what was decided and not handed out yet, if there is any.
    pub fn open_batch(&self) -> Option<u64> {
        (!self.records.is_empty()).then_some(self.batch)
    }

    /// Shows something to others as soon as everything decided so far is durable.
    fn effect(&mut self, output: Output) {
        let batch = self.newest_batch();
        if batch <= self.persisted {
            self.outputs.push_back(output);
        } else {
            self.held.push_back((batch, output));
        }
    }

    fn send(&mut self, conn: ConnId, message: ToWorker) {
        for output in self.on_link(conn, message) {
            self.effect(output);
        }
    }

    /// Translates a message for this link.
    fn on_link(&self, conn: ConnId, message: ToWorker) -> Vec<Output> {
        match self.conns.get(&conn).is_some_and(|c| c.v1.is_some()) {
            false => vec![Output::Send(conn, message)],
            true => v1::translate(message).into_iter().map(|m| Output::SendV1(conn, m)).collect(),
        }
    }

    fn remember(&mut self, row: TaskRow) -> &mut Task {
        let task = Task {
            number: row.number,
            spec: row.spec,
            state: row.state,
            epoch: row.epoch,
            after: row.after,
            retries: row.retries,
            worker: None,
            cancelling: row.cancelling,
            started_at: row.started_at,
            asked_back: false,
            over_in: 0,
            paused: row.paused,
            lost: row.lost,
            checkpoints: row.checkpoints,
            state_version: row.state_version,
            asked: row.asked,
            recovery: row.recovery,
            due: None,
            v1: None,
        };
        self.tasks.entry(row.id).insert_entry(task).into_mut()
    }

    /// Lets a pending task wait for a worker.
    fn enqueue(&mut self, id: &TaskId) {
        let waits = |t: &&Task| !t.paused && t.due.is_none();
        let Some(task) = self.tasks.get(id).filter(waits) else { return };
        let mut requires = self.requires_of(task);
        if let Some((worker, there)) = &task.asked.place {
            requires.add_worker(worker, *there);
        }
        // Its worker has it on its own disk.
        let awaited = task.asked.awaited.as_ref();
        if let Some(key) = awaited.and_then(|a| self.fleet.by_store(&a.worker)) {
            requires.add_worker(&self.fleet.get(key).row.name, true);
        }
        let queue = if task.spec.queue.is_empty() { "default" } else { &task.spec.queue };
        self.scheduler.push(&Wish {
            task: id,
            number: task.number,
            priority: task.spec.priority,
            queue,
            slots: task.spec.slots,
            requires: &requires,
        });
    }

    /// The process was stopped or the machine slept: silence meanwhile says nothing.
    fn forgive(&mut self, now: Now, gap: Millis) {
        for conn in self.conns.values_mut() {
            conn.heart.heard(now.mono);
            conn.heart.beat_soon();
        }
        self.fleet.forgive(gap);
    }
}
