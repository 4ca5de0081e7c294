//! Whose a state folder is. A worker that is told that another process uses a copy of its folder
//! notes that in it and ends; it does not start again before somebody has decided which is which.

use super::{StartError, room};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// The note in the state folder.
pub(super) const NOTE: &str = "copied";

/// As whom a worker starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// As its state folder says, unless that was found to be a copy.
    #[default]
    Folder,
    /// As its state folder says, also if it was found to be a copy: the other one is gone.
    Keep,
    /// As a new worker. What the folder holds of the former one is put aside.
    New,
}

fn note(state_dir: &Path) -> PathBuf {
    state_dir.join(NOTE)
}

/// Notes why this folder is not to be used.
pub(super) fn mark(state_dir: &Path, why: &str) {
    if let Err(error) = std::fs::write(note(state_dir), why) {
        tracing::error!("{}: {error}", note(state_dir).display());
    }
}

/// Settles as whom the worker starts; before its store is opened.
pub(super) fn settle(state_dir: &Path, identity: Identity) -> Result<(), StartError> {
    let note = note(state_dir);
    if identity == Identity::Folder {
        return match std::fs::read_to_string(&note) {
            Ok(why) => Err(StartError::Copied(state_dir.into(), why)),
            Err(_) => Ok(()),
        };
    }
    if identity == Identity::New && state_dir.join(room::STORE).is_file() {
        let (mut store, ..) = room::open_store(state_dir)?;
        let (aside, owed) = store.renew(state_dir)?;
        tracing::warn!(
            "this worker has a new identity; what the former one held is in {}, with {owed} \
             results that it had not delivered",
            aside.display()
        );
    }
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StartError::Folder(note, error))
        }
        _ => Ok(()),
    }
}

/// A random number of this start.
pub(super) fn nonce() -> u64 {
    // The standard library seeds it from the system.
    RandomState::new().build_hasher().finish().max(1)
}
