//! Ends of attempts and tasks, as the rules hand them to each other.

use crate::Epoch;
use crate::recovery::plan::Plan;
use crate::recovery::{Classified, HardwareClass};
use outlast_model::{Cause, TaskOutcome, TaskState};
use std::sync::Arc;

/// End of a task.
pub(super) struct End<'a> {
    pub epoch: Epoch,
    pub state: TaskState,
    pub reason: &'a str,
    pub cause: Cause,
    pub outcome: Option<Arc<TaskOutcome>>,
    pub worker: Option<Arc<str>>,
}

impl<'a> End<'a> {
    /// No attempt decided it.
    pub fn without(state: TaskState, reason: &'a str, cause: Cause) -> End<'a> {
        End { epoch: 0, state, reason, cause, outcome: None, worker: None }
    }
}

/// Reason why an attempt is abandoned, and the number that counts toward `max_retries`.
pub(super) struct Loss<'a> {
    pub retries: u32,
    pub reason: &'a str,
    pub cause: Cause,
}

/// Decision after a failure.
pub(super) struct Next {
    pub plan: Plan,
    pub found: Classified,
    pub hardware: HardwareClass,
    pub worker: String,
    /// The `hardware` that the worker has.
    pub has: Option<String>,
    /// True if it counts toward the budget for running out of memory.
    pub own: bool,
    /// True if other attempts were lost with it.
    pub shared: bool,
}
