//! Outcomes as they are made here: of attempts that never had a process, and the plain form of all others.

use super::Cause;
use outlast_model::{OutcomeKind, TaskOutcome};

/// An outcome and its cause.
pub type Ended = (TaskOutcome, Cause);

/// The reason why an attempt never had a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbegun {
    Cancelled,
    Recalled,
    Stopped,
}

pub(super) fn not_begun(why: Unbegun) -> (OutcomeKind, &'static str, Cause) {
    let returned = OutcomeKind::Returned;
    match why {
        Unbegun::Cancelled => {
            (OutcomeKind::Cancelled, "cancelled before it started", Cause::Cancelled)
        }
        Unbegun::Recalled => (returned, "taken back before it started", Cause::NotStarted),
        Unbegun::Stopped => {
            (returned, "the worker stopped before it started", Cause::WorkerStopped)
        }
    }
}

/// The outcome of an attempt that was not given to an executor yet.
pub(crate) fn never_begun(task: &str, epoch: u64, why: Unbegun) -> Ended {
    let (kind, message, cause) = not_begun(why);
    (plain(task, epoch, kind, message), cause)
}

/// An outcome with no more in it than this.
pub(crate) fn plain(
    task: &str,
    epoch: u64,
    kind: OutcomeKind,
    message: impl Into<String>,
) -> TaskOutcome {
    TaskOutcome {
        task: task.into(),
        epoch,
        kind,
        message: message.into(),
        finished_at_ms: crate::clock::now().wall,
        ..TaskOutcome::default()
    }
}
