//! The state of one link.

use super::v1;
use crate::Millis;
use crate::health::HeartbeatMonitor;
use crate::scheduler::WorkerKey;
use outlast_model::message::{Holding, LinkReport, OutboxItem, ToCoordinator};
use outlast_model::{Bytes, Lane, LinkCause};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Conn {
    pub monitor: HeartbeatMonitor,
    pub worker: Option<WorkerKey>,
    pub handshake: Handshake,
    pub bye: Option<String>,
    pub lanes: Lanes,
    /// Link of a worker of the v1 dialect.
    pub v1: Option<Box<v1::Link>>,
    /// Unacknowledged records at its return, until they have been applied.
    pub resync: Option<Resync>,
    /// Timeout as last passed to the driver.
    pub timeout: Millis,
    /// Owner of its key.
    pub principal: Principal,
    /// Arrivals that wait for facts, in order.
    pub arrivals: VecDeque<Arrival>,
}

/// Hello and inventory of a link.
#[derive(Debug)]
pub(super) struct Handshake {
    pub since: Millis,
    /// Inventory of the worker, until it is complete.
    pub inventory: Option<Vec<Holding>>,
    /// True if it waits for an answer to its inventory.
    pub takes_settled: bool,
}

/// Lanes of a worker's outbox on a link.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// An outbox batch has arrived, by lane.
    pub outbox: [bool; 8],
    /// The lane of checkpoints waits for a blob.
    pub blocked: bool,
}

/// Owner of a link, by its key.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    /// Name of the key; empty where no key is needed.
    pub name: Arc<str>,
    /// True if it may take over workers of other keys.
    pub operator: bool,
}

/// Event of a link, in the order of arrival.
#[derive(Debug)]
pub(super) enum Arrival {
    Message(ToCoordinator),
    /// The rest of a batch of an outbox, by sequence.
    Items(Lane, VecDeque<(u64, OutboxItem)>),
    /// A message of the v1 dialect, with the manifest of a checkpoint's data, and the time of its arrival; none: a
    /// heartbeat that has been answered.
    V1(v1::FromWorker, Option<Bytes>, Option<Millis>),
    /// The link's end.
    Close(LinkCause, String),
}

/// Resynchronization of a worker with unacknowledged records: start time, and the last record of each
/// lane.
#[derive(Debug)]
pub(super) struct Resync {
    pub since: Millis,
    pub owed: Vec<(Lane, u64)>,
}

impl Resync {
    /// The checkpoints' lane waits for uploads, and is left out.
    pub fn new(since: Millis, report: Option<&LinkReport>) -> Resync {
        let owed = report.map_or(&[][..], |r| &r.owed).iter().take(8);
        let owed = owed.map(|c| (c.lane, c.seq));
        let owed = owed.filter(|(lane, _)| matches!(lane, Lane::Results | Lane::State)).collect();
        Resync { since, owed }
    }
}
