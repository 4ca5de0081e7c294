//! The identity of a worker. One that learns that another process uses a copy of its state folder notes that
//! in the folder and ends; it does not start again before an operator has decided which is which.

use super::start_error::StartError;
use super::state_folder::{NOTE, STORE, open_store};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// The identity with which a worker starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// The state folder's identity, unless that was found to be a copy.
    #[default]
    Folder,
    /// The state folder's identity, even if it was found to be a copy: the other process is gone.
    Keep,
    /// A new identity. The folder's previous content is set aside.
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

/// Settles the identity with which the worker starts; before its store is opened.
pub(super) fn settle(state_dir: &Path, identity: Identity) -> Result<(), StartError> {
    let note = note(state_dir);
    if identity == Identity::Folder {
        return match std::fs::read_to_string(&note) {
            Ok(why) => Err(StartError::Copied(state_dir.into(), why)),
            Err(_) => Ok(()),
        };
    }
    if identity == Identity::New && state_dir.join(STORE).is_file() {
        let (mut store, ..) = open_store(state_dir)?;
        let (aside, left) = store.renew(state_dir)?;
        tracing::warn!(
            "this worker has a new identity; the previous content of its folder is in {}, with {left} \
             undelivered results",
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
