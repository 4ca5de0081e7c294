//! Probes of the coordinator's address between two dials, so that a worker is back soon after the
//! network is, however long its backoff has grown. A probe is a TCP connection and no more.

use crate::Millis;
use rand::{Rng, rngs::SmallRng};

/// Between two probes at first, and later, in milliseconds.
const EVERY: (Millis, Millis) = (2_000, 5_000);
/// Duration of an outage in milliseconds after which probes become less frequent.
const SOON: Millis = 60_000;
/// Share of the time between two probes by which it varies: many workers lose one coordinator.
const JITTER: f64 = 0.25;
/// A dial after a probe that reached something is spread over this time, in milliseconds.
pub(super) const SPREAD: Millis = 300;

/// Schedule of probes of the address. Only an unreachable address is probed: one that accepts
/// connections and then refuses them is left to the backoff.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Time of the next probe, if any.
    next: Option<Millis>,
    /// The first dial of this outage that did not reach the address.
    since: Option<Millis>,
    /// The driver was asked for one, and has not answered.
    out: bool,
}

impl Probe {
    /// A dial did not reach the address.
    pub fn begin(&mut self, now: Millis, rng: &mut SmallRng) {
        let since = *self.since.get_or_insert(now);
        let every = if now.saturating_sub(since) < SOON { EVERY.0 } else { EVERY.1 };
        let spread = 1.0 + rng.random_range(-JITTER..=JITTER);
        (self.next, self.out) = (Some(now + (every as f64 * spread) as Millis), false);
    }
    /// Ends probing: the address accepts connections, or probes are no longer needed.
    pub fn end(&mut self) {
        *self = Probe::default();
    }
    /// The link's state changed: an answer that is still to come says nothing of the new one.
    pub fn end_requested(&mut self) {
        (self.next, self.out) = (None, false);
    }
    /// Returns true if a probe is due, and marks it as requested.
    pub fn take(&mut self, now: Millis) -> bool {
        let due = !self.out && self.next.is_some_and(|at| at <= now);
        self.out |= due;
        due
    }
    pub fn next_wake(&self) -> Option<Millis> {
        self.next.filter(|_| !self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn probes_become_rarer_in_a_long_outage() {
        let (mut probe, mut rng) = (Probe::default(), SmallRng::seed_from_u64(1));
        probe.begin(0, &mut rng);
        assert!((1_500..=2_500).contains(&probe.next_wake().unwrap()));
        probe.begin(100_000, &mut rng);
        assert!((103_750..=106_250).contains(&probe.next_wake().unwrap()));
    }
}
