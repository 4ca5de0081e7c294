//! The collection of blobs without a reference: now and then, and at once where room is short.

use super::driver::Driver;
use super::now;
use super::transfer::block;
use outlast_blob::{Blobs, Hash};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Time between collections.
const EVERY: Duration = Duration::from_secs(60);
/// Time for which a blob without a reference stays: it may be requested again.
const GRACE: Duration = Duration::from_secs(600);
/// The same where room is short, and the time between collections then.
const SHORT: Duration = Duration::from_secs(3);

/// Collects now and then, and where room is short; reports how much there is.
pub(super) async fn run(blobs: Blobs, driver: Arc<Driver>) {
    loop {
        let grace = tokio::select! {
            () = tokio::time::sleep(EVERY) => GRACE,
            () = driver.room.short.notified() => SHORT,
        };
        collect(&blobs, &driver, grace).await;
        tokio::time::sleep(SHORT).await;
    }
}

/// Makes room at once.
pub(super) async fn make_room(blobs: &Blobs, driver: &Arc<Driver>) {
    collect(blobs, driver, SHORT).await;
}

async fn collect(blobs: &Blobs, driver: &Arc<Driver>, grace: Duration) {
    // In this order: what is not in use any more is wanted, or needless.
    let grace = driver.room.grace(grace);
    let wanted: HashSet<Hash> = driver
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
    report(blobs, driver);
}

/// Reports to the core the figures of the disk that go with heartbeats.
pub(super) fn report(blobs: &Blobs, driver: &Arc<Driver>) {
    let usage = blobs.usage();
    let budget = usage.budget.unwrap_or(0);
    let refused = usage.refused + driver.room.refused();
    driver.feed(|core| core.on_disk(usage.disk_bytes, budget, refused));
}
