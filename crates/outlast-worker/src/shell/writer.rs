//! The agent's writer: who hears of commits. What cannot be written is reported to the core at once: others
//! can run what waits here.

use super::driver::Driver;
use super::{disk, now};
use outlast_core::records::{Batch, WorkerRecord};
use outlast_core::worker::Unfit;
use outlast_driver::group::ToWrite;
use outlast_driver::writer::{self, Observer};
use outlast_store::{StoreError, WorkerStore};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Tries after the agent was told to end.
const LAST_TRIES: u32 = 3;

/// Number of records that one task causes at once.
pub(super) const ALONE: usize = 2;

/// Starts the thread.
pub(super) fn start(
    store: WorkerStore,
    batches: ToWrite<WorkerRecord>,
    driver: Arc<Driver>,
    folder: PathBuf,
) -> io::Result<JoinHandle<()>> {
    let commits = Commits { driver, folder, reported: false, last_tries: 0 };
    writer::start("outlast-writer", store, batches, commits)
}

/// Observer of commits.
struct Commits {
    driver: Arc<Driver>,
    folder: PathBuf,
    /// The core knows that the store cannot be written.
    reported: bool,
    /// Tries since the agent was asked to end.
    last_tries: u32,
}

impl Observer<WorkerStore> for Commits {
    fn durable(&mut self, group: Vec<Batch<WorkerRecord>>) {
        if std::mem::take(&mut self.reported) {
            tracing::info!("the state folder can be written again");
        }
        self.last_tries = 0;
        let Some(last) = group.last().map(|b| b.number) else { return };
        self.driver.feed(|core| core.on_persisted(now(), last));
    }

    fn refused(&mut self, error: &StoreError, _: bool) -> bool {
        if !std::mem::replace(&mut self.reported, true) {
            let why = reason(&self.folder, error);
            tracing::error!(
                "the state folder cannot be written, so nothing starts here until that is mended: \
                 {why}"
            );
            self.driver.feed(|core| core.set_unfit(now(), Unfit::Store, Some(why)));
        }
        // The disk may be full of this worker's own data that nobody needs.
        if matches!(error, StoreError::Full) {
            self.driver.room.is_short();
        }
        self.last_tries += u32::from(self.driver.outlets.ended.borrow().is_some());
        let again = self.last_tries <= LAST_TRIES;
        if !again {
            self.failed(error);
        }
        again
    }

    fn failed(&mut self, error: &StoreError) {
        tracing::error!("the state folder cannot be written, stopping: {error}");
        self.driver.outlets.end(true, &error.to_string());
    }

    fn ended(&mut self, mut store: WorkerStore) {
        // Nothing that this process held has ended it.
        if let Err(error) = store.end_well() {
            tracing::warn!("the next start will take this end for a crash: {error}");
        }
    }
}

/// The system's own words where it has any: SQLite says little more than "disk I/O error".
fn reason(folder: &Path, error: &StoreError) -> String {
    match probe(folder) {
        _ if matches!(error, StoreError::Full) => "No space left on device".to_owned(),
        Err(system) => disk::words(&system),
        Ok(()) => error.to_string(),
    }
}

/// Writes a small file into the folder, syncs it, and removes it.
pub(super) fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(".probe");
    let written = (|| {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    })();
    let _ = std::fs::remove_file(&path);
    written
}
