//! Outcomes of a worker's tasks, counted.

use outlast_model::{OutcomeKind, TaskOutcome};

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
