//! Lists of tasks. The index to walk is chosen here, not by SQLite, which has no statistics.

use super::load;
use super::schema::{queue_column, state_code};
use crate::StoreError;
use crate::db::{int, uint};
use crate::types::{Counts, StoredTask, TaskFilter, TaskPage};
use outlast_core::records::TaskState;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use std::sync::Arc;

const COLUMNS: &str = "t.number, t.id, t.spec, t.state, t.epoch, t.ended_epoch, t.retries,
    t.cancelling, w.store_id, w.name, t.submitted_at, t.assigned_at, t.started_at, t.ended_at,
    t.reason, t.outcome IS NOT NULL, t.owner";
const NAMED: &str = "LEFT JOIN worker_refs w ON w.ref = t.worker";

/// Number of rows up to which they are read and sorted without searching for a better index.
const FEW: i64 = 5_000;

fn stored(r: &Row<'_>) -> Result<StoredTask, StoreError> {
    let number = |v: Option<i64>| uint(v.unwrap_or(0));
    Ok(StoredTask {
        number: uint(r.get(0)?)?,
        id: r.get(1)?,
        spec: load::spec(r.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
        state: load::state(r.get(3)?)?,
        epoch: uint(r.get(4)?)?,
        ended_epoch: number(r.get(5)?)?,
        retries: load::small(r.get(6)?)?,
        cancelling: r.get(7)?,
        worker: r.get::<_, Option<Arc<str>>>(8)?,
        worker_name: r.get(9)?,
        submitted_at: r.get(10)?,
        assigned_at: r.get(11)?,
        started_at: r.get(12)?,
        ended_at: r.get(13)?,
        reason: r.get::<_, Option<String>>(14)?.unwrap_or_default(),
        has_outcome: r.get(15)?,
        owner: r.get(16)?,
    })
}

pub(super) fn task(conn: &Connection, id: &str) -> Result<Option<StoredTask>, StoreError> {
    let mut query =
        conn.prepare_cached(&format!("SELECT {COLUMNS} FROM tasks t {NAMED} WHERE t.id = ?1"))?;
    let mut rows = query.query([id])?;
    rows.next()?.map(stored).transpose()
}

/// Index that finds the candidates; the rest of the filter is checked on each of them.
#[derive(Clone, Copy, PartialEq)]
enum Walk {
    State,
    Id,
    Label,
    Worker,
    Queue,
    Paused,
    Owner,
    All,
}

pub(super) fn list(
    conn: &Connection,
    filter: &TaskFilter,
    cursor: Option<u64>,
    limit: usize,
    newest_first: bool,
) -> Result<TaskPage, StoreError> {
    let limit = limit.clamp(1, 10_000);
    let mut states = filter.states.clone();
    states.sort_unstable();
    states.dedup();
    let walk = choose(conn, filter, &states)?;
    // One more says whether there is another page.
    let page = Page { filter, cursor, limit: limit + 1, newest_first };
    let mut tasks = Vec::new();
    if matches!(walk, Walk::State | Walk::Owner) {
        if states.is_empty() {
            states = super::schema::STATES.to_vec();
        }
        // The index is ordered by number within one state only.
        for state in &states {
            page.query(conn, walk, std::slice::from_ref(state), &mut tasks)?;
        }
        tasks.sort_unstable_by_key(|t| t.number);
        if newest_first {
            tasks.reverse();
        }
    } else {
        page.query(conn, walk, &states, &mut tasks)?;
    }
    let more = tasks.len() > limit;
    tasks.truncate(limit);
    let next = tasks.last().map(|t| t.number).filter(|_| more);
    Ok(TaskPage { tasks, next })
}

/// Counts the tasks of a filter in each state.
pub(super) fn count(conn: &Connection, filter: &TaskFilter) -> Result<Counts, StoreError> {
    let mut states = filter.states.clone();
    states.sort_unstable();
    states.dedup();
    let walk = choose(conn, filter, &states)?;
    let page = Page { filter, cursor: None, limit: 0, newest_first: false };
    if walk == Walk::Owner && states.is_empty() {
        states = super::schema::STATES.to_vec();
    }
    let (terms, from) = page.terms(walk, &states);
    let condition = terms.condition();
    let sql = format!(
        "SELECT t.state, count(*), total(t.paused = 1 AND t.state < 2),
             count(t.started_at) FROM {from}
         WHERE {condition} GROUP BY t.state"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query(params_from_iter(terms.values))?;
    let mut counts = Counts::default();
    while let Some(r) = rows.next()? {
        let found = uint(r.get(1)?)?;
        match load::state(r.get(0)?)? {
            TaskState::Pending => counts.pending = found,
            TaskState::Assigned => {
                (counts.assigned, counts.running) = (found, uint(r.get(3)?)?);
            }
            TaskState::Succeeded => counts.succeeded = found,
            TaskState::Failed => counts.failed = found,
            TaskState::Cancelled => counts.cancelled = found,
        }
        counts.paused += r.get::<_, f64>(2)? as u64;
    }
    Ok(counts)
}

fn choose(
    conn: &Connection,
    filter: &TaskFilter,
    states: &[TaskState],
) -> Result<Walk, StoreError> {
    if filter.owner.is_some() {
        return Ok(Walk::Owner);
    }
    if filter.paused {
        let paused: i64 = conn.query_row("SELECT paused FROM totals", [], |r| r.get(0))?;
        if paused < FEW {
            return Ok(Walk::Paused);
        }
    }
    if !states.is_empty() {
        let sum: i64 = conn.query_row(
            "SELECT pending * ?1 + assigned * ?2 + succeeded * ?3 + failed * ?4 + cancelled * ?5
             FROM totals",
            super::schema::STATES.map(|s| i64::from(states.contains(&s))),
            |r| r.get(0),
        )?;
        if sum < FEW {
            return Ok(Walk::State);
        }
    }
    if let Some(prefix) = &filter.id_prefix {
        let found: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_id
                 WHERE id >= ?1 AND id < ?2 LIMIT ?3)",
            )?
            .query_row((prefix, after(prefix), FEW), |r| r.get(0))?;
        // More than that are found soon enough by whatever other walk.
        if found < FEW {
            return Ok(Walk::Id);
        }
    }
    let queue = filter.queue.as_deref().and_then(queue_column);
    Ok(if !filter.labels.is_empty() {
        Walk::Label
    } else if filter.worker.is_some() {
        Walk::Worker
    } else if queue.is_some() {
        Walk::Queue
    } else if filter.paused {
        Walk::Paused
    } else if !states.is_empty() {
        Walk::State
    } else {
        Walk::All
    })
}

/// Greater than every id with this prefix: ids are ASCII.
fn after(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

struct Page<'a> {
    filter: &'a TaskFilter,
    cursor: Option<u64>,
    limit: usize,
    newest_first: bool,
}

/// Conditions and what their question marks stand for.
#[derive(Default)]
struct Terms {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Terms {
    fn add(&mut self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.sql.push(sql.into());
        self.values.extend(values);
    }

    fn condition(&self) -> String {
        if self.sql.is_empty() { "1".to_owned() } else { self.sql.join(" AND ") }
    }
}

impl Page<'_> {
    fn query(
        &self,
        conn: &Connection,
        walk: Walk,
        states: &[TaskState],
        tasks: &mut Vec<StoredTask>,
    ) -> Result<(), StoreError> {
        let (sql, values) = self.sql(walk, states);
        let mut query = conn.prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(values))?;
        while let Some(r) = rows.next()? {
            tasks.push(stored(r)?);
        }
        Ok(())
    }

    /// The conditions, and the tables that they are of.
    fn terms(&self, walk: Walk, states: &[TaskState]) -> (Terms, &'static str) {
        let filter = self.filter;
        let mut terms = Terms::default();
        // A `+` keeps SQLite from using an index for a condition that is only checked.
        let mark = |own| if walk == own { "" } else { "+" };
        if !states.is_empty() {
            let codes: Vec<_> = states.iter().map(|s| state_code(*s).to_string()).collect();
            let mark = if walk == Walk::Owner { "" } else { mark(Walk::State) };
            terms.add(format!("{mark}t.state IN ({})", codes.join(",")), []);
        }
        if let Some(owner) = &filter.owner {
            terms.add(format!("{}t.owner = ?", mark(Walk::Owner)), [owner.clone().into()]);
        }
        if filter.paused {
            let mark = mark(Walk::Paused);
            terms.add(format!("{mark}t.paused = 1 AND {mark}t.state < 2"), []);
        }
        if filter.started {
            terms.add("(+t.state <> 1 OR t.started_at IS NOT NULL)", []);
        }
        let mut labels = filter.labels.iter();
        if walk == Walk::Label
            && let Some((key, value)) = labels.next()
        {
            let pair = [key.clone().into(), value.clone().into()];
            terms.add("l.key = ? AND l.value = ?", pair);
        }
        for (key, value) in labels {
            terms.add(
                "EXISTS (SELECT 1 FROM labels x
                     WHERE x.key = ? AND x.value = ? AND x.number = t.number)",
                [key.clone().into(), value.clone().into()],
            );
        }
        if let Some(worker) = &filter.worker {
            let sql = "t.worker = (SELECT ref FROM worker_refs WHERE store_id = ?)";
            terms.add(format!("{}{sql}", mark(Walk::Worker)), [worker.clone().into()]);
        }
        match filter.queue.as_deref().map(queue_column) {
            None => {}
            Some(None) => terms.add("+t.queue IS NULL", []),
            Some(Some(queue)) => {
                terms.add(format!("{}t.queue = ?", mark(Walk::Queue)), [queue.to_owned().into()]);
            }
        }
        if let Some(prefix) = &filter.id_prefix {
            let mark = mark(Walk::Id);
            let range = [prefix.clone().into(), after(prefix).into()];
            terms.add(format!("{mark}t.id >= ? AND {mark}t.id < ?"), range);
        }
        let number = if walk == Walk::Label { "l.number" } else { "t.number" };
        let beyond = if self.newest_first { "<" } else { ">" };
        if let Some(cursor) = self.cursor {
            // A cursor beyond all numbers is one that nothing follows.
            let cursor = int(cursor).unwrap_or(i64::MAX);
            let mark = mark_number(walk);
            terms.add(format!("{mark}{number} {beyond} ?"), [cursor.into()]);
        }
        let from = match walk {
            Walk::State => "tasks t INDEXED BY tasks_state",
            Walk::Id => "tasks t INDEXED BY tasks_id",
            Walk::Label => "labels l CROSS JOIN tasks t ON t.number = l.number",
            Walk::Worker => "tasks t INDEXED BY tasks_worker",
            Walk::Queue => "tasks t INDEXED BY tasks_queue",
            Walk::Paused => "tasks t INDEXED BY tasks_paused",
            Walk::Owner => "tasks t INDEXED BY tasks_owner",
            Walk::All => "tasks t NOT INDEXED",
        };
        (terms, from)
    }

    fn sql(&self, walk: Walk, states: &[TaskState]) -> (String, Vec<Value>) {
        let (mut terms, from) = self.terms(walk, states);
        let condition = terms.condition();
        let number = if walk == Walk::Label { "l.number" } else { "t.number" };
        let order = if self.newest_first { "DESC" } else { "ASC" };
        terms.values.push((self.limit as i64).into());
        let sql = format!(
            "SELECT {COLUMNS} FROM {from} {NAMED} WHERE {condition}
             ORDER BY {number} {order} LIMIT ?"
        );
        (sql, terms.values)
    }
}

/// Every index is ordered by number within one key, but the one of ids.
fn mark_number(walk: Walk) -> &'static str {
    if walk == Walk::Id { "+" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_walk_searches_its_index_and_needs_no_sort() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(&super::super::schema::KIND.migrations.concat()).unwrap();
        let filter = TaskFilter {
            states: vec![TaskState::Failed],
            labels: vec![("a".into(), "b".into()), ("c".into(), "d".into())],
            queue: Some("q".into()),
            worker: Some("w".into()),
            id_prefix: Some("t".into()),
            started: true,
            paused: true,
            owner: Some("o".into()),
        };
        let page = Page { filter: &filter, cursor: Some(5), limit: 10, newest_first: true };
        for (walk, index) in [
            (Walk::State, "USING INDEX tasks_state (state=? AND rowid<?)"),
            (Walk::Id, "USING INDEX tasks_id (id>? AND id<?)"),
            (Walk::Label, "SEARCH l USING PRIMARY KEY (key=? AND value=? AND number<?)"),
            (Walk::Worker, "USING INDEX tasks_worker (worker=? AND rowid<?)"),
            (Walk::Queue, "USING INDEX tasks_queue (queue=? AND rowid<?)"),
            (Walk::Paused, "USING INDEX tasks_paused (paused=? AND rowid<?)"),
            (Walk::Owner, "USING INDEX tasks_owner (owner=? AND state=? AND rowid<?)"),
            (Walk::All, "SEARCH t USING INTEGER PRIMARY KEY (rowid<?)"),
        ] {
            let (sql, values) = page.sql(walk, &filter.states);
            let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps: Vec<String> = query
                .query_map(params_from_iter(values), |r| r.get(3))
                .and_then(Iterator::collect)
                .unwrap();
            let plan = steps.join("; ");
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("SCAN t"), "{plan}");
            assert_eq!(plan.contains("TEMP B-TREE"), walk == Walk::Id, "{plan}");
        }
    }
}
