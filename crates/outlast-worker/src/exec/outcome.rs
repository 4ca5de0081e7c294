//! Outcomes as they are made here: of attempts that never had a process, and the plain form of all others.

use outlast_model::{Cause, OutcomeKind, TaskOutcome};

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
        Unbegun::Stopped => (returned, "the worker stopped before it started", Cause::Stopped),
    }
}

/// The outcome of an attempt that was not given to an executor yet.
pub(crate) fn never_begun(task: &str, epoch: u64, why: Unbegun) -> TaskOutcome {
    let (kind, message, cause) = not_begun(why);
    plain(task, epoch, kind, cause, message)
}

/// An outcome with no more in it than this.
pub(crate) fn plain(
    task: &str,
    epoch: u64,
    kind: OutcomeKind,
    cause: Cause,
    message: impl Into<String>,
) -> TaskOutcome {
    TaskOutcome {
        task: task.into(),
        epoch,
        kind,
        cause,
        message: message.into(),
        finished_at_ms: crate::clock::now().wall,
        ..TaskOutcome::default()
    }
}
