//! The state folder of a worker: the names of what is in it, and its store.

use crate::local;
use outlast_core::records::WorkerSnapshot;
use outlast_store::{StoreError, WorkerStore};
use std::path::Path;

/// The folder of blobs.
pub(super) const BLOBS: &str = "blobs";
/// The file of the store.
pub(super) const STORE: &str = "worker.db";
/// The file that notes that the coordinator proved to know a key.
pub(super) const PROVED: &str = "coordinator-proved";
/// The note that another process uses a copy of the folder.
pub(super) const NOTE: &str = "copied";

/// Returns whether a worker has used the folder.
pub(super) fn is_state_folder(folder: &Path) -> bool {
    folder.join(STORE).exists()
}

/// Returns whether this is a name of ours in a state folder, for something that other users need not have.
pub(super) fn is_ours(name: &str) -> bool {
    let kept = [BLOBS, "tmp", local::KEY_FILE, PROVED, NOTE, "api.path"];
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
