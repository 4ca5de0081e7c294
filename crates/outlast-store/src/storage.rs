//! The interface of the SQLite stores and of their models, for code that drives either.

use crate::StoreError;
use outlast_core::records::{
    Batch, CoordRecord, CoordSnapshot, TaskRow, WorkerRecord, WorkerSnapshot,
};

/// A coordinator's durable state.
pub trait CoordStorage {
    /// Applies all batches, in order, durably, or none of them.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was applied.
    fn commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError>;
    /// The snapshot that a coordinator that starts now is given.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn snapshot(&self) -> Result<CoordSnapshot, StoreError>;
    /// One task, over or not.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn task_row(&self, id: &str) -> Result<Option<TaskRow>, StoreError>;
}

/// A worker's durable state.
pub trait WorkerStorage {
    /// Applies all batches, in order, durably, or none of them.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was applied.
    fn commit(&mut self, batches: &[Batch<WorkerRecord>]) -> Result<(), StoreError>;
    /// The stored state, under the incarnation of this opening.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn snapshot(&self) -> Result<WorkerSnapshot, StoreError>;
}
