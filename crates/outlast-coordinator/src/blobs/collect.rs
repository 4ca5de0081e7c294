//! Removes the blobs that no checkpoint refers to any more, now and then.

use super::service::BlobService;
use crate::clock::Ages;
use crate::input::Driver;
use crate::readers::Readers;
use outlast_blob::{Collected, Hash};
use outlast_core::coord::Request;
use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

/// Before the first collection, or less when they are closer together.
const FIRST: Duration = Duration::from_secs(60);

/// Checkpoints that are removed for their age before the store is read again.
const AT_ONCE: usize = 500;
/// Times that this is repeated in one collection.
const ROUNDS: u32 = 200;

/// Collects until the coordinator ends.
pub(crate) async fn run(
    service: BlobService,
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
        match once(&service, &driver, &readers).await {
            Ok(done) => note(&service, done),
            Err(why) => {
                service.count(|totals| totals.failed += 1);
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
            let asked = driver.request(Request::Prune(task, which)).await;
            asked.map_err(|_| "the coordinator ends".to_owned())?;
        }
    }
    Ok(())
}

fn note(service: &BlobService, done: Collected) {
    let Collected { manifests, chunks, bytes, packs } = done;
    service.count(|totals| {
        totals.runs += 1;
        totals.manifests += manifests;
        totals.chunks += chunks;
        totals.bytes += bytes;
    });
    if done != Collected::default() {
        tracing::info!(manifests, chunks, bytes, packs, "blobs were collected");
    }
}

async fn once(
    service: &BlobService,
    driver: &Driver,
    readers: &Readers,
) -> Result<Collected, String> {
    // Before the store is read: what is decided later is durable by then, or was looked up
    // within the grace period.
    let unsynced =
        driver.query(|core| core.unsynced_blobs().cloned().collect::<HashSet<_>>()).await;
    let unsynced = unsynced.map_err(|_| "the coordinator ends".to_owned())?;
    let (blobs, grace) = (service.blobs.clone(), service.grace);
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
