//! Reading beside the owner: a connection of its own that sees what is committed.

use super::removal::AgedTask;
use super::{history, list, load, removal, reports, schema};
use crate::db;
use crate::types::{
    Counts, PastOutcome, StoredCheckpoint, StoredEvent, StoredTask, StoredWorker, TaskFilter,
    TaskPage,
};
use crate::{CoordStore, StoreError};
use outlast_core::coord::{Given, PastAttempt};
use outlast_core::records::{TaskRow, TaskState};
use outlast_model::{StateUpdate, TaskOutcome};
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;
use std::sync::Arc;

/// A read-only connection to a coordinator's store; it can be sent to another thread.
#[derive(Debug)]
pub struct CoordReader {
    pub(super) conn: Connection,
}

impl CoordReader {
    /// Opens a store that a [`CoordStore`] has created; its owner may be at work.
    ///
    /// # Errors
    /// [`StoreError::NotReady`] when there is none, and whatever else is wrong with the file.
    pub fn open(path: &Path) -> Result<CoordReader, StoreError> {
        Ok(CoordReader { conn: outlast_sqlite::open_shared(path, &schema::KIND, false)? })
    }

    /// A task as the core knows it, over or not.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn task_row(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        load::task_row(&self.conn, id)
    }

    /// The state of a task.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn task_state(&self, id: &str) -> Result<Option<TaskState>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT state FROM tasks WHERE id = ?1")?;
        let code: Option<i64> = query.query_row([id], |r| r.get(0)).optional()?;
        code.map(load::state).transpose()
    }

    /// A task with everything that is shown of it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn task(&self, id: &str) -> Result<Option<StoredTask>, StoreError> {
        list::task(&self.conn, id)
    }

    /// Tasks by filter, `limit` at a time; `cursor` is the `next` of the page before. Any one
    /// part of the filter finds its tasks by index.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn list(
        &self,
        filter: &TaskFilter,
        cursor: Option<u64>,
        limit: usize,
        newest_first: bool,
    ) -> Result<TaskPage, StoreError> {
        // One view of the store for all the queries that make up a page.
        let view = self.conn.unchecked_transaction()?;
        list::list(&view, filter, cursor, limit, newest_first)
    }

    /// The number of tasks of a filter in each state; it looks at each of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn count(&self, filter: &TaskFilter) -> Result<Counts, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        list::count(&view, filter)
    }

    /// The history as it was recorded of a task, in that order; empty for an unknown one.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn history(&self, id: &str) -> Result<Vec<StoredEvent>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        history::history(&view, id)
    }

    /// The task's result, when it has ended and has one.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn outcome(&self, id: &str) -> Result<Option<Arc<TaskOutcome>>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT outcome FROM tasks WHERE id = ?1")?;
        let bytes: Option<Option<Vec<u8>>> = query.query_row([id], |r| r.get(0)).optional()?;
        bytes.flatten().map(|b| load::outcome(&b)).transpose()
    }

    /// The outcomes of this task that did not count, oldest first. Those that came while the
    /// task was unknown are first.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn superseded(&self, id: &str) -> Result<Vec<PastOutcome>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        history::superseded(&view, id)
    }

    /// All outcomes of this task beside its result: superseded, of attempts that were requeued,
    /// and results cleared by a retry; oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn past_outcomes(&self, id: &str) -> Result<Vec<PastOutcome>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        history::past_outcomes(&view, id)
    }

    /// The newest outcomes that came for tasks which are not known here.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn orphans(&self, limit: usize) -> Result<Vec<PastOutcome>, StoreError> {
        history::orphans(&self.conn, limit)
    }

    /// The attempts of a task that this worker (by store id) was given, by number, with the
    /// outcomes that were recorded of each; those of no attempt have number 0.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn attempts(&self, id: &str, worker: &str) -> Result<Vec<PastAttempt>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        history::attempts(&view, id, worker)
    }

    /// The worker that an attempt of a task was assigned to.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn given(&self, id: &str, epoch: u64) -> Result<Given, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        history::given(&view, id, epoch)
    }

    /// Returns whether a checkpoint or artifact with this manifest belongs to a task that is assigned to
    /// one of these workers, by store id.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn may_read(&self, manifest: &[u8], stores: &[String]) -> Result<bool, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM checkpoints c JOIN tasks t ON t.number = c.number
                 JOIN worker_refs w ON w.ref = t.worker
                 WHERE c.manifest = ?1 AND t.state = 1 AND w.store_id = ?2)",
        )?;
        for store in stores {
            if query.query_row((manifest, store), |r| r.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether this task is assigned to one of these workers, by store id.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn is_assigned(&self, id: &str, stores: &[String]) -> Result<bool, StoreError> {
        let worker: Option<String> = self
            .conn
            .prepare_cached(
                "SELECT w.store_id FROM tasks t JOIN worker_refs w ON w.ref = t.worker
                 WHERE t.id = ?1 AND t.state = 1",
            )?
            .query_row([id], |r| r.get(0))
            .optional()?;
        Ok(worker.is_some_and(|worker| stores.contains(&worker)))
    }

    /// Returns whether there is a key of this name that is not revoked.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn key_is_valid(&self, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM keys WHERE name = ?1 AND revoked_at IS NULL)";
        Ok(self.conn.prepare_cached(sql)?.query_row([name], |r| r.get(0))?)
    }

    /// All checkpoints that were reported, also those that are not kept; by epoch and number.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn checkpoints(&self, id: &str) -> Result<Vec<StoredCheckpoint>, StoreError> {
        reports::all(&self.conn, id)
    }

    /// The newest state that the task reported.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn state(&self, id: &str) -> Result<Option<StateUpdate>, StoreError> {
        reports::state(&self.conn, id)
    }

    /// Returns whether a checkpoint refers to this manifest that is kept, or was until an hour ago.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn refers_to(&self, manifest: &[u8]) -> Result<bool, StoreError> {
        reports::refers_to(&self.conn, manifest)
    }

    /// Kept checkpoints, by (epoch, number), of tasks that succeeded or were cancelled before
    /// `before` (Unix ms); at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    #[allow(clippy::type_complexity)]
    pub fn outdated(
        &self,
        before: i64,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, Vec<(u64, u64)>)>, StoreError> {
        reports::outdated(&self.conn, before, limit)
    }

    /// The newest attempt of a removed task of this id; 0 when there was none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn former(&self, id: &str) -> Result<u64, StoreError> {
        removal::former(&self.conn, id)
    }

    /// Tasks whose number is above `after`, by number, at most `limit`: to find what is to be
    /// removed.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn aged(&self, after: u64, limit: usize) -> Result<Vec<AgedTask>, StoreError> {
        removal::aged(&self.conn, after, limit)
    }

    /// The time of about the last record (Unix ms): of the task that was submitted last, the
    /// event that was written last, and all workers. None in an empty store.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn newest_record(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT max(at) FROM (
            SELECT * FROM (SELECT max(submitted_at, coalesce(started_at, submitted_at),
                coalesce(ended_at, submitted_at)) AS at FROM tasks ORDER BY number DESC LIMIT 1)
            UNION ALL SELECT * FROM (SELECT at FROM events ORDER BY event DESC LIMIT 1)
            UNION ALL SELECT max(seen_at) FROM workers)";
        Ok(self.conn.query_row(sql, [], |r| r.get(0))?)
    }

    /// Returns whether there are outcomes of unknown tasks that were heard before this (Unix ms).
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn has_orphans(&self, before: i64) -> Result<bool, StoreError> {
        removal::has_orphans(&self.conn, before)
    }

    /// The number of tasks in each state; costs the same for any number of tasks.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT pending, assigned, succeeded, failed, cancelled, paused FROM totals",
        )?;
        let [pending, assigned, succeeded, failed, cancelled, paused]: [i64; 6] = query
            .query_row([], |r| {
                Ok([r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?])
            })?;
        Ok(Counts {
            pending: db::uint(pending)?,
            assigned: db::uint(assigned)?,
            succeeded: db::uint(succeeded)?,
            failed: db::uint(failed)?,
            cancelled: db::uint(cancelled)?,
            paused: db::uint(paused)?,
            running: 0,
        })
    }

    /// The number of tasks that have started and are not over; reads all that are assigned.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn running(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(started_at) FROM tasks INDEXED BY tasks_state WHERE state = ?1";
        let code = schema::state_code(TaskState::Assigned);
        db::uint(self.conn.prepare_cached(sql)?.query_row([code], |r| r.get(0))?)
    }

    /// The number of this owner's tasks in each state.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn counts_of(&self, owner: &str) -> Result<Counts, StoreError> {
        let count = |sql: &str, state: TaskState| -> Result<u64, StoreError> {
            let code = schema::state_code(state);
            db::uint(self.conn.prepare_cached(sql)?.query_row((owner, code), |r| r.get(0))?)
        };
        let all = "SELECT count(*) FROM tasks WHERE owner = ?1 AND state = ?2";
        let paused = "SELECT count(*) FROM tasks WHERE owner = ?1 AND state = ?2 AND paused = 1";
        let started = "SELECT count(started_at) FROM tasks WHERE owner = ?1 AND state = ?2";
        Ok(Counts {
            pending: count(all, TaskState::Pending)?,
            assigned: count(all, TaskState::Assigned)?,
            succeeded: count(all, TaskState::Succeeded)?,
            failed: count(all, TaskState::Failed)?,
            cancelled: count(all, TaskState::Cancelled)?,
            paused: count(paused, TaskState::Pending)? + count(paused, TaskState::Assigned)?,
            running: count(started, TaskState::Assigned)?,
        })
    }

    /// Returns whether this task is there and belongs to this owner.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn is_owned(&self, id: &str, owner: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND owner = ?2)";
        Ok(self.conn.prepare_cached(sql)?.query_row([id, owner], |r| r.get(0))?)
    }

    /// All workers that were not forgotten, by store id.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn workers(&self) -> Result<Vec<StoredWorker>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        load::workers(&view, None)
    }

    /// The worker with this store id, or else the one last seen with this name.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn worker(&self, store_id_or_name: &str) -> Result<Option<StoredWorker>, StoreError> {
        let view = self.conn.unchecked_transaction()?;
        Ok(load::workers(&view, Some(store_id_or_name))?.into_iter().next())
    }
}

impl CoordStore {
    /// Opens a connection for reading, to be used from another thread.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened.
    pub fn reader(&self) -> Result<CoordReader, StoreError> {
        CoordReader::open(&self.path)
    }
}
