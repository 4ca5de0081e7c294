//! Types of the reports on links and workers that go to those who measure and watch.

use super::faults::Faults;
use super::ids::ConnId;
use super::tally::Tally;
use super::workers::{Member, WorkerState};
use crate::Millis;
use crate::adapt::Change;
use crate::records::WorkerRow;
use outlast_model::LinkCause;
use outlast_model::message::{Adapted, LinkReport};
use std::sync::Arc;

/// Event of a worker's link.
#[derive(Debug, Clone)]
pub struct LinkNews {
    /// The worker's store id.
    pub worker: Arc<str>,
    /// Name of the worker.
    pub name: Arc<str>,
    /// Unix time in milliseconds.
    pub at: i64,
    /// The change.
    pub what: LinkChange,
}

/// Change of a worker's link.
#[derive(Debug, Clone)]
pub enum LinkChange {
    /// The worker connected over this link, and was accepted.
    Connected(ConnId, Option<Box<LinkReport>>),
    /// A worker of the v1 dialect that has several links is reached by this one now; whether it
    /// was opened just now.
    Switched(ConnId, bool),
    /// The difference of inventories was sent, and all unacknowledged records have been applied;
    /// milliseconds since the handshake.
    Resynced(Millis),
    /// The link ended; true if the worker holds tasks.
    Lost(LinkCause, String, bool),
    /// This side changed how it treats the link.
    Adapted(Change),
    /// The worker did.
    WorkerAdapted(Adapted),
    /// The statistics are reset.
    Reset,
    /// The worker reports that it cannot work, or (none) that it can again.
    Unfit(Option<Arc<Faults>>),
    /// An operator removed it.
    Forgotten,
    /// A process with a copy of its state folder was refused; why.
    Copied(String),
}

/// A worker at a moment, for those who measure.
#[derive(Debug, Clone)]
pub struct LinkSample {
    /// Description that the worker sent.
    pub row: Arc<WorkerRow>,
    /// State of the worker.
    pub state: WorkerState,
    /// Attempts that it holds.
    pub held: u32,
    /// Tasks that run there, as it said last.
    pub running: u32,
    /// The worker's own newest round-trip time in milliseconds.
    pub rtt_ms: u32,
    /// Checkpoints that its tasks read back, as it said last.
    pub restored: u64,
    /// Outcomes of its tasks.
    pub tally: Tally,
    /// Faults that the worker reports.
    pub faults: Option<Arc<Faults>>,
    /// Time of the last refusal of a copy of its state folder (Unix ms), and the number of refusals.
    pub copied: Option<(i64, u64)>,
}

impl LinkSample {
    /// A worker at this moment.
    pub(super) fn of(member: &Member) -> LinkSample {
        LinkSample {
            row: member.row.clone(),
            state: member.state(),
            held: member.held.attempts.len() as u32,
            running: member.link.beat.running,
            rtt_ms: member.link.beat.rtt_ms,
            restored: member.link.beat.restored,
            tally: member.held.tally,
            faults: member.unable.as_ref().map(|u| u.faults.clone()),
            copied: member.rivals.seen().map(|seen| (seen.at, seen.times)),
        }
    }
}
