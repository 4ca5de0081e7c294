//! The attempts that a worker holds: those that wait, in order, and those that run.

use crate::{AttemptId, Epoch, Now, TaskId};
use outlast_wire::{TaskSpec, spec::Rerun};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
struct Attempt {
    spec: Arc<TaskSpec>,
    order: (Reverse<i32>, u64),
    stage: Stage,
    /// `Starting` was recorded.
    marked: bool,
    /// The batch that makes its arrival durable.
    batch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Has its slots, and starts once what it rests on is durable.
    Reserved,
    Running(Now),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    held: BTreeMap<AttemptId, Attempt>,
    queue: BTreeMap<(Reverse<i32>, u64), AttemptId>,
    arrivals: u64,
    slots: u32,
    used: u32,
}

fn id(task: &str, epoch: Epoch) -> AttemptId {
    AttemptId { task: task.into(), epoch }
}

impl Attempts {
    pub fn new(slots: u32) -> Self {
        let (held, queue) = (BTreeMap::new(), BTreeMap::new());
        Attempts { held, queue, arrivals: 0, slots: slots.max(1), used: 0 }
    }

    pub fn insert(&mut self, task: TaskId, epoch: Epoch, spec: Arc<TaskSpec>, batch: u64) {
        self.arrivals += 1;
        let order = (Reverse(spec.priority), self.arrivals);
        let id = AttemptId { task, epoch };
        self.queue.insert(order, id.clone());
        let (stage, marked) = (Stage::Waiting, false);
        self.held.insert(id, Attempt { spec, order, stage, marked, batch });
    }

    /// The newest epoch held of a task.
    pub fn newest(&self, task: &str) -> Option<Epoch> {
        let range = id(task, 0)..=id(task, Epoch::MAX);
        self.held.range(range).next_back().map(|(a, _)| a.epoch)
    }

    /// Gives the next waiting attempt its slots: (task, epoch, the batch that it rests on,
    /// whether it must not run twice).
    /// Strictly in order, so that one that needs many slots is not passed for ever.
    pub fn reserve(&mut self) -> Option<(TaskId, Epoch, u64, bool)> {
        let (&order, next) = self.queue.first_key_value()?;
        let attempt = self.held.get_mut(next)?;
        // A task larger than the worker (its slots were lowered) runs alone.
        if self.used > 0 && self.used + attempt.spec.slots > self.slots {
            return None;
        }
        self.used += attempt.spec.slots;
        attempt.stage = Stage::Reserved;
        let (batch, once) = (attempt.batch, attempt.spec.rerun == Rerun::Never);
        let AttemptId { task, epoch } = self.queue.remove(&order)?;
        Some((task, epoch, batch, once))
    }

    /// The attempt runs from now on; `None` if it is no longer held.
    pub fn begin(&mut self, task: &TaskId, epoch: Epoch, now: Now) -> Option<Arc<TaskSpec>> {
        let attempt = self.held.get_mut(&id(task, epoch))?;
        attempt.stage = Stage::Running(now);
        Some(attempt.spec.clone())
    }

    pub fn remove(&mut self, task: &str, epoch: Epoch) {
        if let Some(attempt) = self.held.remove(&id(task, epoch)) {
            self.queue.remove(&attempt.order);
            if attempt.stage != Stage::Waiting {
                self.used -= attempt.spec.slots;
            }
        }
    }

    /// Whether the attempt has been started, and not ended.
    pub fn is_running(&self, task: &str, epoch: Epoch) -> bool {
        matches!(self.held.get(&id(task, epoch)), Some(Attempt { stage: Stage::Running(_), .. }))
    }

    pub fn holds(&self, task: &str, epoch: Epoch) -> bool {
        self.held.contains_key(&id(task, epoch))
    }

    /// When the first attempt began whose start is not on record.
    pub fn first_unmarked(&self) -> Option<Now> {
        let unmarked = self.held.values().filter(|a| !a.marked);
        let began = unmarked.filter_map(|a| match a.stage {
            Stage::Running(at) => Some(at),
            _ => None,
        });
        began.min_by_key(|at| at.mono)
    }

    /// Attempts that have not started, also those that have their slots.
    pub fn waiting(&self) -> Vec<(TaskId, Epoch)> {
        self.pick(|a| !matches!(a.stage, Stage::Running(_)))
    }

    /// Attempts that have started.
    pub fn running(&self) -> Vec<(TaskId, Epoch)> {
        self.pick(|a| matches!(a.stage, Stage::Running(_)))
    }

    fn pick(&self, which: impl Fn(&Attempt) -> bool) -> Vec<(TaskId, Epoch)> {
        let chosen = self.held.iter().filter(|(_, a)| which(a));
        chosen.map(|(a, _)| (a.task.clone(), a.epoch)).collect()
    }

    /// Every attempt, with the time at which it started.
    pub fn all(&self) -> impl Iterator<Item = (&AttemptId, Option<Now>)> {
        self.held.iter().map(|(id, a)| match a.stage {
            Stage::Running(at) => (id, Some(at)),
            _ => (id, None),
        })
    }

    pub fn mark(&mut self, task: &str, epoch: Epoch) {
        if let Some(attempt) = self.held.get_mut(&id(task, epoch)) {
            attempt.marked = true;
        }
    }

    /// Running attempts whose start is not on record though they began at or before `mono`.
    pub fn unmarked(&mut self, mono: u64) -> Vec<(AttemptId, Now)> {
        let mut found = Vec::new();
        for (id, attempt) in &mut self.held {
            if let Stage::Running(at) = attempt.stage
                && !attempt.marked
                && at.mono <= mono
            {
                attempt.marked = true;
                found.push((id.clone(), at));
            }
        }
        found
    }
}
