//! From rows to the core's types.

use super::schema::state_of;
use super::{recovery, reports};
use crate::StoreError;
use crate::db::uint;
use crate::types::StoredWorker;
use outlast_core::records::{
    Asked, Assigned, Awaited, CoordSnapshot, Losses, Reported, TaskRow, TaskState, WorkerRow,
};
use outlast_model::TaskSpec;
use outlast_model::{Cause, Lane, LinkCause, TaskOutcome};
use outlast_wire::Kept;
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

pub(super) fn state(code: i64) -> Result<TaskState, StoreError> {
    state_of(code).ok_or_else(|| StoreError::damaged("unknown task state", code))
}

pub(crate) fn spec(json: &[u8]) -> Result<Arc<TaskSpec>, StoreError> {
    // Not `from_json`: what was accepted once must load, even if the rules have become stricter.
    serde_json::from_slice(json).map(Arc::new).map_err(|e| StoreError::damaged("a spec", e))
}

pub(crate) fn outcome(bytes: &[u8]) -> Result<Arc<TaskOutcome>, StoreError> {
    TaskOutcome::from_bytes(bytes).map(Arc::new).map_err(|e| StoreError::damaged("an outcome", e))
}

pub(crate) fn small(value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::damaged("number out of range", value))
}

const TASK_ROW: &str = "SELECT t.id, t.number, t.spec, t.state, t.epoch, t.retries, w.store_id,
    t.cancelling, t.started_at, t.paused, t.cause, coalesce(s.epoch, 0), coalesce(s.version, 0),
    EXISTS (SELECT 1 FROM checkpoints c WHERE c.number = t.number), t.after, t.recovery,
    t.asked_checkpoint, t.place, t.place_there, t.awaited_epoch, t.awaited_number, t.awaited_worker
    FROM tasks t LEFT JOIN worker_refs w ON w.ref = t.worker LEFT JOIN states s ON s.number = t.number";

fn row(conn: &Connection, r: &Row<'_>) -> Result<TaskRow, StoreError> {
    let state = state(r.get(3)?)?;
    let number = r.get(1)?;
    let worker: Option<Arc<str>> = r.get(6)?;
    // Most tasks have none: then a query per row of many is saved.
    let checkpoints = if r.get(13)? { reports::kept(conn, number)? } else { Vec::new() };
    Ok(TaskRow {
        id: r.get(0)?,
        number: uint(number)?,
        spec: spec(r.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
        state,
        epoch: uint(r.get(4)?)?,
        after: uint(r.get(14)?)?,
        losses: Losses {
            retries: small(r.get(5)?)?,
            lost: state == TaskState::Failed && Cause::of(r.get(10)?).is_loss(),
        },
        assigned: Assigned {
            worker: worker.filter(|_| state == TaskState::Assigned),
            cancelling: r.get(7)?,
            started_at: r.get(8)?,
        },
        paused: r.get(9)?,
        asked: Asked {
            checkpoint: r.get(16)?,
            place: r.get::<_, Option<Arc<str>>>(17)?.zip(r.get(18)?),
            awaited: match r.get::<_, Option<Arc<str>>>(21)? {
                Some(worker) => {
                    let (epoch, number) = (uint(r.get(19)?)?, uint(r.get(20)?)?);
                    Some(Awaited { epoch, number, worker })
                }
                None => None,
            },
        },
        reported: Reported { checkpoints, state_version: (uint(r.get(11)?)?, uint(r.get(12)?)?) },
        recovery: match r.get::<_, Option<String>>(15)? {
            Some(json) => Some(Arc::new(recovery::read(&json, "a task's recovery")?)),
            None => None,
        },
    })
}

/// The query of one task's row.
static ROW_OF: LazyLock<String> = LazyLock::new(|| format!("{TASK_ROW} WHERE t.id = ?1"));

pub(super) fn task_row(conn: &Connection, id: &str) -> Result<Option<TaskRow>, StoreError> {
    let mut query = conn.prepare_cached(&ROW_OF)?;
    let mut rows = query.query([id])?;
    rows.next()?.map(|r| row(conn, r)).transpose()
}

pub(super) fn snapshot(conn: &Connection, id: Arc<str>) -> Result<CoordSnapshot, StoreError> {
    let last: i64 = conn.query_row("SELECT last_number FROM totals", [], |r| r.get(0))?;
    let mut tasks = Vec::new();
    // One state after the other: each is a range of the index, already in order.
    for code in [0, 1] {
        let sql = format!("{TASK_ROW} WHERE t.state = {code} ORDER BY t.number");
        let mut query = conn.prepare(&sql)?;
        let mut rows = query.query([])?;
        while let Some(r) = rows.next()? {
            tasks.push(row(conn, r)?);
        }
    }
    tasks.sort_unstable_by_key(|t| t.number);
    let workers = workers(conn, None)?.into_iter().map(|w| (w.row, w.cursors)).collect();
    Ok(CoordSnapshot {
        coordinator_id: id,
        last_number: uint(last)?,
        tasks,
        workers,
        failures: recovery::failures(conn)?,
        quarantines: recovery::quarantines(conn)?,
        learned: recovery::learned(conn)?,
    })
}

/// All workers by store id, or those with this store id or name, the last seen first.
pub(super) fn workers(
    conn: &Connection,
    which: Option<&str>,
) -> Result<Vec<StoredWorker>, StoreError> {
    let mut cursors: HashMap<Arc<str>, Vec<(Lane, u64)>> = HashMap::new();
    let mut query = conn.prepare_cached(
        "SELECT w.store_id, c.lane, c.seq FROM cursors c JOIN worker_refs w ON w.ref = c.worker
         WHERE ?1 IS NULL OR w.store_id IN
             (SELECT store_id FROM workers WHERE store_id = ?1 OR name = ?1)
         ORDER BY c.worker, c.lane",
    )?;
    let mut rows = query.query([which])?;
    while let Some(r) = rows.next()? {
        cursors.entry(r.get(0)?).or_default().push((Lane::of(r.get(1)?), uint(r.get(2)?)?));
    }
    let columns = "SELECT store_id, name, incarnation, connection, slots, prefetch,
        capabilities, labels, version, seen_at, gone_at, gone_reason, drained, gone_cause,
        nonce, principal
        FROM workers";
    let sql = match which {
        None => format!("{columns} WHERE ?1 IS NULL ORDER BY store_id"),
        Some(_) => format!(
            "{columns} WHERE store_id = ?1 OR name = ?1 ORDER BY store_id = ?1 DESC, seen_at DESC"
        ),
    };
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query([which])?;
    let mut workers = Vec::new();
    while let Some(r) = rows.next()? {
        let labels = r.get_ref(7)?.as_str().map_err(rusqlite::Error::from)?;
        let labels: BTreeMap<String, String> =
            serde_json::from_str(labels).map_err(|e| StoreError::damaged("worker labels", e))?;
        let row = WorkerRow {
            store_id: r.get(0)?,
            name: r.get(1)?,
            incarnation: uint(r.get(2)?)?,
            connection: uint(r.get(3)?)?,
            slots: small(r.get(4)?)?,
            prefetch: small(r.get(5)?)?,
            capabilities: r.get(6)?,
            labels,
            version: r.get(8)?,
            drained: r.get(12)?,
            nonce: r.get::<_, i64>(14)?.cast_unsigned(),
            principal: r.get(15)?,
        };
        workers.push(StoredWorker {
            cursors: cursors.remove(&row.store_id).unwrap_or_default(),
            row,
            seen_at: r.get(9)?,
            gone_at: r.get(10)?,
            gone_reason: r.get(11)?,
            gone_cause: LinkCause::of(r.get(13)?),
        });
    }
    Ok(workers)
}
