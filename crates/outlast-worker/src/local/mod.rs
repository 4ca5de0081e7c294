//! A task's own interface: HTTP/1.1 and JSON on one Unix socket per worker, for any language.
//!
//! A task finds the socket in `OUTLAST_SOCKET` and names itself in the path
//! (`/v1/tasks/$OUTLAST_TASK_ID/$OUTLAST_ATTEMPT/…`). This module owns the socket, its limits, the
//! spool of uploads, the packing of folders, and putting files back. What a request *means* is the
//! [`Host`]'s: nothing here knows the core, the store or the executor.
//!
//! Whoever may connect (the worker's own user, by the socket's mode) is trusted as far as that user
//! is: a task can name another task of the same worker, and paths are read and written with the
//! worker's rights.

mod body;
pub mod client;
mod host;
pub mod pack;
mod place;
mod problem;
mod routes;
mod server;
mod socket;
mod spool;
mod types;
mod unpack;

pub use client::Client;
pub use host::{Host, HostError, Memory, Restore, Source};
pub use problem::Problem;
pub use server::{Config, LocalServer, serve};
pub use socket::socket_path;
pub use types::*;
pub use unpack::unpack;
