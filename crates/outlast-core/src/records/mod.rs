//! The facts that each side makes durable. A store applies a batch in one transaction, in order.

mod coordinator;
mod rows;
mod worker;

pub use coordinator::CoordRecord;
pub use outlast_model::TaskState;
pub use rows::{Asked, Assigned, Awaited, CoordSnapshot, Losses, Reported, TaskRow, WorkerRow};
pub use worker::{AttemptRow, LostLink, WorkerRecord, WorkerSnapshot};

/// Records of one decision, to be applied together or not at all. Numbered from 1 without gaps.
#[derive(Debug, Clone)]
pub struct Batch<R> {
    /// Number of the batch, as passed to `on_persisted`.
    pub number: u64,
    /// Records in order.
    pub records: Vec<R>,
}
