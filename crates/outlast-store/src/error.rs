//! Errors of a store, with their origin, and whether a retry can help.

use std::path::{Path, PathBuf};

/// Reason why a store could not be opened, read or written. After a failed commit nothing is applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A newer version of the software wrote it.
    #[error(
        "{}: written by a newer version (schema {found}, this one knows up to {known}); \
         upgrade this program", path.display()
    )]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Schema version of the file.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// There is no store yet, or an older one that its owner has not brought up to date.
    #[error("{}: no store here yet, or one of an older version; start its owner once", path.display())]
    NotReady {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file's content is damaged.
    #[error("the store is damaged: {detail}; restore it from a copy")]
    Damaged {
        /// Description of the damage.
        detail: String,
    },
    /// An SQLite file of something else; it was not touched.
    #[error("{}: an SQLite file, but not {expected}", path.display())]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Expected kind of file.
        expected: &'static str,
    },
    /// Another process has it open.
    #[error("{}: in use by {}", path.display(), outlast_sqlite::holder::of_store(path))]
    Locked {
        /// Path of the file.
        path: PathBuf,
    },
    /// No room on the disk.
    #[error("no room left on the disk of the store")]
    Full,
    /// Another connection was writing for longer than we wait.
    #[error("the store is busy: another connection kept it locked")]
    Busy,
    /// The operating system refused a read or write.
    #[error("cannot use the store: {detail}")]
    Io {
        /// Message of the error.
        detail: String,
        /// True if the operation may succeed later.
        transient: bool,
    },
    /// The records do not fit what is stored; a mistake of the caller. Nothing was applied.
    #[error("the records contradict the store: {0}")]
    Contradiction(String),
}

impl StoreError {
    /// Returns whether the same call can succeed later without anybody changing the store.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full | Self::Busy => true,
            Self::Io { transient, .. } => *transient,
            _ => false,
        }
    }

    pub(crate) fn damaged(what: &str, detail: impl std::fmt::Display) -> Self {
        Self::Damaged { detail: format!("{what}: {detail}") }
    }

    pub(crate) fn file(path: &Path, error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full;
        }
        let transient = matches!(
            error.kind(),
            std::io::ErrorKind::Interrupted
                | std::io::ErrorKind::TimedOut
                | std::io::ErrorKind::QuotaExceeded
        );
        Self::Io { detail: format!("{}: {error}", path.display()), transient }
    }
}

impl From<outlast_sqlite::Error> for StoreError {
    fn from(error: outlast_sqlite::Error) -> Self {
        use outlast_sqlite::Error as E;
        match error {
            E::Newer { path, found, known } => Self::Newer { path, found, known },
            E::Foreign { path, expected } => Self::Foreign { path, expected },
            E::NotReady { path } => Self::NotReady { path },
            E::Locked { path } => Self::Locked { path },
            E::Damaged(detail) => Self::Damaged { detail },
            E::File { path, error } => Self::file(&path, error),
            E::Sqlite(error) => error.into(),
            E::NoLog(_) => Self::Io { detail: error.to_string(), transient: false },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        match &error {
            rusqlite::Error::SqliteFailure(code, _) => match code.code {
                C::DiskFull => Self::Full,
                C::DatabaseBusy | C::DatabaseLocked => Self::Busy,
                C::DatabaseCorrupt | C::NotADatabase => Self::Damaged { detail: error.to_string() },
                C::ConstraintViolation => Self::Contradiction(error.to_string()),
                // SQLite rewrites in the next commit whatever a failed one had left unsynced.
                C::SystemIoFailure
                | C::OutOfMemory
                | C::ReadOnly
                | C::CannotOpen
                | C::PermissionDenied => Self::Io { detail: error.to_string(), transient: true },
                _ => Self::Io { detail: error.to_string(), transient: false },
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows => Self::Damaged { detail: error.to_string() },
            _ => Self::Io { detail: error.to_string(), transient: false },
        }
    }
}
