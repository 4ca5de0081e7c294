//! The worker's store: what it was given and has not finished, and what it must still deliver.

use crate::coord::{load_outcome, load_spec};
use crate::db::{self, int, uint};
use crate::{StoreError, WorkerStorage};
use outlast_core::Now;
use outlast_core::records::{AttemptRow, Batch, LostLink, WorkerRecord, WorkerSnapshot};
use outlast_model::{Checkpoint, Lane, StateUpdate, TaskOutcome};
use outlast_wire::Kept;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// "OLW", 1
const KIND: outlast_sqlite::Kind = db::kind("a worker's store", 0x4F4C_5701, &[V1, V2, V3]);

// survived: ends of processes that held the attempt, this one not counted.
// checkpoint, state: the attempt's newest.
// The outbox's other lanes hold checkpoints and states, encoded like outcomes are.
const V2: &str = "
ALTER TABLE attempts ADD COLUMN survived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN checkpoint BLOB;
ALTER TABLE attempts ADD COLUMN state BLOB;
";

// after: attempts up to this one are of a former task of the same id.
const V3: &str = "ALTER TABLE attempts ADD COLUMN after INTEGER NOT NULL DEFAULT 0;";

// An outbox row's key is its lane and sequence in one number (`key`), so that appending,
// reading in order and deleting what is acknowledged are all ranges of one tree.
const V1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) WITHOUT ROWID;

CREATE TABLE attempts (
    arrival INTEGER PRIMARY KEY,
    task TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    started_at INTEGER,
    spec BLOB NOT NULL
);

-- key: lane * 2^56 + sequence
CREATE TABLE outbox (
    key INTEGER PRIMARY KEY,
    outcome BLOB NOT NULL
);

CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY,
    next_seq INTEGER NOT NULL
);
";

/// Keys of `meta`: when the link was lost by either clock, and in which boot of the machine.
const LOST: [&str; 3] = ["lost_mono", "lost_wall", "lost_boot"];

const LANE_SHIFT: u32 = 56;

/// A worker's durable state. Whoever has it is alone in using it.
#[derive(Debug)]
pub struct WorkerStore {
    conn: Connection,
    store_id: Arc<str>,
    incarnation: u64,
    boot: String,
    _lock: outlast_sqlite::Lock,
}

impl WorkerStore {
    /// Opens the store, creating it when it is missing. This opening's incarnation is durable
    /// when it returns.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with the file; a file that is not a store of this
    /// kind and version is left as it was.
    pub fn open(path: &Path) -> Result<(WorkerStore, WorkerSnapshot), StoreError> {
        let (mut conn, lock) = outlast_sqlite::open_owned(path, &KIND)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let store_id: Arc<str> = match meta::<String>(&tx, "store_id")? {
            Some(id) => id.into(),
            None => {
                let id = uuid::Uuid::new_v4().to_string();
                set_meta(&tx, "store_id", &id)?;
                id.into()
            }
        };
        let incarnation = meta::<i64>(&tx, "incarnation")?.unwrap_or(0) + 1;
        set_meta(&tx, "incarnation", incarnation)?;
        if !meta::<bool>(&tx, "ended_well")?.unwrap_or(false) {
            tx.execute("UPDATE attempts SET survived = survived + 1", [])?;
        }
        set_meta(&tx, "ended_well", false)?;
        tx.commit()?;

        let incarnation = uint(incarnation)?;
        let boot = boot_id();
        let store = WorkerStore { conn, store_id, incarnation, boot, _lock: lock };
        let snapshot = store.snapshot()?;
        Ok((store, snapshot))
    }

    /// Returns how many results the store at this path has that were never delivered; `None` if a
    /// process has it open, which delivers them itself. The store is left as it is.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn undelivered(path: &Path) -> Result<Option<u64>, StoreError> {
        if outlast_sqlite::is_locked(path)? {
            return Ok(None);
        }
        let conn = outlast_sqlite::open_shared(path, &KIND, false)?;
        let count =
            conn.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0))?;
        Ok(Some(uint(count)?))
    }

    /// Applies all batches, in order, in one transaction, and syncs it.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was applied and the same batches may be given again.
    pub fn commit(&mut self, batches: &[Batch<WorkerRecord>]) -> Result<(), StoreError> {
        if !self.conn.is_autocommit() {
            // The rollback of an earlier failure failed as well.
            self.conn.execute_batch("ROLLBACK")?;
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut applier =
            Applier { tx: &tx, acked: BTreeMap::new(), next: BTreeMap::new(), boot: &self.boot };
        for record in batches.iter().flat_map(|b| &b.records) {
            applier.apply(record)?;
        }
        applier.finish()?;
        tx.commit()?;
        Ok(())
    }

    /// Notes that this process ends on purpose: what it held was not what ended it.
    ///
    /// # Errors
    /// [`StoreError`]; then the next opening takes this one for a crash.
    pub fn end_well(&mut self) -> Result<(), StoreError> {
        set_meta(&self.conn, "ended_well", true)
    }

    /// Makes this the store of a new worker, which has nothing and was nowhere. A copy of what it
    /// was is put into this folder: its path, and how many results it had not delivered.
    ///
    /// # Errors
    /// [`StoreError`]; then it is as it was.
    pub fn renew(&mut self, folder: &Path) -> Result<(PathBuf, u64), StoreError> {
        let aside = folder.join(format!("former-{}-{}.db", self.store_id, self.incarnation));
        let text = aside.to_str().ok_or_else(|| StoreError::Io {
            detail: format!("{}: not UTF-8", aside.display()),
            transient: false,
        })?;
        self.conn.execute("VACUUM INTO ?1", [text])?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let results = Lane::Results as i64;
        let range = (results << LANE_SHIFT, (results + 1) << LANE_SHIFT);
        let sql = "SELECT count(*) FROM outbox WHERE key >= ?1 AND key < ?2";
        let owed: i64 = tx.query_row(sql, range, |r| r.get(0))?;
        tx.execute_batch(
            "DELETE FROM attempts; DELETE FROM outbox; DELETE FROM lanes; DELETE FROM meta;",
        )?;
        let id = uuid::Uuid::new_v4().to_string();
        set_meta(&tx, "store_id", &id)?;
        set_meta(&tx, "incarnation", 0)?;
        tx.commit()?;
        self.store_id = id.into();
        Ok((aside, uint(owed)?))
    }

    /// Returns the stored state.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn snapshot(&self) -> Result<WorkerSnapshot, StoreError> {
        let mut snapshot = WorkerSnapshot {
            store_id: self.store_id.clone(),
            incarnation: self.incarnation,
            coordinator_id: meta::<Arc<str>>(&self.conn, "coordinator_id")?,
            next_seq: self.next(Lane::Results)?,
            next_checkpoint: self.next(Lane::Checkpoints)?,
            next_state: self.next(Lane::State)?,
            outbox: self.lane(Lane::Results, load_outcome)?,
            checkpoints: self.lane(Lane::Checkpoints, |b| decode(b, "a checkpoint"))?,
            states: self.lane(Lane::State, |b| decode(b, "a state"))?,
            lost: self.lost()?,
            ..WorkerSnapshot::default()
        };
        let mut query = self.conn.prepare_cached(
            "SELECT task, epoch, spec, started_at, survived, paused, checkpoint, state, made,
                    after
             FROM attempts ORDER BY arrival",
        )?;
        let mut rows = query.query([])?;
        while let Some(r) = rows.next()? {
            snapshot.attempts.push(AttemptRow {
                task: r.get(0)?,
                epoch: uint(r.get(1)?)?,
                spec: load_spec(r.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
                started_at: r.get(3)?,
                survived: r.get(4)?,
                paused: r.get(5)?,
                checkpoint: optional(r.get_ref(6)?, "a checkpoint")?,
                state: optional(r.get_ref(7)?, "a state")?,
                made: uint(r.get(8)?)?,
                after: uint(r.get(9)?)?,
            });
        }
        Ok(snapshot)
    }

    fn lost(&self) -> Result<Option<LostLink>, StoreError> {
        let Some(mono) = meta::<i64>(&self.conn, LOST[0])? else { return Ok(None) };
        let wall = meta(&self.conn, LOST[1])?.unwrap_or_default();
        let same_boot = meta::<String>(&self.conn, LOST[2])?.is_some_and(|b| b == self.boot);
        Ok(Some(LostLink { at: Now { mono: uint(mono)?, wall }, same_boot }))
    }

    fn lane<T>(
        &self,
        lane: Lane,
        load: impl Fn(&[u8]) -> Result<Arc<T>, StoreError>,
    ) -> Result<Vec<(u64, Arc<T>)>, StoreError> {
        let sql = "SELECT key, outcome FROM outbox WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
        let mut query = self.conn.prepare_cached(sql)?;
        let first = key(lane, 0)?;
        let mut rows = query.query([first, last_key(lane)?])?;
        let mut found = Vec::new();
        while let Some(r) = rows.next()? {
            let seq = uint(r.get::<_, i64>(0)? - first)?;
            let bytes = r.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            found.push((seq, load(bytes)?));
        }
        Ok(found)
    }

    /// The next sequence of a lane.
    fn next(&self, lane: Lane) -> Result<u64, StoreError> {
        let next: Option<i64> = self
            .conn
            .prepare_cached("SELECT next_seq FROM lanes WHERE lane = ?1")?
            .query_row([lane.number()], |r| r.get(0))
            .optional()?;
        uint(next.unwrap_or(1))
    }

    /// Returns the number of unacknowledged items, and their bytes.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn outbox(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), coalesce(sum(length(outcome)), 0) FROM outbox";
        let (count, bytes) = self.conn.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok((uint(count)?, uint(bytes)?))
    }

    /// For tests of a full disk: the store may not grow beyond so many pages.
    #[doc(hidden)]
    pub fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    }
}

impl WorkerStorage for WorkerStore {
    fn commit(&mut self, batches: &[Batch<WorkerRecord>]) -> Result<(), StoreError> {
        WorkerStore::commit(self, batches)
    }
    fn snapshot(&self) -> Result<WorkerSnapshot, StoreError> {
        WorkerStore::snapshot(self)
    }
}

/// Applies records; acknowledgements and counters are written once, at the end.
struct Applier<'a> {
    tx: &'a Connection,
    acked: BTreeMap<Lane, u64>,
    next: BTreeMap<Lane, u64>,
    boot: &'a str,
}

impl Applier<'_> {
    fn apply(&mut self, record: &WorkerRecord) -> Result<(), StoreError> {
        use WorkerRecord as R;
        match record {
            R::Accepted { task, epoch, spec, checkpoint, paused, after } => self.run(
                "INSERT OR REPLACE INTO attempts (task, epoch, spec, checkpoint, paused, after)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    task,
                    int(*epoch)?,
                    spec.to_json(),
                    checkpoint.as_ref().map(|c| c.to_bytes()),
                    paused,
                    int(*after)?
                ],
            ),
            R::Paused { task, epoch, on } => self.run(
                "UPDATE attempts SET paused = ?3 WHERE task = ?1 AND epoch = ?2",
                params![task, int(*epoch)?, on],
            ),
            R::Checkpoint { seq, checkpoint } => self.on_checkpoint(*seq, checkpoint),
            R::State { seq, replaces, update } => self.on_state(*seq, *replaces, update),
            R::Starting { task, epoch, at } => self.run(
                "UPDATE attempts SET started_at = ?3 WHERE task = ?1 AND epoch = ?2",
                params![task, int(*epoch)?, at],
            ),
            R::Finished { lane, seq, outcome } => self.on_finished(*lane, *seq, outcome),
            R::Dropped { task, epoch } => self.delete(task, *epoch),
            R::Acked { lane, seq } => {
                key(*lane, *seq)?;
                let last = self.acked.entry(*lane).or_default();
                *last = (*last).max(*seq);
                Ok(())
            }
            R::Joined { coordinator_id } => {
                set_meta(self.tx, "coordinator_id", coordinator_id.as_ref())
            }
            R::LinkLost { at: Some(at) } => {
                set_meta(self.tx, LOST[0], int(at.mono)?)?;
                set_meta(self.tx, LOST[1], at.wall)?;
                set_meta(self.tx, LOST[2], self.boot)
            }
            R::LinkLost { at: None } => self.run(
                "DELETE FROM meta WHERE key IN (?1, ?2, ?3)",
                params![LOST[0], LOST[1], LOST[2]],
            ),
        }
    }

    fn on_finished(
        &mut self,
        lane: Lane,
        seq: u64,
        outcome: &TaskOutcome,
    ) -> Result<(), StoreError> {
        let key = key(lane, seq)?;
        if self.acked.get(&lane).is_some_and(|acked| seq <= *acked) {
            return Err(StoreError::Contradiction(format!(
                "lane {}, sequence {seq}: acknowledged before it was stored",
                lane.word()
            )));
        }
        self.delete(&outcome.task, outcome.epoch)?;
        let bytes = outcome.to_bytes();
        self.run("INSERT INTO outbox VALUES (?1, ?2)", params![key, bytes])?;
        self.used(lane, seq);
        Ok(())
    }

    fn used(&mut self, lane: Lane, seq: u64) {
        let next = self.next.entry(lane).or_default();
        *next = (*next).max(seq + 1);
    }

    fn on_checkpoint(&mut self, seq: u64, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let lane = Lane::Checkpoints;
        let (key, bytes) = (key(lane, seq)?, checkpoint.to_bytes());
        self.run("INSERT OR REPLACE INTO outbox VALUES (?1, ?2)", params![key, bytes])?;
        let newest = !checkpoint.dropped && checkpoint.artifact.is_empty();
        // An older one may be put elsewhere in its lane: it does not become the newest by that.
        self.run(
            "UPDATE attempts SET made = max(made, ?3),
             checkpoint = iif(?3 >= made, coalesce(?4, checkpoint), checkpoint)
             WHERE task = ?1 AND epoch = ?2",
            params![
                checkpoint.task,
                int(checkpoint.epoch)?,
                int(checkpoint.number)?,
                newest.then_some(&bytes),
            ],
        )?;
        self.used(lane, seq);
        Ok(())
    }

    fn on_state(
        &mut self,
        seq: u64,
        replaces: Option<u64>,
        update: &StateUpdate,
    ) -> Result<(), StoreError> {
        let lane = Lane::State;
        if let Some(old) = replaces {
            let old = key(lane, old)?;
            self.run("DELETE FROM outbox WHERE key = ?1", params![old])?;
        }
        let (key, bytes) = (key(lane, seq)?, update.to_bytes());
        self.run("INSERT INTO outbox VALUES (?1, ?2)", params![key, bytes])?;
        self.run(
            "UPDATE attempts SET state = ?3 WHERE task = ?1 AND epoch = ?2",
            params![update.task, int(update.epoch)?, bytes],
        )?;
        self.used(lane, seq);
        Ok(())
    }

    fn delete(&self, task: &str, epoch: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM attempts WHERE task = ?1 AND epoch = ?2";
        self.run(sql, params![task, int(epoch)?])
    }

    /// Writes what was summed up.
    fn finish(self) -> Result<(), StoreError> {
        for (lane, next) in &self.next {
            self.run(
                "INSERT INTO lanes VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET next_seq = max(next_seq, excluded.next_seq)",
                params![lane.number(), int(*next)?],
            )?;
        }
        for (lane, seq) in &self.acked {
            let (first, last) = (key(*lane, 0)?, key(*lane, *seq)?);
            self.run("DELETE FROM outbox WHERE key BETWEEN ?1 AND ?2", params![first, last])?;
        }
        Ok(())
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.tx.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}

fn key(lane: Lane, seq: u64) -> Result<i64, StoreError> {
    let bad =
        || StoreError::Contradiction(format!("lane {}, sequence {seq}: out of range", lane.word()));
    let lane_key = u8::try_from(lane.number()).ok().filter(|l| *l < 128).ok_or_else(bad)?;
    if seq >> LANE_SHIFT != 0 {
        return Err(bad());
    }
    Ok((i64::from(lane_key) << LANE_SHIFT) | int(seq)?)
}

fn decode<T: Kept>(bytes: &[u8], what: &'static str) -> Result<Arc<T>, StoreError> {
    T::from_bytes(bytes).map(Arc::new).map_err(|e| StoreError::damaged(what, e))
}

fn optional<T: Kept>(
    value: rusqlite::types::ValueRef<'_>,
    what: &'static str,
) -> Result<Option<Arc<T>>, StoreError> {
    let bytes = value.as_blob_or_null().map_err(rusqlite::Error::from)?;
    bytes.map(|b| decode(b, what)).transpose()
}

fn last_key(lane: Lane) -> Result<i64, StoreError> {
    key(lane, (1 << LANE_SHIFT) - 1)
}

fn meta<T: rusqlite::types::FromSql>(
    conn: &Connection,
    name: &str,
) -> Result<Option<T>, StoreError> {
    let mut query = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(query.query_row([name], |r| r.get(0)).optional()?)
}

/// Tells boots of the machine apart; empty where the system does not say.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn set_meta(conn: &Connection, name: &str, value: impl rusqlite::ToSql) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}
