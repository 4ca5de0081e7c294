//! What stands behind the socket: the trait that the agent implements.

use super::pack::{self, Notes};
use super::rights::Rights;
use super::spool::Spooled;
use super::types::*;
use serde_json::{Map, Value};
use std::future::Future;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a task may ask of its worker. Errors are for the task's author to read.
///
/// Every method may be called by several connections at once. Those that change something run to
/// their end even if whoever asked hangs up. They run on the runtime: what blocks (reading a
/// [`Source`], most of all) belongs on a blocking thread.
pub trait Host: Send + Sync + 'static {
    /// About the attempt; [`HostError::NoSuchAttempt`] if it is not this worker's. Asked before a
    /// body is taken in.
    fn info(&self, at: &Attempt) -> impl Future<Output = Result<TaskInfo, HostError>> + Send;

    /// Keeps a checkpoint. It is durable on this worker when this returns.
    fn checkpoint(
        &self,
        at: &Attempt,
        source: Source,
        meta: CheckpointMeta,
    ) -> impl Future<Output = Result<CheckpointView, HostError>> + Send;

    /// The task's checkpoints, of earlier attempts too, newest last.
    fn checkpoints(
        &self,
        at: &Attempt,
    ) -> impl Future<Output = Result<Vec<CheckpointView>, HostError>> + Send;

    /// The bytes of one checkpoint, or of the newest; None if there is none (yet).
    fn restore(
        &self,
        at: &Attempt,
        which: Option<String>,
    ) -> impl Future<Output = Result<Option<Restore>, HostError>> + Send;

    /// Merges the patch into the state: top-level keys replace, null deletes.
    fn update_state(
        &self,
        at: &Attempt,
        patch: Map<String, Value>,
        progress: Option<f64>,
    ) -> impl Future<Output = Result<StateView, HostError>> + Send;

    /// The merged state.
    fn state(&self, at: &Attempt) -> impl Future<Output = Result<StateView, HostError>> + Send;

    /// Keeps a file for the result. It is durable on this worker when this returns.
    fn artifact(
        &self,
        at: &Attempt,
        name: String,
        source: Source,
    ) -> impl Future<Output = Result<ArtifactView, HostError>> + Send;

    /// What is asked of the task, as soon as it differs from `seen`, at the latest after `wait`.
    fn control(
        &self,
        at: &Attempt,
        seen: Control,
        wait: Duration,
    ) -> impl Future<Output = Result<Control, HostError>> + Send;
}

/// Where the bytes of a checkpoint or an artifact come from.
#[derive(Debug)]
pub enum Source {
    /// A file or folder of the task's; absolute. What could not be packed goes to the notes.
    Path(PathBuf, Notes),
    /// A file or folder of the task's, with the rights of another user.
    Theirs(PathBuf, Notes, Arc<Rights>),
    /// A request's body. The file goes when this is dropped.
    Spooled(Spooled),
    /// What a function of this process hands over.
    Memory(Arc<dyn Memory>),
}

/// Bytes in memory, wherever they lie.
pub trait Memory: Send + Sync + std::fmt::Debug {
    /// They, from their beginning. What is read is copied: it may be memory that others write to.
    fn read(self: Arc<Self>) -> Box<dyn Read + Send>;
}

impl Memory for Vec<u8> {
    fn read(self: Arc<Self>) -> Box<dyn Read + Send> {
        struct Shared(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Box::new(io::Cursor::new(Shared(self)))
    }
}

impl Source {
    /// The bytes, with bounded memory: a file's content, or a folder's tar stream. Blocks.
    ///
    /// # Errors
    /// That of opening it. Reading fails, too, if a file shrinks meanwhile.
    pub fn open(&self) -> io::Result<(Kind, Box<dyn Read + Send>)> {
        match self {
            Source::Path(path, notes) => pack::open(path, notes),
            Source::Theirs(path, notes, rights) => {
                rights.read(path, notes).map_err(io::Error::other)
            }
            Source::Spooled(spooled) => Ok((Kind::Raw, Box::new(spooled.reopen()?))),
            Source::Memory(bytes) => Ok((Kind::Raw, bytes.clone().read())),
        }
    }
}

/// A checkpoint to put back.
pub struct Restore {
    /// Which, and what its bytes are.
    pub view: CheckpointView,
    /// Its bytes; read on a blocking thread.
    pub body: Box<dyn Read + Send>,
}

/// Why a request is not granted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HostError {
    /// Not an attempt of this worker's.
    #[error("this worker has no such attempt")]
    NoSuchAttempt,
    /// The task has no checkpoint of this id.
    #[error("there is no checkpoint {0:?}")]
    NoSuchCheckpoint(String),
    /// The data of a checkpoint is damaged here, and there is no other copy.
    #[error("{0}")]
    Damaged(String),
    /// A newer attempt has the task: this one should end.
    #[error("a newer attempt has this task: {0}")]
    Fenced(String),
    /// The attempt is over.
    #[error("this attempt is over: {0}")]
    Ended(String),
    /// No room until the coordinator has taken something over. With `retry_after` (seconds) it is
    /// worth asking again, and the client does so.
    #[error("no room: {used} of {budget} bytes are used; {detail}")]
    Full {
        /// What may be used, in bytes.
        budget: u64,
        /// What is used, in bytes.
        used: u64,
        /// Of what, and what to do.
        detail: String,
        /// When to ask again, in seconds.
        retry_after: Option<u32>,
    },
    /// Whoever asks is not that attempt.
    #[error("{0}")]
    Denied(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// More than is taken at once.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// Bytes.
        limit: u64,
    },
    /// What the request is about is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The worker's fault.
    #[error("{0}")]
    Internal(String),
}

impl HostError {
    /// What went wrong with a file of the *task's*; `what` says what was tried. If it was not the
    /// file but what was to be put there, that is in the error as a [`HostError`].
    pub fn of_file(what: &str, error: &io::Error) -> HostError {
        use io::ErrorKind as K;
        if let Some(own) = HostError::within(error) {
            return own;
        }
        let text = format!("{what}: {error}");
        match error.kind() {
            K::StorageFull | K::QuotaExceeded => HostError::Full {
                budget: 0,
                used: 0,
                detail: format!("the disk is full: {text}"),
                retry_after: None,
            },
            K::NotFound
            | K::PermissionDenied
            | K::NotADirectory
            | K::IsADirectory
            | K::InvalidInput
            | K::InvalidData
            | K::ReadOnlyFilesystem
            | K::InvalidFilename => HostError::Invalid(text),
            K::DirectoryNotEmpty | K::AlreadyExists | K::ResourceBusy => HostError::Conflict(text),
            _ => HostError::Internal(text),
        }
    }
    /// Whoever unpacks wraps errors in others.
    fn within(error: &io::Error) -> Option<HostError> {
        let mut at: &(dyn std::error::Error + 'static) = error.get_ref()?;
        loop {
            if let Some(own) = at.downcast_ref::<HostError>() {
                return Some(own.clone());
            }
            at = match at.downcast_ref::<io::Error>() {
                Some(inner) => inner.get_ref()?,
                None => at.source()?,
            };
        }
    }
}
