//! Measures committed records per second, for groups of several sizes.
//!
//! `cargo run --release -p outlast-store --example commit_rate [tasks [folder]]`
//!
//! The coordinator's load is four records a task (submitted, assigned, ended, cursor), the
//! worker's three (accepted, finished, acknowledged), with the stages of a task in different
//! groups, as in a system at work. The folder should be on the disk that matters.

use outlast_core::records::{Batch, CoordRecord, TaskState, WorkerRecord, WorkerRow};
use outlast_model::{Lane, OutcomeKind, TaskOutcome};
use outlast_model::{Run, TaskSpec};
use outlast_store::{CoordReader, CoordStore, StoreError, TaskFilter, WorkerStore};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RESULTS: Lane = Lane::Results;
const START: i64 = 1_700_000_000_000;

fn spec(n: u64) -> Arc<TaskSpec> {
    let argv = ["pytest", "-q", "--maxfail=1", "tests/integration", "-k"];
    let mut argv: Vec<String> = argv.map(String::from).into();
    argv.push(format!("case_{n}"));
    let mut spec = TaskSpec::new(Run::Command(argv));
    spec.env.insert("SEED".into(), n.to_string());
    spec.env.insert("CI".into(), "true".into());
    spec.timeout = Some(1800.0);
    spec.requires.insert("cores".into(), ">=2".into());
    Arc::new(spec)
}

/// A text id without order, as clients choose them.
fn id(n: u64) -> Arc<str> {
    let mixed = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    uuid::Uuid::from_u128(mixed).to_string().into()
}

fn outcome(task: &str) -> Arc<TaskOutcome> {
    Arc::new(TaskOutcome {
        task: task.into(),
        epoch: 1,
        kind: OutcomeKind::Succeeded,
        exit_code: Some(0),
        started_at_ms: START + 5,
        finished_at_ms: START + 900,
        max_rss_bytes: 48 << 20,
        cpu_ms: 640,
        stdout_tail: b"12 passed in 0.61s\n".repeat(5).into(),
        stdout_bytes: 95,
        ..TaskOutcome::default()
    })
}

fn coordinator(path: &Path, tasks: u64, group: u64) -> Result<(), StoreError> {
    let (mut store, _) = CoordStore::open(path)?;
    let workers: Vec<Arc<str>> = (0..20).map(|w| id(1 << 40 | w)).collect();
    let seen = workers.iter().map(|w| CoordRecord::WorkerSeen {
        worker: Arc::new(WorkerRow {
            store_id: w.clone(),
            name: w.clone(),
            incarnation: 1,
            connection: 1,
            slots: 8,
            prefetch: 8,
            capabilities: "{}".into(),
            labels: [].into(),
            version: "0".into(),
            drained: false,
            nonce: 0,
            principal: "".into(),
        }),
        at: START,
    });
    store.commit(&[Batch { number: 1, records: seen.collect() }])?;
    let worker = |n: u64| workers[(n % 20) as usize].clone();

    let (mut spent, mut groups, mut longest) = (Duration::ZERO, 0, Duration::ZERO);
    let lag = 4 * group;
    let mut next = 0;
    while next < tasks + 2 * lag {
        let mut batches = Vec::new();
        for n in next..next + group {
            let at = START + n as i64;
            let mut records = Vec::new();
            if n < tasks {
                records.push(CoordRecord::Submitted {
                    owner: None,
                    task: id(n),
                    number: n + 1,
                    spec: spec(n),
                    after: 0,
                    at,
                });
            }
            if let Some(n) = n.checked_sub(lag).filter(|n| *n < tasks) {
                records.push(CoordRecord::Assigned {
                    task: id(n),
                    epoch: 1,
                    worker: worker(n),
                    at,
                });
            }
            if let Some(n) = n.checked_sub(2 * lag).filter(|n| *n < tasks) {
                let task = id(n);
                records.push(CoordRecord::Ended {
                    epoch: 1,
                    state: TaskState::Succeeded,
                    reason: String::new(),
                    cause: outlast_model::Cause::Done,
                    outcome: Some(outcome(&task)),
                    worker: Some(worker(n)),
                    at,
                    task,
                });
                records.push(CoordRecord::Cursor { worker: worker(n), lane: RESULTS, seq: n + 1 });
            }
            batches.push(Batch { number: n + 2, records });
        }
        let start = Instant::now();
        store.commit(&batches)?;
        let took = start.elapsed();
        spent += took;
        longest = longest.max(took);
        groups += 1;
        next += group;
    }
    let rate = 4.0 * tasks as f64 / spent.as_secs_f64();
    report("coordinator", group, tasks, rate, 4.0, groups, longest, path);
    Ok(())
}

fn worker(path: &Path, tasks: u64, group: u64) -> Result<(), StoreError> {
    let (mut store, _) = WorkerStore::open(path)?;
    let (mut spent, mut groups, mut longest) = (Duration::ZERO, 0, Duration::ZERO);
    let lag = 4 * group;
    let mut next = 0;
    while next < tasks + 2 * lag {
        let mut batches = Vec::new();
        for n in next..next + group {
            let mut records = Vec::new();
            if n < tasks {
                let (task, spec, checkpoint) = (id(n), spec(n), None);
                let (epoch, paused, after) = (1, false, 0);
                let r = WorkerRecord::Accepted { task, epoch, spec, checkpoint, paused, after };
                records.push(r);
            }
            if let Some(n) = n.checked_sub(lag).filter(|n| *n < tasks) {
                let outcome = outcome(&id(n));
                records.push(WorkerRecord::Finished { lane: RESULTS, seq: n + 1, outcome });
            }
            if let Some(n) = n.checked_sub(2 * lag).filter(|n| *n < tasks) {
                records.push(WorkerRecord::Acked { lane: RESULTS, seq: n + 1 });
            }
            batches.push(Batch { number: n + 1, records });
        }
        let start = Instant::now();
        store.commit(&batches)?;
        let took = start.elapsed();
        spent += took;
        longest = longest.max(took);
        groups += 1;
        next += group;
    }
    let rate = 3.0 * tasks as f64 / spent.as_secs_f64();
    report("worker", group, tasks, rate, 3.0, groups, longest, path);
    Ok(())
}

#[allow(clippy::too_many_arguments)] // a line of the table
fn report(
    what: &str,
    group: u64,
    tasks: u64,
    rate: f64,
    per_task: f64,
    groups: u32,
    longest: Duration,
    path: &Path,
) {
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    println!(
        "{what:11} group of {group:5} tasks: {:8.0} records/s = {:7.0} tasks/s, \
         {groups} commits, longest {:6.1} ms, {:4.0} bytes/task on disk",
        rate,
        rate / per_task,
        longest.as_secs_f64() * 1e3,
        size as f64 / tasks as f64,
    );
}

fn reads(path: &Path) -> Result<(), StoreError> {
    let reader = CoordReader::open(path)?;
    let timed = |what: &str, f: &dyn Fn() -> Result<usize, StoreError>| {
        let start = Instant::now();
        let found = f()?;
        println!("read {what:32} {found:4} in {:8.3} ms", start.elapsed().as_secs_f64() * 1e3);
        Ok::<_, StoreError>(())
    };
    let list = |filter: TaskFilter| Ok(reader.list(&filter, None, 100, true)?.tasks.len());
    timed("counts", &|| Ok(reader.counts()?.total() as usize))?;
    timed("newest 100", &|| list(TaskFilter::default()))?;
    let failed = TaskFilter { states: vec![TaskState::Failed], ..TaskFilter::default() };
    timed("failed (there are none)", &|| list(failed.clone()))?;
    let over = TaskFilter { states: vec![TaskState::Succeeded], ..TaskFilter::default() };
    timed("succeeded", &|| list(over.clone()))?;
    let by = TaskFilter { worker: Some(id(1 << 40).to_string()), ..TaskFilter::default() };
    timed("by worker", &|| list(by.clone()))?;
    let prefix = TaskFilter { id_prefix: Some("9e3".into()), ..TaskFilter::default() };
    timed("by id prefix", &|| list(prefix.clone()))?;
    timed("history of one", &|| Ok(reader.history(&id(1))?.len()))
}

fn main() -> Result<(), StoreError> {
    let mut args = std::env::args().skip(1);
    let tasks = args.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let folder = args.next().map_or_else(std::env::temp_dir, Into::into);
    let folder = folder.join(format!("commit_rate.{}", std::process::id()));
    for group in [8, 64, 256, 1024] {
        // Small groups are bound by the disk's sync; fewer tasks show that as well.
        let tasks = tasks.min(group * 2_000);
        let path = folder.join(format!("coord-{group}.db"));
        coordinator(&path, tasks, group)?;
        if group == 1024 {
            reads(&path)?;
        }
        worker(&folder.join(format!("worker-{group}.db")), tasks, group)?;
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}
