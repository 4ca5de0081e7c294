//! Formats: the protobuf messages of wire v2 and their framing, the v1 JSON dialect, the JSON documents
//! that users read (`api`), and the address that they write.
//!
//! This crate owns serialisation, and which key a client shows to whom (`local`, `proof`). The terms
//! themselves are types of `outlast-model`; `convert` turns the protobuf messages into them and back. It
//! knows nothing of sessions, time or sockets.

pub mod api;
pub mod blobframe;
mod convert;
pub mod frame;
pub mod local;
pub mod proof;
pub mod text;
mod url;
pub mod v1;
mod weight;

/// Generated from `proto/outlast/v2/session.proto`, which is the contract.
#[allow(missing_docs, clippy::all)]
pub mod v2 {
    include!(concat!(env!("OUT_DIR"), "/outlast.v2.rs"));
}

pub use bytes::Bytes;
pub use convert::{Kept, Unexpected, frames};
pub use frame::{FrameError, decode, encode};
pub use outlast_model::{PROTOCOL, Run, SpecError, TaskSpec, json, limits, recovery, spec, trace};
pub use url::Url;
pub use weight::has_few_fields;

/// Header of a worker's HTTP requests: its name, so that what it uploads is counted for it.
pub const WORKER_HEADER: &str = "outlast-worker";
/// The header in which a worker says which session is its own.
pub const SESSION_HEADER: &str = "outlast-session";

impl From<v2::body::Kind> for v2::Body {
    fn from(kind: v2::body::Kind) -> Self {
        v2::Body { kind: Some(kind) }
    }
}
