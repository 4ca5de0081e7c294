//! Decisions that no lookup finds yet, since they are not durable or a load is open that may have missed them:
//! blobs of checkpoints, outcomes that came beside their lane, and reports in the v1 dialect.

use super::v1::Unsynced;
use crate::AttemptId;
use crate::invariants::Checked;
use crate::journal::Journal;
use outlast_model::{Bytes, TaskOutcome};
use std::collections::VecDeque;
use std::sync::Arc;

/// An outcome that came beside its lane and is not durable here yet.
#[derive(Debug)]
pub(super) struct Beside {
    pub batch: u64,
    pub worker: Arc<str>,
    pub id: AttemptId,
    pub outcome: Arc<TaskOutcome>,
}

/// See the module. Each with its batch, oldest first.
#[derive(Debug, Default)]
pub(super) struct Undurable {
    pub blobs: VecDeque<(u64, Bytes)>,
    pub beside: VecDeque<Beside>,
    pub v1: VecDeque<(u64, Unsynced)>,
}

impl Undurable {
    /// Forgets what every fact from the store includes.
    pub fn forget_settled(&mut self, settled: u64) {
        while self.blobs.front().is_some_and(|(b, _)| *b <= settled) {
            self.blobs.pop_front();
        }
        while self.beside.front().is_some_and(|b| b.batch <= settled) {
            self.beside.pop_front();
        }
        while self.v1.front().is_some_and(|(b, _)| *b <= settled) {
            self.v1.pop_front();
        }
    }

    /// Returns true if an end of this attempt of the worker's is decided, and was attributed by what is on record:
    /// the attempt may be one whose assignment is not durable yet.
    pub fn ended(&self, store: &Arc<str>, id: &AttemptId) -> bool {
        self.v1.iter().any(|(_, item)| match item {
            Unsynced::Outcome { worker, task, epoch, .. } => {
                worker == store && *task == id.task && *epoch == id.epoch
            }
            Unsynced::Checkpoint { .. } => false,
        })
    }

    /// Checks that what waits for batches above `settled` is in order.
    pub fn check_waits<R, O>(&self, journal: &Journal<R, O>, settled: u64) -> Checked {
        journal.check_waits("blobs", settled, self.blobs.iter().map(|(b, _)| *b))?;
        let beside = self.beside.iter().map(|b| b.batch);
        journal.check_waits("outcomes beside their lane", settled, beside)?;
        journal.check_waits("v1 records", settled, self.v1.iter().map(|(b, _)| *b))
    }

    /// Returns what is left in memory, by name.
    pub fn leftovers(&self) -> [(&'static str, usize); 3] {
        [
            ("blobs", self.blobs.len()),
            ("outcomes beside their lane", self.beside.len()),
            ("v1 records", self.v1.len()),
        ]
    }
}
