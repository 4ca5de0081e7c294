//! Errors of opening a file. Each store has an error type of its own with the same cases.

use std::io;
use std::path::{Path, PathBuf};

/// Reason why a file could not be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer version of the software wrote it.
    #[error("{}: written by a newer version (schema {found}, this one knows up to {known})", path.display())]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Schema version of the file.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// An SQLite file of something else; it was not touched.
    #[error("{}: an SQLite file, but not {expected}", path.display())]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Expected kind of file.
        expected: &'static str,
    },
    /// The file's owner has not yet created or migrated it.
    #[error("{}: its owner has not made it, or not brought it up to date", path.display())]
    NotReady {
        /// Path of the file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{}: in use by {}", path.display(), crate::holder::of_store(path))]
    Locked {
        /// Path of the file.
        path: PathBuf,
    },
    /// Result of SQLite's integrity check.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The file system cannot hold a write-ahead log.
    #[error("the file system allows no shared write-ahead log (mode {0})")]
    NoLog(String),
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// For `map_err`: names the file.
pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |error| Error::File { path, error }
}
