//! Copies of a coordinator's store: how one is made while the owner works, what it must hold,
//! and how a store goes on that was restored from one.

use super::transaction::Transaction;
use super::{CoordReader, CoordStore, load, schema};
use crate::StoreError;
use crate::db::{int, uint};
use outlast_core::ids::TaskId;
use outlast_core::records::{CoordRecord, TaskState};
use rusqlite::{OptionalExtension, TransactionBehavior, params};
use std::path::Path;
use std::sync::Arc;

/// Tasks that are changed between two looks at the table.
const PART: usize = 1000;

impl CoordReader {
    /// Writes a consistent copy of the store to a file that does not exist yet, and syncs it.
    /// The owner goes on meanwhile; its log grows until this is done.
    ///
    /// # Errors
    /// [`StoreError`]; then the file is of no use.
    pub fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        Ok(outlast_sqlite::copy(&self.conn, to)?)
    }

    /// Reads all of the store and says what is wrong with it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or that it cannot be read.
    pub fn check(&self) -> Result<(), StoreError> {
        let sql = "PRAGMA integrity_check(1)";
        let verdict: String = self.conn.query_row(sql, [], |r| r.get(0))?;
        if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged { detail: verdict }) }
    }

    /// UUID of the coordinator.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn coordinator_id(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = 'coordinator_id'";
        Ok(self.conn.query_row(sql, [], |r| r.get(0)).optional()?)
    }

    /// The manifests that kept checkpoints refer to, each once.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn kept_manifests(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "SELECT DISTINCT manifest FROM checkpoints WHERE kept = 1";
        let mut query = self.conn.prepare(sql)?;
        Ok(query.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?)
    }
}

impl CoordStore {
    /// Makes a store safe that was restored from a copy: workers may know attempts that it does
    /// not. The epochs of all tasks that are not over jump by `by`, so that no attempt of then is
    /// current; an assigned task stays with its worker, which is given the new attempt. What
    /// workers say of attempts in between is believed, for nobody knows whom they were given to.
    /// `note` goes to each task's history. Returns how many tasks there were.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn fence(&mut self, by: u64, note: &str, at: i64) -> Result<u64, StoreError> {
        self.refs.clear();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writing = Transaction::new(&tx, &mut self.refs);
        let (mut last, mut count) = (-1, 0);
        loop {
            let part = unfinished(&tx, last)?;
            let Some((number, ..)) = part.last() else { break };
            last = *number;
            for (number, task, state, epoch, worker) in part {
                let epoch = epoch + by;
                match (state, worker) {
                    (TaskState::Assigned, Some(worker)) => {
                        let task = task.clone();
                        writing.apply(&CoordRecord::Assigned { task, epoch, worker, at })?;
                    }
                    _ => writing.run(
                        "UPDATE tasks SET epoch = ?2 WHERE number = ?1",
                        params![number, int(epoch)?],
                    )?,
                }
                let sql = "UPDATE tasks SET gap_up_to = ?3,
                         gap_above = CASE WHEN gap_up_to = 0 THEN ?2 ELSE gap_above END
                     WHERE number = ?1";
                writing.run(sql, params![number, int(epoch - by)?, int(epoch)?])?;
                let note = note.to_owned();
                writing.apply(&CoordRecord::Noted { task, epoch, note, at })?;
                count += 1;
            }
        }
        writing.finish()?;
        tx.commit()?;
        Ok(count)
    }
}

type Row = (i64, TaskId, TaskState, u64, Option<Arc<str>>);

/// Tasks that have not ended, from behind this number on.
fn unfinished(conn: &rusqlite::Connection, last: i64) -> Result<Vec<Row>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT t.number, t.id, t.state, t.epoch, w.store_id
         FROM tasks t LEFT JOIN worker_refs w ON w.ref = t.worker
         WHERE t.number > ?1 AND t.state IN (?2, ?3) ORDER BY t.number LIMIT ?4",
    )?;
    let (pending, assigned) =
        (schema::state_code(TaskState::Pending), schema::state_code(TaskState::Assigned));
    let mut rows = query.query(params![last, pending, assigned, PART as i64])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        let (state, epoch) = (load::state(r.get(2)?)?, uint(r.get(3)?)?);
        found.push((r.get(0)?, r.get(1)?, state, epoch, r.get(4)?));
    }
    Ok(found)
}
