//! The coordinator's tables, and how words of the core are kept as small numbers in them.

use crate::db;
use crate::types::EventKind;
use outlast_core::records::TaskState;
use outlast_sqlite::Kind;

/// "OLC", 1
pub(crate) const KIND: Kind = db::kind(
    "a coordinator's store",
    0x4F4C_4301,
    &[V1, V2, V3, RECOVERY, PAUSED, ASKED, IDENTITY, AWAITED],
);

// `nonce` is that of the worker's newest process, `principal` the name of the key that the worker is
// bound to. `owner` is the name of the key that a task was submitted with. Of attempts above
// `gap_above` and up to `gap_up_to` the records may be lost: the store was restored from a backup.
// `workers` of a key is a JSON array of names, or prefixes that end in `*`.
const IDENTITY: &str = "
ALTER TABLE workers ADD COLUMN nonce INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN owner TEXT;
ALTER TABLE tasks ADD COLUMN gap_above INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN gap_up_to INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN workers TEXT;
ALTER TABLE keys ADD COLUMN own_tasks INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_owner ON tasks (owner, state) WHERE owner IS NOT NULL;
";

// The checkpoint that a task's next attempt waits for: where it lies, and the store id of its worker.
const AWAITED: &str = "
ALTER TABLE tasks ADD COLUMN awaited_epoch INTEGER;
ALTER TABLE tasks ADD COLUMN awaited_number INTEGER;
ALTER TABLE tasks ADD COLUMN awaited_worker TEXT;
";

// Operator requests to a task that are still pending: `place` is the worker that it should run on,
// or, if `place_there` is 0, leave.
const ASKED: &str = "
ALTER TABLE tasks ADD COLUMN asked_checkpoint INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN place TEXT;
ALTER TABLE tasks ADD COLUMN place_there INTEGER;
";

// Those that are paused and not over are counted and listed at any number of tasks.
const PAUSED: &str = "
ALTER TABLE totals ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
UPDATE totals SET paused = (SELECT count(*) FROM tasks WHERE state IN (0, 1) AND paused = 1);
CREATE INDEX tasks_paused ON tasks (paused) WHERE paused = 1 AND state < 2;
";

// The newest attempts of tasks that were removed: a new task of such an id goes on from there.
const V3: &str = "
ALTER TABLE tasks ADD COLUMN after INTEGER NOT NULL DEFAULT 0;

CREATE TABLE removed (
    id TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX removed_at ON removed (at);
";

// The items are JSON of the core's types of that name.
const RECOVERY: &str = "
ALTER TABLE tasks ADD COLUMN recovery TEXT;
ALTER TABLE events ADD COLUMN decision TEXT;

CREATE TABLE failures (
    number INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    task_type TEXT NOT NULL,
    item TEXT NOT NULL
);

CREATE TABLE quarantines (
    worker TEXT PRIMARY KEY,
    item TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE learned (
    task_type TEXT NOT NULL,
    hardware TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (task_type, hardware)
) WITHOUT ROWID;
";

// Causes are the numbers of `outlast_model::Cause` and `LinkCause`; 0 is unknown.
const V2: &str = "
ALTER TABLE tasks ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN gone_cause INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;

-- `kept` is 0 once a rule removed it, or when it never was here: then it is history only.
CREATE TABLE checkpoints (
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    nth INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    manifest BLOB NOT NULL,
    worker INTEGER,
    at INTEGER NOT NULL,
    gone_at INTEGER,
    artifact TEXT,
    item BLOB NOT NULL,
    PRIMARY KEY (number, epoch, nth)
) WITHOUT ROWID;
CREATE INDEX checkpoints_manifest ON checkpoints (manifest);

CREATE TABLE states (
    number INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    item BLOB NOT NULL
);
";

// The usual events of a task (submitted, assigned, started, ended) are in its row alone; `events`
// holds the rest. `round` grows whenever the row forgets an attempt, whose entries then move to
// `events`; `round`, `phase` and the rowid put them in the order in which they were recorded.
// Phases: 0 before the assignment, 1 assignment, 2 after it, 3 start, 4 after it, 5 end, 6 after.
// The spec is last but one and the outcome last, so that reading the rest skips them.
const V1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) WITHOUT ROWID;

CREATE TABLE totals (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    pending INTEGER NOT NULL,
    assigned INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    last_number INTEGER NOT NULL
);
INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0);

-- Every worker that was ever named, so that tasks and events can name it by a small number.
CREATE TABLE worker_refs (
    ref INTEGER PRIMARY KEY,
    store_id TEXT NOT NULL UNIQUE,
    name TEXT
);

CREATE TABLE workers (
    store_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    connection INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    prefetch INTEGER NOT NULL,
    capabilities TEXT NOT NULL,
    labels TEXT NOT NULL,
    version TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    gone_at INTEGER,
    gone_reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX workers_name ON workers (name);

CREATE TABLE cursors (
    worker INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (worker, lane)
) WITHOUT ROWID;

-- state: 0 pending, 1 assigned, 2 succeeded, 3 failed, 4 cancelled
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    round INTEGER NOT NULL,
    worker INTEGER,
    submitted_at INTEGER NOT NULL,
    assigned_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    ended_epoch INTEGER,
    ended_worker INTEGER,
    priority INTEGER NOT NULL,
    queue TEXT,
    reason TEXT,
    spec BLOB NOT NULL,
    outcome BLOB
);
CREATE UNIQUE INDEX tasks_id ON tasks (id);
CREATE INDEX tasks_state ON tasks (state);
CREATE INDEX tasks_worker ON tasks (worker) WHERE worker IS NOT NULL;
CREATE INDEX tasks_queue ON tasks (queue) WHERE queue IS NOT NULL;

CREATE TABLE labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (key, value, number)
) WITHOUT ROWID;

CREATE TABLE events (
    event INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    round INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    worker INTEGER,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    outcome BLOB
);
CREATE INDEX events_number ON events (number);

-- Outcomes of tasks that are not known here.
CREATE TABLE orphans (
    orphan INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    worker INTEGER,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    outcome BLOB NOT NULL
);
CREATE INDEX orphans_task ON orphans (task);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;
";

pub(crate) const STATES: [TaskState; 5] = [
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Succeeded,
    TaskState::Failed,
    TaskState::Cancelled,
];

pub(crate) fn state_code(state: TaskState) -> i64 {
    match state {
        TaskState::Pending => 0,
        TaskState::Assigned => 1,
        TaskState::Succeeded => 2,
        TaskState::Failed => 3,
        TaskState::Cancelled => 4,
    }
}

pub(crate) fn state_of(code: i64) -> Option<TaskState> {
    usize::try_from(code).ok().and_then(|c| STATES.get(c)).copied()
}

pub(crate) fn kind_code(kind: EventKind) -> i64 {
    kind as i64
}

/// Order of an entry within its `round`.
pub(crate) mod phase {
    pub(crate) const BEFORE: i64 = 0;
    pub(crate) const ASSIGNED: i64 = 1;
    pub(crate) const AFTER_ASSIGNED: i64 = 2;
    pub(crate) const STARTED: i64 = 3;
    pub(crate) const AFTER_STARTED: i64 = 4;
    pub(crate) const ENDED: i64 = 5;
    pub(crate) const AFTER_ENDED: i64 = 6;
}

/// The queue as the table keeps it: none for the default one, so that it needs no index.
pub(crate) fn queue_column(queue: &str) -> Option<&str> {
    Some(queue).filter(|q| !q.is_empty() && *q != "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_store_learns_how_many_are_paused() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let (former, rest) = KIND.migrations.split_at(4);
        conn.execute_batch(&former.concat()).unwrap();
        for (number, state, paused) in [(1, 0, 1), (2, 1, 1), (3, 1, 0), (4, 2, 1), (5, 4, 1)] {
            let sql = "INSERT INTO tasks (number, id, state, epoch, retries, cancelling, round,
                 submitted_at, priority, spec, paused) VALUES (?1, ?1, ?2, 0, 0, 0, 0, 0, 0, '', ?3)";
            conn.execute(sql, [number, state, paused]).unwrap();
        }
        conn.execute_batch(&rest.concat()).unwrap();
        let paused: i64 = conn.query_row("SELECT paused FROM totals", [], |r| r.get(0)).unwrap();
        assert_eq!(paused, 2);
    }
}
