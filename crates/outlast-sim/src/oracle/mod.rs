//! The judge. It knows what was synced, sent and executed, and nothing of how the machines decide.
//!
//! The facts are here; `coord` has what the coordinator's records and messages must keep to, `workers`
//! what workers and their attempts must, `delays` and `recovery` what is decided after failures, `end` what must hold after all.

mod coord;
mod copies;
mod delays;
mod end;
mod recovery;
mod workers;

use self::copies::Copies;
use self::delays::Delays;
use self::recovery::Recovery;
use outlast_core::records::TaskState;
use outlast_core::{AttemptId, TaskId};
use outlast_model::{Lane, OutcomeKind, TaskSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A task, as its records describe it.
#[derive(Default)]
struct Task {
    spec: Option<Arc<TaskSpec>>,
    /// Attempts up to this one are of a former task of the same id.
    after: u64,
    /// The newest attempt, and its worker.
    epoch: u64,
    worker: Arc<str>,
    ended: Option<TaskState>,
    /// The task failed because attempts were lost: a late success may still count.
    lost: bool,
    /// The newest attempt was assigned and not abandoned.
    open: bool,
    /// Starts of attempts after `floor`, the newest one when an operator last requested another run.
    executions: u32,
    floor: u64,
    recovery: Recovery,
}

/// The facts of a run, and the first thing that was wrong.
#[derive(Default)]
pub(crate) struct Oracle {
    tasks: BTreeMap<TaskId, Task>,
    cursors: BTreeMap<(Arc<str>, Lane), u64>,
    /// Checkpoints and states that are durable at a worker.
    reported: BTreeSet<(Arc<str>, AttemptId, u64)>,
    checkpoints: BTreeMap<(TaskId, u64, u64), bool>,
    states: BTreeMap<TaskId, (u64, u64)>,
    /// The newest checkpoint that a lost or failed attempt's outcome named, and that attempt.
    named: BTreeMap<TaskId, ((u64, u64), u64)>,
    assigned: BTreeMap<AttemptId, Arc<str>>,
    /// The newest attempt of each task that was removed: nothing need be known of it any more.
    removed: BTreeMap<TaskId, u64>,
    /// Acknowledged to the client.
    accepted: BTreeSet<TaskId>,
    /// Durable at a worker, or sent to the coordinator since it could not be.
    finished: BTreeSet<AttemptId>,
    /// Stores that can never be written again: their unacknowledged rows stay there.
    pub broken: BTreeSet<Arc<str>>,
    /// Sent without being durable at the worker.
    offered: BTreeSet<AttemptId>,
    /// Attempts whose outcome the coordinator has made durable, by worker.
    kept: BTreeSet<(Arc<str>, AttemptId)>,
    /// Number of effects of each outcome: by worker, attempt, kind and end.
    effects: BTreeMap<(Arc<str>, AttemptId, OutcomeKind, i64), u32>,
    /// Tasks that a worker of the v1 dialect ended, in one way or another.
    v1_finished: BTreeSet<(Arc<str>, TaskId)>,
    /// Number of effects of each outcome of a v1 worker: by attempt, kind, value and message.
    v1_outcomes: BTreeMap<(AttemptId, OutcomeKind, Vec<u8>, String), u32>,
    /// Checkpoints of v1 workers.
    v1_checkpoints: BTreeSet<(TaskId, Vec<u8>)>,
    /// Time at which the coordinator last had a link to the worker, in true milliseconds.
    pub seen: BTreeMap<Arc<str>, u64>,
    /// Workers that have a link, as this life of the coordinator reported, and whether it reported
    /// that everything is acknowledged.
    pub links: BTreeMap<Arc<str>, (u64, bool)>,
    pub wrong: Option<String>,
    pub copies: Copies,
    pub delays: Delays,
}

fn is_v1(worker: &str) -> bool {
    worker.starts_with("v1:")
}

impl Oracle {
    /// Notes that something is wrong. The first one counts.
    pub fn fail(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    /// Returns whether the attempt was one of a task that was removed.
    fn is_removed(&self, task: &TaskId, epoch: u64) -> bool {
        self.removed.get(task).is_some_and(|newest| epoch <= *newest)
    }

    /// Returns whether the attempt was at a worker whose disk never works again.
    fn is_broken(&self, task: &TaskId, epoch: u64) -> bool {
        let worker = self.assigned.get(&AttemptId { task: task.clone(), epoch });
        worker.is_some_and(|w| self.broken.contains(w)) || self.copies.are_of(worker)
    }
}
