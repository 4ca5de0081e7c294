//! Changes of tasks that have ended, from their decision until they are durable. Such a task is not in memory, and
//! the row that the driver reads from the store lacks them.

use super::Coordinator;
use crate::records::{TaskRow, TaskState};
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
    /// Brings a row from the store up to date.
    pub fn apply(&self, row: &mut TaskRow) {
        for (_, _, revision) in self.0.iter().filter(|(_, id, _)| *id == row.id) {
            match revision {
                Revision::Kept(checkpoint) => {
                    let place = (checkpoint.epoch, checkpoint.number);
                    let at = row.checkpoints.binary_search_by_key(&place, |c| (c.epoch, c.number));
                    if let Err(at) = at {
                        row.checkpoints.insert(at, checkpoint.clone());
                    }
                }
                Revision::Pruned(which) => {
                    row.checkpoints.retain(|c| !which.contains(&(c.epoch, c.number)));
                }
                Revision::State(version) => row.state_version = row.state_version.max(*version),
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

impl Coordinator {
    /// Notes a change that was just decided, unless the task stays in memory.
    pub(super) fn revise(&mut self, id: &TaskId, revision: Revision) {
        let state = self.tasks.get(id).map(|t| t.state);
        if state.is_none_or(TaskState::is_terminal) {
            self.revisions.0.push_back((self.batch, id.clone(), revision));
        }
    }
}
