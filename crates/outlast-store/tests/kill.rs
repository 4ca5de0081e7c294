//! A process that is killed during a commit loses nothing that it had acknowledged, and leaves nothing
//! half-written. The child is this test binary, with its role in a variable.
#![cfg(unix)]

mod common;

use common::*;
use outlast_core::records::{Batch, CoordRecord, WorkerRecord};
use outlast_store::{CoordReader, CoordStore, WorkerStore};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const CHILD: &str = "OUTLAST_TEST_COMMIT_INTO";
/// Batches in a group commit, and tasks in a batch.
const GROUP: u64 = 3;
const TASKS: u64 = 7;

fn name(batch: u64, n: u64) -> String {
    format!("task-{batch}-{n}")
}

/// Submits some tasks, ends those of the batch before, and moves the cursor to its own number.
fn coord_batch(number: u64) -> Batch<CoordRecord> {
    let mut records = Vec::new();
    for n in 0..TASKS {
        records.push(submitted(&name(number, n), number * TASKS + n, 1));
        if number > 1 {
            let before = name(number - 1, n);
            records.push(assigned(&before, 1, "w", 2));
            records.push(succeeded(&before, 1, "w", 3));
        }
    }
    records.push(cursor("w", number));
    Batch { number, records }
}

/// Finishes some attempts, acknowledging all but those of the two batches before.
fn worker_batch(number: u64) -> Batch<WorkerRecord> {
    let mut records = Vec::new();
    for n in 0..TASKS {
        let (task, epoch) = (name(number, n), 1);
        let spec = spec(&task);
        let outcome = outcome(&task, 1, 0);
        let (task, checkpoint, paused, after) = (task.into(), None, false, 0);
        records.push(WorkerRecord::Accepted { task, epoch, spec, checkpoint, paused, after });
        let seq = (number - 1) * TASKS + n + 1;
        records.push(WorkerRecord::Finished { lane: RESULTS, seq, outcome });
    }
    let seq = number.saturating_sub(3) * TASKS;
    records.push(WorkerRecord::Acked { lane: RESULTS, seq });
    Batch { number, records }
}

fn commit_for_ever<R>(
    first: u64,
    make: impl Fn(u64) -> Batch<R>,
    mut commit: impl FnMut(&[Batch<R>]),
) -> ! {
    let mut next = first;
    loop {
        let group: Vec<_> = (next..next + GROUP).map(&make).collect();
        commit(&group);
        next += GROUP;
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nacknowledged {}", next - 1).expect("the parent reads");
        out.flush().expect("the parent reads");
    }
}

#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (kind, path) = what.split_once(':').expect("kind:path");
    if kind == "coordinator" {
        let (mut store, snapshot) = CoordStore::open(Path::new(path)).expect("opens");
        let first = snapshot.last_number / TASKS + 1;
        commit_for_ever(first, coord_batch, |b| store.commit(b).expect("commits"));
    } else {
        let (mut store, snapshot) = WorkerStore::open(Path::new(path)).expect("opens");
        let first = (snapshot.next_seq - 1) / TASKS + 1;
        commit_for_ever(first, worker_batch, |b| store.commit(b).expect("commits"));
    }
}

/// Runs a child for a while; gives the last batch that it acknowledged.
fn run_and_kill(kind: &str, path: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("has a path"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{kind}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs itself");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let reading = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        lines.filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok()).last()
    });
    std::thread::sleep(after);
    child.kill().expect("was running"); // SIGKILL
    child.wait().expect("ends");
    reading.join().expect("reads").unwrap_or(0)
}

/// Rounds, and odd intervals, so that the kills fall into all parts of a commit. After the first ten
/// they grow, for machines on which a child commits nothing in so short a time.
fn intervals() -> impl Iterator<Item = (u64, Duration)> {
    let after = |round: u64| (60_000 + round * 7_919 % 50_000) << (round / 10);
    (0..80).map(move |round| (round, Duration::from_micros(after(round))))
}

#[test]
fn a_killed_coordinator_keeps_whole_acknowledged_batches() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("c.db");
    let mut acknowledged = 0;
    for (round, after) in intervals() {
        if round >= 10 && acknowledged > 0 {
            break;
        }
        acknowledged = run_and_kill("coordinator", &path, after).max(acknowledged);
        let Ok(reader) = CoordReader::open(&path) else {
            assert_eq!(acknowledged, 0);
            continue;
        };
        let counts = reader.counts().expect("reads");
        drop(reader);
        let (store, snapshot) = CoordStore::open(&path).expect("opens after a kill");
        let last = snapshot.last_number / TASKS;
        assert!(last >= acknowledged, "batch {acknowledged} was acknowledged, {last} is there");
        assert_eq!(last % GROUP, 0, "a part of a group commit is there");
        if last == 0 {
            continue;
        }
        assert_eq!(snapshot.last_number, last * TASKS + TASKS - 1);
        assert_eq!(snapshot.tasks.len() as u64, TASKS);
        assert_eq!((counts.pending, counts.assigned), (TASKS, 0));
        assert_eq!(counts.succeeded, (last - 1) * TASKS);
        let reader = store.reader().expect("opens");
        for number in 1..last {
            let task = reader.task(&name(number, TASKS - 1)).expect("reads").expect("is there");
            assert!(task.has_outcome);
        }
    }
    assert!(acknowledged > 0, "no child came to commit anything");
}

#[test]
fn a_killed_worker_keeps_whole_acknowledged_batches() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("w.db");
    let mut acknowledged = 0;
    let mut incarnation = 0;
    for (round, after) in intervals() {
        if round >= 10 && acknowledged > 0 {
            break;
        }
        acknowledged = run_and_kill("worker", &path, after).max(acknowledged);
        let (_store, snapshot) = WorkerStore::open(&path).expect("opens after a kill");
        assert!(snapshot.incarnation > incarnation);
        incarnation = snapshot.incarnation;
        assert_eq!((snapshot.next_seq - 1) % (TASKS * GROUP), 0, "a part of a commit is there");
        let last = (snapshot.next_seq - 1) / TASKS;
        assert!(last >= acknowledged, "batch {acknowledged} was acknowledged, {last} is there");
        assert!(snapshot.attempts.is_empty());
        let first = last.saturating_sub(3) * TASKS + 1;
        let seqs: Vec<_> = snapshot.outbox.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (first..snapshot.next_seq).collect::<Vec<_>>());
    }
    assert!(acknowledged > 0, "no child came to commit anything");
}
