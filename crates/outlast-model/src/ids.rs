//! Names and times that both sides use.

use std::sync::Arc;

/// A task's id as users see it; cheap to clone.
pub type TaskId = Arc<str>;
/// The number of a task's attempt; grows with each one, from 1.
pub type Epoch = u64;
/// Milliseconds.
pub type Millis = u64;

/// One try of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// Id of the task.
    pub task: TaskId,
    /// Number of the attempt.
    pub epoch: Epoch,
}

/// The time of an input. Never read inside the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back and counts suspend; timers use it.
    pub mono: Millis,
    /// Unix time in milliseconds, as `outlast_core::steady` keeps it: a jump of the system's clock shows only after
    /// some minutes. Ages, delays and patterns of failures go by it.
    pub wall: i64,
}
