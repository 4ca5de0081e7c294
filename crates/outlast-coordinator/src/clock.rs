//! The clocks that the core is told.

use nix::time::{ClockId, clock_gettime};
use outlast_core::Now;
use outlast_core::steady::Steady;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Unix time in milliseconds before which something is old enough to be removed at `keep`; none
/// while the system's clock cannot be trusted, which is logged.
pub(crate) fn before(keep: Duration) -> Option<i64> {
    let now = now();
    if steady(now.mono).is_in_doubt(now.mono) {
        tracing::warn!("the system's clock has jumped: nothing is removed by age for an hour");
        return None;
    }
    let age = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    Some(now.wall.saturating_sub(age))
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
