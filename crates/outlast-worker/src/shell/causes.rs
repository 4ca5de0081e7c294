//! Conversion of the executor's causes.

use crate::exec::{Cause, Ended};
use outlast_model::{OutcomeKind, TaskOutcome};

/// The outcome, with its cause.
pub(super) fn outcome((mut outcome, cause): Ended) -> TaskOutcome {
    let good = outcome.kind == OutcomeKind::Succeeded;
    let cause = match cause {
        Cause::Unknown => outlast_model::Cause::Unspecified,
        Cause::Exit if good => outlast_model::Cause::Done,
        Cause::Exit => outlast_model::Cause::Exit,
        Cause::Signal => outlast_model::Cause::Signal,
        Cause::OutOfMemory => outlast_model::Cause::OutOfMemory,
        Cause::TimedOut => outlast_model::Cause::TimedOut,
        Cause::Cancelled => outlast_model::Cause::Cancelled,
        Cause::WorkerStopped => outlast_model::Cause::Stopped,
        Cause::Disk => outlast_model::Cause::Disk,
        Cause::NotStarted => outlast_model::Cause::NotStarted,
        Cause::Machine => outlast_model::Cause::Machine,
        Cause::KeeperDied => outlast_model::Cause::WorkerCrashed,
    };
    outcome.cause = cause;
    outcome
}
