//! Store lookups: data that the core does not hold in memory, and that its driver can read at once.

use super::Given;
use crate::Epoch;
use crate::records::TaskRow;
use outlast_model::{Checkpoint, StateUpdate, TaskOutcome};
use std::sync::Arc;

/// An attempt that a worker was given, by record.
#[derive(Debug, Clone, PartialEq)]
pub struct PastAttempt {
    /// Number of the attempt; 0 collects the outcomes that belong to no attempt of this worker.
    pub epoch: Epoch,
    /// The outcomes that were recorded of it, oldest first; none while it has not ended.
    pub outcomes: Vec<Arc<TaskOutcome>>,
}

/// Looked up in the same thread, so that nothing changes before the core decides.
pub trait Lookup {
    /// Looks up an ended task in the store.
    fn task(&self, id: &str) -> Option<TaskRow>;
    /// Returns true if the blob of this manifest is complete and durable here, and was uploaded by the
    /// worker with this store id (or its uploader is not known any more); it is then kept long enough to
    /// be referred to.
    fn has_blob(&self, manifest: &[u8], store: &str) -> bool;
    /// The attempts of a task that this worker (by store id) was given, by number.
    fn attempts(&self, task: &str, worker: &str) -> Vec<PastAttempt>;
    /// Looks up the assignment of this attempt.
    fn given(&self, task: &str, epoch: Epoch) -> Given;
    /// Returns true if a valid key of this name exists.
    fn key_is_valid(&self, name: &str) -> bool;
    /// The newest state of a task.
    fn state(&self, task: &str) -> Option<StateUpdate>;
    /// Returns all reported checkpoints of a task, including those that are not kept.
    fn checkpoints(&self, task: &str) -> Vec<Arc<Checkpoint>>;
}

/// Knows nothing: for messages that need nothing, and for tests.
impl Lookup for () {
    fn task(&self, _: &str) -> Option<TaskRow> {
        None
    }
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        false
    }
    fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
        Vec::new()
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::Never
    }
    fn key_is_valid(&self, _: &str) -> bool {
        true
    }
    fn state(&self, _: &str) -> Option<StateUpdate> {
        None
    }
    fn checkpoints(&self, _: &str) -> Vec<Arc<Checkpoint>> {
        Vec::new()
    }
}
