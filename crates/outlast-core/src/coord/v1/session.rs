//! State of v1 workers: their sessions, links, and attempts, and what is remembered of their tasks.

use crate::coord::ids::ConnId;
use crate::{Epoch, Millis, Now, TaskId};
use outlast_model::{Bytes, TaskOutcome};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pause that its worker does not answer is withdrawn after this, in milliseconds.
pub const PAUSE_LAPSES: Millis = 30_000;
/// A worker that was known and does not say what it has gets new work after this, in
/// milliseconds.
pub(super) const PATIENCE: Millis = 15_000;
/// Number of times that an assignment is sent again to a worker that never listed the task.
pub(super) const AGAIN: u32 = 3;
/// Time in milliseconds after which a checkpoint request is dropped.
pub(super) const FETCH: Millis = 30_000;
/// Number of links that a possible checkpoint of an attempt may end; then no more are requested.
pub(super) const OVERSIZED: u32 = 2;
/// Different outcomes of one attempt that are recorded.
pub(super) const OUTCOMES: usize = 8;
/// Links of a worker that live; another one is not let in. Such a client opens one more for each 15 s
/// of an outage, and again each that is closed or refused: so this is well above what outages of some
/// minutes leave.
pub const MAX_LINKS: usize = 64;
/// Prefix of the store ids of such workers; the rest is the name.
pub const PREFIX: &str = "v1:";

/// A task that a worker was given and does not name for this long is asked for, in milliseconds.
pub(super) const MISSED: Millis = 5_000;

/// Further time in milliseconds after which it counts as lost.
pub(super) const LOST: Millis = 10_000;

/// The same of what was given on an earlier link, which the worker would have named by now: if it
/// was ever named, and if not (then it most likely never arrived), in milliseconds.
pub(super) const LOST_BACK: (Millis, Millis) = (3_000, 500);

/// The same of what its worker accepted and does not name in its heartbeats, in milliseconds.
pub(super) const LOST_ACCEPTED: Millis = 60_000;

/// State of a v1 worker beyond a connection.
#[derive(Debug, Default)]
pub(in crate::coord) struct Session {
    /// By task: what it was given and has not settled.
    pub runs: BTreeMap<TaskId, Run>,
    /// Links, oldest first. The member's `conn` is the one of them that work is sent on.
    pub links: Vec<ConnId>,
    /// The link on which the message came that is being handled.
    pub speaker: ConnId,
    /// Acknowledgements that it wants.
    pub acks: Acks,
}

/// An attempt at a v1 worker.
#[derive(Debug)]
pub(in crate::coord) struct Run {
    pub epoch: Epoch,
    /// Unix time in milliseconds.
    pub given: i64,
    pub sent: u32,
    pub evidence: Evidence,
    /// Time that it has run, without pauses, and the time up to which that is counted.
    pub ran: (Millis, Option<Millis>),
    /// Time since which it should stop, because it exceeded its timeout.
    pub stopping: Option<Millis>,
    pub pause: Pause,
    pub transfer: Transfer,
}

/// Signs that a worker has an attempt.
#[derive(Debug)]
pub(in crate::coord) struct Evidence {
    /// Time of the last one.
    pub since: Millis,
    /// Time at which its result was requested, since nothing was received about it.
    pub asked: Option<Millis>,
    /// The link that it was given on, or last named on; none before this process began.
    pub link: Option<ConnId>,
    /// The worker said something of it: it has the assignment.
    pub seen: bool,
    /// The worker answered the assignment with word that it runs; its result comes later.
    pub accepted: bool,
}

/// Pause of an attempt, as far as its worker has answered.
#[derive(Debug, Default)]
pub(in crate::coord) struct Pause {
    /// State in the worker's last report; none: unknown.
    pub paused: Option<bool>,
    /// Time since which a pause waits for the worker's answer.
    pub pausing: Option<Millis>,
    /// A pause had no answer, and was withdrawn.
    pub lapsed: bool,
}

/// Transfer of an attempt's checkpoints.
#[derive(Debug, Default)]
pub(in crate::coord) struct Transfer {
    /// Unanswered checkpoint request.
    pub fetching: Option<Fetch>,
    /// Links that ended with a message that was too long, while a checkpoint was on its way.
    pub oversized: u32,
    /// True if an operator requested a checkpoint.
    pub asked_checkpoint: bool,
}

/// A checkpoint whose data is on its way.
#[derive(Debug)]
pub(in crate::coord) struct Fetch {
    /// Name of the checkpoint; none: the newest.
    pub name: Option<String>,
    pub since: Millis,
    /// The link that it was asked for on.
    pub link: ConnId,
}

/// Reported checkpoints of a task: their numbers by attempt, by the name that their
/// worker gave them, and by blob. Each attempt may begin with the same names again.
pub(in crate::coord) type Known = BTreeMap<(Epoch, String, Bytes), u64>;

/// State of a task of such a worker, while the task is in memory.
#[derive(Debug, Default)]
pub(in crate::coord) struct TaskReports {
    /// The state of this attempt, merged.
    pub state: Option<(Epoch, Map<String, Value>)>,
    pub checkpoints: Option<Known>,
    /// Checkpoint that the worker reported in this attempt, whose data is not here.
    pub wanted: Option<(Epoch, String)>,
}

/// Decision that is not durable yet, so that no lookup finds it.
#[derive(Debug)]
pub(in crate::coord) enum Unsynced {
    Outcome { worker: Arc<str>, task: TaskId, epoch: Epoch, outcome: Arc<TaskOutcome> },
    Checkpoint { task: TaskId, what: (Epoch, String, Bytes), number: u64 },
}

impl TaskReports {
    /// Returns true if the merged state of this attempt is in memory.
    pub fn has_state_of(&self, epoch: Epoch) -> bool {
        self.state.as_ref().is_some_and(|(of, _)| *of == epoch)
    }
    /// Returns true if all reported checkpoints are in memory.
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoints.is_some()
    }
}

impl Run {
    pub fn new(epoch: Epoch, now: Now) -> Run {
        Run {
            epoch,
            given: now.wall,
            sent: 0,
            evidence: Evidence {
                since: now.mono,
                asked: None,
                link: None,
                seen: false,
                accepted: false,
            },
            ran: (0, None),
            stopping: None,
            pause: Pause::default(),
            transfer: Transfer::default(),
        }
    }
}

impl Session {
    pub fn run(&mut self, task: &str, epoch: Epoch) -> Option<&mut Run> {
        self.runs.get_mut(task).filter(|r| r.epoch == epoch)
    }

    /// The worker said something of this attempt.
    pub fn saw(&mut self, now: Now, task: &TaskId, epoch: Epoch) {
        let run = self.runs.entry(task.clone()).or_insert_with(|| Run::new(epoch, now));
        if run.epoch != epoch {
            *run = Run::new(epoch, now);
        }
        (run.evidence.since, run.evidence.asked, run.evidence.seen) = (now.mono, None, true);
        run.evidence.link = Some(self.speaker);
        run.ran.1.get_or_insert(now.mono);
    }

    /// Requests a checkpoint of this attempt for an operator.
    pub fn wants_checkpoint(&mut self, task: &TaskId, epoch: Epoch) {
        if let Some(run) = self.run(task, epoch) {
            run.transfer.asked_checkpoint = true;
        }
    }
}

/// Requests that are due to a worker that lists an attempt.
#[derive(Debug)]
pub(in crate::coord) struct Due {
    /// Pause it, or let it go on: it may do the other.
    pub pause: bool,
    /// Request its state.
    pub state: bool,
    /// Request the data of a checkpoint.
    pub checkpoint: bool,
}

impl Run {
    /// Returns the requests that are due. `first`: the link lists it for the first time; `paused`: how it should be;
    /// `wanted`: the checkpoint that its worker reported and whose data is not here.
    pub fn due(&mut self, now: Now, first: bool, paused: bool, wanted: Option<&str>) -> Due {
        // Given by a former process of this coordinator, which may have missed something.
        let inherited = first && self.sent == 0;
        // Its data was on its way when the link or the coordinator went.
        let lacks = first && self.transfer.fetching.is_none();
        // A request that was never answered makes room for later reports.
        let late = self.transfer.fetching.take_if(|f| now.mono >= f.since + FETCH);
        let newer = late.is_some_and(|f| f.name.as_deref() != wanted);
        let untried = self.transfer.oversized == 0;
        Due {
            pause: first && self.pause.paused != Some(paused),
            state: inherited,
            checkpoint: ((lacks || newer) && wanted.is_some()) || (inherited && untried),
        }
    }

    /// Returns the time for which it may be missing before it is requested, and then before it counts as
    /// lost; `back`: the link that it was assigned on is not alive any more.
    pub fn patience(&self, back: bool) -> (Millis, Millis) {
        match (back, self.evidence.accepted, self.evidence.seen) {
            // While its link lives nothing is missed: it is not in the worker's list any more.
            (false, true, _) => (Millis::MAX / 4, Millis::MAX / 4),
            (true, true, _) => (0, LOST_ACCEPTED),
            (false, ..) => (MISSED, LOST),
            (true, _, true) => (0, LOST_BACK.0),
            (true, _, false) => (0, LOST_BACK.1),
        }
    }
}

/// State of a v1 link in addition to that of all links.
#[derive(Debug)]
pub(in crate::coord) struct Link {
    /// Empty until the worker says its id, where the address does not have it.
    pub name: Arc<str>,
    /// Time of its registration.
    pub joined: Millis,
    /// True once it has reported its capabilities.
    pub registered: bool,
}

impl Link {
    /// The worker's id; empty until the worker says it, where the address does not have it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Acknowledgements that a worker wants, by its capability `acks`.
#[derive(Debug, Default)]
pub(in crate::coord) enum Acks {
    #[default]
    All,
    None,
    /// Acknowledgements of these types.
    Some(BTreeSet<String>),
}

impl Acks {
    /// `false` is none, a list names types; all others are wanted.
    pub fn wanted(capability: Option<&Value>) -> Acks {
        match capability {
            Some(Value::Bool(false)) => Acks::None,
            Some(Value::Array(names)) => {
                Acks::Some(names.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
            }
            _ => Acks::All,
        }
    }
}
