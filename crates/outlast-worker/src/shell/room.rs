//! Room on the disk: collection of blobs that nobody needs, now and then, and at once where room is
//! short.

use super::blobs::block;
use super::{Shared, now};
use crate::local;
use outlast_blob::{Blobs, Hash};
use outlast_core::records::WorkerSnapshot;
use outlast_store::{StoreError, WorkerStore};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Folder of blobs in the state folder.
pub(super) const BLOBS: &str = "blobs";
/// The file of the store in the state folder.
pub(super) const STORE: &str = "worker.db";
/// Time between collections.
const EVERY: Duration = Duration::from_secs(60);
/// Time that an unreferenced blob is kept, since it may be requested again.
const GRACE: Duration = Duration::from_secs(600);
/// The same where room is short; and between collections then.
const SHORT: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Room {
    short: Notify,
    used: Mutex<Used>,
    /// Blobs that the coordinator had no room for.
    crowded: AtomicU64,
    /// The last blob could not be kept, since the disk did not let it.
    pub blobs_fail: AtomicBool,
}

/// Start times of operations whose blobs are not referenced yet.
#[derive(Debug, Default)]
struct Used {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

/// Guard: blobs that were stored or looked up since it was made are not collected while it lives.
pub(super) struct Using<'a>(&'a Room, u64);

impl Room {
    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn using(&self) -> Using<'_> {
        let mut used = self.used();
        used.last += 1;
        let number = used.last;
        used.since.insert(number, Instant::now());
        Using(self, number)
    }
    /// The coordinator has no room for a blob.
    pub fn crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }
    /// Records that there was no room for a blob.
    pub fn is_short(&self) {
        self.short.notify_one();
    }
    /// Long enough for all that is in use, however long that takes.
    fn grace(&self, least: Duration) -> Duration {
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

/// Returns true if a worker has used the folder.
pub(super) fn is_state_folder(folder: &Path) -> bool {
    folder.join(STORE).exists()
}

/// Returns whether this is a name of ours in a state folder, of something that other users need not have.
pub(super) fn is_ours(name: &str) -> bool {
    let kept = [BLOBS, "tmp", local::KEY_FILE, super::PROVED, super::identity::NOTE, "api.path"];
    kept.contains(&name) || [STORE, "former-"].iter().any(|ours| name.starts_with(ours))
}

/// Opens the worker's store. On a disk that is full of what could be collected, it gets the room
/// that the blobs have in reserve; then the flag is set.
pub(super) fn open_store(
    state_dir: &Path,
) -> Result<(WorkerStore, WorkerSnapshot, bool), StoreError> {
    let file = state_dir.join(STORE);
    match WorkerStore::open(&file) {
        Err(StoreError::Full) if outlast_blob::free_reserve(state_dir.join(BLOBS)) => {
            WorkerStore::open(&file).map(|(store, snapshot)| (store, snapshot, true))
        }
        opened => opened.map(|(store, snapshot)| (store, snapshot, false)),
    }
}

/// Collects now and then, and where room is short; says how much there is.
pub(super) async fn keep(blobs: Blobs, shared: Arc<Shared>) {
    loop {
        let grace = tokio::select! {
            () = tokio::time::sleep(EVERY) => GRACE,
            () = shared.room.short.notified() => SHORT,
        };
        collect(&blobs, &shared, grace).await;
        tokio::time::sleep(SHORT).await;
    }
}

/// Makes room at once.
pub(super) async fn make(blobs: &Blobs, shared: &Arc<Shared>) {
    collect(blobs, shared, SHORT).await;
}

async fn collect(blobs: &Blobs, shared: &Arc<Shared>, grace: Duration) {
    // In this order: what is not in use any more is wanted, or needless.
    let grace = shared.room.grace(grace);
    let wanted: HashSet<Hash> = shared
        .lock()
        .wanted_blobs()
        .iter()
        .filter_map(|m| m[..].try_into().ok().map(Hash::from_bytes))
        .collect();
    let store = blobs.clone();
    let began = now().mono;
    match block(move || store.collect(&|h| wanted.contains(h), grace)).await {
        Ok(done) if done.bytes > 0 => {
            tracing::debug!(bytes = done.bytes, ms = now().mono - began, "collected blobs");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!("blobs could not be collected: {error}"),
    }
    say(blobs, shared);
}

/// Tells the core what the heartbeat says of the disk.
pub(super) fn say(blobs: &Blobs, shared: &Arc<Shared>) {
    let usage = blobs.usage();
    let budget = usage.budget.unwrap_or(0);
    let refused = usage.refused + shared.room.crowded.load(Ordering::Relaxed);
    shared.lock().on_disk(usage.disk_bytes, budget, refused);
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
        assert_eq!(room.grace(GRACE), GRACE);
        drop(first);
        assert!(room.grace(Duration::ZERO) >= Duration::from_secs(1));
        drop(second);
        assert_eq!(room.grace(Duration::ZERO), Duration::ZERO);
    }
}
