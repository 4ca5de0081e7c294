//! The terms of Outlast as Rust types: a task and its attempts, what a worker reports of them, and the
//! messages of a link.
//!
//! One type per concept, for every crate. How these travel (`outlast-wire`) and how they are kept
//! (`outlast-store`) are twins of them, converted at the edge. This crate performs no I/O and decides
//! nothing.

pub mod capabilities;
pub mod cause;
mod check;
pub mod ids;
pub mod json;
pub mod limits;
pub mod message;
pub mod packing;
mod patch;
mod program;
pub mod recovery;
pub mod report;
pub mod requires;
pub mod spec;
mod state;
mod text;
pub mod trace;

pub use bytes::Bytes;
pub use capabilities::Capabilities;
pub use cause::{Cause, LinkCause, OutcomeKind, Unfit, Unfitness};
pub use ids::{AttemptId, Epoch, Millis, Now, TaskId};
pub use patch::StatePatch;
pub use report::{Checkpoint, Lane, StateUpdate, TaskOutcome};
pub use spec::{Run, SpecError, TaskSpec};
pub use state::{TaskState, UnknownState};

/// The protocol version that this build speaks.
pub const PROTOCOL: u32 = 2;
