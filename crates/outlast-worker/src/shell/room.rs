//! The room that blobs have on the disk: what is in use, and what found none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The use of the disk by blobs.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub short: Notify,
    used: Mutex<Used>,
    /// Blobs that the coordinator had no room for.
    crowded: AtomicU64,
    /// The disk did not let the last blob be kept.
    pub blobs_fail: AtomicBool,
}

/// Times since when blobs are made or fetched that nothing refers to yet.
#[derive(Debug, Default)]
struct Used {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

/// A use of blobs: what is stored or queried since its beginning is not collected while it lives.
pub(super) struct Using<'a>(&'a Room, u64);

impl Room {
    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Begins a use.
    pub fn using(&self) -> Using<'_> {
        let mut used = self.used();
        used.last += 1;
        let number = used.last;
        used.since.insert(number, Instant::now());
        Using(self, number)
    }
    /// Notes that the coordinator has no room for a blob.
    pub fn crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }
    /// Number of blobs that the coordinator had no room for.
    pub fn refused(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }
    /// Notes that something found no room.
    pub fn is_short(&self) {
        self.short.notify_one();
    }
    /// A grace period that is long enough for all that is in use.
    pub fn grace(&self, least: Duration) -> Duration {
        // They are in order of their beginning.
        let oldest = self.used().since.first_key_value().map(|(_, since)| since.elapsed());
        oldest.map_or(least, |age| least.max(age + Duration::from_secs(1)))
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.used().since.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_older_than_no_grace() {
        let room = Room::default();
        assert_eq!(room.grace(Duration::ZERO), Duration::ZERO);
        let first = room.using();
        let second = room.using();
        assert!(room.grace(Duration::ZERO) >= Duration::from_secs(1));
        let long = Duration::from_secs(600);
        assert_eq!(room.grace(long), long);
        drop(first);
        assert!(room.grace(Duration::ZERO) >= Duration::from_secs(1));
        drop(second);
        assert_eq!(room.grace(Duration::ZERO), Duration::ZERO);
    }
}
