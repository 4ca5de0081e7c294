//! The transaction in which records become rows: its statements, the tasks and workers that it finds, and
//! the sums that it writes at its end.

use super::current::Current;
use super::schema::{state_code, state_of};
use crate::StoreError;
use outlast_core::records::TaskState;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A transaction of the coordinator's store. What can be summed up is written once, at its end.
pub(super) struct Transaction<'a> {
    pub(super) tx: &'a Connection,
    refs: &'a mut HashMap<Arc<str>, i64>,
    /// Change of the number of tasks per state code.
    pub(super) moved: [i64; 5],
    /// Change of the number of unfinished tasks that are paused.
    pub(super) paused: i64,
    pub(super) last_number: i64,
    pub(super) cursors: BTreeMap<(i64, outlast_model::Lane), i64>,
}

impl<'a> Transaction<'a> {
    /// A transaction in which nothing was applied.
    pub(super) fn new(tx: &'a Connection, refs: &'a mut HashMap<Arc<str>, i64>) -> Self {
        let (moved, cursors) = ([0; 5], BTreeMap::new());
        Transaction { tx, refs, moved, paused: 0, last_number: 0, cursors }
    }

    /// Writes the sums.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        for ((worker, lane), seq) in &self.cursors {
            self.run(
                "INSERT INTO cursors VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
                params![worker, lane.number(), seq],
            )?;
        }
        if self.moved == [0; 5] && self.paused == 0 && self.last_number == 0 {
            return Ok(());
        }
        let [pending, assigned, succeeded, failed, cancelled] = self.moved;
        self.run(
            "UPDATE totals SET pending = pending + ?1, assigned = assigned + ?2,
                 succeeded = succeeded + ?3, failed = failed + ?4, cancelled = cancelled + ?5,
                 last_number = max(last_number, ?6), paused = paused + ?7",
            params![pending, assigned, succeeded, failed, cancelled, self.last_number, self.paused],
        )
    }

    /// Counts a task that goes over to another state.
    pub(super) fn count(&mut self, from: &Current, to: TaskState) {
        self.moved[from.state as usize] -= 1;
        self.moved[state_code(to) as usize] += 1;
        if from.paused {
            self.paused += i64::from(!to.is_terminal()) - i64::from(from.goes_on());
        }
    }

    /// The row of a task that must be there.
    pub(super) fn known(&self, task: &str) -> Result<Current, StoreError> {
        self.find(task)?
            .ok_or_else(|| StoreError::Contradiction(format!("there is no task {task}")))
    }

    /// The row of a task.
    pub(super) fn find(&self, task: &str) -> Result<Option<Current>, StoreError> {
        let mut query = self.tx.prepare_cached(
            "SELECT number, state, epoch, worker, assigned_at, started_at, ended_at, ended_epoch,
                 ended_worker, round, paused FROM tasks WHERE id = ?1",
        )?;
        let found = query
            .query_row([task], |r| {
                Ok(Current {
                    number: r.get(0)?,
                    state: r.get(1)?,
                    epoch: r.get(2)?,
                    worker: r.get(3)?,
                    assigned_at: r.get(4)?,
                    started_at: r.get(5)?,
                    ended_at: r.get(6)?,
                    ended_epoch: r.get(7)?,
                    ended_worker: r.get(8)?,
                    round: r.get(9)?,
                    paused: r.get(10)?,
                })
            })
            .optional()?;
        match found {
            Some(now) if state_of(now.state).is_none() => {
                Err(StoreError::damaged("unknown task state", now.state))
            }
            found => Ok(found),
        }
    }

    /// The number of a worker, which gets one at first.
    pub(super) fn worker_ref(&mut self, store_id: &Arc<str>) -> Result<i64, StoreError> {
        if let Some(known) = self.refs.get(store_id) {
            return Ok(*known);
        }
        let insert = "INSERT OR IGNORE INTO worker_refs (store_id) VALUES (?1)";
        self.run(insert, params![store_id])?;
        let number = self
            .tx
            .prepare_cached("SELECT ref FROM worker_refs WHERE store_id = ?1")?
            .query_row([store_id], |r| r.get(0))?;
        self.refs.insert(store_id.clone(), number);
        Ok(number)
    }

    /// Executes a statement.
    pub(super) fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.tx.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}
