//! Copies of a store that another process may have open: packs are immutable, so they are linked
//! where the file system can and copied where not; the index is copied by SQLite. Packs may lie
//! in a bucket on either side.
//!
//! A collection that runs meanwhile may delete packs that the copied index names. Therefore packs
//! are linked before the index is copied too, and an index some of whose packs are gone is copied
//! again: by then it names those that took their place.

use crate::packed::unpack;
use crate::packs::{LocalPacks, PackStore};
use crate::{BlobError, Hash, Manifest, index};
use outlast_sqlite::{prepare_folder, private, sync_folder};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

/// Number of times that an index is copied whose packs went away meanwhile.
const TRIES: usize = 10;
/// Bytes of a pack that are in memory while it travels from or to a bucket.
const PIECE: u64 = 8 << 20;

/// The amounts of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Packs.
    pub packs: u64,
    /// The bytes.
    pub bytes: u64,
}

/// A store that is not open: its folder, and its bucket if the packs lie in one.
#[derive(Clone, Copy)]
pub struct Home<'a> {
    /// The folder with the index.
    pub folder: &'a Path,
    /// Place where the packs lie if that is not below the folder.
    pub bucket: Option<&'a dyn PackStore>,
}

impl<'a> Home<'a> {
    /// A store that has all in its folder.
    pub fn local(folder: &'a Path) -> Self {
        Home { folder, bucket: None }
    }

    fn index(&self) -> PathBuf {
        self.folder.join("index.db")
    }

    fn packs(&self) -> PathBuf {
        self.folder.join("packs")
    }
}

/// Returns the bucket that the store in this folder has its packs in, if any.
///
/// # Errors
/// When there is no index that can be read.
pub fn packs_place(folder: &Path) -> Result<Option<String>, BlobError> {
    index::packs_place(&open(&Home::local(folder).index(), false)?)
}

/// Copies the store `from` to `to`, whose folder must be empty or absent. What was durable before
/// the call is in the copy; the copy is durable when this returns. Folders may share packs by hard
/// links. A bucket must hold no packs of this store yet.
///
/// # Errors
/// [`BlobError`]; then `to` is of no use.
pub fn copy_store(from: Home<'_>, to: Home<'_>) -> Result<Copied, BlobError> {
    let place = packs_place(from.folder)?;
    let given = from.bucket.and_then(PackStore::place);
    if place.as_deref() != given {
        return Err(BlobError::elsewhere(place.as_deref(), given));
    }
    prepare_folder(to.folder)?;
    if to.bucket.is_none() {
        prepare_folder(&to.packs())?;
        if from.bucket.is_none() {
            link_all(&from.packs(), &to.packs())?;
        }
    }
    let mut there = HashMap::new();
    let copied = copy_all(from, to, &mut there);
    if let (Err(_), Some(bucket)) = (&copied, to.bucket) {
        // The next try needs the place, and nobody else would delete them.
        for name in there.keys() {
            let _ = bucket.delete(name);
        }
    }
    copied
}

fn copy_all(
    from: Home<'_>,
    to: Home<'_>,
    there: &mut HashMap<String, u64>,
) -> Result<Copied, BlobError> {
    let given = from.bucket.and_then(PackStore::place);
    let mut missing = None;
    for round in 0..TRIES {
        copy_index(&from.index(), &to.index())?;
        let conn = open(&to.index(), true)?;
        if let (0, Some(bucket)) = (round, to.bucket) {
            unused(&conn, bucket)?;
        }
        let (ours, theirs) = (LocalPacks::new(from.packs()), LocalPacks::new(to.packs()));
        let taken = match (from.bucket, to.bucket) {
            (None, None) => take(&conn, &from.packs(), &to.packs())?,
            (source, target) => {
                let (source, target) = (source.unwrap_or(&ours), target.unwrap_or(&theirs));
                carry(&conn, source, target, there)?
            }
        };
        let done = match taken {
            Ok(done) => done,
            // Named by the index before and again: it did not move, it is not there.
            Err(name) if missing.as_ref() == Some(&name) => {
                let at = given.map_or(from.packs().display().to_string(), ToOwned::to_owned);
                let detail = format!("pack {name}, which its index names, is not in {at}");
                return Err(BlobError::Io { detail, transient: false });
            }
            Err(name) => {
                missing = Some(name);
                continue;
            }
        };
        index::set_packs_place(&conn, to.bucket.and_then(PackStore::place))?;
        if to.bucket.is_none() {
            sweep(&to.packs(), &conn)?;
            sync_folder(&to.packs()).map_err(|e| BlobError::file(&to.packs(), e))?;
        }
        drop(conn);
        sync_folder(to.folder).map_err(|e| BlobError::file(to.folder, e))?;
        return Ok(done);
    }
    Err(BlobError::Io { detail: "packs moved whenever the index was read".into(), transient: true })
}

/// Checks a copy that nobody has open: the index, these blobs, and that each of their chunks lies
/// where the index says; with `deep` also that it is what its hash promises. Memory: 50 bytes for
/// each chunk.
///
/// # Errors
/// [`BlobError`] names what is missing or damaged first.
pub fn check_copy(copy: Home<'_>, blobs: &[Hash], deep: bool) -> Result<(), BlobError> {
    let conn = open(&copy.index(), false)?;
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if verdict != "ok" {
        return Err(BlobError::Damaged { detail: verdict });
    }
    let local = LocalPacks::new(copy.packs());
    let packs = copy.bucket.unwrap_or(&local);
    let mut sizes = HashMap::new();
    packs
        .list("", &mut |name, bytes| {
            sizes.insert(name.to_owned(), bytes);
        })
        .map_err(|e| BlobError::io("packs", e))?;
    let (mut seen, mut bytes, mut room) = (HashSet::new(), Vec::new(), Vec::new());
    for blob in blobs {
        let body = index::manifest(&conn, blob)?.ok_or(BlobError::Unknown(*blob))?;
        for (chunk, len) in Manifest::stored(blob, &body)?.chunks() {
            if !seen.insert(*chunk) {
                continue;
            }
            let place = index::place(&conn, chunk)?;
            let (pack, spot) = place.ok_or_else(|| BlobError::Missing(vec![*chunk]))?;
            let damaged = |detail: String| BlobError::ChunkDamaged { chunk: *chunk, detail };
            let size = *sizes.get(&pack).ok_or_else(|| damaged("its pack is gone".into()))?;
            if spot.raw != *len || spot.pos + u64::from(spot.stored) > size {
                return Err(damaged("its pack is cut short, or the index contradicts".into()));
            }
            if deep {
                bytes.resize(spot.stored as usize, 0);
                let read = packs.read_at(&pack, spot.pos, &mut bytes);
                read.map_err(|e| damaged(e.to_string()))?;
                let compressed = spot.stored < spot.raw;
                unpack(chunk, &bytes, compressed, spot.raw, &mut room).map_err(damaged)?;
            }
        }
    }
    Ok(())
}

fn open(path: &Path, write: bool) -> Result<Connection, BlobError> {
    Ok(outlast_sqlite::open_shared(path, &index::KIND, write)?)
}

fn copy_index(from: &Path, to: &Path) -> Result<(), BlobError> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(BlobError::file(to, e)),
        _ => {}
    }
    Ok(outlast_sqlite::copy(&open(from, false)?, to)?)
}

/// A bucket that holds packs of this store is used by it, or was: when the copy is opened there,
/// it would take for leftovers what it does not know.
fn unused(conn: &Connection, bucket: &dyn PackStore) -> Result<(), BlobError> {
    let prefix = index::prefix(conn, "")?;
    let mut found = 0_u64;
    bucket.list(&prefix, &mut |_, _| found += 1).map_err(|e| BlobError::io("packs", e))?;
    if found == 0 {
        return Ok(());
    }
    let at = bucket.place().unwrap_or_default();
    let detail = format!("{at} holds {found} packs of this store already; give another prefix");
    Err(BlobError::Io { detail, transient: false })
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

/// Copied data, or the name of a pack that is gone.
type Taken = Result<Copied, String>;

/// Links or copies the packs that this index names.
fn take(conn: &Connection, from: &Path, to: &Path) -> Result<Taken, BlobError> {
    let mut done = Copied::default();
    for pack in index::packs(conn)? {
        let target = to.join(&pack.name);
        let whole = |path: &Path| fs::metadata(path).is_ok_and(|m| m.len() >= pack.bytes);
        if !whole(&target) {
            match link_or_copy(&from.join(&pack.name), &target) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Err(pack.name)),
                other => other.map_err(|e| BlobError::io(format_args!("pack {}", pack.name), e))?,
            }
            if !whole(&target) {
                return Err(BlobError::damaged("pack", format!("{} is cut short", pack.name)));
            }
        }
        done.packs += 1;
        done.bytes += pack.bytes;
    }
    Ok(Ok(done))
}

/// Deletes the packs that this index does not name.
fn sweep(to: &Path, conn: &Connection) -> Result<(), BlobError> {
    let named: HashSet<String> = index::packs(conn)?.into_iter().map(|pack| pack.name).collect();
    for entry in fs::read_dir(to).map_err(|e| BlobError::file(to, e))? {
        let entry = entry.map_err(|e| BlobError::file(to, e))?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            fs::remove_file(entry.path()).map_err(|e| BlobError::file(&entry.path(), e))?;
        }
    }
    Ok(())
}

/// Carries the packs that this index names, those that are not there already.
fn carry(
    conn: &Connection,
    from: &dyn PackStore,
    to: &dyn PackStore,
    there: &mut HashMap<String, u64>,
) -> Result<Taken, BlobError> {
    let mut done = Copied::default();
    for pack in index::packs(conn)? {
        if there.get(&pack.name) != Some(&pack.bytes) {
            match carry_one(from, to, &pack.name, pack.bytes) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Err(pack.name)),
                other => other.map_err(|e| BlobError::io(format_args!("pack {}", pack.name), e))?,
            }
            there.insert(pack.name, pack.bytes);
        }
        done.packs += 1;
        done.bytes += pack.bytes;
    }
    to.sync_names().map_err(|e| BlobError::io("packs", e))?;
    Ok(Ok(done))
}

fn carry_one(from: &dyn PackStore, to: &dyn PackStore, name: &str, bytes: u64) -> io::Result<()> {
    let mut copy = to.create(name)?;
    let mut piece = Vec::new();
    let mut at = 0;
    while at < bytes {
        piece.resize(PIECE.min(bytes - at) as usize, 0);
        let read = from.read_at(name, at, &mut piece);
        let written = read.and_then(|()| copy.append(&mut [IoSlice::new(&piece)]));
        if let Err(e) = written {
            drop(copy);
            let _ = to.delete(name);
            return Err(e);
        }
        at += piece.len() as u64;
    }
    copy.seal()
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
