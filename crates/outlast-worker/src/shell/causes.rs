//! From the executor's causes to those of the wire.

use crate::exec::{Cause, Ended};
use outlast_wire::v2::{self, OutcomeKind, TaskOutcome};

/// The outcome, with its cause.
pub(super) fn outcome((mut outcome, cause): Ended) -> TaskOutcome {
    let good = outcome.kind() == OutcomeKind::OutcomeSucceeded;
    let cause = match cause {
        Cause::Unknown => v2::Cause::Unspecified,
        Cause::Exit if good => v2::Cause::Done,
        Cause::Exit => v2::Cause::Exit,
        Cause::Signal => v2::Cause::Signal,
        Cause::OutOfMemory => v2::Cause::OutOfMemory,
        Cause::TimedOut => v2::Cause::TimedOut,
        Cause::Cancelled => v2::Cause::Cancelled,
        Cause::WorkerStopped => v2::Cause::Stopped,
        Cause::Disk => v2::Cause::Disk,
        Cause::NotStarted => v2::Cause::NotStarted,
        Cause::Machine => v2::Cause::Machine,
        Cause::KeeperDied => v2::Cause::WorkerCrashed,
    };
    outcome.cause = cause.into();
    outcome
}
