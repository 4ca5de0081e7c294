//! A task in memory: what holds in every state, and what holds only while it waits, is assigned, or has ended.

use super::v1;
use crate::records::{Asked, Assigned, Losses, Reported, TaskRow, TaskState};
use crate::recovery::TaskRecovery;
use crate::scheduler::WorkerKey;
use crate::{Epoch, Millis, TaskId};
use outlast_model::TaskSpec;
use std::sync::Arc;

/// A worker that is not known any more: that of a task whose worker was removed while the coordinator was down.
const UNKNOWN: WorkerKey = WorkerKey::MAX;

/// A task in memory: an unfinished one, or one whose end is not yet durable.
#[derive(Debug)]
pub(super) struct Task {
    pub number: u64,
    pub spec: Arc<TaskSpec>,
    pub epoch: Epoch,
    /// Attempts up to this one are of a former task of the same id.
    pub after: Epoch,
    pub retries: u32,
    /// True if paused: the task is not assigned, and suspended where it runs.
    pub paused: bool,
    phase: Phase,
    /// Checkpoints and states that its attempts reported.
    pub reported: Reported,
    /// Pending operator requests; changed by [`Coordinator::change_asked`].
    pub asked: Asked,
    /// Recovery state.
    pub recovery: Option<Arc<TaskRecovery>>,
    /// Reports in the v1 dialect.
    pub v1: Option<Box<v1::TaskReports>>,
    pub origin: Origin,
}

/// Source of a task in memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The store, which knows its owner.
    Loaded,
    /// A request to this process, with the name of its key.
    Accepted(Option<Arc<str>>),
}

/// The state, with the facts that hold only in it.
#[derive(Debug)]
enum Phase {
    /// No worker has it.
    Waiting {
        /// Earliest time of its next assignment.
        due: Option<Millis>,
    },
    /// A worker has its newest attempt.
    Assigned {
        worker: WorkerKey,
        /// Worker's Unix time in milliseconds, once the start was reported.
        started_at: Option<i64>,
        /// True if a cancel was requested.
        cancelling: bool,
        /// True if the attempt was recalled, so that another worker can run it.
        recalled: bool,
    },
    /// The task has ended, and leaves memory once that is settled.
    Ended {
        state: TaskState,
        /// True if it failed because attempts were lost: a late success still counts.
        lost: bool,
        /// Batch that records its end; 0 if it was only looked up.
        batch: u64,
    },
}

impl Task {
    /// A task as the store has it, with its id; its worker is set by who knows workers.
    pub fn of(row: TaskRow) -> (TaskId, Task) {
        let phase = match row.state {
            TaskState::Pending => Phase::Waiting { due: None },
            TaskState::Assigned => Phase::Assigned {
                worker: UNKNOWN,
                started_at: row.assigned.started_at,
                cancelling: row.assigned.cancelling,
                recalled: false,
            },
            state => Phase::Ended { state, lost: row.losses.lost, batch: 0 },
        };
        let task = Task {
            number: row.number,
            spec: row.spec,
            epoch: row.epoch,
            after: row.after,
            retries: row.losses.retries,
            paused: row.paused,
            phase,
            reported: row.reported,
            asked: row.asked,
            recovery: row.recovery,
            v1: None,
            origin: Origin::Loaded,
        };
        (row.id, task)
    }

    /// The task as a store has it that applied all records; `worker` is the store id of its worker.
    pub fn row(&self, id: &TaskId, worker: Option<Arc<str>>) -> TaskRow {
        TaskRow {
            id: id.clone(),
            number: self.number,
            spec: self.spec.clone(),
            state: self.state(),
            epoch: self.epoch,
            after: self.after,
            losses: Losses { retries: self.retries, lost: self.is_lost() },
            assigned: Assigned {
                worker,
                cancelling: self.is_cancelling(),
                started_at: self.started_at(),
            },
            paused: self.paused,
            asked: self.asked.clone(),
            reported: self.reported.clone(),
            recovery: self.recovery.clone(),
        }
    }

    pub fn state(&self) -> TaskState {
        match self.phase {
            Phase::Waiting { .. } => TaskState::Pending,
            Phase::Assigned { .. } => TaskState::Assigned,
            Phase::Ended { state, .. } => state,
        }
    }
    pub fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }
    /// The worker that has its newest attempt.
    pub fn worker(&self) -> Option<WorkerKey> {
        match self.phase {
            Phase::Assigned { worker, .. } => Some(worker),
            _ => None,
        }
    }
    pub fn started_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Assigned { started_at, .. } => started_at,
            _ => None,
        }
    }
    pub fn is_cancelling(&self) -> bool {
        matches!(self.phase, Phase::Assigned { cancelling: true, .. })
    }
    pub fn is_recalled(&self) -> bool {
        matches!(self.phase, Phase::Assigned { recalled: true, .. })
    }
    /// Earliest time of its next assignment, if it has to wait for one.
    pub fn due(&self) -> Option<Millis> {
        match self.phase {
            Phase::Waiting { due } => due,
            _ => None,
        }
    }
    /// Returns true if it failed because attempts were lost.
    pub fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Ended { lost: true, .. })
    }
    /// Batch that records its end; none while it has not ended, 0 if it was only looked up.
    pub fn ended_with(&self) -> Option<u64> {
        match self.phase {
            Phase::Ended { batch, .. } => Some(batch),
            _ => None,
        }
    }

    pub fn is_current(&self, key: WorkerKey, epoch: Epoch) -> bool {
        self.epoch == epoch && self.worker() == Some(key)
    }
    /// Returns true if this attempt was abandoned, and the task is not assigned again yet.
    pub fn is_abandoned(&self, epoch: Epoch) -> bool {
        self.is_pending() && self.epoch == epoch && epoch > self.after
    }
    /// Returns true if it was moved away from this worker.
    pub fn is_misplaced(&self, name: &str) -> bool {
        self.asked.place.as_ref().is_some_and(|(worker, there)| (**worker == *name) != *there)
    }
    pub fn window(&self) -> Millis {
        (self.spec.reconnect_window * 1000.0) as Millis
    }
    pub fn recovered(&self) -> TaskRecovery {
        self.recovery.as_deref().cloned().unwrap_or_default()
    }

    /// At start: the worker that has it is known.
    pub fn adopt(&mut self, key: WorkerKey) {
        if let Phase::Assigned { worker, .. } = &mut self.phase {
            debug_assert_eq!(*worker, UNKNOWN);
            *worker = key;
        }
    }

    /// Gives its next attempt to a worker.
    pub fn become_assigned(&mut self, worker: WorkerKey) {
        debug_assert!(!self.paused && matches!(self.phase, Phase::Waiting { due: None }));
        self.epoch += 1;
        self.hold(worker);
    }

    /// Lets the abandoned attempt go on at its worker; returns true if the task waited to be tried again.
    pub fn become_assigned_again(&mut self, worker: WorkerKey) -> bool {
        debug_assert!(self.is_abandoned(self.epoch));
        let waited = self.due().is_some();
        self.hold(worker);
        waited
    }

    fn hold(&mut self, worker: WorkerKey) {
        let (started_at, cancelling, recalled) = (None, false, false);
        self.phase = Phase::Assigned { worker, started_at, cancelling, recalled };
    }

    /// Lets it wait for another attempt; returns the worker that had the last one.
    pub fn become_pending(&mut self, retries: u32) -> Option<WorkerKey> {
        debug_assert!(matches!(self.phase, Phase::Assigned { cancelling: false, .. }));
        let holder = self.worker();
        (self.phase, self.retries) = (Phase::Waiting { due: None }, retries);
        holder
    }

    /// Ends the task; returns the worker that had it. One that had failed for lost attempts may end once more.
    pub fn become_ended(&mut self, state: TaskState, batch: u64) -> Option<WorkerKey> {
        debug_assert!(state.is_terminal());
        debug_assert!(!self.has_ended() || (self.is_lost() && state == TaskState::Succeeded));
        let holder = self.worker();
        self.phase = Phase::Ended { state, lost: false, batch };
        holder
    }

    /// Marks a failure as one for lost attempts.
    pub fn mark_lost(&mut self) {
        if let Phase::Ended { state: TaskState::Failed, lost, .. } = &mut self.phase {
            *lost = true;
        }
    }

    /// Runs it again for an operator: all budgets begin again.
    pub fn become_pending_again(&mut self) {
        debug_assert!(matches!(self.state(), TaskState::Failed | TaskState::Cancelled));
        (self.phase, self.retries) = (Phase::Waiting { due: None }, 0);
        (self.paused, self.recovery) = (false, None);
    }

    /// Sets or removes the earliest time of the next assignment of a pending task; returns the former one.
    pub fn wait_until(&mut self, at: Option<Millis>) -> Option<Millis> {
        match &mut self.phase {
            Phase::Waiting { due } => std::mem::replace(due, at),
            _ => None,
        }
    }

    /// Notes that its attempt has started; returns true if that is news.
    pub fn start(&mut self, at: i64) -> bool {
        match &mut self.phase {
            Phase::Assigned { started_at: started @ None, .. } => {
                *started = Some(at);
                true
            }
            _ => false,
        }
    }

    /// Notes that a cancel was requested; returns true if that is news.
    pub fn cancel(&mut self) -> bool {
        match &mut self.phase {
            Phase::Assigned { cancelling, .. } => !std::mem::replace(cancelling, true),
            _ => false,
        }
    }

    /// Notes that its attempt was recalled.
    pub fn recall(&mut self) {
        if let Phase::Assigned { recalled, .. } = &mut self.phase {
            *recalled = true;
        }
    }
}

/// Returns true if an attempt belongs to this task, not to a previous one with its id.
pub(super) fn is_own(epoch: Epoch, after: Epoch, newest: Epoch) -> bool {
    after < epoch && epoch <= newest
}
