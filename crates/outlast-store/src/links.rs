//! The history of links: points of minutes and hours, events of links, active alerts, and run times of
//! the coordinator. A file of its own, for display only: no decision depends on it, and the data of the
//! last minute may be lost with the machine.
//!
//! Points lie in the order of time, so that a minute of the whole fleet is one run of pages; a
//! worker's series is then one lookup for each of its points.

mod point;

use crate::StoreError;
use outlast_core::quality::Point;
use outlast_model::LinkCause;
use outlast_sqlite::Kind;
use point::StoredPoint;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// "OLL", 1
const KIND: Kind = Kind {
    what: "a history of links",
    application_id: 0x4F4C_4C01,
    migrations: &[V1, V2, V3],
    busy: Duration::from_secs(5),
    cache_kib: 2 << 10,
    log_pages: 1000,
    log_bytes: 8 << 20,
};

// `at` of points is the beginning of their interval in Unix milliseconds.
const V1: &str = "
CREATE TABLE workers (ref INTEGER PRIMARY KEY, store_id TEXT NOT NULL UNIQUE);
CREATE TABLE minutes (
    at INTEGER NOT NULL, worker INTEGER NOT NULL, point BLOB NOT NULL,
    PRIMARY KEY (at, worker)
) WITHOUT ROWID;
CREATE TABLE hours (
    at INTEGER NOT NULL, worker INTEGER NOT NULL, point BLOB NOT NULL,
    PRIMARY KEY (at, worker)
) WITHOUT ROWID;
CREATE TABLE links (
    id INTEGER PRIMARY KEY,
    worker INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX links_worker ON links (worker, at);
CREATE TABLE runs (id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, alive_at INTEGER NOT NULL);
CREATE TABLE done (one INTEGER PRIMARY KEY CHECK (one = 1), hours_to INTEGER NOT NULL);
INSERT INTO done VALUES (1, 0);
";

// Nothing moves, but versions before do not know `LinkEntryKind::Adapted`.
const V2: &str = "";

// Active alerts, as they were reported.
const V3: &str = "
CREATE TABLE alerts (
    worker TEXT NOT NULL, rule TEXT NOT NULL, alert TEXT NOT NULL,
    PRIMARY KEY (worker, rule)
) WITHOUT ROWID;
";

/// Milliseconds of a minute and of an hour.
pub const STEPS: [i64; 2] = [60_000, 3_600_000];
/// Longest time in milliseconds for which minutes, hours and events of links are kept.
const KEPT: [i64; 3] = [24 * STEPS[1], 90 * 24 * STEPS[1], 30 * 24 * STEPS[1]];
/// Entries kept of one worker's link.
const MAX_LINKS: i64 = 1_000;
/// Times that the coordinator ran, that are remembered.
const MAX_RUNS: i64 = 1_000;
/// Points that one question may have.
const MAX_POINTS: i64 = 5_000;

/// Event of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkEntry {
    /// The worker's store id.
    pub worker: Arc<str>,
    /// Unix milliseconds.
    pub at: i64,
    /// Kind of the event.
    pub kind: LinkEntryKind,
    /// Cause of the link's end.
    pub cause: LinkCause,
    /// The same for people; of a resynchronisation, how long it took.
    pub reason: String,
}

/// An alert that is active, or has been cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertEntry {
    /// The worker's store id.
    pub worker: Arc<str>,
    /// The rule's name: one alert of it stands at a time.
    pub rule: String,
    /// The alert as reported (JSON); none: it was cleared.
    pub alert: Option<String>,
}

/// Kind of a link's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEntryKind {
    /// The worker said hello.
    Connected = 1,
    /// All unacknowledged records had been applied.
    Resynced = 2,
    /// The link ended, and the worker holds tasks.
    Suspect = 3,
    /// The link ended, and the worker holds none; or the last one was abandoned.
    Away = 4,
    /// A setting was adapted to it; `reason` says which, and why.
    Adapted = 5,
}

impl LinkEntryKind {
    fn of(code: i64) -> Result<Self, StoreError> {
        let all = [Self::Connected, Self::Resynced, Self::Suspect, Self::Away, Self::Adapted];
        let found = all.into_iter().find(|k| *k as i64 == code);
        found.ok_or_else(|| StoreError::damaged("unknown kind of link entry", code))
    }
}

/// The resolution of points that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Points of minutes, kept for a day.
    Minutes,
    /// Points of hours, kept for 90 days.
    Hours,
}

impl Resolution {
    /// Milliseconds from one point to the next.
    pub fn step(self) -> i64 {
        STEPS[self as usize]
    }
    fn table(self) -> &'static str {
        ["minutes", "hours"][self as usize]
    }
}

/// The history of links. Whoever has it is alone with the file.
#[derive(Debug)]
pub struct LinkStore {
    conn: Connection,
    refs: HashMap<Arc<str>, i64>,
    run: i64,
    budget: u64,
    _lock: outlast_sqlite::Lock,
}

impl LinkStore {
    /// Opens or creates the file, which may grow to about `budget` bytes; the oldest minutes go
    /// first. A run of the coordinator begins.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with the file.
    pub fn open(path: &Path, budget: u64, now: i64) -> Result<LinkStore, StoreError> {
        let (conn, lock) = outlast_sqlite::open_owned(path, &KIND)?;
        conn.execute("INSERT INTO runs (started_at, alive_at) VALUES (?1, ?1)", [now])?;
        let run = conn.last_insert_rowid();
        let refs = {
            let mut query = conn.prepare("SELECT store_id, ref FROM workers")?;
            let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        Ok(LinkStore { conn, refs, run, budget, _lock: lock })
    }

    fn begin(&mut self) -> Result<Work<'_>, StoreError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Work { tx, refs: &mut self.refs, fresh: Vec::new() })
    }

    /// Adds the points of the minute that began at `at`. What is there of it is added to.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was added.
    pub fn put_minute(
        &mut self,
        at: i64,
        points: &[(Arc<str>, Point)],
        now: i64,
    ) -> Result<(), StoreError> {
        let run = self.run;
        let mut work = self.begin()?;
        for (worker, point) in points {
            let worker = work.number(worker)?;
            work.add(Resolution::Minutes, at, worker, point)?;
        }
        work.tx.execute("UPDATE runs SET alive_at = ?1 WHERE id = ?2", [now, run])?;
        work.commit()
    }

    /// Adds what happened to links, in order.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was added.
    pub fn put_links(&mut self, entries: &[LinkEntry], now: i64) -> Result<(), StoreError> {
        let run = self.run;
        let mut work = self.begin()?;
        for e in entries {
            let worker = work.number(&e.worker)?;
            work.tx
                .prepare_cached(
                    "INSERT INTO links (worker, at, kind, cause, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((worker, e.at, e.kind as i64, e.cause.number(), &e.reason))?;
            work.tx
                .prepare_cached(
                    "DELETE FROM links WHERE worker = ?1 AND at < (SELECT at FROM links
                     WHERE worker = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute([worker, MAX_LINKS])?;
        }
        work.tx.execute("UPDATE runs SET alive_at = ?1 WHERE id = ?2", [now, run])?;
        work.commit()
    }

    /// Stores active alerts, and deletes cleared ones.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was changed.
    pub fn put_alerts(&mut self, entries: &[AlertEntry]) -> Result<(), StoreError> {
        let work = self.begin()?;
        for AlertEntry { worker, rule, alert } in entries {
            let drop = "DELETE FROM alerts WHERE worker = ?1 AND rule = ?2";
            work.tx.prepare_cached(drop)?.execute((worker, rule))?;
            if let Some(alert) = alert {
                let put = "INSERT INTO alerts VALUES (?1, ?2, ?3)";
                work.tx.prepare_cached(put)?.execute((worker, rule, alert))?;
            }
        }
        work.commit()
    }

    /// Returns the active alerts as they were reported (JSON).
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn alerts(&self) -> Result<Vec<String>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT alert FROM alerts")?;
        let rows = query.query_map([], |r| r.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets a worker.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was removed.
    pub fn forget(&mut self, worker: &str) -> Result<(), StoreError> {
        // Its points are found by nobody any more, and go when they are old.
        let Some(number) = self.refs.remove(worker) else { return Ok(()) };
        self.conn.execute("DELETE FROM links WHERE worker = ?1", [number])?;
        self.conn.execute("DELETE FROM workers WHERE ref = ?1", [number])?;
        Ok(())
    }

    /// Combines complete hours of minutes; then deletes points that are too old or too many.
    ///
    /// # Errors
    /// [`StoreError`]; what was done by then stays.
    pub fn tidy(&mut self, now: i64) -> Result<(), StoreError> {
        let hour = STEPS[1];
        let this = now.div_euclid(hour) * hour;
        let done: i64 = self.conn.query_row("SELECT hours_to FROM done", [], |r| r.get(0))?;
        let first: Option<i64> = self.conn.query_row(
            "SELECT min(at) FROM minutes WHERE at >= ?1 AND at < ?2",
            [done, this],
            |r| r.get(0),
        )?;
        if let Some(first) = first {
            let mut at = first.div_euclid(hour) * hour;
            while at < this {
                let mut sums: HashMap<i64, Point> = HashMap::new();
                self.each_minute(at, at + hour, |worker, point| {
                    sums.entry(worker).or_default().merge(&point);
                })?;
                let work = self.begin()?;
                for (worker, point) in sums {
                    work.add(Resolution::Hours, at, worker, &point)?;
                }
                at += hour;
                work.tx.execute("UPDATE done SET hours_to = ?1", [at])?;
                work.commit()?;
            }
        }
        for (table, kept) in [("minutes", KEPT[0]), ("hours", KEPT[1]), ("links", KEPT[2])] {
            self.conn.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [now - kept])?;
        }
        self.conn.execute("DELETE FROM runs WHERE id <= ?1", [self.run - MAX_RUNS])?;
        self.fit()
    }

    /// Removes the oldest until the file's content is within its budget.
    fn fit(&mut self) -> Result<(), StoreError> {
        for table in ["minutes", "hours", "links"] {
            while self.used()? > self.budget {
                let range: (Option<i64>, Option<i64>) = self.conn.query_row(
                    &format!("SELECT min(at), max(at) FROM {table}"),
                    [],
                    |r| Ok((r.get(0)?, r.get(1)?)),
                )?;
                let (Some(first), Some(last)) = range else { break };
                let cut = first + (last - first) / 8;
                self.conn.execute(&format!("DELETE FROM {table} WHERE at <= ?1"), [cut])?;
            }
        }
        Ok(())
    }

    /// Bytes that the content takes.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn used(&self) -> Result<u64, StoreError> {
        let ask =
            |what: &str| self.conn.query_row(&format!("PRAGMA {what}"), [], |r| r.get::<_, i64>(0));
        let pages = ask("page_count")? - ask("freelist_count")?;
        Ok((pages * ask("page_size")?).unsigned_abs())
    }

    fn each_minute(
        &self,
        from: i64,
        to: i64,
        mut each: impl FnMut(i64, Point),
    ) -> Result<(), StoreError> {
        let sql = "SELECT worker, point FROM minutes WHERE at >= ?1 AND at < ?2 ORDER BY at";
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query([from, to])?;
        while let Some(r) = rows.next()? {
            each(r.get(0)?, point(r.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?);
        }
        Ok(())
    }

    /// A worker's points of intervals that begin from `from` on and before `to`, in order.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn points(
        &self,
        worker: &str,
        resolution: Resolution,
        from: i64,
        to: i64,
    ) -> Result<Vec<(i64, Point)>, StoreError> {
        let Some(number) = self.refs.get(worker) else { return Ok(Vec::new()) };
        let step = resolution.step();
        let from = from.div_euclid(step) * step;
        let from = from.max(to.saturating_sub(step * MAX_POINTS));
        // Hours that have not been made yet are made of their minutes.
        let mut found = Vec::new();
        let sql = format!("SELECT point FROM {} WHERE at = ?1 AND worker = ?2", resolution.table());
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut at = from;
        while at < to {
            let one = query.query_row([at, *number], |r| {
                Ok(point(r.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?))
            });
            if let Some(one) = one.optional()? {
                found.push((at, one?));
            }
            at += step;
        }
        if resolution == Resolution::Hours {
            let done: i64 = self.conn.query_row("SELECT hours_to FROM done", [], |r| r.get(0))?;
            let open = self.points(worker, Resolution::Minutes, from.max(done), to)?;
            for (at, point) in open {
                let at = at.div_euclid(step) * step;
                match found.last_mut() {
                    Some((last, sum)) if *last == at => sum.merge(&point),
                    _ => found.push((at, point)),
                }
            }
        }
        Ok(found)
    }

    /// Returns the events of a worker's link: the newest `limit` before `to`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn links(&self, worker: &str, to: i64, limit: usize) -> Result<Vec<LinkEntry>, StoreError> {
        let Some(number) = self.refs.get(worker) else { return Ok(Vec::new()) };
        let mut query = self.conn.prepare_cached(
            "SELECT at, kind, cause, reason FROM links WHERE worker = ?1 AND at < ?2
             ORDER BY at DESC, id DESC LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = query.query([*number, to, limit])?;
        let mut found = Vec::new();
        while let Some(r) = rows.next()? {
            found.push(LinkEntry {
                worker: worker.into(),
                at: r.get(0)?,
                kind: LinkEntryKind::of(r.get(1)?)?,
                cause: LinkCause::of(r.get(2)?),
                reason: r.get(3)?,
            });
        }
        found.reverse();
        Ok(found)
    }

    /// Returns the coordinator's runs, (start, last known time), oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn runs(&self) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut query =
            self.conn.prepare_cached("SELECT started_at, alive_at FROM runs ORDER BY id")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

struct Work<'a> {
    tx: Transaction<'a>,
    refs: &'a mut HashMap<Arc<str>, i64>,
    /// Numbers that hold only once this is committed.
    fresh: Vec<Arc<str>>,
}

impl Work<'_> {
    fn number(&mut self, worker: &Arc<str>) -> Result<i64, StoreError> {
        if let Some(number) = self.refs.get(worker) {
            return Ok(*number);
        }
        self.tx.execute("INSERT INTO workers (store_id) VALUES (?1)", [worker])?;
        let number = self.tx.last_insert_rowid();
        self.refs.insert(worker.clone(), number);
        self.fresh.push(worker.clone());
        Ok(number)
    }

    fn add(&self, to: Resolution, at: i64, worker: i64, new: &Point) -> Result<(), StoreError> {
        let table = to.table();
        let insert = format!("INSERT INTO {table} VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING");
        let mut insert = self.tx.prepare_cached(&insert)?;
        if insert.execute((at, worker, StoredPoint::from(new).encode_to_vec()))? > 0 {
            return Ok(());
        }
        // Of a run that ended within this interval.
        let sql = format!("SELECT point FROM {table} WHERE at = ?1 AND worker = ?2");
        let old: Vec<u8> = self.tx.query_row(&sql, [at, worker], |r| r.get(0))?;
        let mut sum = point(&old)?;
        sum.merge(new);
        let sql = format!("UPDATE {table} SET point = ?3 WHERE at = ?1 AND worker = ?2");
        self.tx.execute(&sql, (at, worker, StoredPoint::from(&sum).encode_to_vec()))?;
        Ok(())
    }

    fn commit(mut self) -> Result<(), StoreError> {
        let fresh = std::mem::take(&mut self.fresh);
        let Work { tx, refs, .. } = self;
        tx.commit().inspect_err(|_| {
            for worker in &fresh {
                refs.remove(worker);
            }
        })?;
        Ok(())
    }
}

fn point(bytes: &[u8]) -> Result<Point, StoreError> {
    let stored = StoredPoint::decode(bytes);
    stored.map(Point::from).map_err(|e| StoreError::damaged("a point of a history", e))
}
