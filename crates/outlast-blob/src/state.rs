//! The state that a store keeps in memory about its index: who relies on what, and what is known to be
//! damaged. One lock guards all of it together with the index's writing connection, so that
//! "is it there? then I hold it" and "nobody holds it? then it goes" exclude each other.

use crate::index::{self, ChunkRow};
use crate::{BlobError, Hash, Manifest};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::{HashMap, HashSet};

/// A pack that is sealed and that the index does not know yet.
#[derive(Debug)]
pub(crate) struct NewPack {
    pub name: String,
    pub bytes: u64,
    /// `spot.pack` is set when the pack is added.
    pub rows: Vec<ChunkRow>,
}

#[derive(Debug)]
pub(crate) struct State {
    conn: Connection,
    pub chunk_count: u64,
    pub manifest_count: u64,
    /// Number of sessions that rely on a chunk that was there before them.
    held: HashMap<Hash, u32>,
    /// Number of readers that are open on a manifest.
    reading: HashMap<Hash, u32>,
    /// Time at which a caller was last informed that this is here. Bounded by what is in the index.
    chunk_pins: HashMap<Hash, u64>,
    manifest_pins: HashMap<Hash, u64>,
    /// Chunks that were referred to in a commit since the running collection began; none without one.
    referred: Option<HashSet<Hash>>,
    /// Chunks that could not be read; they count as missing until they are replaced.
    bad: HashSet<Hash>,
}

impl State {
    pub fn new(conn: Connection, bad: HashSet<Hash>) -> Result<Self, BlobError> {
        let (chunk_count, manifest_count) = index::count(&conn)?;
        Ok(Self {
            conn,
            chunk_count,
            manifest_count,
            held: HashMap::new(),
            reading: HashMap::new(),
            chunk_pins: HashMap::new(),
            manifest_pins: HashMap::new(),
            referred: None,
            bad,
        })
    }

    pub fn conn(&self) -> &Connection {
        &self.conn
    }

    pub fn bad_count(&self) -> u64 {
        self.bad.len() as u64
    }

    pub fn set_bad(&mut self, chunk: Hash) {
        self.bad.insert(chunk);
    }

    /// The length (before compression) of a chunk that is here and, as far as known, sound.
    pub fn sound(&self, chunk: &Hash) -> Result<Option<u32>, BlobError> {
        if self.bad.contains(chunk) {
            return Ok(None);
        }
        Ok(index::chunk(&self.conn, chunk)?.map(|spot| spot.raw))
    }

    pub fn hold(&mut self, chunk: Hash) {
        *self.held.entry(chunk).or_default() += 1;
    }

    pub fn release(&mut self, chunks: &[Hash]) {
        chunks.iter().for_each(|chunk| count_down(&mut self.held, chunk));
    }

    pub fn begin_reading(&mut self, manifest: Hash) {
        *self.reading.entry(manifest).or_default() += 1;
    }

    pub fn end_reading(&mut self, manifest: &Hash) {
        count_down(&mut self.reading, manifest);
    }

    pub fn pin_chunk(&mut self, chunk: Hash, now: u64) {
        self.chunk_pins.insert(chunk, now);
    }

    pub fn pin_manifest(&mut self, manifest: Hash, now: u64) {
        self.manifest_pins.insert(manifest, now);
    }

    /// Adds sealed packs and perhaps a manifest in one synced transaction. `relied_on` are
    /// chunks that the caller holds and that are to live as if they were new.
    pub fn commit(
        &mut self,
        packs: &mut [NewPack],
        manifest: Option<(&Hash, &Manifest, &[u8])>,
        relied_on: &[Hash],
        now: u64,
    ) -> Result<(), BlobError> {
        let mut added = 0;
        let mut new_manifest = false;
        let bad = &self.bad;
        write(&mut self.conn, |tx| {
            for pack in &mut *packs {
                let id = index::add_pack(tx, &pack.name, pack.bytes, now)?;
                for row in &mut pack.rows {
                    row.spot.pack = id;
                    let heals = bad.contains(&row.hash);
                    added += u64::from(index::add_chunk(tx, row, heals)? && !heals);
                }
            }
            if let Some((hash, _, body)) = manifest {
                new_manifest = index::add_manifest(tx, hash, body, now)?;
            }
            Ok(())
        })?;
        self.chunk_count += added;
        self.manifest_count += u64::from(new_manifest);
        let new = packs.iter().flat_map(|pack| &pack.rows).map(|row| row.hash);
        for hash in new.clone() {
            self.bad.remove(&hash);
        }
        for hash in relied_on {
            self.chunk_pins.insert(*hash, now);
        }
        if let Some(referred) = &mut self.referred {
            referred.extend(new);
            referred.extend(relied_on);
            if let Some((_, manifest, _)) = manifest {
                referred.extend(manifest.chunks().iter().map(|(hash, _)| hash));
            }
        }
        Ok(())
    }

    /// From here on commits note what they refer to, and [`State::sweep`] spares that. In the
    /// same instant deletes those of `candidates` that nobody has wanted since `cutoff`.
    pub fn begin_collection(&mut self, candidates: &[Hash], cutoff: u64) -> Result<u64, BlobError> {
        self.chunk_pins.retain(|_, pinned| *pinned >= cutoff);
        self.manifest_pins.retain(|_, pinned| *pinned >= cutoff);
        let mut deleted = 0;
        let (pins, reading) = (&self.manifest_pins, &self.reading);
        write(&mut self.conn, |tx| {
            for hash in candidates {
                if !pins.contains_key(hash) && !reading.contains_key(hash) {
                    deleted += u64::from(index::delete_manifest(tx, hash, cutoff)?);
                }
            }
            Ok(())
        })?;
        self.manifest_count -= deleted;
        self.referred = Some(HashSet::new());
        Ok(deleted)
    }

    pub fn end_collection(&mut self) {
        self.referred = None;
    }

    /// Deletes those of these chunks that nobody relies on; returns them.
    pub fn sweep(&mut self, candidates: &[ChunkRow]) -> Result<HashSet<Hash>, BlobError> {
        let Some(referred) = &self.referred else { return Ok(HashSet::new()) };
        let (held, pins) = (&self.held, &self.chunk_pins);
        let mut gone = HashSet::new();
        write(&mut self.conn, |tx| {
            for row in candidates {
                let hash = &row.hash;
                let wanted =
                    held.contains_key(hash) || pins.contains_key(hash) || referred.contains(hash);
                if !wanted && index::delete_chunk(tx, hash, row.spot.pack)? {
                    gone.insert(*hash);
                }
            }
            Ok(())
        })?;
        self.chunk_count -= gone.len() as u64;
        for hash in &gone {
            self.bad.remove(hash);
        }
        Ok(gone)
    }

    /// Deletes packs in which no chunk lies.
    pub fn drop_packs(&mut self, ids: &[i64]) -> Result<(), BlobError> {
        write(&mut self.conn, |tx| ids.iter().try_for_each(|id| index::delete_pack(tx, *id)))
    }

    /// Puts sealed packs in the place of others, whose chunks were copied into them. `origin`
    /// says in which of those each chunk was; what is not listed stays where it is.
    pub fn switch(
        &mut self,
        packs: &[NewPack],
        origin: &HashMap<Hash, i64>,
        created: u64,
        old: &[i64],
    ) -> Result<(), BlobError> {
        write(&mut self.conn, |tx| {
            for pack in packs {
                let id = index::add_pack(tx, &pack.name, pack.bytes, created)?;
                for row in &pack.rows {
                    if let Some(from) = origin.get(&row.hash) {
                        index::move_chunk(tx, &row.hash, *from, id, row.spot.pos)?;
                    }
                }
            }
            old.iter().try_for_each(|id| index::delete_pack(tx, *id))
        })
    }
}

/// Runs `apply` in a transaction; when this returns `Ok`, it is on disk.
fn write(
    conn: &mut Connection,
    apply: impl FnOnce(&Transaction<'_>) -> Result<(), BlobError>,
) -> Result<(), BlobError> {
    if !conn.is_autocommit() {
        // The rollback of an earlier failure failed as well.
        conn.execute_batch("ROLLBACK")?;
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    apply(&tx)?;
    Ok(tx.commit()?)
}

fn count_down(counts: &mut HashMap<Hash, u32>, key: &Hash) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
