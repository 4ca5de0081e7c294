//! Tasks that ended and were not exported yet. It is fed by the writer, after each commit, and
//! never waits; what does not fit is found in the store again.

use outlast_core::TaskId;
use outlast_core::records::CoordRecord;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Tasks remembered by name; of more only when they ended.
const NAMES: usize = 65_536;

/// From when to when, in Unix milliseconds, both included.
pub(super) type Range = (i64, i64);

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    ended: VecDeque<(TaskId, i64)>,
    /// The range of time in which those ended that found no room. While there is one, all that follow
    /// join it, so that a time is either here or there.
    missed: Option<Range>,
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Takes a durable record.
    pub fn see(&self, record: &CoordRecord) {
        let (task, at) = match record {
            CoordRecord::Ended { task, at, .. } => (task, *at),
            // It may belong to a task whose trace was sent: that gains an event.
            CoordRecord::Superseded { task, at, .. } => (task, *at),
            _ => return,
        };
        let mut waiting = self.waiting();
        match waiting.missed {
            Some((from, to)) => waiting.missed = Some((from.min(at), to.max(at))),
            None if waiting.ended.len() >= NAMES => waiting.missed = Some((at, at)),
            None => waiting.ended.push_back((task.clone(), at)),
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Takes the oldest tasks, at most so many; with the time up to which everything is exported with
    /// them.
    pub fn take(&self, limit: usize) -> Vec<(TaskId, i64)> {
        let mut waiting = self.waiting();
        let count = waiting.ended.len().min(limit);
        let taken = waiting.ended.drain(..count).collect();
        // What a burst took is given back.
        if waiting.ended.is_empty() && waiting.ended.capacity() > 1024 {
            waiting.ended.shrink_to(1024);
        }
        taken
    }

    /// Returns the range of time in which those ended that found no room, once there is room again.
    pub fn missed(&self) -> Option<Range> {
        let mut waiting = self.waiting();
        if waiting.ended.is_empty() { waiting.missed.take() } else { None }
    }

    pub fn len(&self) -> usize {
        self.waiting().ended.len()
    }

    /// Waits until there may be tasks to export.
    pub async fn came(&self) {
        self.came.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::records::TaskState;

    fn ended(n: usize) -> CoordRecord {
        CoordRecord::Ended {
            task: n.to_string().as_str().into(),
            epoch: 1,
            state: TaskState::Succeeded,
            reason: String::new(),
            cause: Default::default(),
            outcome: None,
            worker: None,
            at: n as i64,
        }
    }

    #[test]
    fn what_finds_no_room_is_remembered_by_its_time() {
        let backlog = Backlog::default();
        (0..NAMES + 5).for_each(|n| backlog.see(&ended(n)));
        assert_eq!(backlog.len(), NAMES);
        assert_eq!(backlog.missed(), None);
        assert_eq!(backlog.take(10).len(), 10);
        // There is room, but not in their order.
        backlog.see(&ended(NAMES + 5));
        assert_eq!(backlog.take(usize::MAX).last().unwrap().1, NAMES as i64 - 1);
        assert_eq!(backlog.missed(), Some((NAMES as i64, NAMES as i64 + 5)));
        backlog.see(&ended(NAMES + 6));
        assert_eq!(backlog.take(10), [((NAMES + 6).to_string().as_str().into(), NAMES as i64 + 6)]);
        assert_eq!(backlog.missed(), None);
    }
}
