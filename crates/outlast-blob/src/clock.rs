//! Time for grace periods: read once from the wall, then steady.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch as they were when the store was opened, plus what a
/// monotonic clock has counted since: a wall clock that jumps cannot age anything.
#[derive(Debug)]
pub(crate) struct Clock {
    opened_at: u64,
    since: Instant,
}

impl Clock {
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { opened_at: wall.as_millis() as u64, since: Instant::now() }
    }

    pub fn now(&self) -> u64 {
        self.opened_at + self.since.elapsed().as_millis() as u64
    }
}
