//! An open store: its packs, its index and its budget, brought into agreement when it is opened.

use crate::budget::Budget;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::frame::FRAME;
use crate::packs::{LocalPacks, PackStore};
use crate::reserve::Reserve;
use crate::state::State;
use crate::{BlobError, Hash, MAX_CHUNK, index};
use outlast_sqlite::{Lock, prepare_folder, sync_folder};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The settings of a store.
#[derive(Clone, Default)]
pub struct Config {
    /// Bytes that packs and index may take on disk together; without one, the disk is the limit.
    /// The index's log and a reserve take up to 14 MiB besides.
    pub budget: Option<u64>,
    /// Bytes of a pack at most; without one, 64 MiB. A pack holds one chunk at least.
    pub pack_bytes: Option<u64>,
    /// The place of packs instead of in `packs/` below the store's folder.
    pub packs: Option<Arc<dyn PackStore>>,
}

/// An open store.
pub(crate) struct OpenStore {
    pub packs: Arc<dyn PackStore>,
    pub pack_limit: u64,
    pub budget: Budget,
    pub disk: Disk,
    pub clock: Clock,
    prefix: String,
    /// For reads that may be a moment old: it does not wait for a commit. Comes before `state`: the
    /// connection that is closed last empties the log, and this one may not write.
    reads: Mutex<Connection>,
    state: Mutex<State>,
    /// Locked by the one collection that runs.
    pub collecting: Mutex<Reserve>,
    _lock: Lock,
}

impl OpenStore {
    /// Opens the store in this folder, creating it when it is missing. Deletes what an
    /// interrupted put left behind.
    pub fn open(dir: &Path, config: Config) -> Result<OpenStore, BlobError> {
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
        let least = u64::from(MAX_CHUNK) + (FRAME + 8) as u64;
        Ok(OpenStore {
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
        })
    }

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

    /// Reports to the budget how large the index is now.
    pub fn index_grew(&self, state: &State) {
        if let Ok(bytes) = index::bytes(state.conn()) {
            self.budget.index_is(bytes);
        }
    }

    /// Marks a chunk as missing from now on.
    pub fn damaged(&self, chunk: Hash, detail: impl ToString) -> BlobError {
        self.state().set_bad(chunk);
        BlobError::ChunkDamaged { chunk, detail: detail.to_string() }
    }
}

fn random() -> Result<u64, BlobError> {
    getrandom::u64()
        .map_err(|e| BlobError::Io { detail: format!("random numbers: {e}"), transient: false })
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
