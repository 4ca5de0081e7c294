//! The keeper: a process of its own that runs a worker's tasks, so that they outlive its agent.
//!
//! One keeper at a time has a worker's executor folder (the executor's lock sees to that) and
//! hosts the executor. The agent talks to it over a Unix socket. If the agent dies, the keeper
//! goes on: tasks run, their limits hold, and what ends meanwhile is written to the disk until the
//! next agent has taken it and says that it is durable there too. If the keeper dies, the agent
//! notices at once: the tasks' processes are found by their marks and ended, the attempts are
//! INTERRUPTED, and a new keeper is started.
//!
//! `host`, `outcomes`, `spool`: the keeper's process. `client`, `connect`, `succession`: the agent's side.
//! `proto`, `out`, `socket`: both. Everything is in the folder `keeper` below the executor's root.

mod client;
mod connect;
pub(crate) mod fuzz;
mod host;
mod out;
mod outcomes;
mod proto;
mod socket;
mod spool;
mod succession;

pub use client::Keeper;
pub use host::{KeeperConfig, main};

use outlast_spawn::User;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Command that starts a keeper: a program that calls [`main`] with the same root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperLaunch {
    /// The program.
    pub program: PathBuf,
    /// Arguments of the program.
    pub args: Vec<OsString>,
    /// The user whom its tasks run as, if the arguments name one. A keeper that runs tasks as somebody
    /// else is not used.
    pub user: Option<User>,
}

/// Reason why there is no keeper, or why one ended.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The folder, or a file in it, cannot be used.
    #[error("the keeper's folder {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// The executor's folder cannot be used.
    #[error(transparent)]
    Executor(io::Error),
    /// The program cannot be started.
    #[error("cannot start the keeper {0}: {1}")]
    Launch(PathBuf, #[source] io::Error),
    /// The keeper ended before it answered.
    #[error("the keeper ended at once ({0}); the end of its log:\n{1}")]
    Ended(String, String),
    /// The keeper does not answer.
    #[error("the keeper of {0} does not answer; its log is {1}")]
    Silent(PathBuf, PathBuf),
    /// The tasks run as another user than they should.
    #[error(
        "a keeper (process {pid}) still runs {busy} tasks as {theirs}, and tasks of this worker shall \
         run as {ours}: start it as before, let it finish them (SIGTERM drains), and change the user \
         then"
    )]
    User {
        /// The process.
        pid: u32,
        /// Attempts that wait or run.
        busy: u64,
        /// The user.
        theirs: String,
        /// The user whom they should run as.
        ours: String,
    },
    /// The keeper has another protocol version, and cannot be replaced while it runs tasks.
    #[error(
        "a keeper of version {version} (process {pid}) runs {busy} tasks, and cannot be talked to \
         by this version: wait until they have ended, or end that process and with it its tasks"
    )]
    Version {
        /// The software's.
        version: String,
        /// The process.
        pid: u32,
        /// Attempts that wait or run.
        busy: u64,
    },
}

/// Place where the keeper's own files are.
fn folder(root: &Path) -> PathBuf {
    root.join("keeper")
}

/// Returns the file with the keeper's standard error.
fn log(root: &Path) -> PathBuf {
    folder(root).join("log")
}
