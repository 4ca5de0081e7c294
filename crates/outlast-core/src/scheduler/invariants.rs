//! Consistency of the queue: its indexes, the room of its classes, and that nothing waits that has room.

use super::{Scheduler, WorkerKey};
use crate::TaskId;
use crate::invariants::{Checked, must};
use std::collections::BTreeSet;

impl Scheduler {
    /// Returns whether this task waits.
    pub(crate) fn is_waiting(&self, task: &TaskId) -> bool {
        self.waiting.contains_key(task)
    }

    /// Returns the load and the limit of a worker that may be given tasks.
    pub(crate) fn load_of(&self, key: WorkerKey) -> Option<(u64, u64)> {
        self.workers.get(&key).map(|w| (w.used, w.limit))
    }

    /// Returns the workers that may be given tasks.
    pub(crate) fn offered(&self) -> impl Iterator<Item = WorkerKey> {
        self.workers.keys().copied()
    }

    /// Returns the first contradiction.
    pub(crate) fn invariants(&self) -> Checked {
        let mut queued = 0;
        for (at, (demand, class)) in self.classes.iter().enumerate() {
            let listed = class.waiting.iter().flat_map(|(priority, queues)| {
                queues.iter().flat_map(move |(queue, tasks)| {
                    tasks.iter().map(move |(number, task)| (priority.0, queue, *number, task))
                })
            });
            for (priority, queue, number, task) in listed {
                queued += 1;
                let place = self.waiting.get(task);
                let same = place
                    .is_some_and(|(c, p, q, n)| (*c, *p, q, *n) == (at, priority, queue, number));
                must(same, || format!("{task} waits at {number}, and the index says {place:?}"))?;
            }
            let empty = class
                .waiting
                .values()
                .any(|queues| queues.is_empty() || queues.values().any(|tasks| tasks.is_empty()));
            must(!empty, || format!("class {at} keeps a queue that is empty"))?;
            let fits = |w: &super::Member| w.satisfies(demand) && w.used < w.limit;
            let room: BTreeSet<_> = (self.workers.iter())
                .filter(|(_, w)| fits(w))
                .map(|(key, w)| (w.order(), *key))
                .collect();
            must(room == class.room, || {
                format!("class {at}: {room:?} have room, not {:?}", class.room)
            })?;
            let waits = !class.waiting.is_empty() && !room.is_empty();
            must(!waits, || format!("class {at}: tasks wait though {room:?} have room"))?;
            must(class.head.is_none(), || {
                format!("class {at} has a head, and nothing to give out")
            })?;
        }
        must(queued == self.waiting.len(), || {
            format!("{queued} tasks wait, the index has {}", self.waiting.len())
        })?;
        must(self.heads.is_empty(), || format!("heads without tasks: {:?}", self.heads))
    }
}
