//! The tasks in memory: unfinished ones, and of those that ended, or are removed, what the store does not have yet.
//! Knows no worker and decides nothing.

use super::revisions::{Revision, Revisions};
use super::task::Task;
use crate::invariants::{Checked, must};
use crate::journal::Journal;
use crate::records::{TaskRow, TaskState};
use crate::{AttemptId, Epoch, Millis, TaskId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// The highest number given to a task.
    pub last_number: u64,
    /// Never iterated where the order matters: it is not the same in every run.
    known: HashMap<TaskId, Task>,
    /// Ended tasks, each with the batch of its end; they are forgotten once that is settled.
    ended: VecDeque<(u64, TaskId)>,
    /// Tasks whose removal is not settled, with their newest attempt; and the batch of each.
    removed: HashMap<TaskId, Epoch>,
    removing: VecDeque<(u64, TaskId)>,
    revisions: Revisions,
    /// Times from which on moved tasks may go to any worker.
    pub placed: BTreeSet<(Millis, TaskId)>,
    /// Tasks that wait for a checkpoint, and since when.
    pub awaiting: BTreeMap<TaskId, Millis>,
}

impl Tasks {
    /// No tasks, with room for so many.
    pub fn with_capacity(tasks: usize, last_number: u64) -> Tasks {
        Tasks { last_number, known: HashMap::with_capacity(tasks), ..Tasks::default() }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }
    /// Returns true if so many more tasks fit below a limit of unfinished ones. Ended ones stay while a load is
    /// open: they have room of their own.
    pub fn has_room(&self, more: usize, limit: usize) -> bool {
        let unfinished = self.known.len().saturating_sub(self.ended.len());
        more == 0 || (unfinished + more <= limit && self.ended.len() <= limit)
    }
    pub fn contains_key(&self, id: &TaskId) -> bool {
        self.known.contains_key(id)
    }
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.known.get(id)
    }
    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.known.get_mut(id)
    }
    /// All tasks, in no order.
    // Callers sort, or do not care.
    #[allow(clippy::disallowed_methods)]
    pub fn unordered(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.known.iter()
    }
    /// Puts a task into memory, as the store has it.
    pub fn remember(&mut self, row: TaskRow) -> &mut Task {
        let (id, task) = Task::of(row);
        self.known.entry(id).insert_entry(task).into_mut()
    }

    /// Forgets a task that was only looked up: its end is in no batch of this process.
    pub fn forget_looked_up(&mut self, id: &TaskId) {
        if self.known.get(id).is_some_and(|t| t.ended_with() == Some(0)) {
            self.known.remove(id);
        }
    }

    /// Notes that a task ended with this batch.
    pub fn ends_with(&mut self, batch: u64, id: TaskId) {
        self.ended.push_back((batch, id));
    }

    /// Notes that an ended task, whose newest attempt is this, is removed with this batch.
    pub fn remove(&mut self, batch: u64, id: TaskId, epoch: Epoch) {
        self.removed.insert(id.clone(), epoch);
        self.removing.push_back((batch, id));
    }

    /// Returns the newest attempt of a removed task that the store may still show.
    pub fn removed(&self, id: &TaskId) -> Option<Epoch> {
        self.removed.get(id).copied()
    }
    /// Returns true if the store alone may know a task: it is neither in memory nor removed.
    pub fn may_be_stored(&self, id: &TaskId) -> bool {
        !self.known.contains_key(id) && !self.removed.contains_key(id)
    }
    /// Returns true if the attempt is of a removed task that the store may still show. A new task of its id counts
    /// on from there.
    pub fn is_removed(&self, id: &AttemptId) -> bool {
        self.removed(&id.task).is_some_and(|newest| id.epoch <= newest)
    }

    /// Notes a change that is decided with this batch, unless the task stays in memory.
    pub fn revise(&mut self, batch: u64, id: &TaskId, revision: Revision) {
        let state = self.known.get(id).map(|t| t.state());
        if state.is_none_or(TaskState::is_terminal) {
            self.revisions.add(batch, id.clone(), revision);
        }
    }

    /// Brings the row of a task that is not in memory up to what was decided since it was read.
    pub fn bring_up_to_date(&self, row: &mut TaskRow) {
        self.revisions.apply(row);
    }

    /// Forgets what every fact from the store includes.
    pub fn forget_settled(&mut self, settled: u64) {
        while self.removing.front().is_some_and(|(b, _)| *b <= settled) {
            let (_, id) = self.removing.pop_front().expect("just looked");
            self.removed.remove(&id);
        }
        self.revisions.persisted(settled);
        while self.ended.front().is_some_and(|(b, _)| *b <= settled) {
            let (number, id) = self.ended.pop_front().expect("just looked");
            // The task may have been retried meanwhile, or have ended again.
            if self.known.get(&id).is_some_and(|t| t.ended_with() == Some(number)) {
                self.known.remove(&id);
            }
        }
    }

    /// Checks one task against what is kept beside it.
    pub fn check_task(&self, id: &TaskId, task: &Task) -> Checked {
        let what = |what: &str| format!("{id}.{} {:?} {what}", task.epoch, task.state());
        if let Some(batch) = task.ended_with() {
            let leaves = self.ended.iter().any(|(b, ended)| *b == batch && ended == id);
            return must(leaves, || what("never leaves memory"));
        }
        let ends = task.asked.awaited.is_none() || self.awaiting.contains_key(id);
        must(ends, || what("awaits a checkpoint without end"))?;
        let ends = task.asked.place.is_none() || self.placed.iter().any(|(_, t)| t == id);
        must(ends, || what("is to go somewhere without end"))
    }

    /// Checks that what waits for batches above `settled` is in order.
    pub fn check_waits<R, O>(&self, journal: &Journal<R, O>, settled: u64) -> Checked {
        let ended = self.ended.iter().map(|(b, _)| *b);
        journal.check_waits("ended tasks", settled, ended)?;
        let removing = self.removing.iter().map(|(b, _)| *b);
        journal.check_waits("removals", settled, removing)?;
        journal.check_waits("revisions", settled, self.revisions.batches().into_iter())?;
        let removing: BTreeSet<&TaskId> = self.removing.iter().map(|(_, id)| id).collect();
        let same = removing.len() == self.removed.len()
            && removing.iter().all(|id| self.removed.contains_key(*id));
        must(same, || format!("{removing:?} are being removed, not {:?}", self.removed))
    }

    /// Returns what is left in memory, by name.
    pub fn leftovers(&self) -> [(&'static str, usize); 5] {
        [
            ("tasks", self.known.len()),
            ("ended tasks", self.ended.len()),
            ("revisions", self.revisions.batches().len()),
            ("removals", self.removed.len() + self.removing.len()),
            ("awaited checkpoints", self.awaiting.len()),
        ]
    }
}

impl std::ops::Index<&TaskId> for Tasks {
    type Output = Task;
    fn index(&self, id: &TaskId) -> &Task {
        &self.known[id]
    }
}

#[cfg(test)]
impl std::ops::Index<&str> for Tasks {
    type Output = Task;
    fn index(&self, id: &str) -> &Task {
        &self.known[id]
    }
}
