//! Copies of state folders, as the oracle knows them.
//!
//! Of a task that must not run twice the promise is: what did not wait in the folder when it was
//! copied never does; what waited there may, where the copy is accepted while the original cannot be
//! reached. And one of the two ends for good once both have connected. What the two held at the time
//! of the copy, or did while both were accepted in turn, is not judged otherwise: they number their
//! outboxes alike.

use outlast_core::{AttemptId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Copied stores, and the tasks that waited in them.
#[derive(Default)]
pub(crate) struct Copies {
    stores: BTreeSet<Arc<str>>,
    /// Tasks that waited in a folder when it was copied.
    waited: BTreeSet<TaskId>,
}

impl Copies {
    /// Notes that this store was copied, with the attempts that it held.
    pub fn copied(&mut self, store: Arc<str>, held: impl Iterator<Item = AttemptId>) {
        self.stores.insert(store);
        self.waited.extend(held.map(|id| id.task));
    }

    /// Returns whether this task may run twice though it must not.
    pub fn waited(&self, task: &TaskId) -> bool {
        self.waited.contains(task)
    }

    /// Returns whether there are two processes of this worker.
    pub fn are_of(&self, worker: Option<&Arc<str>>) -> bool {
        worker.is_some_and(|worker| self.stores.contains(worker))
    }
}
