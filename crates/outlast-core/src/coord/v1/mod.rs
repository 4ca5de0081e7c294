//! Workers that speak the v1 JSON dialect, as sessions of the same core: `link` is their link and
//! the messages to them, `shared` the links that one session may have at once, `beat` the task lists of
//! their heartbeats, `outcome` the assignment of results to attempts, `told`
//! states and checkpoints, `waits` the timeouts of unanswered requests.
//!
//! Such a worker has no durable outbox and names no attempts. So duplicates are known by what was
//! recorded (task, attempt, and the outcome itself or the checkpoint's name), and a worker's
//! inventory is what its heartbeats name. It may touch tasks only through what v2 uses too.

mod beat;
mod link;
mod outcome;
mod shared;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod told;
mod waits;

pub use link::check_worker_id;
pub(super) use link::{Link, translate};
pub use shared::MAX_LINKS;

use crate::coord::ConnId;
use crate::{Epoch, Millis, Now, TaskId};
use outlast_model::{Bytes, TaskOutcome};
use serde_json::{Map, Value};
use shared::Acks;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Prefix of the store ids of such workers; the rest is the name.
pub const PREFIX: &str = "v1:";
/// A task that a worker was given and does not name for this long is asked for, in milliseconds.
const MISSED: Millis = 5_000;
/// Further time in milliseconds after which it counts as lost.
const LOST: Millis = 10_000;
/// The same of what was given on an earlier link, which the worker would have named by now: if it
/// was ever named, and if not (then it most likely never arrived), in milliseconds.
const LOST_BACK: (Millis, Millis) = (3_000, 500);
/// The same of what its worker accepted and does not name in its heartbeats, in milliseconds.
const LOST_ACCEPTED: Millis = 60_000;
/// A pause that its worker does not answer is withdrawn after this, in milliseconds.
pub const PAUSE_LAPSES: Millis = 30_000;
/// A worker that was known and does not say what it has gets new work after this, in
/// milliseconds.
const PATIENCE: Millis = 15_000;
/// Number of times that an assignment is sent again to a worker that never listed the task.
const AGAIN: u32 = 3;
/// Time in milliseconds after which a checkpoint request is dropped.
const FETCH: Millis = 30_000;
/// Number of links that a possible checkpoint of an attempt may end; then no more are requested.
const OVERSIZED: u32 = 2;
/// Different outcomes of one attempt that are recorded.
const OUTCOMES: usize = 8;

/// State of a v1 worker beyond a connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// By task: what it was given and has not settled.
    runs: BTreeMap<TaskId, Run>,
    /// Links, oldest first. The member's `conn` is the one of them that work is sent on.
    links: Vec<ConnId>,
    /// The link on which the message came that is being handled.
    speaker: ConnId,
    /// Acknowledgements that it wants.
    acks: Acks,
}

/// An attempt at a v1 worker.
#[derive(Debug)]
struct Run {
    epoch: Epoch,
    /// Time of the last evidence that the worker has it.
    since: Millis,
    /// Unix time in milliseconds.
    given: i64,
    /// Time at which its result was requested, since nothing was received about it.
    asked: Option<Millis>,
    /// The link that it was given on, or last named on; none before this process began.
    link: Option<ConnId>,
    /// The worker said something of it: it has the assignment.
    seen: bool,
    /// The worker answered the assignment with word that it runs; its result comes later.
    accepted: bool,
    /// Time that it has run, without pauses, and the time up to which that is counted.
    ran: (Millis, Option<Millis>),
    /// Time since which it should stop, because it exceeded its timeout.
    stopping: Option<Millis>,
    sent: u32,
    /// State in the worker's last report; none: unknown.
    paused: Option<bool>,
    /// Time since which a pause waits for the worker's answer.
    pausing: Option<Millis>,
    /// A pause had no answer, and was withdrawn.
    lapsed: bool,
    /// Unanswered checkpoint request.
    fetching: Option<Fetch>,
    /// Links that ended with a message that was too long, while a checkpoint was on its way.
    oversized: u32,
    /// True if an operator requested a checkpoint.
    asked_checkpoint: bool,
}

/// A checkpoint whose data is on its way.
#[derive(Debug)]
struct Fetch {
    /// Name of the checkpoint; none: the newest.
    name: Option<String>,
    since: Millis,
    /// The link that it was asked for on.
    link: ConnId,
}

/// Reported checkpoints of a task: their numbers by attempt, by the name that their
/// worker gave them, and by blob. Each attempt may begin with the same names again.
type Known = BTreeMap<(Epoch, String, Bytes), u64>;

/// State of a task of such a worker, while the task is in memory.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The state of this attempt, merged.
    state: Option<(Epoch, Map<String, Value>)>,
    checkpoints: Option<Known>,
    /// Checkpoint that the worker reported in this attempt, whose data is not here.
    wanted: Option<(Epoch, String)>,
}

/// Decision that is not durable yet, so that no lookup finds it.
#[derive(Debug)]
pub(super) enum Unsynced {
    Outcome { worker: Arc<str>, task: TaskId, epoch: Epoch, outcome: Arc<TaskOutcome> },
    Checkpoint { task: TaskId, what: (Epoch, String, Bytes), number: u64 },
}

impl Run {
    fn new(epoch: Epoch, now: Now) -> Run {
        Run {
            epoch,
            since: now.mono,
            given: now.wall,
            asked: None,
            link: None,
            seen: false,
            accepted: false,
            ran: (0, None),
            stopping: None,
            sent: 0,
            paused: None,
            pausing: None,
            lapsed: false,
            fetching: None,
            oversized: 0,
            asked_checkpoint: false,
        }
    }
}

impl Session {
    fn run(&mut self, task: &str, epoch: Epoch) -> Option<&mut Run> {
        self.runs.get_mut(task).filter(|r| r.epoch == epoch)
    }

    /// The worker said something of this attempt.
    fn saw(&mut self, now: Now, task: &TaskId, epoch: Epoch) {
        let run = self.runs.entry(task.clone()).or_insert_with(|| Run::new(epoch, now));
        if run.epoch != epoch {
            *run = Run::new(epoch, now);
        }
        (run.since, run.asked, run.seen) = (now.mono, None, true);
        run.link = Some(self.speaker);
        run.ran.1.get_or_insert(now.mono);
    }

    /// Requests a checkpoint of this attempt for an operator.
    pub fn wants_checkpoint(&mut self, task: &TaskId, epoch: Epoch) {
        if let Some(run) = self.run(task, epoch) {
            run.asked_checkpoint = true;
        }
    }
}

impl Run {
    /// Returns the time for which it may be missing before it is requested, and then before it counts as
    /// lost; `back`: the link that it was assigned on is not alive any more.
    fn patience(&self, back: bool) -> (Millis, Millis) {
        match (back, self.accepted, self.seen) {
            // While its link lives nothing is missed: it is not in the worker's list any more.
            (false, true, _) => (Millis::MAX / 4, Millis::MAX / 4),
            (true, true, _) => (0, LOST_ACCEPTED),
            (false, ..) => (MISSED, LOST),
            (true, _, true) => (0, LOST_BACK.0),
            (true, _, false) => (0, LOST_BACK.1),
        }
    }
}
