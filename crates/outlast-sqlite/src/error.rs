//! The errors of opening a file. Each store has an error of its own with the same cases.

use std::io;
use std::path::{Path, PathBuf};

/// The reason why a file could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer version of the software wrote it.
    #[error("{}: written by a newer version (schema {found}, this one knows up to {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// An SQLite file of something else; it was not touched.
    #[error("{}: an SQLite file, but not {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The expected kind.
        expected: &'static str,
    },
    /// The owner has not made it yet, or not brought it up to date.
    #[error("{}: its owner has not made it, or not brought it up to date", path.display())]
    NotReady {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{}: in use by {}", path.display(), crate::holder::of_store(path))]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A damage that SQLite's check found.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The file system cannot hold a write-ahead log.
    #[error("the file system allows no shared write-ahead log (mode {0})")]
    NoLog(String),
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Adds the name of the file, for `map_err`.
pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |error| Error::File { path, error }
}
