//! Consistency of the attempts that a worker holds: slots, the queue, and what is handed over ahead.

use super::{Attempt, Attempts};
use crate::AttemptId;
use crate::invariants::{Checked, must};
use crate::records::AttemptRow;
use std::collections::BTreeSet;

impl Attempts {
    /// Returns the attempts that are reserved and not handed over.
    pub fn reserved(&self) -> impl Iterator<Item = &AttemptId> {
        self.held.iter().filter(|(_, a)| a.is_reserved()).map(|(id, _)| id)
    }

    /// Returns whether the next attempt that waits has room.
    pub fn could_start(&self) -> bool {
        let next = self.queue.values().next().and_then(|id| self.held.get(id));
        let fits = |a: &Attempt| self.used == 0 || self.used + a.spec.slots <= self.slots;
        self.staged.is_empty() && next.is_some_and(fits)
    }

    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        self.check_slots()?;
        let queued: BTreeSet<_> = (self.held.iter())
            .filter(|(_, a)| a.is_queued())
            .map(|(id, a)| (a.order(), id.clone()))
            .collect();
        let queue: BTreeSet<_> =
            self.queue.iter().map(|(order, id)| (*order, id.clone())).collect();
        must(queued == queue, || format!("{queued:?} wait, and {queue:?} are queued"))?;
        let ahead: BTreeSet<_> =
            self.held.iter().filter(|(_, a)| a.is_ahead()).map(|(id, _)| id).collect();
        let staged: BTreeSet<_> = self.staged.iter().collect();
        must(ahead == staged && staged.len() == self.staged.len(), || {
            format!("{ahead:?} are ahead, and {:?} are staged", self.staged)
        })?;
        must(self.to_pause.is_empty(), || format!("nobody pauses {:?}", self.to_pause))?;
        self.held.iter().try_for_each(|(id, a)| check(id, a))
    }

    fn check_slots(&self) -> Checked {
        let taken = self.held.values().filter(|a| a.has_slots());
        let (count, used) = taken.fold((0, 0), |(n, sum), a| (n + 1, sum + a.spec.slots));
        must(used == self.used, || format!("attempts take {used} slots, not {}", self.used))?;
        // An attempt that outlived a former process runs on, however many slots there are now.
        let inherited = self.held.values().any(|a| a.batch() == 0);
        must(used <= self.slots || count == 1 || inherited, || {
            format!("{used} of {} slots are taken", self.slots)
        })
    }

    /// Rows that a store has: the newest attempt of each task. Of a start they say only that there was one.
    pub fn rows(&self) -> Vec<AttemptRow> {
        let newest = |id: &AttemptId| self.newest(&id.task) == Some(id.epoch);
        let row = |(id, a): (&AttemptId, &Attempt)| AttemptRow {
            task: id.task.clone(),
            epoch: id.epoch,
            spec: a.spec.clone(),
            started_at: a.is_recorded().then_some(1),
            survived: 0,
            made: a.made,
            paused: a.paused,
            after: a.after,
            checkpoint: a.checkpoint.clone(),
            state: a.state.clone(),
        };
        self.held.iter().filter(|(id, _)| newest(id)).map(row).collect()
    }
}

/// Checks one attempt by itself.
fn check(id: &AttemptId, a: &Attempt) -> Checked {
    let name = || format!("{}.{}", id.task, id.epoch);
    must(!a.is_ahead() || a.may_be_ahead(), || format!("{} is ahead, and must not be", name()))?;
    // A start that a former process wrote may be on record in another way.
    let once = a.runs_once() && a.has_slots() && a.batch() != 0;
    must(!once || a.is_recorded(), || {
        format!("{} must not run twice, and its start is not on record", name())
    })?;
    must(a.pause_at().is_none() || a.paused, || format!("{} is paused later, and is not", name()))
}
