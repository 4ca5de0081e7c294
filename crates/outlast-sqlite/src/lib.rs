//! The opening of SQLite files: by whom, with what content, and how they sync; and files and folders that
//! only their owner reads. This crate knows no tables and no use of them.

mod error;
pub mod folder;
pub mod holder;

pub use error::Error;
use error::file;
use holder::lock_of;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Files up to this size are checked in full when they are opened; it takes under a second.
const CHECK_LIMIT: u64 = 64 << 20;

/// A kind of file: its mark, its migrations and its use.
#[derive(Debug)]
pub struct Kind {
    /// For error texts: "a coordinator's store".
    pub what: &'static str,
    /// A mark in the file's header.
    pub application_id: i32,
    /// The n-th (from 1) brings `user_version` to n. Never edited once released.
    pub migrations: &'static [&'static str],
    /// Time for which a connection waits for another's transaction.
    pub busy: Duration,
    /// Pages that a writing connection keeps in memory, in KiB.
    pub cache_kib: u32,
    /// Pages in the log before it is copied back: pages that change often are copied less often
    /// where it is larger.
    pub log_pages: u32,
    /// Size to which the log's file is cut once it was copied back, in bytes.
    pub log_bytes: u64,
}

impl Kind {
    fn known(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// The lock of an owner, held for as long as the file is open; the system frees it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Opens (or creates) the file for its one owner.
///
/// # Errors
/// [`Error`]; a file that is not of this kind and version is left as it was.
pub fn open_owned(path: &Path, kind: &Kind) -> Result<(Connection, Lock), Error> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        prepare_folder(folder)?;
    }
    let lock = lock(path)?;
    let made = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(path)
        .map_err(file(path))?;
    restrict(&made).map_err(file(path))?;
    let size = made.metadata().map_err(file(path))?.len();
    drop(made);

    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, kind)?;
    // Nothing may be written before we know that the file is ours.
    let version = identify(&conn, path, kind)?;
    if size < CHECK_LIMIT {
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if verdict != "ok" {
            return Err(Error::Damaged(verdict));
        }
    }
    configure(&conn, kind)?;
    migrate(&mut conn, kind, version)?;
    Ok((conn, lock))
}

/// Opens another connection to a file that its owner has created.
///
/// # Errors
/// [`Error`], [`Error::NotReady`] among them.
pub fn open_shared(path: &Path, kind: &Kind, write: bool) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::NotReady { path: path.into() });
    }
    let mode =
        if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let conn = connect(path, mode, kind)?;
    if identify(&conn, path, kind)? < kind.known() {
        return Err(Error::NotReady { path: path.into() });
    }
    if write {
        configure(&conn, kind)?;
    }
    Ok(conn)
}

fn connect(path: &Path, mode: OpenFlags, kind: &Kind) -> Result<Connection, Error> {
    // Each connection stays in one thread at a time, so SQLite need not lock it.
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(kind.busy)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.execute_batch("PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

/// The schema version of a file of this kind; 0 for an empty file.
fn identify(conn: &Connection, path: &Path, kind: &Kind) -> Result<i64, Error> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application != i64::from(kind.application_id) {
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        // A file without content is one whose creation was interrupted.
        if application != 0 || version != 0 || tables != 0 {
            return Err(Error::Foreign { path: path.into(), expected: kind.what });
        }
    }
    if version > kind.known() {
        return Err(Error::Newer { path: path.into(), found: version, known: kind.known() });
    }
    Ok(version)
}

fn configure(conn: &Connection, kind: &Kind) -> Result<(), Error> {
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(Error::NoLog(mode));
    }
    // FULL: the log is synced in every commit.
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{};
         PRAGMA wal_autocheckpoint = {};
         PRAGMA journal_size_limit = {};",
        kind.cache_kib, kind.log_pages, kind.log_bytes
    ))?;
    Ok(())
}

fn migrate(conn: &mut Connection, kind: &Kind, version: i64) -> Result<(), Error> {
    let pending = kind.migrations.iter().enumerate().skip(version as usize);
    for (index, sql) in pending {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", kind.application_id)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

/// Writes a consistent copy of the file behind `conn` to a file that does not exist yet, and syncs
/// it. The owner goes on meanwhile; its log grows until this is done.
///
/// # Errors
/// [`Error`]; then the copy is of no use.
pub fn copy(conn: &Connection, to: &Path) -> Result<(), Error> {
    // Made here, so that only its owner reads it: SQLite writes into an empty file.
    private(OpenOptions::new().write(true).create_new(true)).open(to).map_err(file(to))?;
    let utf8 = || file(to)(io::Error::other("SQLite needs a name in UTF-8"));
    let name = to.to_str().ok_or_else(utf8)?;
    // One read transaction: unlike a copy by pages it need not begin again when somebody writes.
    conn.execute("VACUUM INTO ?1", [name])?;
    File::open(to).and_then(|f| f.sync_all()).map_err(file(to))
}

/// Creates a folder that only the owner reads, and makes its name durable.
///
/// # Errors
/// [`Error::File`].
pub fn prepare_folder(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(file(folder))?;
    // A folder that a power cut undoes takes its synced files with it.
    if let Some(parent) = folder.parent().filter(|f| !f.as_os_str().is_empty()) {
        sync_folder(parent).map_err(file(parent))?;
    }
    Ok(())
}

/// Makes the names in a folder durable, where the system has a way to ask for that.
///
/// # Errors
/// The system's error.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Returns whether a process has the file open as its owner.
///
/// # Errors
/// [`Error::File`].
pub fn is_locked(path: &Path) -> Result<bool, Error> {
    let name = lock_of(path);
    let held = match OpenOptions::new().write(true).open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(file(&name))?,
    };
    match fs4::FileExt::try_lock(&held) {
        Ok(()) => Ok(false),
        Err(fs4::TryLockError::WouldBlock) => Ok(true),
        Err(fs4::TryLockError::Error(error)) => Err(Error::File { path: name, error }),
    }
}

/// The lock is a file of its own: SQLite takes and drops locks on the store itself.
fn lock(path: &Path) -> Result<Lock, Error> {
    let name = lock_of(path);
    let held = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&name)
        .map_err(file(&name))?;
    match fs4::FileExt::try_lock(&held) {
        Ok(()) => {
            holder::sign(&held);
            Ok(Lock { _file: held })
        }
        Err(fs4::TryLockError::WouldBlock) => Err(Error::Locked { path: path.into() }),
        Err(fs4::TryLockError::Error(error)) => Err(Error::File { path: name, error }),
    }
}

/// Sets permissions for a file that may hold secrets: only the owner reads it. SQLite gives its log
/// files the permissions of the main file.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn restrict(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i32 = 77;
    const OLD: Kind = Kind {
        what: "a test",
        application_id: ID,
        migrations: &["CREATE TABLE a (x)"],
        busy: Duration::from_secs(5),
        cache_kib: 1024,
        log_pages: 1000,
        log_bytes: 1 << 20,
    };
    const NEW: Kind =
        Kind { migrations: &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 5"], ..OLD };

    #[test]
    fn every_commit_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let (owned, _lock) = open_owned(&path, &OLD).unwrap();
        let shared = open_shared(&path, &OLD, true).unwrap();
        for conn in [owned, shared] {
            let ask = |name| conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).unwrap();
            assert_eq!(ask("synchronous"), 2, "FULL");
            assert_eq!(ask("foreign_keys"), 0);
            let mode: String = conn.pragma_query_value(None, "journal_mode", |r| r.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn an_older_store_is_brought_up_to_date_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let (conn, lock) = open_owned(&path, &OLD).unwrap();
        conn.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        drop((conn, lock));
        assert!(matches!(open_shared(&path, &NEW, true), Err(Error::NotReady { .. })));
        let (conn, _lock) = open_owned(&path, &NEW).unwrap();
        let row = conn.query_row("SELECT x, y FROM a", [], |r| Ok((r.get(0)?, r.get(1)?)));
        assert_eq!(row.unwrap(), (1, 5));
        assert!(matches!(
            open_shared(&path, &OLD, false),
            Err(Error::Newer { found: 2, known: 1, .. })
        ));
    }
}
