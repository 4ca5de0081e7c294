//! The blob store as the coordinator uses it, and what was accepted lately.

use super::uploads::Uploads;
use crate::problem::Refusal;
use outlast_blob::packs::{PackStore, open_bucket};
use outlast_blob::{BlobError, Blobs, Hash};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Large manifests worked with at a time.
const LARGE: usize = 4;
/// Stores remembered as having sent one manifest.
const UPLOADERS: usize = 8;
/// Manifests remembered as accepted lately.
const REMEMBERED: usize = 16_384;

/// The bucket at this address.
///
/// # Errors
/// When it is none, or the environment does not say how to reach it.
pub(crate) fn bucket(address: &str) -> Result<Arc<dyn PackStore>, BlobError> {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let wrong = |e: std::io::Error| BlobError::Io { detail: e.to_string(), transient: false };
    open_bucket(address).map_err(wrong)
}

/// A manifest that was accepted lately.
struct Recent {
    at: Instant,
    /// The stores of the workers that sent it.
    of: Vec<Box<str>>,
}

/// Counts of all collections since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub runs: u64,
    pub failed: u64,
    pub manifests: u64,
    pub chunks: u64,
    pub bytes: u64,
}

/// The blob store and what belongs to it. Clones are the same.
#[derive(Clone)]
pub(crate) struct BlobService {
    pub blobs: Blobs,
    recent: Arc<Mutex<HashMap<Hash, Recent>>>,
    /// Time that an accepted blob stays without a checkpoint that refers to it.
    pub grace: Duration,
    pub uploads: Arc<Uploads>,
    pub large: Arc<Semaphore>,
    collected: Arc<Mutex<Totals>>,
}

impl BlobService {
    pub fn new(blobs: Blobs, grace: Duration) -> BlobService {
        BlobService {
            blobs,
            recent: Arc::default(),
            grace,
            uploads: Uploads::new(),
            large: Semaphore::new(LARGE).into(),
            collected: Arc::default(),
        }
    }

    /// A manifest was accepted from the worker with this store (empty: from somebody who may read
    /// all): for half its grace nobody need ask the store for it.
    pub fn accepted(&self, manifest: Hash, store: &str) {
        let mut recent = self.recent.lock();
        if recent.len() >= REMEMBERED && !recent.contains_key(&manifest) {
            recent.clear();
        }
        let Recent { at, of } =
            recent.entry(manifest).or_insert_with(|| Recent { at: Instant::now(), of: Vec::new() });
        *at = Instant::now();
        if !of.iter().any(|s| **s == *store) {
            if of.len() >= UPLOADERS {
                of.remove(0);
            }
            of.push(store.into());
        }
    }

    /// Returns whether a worker with one of these stores has uploaded this manifest lately.
    pub fn is_from(&self, manifest: &Hash, stores: &[String]) -> bool {
        let recent = self.recent.lock();
        let of = recent.get(manifest).map(|r| &r.of);
        of.is_some_and(|of| of.iter().any(|s| s.is_empty() || stores.iter().any(|o| **o == **s)))
    }

    /// Uses the store on a blocking thread.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blobs) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let blobs = self.blobs.clone();
        match tokio::task::spawn_blocking(move || work(&blobs)).await {
            Ok(done) => done.map_err(|e| Refusal::blob(&e)),
            Err(error) => Err(Refusal::internal(&error.to_string())),
        }
    }

    /// Returns those of these chunks that are not here.
    pub async fn missing(&self, chunks: &[Hash]) -> Result<Vec<Hash>, Refusal> {
        let chunks = chunks.to_vec();
        self.run(move |blobs| blobs.missing(&chunks)).await
    }

    /// Adds to the counts of collections.
    pub fn count(&self, add: impl FnOnce(&mut Totals)) {
        add(&mut self.collected.lock());
    }

    /// Returns the counts of collections.
    pub fn totals(&self) -> Totals {
        *self.collected.lock()
    }

    /// Returns whether the blob is complete and stays for a while. The core's thread calls it: for a
    /// recent upload, which is nearly always, it does not wait for a commit of the index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has(&self, manifest: &[u8]) -> Result<bool, BlobError> {
        let Ok(manifest) = <[u8; 32]>::try_from(manifest) else { return Ok(false) };
        let manifest = Hash::from_bytes(manifest);
        {
            let recent = self.recent.lock();
            if recent.get(&manifest).is_some_and(|r| r.at.elapsed() < self.grace / 2) {
                return Ok(true);
            }
        }
        self.blobs.has_manifest(&manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_had_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), outlast_blob::Config::default()).unwrap();
        let service = BlobService::new(blobs, Duration::from_secs(60));
        let unknown = Hash::of(b"x");
        assert!(!service.has(unknown.as_bytes()).unwrap());
        assert!(!service.has(b"short").unwrap());
        let put = service.blobs.put(&b"hello"[..]).unwrap();
        assert!(service.has(put.manifest.as_bytes()).unwrap());
        service.accepted(unknown, "s");
        assert!(service.has(unknown.as_bytes()).unwrap(), "trusted without a query");
    }
}
