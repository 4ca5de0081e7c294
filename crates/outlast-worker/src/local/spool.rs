//! Bodies of requests on their way to the host: files in the state folder, within a budget.

use super::body::Chunks;
use super::error::HostError;
use super::problem::Refusal;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

/// Prefix of the spool's files.
const PREFIX: &str = "upload-";

/// The spool and its limits, in bytes.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// Largest body in bytes.
    pub max_upload: u64,
    /// Total bytes of all bodies.
    budget: u64,
    used: Arc<AtomicU64>,
}

/// A body that has arrived. Not synced: it is the host's to make it durable.
#[derive(Debug)]
pub struct Spooled {
    path: TempPath,
    _room: Room,
}

impl Spooled {
    pub(super) fn reopen(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

/// Bytes of the budget, given back when dropped.
#[derive(Debug)]
struct Room {
    used: Arc<AtomicU64>,
    taken: u64,
}

impl Room {
    fn grow(&mut self, by: u64, budget: u64) -> Result<(), HostError> {
        let before = self.used.fetch_add(by, Ordering::Relaxed);
        self.taken += by;
        if before + by <= budget {
            return Ok(());
        }
        let detail = "other uploads are on their way; send it again later, or name a path";
        let retry_after = Some(5);
        Err(HostError::Full { budget, used: before, detail: detail.into(), retry_after })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Spool {
    /// Makes the folder, and clears away what a killed worker left in it.
    pub fn new(folder: &Path, max_upload: u64, budget: u64) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Spool { folder: folder.to_owned(), max_upload, budget, used: Arc::default() })
    }

    /// Takes a body in.
    pub async fn take(&self, mut chunks: Chunks) -> Result<Spooled, Refusal> {
        let limit = self.max_upload;
        let too_large = || HostError::TooLarge { what: "the body".into(), limit };
        if chunks.announced().is_some_and(|n| n > limit) {
            return Err(too_large().into());
        }
        let failed = |e: io::Error| HostError::of_file("cannot keep the body", &e);
        let make = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.folder);
        let (file, path) = make.map_err(failed)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let mut room = Room { used: self.used.clone(), taken: 0 };
        while let Some(chunk) = chunks.next().await? {
            room.grow(chunk.len() as u64, self.budget)?;
            if room.taken > limit {
                return Err(too_large().into());
            }
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok(Spooled { path, _room: room })
    }
}
