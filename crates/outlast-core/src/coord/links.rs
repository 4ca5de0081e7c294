//! News of workers' links and tasks for those who measure and watch. Nothing is decided by it.

use super::workers::Member;
use super::{ConnId, Coordinator, Faults, Output, WorkerState};
use crate::adapt::Change;
use crate::records::WorkerRow;
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::message::{Adapted, LinkReport};
use outlast_model::{Lane, LinkCause, OutcomeKind, TaskOutcome};
use std::sync::Arc;

/// Event of a worker's link.
#[derive(Debug, Clone)]
pub struct LinkNews {
    /// The worker's store id.
    pub worker: Arc<str>,
    /// Name of the worker.
    pub name: Arc<str>,
    /// Unix time in milliseconds.
    pub at: i64,
    /// The change.
    pub what: LinkChange,
}

/// Change of a worker's link.
#[derive(Debug, Clone)]
pub enum LinkChange {
    /// The worker connected over this link, and was accepted.
    Connected(ConnId, Option<Box<LinkReport>>),
    /// A worker of the v1 dialect that has several links is reached by this one now; whether it
    /// was opened just now.
    Switched(ConnId, bool),
    /// The difference of inventories was sent, and all unacknowledged records have been applied;
    /// milliseconds since the handshake.
    Resynced(Millis),
    /// The link ended; true if the worker holds tasks.
    Lost(LinkCause, String, bool),
    /// This side changed how it treats the link.
    Adapted(Change),
    /// The worker did.
    WorkerAdapted(Adapted),
    /// The statistics are reset.
    Reset,
    /// The worker reports that it cannot work, or (none) that it can again.
    Unfit(Option<Arc<Faults>>),
    /// An operator removed it.
    Forgotten,
    /// A process with a copy of its state folder was refused; why.
    Copied(String),
}

/// Outcomes of a worker's tasks since the coordinator started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that ran to an end of their own: succeeded, failed or timed out.
    pub executed: u64,
    /// Number of successful tasks.
    pub succeeded: u64,
    /// Total duration in milliseconds, by the worker's clock.
    pub duration_ms: u64,
    /// Checkpoints that took effect.
    pub checkpoints: u64,
    /// The newest ends, a bit each: set for a success.
    recent: u128,
    remembered: u8,
}

/// Ends that the recent success rate is taken of.
const RECENT: u8 = 100;

impl Tally {
    /// An outcome took effect.
    pub fn add(&mut self, outcome: &TaskOutcome) {
        let good = match outcome.kind {
            OutcomeKind::Succeeded => true,
            OutcomeKind::Failed | OutcomeKind::TimedOut => false,
            _ => return,
        };
        self.executed += 1;
        self.succeeded += u64::from(good);
        let ms = (outcome.finished_at_ms - outcome.started_at_ms).max(0) as u64;
        self.duration_ms += if outcome.started_at_ms > 0 { ms } else { 0 };
        self.recent = self.recent << 1 | u128::from(good);
        self.remembered = (self.remembered + 1).min(RECENT);
    }
    /// Adds what was counted of another worker, but for the newest ends.
    pub fn merge(&mut self, other: &Tally) {
        self.executed += other.executed;
        self.succeeded += other.succeeded;
        self.duration_ms += other.duration_ms;
        self.checkpoints += other.checkpoints;
    }
    /// Returns the number of ended tasks that did not succeed.
    pub fn failed(&self) -> u64 {
        self.executed - self.succeeded
    }
    /// Share of successes among the newest 100 ends, and how many these are.
    pub fn recent(&self) -> (f64, u32) {
        let mask = (1u128 << self.remembered) - 1;
        let good = (self.recent & mask).count_ones();
        let n = u32::from(self.remembered);
        (if n == 0 { 1.0 } else { f64::from(good) / f64::from(n) }, n)
    }
}

/// A worker at a moment, for those who measure.
#[derive(Debug, Clone)]
pub struct LinkSample {
    /// Description that the worker sent.
    pub row: Arc<WorkerRow>,
    /// State of the worker.
    pub state: WorkerState,
    /// Attempts that it holds.
    pub held: u32,
    /// Tasks that run there, as it said last.
    pub running: u32,
    /// The worker's own newest round-trip time in milliseconds.
    pub rtt_ms: u32,
    /// Checkpoints that its tasks read back, as it said last.
    pub restored: u64,
    /// Outcomes of its tasks.
    pub tally: Tally,
    /// Faults that the worker reports.
    pub faults: Option<Arc<Faults>>,
    /// Time of the last refusal of a copy of its state folder (Unix ms), and the number of refusals.
    pub copied: Option<(i64, u64)>,
}

impl Member {
    fn sample(&self) -> LinkSample {
        LinkSample {
            row: self.row.clone(),
            state: self.state(),
            held: self.attempts.len() as u32,
            running: self.beat.running,
            rtt_ms: self.beat.rtt_ms,
            restored: self.beat.restored,
            tally: self.tally,
            faults: self.unable.as_ref().map(|u| u.faults.clone()),
            copied: self.rivals.seen().map(|seen| (seen.at, seen.times)),
        }
    }
}

/// Resynchronization of a worker with unacknowledged records: start time, and the last record of each
/// lane.
#[derive(Debug)]
pub(super) struct Resync {
    since: Millis,
    owed: Vec<(Lane, u64)>,
}

impl Resync {
    /// The checkpoints' lane waits for uploads, and is left out.
    pub fn new(since: Millis, report: Option<&LinkReport>) -> Resync {
        let owed = report.map_or(&[][..], |r| &r.owed).iter().take(8);
        let owed = owed.map(|c| (c.lane, c.seq));
        let owed = owed.filter(|(lane, _)| matches!(lane, Lane::Results | Lane::State)).collect();
        Resync { since, owed }
    }
}

impl Coordinator {
    /// All workers at this moment, by name.
    pub fn samples(&self) -> Vec<LinkSample> {
        self.fleet.by_names().map(Member::sample).collect()
    }

    /// One worker at this moment, by name or store id.
    pub fn sample(&self, name_or_store: &str) -> Option<LinkSample> {
        let key = self.fleet.named(name_or_store)?;
        self.fleet.find(key).map(Member::sample)
    }

    pub(super) fn tell(&mut self, now: Now, key: WorkerKey, what: LinkChange) {
        let row = &self.fleet.get(key).row;
        let (worker, name) = (row.store_id.clone(), row.name.clone());
        self.outputs.push_back(Output::News(LinkNews { worker, name, at: now.wall, what }));
    }

    /// Ends the resynchronization of a worker once it has nothing left to deliver.
    pub(super) fn settle_resync(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let Some(resync) = &state.resync else { return };
        let member = self.fleet.get_mut(key);
        let told = member.ready;
        let applied = |(lane, seq): &(Lane, u64)| member.cursor(*lane).is_none_or(|c| *c >= *seq);
        if told && resync.owed.iter().all(applied) {
            let took = now.mono.saturating_sub(resync.since);
            state.resync = None;
            self.tell(now, key, LinkChange::Resynced(took));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_of_their_own_count() {
        let outcome = |kind: OutcomeKind, ms: i64| TaskOutcome {
            kind,
            started_at_ms: 1,
            finished_at_ms: 1 + ms,
            ..TaskOutcome::default()
        };
        let mut t = Tally::default();
        assert_eq!(t.recent(), (1.0, 0));
        for _ in 0..3 {
            t.add(&outcome(OutcomeKind::Succeeded, 10));
        }
        t.add(&outcome(OutcomeKind::Failed, 30));
        t.add(&outcome(OutcomeKind::Cancelled, 1000));
        t.add(&outcome(OutcomeKind::Returned, 0));
        assert_eq!((t.executed, t.failed(), t.duration_ms), (4, 1, 60));
        assert_eq!(t.recent(), (0.75, 4));
        for _ in 0..300 {
            t.add(&outcome(OutcomeKind::TimedOut, 0));
        }
        assert_eq!(t.recent(), (0.0, 100));
    }
}
