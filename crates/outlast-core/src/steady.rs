//! A wall clock that does not jump. Ages, durations and what is removed by age go by it.

use crate::Millis;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A system clock that is this far off within a moment has jumped, in milliseconds. Less is
/// followed at once: it is how time servers correct a clock.
const JUMP: i64 = 2_000;
/// A clock that has jumped and goes on evenly for this long is right, in milliseconds.
const ADOPT: Millis = 300_000;
/// Time in milliseconds after a jump in which nothing is removed by age.
pub const DOUBT: Millis = 3_600_000;

/// Unix time that goes on as a monotonic clock does. The system's clock is followed while it does
/// the same; if it jumps, it is taken for right only after five minutes.
#[derive(Debug)]
pub struct Steady {
    /// Unix time less monotonic time, in milliseconds.
    offset: AtomicI64,
    /// The same by the system's clock since it has jumped, and the monotonic time of the jump; 0: it
    /// has not.
    strange: AtomicI64,
    since: AtomicU64,
    /// Monotonic time until which nothing is to be removed by age.
    doubt: AtomicU64,
}

impl Steady {
    /// A clock that begins with the system's Unix time `wall` at the monotonic time `mono`.
    pub fn new(mono: Millis, wall: i64) -> Steady {
        Steady {
            offset: AtomicI64::new(wall.saturating_sub(mono as i64)),
            strange: AtomicI64::new(0),
            since: AtomicU64::new(0),
            doubt: AtomicU64::new(0),
        }
    }

    /// Returns Unix time in milliseconds, given both of the system's clocks. May be called by
    /// several threads.
    pub fn wall(&self, mono: Millis, wall: i64) -> i64 {
        let (offset, seen) = (self.offset.load(Relaxed), wall.saturating_sub(mono as i64));
        if seen.saturating_sub(offset).abs() <= JUMP {
            if seen != offset {
                self.offset.store(seen, Relaxed);
            }
            if self.since.load(Relaxed) != 0 {
                self.since.store(0, Relaxed);
            }
            return wall;
        }
        self.doubt.fetch_max(mono.saturating_add(DOUBT), Relaxed);
        let since = self.since.load(Relaxed);
        if since == 0 || seen.saturating_sub(self.strange.load(Relaxed)).abs() > JUMP {
            self.strange.store(seen, Relaxed);
            self.since.store(mono.max(1), Relaxed);
        } else if mono.saturating_sub(since) >= ADOPT {
            self.offset.store(seen, Relaxed);
            self.since.store(0, Relaxed);
            return wall;
        }
        offset.saturating_add(mono as i64)
    }

    /// Returns true if the system's clock has jumped within the last hour, so that nothing may be removed
    /// by age.
    pub fn is_in_doubt(&self, mono: Millis) -> bool {
        mono < self.doubt.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 31_536_000_000;

    #[test]
    fn a_jump_that_goes_back_is_not_followed() {
        let c = Steady::new(1_000, 50_000_000);
        assert_eq!(c.wall(2_000, 50_001_000), 50_001_000);
        for by in [YEAR, -YEAR, 3_600_000, -40_000] {
            let before = c.wall(3_000, 50_002_000);
            assert_eq!(c.wall(13_000, 50_012_000 + by), before + 10_000, "it jumped by {by}");
            assert_eq!(c.wall(18_000, 50_017_000 + by), before + 15_000);
            assert!(c.is_in_doubt(18_000));
            assert_eq!(c.wall(3_000, 50_002_000), before);
        }
    }

    #[test]
    fn a_clock_that_was_set_is_followed_after_a_while() {
        let c = Steady::new(1_000, 50_000_000);
        assert_eq!(c.wall(2_000, 50_001_000 + YEAR), 50_001_000);
        assert_eq!(
            c.wall(2_000 + ADOPT - 1, 50_000_999 + ADOPT as i64 + YEAR),
            50_000_999 + ADOPT as i64
        );
        let now = 50_001_000 + ADOPT as i64 + YEAR;
        assert_eq!(c.wall(2_000 + ADOPT, now), now);
        assert!(c.is_in_doubt(2_000 + ADOPT) && !c.is_in_doubt(3_000 + ADOPT + DOUBT));
    }

    #[test]
    fn slow_corrections_are_followed_at_once() {
        let c = Steady::new(0, 50_000_000);
        for n in 1..100 {
            let wall = 50_000_000 + n * 1_000 + n * 500;
            assert_eq!(c.wall(n as u64 * 1_000, wall), wall);
        }
        assert!(!c.is_in_doubt(100_000));
    }
}
