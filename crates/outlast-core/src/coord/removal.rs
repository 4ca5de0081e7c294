//! Removal of tasks that ended long ago. Their ids may be used again, and a worker that was away all
//! the time may deliver records of the previous task: so a new task of an old id continues from the
//! previous one's epoch, and attempts up to that are not its own.

use super::{Coordinator, Lookup, Request, Response};
use crate::records::{CoordRecord, TaskRow};
use crate::{Epoch, Now, TaskId};

impl Coordinator {
    /// Only what is over, durably: the others are in memory.
    pub(super) fn remove(&mut self, now: Now, known: Vec<TaskRow>, before: i64) -> Response {
        let mut tasks = Vec::new();
        for row in known {
            let busy = self.tasks.contains_key(&row.id) || self.removed.contains_key(&row.id);
            if row.state.is_terminal() && !busy {
                self.removed.insert(row.id.clone(), row.epoch);
                self.removing.push_back((self.batch, row.id.clone()));
                tasks.push(row.id);
            }
        }
        let count = tasks.len();
        self.counters.removed += count as u64;
        self.records.push(CoordRecord::TasksRemoved { tasks, before, at: now.wall });
        Response::Removed(count)
    }

    /// Brings the rows that the driver read up to what was decided since: removals and revisions.
    pub(super) fn without_removed(&self, mut request: Request) -> Request {
        match &mut request {
            Request::Submit(tasks) => {
                for s in tasks {
                    if let Some(epoch) = self.removed.get(&s.id) {
                        (s.known, s.former) = (None, *epoch);
                    }
                    s.known.iter_mut().for_each(|row| self.revisions.apply(row));
                }
            }
            Request::Cancel { task, known }
            | Request::Retry { task, known }
            | Request::Pause { task, known, .. }
            | Request::Checkpoint { task, known }
            | Request::Move { task, known, .. } => {
                if self.removed.contains_key(task) {
                    *known = None;
                }
                known.iter_mut().for_each(|row| self.revisions.apply(row));
            }
            Request::Forget(_)
            | Request::Unbind(_)
            | Request::Prune { .. }
            | Request::Remove { .. }
            | Request::Recovery(_)
            | Request::Act { .. }
            | Request::Drain { .. } => {}
        }
        request
    }

    /// Looks up an ended task that is not removed.
    pub(super) fn look_up(&self, look: &dyn Lookup, id: &TaskId) -> Option<TaskRow> {
        if self.removed.contains_key(id) {
            return None;
        }
        let mut row = look.task(id)?;
        self.revisions.apply(&mut row);
        Some(row)
    }

    pub(super) fn on_removal_persisted(&mut self) {
        while self.removing.front().is_some_and(|(b, _)| *b <= self.persisted) {
            let (_, id) = self.removing.pop_front().expect("just looked");
            self.removed.remove(&id);
        }
    }
}

/// Returns true if an id may be reused. A UUID is not, so its removal need not be remembered.
pub fn may_come_again(id: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = id.split('-');
    let like_uuid = [8, 4, 4, 4, 12]
        .into_iter()
        .all(|len| parts.next().is_some_and(|part| part.len() == len && hex(part)));
    !(like_uuid && parts.next().is_none())
}

/// Returns true if an attempt belongs to this task, not to a previous one with its id.
pub(super) fn is_own(epoch: Epoch, after: Epoch, newest: Epoch) -> bool {
    after < epoch && epoch <= newest
}

#[cfg(test)]
mod tests {
    use super::may_come_again;

    #[test]
    fn uuids_do_not_come_again() {
        assert!(!may_come_again("0199c2a5-7d32-7c3e-8f52-4b1d1c9d2a10"));
        for id in ["t1", "", "0199c2a5-7d32-7c3e-8f52", "0199c2a5-7d32-7c3e-8f52-4b1d1c9d2a1x"] {
            assert!(may_come_again(id), "{id}");
        }
    }
}
