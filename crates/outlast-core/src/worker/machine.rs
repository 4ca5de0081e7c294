//! The worker: its components, and what is asked of it between two inputs.

use super::adaptation::Adaptation;
use super::attempts::Attempts;
use super::config::WorkerConfig;
use super::fitness::Fitness;
use super::lanes::Lanes;
use super::output::WorkerJournal;
use super::starts::Starts;
use super::timers::Clock;
use super::uplink::Uplink;
use crate::stats::{ConnectionState, ConnectionStats};
use crate::{Epoch, Now};
use outlast_model::{Bytes, Checkpoint, StateUpdate, TaskSpec};
use std::ops::Bound;
use std::sync::Arc;

/// The state machine of a worker.
#[derive(Debug)]
pub struct Worker {
    pub(super) config: WorkerConfig,
    pub(super) identity: Identity,
    pub(super) journal: WorkerJournal,
    pub(super) clock: Clock,
    pub(super) uplink: Uplink,
    pub(super) attempts: Attempts,
    pub(super) starts: Starts,
    pub(super) lanes: Lanes,
    pub(super) adaptation: Adaptation,
    pub(super) fitness: Fitness,
    pub(super) blobs: BlobUse,
    pub(super) ending: Ending,
}

/// Names of a worker's store, and of its coordinator.
#[derive(Debug)]
pub(super) struct Identity {
    pub store_id: Arc<str>,
    pub incarnation: u64,
    /// The coordinator that it belongs to, once known.
    pub coordinator_id: Option<Arc<str>>,
    /// Reason why this worker must end: another process uses a copy of its store.
    pub copied: Option<String>,
}

/// Use of the blobs on this worker's disk, as the driver reported last.
#[derive(Debug, Default)]
pub(super) struct BlobUse {
    /// Bytes used.
    pub used: u64,
    /// Bytes that may be used; 0: no limit.
    pub budget: u64,
    /// Number of refused blobs.
    pub refused: u64,
    /// Checkpoints that tasks read back.
    pub restored: u64,
}

/// Progress of a drain or stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    No,
    /// Finish what runs, deliver it, end.
    Drain,
    /// Stop what runs, make it durable, end.
    Stop,
    Over,
}

impl Worker {
    /// Returns why this worker must not continue, if so: another process uses a copy of its store.
    pub fn copied(&self) -> Option<&str> {
        self.identity.copied.as_deref()
    }

    /// Returns the state of the link.
    pub fn connection_state(&self) -> ConnectionState {
        self.uplink.state()
    }

    /// Statistics of the link.
    pub fn stats(&self) -> &ConnectionStats {
        self.uplink.stats()
    }
    /// Resets the statistics.
    pub fn reset_stats(&mut self, now: Now) {
        self.uplink.stats_mut().reset(now);
    }

    /// (running, waiting, outcomes not yet acknowledged)
    pub fn load(&self) -> (usize, usize, usize) {
        let (running, waiting) = self.attempts.count();
        (running, waiting, self.lanes.len())
    }

    /// Returns true if the worker drains or stops.
    pub(super) fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    /// Returns true if more attempts wait here than its slots would run at once; `None` if none is held.
    pub fn backlog(&self) -> Option<bool> {
        self.attempts.backlog().map(|waiting| waiting >= self.config.slots as usize)
    }

    /// Returns the number of outcomes that the coordinator has not made durable.
    pub fn unacknowledged(&self) -> usize {
        self.lanes.unacknowledged()
    }

    /// Returns the reports of a held attempt: its newest checkpoint (or the one to resume from) and its
    /// state; `None` when it is not held.
    #[allow(clippy::type_complexity)]
    pub fn reported(
        &self,
        task: &str,
        epoch: Epoch,
    ) -> Option<(Option<Arc<Checkpoint>>, Option<Arc<StateUpdate>>)> {
        let attempt = self.attempts.get(task, epoch)?;
        Some((attempt.checkpoint.clone(), attempt.state.clone()))
    }

    /// Returns the specification of a held attempt, and its start (Unix ms; 0: it does not run yet).
    pub fn held_spec(&self, task: &str, epoch: Epoch) -> Option<(Arc<TaskSpec>, i64)> {
        let attempt = self.attempts.get(task, epoch)?;
        Some((attempt.spec.clone(), attempt.since().map_or(0, |at| at.wall)))
    }

    /// The checkpoints of a task that are known here, oldest first, each with whether the
    /// coordinator has it.
    pub fn known_checkpoints(&self, task: &str, epoch: Epoch) -> Vec<(Arc<Checkpoint>, bool)> {
        let attempt = self.attempts.get(task, epoch);
        let own = (Bound::Excluded(attempt.map_or(0, |a| a.after)), Bound::Unbounded);
        let sending = self.lanes.sending(task, own);
        let mut all: Vec<_> = sending.map(|c| (c.clone(), false)).collect();
        if let Some(newest) = attempt.and_then(|a| a.checkpoint.clone())
            && !all.iter().any(|(c, _)| (c.epoch, c.number) == (newest.epoch, newest.number))
        {
            all.push((newest, true));
        }
        all.sort_by_key(|(c, _)| (c.epoch, c.number));
        all
    }

    /// The blobs that must be kept here: those on their way to the coordinator, and the newest
    /// of every held attempt.
    pub fn wanted_blobs(&self) -> Vec<Bytes> {
        let sending = self.lanes.blobs();
        let held = self.attempts.all().filter_map(|(_, a)| a.checkpoint.as_ref());
        sending.chain(held.map(|c| c.manifest.clone())).collect()
    }

    /// Sets the disk use of blobs, for the heartbeat: bytes used, the budget (0: none), and the number of
    /// refused blobs.
    pub fn on_disk(&mut self, used: u64, budget: u64, refused: u64) {
        self.blobs = BlobUse { used, budget, refused, ..self.blobs };
    }

    /// A task has read a checkpoint back.
    pub fn on_restored(&mut self) {
        self.blobs.restored += 1;
    }
}
