//! The clocks that the core gets.

use nix::time::{ClockId, clock_gettime};
use outlast_core::Now;
use outlast_core::steady::{DOUBT, Steady};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400_000;
/// A record may be so much newer than the clock, in milliseconds: workers' times are in records too.
const FUTURE: i64 = 60_000;

/// Boot time counts suspend, so that leases are measured in real time.
pub(crate) fn now() -> Now {
    let mono = mono();
    Now { mono, wall: steady(mono).wall(mono, system_wall()) }
}

/// Milliseconds of a clock that does not jump.
fn mono() -> u64 {
    let mono = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| {
        // Not on every kernel.
        clock_gettime(ClockId::CLOCK_MONOTONIC)
    });
    mono.map_or(0, |t| t.tv_sec() as u64 * 1000 + t.tv_nsec() as u64 / 1_000_000)
}

fn steady(mono: u64) -> &'static Steady {
    static STEADY: OnceLock<Steady> = OnceLock::new();
    STEADY.get_or_init(|| Steady::new(mono, system_wall()))
}

/// Returns true if the system's clock has jumped within the last hour.
pub(crate) fn has_jumped() -> bool {
    let mono = mono();
    steady(mono).is_in_doubt(mono)
}

/// The age from which on things are removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// Time by `Now::mono` up to which the clock may be one that is wrong since before the start.
    from: u64,
}

impl Ages {
    /// For a coordinator that starts now and whose newest record is of this time (Unix ms). If the
    /// clock is far from that, either nothing happened for long or the clock is wrong: an hour lets
    /// a time server, or people, correct it before anything is removed.
    pub fn since(newest: Option<i64>) -> Ages {
        let now = now();
        let from = match newest.filter(|newest| is_far(now.wall, *newest)) {
            Some(newest) => {
                let newest = text(newest);
                tracing::info!(
                    newest,
                    "the store's newest record is not of today by the system's clock: nothing is removed by age for an hour"
                );
                now.mono + DOUBT
            }
            None => 0,
        };
        Ages { from }
    }

    /// Unix time in milliseconds before which something is old enough to be removed at `keep`; none
    /// while the system's clock cannot be trusted, which is logged.
    pub fn before(self, keep: Duration) -> Option<i64> {
        let now = now();
        if steady(now.mono).is_in_doubt(now.mono) {
            tracing::warn!("the system's clock has jumped: nothing is removed by age for an hour");
            return None;
        }
        let age = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        (now.mono >= self.from).then(|| now.wall.saturating_sub(age))
    }
}

/// Returns true if the newest record is more than a day old, or of the future.
fn is_far(now: i64, newest: i64) -> bool {
    !(-FUTURE..=DAY).contains(&now.saturating_sub(newest))
}

/// Microseconds of the clock of `Now::mono`.
pub(crate) fn micros() -> u64 {
    let t = clock_gettime(ClockId::CLOCK_BOOTTIME);
    let t = t.or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    t.map_or(0, |t| t.tv_sec() as u64 * 1_000_000 + t.tv_nsec() as u64 / 1_000)
}

/// Unix time in milliseconds, by a clock that does not jump with the system's.
pub(crate) fn wall() -> i64 {
    now().wall
}

fn system_wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn text(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => format!("{unix_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_today_is_trusted_and_one_of_another_day_is_not_at_first() {
        let now = 1_800_000_000_000;
        for (newest, far) in [
            (now, false),
            (now - DAY, false),
            (now - DAY - 1, true),
            (now + FUTURE, false),
            (now + FUTURE + 1, true),
            (i64::MIN, true),
            (i64::MAX, true),
        ] {
            assert_eq!(is_far(now, newest), far, "{newest}");
        }
        let keep = Duration::from_secs(1);
        assert!(Ages::since(None).before(keep).is_some());
        assert!(Ages::since(Some(wall())).before(keep).is_some());
        assert_eq!(Ages::since(Some(wall() - DAY - 1)).before(keep), None);
    }
}
