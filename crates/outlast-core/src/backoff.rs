//! Pauses before a reconnect.

use crate::Millis;
use rand::{Rng, rngs::SmallRng};

/// Exponential backoff: `initial · 2^(n−1)`, ± jitter, between a floor and `max`.
///
/// The formula and the defaults are those of the replaced system, with a floor added: jitter
/// must not make a herd of instant retries.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// The delay before the first retry, in milliseconds.
    pub initial: Millis,
    /// No delay is longer, in milliseconds.
    pub max: Millis,
    /// Share of the delay by which it varies, 0 to 1.
    pub jitter: f64,
    failures: u32,
}

/// No delay is shorter than this, in milliseconds, unless `initial` is.
pub const FLOOR: Millis = 100;

impl Backoff {
    /// A fresh one.
    pub fn new(initial: Millis, max: Millis, jitter: f64) -> Self {
        Backoff { initial, max: max.max(1), jitter: jitter.clamp(0.0, 1.0), failures: 0 }
    }

    /// A link that was up ended: how long to wait before the first dial, in milliseconds. It is at
    /// once, but for a spread over [`SPREAD`]; the next delay is twice `initial`.
    pub fn lost(&mut self, rng: &mut SmallRng) -> Millis {
        self.failures = 1;
        rng.random_range(0..=SPREAD.min(self.initial).min(self.max))
    }

    /// Counts a failure and says how long to wait, in milliseconds.
    pub fn fail(&mut self, rng: &mut SmallRng) -> Millis {
        self.failures = self.failures.saturating_add(1);
        let doubled = self.initial.saturating_mul(1 << (self.failures - 1).min(32));
        let base = doubled.min(self.max) as f64;
        let spread = rng.random_range(-self.jitter..=self.jitter);
        let floor = FLOOR.min(self.initial).min(self.max);
        ((base * (1.0 + spread)) as Millis).clamp(floor, self.max)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A success: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Workers that lose their coordinator at one time dial over so long, in milliseconds.
pub const SPREAD: Millis = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn doubles_within_its_bounds() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut b = Backoff::new(1000, 60_000, 0.2);
        for n in 0..50u32 {
            let ideal = (1000.0 * 2f64.powi(n as i32)).min(60_000.0);
            let delay = b.fail(&mut rng) as f64;
            assert!(delay >= ideal * 0.79 && delay <= (ideal * 1.21).min(60_000.0), "{n}: {delay}");
        }
        b.reset();
        assert!(b.fail(&mut rng) <= 1200);
        let at_once = (0..50).map(|_| b.lost(&mut rng)).collect::<Vec<_>>();
        assert!(at_once.iter().all(|d| *d <= SPREAD) && at_once.iter().any(|d| *d > 50));
        assert!(
            (1600..=2400).contains(&b.fail(&mut rng)),
            "the seed's timeline: at once, 2 s, 4 s"
        );
        assert!((3200..=4800).contains(&b.fail(&mut rng)));
        let mut tiny = Backoff::new(100, 1000, 1.0);
        assert!((0..1000).all(|_| tiny.fail(&mut rng) >= FLOOR));
    }

    #[test]
    fn delays_vary_also_at_their_limit_and_a_lost_link_counts_as_one_failure() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut b = Backoff::new(1000, 60_000, 0.2);
        let delays: Vec<_> = (0..60).map(|_| b.fail(&mut rng)).skip(10).collect();
        assert!(delays.iter().any(|d| *d < 57_000) && delays.iter().all(|d| *d <= 60_000));
        b.reset();
        b.lost(&mut rng);
        assert!((1600..=2400).contains(&b.fail(&mut rng)));
    }
}
