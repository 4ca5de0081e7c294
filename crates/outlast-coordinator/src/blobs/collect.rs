//! Removes the blobs that no checkpoint refers to any more, now and then.

use super::BlobShelf;
use crate::clock::Ages;
use crate::driver::{Ask, Driver};
use crate::readers::Readers;
use outlast_blob::{Collected, Hash};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

/// Before the first collection, or less when they are closer together.
const FIRST: Duration = Duration::from_secs(60);

/// Checkpoints that are removed for their age before the store is read again.
const AT_ONCE: usize = 500;
const ROUNDS: u32 = 200;

/// What collections did since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub runs: u64,
    pub failed: u64,
    pub manifests: u64,
    pub chunks: u64,
    pub bytes: u64,
}

/// Collects until the coordinator ends.
pub(crate) async fn run(
    shelf: BlobShelf,
    driver: Driver,
    readers: Readers,
    ages: Ages,
    every: Duration,
    keep_done: Duration,
) {
    let mut wait = every.min(FIRST);
    loop {
        tokio::time::sleep(wait).await;
        wait = every;
        if let Err(why) = prune(&driver, &readers, ages, keep_done).await {
            tracing::warn!("old checkpoints were not removed: {why}");
        }
        match once(&shelf, &driver, &readers).await {
            Ok(done) => note(&shelf, done),
            Err(why) => {
                shelf.collected.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
                tracing::warn!("blobs were not collected: {why}");
            }
        }
    }
}

/// Removes the checkpoints of tasks that ended well, or were cancelled, long ago.
async fn prune(
    driver: &Driver,
    readers: &Readers,
    ages: Ages,
    keep: Duration,
) -> Result<(), String> {
    let Some(before) = ages.before(keep) else { return Ok(()) };
    // What cannot be removed now (its task was just retried) must not keep this going for ever.
    for _ in 0..ROUNDS {
        let found = readers.read(move |reader| reader.outdated(before, AT_ONCE)).await?;
        if found.is_empty() {
            return Ok(());
        }
        for (task, which) in found {
            let asked = driver.ask(Ask::Prune(task, which)).await;
            asked.map_err(|_| "the coordinator ends".to_owned())??;
        }
    }
    Ok(())
}

fn note(shelf: &BlobShelf, done: Collected) {
    let mut totals = shelf.collected.lock().unwrap_or_else(PoisonError::into_inner);
    totals.runs += 1;
    totals.manifests += done.manifests;
    totals.chunks += done.chunks;
    totals.bytes += done.bytes;
    if done != Collected::default() {
        let Collected { manifests, chunks, bytes, packs } = done;
        tracing::info!(manifests, chunks, bytes, packs, "blobs were collected");
    }
}

async fn once(shelf: &BlobShelf, driver: &Driver, readers: &Readers) -> Result<Collected, String> {
    // Before the store is read: what is decided later is durable by then, or was looked up
    // within the grace period.
    let unsynced = driver.look(|core| core.unsynced_blobs().cloned().collect::<HashSet<_>>()).await;
    let unsynced = unsynced.map_err(|_| "the coordinator ends".to_owned())?;
    let (blobs, grace) = (shelf.blobs.clone(), shelf.grace);
    let collect = readers.read(move |reader| {
        let unread = RefCell::new(None);
        let is_root = |manifest: &Hash| {
            if unsynced.contains(&manifest.as_bytes()[..]) {
                return true;
            }
            // What cannot be looked up stays.
            reader.refers_to(manifest.as_bytes()).unwrap_or_else(|error| {
                *unread.borrow_mut() = Some(error);
                true
            })
        };
        let done = blobs.collect(&is_root, grace).map_err(|e| e.to_string());
        match unread.into_inner() {
            Some(error) => Err(error),
            None => Ok(done),
        }
    });
    collect.await?
}
