//! Conditions that only a store on disk can meet: damaged, foreign, newer and locked files, a full
//! disk, readers and key managers besides the owner.

mod common;

use common::*;
use outlast_core::records::{CoordRecord, TaskState};
use outlast_store::*;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn open_error(path: &Path) -> StoreError {
    CoordStore::open(path).map(|_| ()).expect_err("must not open")
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("c.db");
    drop(CoordStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Newer { found: 99, known: 8, .. }), "{error}");
    assert!(error.to_string().contains("upgrade"), "{error}");
    assert!(matches!(CoordReader::open(&path), Err(StoreError::Newer { .. })));
    assert!(matches!(Keys::open(&path), Err(StoreError::Newer { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(open_error(&path), StoreError::Foreign { .. }));
    assert!(matches!(Keys::open(&path), Err(StoreError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    let path = folder.path().join("w.db");
    drop(WorkerStore::open(&path).unwrap());
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("coordinator"), "{error}");
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = folder();
    let text = folder.path().join("text.db");
    fs::write(&text, "this is no database, whatever its name says; ".repeat(50)).unwrap();
    assert!(matches!(open_error(&text), StoreError::Damaged { .. }));

    let path = folder.path().join("c.db");
    let (mut store, _) = CoordStore::open(&path).unwrap();
    // All are over, so that nothing of them is read at the start: the check has to find it.
    let tasks = (1..500).map(|n| format!("t{n}"));
    let records = tasks.zip(1..).flat_map(|(t, n)| [submitted(&t, n, 1), cancelled(&t, 2)]);
    store.commit(&[batch(records.collect())]).unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("a header overwritten", |b| b[..16].fill(7)),
        ("pages overwritten", |b| b[40_000..60_000].fill(0xAA)),
        ("a page of ended tasks", |b| {
            let page = b.len() / 4096 * 3 / 4;
            b[page * 4096..][..4096].fill(0xAA);
        }),
        ("the end cut off", |b| b.truncate(b.len() / 2)),
        ("cut off in a page", |b| b.truncate(5_000)),
    ];
    for (what, harm) in harms {
        let mut bytes = good.clone();
        harm(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let error = open_error(&path);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert!(!error.is_retryable());
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(CoordStore::open(&path).unwrap().1.last_number, 499);
}

#[test]
fn an_interrupted_creation_is_completed() {
    let folder = folder();
    let path = folder.path().join("c.db");
    fs::write(&path, "").unwrap();
    assert!(matches!(CoordReader::open(&path), Err(StoreError::NotReady { .. })));
    drop(CoordStore::open(&path).unwrap());
    CoordReader::open(&path).unwrap();
    assert!(matches!(
        CoordReader::open(&folder.path().join("none.db")),
        Err(StoreError::NotReady { .. })
    ));
}

#[test]
fn a_store_has_one_owner() {
    let folder = folder();
    let path = folder.path().join("c.db");
    let (store, first) = CoordStore::open(&path).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
    let (_store, second) = CoordStore::open(&path).unwrap();
    assert_eq!(first.coordinator_id, second.coordinator_id);

    let path = folder.path().join("w.db");
    let (_store, _) = WorkerStore::open(&path).unwrap();
    assert!(matches!(WorkerStore::open(&path), Err(StoreError::Locked { .. })));
}

#[test]
#[cfg(unix)]
fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let inner = folder.path().join("a/b");
    let path = inner.join("c.db");
    let (mut store, _) = CoordStore::open(&path).unwrap();
    store.commit(&[batch(vec![submitted("t", 1, 1)])]).unwrap();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let files: Vec<_> = fs::read_dir(&inner).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(store);
    // A copy that somebody put back with other permissions is private again.
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    drop(CoordStore::open(&path).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_full_disk_applies_nothing_and_can_be_tried_again() {
    let mut s = SqlCoord::fresh();
    s.put(vec![submitted("a", 1, 1)]);
    let before = s.snapshot().unwrap();
    // A worker that is met for the first time in what fails must be met again afterwards.
    let big = |n: u64| vec![submitted(&format!("{n}-{}", "x".repeat(100)), n, 1)];
    let mut batches: Vec<_> = (2..2_000).map(|n| batch(big(n))).collect();
    batches.insert(0, batch(vec![assigned("a", 1, "w", 2), cursor("w", 5), seen("w", "n", 3)]));
    s.store.limit_pages(60).unwrap();
    for _ in 0..2 {
        let error = s.commit(&batches).expect_err("no room");
        assert!(matches!(error, StoreError::Full), "{error}");
        assert!(error.is_retryable());
        assert_eq!(s.snapshot().unwrap(), before);
        assert_eq!(s.reader.counts().unwrap().total(), 1);
    }
    s.store.limit_pages(1_000_000).unwrap();
    s.commit(&batches).unwrap();
    let s = s.reopen();
    let snapshot = s.snapshot().unwrap();
    assert_eq!((snapshot.tasks.len(), snapshot.workers.len()), (1_999, 1));
    assert_eq!(snapshot.tasks[0].assigned.worker.as_deref(), Some("w"));
    assert_eq!(snapshot.workers[0].1, [(RESULTS, 5)]);

    let mut w = SqlWorker::fresh();
    let accepted = |n: u64| accepted(&format!("{n}-{}", "x".repeat(100)), 1);
    w.store.limit_pages(20).unwrap();
    let batches = [batch((0..2_000).map(accepted).collect())];
    assert!(matches!(w.commit(&batches), Err(StoreError::Full)));
    assert!(w.snapshot().unwrap().attempts.is_empty());
    w.store.limit_pages(1_000_000).unwrap();
    w.commit(&batches).unwrap();
    assert_eq!(w.reopen().snapshot().unwrap().attempts.len(), 2_000);
}

#[test]
fn a_reader_sees_whole_commits_while_the_owner_writes() {
    let mut s = SqlCoord::fresh();
    let reader = s.store.reader().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let reading = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
                let page = reader.list(&TaskFilter::default(), None, 10_000, false).unwrap();
                assert_eq!(page.tasks.len() % 10, 0);
                assert_eq!(reader.counts().unwrap().total() % 10, 0);
                rounds += 1;
            }
        });
        for n in 0..60 {
            let tasks = (1..=10).map(|k| submitted(&format!("t{n}-{k}"), n * 10 + k, 1));
            s.put(tasks.collect());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reading.join().unwrap();
    });
    assert_eq!(s.reader.counts().unwrap().pending, 600);
}

#[test]
fn shown_tasks_and_workers_have_what_people_ask_for() {
    let mut s = SqlCoord::fresh();
    s.put(vec![seen("w", "name", 5), submitted("t", 1, 10), assigned("t", 1, "w", 20)]);
    let task = s.reader.task("t").unwrap().unwrap();
    assert_eq!((task.state, task.submitted_at), (TaskState::Assigned, 10));
    assert_eq!((task.assigned_at, task.started_at, task.ended_at), (Some(20), None, None));
    assert_eq!((task.worker.as_deref(), task.worker_name.as_deref()), (Some("w"), Some("name")));
    assert!(!task.has_outcome);
    s.put(vec![succeeded("t", 1, "w", 40), cursor("w", 3)]);
    s.put(vec![gone("w", "eof", 50)]);
    let task = s.reader.task("t").unwrap().unwrap();
    assert_eq!((task.ended_at, task.ended_epoch, task.has_outcome), (Some(40), 1, true));
    for key in ["w", "name"] {
        let worker = s.reader.worker(key).unwrap().unwrap();
        assert_eq!((worker.seen_at, worker.gone_at), (5, Some(50)));
        assert_eq!((worker.gone_reason.as_str(), &*worker.row.name), ("eof", "name"));
        assert_eq!(worker.cursors, [(RESULTS, 3)]);
    }
    assert_eq!(s.reader.worker("nobody").unwrap(), None);
    // The name outlives the worker.
    let forgotten =
        outlast_core::records::CoordRecord::WorkerForgotten { worker: "w".into(), at: 60 };
    s.put(vec![forgotten]);
    assert_eq!(s.reader.task("t").unwrap().unwrap().worker_name.as_deref(), Some("name"));
    assert!(s.reader.workers().unwrap().is_empty());
}

#[test]
fn outcomes_that_no_longer_count_can_be_read() {
    let mut s = SqlCoord::fresh();
    s.put(vec![submitted("t", 1, 1), assigned("t", 1, "w", 2), succeeded("t", 1, "w", 3)]);
    let retried = outlast_core::records::CoordRecord::Retried { task: "t".into(), at: 4 };
    s.put(vec![retried, assigned("t", 2, "w", 5), superseded("t", 1, "w", 6)]);
    let kinds = |v: Vec<PastOutcome>| v.into_iter().map(|o| o.event.kind).collect::<Vec<_>>();
    let past = s.reader.past_outcomes("t").unwrap();
    assert_eq!(kinds(past), [EventKind::Succeeded, EventKind::Superseded]);
    assert_eq!(kinds(s.reader.superseded("t").unwrap()), [EventKind::Superseded]);
    assert_eq!(s.reader.outcome("t").unwrap(), None);
}

#[test]
fn keys_are_made_checked_and_revoked_beside_a_running_coordinator() {
    let mut s = SqlCoord::fresh();
    let keys = Keys::open(&s.path()).unwrap();
    let other = Keys::open(&s.path()).unwrap();
    let first = keys.keys_version().unwrap();
    let made = keys.add_key("ci", Role::Submit).unwrap();
    s.put(vec![submitted("t", 1, 1)]);
    assert!(made.token.starts_with(&format!("olk_{}_", made.id)));
    assert!(!format!("{made:?}").contains(&made.token));
    let seen = other.verify(&made.token).unwrap().expect("valid");
    assert_eq!((seen.id.as_str(), seen.name.as_str(), seen.role), (&*made.id, "ci", Role::Submit));
    assert!(other.keys_version().unwrap() > first);

    let second = keys.add_key("ops", Role::Operate).unwrap();
    let mixed = format!("olk_{}_{}", made.id, second.token.rsplit('_').next().unwrap());
    for wrong in ["", "olk_", "olk__", "olk_nobody_00", &made.token[..20], &mixed] {
        assert_eq!(keys.verify(wrong).unwrap(), None, "{wrong}");
    }
    let version = keys.keys_version().unwrap();
    assert!(other.revoke_key(&made.id).unwrap());
    assert!(!other.revoke_key(&made.id).unwrap());
    assert!(!other.revoke_key("nobody").unwrap());
    assert!(keys.keys_version().unwrap() > version);
    assert_eq!(keys.verify(&made.token).unwrap(), None);
    assert!(keys.verify(&second.token).unwrap().is_some());
    let list = keys.list_keys().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list.iter().filter(|k| k.revoked_at.is_some()).count(), 1);

    let path = s.path();
    drop((s.store, s.reader, keys, other));
    let secret = second.token.rsplit('_').next().unwrap().as_bytes().to_vec();
    let stored = fs::read(path).unwrap();
    assert!(!stored.windows(secret.len()).any(|w| w == secret), "the secret is on disk");
}

#[test]
fn keys_can_be_made_before_the_first_start() {
    let folder = folder();
    let path = folder.path().join("c.db");
    let made = Keys::open(&path).unwrap().add_key("first", Role::Worker).unwrap();
    let (_store, _) = CoordStore::open(&path).unwrap();
    assert!(Keys::open(&path).unwrap().verify(&made.token).unwrap().is_some());
}

#[test]
fn roles_allow_what_they_say() {
    use Role::*;
    for (role, allowed) in
        [(Worker, vec![Worker]), (Submit, vec![Submit]), (Operate, vec![Worker, Submit, Operate])]
    {
        for needed in [Worker, Submit, Operate] {
            assert_eq!(role.allows(needed), allowed.contains(&needed), "{role:?} {needed:?}");
        }
        assert_eq!(Role::parse(role.as_str()), Some(role));
    }
    assert_eq!(Role::parse("root"), None);
}

#[test]
fn long_lists_are_the_same_whatever_index_is_walked() {
    use outlast_model::{Run, TaskSpec};
    let mut s = SqlCoord::fresh();
    let mut records = Vec::new();
    for n in 1..=12_000u64 {
        let mut spec = TaskSpec::new(Run::Shell("true".into()));
        spec.labels.insert("third".into(), (n % 3).to_string());
        spec.queue = if n % 5 == 0 { "five".into() } else { String::new() };
        let (task, number) = (format!("a{n:05}").into(), n);
        records.push(outlast_core::records::CoordRecord::Submitted {
            owner: None,
            task,
            number,
            spec: spec.into(),
            after: 0,
            at: 1,
        });
        if n % 2 == 0 {
            records.push(assigned(&format!("a{n:05}"), 1, if n % 4 == 0 { "x" } else { "y" }, 2));
        }
        if n % 6 == 0 {
            let task = format!("a{n:05}").into();
            records.push(CoordRecord::Started { task, epoch: 1, started_at: 3, at: 3 });
        }
        if n % 7 == 0 || n > 11_000 {
            records.push(CoordRecord::Paused { task: format!("a{n:05}").into(), on: true, at: 3 });
        }
    }
    s.put(records);
    let paused = |n: u64| n.is_multiple_of(7) || n > 11_000;
    assert_eq!(
        s.reader.counts().unwrap().paused,
        (1..=12_000).filter(|n| paused(*n)).count() as u64
    );
    assert_eq!(s.reader.running().unwrap(), 2_000);
    let (third, five) = (|n: u64| n.is_multiple_of(3), |n: u64| n.is_multiple_of(5));
    let label = vec![("third".to_owned(), "0".to_owned())];
    let none = TaskFilter::default;
    type Check<'a> = &'a dyn Fn(u64) -> bool;
    let cases: [(&str, TaskFilter, Check<'_>); 11] = [
        (
            "running",
            TaskFilter { started: true, states: vec![TaskState::Assigned], ..none() },
            &|n| n % 6 == 0,
        ),
        (
            "running or pending, in a queue",
            TaskFilter {
                started: true,
                states: vec![TaskState::Assigned, TaskState::Pending],
                queue: Some("five".into()),
                ..none()
            },
            &|n| five(n) && (n % 6 == 0 || n % 2 == 1),
        ),
        ("state", TaskFilter { states: vec![TaskState::Assigned], ..none() }, &|n| n % 2 == 0),
        ("worker", TaskFilter { worker: Some("x".into()), ..none() }, &|n| n % 4 == 0),
        ("default queue", TaskFilter { queue: Some("default".into()), ..none() }, &|n| !five(n)),
        (
            "label and state",
            TaskFilter { labels: label.clone(), states: vec![TaskState::Pending], ..none() },
            &|n| third(n) && n % 2 == 1,
        ),
        (
            "queue and label",
            TaskFilter { labels: label, queue: Some("five".into()), ..none() },
            &|n| third(n) && five(n),
        ),
        ("paused", TaskFilter { paused: true, ..none() }, &paused),
        (
            "paused, in one state",
            TaskFilter { paused: true, states: vec![TaskState::Assigned], ..none() },
            &|n| paused(n) && n % 2 == 0,
        ),
        ("few ids", TaskFilter { id_prefix: Some("a00".into()), ..none() }, &|n| n < 1_000),
        (
            "many ids, both states",
            TaskFilter {
                id_prefix: Some("a0".into()),
                states: vec![TaskState::Assigned, TaskState::Pending],
                ..none()
            },
            &|n| n < 10_000,
        ),
    ];
    for (name, filter, wanted) in cases {
        let expected: Vec<u64> = (1..=12_000).filter(|n| wanted(*n)).collect();
        for newest_first in [false, true] {
            let (mut cursor, mut found) = (None, Vec::new());
            loop {
                let page = s.reader.list(&filter, cursor, 997, newest_first).unwrap();
                found.extend(page.tasks.iter().map(|t| t.number));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            if newest_first {
                found.reverse();
            }
            assert!(found == expected, "{name}: {} found, not {}", found.len(), expected.len());
            let counts = s.reader.count(&filter).unwrap();
            let running = expected.iter().filter(|n| **n % 6 == 0).count() as u64;
            assert_eq!(
                (counts.total(), counts.running),
                (expected.len() as u64, running),
                "{name}"
            );
        }
    }
}
