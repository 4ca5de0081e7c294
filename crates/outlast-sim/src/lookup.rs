//! The queries that the coordinator's driver answers: its store, and its blobs.

use outlast_core::coord::{Given, Lookup, PastAttempt};
use outlast_core::records::TaskRow;
use outlast_model::{Checkpoint, StateUpdate};
use outlast_store::sim::SimCoordStore;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The coordinator's blobs, each with the time at which it was stored, or last queried. They outlive crashes.
pub(crate) type Blobs = BTreeMap<Vec<u8>, u64>;

/// The store and the blobs that a driver queries.
pub(crate) struct Look<'a> {
    pub store: &'a SimCoordStore,
    pub blobs: RefCell<&'a mut Blobs>,
    pub now: u64,
    /// A planted bug: outcomes are not found.
    pub forgets: bool,
}

impl Lookup for Look<'_> {
    fn task(&self, id: &str) -> Option<TaskRow> {
        self.store.committed_row(id)
    }
    fn has_blob(&self, manifest: &[u8], _: &str) -> bool {
        let mut blobs = self.blobs.borrow_mut();
        let Some(pinned) = blobs.get_mut(manifest) else { return false };
        *pinned = self.now;
        true
    }
    fn attempts(&self, task: &str, worker: &str) -> Vec<PastAttempt> {
        let mut past = self.store.attempts(task, worker);
        if self.forgets {
            past.iter_mut().for_each(|a| a.outcomes.clear());
        }
        past
    }
    fn given(&self, task: &str, epoch: u64) -> Given {
        self.store.given(task, epoch)
    }
    fn key_is_valid(&self, _: &str) -> bool {
        true
    }
    fn state(&self, task: &str) -> Option<StateUpdate> {
        self.store.committed_told(task).0.map(|s| (*s).clone())
    }
    fn checkpoints(&self, task: &str) -> Vec<Arc<Checkpoint>> {
        self.store.committed_told(task).1
    }
}
