//! The records of recovery: decisions, failures to look back at, quarantines, and knobs that
//! worked. Kept as JSON of the core's types.

use super::transaction::Transaction;
use crate::StoreError;
use crate::db::int;
use crate::types::EventKind;
use outlast_core::recovery::{Decision, Failure, Learned, Quarantine, TaskRecovery};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Reads JSON that was written here.
pub(super) fn read<T: DeserializeOwned>(json: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|e| StoreError::damaged(what, e))
}

fn write(item: &impl Serialize) -> String {
    serde_json::to_string(item).expect("the core's types have only string keys")
}

impl Transaction<'_> {
    pub(super) fn on_recovered(
        &mut self,
        task: &str,
        epoch: i64,
        decision: &Decision,
        state: &TaskRecovery,
        at: i64,
    ) -> Result<(), StoreError> {
        let now = self.known(task)?;
        self.record_event(&now, EventKind::Recovery, epoch, None, at, &decision.text)?;
        self.run(
            "UPDATE events SET decision = ?1 WHERE event = last_insert_rowid()",
            params![write(decision)],
        )?;
        let sql = "UPDATE tasks SET recovery = ?2 WHERE number = ?1";
        self.run(sql, params![now.number, write(state)])
    }

    pub(super) fn on_failure(&mut self, failure: &Failure, forget: u64) -> Result<(), StoreError> {
        self.run("DELETE FROM failures WHERE number <= ?1", params![int(forget)?])?;
        self.run(
            "INSERT OR REPLACE INTO failures VALUES (?1, ?2, ?3, ?4)",
            params![int(failure.number)?, failure.worker, failure.task_type, write(failure)],
        )
    }

    pub(super) fn on_failures_forgotten(
        &mut self,
        worker: Option<&str>,
        task_type: Option<&str>,
    ) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM failures
             WHERE (?1 IS NULL OR worker = ?1) AND (?2 IS NULL OR task_type = ?2)",
            params![worker, task_type],
        )
    }

    pub(super) fn on_quarantined(
        &mut self,
        worker: &str,
        quarantine: Option<&Quarantine>,
    ) -> Result<(), StoreError> {
        match quarantine {
            Some(q) => {
                let sql = "INSERT OR REPLACE INTO quarantines VALUES (?1, ?2)";
                self.run(sql, params![worker, write(q)])
            }
            None => self.run("DELETE FROM quarantines WHERE worker = ?1", params![worker]),
        }
    }

    pub(super) fn on_learned(&mut self, l: &Learned) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO learned VALUES (?1, ?2, ?3)";
        self.run(sql, params![l.task_type, l.hardware, write(l)])
    }

    pub(super) fn on_unlearned(
        &mut self,
        task_type: Option<&str>,
        hardware: Option<&str>,
    ) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM learned
             WHERE (?1 IS NULL OR task_type = ?1) AND (?2 IS NULL OR hardware = ?2)",
            params![task_type, hardware],
        )
    }
}

fn items<T: DeserializeOwned>(
    conn: &Connection,
    sql: &str,
    what: &str,
) -> Result<Vec<T>, StoreError> {
    let mut query = conn.prepare(sql)?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        found.push(read(r.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?, what)?);
    }
    Ok(found)
}

/// The remembered failures, oldest first.
pub(super) fn failures(conn: &Connection) -> Result<Vec<Failure>, StoreError> {
    items(conn, "SELECT item FROM failures ORDER BY number", "a failure")
}

pub(super) fn learned(conn: &Connection) -> Result<Vec<Learned>, StoreError> {
    items(conn, "SELECT item FROM learned ORDER BY task_type, hardware", "knobs that worked")
}

/// The quarantines, by store id.
pub(super) fn quarantines(conn: &Connection) -> Result<Vec<(Arc<str>, Quarantine)>, StoreError> {
    let mut query = conn.prepare("SELECT worker, item FROM quarantines ORDER BY worker")?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        let json: String = r.get(1)?;
        found.push((r.get(0)?, read(&json, "a quarantine")?));
    }
    Ok(found)
}
