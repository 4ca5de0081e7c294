//! The worker's half: the session with its coordinator, the attempts it holds, its outbox.
//!
//! Drive it as the crate's documentation says. A worker that is cut off goes on: attempts run,
//! their outcomes become durable, and wait in the outbox until the coordinator acknowledges.

mod attempts;
mod outbox;
mod session;
#[cfg(test)]
mod tests;

use crate::backoff::Backoff;
use crate::records::{Batch, WorkerRecord, WorkerSnapshot};
use crate::stats::{ConnectionState, ConnectionStats};
use crate::{Epoch, Millis, Now, TaskId};
use attempts::Attempts;
use outbox::Outbox;
use outlast_wire::{TaskSpec, v2};
use rand::{SeedableRng, rngs::SmallRng};
use session::Link;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use v2::body::Kind;

/// What a worker is told at start. Times in milliseconds; the defaults are those of the
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
    /// Of the software.
    pub version: String,
    /// Between heartbeats.
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
        }
    }
}

/// How a running attempt is to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// Somebody asked, or another attempt is current: its outcome is CANCELLED.
    Cancel,
    /// The worker stops: its outcome is INTERRUPTED.
    Interrupt,
}

/// What the driver is to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Open a link; answer with `on_connected` or `on_disconnected`. One at a time.
    Dial,
    /// Send on the open link.
    Send(Kind),
    /// Drop the link (or the dial) at once, without a handshake. No `on_disconnected` follows.
    Close(String),
    /// Make durable, then call `on_persisted`.
    Persist(Batch<WorkerRecord>),
    /// Start an attempt; answer with `on_finished`, exactly once.
    Run(TaskId, Epoch, Arc<TaskSpec>),
    /// Stop an attempt that was started; `on_finished` still follows.
    StopRun(TaskId, Epoch, StopKind),
    /// The link's state changed, and why.
    State(ConnectionState, String),
    /// Nothing is left to do; the process may end.
    Exit,
}

/// Whether the worker wants to go on.
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
    stats: ConnectionStats,
    attempts: Attempts,
    outbox: Outbox,
    ending: Ending,
    /// Records decided but not yet handed out, and the number of their batch.
    records: Vec<WorkerRecord>,
    batch: u64,
    persisted: u64,
    outputs: VecDeque<Output>,
    /// Attempts to start once their batch is durable, by batch and order of reservation.
    starts: BTreeMap<(u64, u64), (TaskId, Epoch)>,
    start_order: u64,
    last_tick: Millis,
}

impl Worker {
    /// Goes on from what is durable. Attempts that had started are reported as interrupted:
    /// their processes ended with the former incarnation.
    pub fn new(config: WorkerConfig, snapshot: WorkerSnapshot, seed: u64, now: Now) -> Self {
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
            stats: ConnectionStats::default(),
            attempts: Attempts::new(config.slots),
            outbox: Outbox::new(snapshot.outbox, snapshot.next_seq),
            ending: Ending::No,
            records: Vec::new(),
            batch: 1,
            persisted: 0,
            outputs: VecDeque::new(),
            starts: BTreeMap::new(),
            start_order: 0,
            last_tick: now.mono,
            config,
        };
        for row in snapshot.attempts {
            match row.started_at {
                None => worker.attempts.insert(row.task, row.epoch, row.spec, 0),
                Some(started_at_ms) => worker.finish(v2::TaskOutcome {
                    task_id: row.task.to_string(),
                    epoch: row.epoch,
                    kind: v2::OutcomeKind::OutcomeInterrupted.into(),
                    message: "its worker ended while it ran".into(),
                    started_at_ms,
                    finished_at_ms: now.wall,
                    ..Default::default()
                }),
            }
        }
        worker.start_queued(now);
        worker.on_tick(now);
        worker
    }

    /// An attempt that was started has ended.
    pub fn on_finished(&mut self, now: Now, outcome: v2::TaskOutcome) {
        if self.attempts.is_running(&outcome.task_id, outcome.epoch) {
            self.finish(outcome);
        }
        self.start_queued(now);
        self.settle();
    }

    /// Everything up to this batch is durable.
    pub fn on_persisted(&mut self, now: Now, batch: u64) {
        self.persisted = self.persisted.max(batch);
        self.outbox.persisted(batch);
        while let Some(first) = self.starts.first_entry()
            && first.key().0 <= self.persisted
        {
            let (task, epoch) = first.remove();
            self.run(now, task, epoch);
        }
        self.send_outbox();
        self.settle();
    }

    /// Takes no new work, gives back what has not started, finishes and delivers the rest.
    pub fn drain(&mut self, now: Now) {
        self.ending = self.ending.max(Ending::Drain);
        for (task, epoch) in self.attempts.waiting() {
            self.end_waiting(now, &task, epoch, v2::OutcomeKind::OutcomeReturned, "worker drains");
        }
        self.announce(now);
        self.settle();
    }

    /// Stops what runs as interrupted, makes that durable, and ends without waiting for the
    /// coordinator: the outbox is delivered by the next incarnation.
    pub fn stop(&mut self, now: Now) {
        if self.ending < Ending::Stop {
            self.ending = Ending::Stop;
            for (task, epoch) in self.attempts.running() {
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

    /// Where the link stands.
    pub fn connection_state(&self) -> ConnectionState {
        self.link.state()
    }

    /// Statistics of the link.
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }

    /// (running, waiting, outcomes not yet acknowledged)
    pub fn load(&self) -> (usize, usize, usize) {
        (self.attempts.running().len(), self.attempts.waiting().len(), self.outbox.len())
    }

    /// Records a durable outcome; the attempt is no longer held.
    fn finish(&mut self, outcome: v2::TaskOutcome) {
        self.attempts.remove(&outcome.task_id, outcome.epoch);
        let outcome = Arc::new(outcome);
        let seq = self.outbox.push(self.batch, outcome.clone());
        let lane = v2::Lane::Results.into();
        self.records.push(WorkerRecord::Finished { lane, seq, outcome });
    }

    /// Ends an attempt that has not started.
    fn end_waiting(
        &mut self,
        now: Now,
        task: &TaskId,
        epoch: Epoch,
        kind: v2::OutcomeKind,
        message: &str,
    ) {
        self.finish(v2::TaskOutcome {
            task_id: task.to_string(),
            epoch,
            kind: kind.into(),
            message: message.into(),
            finished_at_ms: now.wall,
            ..Default::default()
        });
    }

    /// Lets waiting attempts start, as far as there are slots. Each starts once its arrival is
    /// durable (and, if it must not run twice, its start); it need not wait for other facts.
    fn start_queued(&mut self, now: Now) {
        if self.ending >= Ending::Stop {
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
        if let Some(spec) = self.attempts.begin(&task, epoch, now) {
            self.outputs.push_back(Output::Run(task, epoch, spec));
        }
    }

    /// The batch that must be durable for everything decided so far to be.
    fn open_batch(&self) -> u64 {
        if self.records.is_empty() { self.batch - 1 } else { self.batch }
    }

    /// Ends the process once there is nothing left to do.
    fn settle(&mut self) {
        if matches!(self.ending, Ending::No | Ending::Over) {
            return;
        }
        let durable = self.open_batch() <= self.persisted;
        let idle = self.attempts.running().is_empty() && durable;
        let over = match self.ending {
            Ending::No | Ending::Over => false,
            Ending::Drain => idle && self.outbox.len() == 0,
            Ending::Stop => idle,
        };
        if over {
            self.ending = Ending::Over;
            if matches!(self.link, Link::Up { .. }) {
                let bye = v2::Bye { reason: "worker ends".into() };
                self.outputs.push_back(Output::Send(Kind::Bye(bye)));
                self.outputs.push_back(Output::Close("worker ends".into()));
            }
            self.link = Link::Shutdown;
            self.outputs.push_back(Output::State(ConnectionState::Shutdown, "worker ends".into()));
            self.outputs.push_back(Output::Exit);
        }
    }
}
