//! The row of a task, as a record that changes it finds it.

use super::schema::{phase, state_code};
use outlast_core::records::TaskState;

/// The columns that a record needs to know of the task that it changes.
pub(super) struct Current {
    pub(super) number: i64,
    pub(super) state: i64,
    pub(super) epoch: i64,
    pub(super) worker: Option<i64>,
    pub(super) assigned_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) ended_epoch: Option<i64>,
    pub(super) ended_worker: Option<i64>,
    pub(super) round: i64,
    pub(super) paused: bool,
}

impl Current {
    /// Returns whether the task is in this state.
    pub(super) fn is(&self, state: TaskState) -> bool {
        self.state == state_code(state)
    }
    /// Returns whether the task has not ended.
    pub(super) fn goes_on(&self) -> bool {
        self.is(TaskState::Pending) || self.is(TaskState::Assigned)
    }
    /// The phase of an entry that is recorded now.
    pub(super) fn phase(&self) -> i64 {
        if self.ended_at.is_some() {
            phase::AFTER_ENDED
        } else if self.started_at.is_some() {
            phase::AFTER_STARTED
        } else if self.assigned_at.is_some() {
            phase::AFTER_ASSIGNED
        } else {
            phase::BEFORE
        }
    }
}
