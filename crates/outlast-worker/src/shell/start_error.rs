//! The errors of an agent's start.

use crate::runner::RunnerError;
use outlast_blob::BlobError;
use outlast_net::DialError;
use outlast_store::StoreError;
use std::path::PathBuf;

/// The reason why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder cannot be used.
    #[error("state folder {0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// Another process uses a copy of the state folder.
    #[error("{0}: {1}")]
    Copied(PathBuf, String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no runner of commands.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The coordinator's address or the TLS set-up cannot be used.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The folder of checkpoints cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The socket of the tasks' own interface cannot be used.
    #[error("the socket for tasks: {0}")]
    Local(std::io::Error),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Tasks cannot run as the user whom they should run as.
    #[error("tasks cannot run as user {0}: {1}")]
    RunAs(String, String),
}
