//! The collection of blobs without a reference. It decides which chunks live; `compact` then decides on
//! the packs.
//!
//! A chunk dies only if it is in no manifest that was there when the collection began, was
//! referred to by no commit since, is held by no session, pinned by nobody, and lies in a pack
//! older than the grace period. The first is determined without a lock; the others are checked
//! under the lock that holds, pins and commits take too ([`State::sweep`]), in the same
//! transaction that deletes.
//!
//! [`State::sweep`]: crate::state::State::sweep

use crate::compact::Live;
use crate::index::{self, ChunkRow};
use crate::open::OpenStore;
use crate::store::Blobs;
use crate::{BlobError, Hash, Manifest, compact};
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

/// Rows read, or deleted in one transaction, at a time.
const BATCH: usize = 4096;

/// The result of a collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests deleted.
    pub manifests: u64,
    /// Chunks deleted.
    pub chunks: u64,
    /// Bytes by which packs shrank.
    pub bytes: u64,
    /// Packs deleted, those included whose rest was moved to new ones.
    pub packs: u64,
}

impl Blobs {
    /// Deletes the manifests that are no roots, and the chunks that no remaining manifest lists;
    /// gives their space back. What was put, accepted, committed by an ingest, asked for by
    /// [`Blobs::has_manifest`] or [`Blobs::missing`], or read from within `grace` before the
    /// call, or since, stays in any case.
    ///
    /// One runs at a time; puts and reads go on meanwhile. Memory: 50 bytes for each chunk that
    /// a manifest lists. Needs room for one more pack, whatever the budget.
    ///
    /// # Errors
    /// [`BlobError::ManifestDamaged`]: then nobody knows what it needs, and no chunk is deleted.
    /// Or what is wrong with the store. What was deleted until then stays deleted.
    pub fn collect(
        &self,
        is_root: &dyn Fn(&Hash) -> bool,
        grace: Duration,
    ) -> Result<Collected, BlobError> {
        let shared = &*self.shared;
        let alone = shared.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let _room = alone.lend();
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let cutoff = shared.clock.now().saturating_sub(grace);
        let mut done = Collected::default();

        let candidates = unwanted(shared, is_root, cutoff)?;
        let _running = Running(shared);
        done.manifests = shared.state().begin_collection(&candidates, cutoff)?;
        let marked = mark(shared)?;
        let packs = sweep(shared, &marked, cutoff, &mut done)?;
        drop(marked);
        let compacted = compact::compact(&self.shared, packs)?;
        (done.bytes, done.packs) = (compacted.bytes, compacted.packs);
        shared.index_grew(&shared.state());
        Ok(done)
    }
}

/// Ends the collection, however that comes about.
struct Running<'a>(&'a OpenStore);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().end_collection();
    }
}

fn unwanted(
    shared: &OpenStore,
    is_root: &dyn Fn(&Hash) -> bool,
    cutoff: u64,
) -> Result<Vec<Hash>, BlobError> {
    let mut found = Vec::new();
    let mut last = 0;
    loop {
        // The caller's function is called without a lock of ours.
        let page = index::manifests_after(&shared.reads(), last, BATCH)?;
        let Some((row, ..)) = page.last() else { return Ok(found) };
        last = *row;
        let old = page.into_iter().filter(|(_, _, created)| *created < cutoff);
        found.extend(old.map(|(_, hash, _)| hash).filter(|hash| !is_root(hash)));
    }
}

/// All chunks of all manifests.
fn mark(shared: &OpenStore) -> Result<HashSet<Hash>, BlobError> {
    let mut marked = HashSet::new();
    let mut last = 0;
    loop {
        let page = index::manifests_after(&shared.reads(), last, BATCH)?;
        let Some((row, ..)) = page.last() else { return Ok(marked) };
        last = *row;
        for (_, hash, _) in page {
            let body = index::manifest(&shared.reads(), &hash)?;
            if let Some(body) = body {
                marked.extend(
                    Manifest::stored(&hash, &body)?.chunks().iter().map(|(chunk, _)| *chunk),
                );
            }
        }
    }
}

/// Deletes dead chunks; returns the packs that were there before, with what is left of them.
fn sweep(
    shared: &OpenStore,
    marked: &HashSet<Hash>,
    cutoff: u64,
    done: &mut Collected,
) -> Result<Vec<Live>, BlobError> {
    let packs = index::packs(&shared.reads())?;
    let mut packs: HashMap<i64, Live> =
        packs.into_iter().map(|pack| (pack.id, Live { pack, bytes: 0 })).collect();
    let mut after = None;
    loop {
        let rows = index::chunks_after(&shared.reads(), after, BATCH)?;
        let Some(last) = rows.last() else { return Ok(packs.into_values().collect()) };
        after = Some(last.hash);
        let dead = |row: &&ChunkRow| {
            !marked.contains(&row.hash)
                && packs.get(&row.spot.pack).is_some_and(|live| live.pack.created < cutoff)
        };
        let dead: Vec<ChunkRow> = rows.iter().filter(dead).copied().collect();
        let gone = if dead.is_empty() { HashSet::new() } else { shared.state().sweep(&dead)? };
        done.chunks += gone.len() as u64;
        for row in rows.iter().filter(|row| !gone.contains(&row.hash)) {
            if let Some(live) = packs.get_mut(&row.spot.pack) {
                live.bytes += row.space();
            }
        }
    }
}
