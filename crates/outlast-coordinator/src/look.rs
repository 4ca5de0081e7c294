//! Queries of the core: tasks that have ended, and blobs.

use crate::blobs::service::BlobService;
use outlast_blob::Hash;
use outlast_core::coord::{Given, Lookup, PastAttempt};
use outlast_core::records::TaskRow;
use outlast_model::{Checkpoint, StateUpdate};
use outlast_store::{CoordReader, StoreError};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Tries before the store counts as unreadable, and the pause between them.
const TRIES: (u32, Duration) = (5, Duration::from_millis(100));

pub(crate) struct Look {
    reader: CoordReader,
    blobs: BlobService,
    failed: RefCell<Option<String>>,
}

impl Look {
    pub fn new(reader: CoordReader, blobs: BlobService) -> Look {
        Look { reader, blobs, failed: RefCell::new(None) }
    }

    pub fn task_row(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        self.reader.task_row(id)
    }

    pub fn is_owned(&self, id: &str, owner: &str) -> Result<bool, StoreError> {
        self.reader.is_owned(id, owner)
    }

    pub fn former(&self, id: &str) -> Result<u64, StoreError> {
        self.reader.former(id)
    }

    /// Asks the store, a few times if need be.
    fn read<T: Default>(&self, ask: impl Fn(&CoordReader) -> Result<T, StoreError>) -> T {
        self.read_or(T::default, ask)
    }

    fn read_or<T>(
        &self,
        unknown: impl Fn() -> T,
        ask: impl Fn(&CoordReader) -> Result<T, StoreError>,
    ) -> T {
        let mut tries = 1;
        loop {
            match ask(&self.reader) {
                Ok(found) => return found,
                Err(error) if tries >= TRIES.0 => {
                    *self.failed.borrow_mut() = Some(error.to_string());
                    return unknown();
                }
                Err(_) => std::thread::sleep(TRIES.1),
            }
            tries += 1;
        }
    }

    /// Returns the error for which the core got "unknown" though nobody could read it. What it decided
    /// since must not be carried out.
    pub fn failed(&self) -> Option<String> {
        self.failed.borrow_mut().take()
    }
}

impl Lookup for Look {
    fn task(&self, id: &str) -> Option<TaskRow> {
        self.read(|reader| reader.task_row(id))
    }

    fn attempts(&self, task: &str, worker: &str) -> Vec<PastAttempt> {
        self.read(|reader| reader.attempts(task, worker))
    }

    fn given(&self, task: &str, epoch: u64) -> Given {
        self.read_or(|| Given::Never, |reader| reader.given(task, epoch))
    }

    fn key_is_valid(&self, name: &str) -> bool {
        self.read_or(|| true, |reader| reader.key_is_valid(name))
    }

    fn state(&self, task: &str) -> Option<StateUpdate> {
        self.read(|reader| reader.state(task))
    }

    fn checkpoints(&self, task: &str) -> Vec<Arc<Checkpoint>> {
        let all = self.read(|reader| reader.checkpoints(task));
        all.into_iter().map(|c| c.checkpoint).collect()
    }

    fn has_blob(&self, manifest: &[u8], store: &str) -> bool {
        let stores = [store.to_owned()];
        // A worker that knows no more of a blob than its name cannot make it its own.
        let of = |hash| self.blobs.is_from(&Hash::from_bytes(hash), &stores);
        if !<[u8; 32]>::try_from(manifest).is_ok_and(of)
            && !self.read(|reader| reader.may_read(manifest, &stores))
        {
            return false;
        }
        // Its worker uploads again what was here all the time; nothing is lost.
        self.blobs.has(manifest).unwrap_or_else(|error| {
            tracing::warn!("a blob could not be looked up: {error}");
            false
        })
    }
}
