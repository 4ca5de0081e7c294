//! Why a file could not be opened. Each store has an error of its own, which says the same.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer version of the software wrote it.
    #[error("{}: written by a newer version (schema {found}, this one knows up to {known})", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// An SQLite file of something else; it was not touched.
    #[error("{}: an SQLite file, but not {expected}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
    },
    /// Its owner has not made it yet, or not brought it up to date.
    #[error("{}: its owner has not made it, or not brought it up to date", path.display())]
    NotReady {
        /// Which file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{}: in use by {}", path.display(), crate::holder::of_store(path))]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// What SQLite's check found.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The file system cannot hold a write-ahead log.
    #[error("the file system allows no shared write-ahead log (mode {0})")]
    NoLog(String),
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
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
