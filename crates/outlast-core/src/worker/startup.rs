//! A worker's start: what its store has, and what outlived its former process.

use super::adaptation::Adaptation;
use super::attempt::{Arrival, Attempt};
use super::attempts::Attempts;
use super::config::WorkerConfig;
use super::fitness::Fitness;
use super::lanes::Lanes;
use super::machine::{BlobUse, Ending, Identity, Worker};
use super::output::WorkerJournal;
use super::starts::Starts;
use super::timers::Clock;
use super::uplink::Uplink;
use crate::records::{AttemptRow, WorkerRecord, WorkerSnapshot};
use crate::{AttemptId, Epoch, Machine, Now, TaskId};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use std::collections::BTreeMap;

/// An attempt whose start nobody noted is run again after so many ends of its worker's process,
/// less one: it may be what ends it.
pub(super) const SURVIVED: u32 = 3;

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

impl Worker {
    /// Goes on from what is durable. `alive` are the attempts that somebody else ran on while
    /// this worker's process was away, also those that ended meanwhile: their `on_finished` is
    /// still to come. Others that had started are reported as interrupted.
    pub fn new(
        config: WorkerConfig,
        mut snapshot: WorkerSnapshot,
        alive: Vec<Alive>,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut worker = Worker {
            uplink: Uplink::new(&config, snapshot.lost, seed, now),
            lanes: Lanes::take(&mut snapshot),
            identity: Identity {
                store_id: snapshot.store_id,
                incarnation: snapshot.incarnation,
                coordinator_id: snapshot.coordinator_id,
                copied: None,
            },
            journal: WorkerJournal::default(),
            clock: Clock::new(now),
            attempts: Attempts::new(config.slots),
            starts: Starts::new(config.stage, config.slots),
            adaptation: Adaptation::new(config.heartbeat, config.pins, now),
            fitness: Fitness::default(),
            blobs: BlobUse::default(),
            ending: Ending::No,
            config,
        };
        if !worker.uplink.has_recorded_loss() && !snapshot.attempts.is_empty() {
            worker.uplink.record_loss(now, &mut worker.journal);
        }
        let id = |a: &Alive| AttemptId { task: a.task.clone(), epoch: a.epoch };
        let mut alive: BTreeMap<AttemptId, Alive> =
            alive.into_iter().map(|a| (id(&a), a)).collect();
        for row in snapshot.attempts {
            let id = AttemptId { task: row.task.clone(), epoch: row.epoch };
            match (alive.remove(&id), row.started_at) {
                (Some(runs), started) => worker.adopt(now, row, &runs, started.is_some()),
                (None, None) if row.survived < SURVIVED => {
                    worker.arrive(row);
                    worker.attempts.doubt(&id.task, id.epoch);
                }
                (None, started) => worker.crashed(now, id, started),
            }
        }
        worker.start_queued(now);
        worker.on_tick(now);
        worker
    }

    fn arrive(&mut self, row: AttemptRow) -> &mut Attempt {
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

    fn adopt(&mut self, now: Now, row: AttemptRow, runs: &Alive, recorded: bool) {
        let (task, epoch, on) = (row.task.clone(), row.epoch, runs.paused);
        let known = row.paused;
        self.arrive(row).paused = on;
        // The process ended before the record of a pause was durable.
        if on != known {
            self.journal.record(WorkerRecord::Paused { task: task.clone(), epoch, on });
        }
        let since = Now { mono: now.mono, wall: runs.started_at };
        self.attempts.adopt(&task, epoch, since, recorded);
    }

    /// An attempt that had started, or was ended too often with its worker's process, is lost.
    fn crashed(&mut self, now: Now, AttemptId { task, epoch }: AttemptId, started: Option<i64>) {
        let outcome = TaskOutcome {
            task,
            epoch,
            kind: OutcomeKind::Interrupted,
            cause: Cause::WorkerCrashed,
            message: match started {
                Some(_) => "its worker's process ended while it ran".into(),
                None => format!("its worker's process ended {SURVIVED} times with it"),
            },
            // The attempt may have started: that nobody noted it says little.
            started_at_ms: started.unwrap_or(now.wall),
            finished_at_ms: now.wall,
            ..Default::default()
        };
        self.finish(now, outcome);
    }
}
