//! Opening SQLite files: who may, what they must contain, how they sync. Knows no tables.

use crate::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a writer waits for another connection's transaction.
const BUSY: Duration = Duration::from_secs(5);
/// Stores up to this size are checked in full when they are opened; it takes under a second.
const CHECK_LIMIT: u64 = 64 << 20;

/// What tells one kind of store from another, and how it came to be.
pub(crate) struct Kind {
    /// For error texts: "a coordinator's store".
    pub what: &'static str,
    /// Kept in the file's header.
    pub application_id: i32,
    /// The n-th (from 1) brings `user_version` to n. Never edited once released.
    pub migrations: &'static [&'static str],
}

impl Kind {
    fn known(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// Held for as long as the store is open; the system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Opens (or creates) the store for its one owner.
pub(crate) fn open_owned(path: &Path, kind: &Kind) -> Result<(Connection, Lock), StoreError> {
    prepare_folder(path)?;
    let lock = lock(path)?;
    let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(path)
        .map_err(|e| StoreError::file(path, e))?;
    restrict(&file).map_err(|e| StoreError::file(path, e))?;
    let size = file.metadata().map_err(|e| StoreError::file(path, e))?.len();
    drop(file);

    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Nothing may be written before we know that the file is ours.
    let version = identify(&conn, path, kind)?;
    if size < CHECK_LIMIT {
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged { detail: verdict });
        }
    }
    configure(&conn)?;
    migrate(&mut conn, kind, version)?;
    Ok((conn, lock))
}

/// Opens a second connection to a store that its owner has created.
pub(crate) fn open_shared(path: &Path, kind: &Kind, write: bool) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::NotReady { path: path.into() });
    }
    let mode =
        if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let conn = connect(path, mode)?;
    if identify(&conn, path, kind)? < kind.known() {
        return Err(StoreError::NotReady { path: path.into() });
    }
    if write {
        configure(&conn)?;
    }
    Ok(conn)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    // Each connection stays in one thread at a time, so SQLite need not lock it.
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// The schema version of a store of this kind; 0 for an empty file.
fn identify(conn: &Connection, path: &Path, kind: &Kind) -> Result<i64, StoreError> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application != i64::from(kind.application_id) {
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        // A file without content is one whose creation was interrupted.
        if application != 0 || version != 0 || tables != 0 {
            return Err(StoreError::Foreign { path: path.into(), expected: kind.what });
        }
    }
    if version > kind.known() {
        return Err(StoreError::Newer { path: path.into(), found: version, known: kind.known() });
    }
    Ok(version)
}

fn configure(conn: &Connection) -> Result<(), StoreError> {
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Io {
            detail: format!("the file system allows no shared write-ahead log (mode {mode})"),
            transient: false,
        });
    }
    // FULL: the log is synced in every commit. A larger log before it is copied back means that
    // pages which change often are copied less often.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -32768;
         PRAGMA wal_autocheckpoint = 4096;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(())
}

fn migrate(conn: &mut Connection, kind: &Kind, version: i64) -> Result<(), StoreError> {
    let pending = kind.migrations.iter().enumerate().skip(version as usize);
    for (index, sql) in pending {
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", kind.application_id)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

fn prepare_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| StoreError::file(folder, e))?;
    // A folder that a power cut undoes takes its synced files with it.
    #[cfg(unix)]
    if let Some(parent) = folder.parent().filter(|f| !f.as_os_str().is_empty()) {
        let synced = File::open(parent).and_then(|f| f.sync_all());
        synced.map_err(|e| StoreError::file(parent, e))?;
    }
    Ok(())
}

/// The lock is a file of its own: SQLite takes and drops locks on the store itself.
fn lock(path: &Path) -> Result<Lock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&name)
        .map_err(|e| StoreError::file(&name, e))?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(fs4::TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.into() }),
        Err(fs4::TryLockError::Error(e)) => Err(StoreError::file(&name, e)),
    }
}

/// Specs and results may hold secrets: only the owner reads what we create. SQLite gives its
/// log files the permissions of the main file.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn restrict(file: &File) -> std::io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// SQLite's integers are signed.
pub(crate) fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Contradiction(format!("{value} is too large")))
}

/// The reverse of [`int`].
pub(crate) fn uint(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::damaged("negative number", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i32 = 77;
    const OLD: Kind =
        Kind { what: "a test", application_id: ID, migrations: &["CREATE TABLE a (x)"] };
    const NEW: Kind = Kind {
        what: "a test",
        application_id: ID,
        migrations: &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 5"],
    };

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
        assert!(matches!(open_shared(&path, &NEW, true), Err(StoreError::NotReady { .. })));
        let (conn, _lock) = open_owned(&path, &NEW).unwrap();
        let row = conn.query_row("SELECT x, y FROM a", [], |r| Ok((r.get(0)?, r.get(1)?)));
        assert_eq!(row.unwrap(), (1, 5));
        assert!(matches!(
            open_shared(&path, &OLD, false),
            Err(StoreError::Newer { found: 2, known: 1, .. })
        ));
    }

    #[test]
    fn numbers_beyond_what_sqlite_holds_are_refused() {
        assert_eq!(int(5).unwrap(), 5);
        assert!(int(u64::MAX).is_err());
        assert!(uint(-1).is_err());
    }
}
