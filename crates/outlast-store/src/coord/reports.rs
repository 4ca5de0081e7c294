//! Checkpoints, states and pauses: what is recorded of a task beside its way.

use super::transaction::Transaction;
use crate::StoreError;
use crate::db::{int, uint};
use crate::types::{EventKind, StoredCheckpoint};
use outlast_core::records::Asked;
use outlast_model::{Checkpoint, StateUpdate};
use outlast_wire::Kept;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

impl Transaction<'_> {
    /// Records a checkpoint. One of an unknown task, or one that is known, changes nothing.
    pub(super) fn on_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        worker: &Arc<str>,
        at: i64,
    ) -> Result<(), StoreError> {
        let worker = self.worker_ref(worker)?;
        let Some(now) = self.find(&checkpoint.task)? else { return Ok(()) };
        self.run(
            "INSERT OR IGNORE INTO checkpoints
                 (number, epoch, nth, kept, manifest, worker, at, gone_at, item, artifact)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                now.number,
                int(checkpoint.epoch)?,
                int(checkpoint.number)?,
                !checkpoint.dropped,
                &checkpoint.manifest[..],
                worker,
                at,
                checkpoint.dropped.then_some(at),
                checkpoint.to_bytes(),
                Some(&checkpoint.artifact).filter(|a| !a.is_empty()),
            ],
        )
    }

    pub(super) fn on_pruned(
        &mut self,
        task: &str,
        which: &[(u64, u64)],
        at: i64,
    ) -> Result<(), StoreError> {
        // It may have been removed meanwhile.
        let Some(now) = self.find(task)? else { return Ok(()) };
        for (epoch, nth) in which {
            self.run(
                "UPDATE checkpoints SET kept = 0, gone_at = ?4
                 WHERE number = ?1 AND epoch = ?2 AND nth = ?3 AND kept = 1",
                params![now.number, int(*epoch)?, int(*nth)?, at],
            )?;
        }
        Ok(())
    }

    pub(super) fn on_state(&mut self, update: &StateUpdate) -> Result<(), StoreError> {
        let Some(now) = self.find(&update.task)? else { return Ok(()) };
        let (epoch, version) = (int(update.epoch)?, int(update.version)?);
        self.run(
            "INSERT INTO states VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
             SET epoch = ?2, version = ?3, item = ?4 WHERE (epoch, version) < (?2, ?3)",
            params![now.number, epoch, version, update.to_bytes()],
        )
    }

    pub(super) fn on_asked(&mut self, task: &str, asked: &Asked) -> Result<(), StoreError> {
        let (worker, there) = asked.place.as_ref().map(|(w, there)| (w, there)).unzip();
        let awaited = asked.awaited.as_ref();
        let (epoch, number) = (awaited.map(|a| int(a.epoch)), awaited.map(|a| int(a.number)));
        self.run(
            "UPDATE tasks SET asked_checkpoint = ?2, place = ?3, place_there = ?4,
             awaited_epoch = ?5, awaited_number = ?6, awaited_worker = ?7 WHERE number = ?1",
            params![
                self.known(task)?.number,
                asked.checkpoint,
                worker,
                there,
                epoch.transpose()?,
                number.transpose()?,
                awaited.map(|a| &a.worker)
            ],
        )
    }

    pub(super) fn on_paused(&mut self, task: &str, on: bool, at: i64) -> Result<(), StoreError> {
        let now = self.known(task)?;
        let sql = "UPDATE tasks SET paused = ?2 WHERE number = ?1";
        self.run(sql, params![now.number, on])?;
        if now.goes_on() {
            self.paused += i64::from(on) - i64::from(now.paused);
        }
        let kind = if on { EventKind::PauseRequested } else { EventKind::ResumeRequested };
        self.record_event(&now, kind, now.epoch, now.worker, at, "")
    }
}

pub(super) fn checkpoint(bytes: &[u8]) -> Result<Arc<Checkpoint>, StoreError> {
    Checkpoint::from_bytes(bytes).map(Arc::new).map_err(|e| StoreError::damaged("a checkpoint", e))
}

/// The kept checkpoints of a task, by epoch and number.
pub(super) fn kept(conn: &Connection, number: i64) -> Result<Vec<Arc<Checkpoint>>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT item FROM checkpoints WHERE number = ?1 AND kept = 1 AND artifact IS NULL
         ORDER BY epoch, nth",
    )?;
    let mut rows = query.query([number])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        found.push(checkpoint(r.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?);
    }
    Ok(found)
}

pub(super) fn state(conn: &Connection, id: &str) -> Result<Option<StateUpdate>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT s.item FROM states s JOIN tasks t ON t.number = s.number WHERE t.id = ?1",
    )?;
    let bytes: Option<Vec<u8>> = query.query_row([id], |r| r.get(0)).optional()?;
    let decode =
        |b: Vec<u8>| StateUpdate::from_bytes(&b).map_err(|e| StoreError::damaged("a state", e));
    bytes.map(decode).transpose()
}

/// All reported checkpoints, by epoch and number.
pub(super) fn all(conn: &Connection, id: &str) -> Result<Vec<StoredCheckpoint>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT c.item, c.kept, w.store_id, w.name, c.at, c.gone_at
         FROM checkpoints c JOIN tasks t ON t.number = c.number
             LEFT JOIN worker_refs w ON w.ref = c.worker
         WHERE t.id = ?1 ORDER BY c.epoch, c.nth",
    )?;
    let mut rows = query.query([id])?;
    let mut found = Vec::new();
    while let Some(r) = rows.next()? {
        found.push(StoredCheckpoint {
            checkpoint: checkpoint(r.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?,
            kept: r.get(1)?,
            worker: r.get(2)?,
            worker_name: r.get(3)?,
            at: r.get(4)?,
            gone_at: r.get(5)?,
        });
    }
    Ok(found)
}

/// Returns whether a checkpoint refers to this manifest that is kept, or was until an hour ago: an
/// assignment that names it may be on its way.
pub(super) fn refers_to(conn: &Connection, manifest: &[u8]) -> Result<bool, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM checkpoints WHERE manifest = ?1
             AND (kept = 1 OR gone_at > (unixepoch() - 3600) * 1000))",
    )?;
    Ok(query.query_row([manifest], |r| r.get(0))?)
}

/// Kept checkpoints of tasks that succeeded or were cancelled before `before`, with the task, at
/// most `limit`.
#[allow(clippy::type_complexity)]
pub(super) fn outdated(
    conn: &Connection,
    before: i64,
    limit: usize,
) -> Result<Vec<(Arc<str>, Vec<(u64, u64)>)>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT t.id, c.epoch, c.nth FROM checkpoints c JOIN tasks t ON t.number = c.number
         WHERE c.kept = 1 AND c.artifact IS NULL AND t.state IN (2, 4) AND t.ended_at < ?1
         ORDER BY c.number, c.epoch, c.nth LIMIT ?2",
    )?;
    let mut rows = query.query(params![before, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut found: Vec<(Arc<str>, Vec<(u64, u64)>)> = Vec::new();
    while let Some(r) = rows.next()? {
        let (id, which): (Arc<str>, _) = (r.get(0)?, (uint(r.get(1)?)?, uint(r.get(2)?)?));
        match found.last_mut().filter(|(last, _)| *last == id) {
            Some((_, all)) => all.push(which),
            None => found.push((id, vec![which])),
        }
    }
    Ok(found)
}
