//! The words for causes: what people and programs read, and what the stores keep as numbers.

use crate::v2::{Cause, LinkCause, Unfit, Unfitness};

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
            Cause::Machine => "machine",
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
                | Cause::Machine
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

impl Unfit {
    /// The word that programs see; empty when nothing is known.
    pub fn word(self) -> &'static str {
        match self {
            Unfit::Unspecified => "",
            Unfit::Store => "store",
            Unfit::Machine => "machine",
            Unfit::Blobs => "blobs",
            Unfit::Disk => "disk",
        }
    }

    /// Says what does not work, after the worker's name.
    pub fn says(self) -> &'static str {
        match self {
            Unfit::Unspecified => "cannot work",
            Unfit::Store => "cannot write its store",
            Unfit::Machine => "cannot start tasks",
            Unfit::Blobs => "cannot keep checkpoints",
            Unfit::Disk => "has no room for tasks",
        }
    }

    /// Whether a worker with this fault takes no work.
    pub fn stops_work(self) -> bool {
        self != Unfit::Blobs
    }
}

impl Unfitness {
    /// What does not work and why, after the worker's name: "cannot write its store: No space
    /// left on device".
    pub fn says(&self) -> String {
        match self.reason.as_str() {
            "" => self.source().says().to_owned(),
            reason => format!("{}: {reason}", self.source().says()),
        }
    }
}
