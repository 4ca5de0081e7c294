//! The store as its users see it: opening, questions, and the ways in and out.

use crate::budget::Budget;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::packed::{Packed, unpack};
use crate::packs::{LocalPacks, PackStore};
use crate::reader::{BlobReader, Run};
use crate::reserve::Reserve;
use crate::state::State;
use crate::{BlobError, Hash, Ingest, MAX_CHUNK, Manifest, Put, index, packer, put};
use outlast_sqlite::{Lock, prepare_folder, sync_folder};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a store is to be opened.
#[derive(Clone, Default)]
pub struct Config {
    /// Bytes that packs and index may take on disk together; without one, the disk is the limit.
    /// The index's log and a reserve take up to 14 MiB besides.
    pub budget: Option<u64>,
    /// Bytes of a pack at most; without one, 64 MiB. A pack holds one chunk at least.
    pub pack_bytes: Option<u64>,
    /// Where packs lie instead of in `packs/` below the store's folder.
    pub packs: Option<Arc<dyn PackStore>>,
}

/// What a store holds.
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
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub packs: Arc<dyn PackStore>,
    pub pack_limit: u64,
    pub budget: Budget,
    pub disk: Disk,
    pub clock: Clock,
    prefix: String,
    /// For what may be a moment old: it does not wait for a commit. Comes before `state`: the
    /// connection that is closed last empties the log, and this one may not write.
    reads: Mutex<Connection>,
    state: Mutex<State>,
    /// Locked by the one collection that runs.
    pub collecting: Mutex<Reserve>,
    _lock: Lock,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        // A panic in mid-transaction rolls back; the rest of the state is changed after that.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reads(&self) -> MutexGuard<'_, Connection> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn new_pack_name(&self) -> Result<String, BlobError> {
        Ok(format!("{}{:016x}", self.prefix, random()?))
    }

    /// Says to the budget how large the index is now.
    pub fn index_grew(&self, state: &State) {
        if let Ok(bytes) = index::bytes(state.conn()) {
            self.budget.index_is(bytes);
        }
    }

    /// From now on this chunk counts as missing.
    pub fn damaged(&self, chunk: Hash, detail: impl ToString) -> BlobError {
        self.state().set_bad(chunk);
        BlobError::ChunkDamaged { chunk, detail: detail.to_string() }
    }
}

fn random() -> Result<u64, BlobError> {
    getrandom::u64()
        .map_err(|e| BlobError::Io { detail: format!("random numbers: {e}"), transient: false })
}

impl Blobs {
    /// Opens the store in this folder, creating it when it is missing. Deletes what an
    /// interrupted put left behind.
    ///
    /// # Errors
    /// [`BlobError`] says what is wrong with it; an index that is not of this kind and version
    /// is left as it was.
    pub fn open(dir: impl AsRef<Path>, config: Config) -> Result<Self, BlobError> {
        let dir = dir.as_ref();
        let (conn, reads, lock) = index::open(&dir.join("index.db"))?;
        let packs = match config.packs {
            Some(packs) => packs,
            None => {
                let folder = dir.join("packs");
                prepare_folder(&folder)?;
                Arc::new(LocalPacks::new(folder))
            }
        };
        index::belong(&conn, packs.place())?;
        // SQLite syncs the index, not the name that we gave it.
        sync_folder(dir).map_err(|e| BlobError::file(dir, e))?;
        let clock = Clock::start();
        index::not_after(&conn, clock.now())?;
        let prefix = index::prefix(&conn, &format!("{:08x}-", random()? >> 32))?;
        let (pack_bytes, bad) = reconcile(&conn, &*packs, &prefix)?;
        let budget = Budget::new(config.budget, pack_bytes, index::bytes(&conn)?);
        let least = u64::from(MAX_CHUNK) + (packer::FRAME + 8) as u64;
        let shared = Shared {
            packs,
            pack_limit: config.pack_bytes.unwrap_or(64 << 20).max(least),
            budget,
            disk: Disk::default(),
            clock,
            prefix,
            state: Mutex::new(State::new(conn, bad)?),
            reads: Mutex::new(reads),
            collecting: Mutex::new(Reserve::take(dir)),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
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

    /// The same in as little room as there can be, where time matters less.
    ///
    /// # Errors
    /// As of [`Blobs::put`].
    pub fn put_small(&self, source: impl Read) -> Result<Put, BlobError> {
        self.shared.budget.note(put::put(&self.shared, source, true))
    }

    /// What a blob consists of.
    ///
    /// # Errors
    /// [`BlobError::ManifestDamaged`], or that the index cannot be read.
    pub fn manifest(&self, manifest: &Hash) -> Result<Option<Manifest>, BlobError> {
        let body = index::manifest(&self.shared.reads(), manifest)?;
        body.map(|body| checked(manifest, &body)).transpose()
    }

    /// Whether this blob is here. If so it stays for a grace period, see [`Blobs::collect`].
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

    /// Which of these chunks are not here (or damaged), each once. The others stay for a grace
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

    /// Begins to receive chunks.
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

    /// What the store holds.
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

/// A stored manifest, if it is what its name says.
pub(crate) fn checked(manifest: &Hash, body: &[u8]) -> Result<Manifest, BlobError> {
    let damaged = |detail: String| BlobError::ManifestDamaged { manifest: *manifest, detail };
    if Hash::of(body) != *manifest {
        return Err(damaged("its content has another hash".into()));
    }
    Manifest::decode(body).map_err(|e| damaged(e.to_string()))
}

/// Deletes packs that the index does not know. Returns the bytes of the others, and the chunks
/// of those that are gone or cut short.
fn reconcile(
    conn: &Connection,
    packs: &dyn PackStore,
    prefix: &str,
) -> Result<(u64, HashSet<Hash>), BlobError> {
    let mut known: HashMap<String, (i64, u64)> =
        index::packs(conn)?.into_iter().map(|p| (p.name, (p.id, p.bytes))).collect();
    let total = known.values().map(|(_, bytes)| bytes).sum();
    let mut orphans = Vec::new();
    let listed = packs.list(prefix, &mut |name, bytes| match known.get(name) {
        None => orphans.push(name.to_owned()),
        Some((_, expected)) if bytes >= *expected => {
            known.remove(name);
        }
        Some(_) => {}
    });
    listed.map_err(|e| match packs.place() {
        Some(place) => BlobError::io(format_args!("packs in {place}"), e),
        None => BlobError::io("packs", e),
    })?;
    for name in orphans {
        packs.delete(&name).map_err(|e| BlobError::io(format_args!("pack {name}"), e))?;
    }
    let harmed: HashSet<i64> = known.values().map(|(id, _)| *id).collect();
    let mut bad = HashSet::new();
    let mut after = None;
    while !harmed.is_empty() {
        let rows = index::chunks_after(conn, after, 4096)?;
        let Some(last) = rows.last() else { break };
        after = Some(last.hash);
        bad.extend(rows.iter().filter(|r| harmed.contains(&r.spot.pack)).map(|r| r.hash));
    }
    Ok((total, bad))
}
