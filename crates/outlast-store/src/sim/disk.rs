//! A disk that loses, in a crash, what was not synced.

use crate::StoreError;
use outlast_core::records::Batch;

/// A state that records are applied to. A failed record may leave it half changed.
pub(super) trait Model: Clone {
    type Record: Clone;
    fn apply(&mut self, record: &Self::Record) -> Result<(), StoreError>;
}

/// A model as it was synced, as it was written, and the batches in between.
#[derive(Debug, Clone)]
pub(super) struct Disk<M: Model> {
    pub(super) synced: M,
    pub(super) written: M,
    pub(super) unsynced: Vec<Vec<M::Record>>,
}

impl<M: Model> Disk<M> {
    /// A disk with this state, synced.
    pub(super) fn new(model: M) -> Self {
        Disk { synced: model.clone(), written: model, unsynced: Vec::new() }
    }

    /// Applies batches, or none of them.
    pub(super) fn write(&mut self, batches: &[Batch<M::Record>]) -> Result<(), StoreError> {
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

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) {
        for record in self.unsynced.drain(..).flatten() {
            again(&mut self.synced, &record);
        }
    }

    /// Loses what was not synced, except the first `kept` batches, which reached the disk.
    pub(super) fn crash(&mut self, kept: usize) {
        self.unsynced.truncate(kept);
        self.sync();
        self.written = self.synced.clone();
    }
}

fn again<M: Model>(model: &mut M, record: &M::Record) {
    model.apply(record).expect("it was applied to this very state before");
}

/// The methods of a store on such a disk.
macro_rules! crashing {
    ($store:ty, $record:ty) => {
        impl $store {
            /// Applies the batches; a crash still undoes them.
            ///
            /// # Errors
            /// [`StoreError::Contradiction`]; then none was applied.
            pub fn write(&mut self, batches: &[Batch<$record>]) -> Result<(), StoreError> {
                self.disk.write(batches)
            }

            /// Makes durable whatever was written.
            pub fn sync(&mut self) {
                self.disk.sync();
            }

            /// Number of batches that were written and not synced.
            pub fn unsynced(&self) -> usize {
                self.disk.unsynced.len()
            }

            /// Loses whatever was not synced.
            pub fn crash(&mut self) {
                self.disk.crash(0);
            }

            /// Loses whatever was not synced except the first `kept` batches: a disk may have written some.
            pub fn crash_keeping(&mut self, kept: usize) {
                self.disk.crash(kept);
            }
        }
    };
}
pub(super) use crashing;
