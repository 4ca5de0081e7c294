//! The words for causes: what people and programs read, and what the stores keep as numbers.

use crate::v2::{Cause, LinkCause};

impl Cause {
    /// The word that users see; empty when nothing is known.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Unspecified => "",
            Cause::Done => "done",
            Cause::Exit => "exit",
            Cause::Signal => "signal",
            Cause::OutOfMemory => "out_of_memory",
            Cause::TimedOut => "timed_out",
            Cause::Cancelled => "cancelled",
            Cause::Drained => "drained",
            Cause::Stopped => "worker_stopped",
            Cause::WorkerCrashed => "worker_crashed",
            Cause::Network => "network",
            Cause::Forgotten => "worker_forgotten",
            Cause::Superseded => "superseded",
            Cause::Disk => "disk",
            Cause::NotStarted => "not_started",
            Cause::Moved => "moved",
            Cause::AskedBack => "asked_back",
            Cause::Lost => "lost",
        }
    }

    /// Whether the attempt did not end by what the task did: it, or its worker, went away.
    pub fn is_loss(self) -> bool {
        matches!(
            self,
            Cause::Stopped
                | Cause::WorkerCrashed
                | Cause::Network
                | Cause::Forgotten
                | Cause::Lost
                | Cause::Drained
        )
    }

    /// The cause with this number; one that a newer version knows is unspecified.
    pub fn of(number: i64) -> Cause {
        i32::try_from(number).ok().and_then(|n| Cause::try_from(n).ok()).unwrap_or_default()
    }
}

impl LinkCause {
    /// The word that users see; empty when nothing is known.
    pub fn word(self) -> &'static str {
        match self {
            LinkCause::LinkUnspecified => "",
            LinkCause::LinkClosed => "network",
            LinkCause::LinkSilent => "silent",
            LinkCause::LinkStopped => "worker_stopped",
            LinkCause::LinkTakenOver => "taken_over",
            LinkCause::LinkRefused => "refused",
            LinkCause::LinkSlow => "slow",
            LinkCause::LinkSlept => "slept",
            LinkCause::LinkRestarted => "coordinator_restarted",
        }
    }

    /// The cause with this number; one that a newer version knows is unspecified.
    pub fn of(number: i64) -> LinkCause {
        i32::try_from(number).ok().and_then(|n| LinkCause::try_from(n).ok()).unwrap_or_default()
    }
}
