//! The summary of a task that is shown beside its row.

use super::CoordReader;
use crate::StoreError;
use crate::db::{int, uint};
use outlast_model::{Cause, StateUpdate};
use outlast_wire::Kept;
use rusqlite::params_from_iter;
use std::collections::HashMap;

/// Tasks asked for in one statement.
const PART: usize = 500;

/// Details of a task that are shown beside its row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TaskExtra {
    /// The task is paused.
    pub paused: bool,
    /// Cause of its end; of a task that has ended.
    pub cause: Cause,
    /// Progress from 0 to 1, as the task reported it last.
    pub progress: Option<f64>,
}

impl CoordReader {
    /// Details of these tasks that are shown beside their rows, by number.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn extras(&self, numbers: &[u64]) -> Result<HashMap<u64, TaskExtra>, StoreError> {
        let mut found = HashMap::with_capacity(numbers.len());
        for part in numbers.chunks(PART) {
            let marks = vec!["?"; part.len()].join(",");
            let mut query = self.conn.prepare_cached(&format!(
                "SELECT t.number, t.paused, CASE WHEN t.state IN (2, 3, 4) THEN t.cause ELSE 0 END,
                     s.item FROM tasks t LEFT JOIN states s ON s.number = t.number
                 WHERE t.number IN ({marks})"
            ))?;
            let numbers = part.iter().map(|n| int(*n)).collect::<Result<Vec<_>, _>>()?;
            let mut rows = query.query(params_from_iter(numbers))?;
            while let Some(r) = rows.next()? {
                let item = r.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
                let state = item.map(StateUpdate::from_bytes).transpose();
                let state = state.map_err(|e| StoreError::damaged("a state", e))?;
                let progress = state.and_then(|s| s.progress);
                let extra = TaskExtra { paused: r.get(1)?, cause: Cause::of(r.get(2)?), progress };
                found.insert(uint(r.get(0)?)?, extra);
            }
        }
        Ok(found)
    }
}
