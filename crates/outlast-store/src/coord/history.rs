//! A task's history as it is read: what its row tells, woven into its `events`.

use super::schema::{kind_code, phase};
use super::{load, recovery};
use crate::StoreError;
use crate::db::{int, uint};
use crate::types::{EventKind, PastOutcome, StoredEvent};
use outlast_core::coord::{Given, PastAttempt};
use outlast_core::ids::TaskId;
use outlast_model::{Cause, TaskOutcome};
use rusqlite::{Connection, OptionalExtension, Row};
use std::collections::BTreeMap;
use std::sync::Arc;

/// History row and phase: where an entry stands. Equals stand as they were written.
type Place = (i64, i64);
type Placed = Vec<(Place, StoredEvent)>;

pub(super) fn history(conn: &Connection, id: &str) -> Result<Vec<StoredEvent>, StoreError> {
    let Some((number, mut entries)) = entries_of_row(conn, id)? else { return Ok(Vec::new()) };
    let mut query = conn.prepare_cached(
        "SELECT e.at, e.kind, e.epoch, w.store_id, e.reason, e.cause, e.round, e.phase, e.decision
         FROM events e LEFT JOIN worker_refs w ON w.ref = e.worker
         WHERE e.number = ?1 ORDER BY e.event",
    )?;
    let mut rows = query.query([number])?;
    while let Some(r) = rows.next()? {
        let mut event = event(r)?;
        if let Some(json) = r.get::<_, Option<String>>(8)? {
            event.decision = Some(Arc::new(recovery::read(&json, "a decision")?));
        }
        entries.push(((r.get(6)?, r.get(7)?), event));
    }
    entries.sort_by_key(|(place, _)| *place);
    Ok(entries.into_iter().map(|(_, event)| event).collect())
}

/// The task's number and the entries that are not in `events`.
fn entries_of_row(conn: &Connection, id: &str) -> Result<Option<(i64, Placed)>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT t.number, t.state, t.epoch, w.store_id, t.submitted_at, t.assigned_at,
             t.started_at, t.ended_at, t.ended_epoch, e.store_id, t.reason, t.round,
             t.cause
         FROM tasks t LEFT JOIN worker_refs w ON w.ref = t.worker
             LEFT JOIN worker_refs e ON e.ref = t.ended_worker
         WHERE t.id = ?1",
    )?;
    let mut rows = query.query([id])?;
    let Some(r) = rows.next()? else { return Ok(None) };
    let state = load::state(r.get(1)?)?;
    let epoch = uint(r.get(2)?)?;
    let worker: Option<Arc<str>> = r.get(3)?;
    let round = r.get(11)?;
    let plain = |at, kind, epoch, worker| {
        let (reason, cause) = (String::new(), Cause::Unspecified);
        StoredEvent { at, kind, epoch, worker, reason, cause, decision: None }
    };
    // Before whatever was said of it while it was pending for the first time.
    let mut entries = vec![((-1, 0), plain(r.get(4)?, EventKind::Submitted, 0, None))];
    if let Some(at) = r.get(5)? {
        let event = plain(at, EventKind::Assigned, epoch, worker.clone());
        entries.push(((round, phase::ASSIGNED), event));
        if let Some(at) = r.get(6)? {
            let event = plain(at, EventKind::Started, epoch, worker);
            entries.push(((round, phase::STARTED), event));
        }
    }
    if let (Some(at), Some(kind)) = (r.get(7)?, EventKind::of_end(state)) {
        let epoch = uint(r.get::<_, Option<i64>>(8)?.unwrap_or(0))?;
        let reason = r.get::<_, Option<String>>(10)?.unwrap_or_default();
        let (worker, cause) = (r.get(9)?, Cause::of(r.get(12)?));
        let event = StoredEvent { at, kind, epoch, worker, reason, cause, decision: None };
        entries.push(((round, phase::ENDED), event));
    }
    Ok(Some((r.get(0)?, entries)))
}

/// An entry of the columns at, kind, epoch, store id, reason and cause, in this order from the first.
fn event(r: &Row<'_>) -> Result<StoredEvent, StoreError> {
    let code = r.get(1)?;
    let kind = EventKind::from_code(code)
        .ok_or_else(|| StoreError::damaged("unknown kind of event", code))?;
    Ok(StoredEvent {
        at: r.get(0)?,
        kind,
        epoch: uint(r.get(2)?)?,
        worker: r.get(3)?,
        reason: r.get(4)?,
        cause: Cause::of(r.get(5)?),
        decision: None,
    })
}

pub(super) fn past_outcomes(conn: &Connection, id: &str) -> Result<Vec<PastOutcome>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT o.at, ?2, o.epoch, w.store_id, o.reason, 0, o.task, o.outcome
         FROM orphans o LEFT JOIN worker_refs w ON w.ref = o.worker
         WHERE o.task = ?1 ORDER BY o.orphan",
    )?;
    let superseded = kind_code(EventKind::Superseded);
    let mut found = outcomes(&mut query.query((id, superseded))?)?;
    let number: Option<i64> = conn
        .prepare_cached("SELECT number FROM tasks WHERE id = ?1")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    if let Some(number) = number {
        let mut query = conn.prepare_cached(
            "SELECT e.at, e.kind, e.epoch, w.store_id, e.reason, e.cause, ?2, e.outcome
             FROM events e LEFT JOIN worker_refs w ON w.ref = e.worker
             WHERE e.number = ?1 AND e.outcome IS NOT NULL ORDER BY e.round, e.phase, e.event",
        )?;
        found.extend(outcomes(&mut query.query((number, id))?)?);
    }
    Ok(found)
}

pub(super) fn superseded(conn: &Connection, id: &str) -> Result<Vec<PastOutcome>, StoreError> {
    let mut found = past_outcomes(conn, id)?;
    found.retain(|o| o.event.kind == EventKind::Superseded);
    Ok(found)
}

pub(super) fn orphans(conn: &Connection, limit: usize) -> Result<Vec<PastOutcome>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT o.at, ?2, o.epoch, w.store_id, o.reason, 0, o.task, o.outcome
         FROM orphans o LEFT JOIN worker_refs w ON w.ref = o.worker
         ORDER BY o.orphan DESC LIMIT ?1",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    outcomes(&mut query.query((limit, kind_code(EventKind::Superseded)))?)
}

/// The attempts of a task that this worker was given, by number, with the outcomes of each.
pub(super) fn attempts(
    conn: &Connection,
    id: &str,
    worker: &str,
) -> Result<Vec<PastAttempt>, StoreError> {
    let mut found: BTreeMap<u64, Vec<Arc<TaskOutcome>>> = BTreeMap::new();
    let of = |event: &StoredEvent| event.worker.as_deref() == Some(worker);
    for event in history(conn, id)?.iter().filter(|e| of(e)) {
        if event.kind == EventKind::Assigned {
            found.entry(event.epoch).or_default();
        }
    }
    for past in past_outcomes(conn, id)?.into_iter().filter(|p| of(&p.event)) {
        found.entry(past.event.epoch).or_default().push(past.outcome);
    }
    let mut query = conn.prepare_cached(
        "SELECT t.ended_epoch, t.outcome FROM tasks t JOIN worker_refs w ON w.ref = t.ended_worker
         WHERE t.id = ?1 AND w.store_id = ?2 AND t.outcome IS NOT NULL",
    )?;
    let mut rows = query.query((id, worker))?;
    if let Some(r) = rows.next()? {
        let bytes = r.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let epoch = uint(r.get::<_, Option<i64>>(0)?.unwrap_or(0))?;
        found.entry(epoch).or_default().push(load::outcome(bytes)?);
    }
    let attempt = |(epoch, outcomes)| PastAttempt { epoch, outcomes };
    Ok(found.into_iter().map(attempt).collect())
}

/// The worker that an attempt of a task was assigned to.
pub(super) fn given(conn: &Connection, id: &str, epoch: u64) -> Result<Given, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT t.number, t.epoch, w.store_id, t.gap_above, t.gap_up_to
         FROM tasks t LEFT JOIN worker_refs w ON w.ref = t.worker AND t.assigned_at IS NOT NULL
         WHERE t.id = ?1",
    )?;
    let mut rows = query.query([id])?;
    let Some(r) = rows.next()? else { return Ok(Given::Never) };
    let (number, newest): (i64, i64) = (r.get(0)?, r.get(1)?);
    let worker: Option<Arc<str>> = r.get(2)?;
    let gap = (uint(r.get(3)?)?, uint(r.get(4)?)?);
    if let Some(worker) = worker.filter(|_| uint(newest).is_ok_and(|newest| newest == epoch)) {
        return Ok(Given::To(worker));
    }
    let sql = "SELECT w.store_id FROM events e JOIN worker_refs w ON w.ref = e.worker
         WHERE e.number = ?1 AND e.kind = ?2 AND e.epoch = ?3 ORDER BY e.event DESC LIMIT 1";
    let past: Option<Arc<str>> = conn
        .prepare_cached(sql)?
        .query_row((number, kind_code(EventKind::Assigned), int(epoch)?), |r| r.get(0))
        .optional()?;
    Ok(match past {
        Some(worker) => Given::To(worker),
        None if gap.0 < epoch && epoch <= gap.1 => Given::Unrecorded,
        None => Given::Never,
    })
}

fn outcomes(rows: &mut rusqlite::Rows<'_>) -> Result<Vec<PastOutcome>, StoreError> {
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        let task: TaskId = r.get(6)?;
        let bytes = r.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?;
        let (mut event, outcome) = (event(r)?, load::outcome(bytes)?);
        if event.cause == Cause::Unspecified {
            event.cause = outcome.cause;
        }
        found.push(PastOutcome { task, event, outcome });
    }
    Ok(found)
}
