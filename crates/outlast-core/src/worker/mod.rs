//! The worker's half: the session with its coordinator, the attempts it holds, its outbox.
//!
//! Drive it as the crate's documentation says. A worker that is cut off goes on: attempts run,
//! their outcomes become durable, and wait in the outbox until the coordinator acknowledges.

mod attempts;
mod control;
mod fit;
mod invariants;
mod outbox;
mod pace;
mod probe;
mod report;
mod session;
mod tell;
#[cfg(test)]
mod tests;

use crate::adapt::{Change, Packing, Pins};
use crate::backoff::Backoff;
use crate::records::{AttemptRow, Batch, WorkerRecord, WorkerSnapshot};
use crate::stats::{ConnectionState, ConnectionStats};
use crate::{AttemptId, Epoch, Millis, Now, TaskId};
use attempts::{Arrival, Attempts};
use fit::Fitness;
use outbox::{Outbox, States};
pub use outlast_model::Unfit;
use outlast_model::message::ToCoordinator;
use outlast_model::{
    Bytes, Cause, Checkpoint, Lane, LinkCause, OutcomeKind, TaskOutcome, TaskSpec,
};
use pace::Pace;
use rand::{SeedableRng, rngs::SmallRng};
use session::Link;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
pub use tell::{Answer, MAX_STATE, Refused};

/// Configuration of a worker. Times in milliseconds; the defaults are those of the
/// replaced system.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The name people see.
    pub name: String,
    /// Tasks that run at once.
    pub slots: u32,
    /// Further tasks that may wait here; 0 lets the coordinator choose.
    pub prefetch: u32,
    /// A flat JSON object.
    pub capabilities: String,
    /// Declared by the user.
    pub labels: BTreeMap<String, String>,
    /// Version of the software.
    pub version: String,
    /// Time between heartbeats.
    pub heartbeat_interval: Millis,
    /// Silence after which the link is closed.
    pub heartbeat_timeout: Millis,
    /// The delay before the first new dial.
    pub initial_reconnect_delay: Millis,
    /// No delay is longer.
    pub max_reconnect_delay: Millis,
    /// Share by which a delay varies.
    pub reconnect_jitter: f64,
    /// Failed dials in a row before giving up; 0 is never.
    pub max_reconnect_attempts: u32,
    /// Commands handed over ahead of their slots, at most, while tasks are short: the next one
    /// then starts without a round trip.
    pub stage: usize,
    /// Mean duration of tasks below which that is done, in milliseconds.
    pub stage_below: f64,
    /// Duration of work that is handed over ahead, in milliseconds.
    pub stage_for: f64,
    /// Settings that do not adapt to the link.
    pub pins: Pins,
    /// Random, of this start of the process, so that copies of its store are noticed; 0: none.
    pub nonce: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            name: "worker".into(),
            slots: 1,
            prefetch: 0,
            capabilities: "{}".into(),
            labels: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat_interval: 5_000,
            heartbeat_timeout: 15_000,
            initial_reconnect_delay: 1_000,
            max_reconnect_delay: 60_000,
            reconnect_jitter: 0.2,
            max_reconnect_attempts: 0,
            stage: 256,
            stage_below: 50.0,
            stage_for: 100.0,
            pins: Pins::NONE,
            nonce: 0,
        }
    }
}

/// An attempt whose start nobody noted is run again after so many ends of its worker's process,
/// less one: it may be what ends it.
const SURVIVED: u32 = 3;

/// Reason for stopping a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// The task was cancelled, or another attempt is current: the outcome is CANCELLED.
    Cancel,
    /// The worker stops, or it is to go on elsewhere: its outcome is INTERRUPTED.
    Interrupt,
}

/// A question of the driver's, as it numbers it.
pub type Question = u64;

/// An attempt that outlived the worker's former process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// Id of the task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
    /// Unix time in milliseconds.
    pub started_at: i64,
    /// True if it is suspended by a signal.
    pub paused: bool,
}

/// End of an attempt that has not started.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    kind: OutcomeKind,
    cause: Cause,
    message: &'a str,
}

impl Given<'_> {
    const BACK_DRAINED: Given<'static> =
        Given { kind: OutcomeKind::Returned, cause: Cause::Drained, message: "worker drains" };
}

/// Action for the driver.
#[derive(Debug, Clone)]
pub enum Output {
    /// Open a link; answer with `on_connected` or `on_disconnected`. One at a time.
    Dial,
    /// Try whether a TCP connection to the coordinator's address is accepted, and close it; answer
    /// with `on_probed`, unless another link is dialled meanwhile.
    Probe,
    /// Send on the open link.
    Send(ToCoordinator),
    /// Drop the link (or the dial) at once, without a handshake. No `on_disconnected` follows.
    Close(String),
    /// Make durable, then call `on_persisted`.
    Persist(Batch<WorkerRecord>),
    /// Start an attempt; answer with `on_finished`, exactly once.
    Run(TaskId, Epoch, Arc<TaskSpec>),
    /// Stop an attempt that was started; `on_finished` still follows.
    StopRun(TaskId, Epoch, StopKind),
    /// Give back an attempt if it has not started; `on_finished` follows either way.
    Recall(TaskId, Epoch),
    /// Pause an attempt that was started, or let it go on; answer with `on_paused`.
    Pause(TaskId, Epoch, bool),
    /// Ask a running attempt for a checkpoint.
    AskCheckpoint(TaskId, Epoch),
    /// An attempt's outcome is durable: whoever ran it may forget it.
    Forget(TaskId, Epoch),
    /// The blob that should be on its way to the coordinator, from now on; answer with
    /// `on_uploaded`. None: no blob.
    Upload(Option<Bytes>),
    /// Answer a question.
    Answer(Question, Answer),
    /// Changes the compression of frames.
    Packing(Packing),
    /// A setting adapted to the link; nothing rests on it.
    Adapted(Change),
    /// The link's state changed, and why.
    State(ConnectionState, String),
    /// Ends the process: nothing is left to do.
    Exit,
}

/// Progress of a drain or stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    No,
    /// Finish what runs, deliver it, end.
    Drain,
    /// Stop what runs, make it durable, end.
    Stop,
    Over,
}

/// The state machine of a worker.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    store_id: Arc<str>,
    incarnation: u64,
    coordinator_id: Option<Arc<str>>,
    rng: SmallRng,
    link: Link,
    connection: u64,
    backoff: Backoff,
    probe: probe::Probe,
    /// Time at which the link was last accepted.
    up_since: Millis,
    stats: ConnectionStats,
    attempts: Attempts,
    outbox: Outbox<TaskOutcome>,
    checkpoints: Outbox<Checkpoint>,
    states: States,
    /// The blob that the driver was told to upload.
    uploading: Option<Bytes>,
    /// Start of the period without a link; none while there is one.
    lost: Option<Millis>,
    /// For how long there was no link before this process began.
    away: Millis,
    /// The store says that the link is lost.
    lost_noted: bool,
    /// Cause of the previous link's end, for the next handshake.
    lost_why: (LinkCause, String),
    ending: Ending,
    /// Records decided but not yet handed out, and the number of their batch.
    records: Vec<WorkerRecord>,
    batch: u64,
    persisted: u64,
    outputs: VecDeque<Output>,
    /// Outputs that are released once their batch is durable.
    after: VecDeque<(u64, Output)>,
    /// Room for blobs, as the driver said last: (used, budget, refused).
    disk: (u64, u64, u64),
    /// Heartbeats sent over the former link, and checkpoints that tasks read back.
    beats: u64,
    restored: u64,
    /// Mean duration of recent tasks in milliseconds.
    typical: Option<f64>,
    /// Attempts to start once their batch is durable, by batch and order of reservation.
    starts: BTreeMap<(u64, u64), (TaskId, Epoch)>,
    start_order: u64,
    /// Starts on record of which the open link has heard nothing yet, with their times.
    untold: Vec<(AttemptId, i64)>,
    last_tick: Millis,
    pace: Pace,
    fitness: Fitness,
    /// Reason why this worker must end: another process uses a copy of its store.
    copied: Option<String>,
}

impl Worker {
    /// Goes on from what is durable. `alive` are the attempts that somebody else ran on while
    /// this worker's process was away, also those that ended meanwhile: their `on_finished` is
    /// still to come. Others that had started are reported as interrupted.
    pub fn new(
        config: WorkerConfig,
        snapshot: WorkerSnapshot,
        alive: Vec<Alive>,
        seed: u64,
        now: Now,
    ) -> Self {
        let backoff = Backoff::new(
            config.initial_reconnect_delay,
            config.max_reconnect_delay,
            config.reconnect_jitter,
        );
        let mut worker = Worker {
            store_id: snapshot.store_id,
            incarnation: snapshot.incarnation,
            coordinator_id: snapshot.coordinator_id,
            rng: SmallRng::seed_from_u64(seed),
            link: Link::Waiting { until: now.mono },
            connection: 0,
            backoff,
            probe: probe::Probe::default(),
            up_since: 0,
            stats: ConnectionStats::default(),
            attempts: Attempts::new(config.slots),
            outbox: Outbox::new(snapshot.outbox, snapshot.next_seq),
            checkpoints: Outbox::new(snapshot.checkpoints, snapshot.next_checkpoint),
            states: States::new(snapshot.states, snapshot.next_state),
            uploading: None,
            lost: Some(now.mono),
            away: snapshot.lost.map_or(0, |lost| lost.age(now)),
            lost_noted: snapshot.lost.is_some(),
            lost_why: (LinkCause::Unspecified, String::new()),
            ending: Ending::No,
            records: Vec::new(),
            batch: 1,
            persisted: 0,
            outputs: VecDeque::new(),
            after: VecDeque::new(),
            disk: (0, 0, 0),
            beats: 0,
            restored: 0,
            typical: None,
            starts: BTreeMap::new(),
            start_order: 0,
            untold: Vec::new(),
            fitness: Fitness::default(),
            last_tick: now.mono,
            copied: None,
            pace: Pace::new(
                (config.heartbeat_interval, config.heartbeat_timeout),
                config.pins,
                now,
            ),
            config,
        };
        if !worker.lost_noted && !snapshot.attempts.is_empty() {
            worker.note_lost(now);
        }
        let alive: BTreeMap<(TaskId, Epoch), Alive> =
            alive.into_iter().map(|a| ((a.task.clone(), a.epoch), a)).collect();
        for row in snapshot.attempts {
            let runs = alive.get(&(row.task.clone(), row.epoch));
            match (runs, row.started_at) {
                (Some(runs), started) => {
                    let (task, epoch) = (row.task.clone(), row.epoch);
                    let since = Now { mono: now.mono, wall: runs.started_at };
                    let (paused, known) = (runs.paused, row.paused);
                    worker.arrive(row).paused = paused;
                    // The process ended before the record of a pause was durable.
                    if paused != known {
                        let task = task.clone();
                        worker.records.push(WorkerRecord::Paused { task, epoch, on: paused });
                    }
                    worker.attempts.adopt(&task, epoch, since, started.is_some());
                }
                (None, None) if row.survived < SURVIVED => {
                    let (task, epoch) = (row.task.clone(), row.epoch);
                    worker.arrive(row);
                    worker.attempts.doubt(&task, epoch);
                }
                (None, started) => worker.finish(
                    now,
                    TaskOutcome {
                        task: row.task.clone(),
                        epoch: row.epoch,
                        kind: OutcomeKind::Interrupted,
                        cause: Cause::WorkerCrashed,
                        message: match started {
                            Some(_) => "its worker's process ended while it ran".into(),
                            None => format!("its worker's process ended {SURVIVED} times with it"),
                        },
                        // It may have started: that nobody noted it says little.
                        started_at_ms: started.unwrap_or(now.wall),
                        finished_at_ms: now.wall,
                        ..Default::default()
                    },
                ),
            }
        }
        worker.start_queued(now);
        worker.on_tick(now);
        worker
    }

    /// Leases go on through a restart of this process.
    fn note_lost(&mut self, now: Now) {
        self.records.push(WorkerRecord::LinkLost { at: Some(now) });
        self.lost_noted = true;
    }

    fn arrive(&mut self, row: AttemptRow) -> &mut attempts::Attempt {
        self.attempts.insert(Arrival {
            task: row.task,
            epoch: row.epoch,
            spec: row.spec,
            batch: 0,
            paused: row.paused,
            after: row.after,
            made: row.made,
            checkpoint: row.checkpoint,
            state: row.state,
        })
    }

    /// An attempt that was started has ended.
    pub fn on_finished(&mut self, now: Now, outcome: TaskOutcome) {
        let (task, epoch): (TaskId, _) = (outcome.task.clone(), outcome.epoch);
        if self.attempts.is_out(&task, epoch) {
            self.learn(&outcome);
            let outcome = self.doubted(outcome);
            self.finish(now, outcome);
            self.after.push_back((self.batch, Output::Forget(task, epoch)));
        } else if self.outbox.holds(&task, epoch) {
            // The former process had it, and ended before it could say so.
            let batch = self.open_batch();
            match batch <= self.persisted {
                true => self.outputs.push_back(Output::Forget(task, epoch)),
                false => self.after.push_back((batch, Output::Forget(task, epoch))),
            }
        } else {
            self.outputs.push_back(Output::Forget(task, epoch));
        }
        self.start_queued(now);
        self.settle();
    }

    /// Handles that everything up to this batch is durable.
    pub fn on_persisted(&mut self, now: Now, batch: u64) {
        self.persisted = self.persisted.max(batch);
        self.pace.clock = self.pace.clock.max(now.mono);
        self.outbox.persisted(batch);
        self.checkpoints.persisted(batch);
        self.states.persisted(batch);
        while self.after.front().is_some_and(|(b, _)| *b <= self.persisted) {
            self.outputs.extend(self.after.pop_front().map(|(_, output)| output));
        }
        self.store_works(now);
        self.start_reserved(now);
        self.tell_starts();
        self.send_outbox();
        self.settle();
    }

    /// Starts what has its slots and rests on nothing that is not durable.
    fn start_reserved(&mut self, now: Now) {
        while !self.fitness.stops_work()
            && let Some(first) = self.starts.first_entry()
            && first.key().0 <= self.persisted
        {
            let (task, epoch) = first.remove();
            self.run(now, task, epoch);
        }
    }

    /// Takes no new work, gives back what has not started, finishes and delivers the rest.
    pub fn drain(&mut self, now: Now) {
        self.ending = self.ending.max(Ending::Drain);
        for (task, epoch) in self.attempts.waiting() {
            self.end_waiting(now, &task, epoch, Given::BACK_DRAINED);
        }
        for (task, epoch) in self.attempts.staged() {
            self.outputs.push_back(Output::Recall(task, epoch));
        }
        self.announce(now);
        self.settle();
    }

    /// Stops what runs as interrupted, makes that durable, and ends without waiting for the
    /// coordinator: the outbox is delivered by the next incarnation.
    pub fn stop(&mut self, now: Now) {
        if self.ending < Ending::Stop {
            self.ending = Ending::Stop;
            // What was about to start does not; the next incarnation runs it. What must not run
            // twice is on record as started, and would be taken for that.
            for (_, (task, epoch)) in std::mem::take(&mut self.starts) {
                if self.attempts.is_marked(&task, epoch) {
                    self.end_waiting(now, &task, epoch, Given::BACK_DRAINED);
                }
            }
            let out = [self.attempts.staged(), self.attempts.running()].concat();
            for (task, epoch) in out {
                self.outputs.push_back(Output::StopRun(task, epoch, StopKind::Interrupt));
            }
            self.announce(now);
        }
        self.settle();
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

    /// Returns why this worker must not continue, if so: another process uses a copy of its store.
    pub fn copied(&self) -> Option<&str> {
        self.copied.as_deref()
    }

    /// Returns the state of the link.
    pub fn connection_state(&self) -> ConnectionState {
        self.link.state()
    }

    /// Statistics of the link.
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }
    /// Resets the statistics.
    pub fn reset_stats(&mut self, now: Now) {
        self.stats.reset(now);
    }

    /// (running, waiting, outcomes not yet acknowledged)
    pub fn load(&self) -> (usize, usize, usize) {
        let (running, waiting) = self.attempts.count();
        (running, waiting, self.outbox.len() + self.checkpoints.len() + self.states.len())
    }

    /// Returns true if more attempts wait here than its slots would run at once; `None` if none is held.
    pub fn backlog(&self) -> Option<bool> {
        self.attempts.backlog().map(|waiting| waiting >= self.config.slots as usize)
    }

    /// Hands over ahead while tasks are so short that a round trip between two would matter.
    fn learn(&mut self, outcome: &TaskOutcome) {
        if outcome.started_at_ms > 0 {
            let ms = (outcome.finished_at_ms - outcome.started_at_ms).max(0) as f64;
            let mean = self.typical.map_or(ms, |old| old * 0.8 + ms * 0.2);
            self.typical = Some(mean);
            let short = mean < self.config.stage_below;
            let enough = f64::from(self.config.slots) * self.config.stage_for / mean.max(0.05);
            let ahead = (enough as usize).min(self.config.stage);
            self.attempts.set_ahead(if short { ahead } else { 0 });
        }
    }

    /// Records a durable outcome; the attempt is no longer held.
    fn finish(&mut self, now: Now, mut outcome: TaskOutcome) {
        self.name_checkpoint(&mut outcome);
        self.attempts.remove(&outcome.task, outcome.epoch, now);
        for id in self.attempts.take_to_pause() {
            self.outputs.push_back(Output::Pause(id.task, id.epoch, true));
        }
        let outcome = Arc::new(outcome);
        let seq = self.outbox.push(self.batch, outcome.clone());
        let lane = Lane::Results;
        self.records.push(WorkerRecord::Finished { lane, seq, outcome });
    }

    /// Ends an attempt that has not started.
    fn end_waiting(&mut self, now: Now, task: &TaskId, epoch: Epoch, end: Given<'_>) {
        self.finish(
            now,
            TaskOutcome {
                task: task.clone(),
                epoch,
                kind: end.kind,
                message: end.message.into(),
                cause: end.cause,
                finished_at_ms: now.wall,
                ..Default::default()
            },
        );
    }

    /// Lets waiting attempts start, as far as there are slots. Each starts once its arrival is
    /// durable (and, if it must not run twice, its start); it need not wait for other facts.
    fn start_queued(&mut self, now: Now) {
        if self.ending >= Ending::Stop || self.fitness.stops_work() {
            return;
        }
        while let Some((task, epoch, arrived, once)) = self.attempts.reserve() {
            let mut rests_on = arrived;
            if once {
                let record = WorkerRecord::Starting { task: task.clone(), epoch, at: now.wall };
                self.records.push(record);
                self.attempts.mark(&task, epoch);
                rests_on = self.batch;
            }
            if rests_on <= self.persisted {
                self.run(now, task, epoch);
            } else {
                self.starts.insert((rests_on, self.start_order), (task, epoch));
                self.start_order += 1;
            }
        }
    }

    fn run(&mut self, now: Now, task: TaskId, epoch: Epoch) {
        if let Some(attempt) = self.attempts.begin(&task, epoch, now) {
            let (spec, paused) = (attempt.spec.clone(), attempt.paused);
            let marked = attempt.is_marked() && attempt.is_running();
            self.outputs.push_back(Output::Run(task.clone(), epoch, spec));
            if paused {
                self.outputs.push_back(Output::Pause(task.clone(), epoch, true));
            }
            if marked {
                self.is_untold(AttemptId { task, epoch }, now.wall);
            }
        }
    }

    /// The batch that must be durable for everything decided so far to be.
    fn open_batch(&self) -> u64 {
        if self.records.is_empty() { self.batch - 1 } else { self.batch }
    }

    /// Ends the process once there is nothing left to do.
    fn settle(&mut self) {
        self.send_unsaved();
        if matches!(self.ending, Ending::No | Ending::Over) {
            return;
        }
        let kept_elsewhere = self.is_kept_elsewhere();
        let durable = self.open_batch() <= self.persisted || kept_elsewhere;
        let out = self.attempts.running().len() + self.attempts.staged().len();
        let idle = out == 0 && durable;
        let over = match self.ending {
            Ending::No | Ending::Over => false,
            Ending::Drain => idle && (self.load().2 == 0 || (kept_elsewhere && self.owes() == 0)),
            Ending::Stop => idle,
        };
        if over {
            self.ending = Ending::Over;
            if matches!(self.link, Link::Up { .. }) {
                self.outputs.push_back(Output::Send(ToCoordinator::Bye("worker ends".into())));
                self.outputs.push_back(Output::Close("worker ends".into()));
            }
            self.link = Link::Shutdown;
            self.outputs.push_back(Output::State(ConnectionState::Shutdown, "worker ends".into()));
            self.outputs.push_back(Output::Exit);
        }
    }
}
