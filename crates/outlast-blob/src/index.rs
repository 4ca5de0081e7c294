//! The index's tables and the statements on them. Decides nothing and holds no lock; whoever
//! calls says in which transaction.

use crate::frame::FRAME;
use crate::{BlobError, Hash};
use outlast_sqlite::{Kind, Lock};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::time::Duration;

pub(crate) const KIND: Kind = Kind {
    what: "the index of a blob store",
    application_id: 0x4F4C_4201, // "OLB", 1
    migrations: &[V1],
    busy: Duration::from_secs(10),
    cache_kib: CACHE_KIB,
    // The log stays small, for it is not in the budget.
    log_pages: 1024,
    log_bytes: 8 << 20,
};

/// Pages that each connection keeps in memory, in KiB.
const CACHE_KIB: u32 = 8 << 10;

/// A connection that writes and one that only reads.
///
/// # Errors
/// What is wrong with the index; one of another kind or version is left as it was.
pub(crate) fn open(path: &Path) -> Result<(Connection, Connection, Lock), BlobError> {
    let (conn, lock) = outlast_sqlite::open_owned(path, &KIND)?;
    let reads = outlast_sqlite::open_shared(path, &KIND, false)?;
    reads.execute_batch(&format!("PRAGMA cache_size = -{CACHE_KIB};"))?;
    Ok((conn, reads, lock))
}

// No table says which manifest refers to which chunk: that would cost a row per reference. A
// collection reads the manifests instead.
const V1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) WITHOUT ROWID;

-- created: milliseconds; see clock.rs
CREATE TABLE packs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL
);

-- pos: where the stored bytes begin; they are compressed when there are fewer than raw
CREATE TABLE chunks (
    hash BLOB PRIMARY KEY,
    pack INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    raw INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE manifests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    body BLOB NOT NULL
);
";

/// Bytes that a row of `chunks` takes on disk, roughly, with the tree around it.
pub(crate) const CHUNK_ROW: u64 = 64;

impl ToSql for Hash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for Hash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self::from_bytes)
    }
}

/// SQLite's integers are signed.
struct Unsigned(u64);

impl FromSql for Unsigned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let value = value.as_i64()?;
        u64::try_from(value).map(Self).map_err(|_| FromSqlError::OutOfRange(value))
    }
}

fn uint(r: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(r.get::<_, Unsigned>(column)?.0)
}

/// The reverse of [`Unsigned`].
fn int(value: u64) -> Result<i64, BlobError> {
    i64::try_from(value).map_err(|_| BlobError::damaged("too large a number", value))
}

/// The place of a chunk, by the pack's id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub pack: i64,
    pub pos: u64,
    pub stored: u32,
    pub raw: u32,
}

/// A chunk and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRow {
    pub hash: Hash,
    pub spot: Spot,
}

impl ChunkRow {
    /// Bytes that the chunk takes in its pack.
    pub fn space(&self) -> u64 {
        u64::from(self.spot.stored) + FRAME as u64
    }
}

/// A pack and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct PackRow {
    pub id: i64,
    pub name: String,
    pub bytes: u64,
    pub created: u64,
}

fn spot(r: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Spot> {
    Ok(Spot {
        pack: r.get(first)?,
        pos: uint(r, first + 1)?,
        stored: r.get(first + 2)?,
        raw: r.get(first + 3)?,
    })
}

pub(crate) fn chunk(conn: &Connection, hash: &Hash) -> Result<Option<Spot>, BlobError> {
    let mut query =
        conn.prepare_cached("SELECT pack, pos, stored, raw FROM chunks WHERE hash = ?1")?;
    Ok(query.query_row([hash], |r| spot(r, 0)).optional()?)
}

/// The same, with the pack's name.
pub(crate) fn place(conn: &Connection, hash: &Hash) -> Result<Option<(String, Spot)>, BlobError> {
    let mut query = conn.prepare_cached(
        "SELECT p.name, c.pack, c.pos, c.stored, c.raw
         FROM chunks c JOIN packs p ON p.id = c.pack WHERE c.hash = ?1",
    )?;
    Ok(query.query_row([hash], |r| Ok((r.get(0)?, spot(r, 1)?))).optional()?)
}

/// Up to `limit` chunks whose hash is above `after` (or from the first), in order of hash.
pub(crate) fn chunks_after(
    conn: &Connection,
    after: Option<Hash>,
    limit: usize,
) -> Result<Vec<ChunkRow>, BlobError> {
    let mut query = conn.prepare_cached(
        "SELECT hash, pack, pos, stored, raw FROM chunks WHERE hash > ?1 ORDER BY hash LIMIT ?2",
    )?;
    let after: &[u8] = after.as_ref().map_or(&[], |h| h.as_bytes());
    let rows = query.query_map(params![after, limit as i64], |r| {
        Ok(ChunkRow { hash: r.get(0)?, spot: spot(r, 1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Adds a chunk unless it is there; returns whether it was added. With `replace` the new place
/// takes over from an old one.
pub(crate) fn add_chunk(
    conn: &Connection,
    row: &ChunkRow,
    replace: bool,
) -> Result<bool, BlobError> {
    let mut insert = conn.prepare_cached(if replace {
        "INSERT OR REPLACE INTO chunks VALUES (?1, ?2, ?3, ?4, ?5)"
    } else {
        "INSERT OR IGNORE INTO chunks VALUES (?1, ?2, ?3, ?4, ?5)"
    })?;
    let Spot { pack, pos, stored, raw } = row.spot;
    Ok(insert.execute(params![row.hash, pack, int(pos)?, stored, raw])? > 0)
}

/// Deletes a chunk if it (still) lies in this pack.
pub(crate) fn delete_chunk(conn: &Connection, hash: &Hash, pack: i64) -> Result<bool, BlobError> {
    let mut delete = conn.prepare_cached("DELETE FROM chunks WHERE hash = ?1 AND pack = ?2")?;
    Ok(delete.execute(params![hash, pack])? > 0)
}

/// Says that a chunk of the pack `from` now lies elsewhere; no effect if it no longer did.
pub(crate) fn move_chunk(
    conn: &Connection,
    hash: &Hash,
    from: i64,
    to: i64,
    pos: u64,
) -> Result<(), BlobError> {
    let mut update =
        conn.prepare_cached("UPDATE chunks SET pack = ?3, pos = ?4 WHERE hash = ?1 AND pack = ?2")?;
    update.execute(params![hash, from, to, int(pos)?])?;
    Ok(())
}

pub(crate) fn add_pack(
    conn: &Connection,
    name: &str,
    bytes: u64,
    created: u64,
) -> Result<i64, BlobError> {
    let mut insert =
        conn.prepare_cached("INSERT INTO packs (name, bytes, created) VALUES (?1, ?2, ?3)")?;
    Ok(insert.insert(params![name, int(bytes)?, int(created)?])?)
}

pub(crate) fn delete_pack(conn: &Connection, id: i64) -> Result<(), BlobError> {
    conn.prepare_cached("DELETE FROM packs WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub(crate) fn packs(conn: &Connection) -> Result<Vec<PackRow>, BlobError> {
    let mut query = conn.prepare_cached("SELECT id, name, bytes, created FROM packs")?;
    let rows = query.query_map([], |r| {
        Ok(PackRow { id: r.get(0)?, name: r.get(1)?, bytes: uint(r, 2)?, created: uint(r, 3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Adds a manifest, or says that one which is there was wanted again just now. Returns whether it
/// is new.
pub(crate) fn add_manifest(
    conn: &Connection,
    hash: &Hash,
    body: &[u8],
    now: u64,
) -> Result<bool, BlobError> {
    let known = has_manifest(conn, hash)?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO manifests (hash, created, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (hash) DO UPDATE SET created = excluded.created, body = excluded.body",
    )?;
    insert.execute(params![hash, int(now)?, body])?;
    Ok(!known)
}

pub(crate) fn has_manifest(conn: &Connection, hash: &Hash) -> Result<bool, BlobError> {
    Ok(conn.prepare_cached("SELECT 1 FROM manifests WHERE hash = ?1")?.exists([hash])?)
}

pub(crate) fn manifest(conn: &Connection, hash: &Hash) -> Result<Option<Vec<u8>>, BlobError> {
    let mut query = conn.prepare_cached("SELECT body FROM manifests WHERE hash = ?1")?;
    Ok(query.query_row([hash], |r| r.get(0)).optional()?)
}

/// Deletes a manifest that has not been wanted since `cutoff`.
pub(crate) fn delete_manifest(
    conn: &Connection,
    hash: &Hash,
    cutoff: u64,
) -> Result<bool, BlobError> {
    let mut delete =
        conn.prepare_cached("DELETE FROM manifests WHERE hash = ?1 AND created < ?2")?;
    Ok(delete.execute(params![hash, int(cutoff)?])? > 0)
}

/// Up to `limit` manifests (row, hash, when created) after this row.
pub(crate) fn manifests_after(
    conn: &Connection,
    row: i64,
    limit: usize,
) -> Result<Vec<(i64, Hash, u64)>, BlobError> {
    let mut query = conn.prepare_cached(
        "SELECT id, hash, created FROM manifests WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let rows =
        query.query_map(params![row, limit as i64], |r| Ok((r.get(0)?, r.get(1)?, uint(r, 2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Counts chunks and manifests; reads the whole of both trees.
pub(crate) fn count(conn: &Connection) -> Result<(u64, u64), BlobError> {
    let count = |table: &str| -> Result<u64, BlobError> {
        Ok(conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| uint(r, 0))?)
    };
    Ok((count("chunks")?, count("manifests")?))
}

/// Bytes of the index that hold something.
pub(crate) fn bytes(conn: &Connection) -> Result<u64, BlobError> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |r| uint(r, 0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages * pragma("page_size")?)
}

/// Returns the prefix of this store's pack names, chosen when the store is created, so that
/// stores that share a bucket do not take each other's packs for leftovers.
pub(crate) fn prefix(conn: &Connection, fresh: &str) -> Result<String, BlobError> {
    conn.execute("INSERT OR IGNORE INTO meta VALUES ('prefix', ?1)", [fresh])?;
    Ok(conn.query_row("SELECT value FROM meta WHERE key = 'prefix'", [], |r| r.get(0))?)
}

/// Place where the packs lie when that is not beside the index, see [`crate::packs::PackStore::place`].
pub(crate) fn packs_place(conn: &Connection) -> Result<Option<String>, BlobError> {
    let mut query = conn.prepare("SELECT value FROM meta WHERE key = 'packs'")?;
    Ok(query.query_row([], |r| r.get(0)).optional()?)
}

/// Says that they lie there.
pub(crate) fn set_packs_place(conn: &Connection, place: Option<&str>) -> Result<(), BlobError> {
    match place {
        Some(place) => conn.execute("INSERT OR REPLACE INTO meta VALUES ('packs', ?1)", [place])?,
        None => conn.execute("DELETE FROM meta WHERE key = 'packs'", [])?,
    };
    Ok(())
}

/// Refuses packs that are not this index's; a new index takes them as its own.
pub(crate) fn belong(conn: &Connection, place: Option<&str>) -> Result<(), BlobError> {
    if !conn.prepare("SELECT 1 FROM meta WHERE key = 'prefix'")?.exists([])? {
        return set_packs_place(conn, place);
    }
    let known = packs_place(conn)?;
    match known.as_deref() == place {
        true => Ok(()),
        false => Err(BlobError::elsewhere(known.as_deref(), place)),
    }
}

/// After the wall clock was set back: nothing is from the future.
pub(crate) fn not_after(conn: &Connection, now: u64) -> Result<(), BlobError> {
    let now = int(now)?;
    conn.execute("UPDATE packs SET created = ?1 WHERE created > ?1", [now])?;
    conn.execute("UPDATE manifests SET created = ?1 WHERE created > ?1", [now])?;
    Ok(())
}
