//! The trait behind the socket, which the agent implements.

use super::error::HostError;
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

/// Operations of a worker for its tasks. Errors are addressed to the task's author.
///
/// Every method may be called by several connections at once. Those that change something run to
/// their end even if the client disconnects. They run on the runtime: what blocks (reading a
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

    /// Returns the requests to the task, as soon as they differ from `seen`, at the latest after `wait`.
    fn control(
        &self,
        at: &Attempt,
        seen: Control,
        wait: Duration,
    ) -> impl Future<Output = Result<Control, HostError>> + Send;
}

/// Place where the bytes of a checkpoint or an artifact come from.
#[derive(Debug)]
pub enum Source {
    /// A file or folder of the task's; absolute. What could not be packed goes to the notes.
    Path(PathBuf, Notes),
    /// A file or folder of the task's, with the rights of another user.
    Theirs(PathBuf, Notes, Arc<Rights>),
    /// A request's body. The file goes when this is dropped.
    Spooled(Spooled),
    /// Memory that a function of this process passes.
    Memory(Arc<dyn Memory>),
}

/// Bytes in memory, wherever they lie.
pub trait Memory: Send + Sync + std::fmt::Debug {
    /// Returns a reader from the beginning. It copies, since others may write to the memory.
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
    /// Description of the checkpoint and its bytes.
    pub view: CheckpointView,
    /// The bytes; read on a blocking thread.
    pub body: Box<dyn Read + Send>,
}
