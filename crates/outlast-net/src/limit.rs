//! Size limits of request bodies to one address. Proxies have limits, which they show by status 413
//! or by cutting the connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bodies larger than this (bytes) need no limit: none are sent.
const ANY: usize = 32 << 20;
/// Time after which a limit is tried to be exceeded: at first, and at most. Shorter after a cut,
/// which may have had another reason.
const AGAIN: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(24 * 3600));
const AFTER_CUT: Duration = Duration::from_secs(30);

/// Reason why a body did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The body was refused for its size.
    Refused,
    /// The connection was cut, or it took too long: its size may have been the reason.
    Cut,
}

/// The limit that is known, for as long as the process runs.
#[derive(Debug, Default)]
pub struct BodyLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limit: Option<Known>,
    /// The largest body that passed since the limit was found.
    passed: usize,
    /// Time for which the next limit holds.
    wait: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    bytes: usize,
    until: Instant,
}

impl BodyLimit {
    /// Bytes that a body may have now.
    pub fn bytes(&self, now: Instant) -> usize {
        let mut state = self.lock();
        let Some(known) = state.limit else { return usize::MAX };
        if now < known.until {
            return known.bytes;
        }
        // Once more as much, and the next step as much later.
        let bytes = known.bytes.saturating_mul(2);
        state.limit = (bytes < ANY).then_some(Known { bytes, until: now + state.wait });
        state.limit.map_or(usize::MAX, |known| known.bytes)
    }

    /// A body of this size passed.
    pub fn passed(&self, bytes: usize) {
        let mut state = self.lock();
        state.passed = state.passed.max(bytes);
    }

    /// A body of this size did not pass; the limit from now on.
    pub fn stopped(&self, bytes: usize, why: Stopped, now: Instant) -> usize {
        let mut state = self.lock();
        // What passed before a cut may not pass now.
        let passed = if why == Stopped::Refused && state.passed < bytes { state.passed } else { 0 };
        state.passed = passed;
        let least = if why == Stopped::Refused { AGAIN.0 } else { AFTER_CUT };
        state.wait = (state.wait * 2).clamp(least, AGAIN.1);
        let limit = (bytes / 2).max(passed).max(1);
        state.limit = Some(Known { bytes: limit, until: now + state.wait });
        limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_limit_is_found_by_halves_and_remembered() {
        let (limit, now) = (BodyLimit::default(), Instant::now());
        assert_eq!(limit.bytes(now), usize::MAX);
        assert_eq!(limit.stopped(6 * MIB, Stopped::Refused, now), 3 * MIB);
        assert_eq!(limit.stopped(3 * MIB, Stopped::Refused, now), 3 * MIB / 2);
        assert_eq!(limit.stopped(3 * MIB / 2, Stopped::Refused, now), 3 * MIB / 4);
        limit.passed(3 * MIB / 4);
        assert_eq!(limit.bytes(now + Duration::from_secs(60)), 3 * MIB / 4);
        // A little more is refused: what passed is known to pass.
        assert_eq!(limit.stopped(MIB + 1, Stopped::Refused, now), 3 * MIB / 4);
    }

    #[test]
    fn it_grows_again_and_the_later_the_more_often_it_was_refused() {
        let (limit, mut now) = (BodyLimit::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            let small = limit.stopped(2 * MIB, Stopped::Refused, now);
            let began = now;
            while limit.bytes(now) == small {
                now += Duration::from_secs(60);
            }
            assert_eq!(limit.bytes(now), 2 * MIB);
            waits.push((now - began).as_secs());
        }
        assert_eq!(waits[..3], [600, 1200, 2400]);
        assert_eq!(waits.last(), Some(&AGAIN.1.as_secs()));
        // A proxy that is gone is forgotten in the end.
        for _ in 0..6 {
            now += AGAIN.1;
            limit.bytes(now);
        }
        assert_eq!(limit.bytes(now), usize::MAX);
    }

    #[test]
    fn a_cut_is_soon_forgotten() {
        let (limit, now) = (BodyLimit::default(), Instant::now());
        limit.passed(6 * MIB);
        assert_eq!(limit.stopped(6 * MIB, Stopped::Cut, now), 3 * MIB);
        assert_eq!(limit.bytes(now + AFTER_CUT), 6 * MIB);
    }
}
