//! A task's own interface: HTTP/1.1 and JSON on one Unix socket per worker, for any language.
//!
//! A task finds the socket in `OUTLAST_SOCKET` and names itself in the path
//! (`/v1/tasks/$OUTLAST_TASK_ID/$OUTLAST_ATTEMPT/…`); `OUTLAST_TASK_TOKEN`, sent as a bearer token,
//! shows that it is that attempt. This module owns the socket, its limits, the
//! spool of uploads, the packing of folders, and putting files back. What a request *means* is the
//! [`Host`]'s: nothing here knows the core, the store or the executor.
//!
//! Whoever may connect is the user that tasks run as, by the socket's mode. Paths are read and written
//! with that user's rights: where it is another than the worker's, by a process of that user's
//! (`rights`, `errand`, `frames`). Processes of one user can look at each other's environment, so a token
//! keeps a task from another's by mistake, not by malice.

mod body;
pub mod client;
mod errand;
mod error;
mod frames;
pub(crate) mod fuzz;
mod host;
pub mod pack;
mod place;
mod problem;
mod rights;
mod routes;
mod server;
mod socket;
mod spool;
mod token;
mod types;
mod unpack;

pub use client::Client;
pub use errand::files;
pub use error::HostError;
pub use host::{Host, Memory, Restore, Source};
pub use problem::Problem;
pub use rights::{Rights, RunAs};
pub use server::{Config, LocalServer, serve};
pub use socket::{make_way, socket_path};
pub use token::{KEY_FILE, Tokens};
pub use types::*;
pub use unpack::unpack;
