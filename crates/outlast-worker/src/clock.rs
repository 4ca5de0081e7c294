//! The clocks of this process. Owns how Unix time is kept from jumping.

use outlast_core::Now;
use outlast_core::steady::Steady;
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Both clocks. Boot time counts suspend, so that silence is measured in real time; Unix time does not
/// jump with the system's, so that durations and ages are right.
pub fn now() -> Now {
    static STEADY: OnceLock<Steady> = OnceLock::new();
    let t = clock_gettime(ClockId::Boottime);
    let mono = t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
    Now { mono, wall: STEADY.get_or_init(|| Steady::new(mono, wall)).wall(mono, wall) }
}
