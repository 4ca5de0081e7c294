//! The rate of the disk, as large puts measured it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Less than this says more about the sync than about the disk.
const LEAST: u64 = 8 << 20;
/// Assumed before anything was seen: a large blob then waits for the disk only.
const UNKNOWN: u64 = 2_000_000_000;

#[derive(Debug)]
pub(crate) struct Disk(AtomicU64);

impl Default for Disk {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

impl Disk {
    pub fn bytes_per_second(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds a measurement: bytes that were written and synced in this time.
    pub fn saw(&self, bytes: u64, took: Duration) {
        if bytes >= LEAST {
            let rate = (bytes as f64 / took.as_secs_f64().max(1e-3)) as u64;
            // Half of what was known: a hiccup does not decide, a change soon does.
            self.0.store(self.bytes_per_second() / 2 + rate / 2, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_from_large_writes() {
        let disk = Disk::default();
        disk.saw(1 << 20, Duration::from_secs(10));
        assert_eq!(disk.bytes_per_second(), UNKNOWN);
        for _ in 0..8 {
            disk.saw(100_000_000, Duration::from_secs(1));
        }
        assert!((100_000_000..120_000_000).contains(&disk.bytes_per_second()));
    }
}
