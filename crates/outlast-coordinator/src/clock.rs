//! The clocks that the core is told.

use nix::time::{ClockId, clock_gettime};
use outlast_core::Now;
use std::time::{SystemTime, UNIX_EPOCH};

/// Boot time counts suspend, so that leases are measured in real time.
pub(crate) fn now() -> Now {
    let mono = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| {
        // Not on every kernel.
        clock_gettime(ClockId::CLOCK_MONOTONIC)
    });
    let mono = mono.map_or(0, |t| t.tv_sec() as u64 * 1000 + t.tv_nsec() as u64 / 1_000_000);
    Now { mono, wall: wall() }
}

/// Microseconds of the clock of `Now::mono`.
pub(crate) fn micros() -> u64 {
    let t = clock_gettime(ClockId::CLOCK_BOOTTIME);
    let t = t.or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    t.map_or(0, |t| t.tv_sec() as u64 * 1_000_000 + t.tv_nsec() as u64 / 1_000)
}

/// Unix time in milliseconds.
pub(crate) fn wall() -> i64 {
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
