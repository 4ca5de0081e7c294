//! The context of a function that runs: its arguments, and its way back to the worker.

use super::host::TaskHost;
use crate::local::{
    ArtifactView, Attempt, CheckpointMeta, CheckpointView, Control, Host, HostError, Kind, Memory,
    Source, StateView,
};
use serde_json::{Map, Value};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;

/// The arguments of a function, and its way back to the worker. Every method blocks, and may be
/// called from several threads; not from an inline function.
#[derive(Clone)]
pub struct TaskContext {
    /// The task.
    pub task_id: String,
    /// The attempt.
    pub epoch: u64,
    /// The name that the task called it by; a function for [`ANY`](super::functions::ANY) has only this to go by.
    pub function: String,
    /// The argument.
    pub args: Value,
    /// Time that the task has to end after the request to stop.
    pub kill_grace: Duration,
    /// Time that it may run. Only a function that can be stopped from outside can be held to it.
    pub timeout: Option<Duration>,
    /// The span that those of the task are children of, and what tracing systems add to it: W3C
    /// Trace Context, which a command has as `TRACEPARENT` and `TRACESTATE`.
    pub traceparent: Option<String>,
    /// See `traceparent`.
    pub tracestate: Option<String>,
    pub(super) link: Option<Link>,
}

/// The way back to the worker.
#[derive(Clone)]
pub(super) struct Link {
    pub host: Weak<TaskHost>,
    pub runtime: Handle,
}

impl std::fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskContext({}.{})", self.task_id, self.epoch)
    }
}

/// A checkpoint to go on from.
pub struct Checkpoint {
    /// The description.
    pub view: CheckpointView,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl TaskContext {
    fn at(&self) -> Attempt {
        Attempt { task: self.task_id.clone(), epoch: self.epoch }
    }

    fn ask<T, F: Future<Output = Result<T, HostError>>>(
        &self,
        ask: impl FnOnce(Arc<TaskHost>, Attempt) -> F,
    ) -> Result<T, HostError> {
        let gone = || HostError::Unavailable("the worker ends".into());
        let link = self.link.as_ref().ok_or_else(gone)?;
        let host = link.host.upgrade().ok_or_else(gone)?;
        link.runtime.block_on(ask(host, self.at()))
    }

    /// Keeps a checkpoint; durable on this worker when it returns, and on its way to the
    /// coordinator. `meta` is kept beside it.
    ///
    /// # Errors
    /// [`HostError::Full`] when there is no room (with when to try again),
    /// [`HostError::Ended`] when this attempt has ended.
    pub fn checkpoint(
        &self,
        data: impl Into<Vec<u8>>,
        meta: Map<String, Value>,
    ) -> Result<CheckpointView, HostError> {
        self.checkpoint_memory(Arc::new(data.into()), meta)
    }

    /// Keeps a checkpoint of bytes that are read where they lie.
    ///
    /// # Errors
    /// As of [`TaskContext::checkpoint`].
    pub fn checkpoint_memory(
        &self,
        data: Arc<dyn Memory>,
        meta: Map<String, Value>,
    ) -> Result<CheckpointView, HostError> {
        let meta =
            CheckpointMeta { kind: Kind::Raw, name: "data".into(), user: meta, request: None };
        self.ask(|host, at| async move { host.checkpoint(&at, Source::Memory(data), meta).await })
    }

    /// Keeps a checkpoint of data that lies in a file, which need not outlive the call.
    ///
    /// # Errors
    /// As of [`TaskContext::checkpoint`], and [`HostError::Invalid`] if it cannot be read.
    pub fn checkpoint_from(
        &self,
        path: &Path,
        meta: Map<String, Value>,
    ) -> Result<CheckpointView, HostError> {
        let meta =
            CheckpointMeta { kind: Kind::Raw, name: "data".into(), user: meta, request: None };
        let source = Source::Path(path.to_owned(), Default::default());
        self.ask(|host, at| async move { host.checkpoint(&at, source, meta).await })
    }

    /// Keeps a checkpoint of a file or folder.
    ///
    /// # Errors
    /// As of [`TaskContext::checkpoint`], and [`HostError::Invalid`] if it cannot be read.
    pub fn checkpoint_path(
        &self,
        path: &Path,
        meta: Map<String, Value>,
    ) -> Result<CheckpointView, HostError> {
        let path = std::path::absolute(path).map_err(|e| HostError::of_file("the path", &e))?;
        let kind = if path.is_dir() { Kind::Folder } else { Kind::File };
        let name = path.file_name().map_or_else(|| "data".into(), |n| n.to_string_lossy().into());
        let meta = CheckpointMeta { kind, name, user: meta, request: None };
        self.ask(|host, at| async move {
            host.checkpoint(&at, Source::Path(path, Default::default()), meta).await
        })
    }

    /// The newest checkpoint of the task, of an earlier attempt too; None if there is none.
    ///
    /// # Errors
    /// [`HostError::Unavailable`] if it is at the coordinator, which cannot be reached.
    pub fn latest_checkpoint(&self) -> Result<Option<Checkpoint>, HostError> {
        let found = self.ask(|host, at| async move { host.restore(&at, None).await })?;
        Ok(found.map(|r| Checkpoint { view: r.view, body: r.body }))
    }

    /// Merges into the task's state: members replace those of the same name, null removes one.
    ///
    /// # Errors
    /// [`HostError::TooLarge`], or [`HostError::Ended`] when this attempt has ended.
    pub fn update_state(&self, patch: Map<String, Value>) -> Result<StateView, HostError> {
        self.tell(patch, None)
    }

    /// [`TaskContext::update_state`] and [`TaskContext::progress`] in one record.
    ///
    /// # Errors
    /// As of [`TaskContext::update_state`].
    pub fn tell(
        &self,
        patch: Map<String, Value>,
        progress: Option<f64>,
    ) -> Result<StateView, HostError> {
        let progress = progress.map(|done| done.clamp(0.0, 1.0));
        self.ask(|host, at| async move { host.update_state(&at, patch, progress).await })
    }

    /// Reports the progress, from 0 to 1.
    ///
    /// # Errors
    /// As of [`TaskContext::update_state`].
    pub fn progress(&self, done: f64) -> Result<StateView, HostError> {
        self.tell(Map::new(), Some(done))
    }

    /// Keeps a file for the result.
    ///
    /// # Errors
    /// As of [`TaskContext::checkpoint_path`].
    pub fn artifact(&self, name: &str, path: &Path) -> Result<ArtifactView, HostError> {
        let path = std::path::absolute(path).map_err(|e| HostError::of_file("the path", &e))?;
        let name = name.to_owned();
        self.ask(|host, at| async move {
            host.artifact(&at, name, Source::Path(path, Default::default())).await
        })
    }

    /// The requests to the task, as they are now.
    pub fn control(&self) -> Control {
        let host = self.link.as_ref().and_then(|l| l.host.upgrade());
        host.map(|h| h.control_now(&self.at())).unwrap_or_default()
    }

    /// Returns whether the task should end: it was cancelled, or its worker stops.
    pub fn is_cancelled(&self) -> bool {
        self.control().cancel
    }

    /// Waits while the task is paused; returns whether it should go on then.
    pub fn wait_while_paused(&self) -> bool {
        loop {
            let now = self.control();
            if now.cancel || !now.pause {
                return !now.cancel;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
