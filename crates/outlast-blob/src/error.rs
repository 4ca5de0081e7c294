//! The errors of the blob store, whose fault each is and whether trying again can help.

use crate::Hash;
use std::io;
use std::path::{Path, PathBuf};

/// Reason why a call failed. Nothing that a failed call was to store is visible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// A newer version of the software wrote the index.
    #[error(
        "{}: written by a newer version (schema {found}, this one knows up to {known}); \
         upgrade this program", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// An SQLite file of something else; it was not touched.
    #[error("{}: an SQLite file, but not the index of a blob store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("{}: in use by {}", path.display(), outlast_sqlite::holder::of_store(path))]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The packs are not where they were looked for.
    #[error("the packs of this blob store lie in {at}, not in {asked}")]
    Elsewhere {
        /// Place where they lie.
        at: String,
        /// Place where they were looked for.
        asked: String,
    },
    /// The index cannot be trusted.
    #[error("the index of the blob store is damaged: {detail}; restore it from a copy")]
    Damaged {
        /// Description of the damage.
        detail: String,
    },
    /// A stored chunk does not have the content that its name promises. It counts as missing
    /// from now on, and the next put or ingest that brings it repairs it.
    #[error("chunk {chunk} is damaged: {detail}")]
    ChunkDamaged {
        /// The name.
        chunk: Hash,
        /// Description of the damage.
        detail: String,
    },
    /// A stored manifest does not have the content that its name promises.
    #[error("manifest {manifest} is damaged: {detail}")]
    ManifestDamaged {
        /// The name.
        manifest: Hash,
        /// Description of the damage.
        detail: String,
    },
    /// There is no such manifest here.
    #[error("there is no manifest {0}")]
    Unknown(Hash),
    /// These chunks are needed and are not here.
    #[error("{} chunks are missing, among them {}", .0.len(), .0.first().map_or(String::new(), Hash::to_string))]
    Missing(Vec<Hash>),
    /// A chunk that somebody sent is not what its name promises; sending it again as it is
    /// will not help.
    #[error("chunk {chunk} was refused: {detail}")]
    BadChunk {
        /// The name.
        chunk: Hash,
        /// Description of the problem.
        detail: String,
    },
    /// The bytes are no manifest that this version accepts.
    #[error("the manifest was refused: {detail}")]
    BadManifest {
        /// Description of the problem.
        detail: String,
    },
    /// The blob has more chunks than a manifest may list.
    #[error("the blob is too large: more than {} chunks", crate::limits::MAX_CHUNKS)]
    TooLarge,
    /// The store's budget does not allow it.
    #[error("the blob store is full: {used} of {budget} bytes used, {needed} more needed")]
    Full {
        /// Bytes on disk without this call.
        used: u64,
        /// Bytes allowed.
        budget: u64,
        /// Bytes that this call had to add when it was refused; more may have followed.
        needed: u64,
    },
    /// No room on the disk.
    #[error("no room left on the disk of the blob store")]
    DiskFull,
    /// The data to store could not be read.
    #[error("cannot read what is to be stored: {0}")]
    Source(#[source] io::Error),
    /// The operating system (or the object store) refused a read or write.
    #[error("cannot use the blob store: {detail}")]
    Io {
        /// Message of the error.
        detail: String,
        /// True if the operation may succeed later.
        transient: bool,
    },
}

impl BlobError {
    /// Returns whether the same call can succeed later without anybody repairing the store.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::DiskFull | Self::Missing(_) | Self::Locked { .. } => true,
            Self::Io { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Returns whether there was no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::DiskFull)
    }

    pub(crate) fn elsewhere(at: Option<&str>, asked: Option<&str>) -> Self {
        let named = |place: Option<&str>| place.unwrap_or("the folder beside its index").to_owned();
        Self::Elsewhere { at: named(at), asked: named(asked) }
    }

    pub(crate) fn damaged(what: &str, detail: impl std::fmt::Display) -> Self {
        Self::Damaged { detail: format!("{what}: {detail}") }
    }

    pub(crate) fn file(path: &Path, error: io::Error) -> Self {
        Self::io(path.display(), error)
    }

    pub(crate) fn io(what: impl std::fmt::Display, error: io::Error) -> Self {
        use io::ErrorKind as K;
        if matches!(error.kind(), K::StorageFull | K::QuotaExceeded) {
            return Self::DiskFull;
        }
        let transient = matches!(
            error.kind(),
            K::Interrupted
                | K::TimedOut
                | K::ConnectionReset
                | K::ConnectionRefused
                | K::NetworkUnreachable
                | K::HostUnreachable
        );
        Self::Io { detail: format!("{what}: {error}"), transient }
    }
}

impl From<outlast_sqlite::Error> for BlobError {
    fn from(error: outlast_sqlite::Error) -> Self {
        use outlast_sqlite::Error as E;
        match error {
            E::Newer { path, found, known } => Self::Newer { path, found, known },
            E::Foreign { path, .. } => Self::Foreign { path },
            E::Locked { path } => Self::Locked { path },
            E::Damaged(detail) => Self::Damaged { detail },
            E::File { path, error } => Self::file(&path, error),
            E::Sqlite(error) => error.into(),
            E::NotReady { .. } | E::NoLog(_) => {
                Self::Io { detail: error.to_string(), transient: false }
            }
        }
    }
}

impl From<rusqlite::Error> for BlobError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let io = |transient| Self::Io { detail: format!("index: {error}"), transient };
        match &error {
            rusqlite::Error::SqliteFailure(code, _) => match code.code {
                C::DiskFull => Self::DiskFull,
                C::DatabaseCorrupt | C::NotADatabase => Self::damaged("SQLite", &error),
                C::DatabaseBusy | C::DatabaseLocked | C::SystemIoFailure | C::OutOfMemory => {
                    io(true)
                }
                _ => io(false),
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows => Self::damaged("SQLite", &error),
            _ => io(false),
        }
    }
}

/// For callers that read a blob through [`std::io::Read`].
impl From<BlobError> for io::Error {
    fn from(error: BlobError) -> Self {
        let kind = match &error {
            BlobError::Unknown(_) | BlobError::Missing(_) => io::ErrorKind::NotFound,
            BlobError::ChunkDamaged { .. } | BlobError::ManifestDamaged { .. } => {
                io::ErrorKind::InvalidData
            }
            BlobError::DiskFull => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
