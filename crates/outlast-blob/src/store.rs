//! The store as its users see it: opening, queries, and the ways in and out.

use crate::open::{Config, OpenStore};
use crate::packed::{Packed, unpack};
use crate::reader::{BlobReader, Run};
use crate::{BlobError, Hash, Ingest, Manifest, Put, index, put};
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Amounts of what a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of packs and index, those of unfinished puts included.
    pub disk_bytes: u64,
    /// Chunks.
    pub chunk_count: u64,
    /// Manifests.
    pub manifest_count: u64,
    /// The limit for `disk_bytes`.
    pub budget: Option<u64>,
    /// Puts and ingests refused since the store was opened because there was no room.
    pub refused: u64,
    /// Chunks found damaged since then and not replaced.
    pub damaged: u64,
}

/// A blob store. Clones are the same store; it is closed when the last one (and the last
/// reader and ingest) is dropped.
#[derive(Clone)]
pub struct Blobs {
    pub(crate) shared: Arc<OpenStore>,
}

impl Blobs {
    /// Opens the store in this folder, creating it when it is missing. Deletes what an
    /// interrupted put left behind.
    ///
    /// # Errors
    /// [`BlobError`] says what is wrong with it; an index that is not of this kind and version
    /// is left as it was.
    pub fn open(dir: impl AsRef<Path>, config: Config) -> Result<Self, BlobError> {
        Ok(Self { shared: Arc::new(OpenStore::open(dir.as_ref(), config)?) })
    }

    /// Stores everything that `source` gives. Chunks and manifest are durable when this returns.
    /// Memory: some 20 MiB, and about 200 bytes for each chunk. What shrinks is compressed if the
    /// disk is slower than that, or half of the budget is used.
    ///
    /// # Errors
    /// [`BlobError::Full`] or [`BlobError::DiskFull`] when there is no room,
    /// [`BlobError::Source`] when `source` fails, [`BlobError::TooLarge`], or what is wrong with
    /// the store. Nothing of the blob is kept then.
    pub fn put(&self, source: impl Read) -> Result<Put, BlobError> {
        self.shared.budget.note(put::put(&self.shared, source, false))
    }

    /// Stores like [`Blobs::put`], in as little room as there can be, where time matters less.
    ///
    /// # Errors
    /// As of [`Blobs::put`].
    pub fn put_small(&self, source: impl Read) -> Result<Put, BlobError> {
        self.shared.budget.note(put::put(&self.shared, source, true))
    }

    /// The manifest of a blob.
    ///
    /// # Errors
    /// [`BlobError::ManifestDamaged`], or that the index cannot be read.
    pub fn manifest(&self, manifest: &Hash) -> Result<Option<Manifest>, BlobError> {
        let body = index::manifest(&self.shared.reads(), manifest)?;
        body.map(|body| Manifest::stored(manifest, &body)).transpose()
    }

    /// Returns whether this blob is here. If so it stays for a grace period, see [`Blobs::collect`].
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has_manifest(&self, manifest: &Hash) -> Result<bool, BlobError> {
        let mut state = self.shared.state();
        let here = index::has_manifest(state.conn(), manifest)?;
        if here {
            state.pin_manifest(*manifest, self.shared.clock.now());
        }
        Ok(here)
    }

    /// The chunks among these that are not here (or damaged), each once. The others stay for a grace
    /// period, see [`Blobs::collect`].
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn missing(&self, chunks: &[Hash]) -> Result<Vec<Hash>, BlobError> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        // In pieces, so that a long list does not keep others waiting.
        for piece in chunks.chunks(1024) {
            let mut state = self.shared.state();
            let now = self.shared.clock.now();
            for chunk in piece {
                if state.sound(chunk)?.is_some() {
                    state.pin_chunk(*chunk, now);
                } else if seen.insert(*chunk) {
                    missing.push(*chunk);
                }
            }
        }
        Ok(missing)
    }

    /// One chunk as it is stored, after checking it.
    ///
    /// # Errors
    /// [`BlobError::Missing`] when it is not here, [`BlobError::ChunkDamaged`], or why it cannot
    /// be read.
    pub fn load(&self, chunk: &Hash) -> Result<Packed, BlobError> {
        let run = Run::load(&self.shared, &[(*chunk, None)])?;
        let Some((raw_len, bytes)) = run.stored(0) else {
            return Err(BlobError::Missing(vec![*chunk]));
        };
        let compressed = bytes.len() < raw_len as usize;
        unpack(chunk, bytes, compressed, raw_len, &mut Vec::new())
            .map_err(|detail| self.shared.damaged(*chunk, detail))?;
        Ok(Packed { raw_len, compressed, bytes: bytes.to_vec() })
    }

    /// Reads a blob from its beginning. It is not collected while the reader lives.
    ///
    /// # Errors
    /// [`BlobError::Unknown`] when it is not here, [`BlobError::ManifestDamaged`], or that the
    /// index cannot be read.
    pub fn reader(&self, manifest: &Hash) -> Result<BlobReader, BlobError> {
        BlobReader::open(&self.shared, manifest)
    }

    /// Begins an ingest of chunks.
    pub fn ingest(&self) -> Ingest {
        Ingest::new(&self.shared)
    }

    /// Stores an encoded manifest, all of whose chunks are here; durable when this returns.
    ///
    /// # Errors
    /// [`BlobError::Missing`] names the chunks that are not here (the others are pinned as by
    /// [`Blobs::missing`]); [`BlobError::BadManifest`] when it is none or contradicts what is
    /// here; no room; or what is wrong with the store.
    pub fn accept_manifest(&self, bytes: &[u8]) -> Result<Hash, BlobError> {
        let manifest = Manifest::decode(bytes)?;
        let hash = Hash::of(bytes);
        let budget = &self.shared.budget;
        budget.note(budget.check(bytes.len() as u64, 0))?;
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for (chunk, len) in manifest.chunks() {
            match state.sound(chunk)? {
                Some(raw) if raw == *len => state.pin_chunk(*chunk, now),
                Some(raw) => {
                    let detail = format!("chunk {chunk} has {raw} bytes, not {len}");
                    return Err(BlobError::BadManifest { detail });
                }
                None if seen.insert(*chunk) => missing.push(*chunk),
                None => {}
            }
        }
        if !missing.is_empty() {
            return Err(BlobError::Missing(missing));
        }
        let done = state.commit(&mut [], Some((&hash, &manifest, bytes)), &[], now);
        self.shared.index_grew(&state);
        budget.note(done)?;
        Ok(hash)
    }

    /// The amounts of what the store holds.
    pub fn usage(&self) -> Usage {
        let state = self.shared.state();
        let budget = &self.shared.budget;
        Usage {
            disk_bytes: budget.used(),
            chunk_count: state.chunk_count,
            manifest_count: state.manifest_count,
            budget: budget.limit(),
            refused: budget.refused(),
            damaged: state.bad_count(),
        }
    }
}
