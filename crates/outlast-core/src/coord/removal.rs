//! Removal of tasks that ended long ago. Their ids may be used again, and a worker that was away all
//! the time may deliver records of the previous task: so a new task of an old id continues from the
//! previous one's epoch, and attempts up to that are not its own.

use super::coordinator::Coordinator;
use super::loads::{Facts, Query, Wants};
use super::request::Response;
use crate::records::{CoordRecord, TaskRow};
use crate::{Now, TaskId};

impl Coordinator {
    /// Removes tasks that have ended, durably: the others are in memory.
    pub(super) fn remove(
        &mut self,
        now: Now,
        ids: Vec<TaskId>,
        before: i64,
        facts: &Facts,
    ) -> Response {
        let mut tasks = Vec::new();
        for id in ids {
            let Some(row) = self.look_up(facts, &id) else { continue };
            if row.state.is_terminal() {
                self.tasks.remove(self.journal.open(), id.clone(), row.epoch);
                tasks.push(id);
            }
        }
        let count = tasks.len();
        self.counters.tasks.removed += count as u64;
        self.journal.record(CoordRecord::TasksRemoved { tasks, before, at: now.wall });
        Response::Removed(count)
    }

    /// Asks for the row of a task that is neither in memory nor removed.
    pub(super) fn wants_row(&self, id: &TaskId, wants: &mut Wants<'_>) {
        if self.tasks.may_be_stored(id) {
            wants.add(Query::Task(id.clone()));
        }
    }

    /// Returns the row of an ended task that is neither in memory nor removed, with what was decided since.
    pub(super) fn look_up(&self, facts: &Facts, id: &TaskId) -> Option<TaskRow> {
        if !self.tasks.may_be_stored(id) {
            return None;
        }
        let mut row = facts.task(id)?;
        self.tasks.bring_up_to_date(&mut row);
        Some(row)
    }

    /// Answers a request about a task that is not in memory.
    pub(super) fn absent(&self, id: &TaskId, facts: &Facts) -> Response {
        self.look_up(facts, id).map_or(Response::NotFound, |row| Response::WrongState(row.state))
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
