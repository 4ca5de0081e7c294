//! Copies of a store that another process may have open: packs are immutable, so they are linked
//! where the file system can and copied where not; the index is copied by SQLite.
//!
//! A collection that runs meanwhile may delete packs that the copied index names. Therefore packs
//! are linked before the index is copied too, and an index some of whose packs are gone is copied
//! again: by then it names those that took their place.

use crate::packed::unpack;
use crate::store::checked;
use crate::{BlobError, Hash, index};
use outlast_sqlite::{prepare_folder, private, sync_folder};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How often an index is copied whose packs went away meanwhile.
const TRIES: usize = 10;

/// What a copy holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies the store in `from` to the folder `to`, which must be empty or absent. Its packs lie
/// below its own folder. What was durable before the call is in the copy; the copy is durable
/// when this returns. `to` may share packs with `from` by hard links.
///
/// # Errors
/// [`BlobError`]; then `to` is of no use.
pub fn copy_store(from: &Path, to: &Path) -> Result<Copied, BlobError> {
    let (packs, copy) = (from.join("packs"), to.join("packs"));
    prepare_folder(to)?;
    prepare_folder(&copy)?;
    link_all(&packs, &copy)?;
    for _ in 0..TRIES {
        copy_index(&from.join("index.db"), &to.join("index.db"))?;
        let conn = open(&to.join("index.db"))?;
        if let Some(done) = take(&conn, &packs, &copy)? {
            for folder in [&copy, to] {
                sync_folder(folder).map_err(|e| BlobError::file(folder, e))?;
            }
            return Ok(done);
        }
    }
    Err(BlobError::Io { detail: "packs moved whenever the index was read".into(), transient: true })
}

/// Checks a copy that nobody has open: the index, these blobs, and that each of their chunks lies
/// where the index says; with `deep` also that it is what its hash promises. Memory: 50 bytes for
/// each chunk.
///
/// # Errors
/// [`BlobError`] names what is missing or damaged first.
pub fn check_copy(dir: &Path, blobs: &[Hash], deep: bool) -> Result<(), BlobError> {
    let conn = open(&dir.join("index.db"))?;
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if verdict != "ok" {
        return Err(BlobError::Damaged { detail: verdict });
    }
    let mut files: HashMap<String, (File, u64)> = HashMap::new();
    let (mut seen, mut bytes, mut room) = (HashSet::new(), Vec::new(), Vec::new());
    for blob in blobs {
        let body = index::manifest(&conn, blob)?.ok_or(BlobError::Unknown(*blob))?;
        for (chunk, len) in checked(blob, &body)?.chunks() {
            if !seen.insert(*chunk) {
                continue;
            }
            let place = index::place(&conn, chunk)?;
            let (pack, spot) = place.ok_or_else(|| BlobError::Missing(vec![*chunk]))?;
            let damaged = |detail: String| BlobError::ChunkDamaged { chunk: *chunk, detail };
            if files.len() > 64 {
                files.clear();
            }
            let (file, size) = match files.entry(pack) {
                std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::hash_map::Entry::Vacant(none) => {
                    let path = dir.join("packs").join(none.key());
                    let file = File::open(&path).map_err(|e| damaged(e.to_string()))?;
                    let size = file.metadata().map_err(|e| BlobError::file(&path, e))?.len();
                    none.insert((file, size))
                }
            };
            if spot.raw != *len || spot.pos + u64::from(spot.stored) > *size {
                return Err(damaged("its pack is cut short, or the index contradicts".into()));
            }
            if deep {
                bytes.resize(spot.stored as usize, 0);
                file.read_exact_at(&mut bytes, spot.pos).map_err(|e| damaged(e.to_string()))?;
                let compressed = spot.stored < spot.raw;
                unpack(chunk, &bytes, compressed, spot.raw, &mut room).map_err(damaged)?;
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Connection, BlobError> {
    Ok(outlast_sqlite::open_shared(path, &index::KIND, false)?)
}

fn copy_index(from: &Path, to: &Path) -> Result<(), BlobError> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(BlobError::file(to, e)),
        _ => {}
    }
    Ok(outlast_sqlite::copy(&open(from)?, to)?)
}

/// Links whatever is there, so that what is deleted soon is not lost.
fn link_all(from: &Path, to: &Path) -> Result<(), BlobError> {
    for entry in fs::read_dir(from).map_err(|e| BlobError::file(from, e))? {
        let entry = entry.map_err(|e| BlobError::file(from, e))?;
        match fs::hard_link(entry.path(), to.join(entry.file_name())) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // Another disk, or one without links: the packs are copied once the index names them,
            // for one that is being written has no end yet.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Links or copies the packs that this index names, and deletes the others. None when some are
/// gone.
fn take(conn: &Connection, from: &Path, to: &Path) -> Result<Option<Copied>, BlobError> {
    let mut done = Copied::default();
    let mut named = HashSet::new();
    for pack in index::packs(conn)? {
        let target = to.join(&pack.name);
        let whole = |path: &Path| fs::metadata(path).is_ok_and(|m| m.len() >= pack.bytes);
        if !whole(&target) {
            match link_or_copy(&from.join(&pack.name), &target) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                other => other.map_err(|e| BlobError::io(format_args!("pack {}", pack.name), e))?,
            }
            if !whole(&target) {
                return Err(BlobError::damaged("pack", format!("{} is cut short", pack.name)));
            }
        }
        done.packs += 1;
        done.bytes += pack.bytes;
        named.insert(pack.name);
    }
    for entry in fs::read_dir(to).map_err(|e| BlobError::file(to, e))? {
        let entry = entry.map_err(|e| BlobError::file(to, e))?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            fs::remove_file(entry.path()).map_err(|e| BlobError::file(&entry.path(), e))?;
        }
    }
    Ok(Some(done))
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match fs::hard_link(from, to) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            let mut copy = private(File::options().write(true).create_new(true)).open(to)?;
            io::copy(&mut File::open(from)?, &mut copy)?;
            copy.sync_all()
        }
        other => other,
    }
}
