//! Models of both stores, in memory, for the simulator: the same meaning, other machinery.
//!
//! Each keeps two states: what has been written, and what has been synced. [`crash`] falls back
//! to the second. They share no code with the SQLite stores, so that each checks the other, and
//! they are deterministic.
//!
//! [`crash`]: SimCoordStore::crash

mod coord;
mod worker;

pub use coord::SimCoordStore;
pub use worker::SimWorkerStore;

use crate::StoreError;
use outlast_core::records::Batch;

/// A state that records are applied to. A failed record may leave it half changed.
trait Model: Clone {
    type Record: Clone;
    fn apply(&mut self, record: &Self::Record) -> Result<(), StoreError>;
}

/// A model as it was synced, as it was written, and the batches in between.
#[derive(Debug, Clone)]
struct Disk<M: Model> {
    synced: M,
    written: M,
    unsynced: Vec<Vec<M::Record>>,
}

impl<M: Model> Disk<M> {
    fn new(model: M) -> Self {
        Disk { synced: model.clone(), written: model, unsynced: Vec::new() }
    }

    fn write(&mut self, batches: &[Batch<M::Record>]) -> Result<(), StoreError> {
        for record in batches.iter().flat_map(|b| &b.records) {
            if let Err(error) = self.written.apply(record) {
                self.written = self.synced.clone();
                self.unsynced.iter().flatten().for_each(|r| again(&mut self.written, r));
                return Err(error);
            }
        }
        self.unsynced.extend(batches.iter().map(|b| b.records.clone()));
        Ok(())
    }

    fn sync(&mut self) {
        for record in self.unsynced.drain(..).flatten() {
            again(&mut self.synced, &record);
        }
    }

    /// Loses what was not synced, but for the first `kept` batches, which reached the disk.
    fn crash(&mut self, kept: usize) {
        self.unsynced.truncate(kept);
        self.sync();
        self.written = self.synced.clone();
    }
}

fn again<M: Model>(model: &mut M, record: &M::Record) {
    model.apply(record).expect("it was applied to this very state before");
}
