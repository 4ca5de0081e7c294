//! Workers that speak the v1 JSON dialect, as sessions of the same core: `link` is their link and
//! what is told to them, `beat` what their heartbeats say of the tasks that they have, `outcome`
//! which attempt a result belongs to, `told` states and checkpoints.
//!
//! Such a worker has no durable outbox and names no attempts. So duplicates are known by what was
//! recorded (task, attempt, and the outcome itself or the checkpoint's name), and a worker's
//! inventory is what its heartbeats name. It may touch tasks only through what v2 uses too.

mod beat;
mod link;
mod outcome;
#[cfg(test)]
mod tests;
mod told;

pub use link::check_worker_id;
pub(super) use link::{Link, translate};

use crate::{Epoch, Millis, Now, TaskId};
use outlast_wire::v2::TaskOutcome;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the store ids of such workers begin with; the rest is the name.
pub const PREFIX: &str = "v1:";
/// A task that a worker was given and does not name for this long is asked for, in milliseconds.
const MISSED: Millis = 5_000;
/// And this long after that it is taken for lost, in milliseconds.
const LOST: Millis = 10_000;
/// The same of what was given on an earlier link, which the worker would have named by now: if it
/// was ever named, and if not (then it most likely never arrived), in milliseconds.
const LOST_BACK: (Millis, Millis) = (3_000, 500);
/// A worker that was known and does not say what it has gets new work after this, in
/// milliseconds.
const PATIENCE: Millis = 15_000;
/// How often an assignment is sent again to a worker that never named the task.
const AGAIN: u32 = 3;
/// Different outcomes of one attempt that are recorded.
const OUTCOMES: usize = 8;

/// What is known of a v1 worker beyond a connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// By task: what it was given and has not settled.
    runs: BTreeMap<TaskId, Run>,
}

/// An attempt at a v1 worker.
#[derive(Debug)]
struct Run {
    epoch: Epoch,
    /// When there last was reason to believe that it is there.
    since: Millis,
    /// Unix time in milliseconds.
    given: i64,
    /// Its result was asked for, since nothing was heard of it.
    asked: Option<Millis>,
    /// It was given on an earlier link, and not named on this one.
    back: bool,
    /// The worker said something of it: it has the assignment.
    seen: bool,
    sent: u32,
    /// What the worker said last; none when that is not known.
    paused: Option<bool>,
    /// The checkpoint whose data is on its way.
    fetching: Option<String>,
    /// A person asked for a checkpoint.
    asked_checkpoint: bool,
}

/// What is kept of a task that such a worker has, while the task is in memory.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The state of this attempt, merged.
    state: Option<(Epoch, Map<String, Value>)>,
    /// The checkpoints that are known, by the name that their worker gave them.
    checkpoints: Option<BTreeMap<String, (Epoch, u64)>>,
    /// One that the worker told of, whose data is not here.
    wanted: Option<String>,
}

/// What was decided and is not durable yet, so that no lookup finds it.
#[derive(Debug)]
pub(super) enum Unsynced {
    Outcome { worker: Arc<str>, task: TaskId, epoch: Epoch, outcome: Arc<TaskOutcome> },
    Checkpoint { task: TaskId, name: String, place: (Epoch, u64) },
}

impl Run {
    fn new(epoch: Epoch, now: Now) -> Run {
        Run {
            epoch,
            since: now.mono,
            given: now.wall,
            asked: None,
            back: false,
            seen: false,
            sent: 0,
            paused: None,
            fetching: None,
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
        (run.since, run.asked, run.seen, run.back) = (now.mono, None, true, false);
    }

    /// A person wants a checkpoint of this attempt.
    pub fn wants_checkpoint(&mut self, task: &TaskId, epoch: Epoch) {
        if let Some(run) = self.run(task, epoch) {
            run.asked_checkpoint = true;
        }
    }
}

impl Run {
    /// How long it may be missed before it is asked for, and then before it is given up.
    fn patience(&self) -> (Millis, Millis) {
        match (self.back, self.seen) {
            (false, _) => (MISSED, LOST),
            (true, true) => (0, LOST_BACK.0),
            (true, false) => (0, LOST_BACK.1),
        }
    }
}
