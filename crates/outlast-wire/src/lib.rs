//! What travels: the protobuf messages of wire v2, their framing, the v1 JSON dialect, and the JSON
//! documents that users write (`TaskSpec`) and read (`api`), and the address that they write.
//!
//! This crate owns serialisation, and which key a client shows to whom (`local`, `proof`). It knows
//! nothing of sessions, time or sockets.

pub mod api;
pub mod blobframe;
mod cause;
pub mod frame;
pub mod json;
pub mod limits;
pub mod local;
pub mod proof;
pub mod recovery;
pub mod spec;
pub mod text;
pub mod trace;
mod url;
pub mod v1;
mod weight;

/// Generated from `proto/outlast/v2/session.proto`, which is the contract.
#[allow(missing_docs, clippy::all)]
pub mod v2 {
    include!(concat!(env!("OUT_DIR"), "/outlast.v2.rs"));
}

pub use bytes::Bytes;
pub use frame::{FrameError, decode, encode};
pub use spec::{Run, SpecError, TaskSpec};
pub use url::Url;
pub use weight::has_few_fields;

/// The protocol version that this build speaks.
pub const PROTOCOL: u32 = 2;

/// Header of a worker's HTTP requests: its name, so that what it uploads is counted for it.
pub const WORKER_HEADER: &str = "outlast-worker";
/// The header in which a worker says which session is its own.
pub const SESSION_HEADER: &str = "outlast-session";

impl From<v2::body::Kind> for v2::Body {
    fn from(kind: v2::body::Kind) -> Self {
        v2::Body { kind: Some(kind) }
    }
}

impl v2::Checkpoint {
    /// What users call it: `EPOCH-NUMBER`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.epoch, self.number)
    }
}
