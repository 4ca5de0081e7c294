//! Counts the bytes on disk and says when there are too many.

use crate::BlobError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Packs, whether the index knows them yet or not, and the index itself. SQLite's write-ahead
/// log (cut back to 8 MiB) and the reserve (6 MiB) are not counted.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Option<u64>,
    packs: AtomicU64,
    index: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    pub fn new(limit: Option<u64>, packs: u64, index: u64) -> Self {
        Self {
            limit,
            packs: AtomicU64::new(packs),
            index: AtomicU64::new(index),
            refused: AtomicU64::new(0),
        }
    }

    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Returns whether half of it is used: from then on, room is worth more than time.
    pub fn is_tight(&self) -> bool {
        self.limit.is_some_and(|limit| self.used() > limit / 2)
    }

    pub fn used(&self) -> u64 {
        self.packs.load(Relaxed) + self.index.load(Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts a put or ingest that found no room; passes its result on.
    pub fn note<T>(&self, result: Result<T, BlobError>) -> Result<T, BlobError> {
        if result.as_ref().is_err_and(BlobError::is_full) {
            self.refused.fetch_add(1, Relaxed);
        }
        result
    }

    /// Takes room for a pack that grows. `own` is what the caller has taken before; `enforced`
    /// says whether the limit applies to it.
    pub fn charge(&self, bytes: u64, own: u64, enforced: bool) -> Result<(), BlobError> {
        // Added first and looked at then: two callers cannot both get the last room.
        self.packs.fetch_add(bytes, Relaxed);
        let checked = if enforced { self.check(0, own + bytes) } else { Ok(()) };
        if checked.is_err() {
            self.discharge(bytes);
        }
        checked
    }

    /// Gives room back.
    pub fn discharge(&self, bytes: u64) {
        self.packs.fetch_sub(bytes, Relaxed);
    }

    /// Returns whether the index may grow by about so much; `own` is what the caller has taken.
    pub fn check(&self, bytes: u64, own: u64) -> Result<(), BlobError> {
        let used = self.used();
        match self.limit {
            Some(budget) if used + bytes > budget => {
                let used = used.saturating_sub(own);
                Err(BlobError::Full { used, budget, needed: own + bytes })
            }
            _ => Ok(()),
        }
    }

    pub fn index_is(&self, bytes: u64) {
        self.index.store(bytes, Relaxed);
    }
}
