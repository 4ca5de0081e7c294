//! Tasks that are removed, what stays of them, and which are to go.

use super::load::{spec, state};
use super::transaction::Transaction;
use crate::StoreError;
use crate::db::uint;
use outlast_core::coord::may_come_again;
use outlast_core::ids::TaskId;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Time for which the newest attempt of a removed task is remembered, in milliseconds: a year. Whoever
/// stays away longer and then delivers unacknowledged results may meet another task of the same id.
const REMEMBERED: i64 = 365 * 24 * 3_600_000;

/// A task as the one sees it who looks for what is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedTask {
    /// The task's id.
    pub id: Arc<str>,
    /// The number in order of submission.
    pub number: u64,
    /// Time at which it was submitted (Unix ms).
    pub submitted_at: i64,
    /// Time at which it ended (Unix ms), if it has.
    pub ended_at: Option<i64>,
}

impl Transaction<'_> {
    pub(super) fn on_removed(
        &mut self,
        tasks: &[TaskId],
        before: i64,
        at: i64,
    ) -> Result<(), StoreError> {
        for id in tasks {
            self.remove_task(id, at)?;
        }
        self.run("DELETE FROM orphans WHERE at < ?1", params![before])?;
        self.run("DELETE FROM removed WHERE at < ?1", params![at.saturating_sub(REMEMBERED)])
    }

    fn remove_task(&mut self, id: &str, at: i64) -> Result<(), StoreError> {
        let Some(now) = self.find(id)? else { return Ok(()) };
        if !state(now.state)?.is_terminal() {
            return Err(StoreError::Contradiction(format!("{id} cannot be removed: it goes on")));
        }
        let labels = self.spec_of(now.number)?.labels;
        for (key, value) in &labels {
            self.run(
                "DELETE FROM labels WHERE key = ?1 AND value = ?2 AND number = ?3",
                params![key, value, now.number],
            )?;
        }
        for table in ["events", "checkpoints", "states", "tasks"] {
            let sql = format!("DELETE FROM {table} WHERE number = ?1");
            self.run(&sql, params![now.number])?;
        }
        if may_come_again(id) {
            let sql = "INSERT OR REPLACE INTO removed VALUES (?1, ?2, ?3)";
            self.run(sql, params![id, now.epoch, at])?;
        }
        self.moved[now.state as usize] -= 1;
        Ok(())
    }

    fn spec_of(&self, number: i64) -> Result<outlast_model::TaskSpec, StoreError> {
        let mut query = self.tx.prepare_cached("SELECT spec FROM tasks WHERE number = ?1")?;
        let json: Vec<u8> =
            query.query_row([number], |r| Ok(r.get_ref(0)?.as_blob().map(<[u8]>::to_vec)?))?;
        Ok(Arc::unwrap_or_clone(spec(&json)?))
    }
}

/// The newest attempt of a removed task of this id; 0 when there was none.
pub(super) fn former(conn: &Connection, id: &str) -> Result<u64, StoreError> {
    let mut query = conn.prepare_cached("SELECT epoch FROM removed WHERE id = ?1")?;
    query.query_row([id], |r| r.get(0)).optional()?.map_or(Ok(0), uint)
}

/// Tasks by number, after this one.
pub(super) fn aged(
    conn: &Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<AgedTask>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT id, number, submitted_at, ended_at, state FROM tasks WHERE number > ?1
         ORDER BY number LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = query.query(params![crate::db::int(after)?, limit])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        let ended: Option<i64> = r.get(3)?;
        found.push(AgedTask {
            id: r.get(0)?,
            number: uint(r.get(1)?)?,
            submitted_at: r.get(2)?,
            ended_at: ended.filter(|_| state(r.get_unwrap(4)).is_ok_and(|s| s.is_terminal())),
        });
    }
    Ok(found)
}

/// Returns whether there are outcomes of unknown tasks that were heard before this.
pub(super) fn has_orphans(conn: &Connection, before: i64) -> Result<bool, StoreError> {
    // Nearly always there are none, and otherwise few.
    let sql = "SELECT EXISTS (SELECT 1 FROM orphans WHERE at < ?1)";
    Ok(conn.prepare_cached(sql)?.query_row([before], |r| r.get(0))?)
}
