//! Opening the index file: who may, what it must contain, how it syncs. Knows no tables.

use crate::BlobError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// "OLB", 1; kept in the file's header.
const APPLICATION_ID: i32 = 0x4F4C_4201;
/// How long one of our connections waits for the other.
const BUSY: Duration = Duration::from_secs(10);
/// Indexes up to this size are checked in full when they are opened; it takes under a second.
const CHECK_LIMIT: u64 = 64 << 20;

/// Held for as long as the store is open; the system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Opens (or creates) the index for its one owner: a connection that writes and one that only
/// reads. The n-th of `migrations` (from 1) brings `user_version` to n.
pub(crate) fn open(
    path: &Path,
    migrations: &[&str],
) -> Result<(Connection, Connection, Lock), BlobError> {
    let lock = lock(path)?;
    let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(path)
        .map_err(|e| BlobError::file(path, e))?;
    let size = file.metadata().map_err(|e| BlobError::file(path, e))?.len();
    drop(file);

    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Nothing may be written before we know that the file is ours.
    let version = identify(&conn, path, migrations.len() as i64)?;
    if size < CHECK_LIMIT {
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if verdict != "ok" {
            return Err(BlobError::Damaged { detail: verdict });
        }
    }
    configure(&conn)?;
    for (index, sql) in migrations.iter().enumerate().skip(version as usize) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)?;
        tx.commit()?;
    }
    let reads = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok((conn, reads, lock))
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, BlobError> {
    // Each connection stays in one thread at a time, so SQLite need not lock it.
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.execute_batch("PRAGMA cache_size = -8192; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

/// The schema version; 0 for an empty file.
pub(crate) fn identify(conn: &Connection, path: &Path, known: i64) -> Result<i64, BlobError> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application != i64::from(APPLICATION_ID) {
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        // A file without content is one whose creation was interrupted.
        if application != 0 || version != 0 || tables != 0 {
            return Err(BlobError::Foreign { path: path.into() });
        }
    }
    if version > known {
        return Err(BlobError::Newer { path: path.into(), found: version, known });
    }
    Ok(version)
}

fn configure(conn: &Connection) -> Result<(), BlobError> {
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(BlobError::Io {
            detail: format!("the file system allows no shared write-ahead log (mode {mode})"),
            transient: false,
        });
    }
    // FULL: the log is synced in every commit. The log stays small, for it is not in the budget.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = 1024;
         PRAGMA journal_size_limit = 8388608;",
    )?;
    Ok(())
}

/// Creates a folder that only the owner reads, and makes its name durable.
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), BlobError> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| BlobError::file(folder, e))?;
    // A folder that a power cut undoes takes its synced files with it.
    if let Some(parent) = folder.parent().filter(|f| !f.as_os_str().is_empty()) {
        sync_folder(parent).map_err(|e| BlobError::file(parent, e))?;
    }
    Ok(())
}

/// Makes the names in a folder durable, where the system has a way to ask for that.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// The lock is a file of its own: SQLite takes and drops locks on the index itself.
fn lock(path: &Path) -> Result<Lock, BlobError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&name)
        .map_err(|e| BlobError::file(&name, e))?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(fs4::TryLockError::WouldBlock) => Err(BlobError::Locked { path: path.into() }),
        Err(fs4::TryLockError::Error(e)) => Err(BlobError::file(&name, e)),
    }
}

/// Checkpoints may hold secrets: only the owner reads what we create.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
