//! Changes of tasks that have ended, from their decision until they are durable. Such a task is not in memory, and
//! the row that the driver reads from the store lacks them.

use crate::records::TaskRow;
use crate::retention::keep;
use crate::{Epoch, TaskId};
use outlast_model::Checkpoint;
use std::collections::VecDeque;
use std::sync::Arc;

/// A change of a task's row.
#[derive(Debug, Clone)]
pub(super) enum Revision {
    Kept(Arc<Checkpoint>),
    Pruned(Vec<(Epoch, u64)>),
    State((Epoch, u64)),
}

/// Changes with their batches, oldest first.
#[derive(Debug, Default)]
pub(super) struct Revisions(VecDeque<(u64, TaskId, Revision)>);

impl Revisions {
    /// Notes a change of a task that is decided with this batch.
    pub fn add(&mut self, batch: u64, id: TaskId, revision: Revision) {
        self.0.push_back((batch, id, revision));
    }

    /// Brings a row from the store up to date.
    pub fn apply(&self, row: &mut TaskRow) {
        for (_, _, revision) in self.0.iter().filter(|(_, id, _)| *id == row.id) {
            match revision {
                Revision::Kept(checkpoint) => {
                    keep(&mut row.reported.checkpoints, checkpoint);
                }
                Revision::Pruned(which) => {
                    row.reported.checkpoints.retain(|c| !which.contains(&c.place()));
                }
                Revision::State(version) => {
                    row.reported.state_version = row.reported.state_version.max(*version)
                }
            }
        }
    }

    /// Forgets what is durable.
    pub fn persisted(&mut self, batch: u64) {
        while self.0.front().is_some_and(|(b, ..)| *b <= batch) {
            self.0.pop_front();
        }
    }

    /// Returns the batches that changes wait for.
    pub fn batches(&self) -> Vec<u64> {
        self.0.iter().map(|(batch, ..)| *batch).collect()
    }
}
