//! The thread that commits: everything that waits goes into one transaction, and only once that
//! is synced is it reported. What cannot be written is kept and tried again, and the core is
//! informed at once: others can run what waits here.

use super::driver::Driver;
use super::{disk, now};
use outlast_core::records::{Batch, WorkerRecord};
use outlast_core::worker::Unfit;
use outlast_store::group::ToWrite;
use outlast_store::{StoreError, WorkerStore};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

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
    std::thread::Builder::new()
        .name("outlast-writer".to_owned())
        .spawn(move || run(store, batches, &driver, &folder))
}

fn run(
    mut store: WorkerStore,
    mut batches: ToWrite<WorkerRecord>,
    driver: &Arc<Driver>,
    folder: &Path,
) {
    while let Some(group) = batches.take() {
        let Some(last) = group.last().map(|b| b.number) else { continue };
        if let Err(error) = commit(&mut store, &group, driver, folder) {
            tracing::error!("the state folder cannot be written, stopping: {error}");
            return driver.end(true, &error.to_string());
        }
        driver.feed(|core| core.on_persisted(now(), last));
    }
    // Whatever this process held was not what ended it.
    if let Err(error) = store.end_well() {
        tracing::warn!("the next start will take this end for a crash: {error}");
    }
}

fn commit(
    store: &mut WorkerStore,
    group: &[Batch<WorkerRecord>],
    driver: &Arc<Driver>,
    folder: &Path,
) -> Result<(), StoreError> {
    let (mut delay, mut told, mut tries) = (Duration::from_millis(100), false, 0);
    loop {
        match store.commit(group) {
            Ok(()) => {
                if told {
                    tracing::info!("the state folder can be written again");
                }
                return Ok(());
            }
            Err(error) if error.is_retryable() => {
                if !told {
                    let why = reason(folder, &error);
                    tracing::error!(
                        "the state folder cannot be written, so nothing starts here until that is \
                         mended: {why}"
                    );
                    told = true;
                    driver.feed(|core| core.set_unfit(now(), Unfit::Store, Some(why)));
                }
                // What fills the disk may be this worker's own, and needless.
                if matches!(error, StoreError::Full) {
                    driver.room.is_short();
                }
                tries += u32::from(driver.ended.borrow().is_some());
                if tries > LAST_TRIES {
                    return Err(error);
                }
                std::thread::sleep(delay);
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Err(error),
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
