//! Random sequences of records that a core could write: every kind of store must agree with the
//! others, and with what the writer itself remembers, before and after a restart.

mod common;

use common::*;
use outlast_core::coord::PastAttempt;
use outlast_core::records::{Asked, Awaited, Batch, CoordRecord, TaskState, WorkerRecord};
use outlast_core::recovery::Strategy as RecoveryStep;
use outlast_core::recovery::{
    Decision, Failure, FailureClass, HardwareClass, Learned, Quarantine, TaskRecovery, Tried,
};
use outlast_model::Cause;
use outlast_model::{Run, TaskSpec};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_store::{CoordStorage, Counts, StoredTask, TaskFilter, WorkerStorage};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Raw numbers, which the writers below turn into records that fit.
type Dice = (u8, u8, u8, i64);

fn dice() -> impl Strategy<Value = Vec<Vec<Dice>>> {
    let die = (0..48u8, 0..6u8, 0..4u8, 1_000..2_000i64);
    prop::collection::vec(prop::collection::vec(die, 0..8), 1..40)
}

/// State that a coordinator's core would keep.
#[derive(Default)]
struct Writer {
    number: u64,
    tasks: BTreeMap<String, Remembered>,
    /// The newest attempt of tasks that were removed.
    removed: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Remembered {
    state: TaskState,
    epoch: u64,
    retries: u32,
    worker: Option<String>,
    cancelling: bool,
}

const WORKERS: [&str; 4] = ["w0", "w1", "w2", "w3"];

impl Writer {
    fn record(&mut self, (what, which, who, at): Dice) -> CoordRecord {
        use CoordRecord as R;
        let (id, worker) = (format!("t{which}"), WORKERS[usize::from(who)]);
        let task: Arc<str> = id.as_str().into();
        match what {
            0 => return seen(worker, &format!("name{which}"), at),
            1 => return gone(worker, "eof", at),
            2 if which == 0 => return R::WorkerForgotten { worker: worker.into(), at },
            3 | 4 => return cursor(worker, at as u64),
            5 => return superseded(&id, u64::from(who), worker, at),
            41..=46 => return recovery(what, which, worker, at),
            _ => {}
        }
        let Some(t) = self.tasks.get_mut(&id) else {
            self.number += 1 + u64::from(who);
            let (state, worker) = (TaskState::Pending, None);
            let after = self.removed.get(&id).copied().unwrap_or(0);
            let t = Remembered { state, epoch: after, retries: 0, worker, cancelling: false };
            self.tasks.insert(id.clone(), t);
            let mut spec = TaskSpec::new(Run::Shell(id));
            spec.timeout = (who == 1).then_some(at as f64 / 7.0);
            spec.queue = ["", "default", "q", "r"][usize::from(who)].into();
            spec.labels = (0..which % 3).map(|n| (format!("k{n}"), format!("v{who}"))).collect();
            let (owner, spec) = (None, spec.into());
            return R::Submitted { task, number: self.number, spec, after, owner, at };
        };
        let old = t.epoch.saturating_sub(u64::from(who % 2));
        match what {
            40 => {
                let (decision, state) = decided(who, which, at);
                return R::Recovered { task, epoch: t.epoch, decision, state, at };
            }
            6 => return R::Noted { task, epoch: t.epoch, note: format!("n{who}"), at },
            7 => {
                let checkpoint = checkpoint(&id, u64::from(who), at as u64 % 5, at % 7 == 0);
                return R::Checkpoint { checkpoint, worker: worker.into(), at };
            }
            8 => {
                let which = vec![(u64::from(who), at as u64 % 5)];
                return R::CheckpointsPruned { task, which, at };
            }
            9 if who == 2 && t.state.is_terminal() => {
                self.removed.insert(id.clone(), t.epoch);
                self.tasks.remove(&id);
                return R::TasksRemoved { tasks: vec![task], before: at - 500, at };
            }
            9 if who == 0 => return R::Paused { task, on: at % 2 == 0, at },
            9 if who == 1 => {
                let place = (at % 3 > 0).then(|| ("w".into(), at % 3 == 1));
                let awaited = (at % 5 > 2).then(|| Awaited {
                    epoch: at as u64 % 3,
                    number: at as u64 % 7,
                    worker: "w".into(),
                });
                let asked = Asked { checkpoint: at % 2 == 0, place, awaited };
                return R::Asked { task, asked };
            }
            9 => return R::State { update: state(&id, u64::from(who), at as u64 % 9) },
            10..=12 => return started(&id, old, at),
            13 if !t.state.is_terminal() => {
                (t.state, t.worker, t.cancelling) = (TaskState::Cancelled, None, false);
                return cancelled(&id, at);
            }
            14 if t.state == TaskState::Pending && t.epoch > 0 => {
                (t.state, t.cancelling) = (TaskState::Succeeded, false);
                return succeeded(&id, t.epoch, worker, at);
            }
            _ => {}
        }
        match t.state {
            TaskState::Pending => {
                t.epoch += 1;
                (t.state, t.worker) = (TaskState::Assigned, Some(worker.into()));
                assigned(&id, t.epoch, worker, at)
            }
            TaskState::Assigned => match what {
                15..=20 => {
                    t.retries += 1;
                    (t.state, t.worker) = (TaskState::Pending, None);
                    let (epoch, retries, reason) = (t.epoch, t.retries, format!("lost {who}"));
                    let outcome = (who == 0).then(|| outcome(&id, epoch, 0));
                    let cause = Cause::of(i64::from(who) + 8);
                    R::Requeued { task, epoch, retries, reason, cause, outcome, at }
                }
                21..=23 => {
                    t.cancelling = true;
                    R::CancelRequested { task, at }
                }
                _ => {
                    let by = if old == t.epoch { t.worker.take() } else { Some(worker.into()) };
                    let state = [TaskState::Succeeded, TaskState::Failed][usize::from(who / 2)];
                    (t.state, t.worker, t.cancelling) = (state, None, false);
                    let worker = by.filter(|_| what != 24).map(Into::into);
                    let outcome = (what != 25).then(|| outcome(&id, old, (at % 3) * 400));
                    let reason = if what == 26 { "why".into() } else { String::new() };
                    let (epoch, cause) = (old, Cause::of(i64::from(who) + 8));
                    R::Ended { task, epoch, state, reason, cause, outcome, worker, at }
                }
            },
            _ => {
                (t.state, t.retries, t.cancelling) = (TaskState::Pending, 0, false);
                R::Retried { task, at }
            }
        }
    }
}

/// Creates a recovery record of no task.
fn recovery(what: u8, which: u8, worker: &str, at: i64) -> CoordRecord {
    use CoordRecord as R;
    let kind = format!("k{}", which % 3);
    let (some, hardware) = (at % 2 == 0, ["cpu", "gpu X"][usize::from(which % 2)].to_owned());
    match what {
        41 | 42 => R::FailureSeen {
            failure: Arc::new(Failure {
                number: at as u64 % 50,
                at,
                task: format!("t{which}"),
                epoch: 1,
                task_type: kind,
                worker: worker.into(),
                worker_name: "n".into(),
                hardware: HardwareClass::Gpu,
                class: FailureClass::ALL[usize::from(which)],
                text: "é\"x".into(),
                weak: some,
            }),
            forget: at as u64 % 7,
        },
        43 => R::FailuresForgotten {
            worker: some.then(|| worker.into()),
            task_type: (at % 3 == 0).then_some(kind),
        },
        44 => {
            let (reason, failed) = ("r".to_owned(), u32::from(which));
            let quarantine = Quarantine { since: at, wait: 5, until: at + 5, failed, reason };
            let quarantine = some.then(|| Arc::new(quarantine));
            R::Quarantined { worker: worker.into(), quarantine }
        }
        45 => {
            let knobs = [("b".to_owned(), serde_json::json!(at as f64 / 3.0))].into();
            let task = format!("t{which}");
            R::Learned { learned: Learned { task_type: kind, hardware, knobs, task, at }.into() }
        }
        _ => R::Unlearned {
            task_type: some.then_some(kind),
            hardware: (at % 3 == 0).then_some(hardware),
        },
    }
}

fn decided(who: u8, which: u8, at: i64) -> (Arc<Decision>, Arc<TaskRecovery>) {
    let class = FailureClass::ALL[usize::from(which)];
    let strategy = RecoveryStep::ALL[usize::from(who)];
    let decision = Decision {
        class: (who > 0).then_some(class),
        hardware: HardwareClass::ALL[usize::from(who)],
        strategy: (who > 1).then_some(strategy),
        delay_ms: at as u64,
        knobs: [("k".to_owned(), serde_json::json!("v"))].into(),
        text: format!("text {at}"),
    };
    let state = TaskRecovery {
        knobs: [("k".to_owned(), usize::from(which))].into(),
        begun: who == 1,
        tried: vec![Tried { class, strategy, worker: "w".into() }],
        oom_retries: u32::from(which),
        shared: u32::from(who),
        not_before: at,
        avoid: vec!["w".into(); usize::from(who)],
        avoid_hardware: (who == 2).then(|| "cpu".into()),
    };
    (decision.into(), state.into())
}

fn same_coordinators(sql: &SqlCoord, sim: &SimCoordStore, writer: &Writer) {
    let mut snapshot = sql.snapshot().unwrap();
    snapshot.coordinator_id = "c".into();
    assert_eq!(snapshot, sim.snapshot());
    let mut counts = Counts::default();
    for (id, remembered) in &writer.tasks {
        let row = sql.reader.task_row(id).unwrap();
        assert_eq!(row, sim.task_row(id));
        let row = row.unwrap();
        counts.paused += u64::from(row.paused && !row.state.is_terminal());
        let worker = row.assigned.worker.map(|w| w.to_string());
        let (state, epoch, retries, cancelling) =
            (row.state, row.epoch, row.losses.retries, row.assigned.cancelling);
        assert_eq!(&Remembered { state, epoch, retries, worker, cancelling }, remembered);
        assert_eq!(sql.history(id), sim.history(id), "history of {id}");
        assert_eq!(sql.outcome(id), sim.outcome(id));
        match state {
            TaskState::Pending => counts.pending += 1,
            TaskState::Assigned => counts.assigned += 1,
            TaskState::Succeeded => counts.succeeded += 1,
            TaskState::Failed => counts.failed += 1,
            TaskState::Cancelled => counts.cancelled += 1,
        }
    }
    for (id, epoch) in &writer.removed {
        assert_eq!(sql.reader.former(id).unwrap(), *epoch);
        assert_eq!(sql.reader.task_row(id).unwrap().is_some(), writer.tasks.contains_key(id));
        assert_eq!(sql.history(id).is_empty(), !writer.tasks.contains_key(id));
    }
    for id in (0..6).map(|n| format!("t{n}")) {
        assert_eq!(sql.superseded(&id), sim.superseded(&id), "superseded of {id}");
        for worker in WORKERS {
            let sorted = |mut attempts: Vec<PastAttempt>| {
                attempts
                    .iter_mut()
                    .for_each(|a| a.outcomes.sort_by_key(|o| (o.finished_at_ms, o.started_at_ms)));
                attempts
            };
            let (a, b) = (sql.reader.attempts(&id, worker).unwrap(), sim.attempts(&id, worker));
            assert_eq!(sorted(a), sorted(b), "attempts of {id} at {worker}");
        }
    }
    assert_eq!(sql.reader.counts().unwrap(), counts);
    let mut orphans = sql.reader.orphans(1_000).unwrap();
    orphans.reverse();
    assert_eq!(orphans, sim.orphans());
    assert_eq!(sql.reader.workers().unwrap().len(), snapshot.workers.len());
}

fn same_lists(sql: &SqlCoord) {
    let reader = &sql.reader;
    let all = reader.list(&TaskFilter::default(), None, 100, false).unwrap().tasks;
    let mut filters = vec![TaskFilter::default()];
    for states in [vec![TaskState::Pending], vec![TaskState::Failed, TaskState::Succeeded]] {
        filters.push(TaskFilter { states, ..TaskFilter::default() });
    }
    for wanted in ["default", "q", "none"] {
        filters.push(TaskFilter { queue: Some(wanted.into()), ..TaskFilter::default() });
    }
    filters.push(TaskFilter { worker: Some("w1".into()), ..TaskFilter::default() });
    filters.push(TaskFilter { id_prefix: Some("t1".into()), ..TaskFilter::default() });
    filters.push(TaskFilter {
        labels: vec![("k0".into(), "v1".into()), ("k1".into(), "v1".into())],
        ..TaskFilter::default()
    });
    for states in [vec![], vec![TaskState::Assigned]] {
        filters.push(TaskFilter { paused: true, states, ..TaskFilter::default() });
    }
    let numbers: Vec<u64> = all.iter().map(|t| t.number).collect();
    let extras = reader.extras(&numbers).unwrap();
    let paused = |t: &StoredTask| extras[&t.number].paused && !t.state.is_terminal();
    for filter in filters {
        let expected: Vec<_> = all
            .iter()
            .filter(|t| filter.states.is_empty() || filter.states.contains(&t.state))
            .filter(|t| !filter.paused || paused(t))
            .filter(|t| filter.id_prefix.as_ref().is_none_or(|p| t.id.starts_with(p)))
            .filter(|t| filter.worker.is_none() || filter.worker.as_deref() == t.worker.as_deref())
            .filter(|t| filter.labels.iter().all(|(k, v)| t.spec.labels.get(k) == Some(v)))
            .filter(|t| {
                let own = if t.spec.queue.is_empty() { "default" } else { &t.spec.queue };
                filter.queue.as_deref().is_none_or(|q| q == own)
            })
            .map(|t| t.number)
            .collect();
        let of = |state| {
            let all = all.iter().filter(move |t| t.state == state);
            all.filter(|t| expected.contains(&t.number)).count() as u64
        };
        let counts = reader.count(&filter).unwrap();
        let states = ["pending", "assigned", "succeeded", "failed", "cancelled"];
        for state in states.map(|s| TaskState::parse(s).unwrap()) {
            assert_eq!(counts.of(state), of(state), "{state:?} of {filter:?}");
        }
        let held = all.iter().filter(|t| expected.contains(&t.number) && paused(t)).count();
        assert_eq!(counts.paused, held as u64, "{filter:?}");
        for newest_first in [false, true] {
            let (mut cursor, mut found) = (None, Vec::new());
            loop {
                let page = reader.list(&filter, cursor, 2, newest_first).unwrap();
                assert!(page.next.is_none() || page.tasks.len() == 2, "{filter:?}");
                assert!(cursor.is_none() || !page.tasks.is_empty(), "an empty page: {filter:?}");
                found.extend(page.tasks.iter().map(|t| t.number));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            if newest_first {
                found.reverse();
            }
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

fn grouped<R>(batches: Vec<Batch<R>>) -> Vec<Vec<Batch<R>>> {
    let mut groups: Vec<Vec<Batch<R>>> = vec![Vec::new()];
    for batch in batches {
        let full = groups.last().is_some_and(|g| g.len() as u64 > batch.number % 4);
        if full {
            groups.push(Vec::new());
        }
        groups.last_mut().expect("never empty").push(batch);
    }
    groups
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coordinators_stores_agree(dice in dice()) {
        let (mut sql, mut sim) = (SqlCoord::fresh(), SimCoordStore::new("c"));
        let mut writer = Writer::default();
        let batches: Vec<_> = dice.into_iter().zip(1..).map(|(dice, number)| Batch {
            number,
            records: dice.into_iter().map(|d| writer.record(d)).collect(),
        }).collect();
        for group in grouped(batches) {
            sql.commit(&group).unwrap();
            sim.commit(&group).unwrap();
        }
        same_coordinators(&sql, &sim, &writer);
        let sql = sql.reopen();
        same_coordinators(&sql, &sim.reopen(), &writer);
        same_lists(&sql);
    }

    #[test]
    fn workers_stores_agree(dice in dice()) {
        let (mut sql, mut sim) = (SqlWorker::fresh(), SimWorkerStore::fresh());
        let mut seqs = [1u64; 5];
        let mut acked = [0u64; 5];
        let batches: Vec<_> = dice.into_iter().zip(1..).map(|(dice, number)| Batch {
            number,
            records: dice.into_iter().map(|(what, which, who, at)| {
                use WorkerRecord as R;
                let (id, epoch) = (format!("t{which}"), u64::from(who));
                let task: Arc<str> = id.as_str().into();
                // A lane of checkpoints or states holds these and nothing else.
                let lane = 1;
                match what / 4 {
                    0..=3 => accepted(&id, epoch),
                    4 => R::Starting { task, epoch, at },
                    5..=6 => {
                        seqs[lane] += 1;
                        let (seq, outcome) = (seqs[lane] - 1, outcome(&id, epoch, at));
                        R::Finished { lane: outlast_model::Lane::of(lane as i64), seq, outcome }
                    }
                    7 if which == 0 => R::Paused { task, epoch, on: at % 2 == 0 },
                    7 if which == 1 => {
                        seqs[2] += 1;
                        let checkpoint = checkpoint(&id, epoch, at as u64, at % 3 == 0);
                        R::Checkpoint { seq: seqs[2] - 1, checkpoint }
                    }
                    7 if which == 2 => {
                        seqs[3] += 1;
                        let seq = seqs[3] - 1;
                        let replaces = Some(seq - 1).filter(|s| at % 2 == 0 && *s > 0);
                        R::State { seq, replaces, update: state(&id, epoch, at as u64) }
                    }
                    7 if which == 3 => {
                        let now = outlast_core::Now { mono: epoch, wall: at };
                        R::LinkLost { at: (at % 2 == 0).then_some(now) }
                    }
                    7 => R::Dropped { task, epoch },
                    8 => {
                        let lane = 1 + at as usize % 3;
                        acked[lane] = (acked[lane] + epoch).min(seqs[lane] - 1);
                        R::Acked { lane: outlast_model::Lane::of(lane as i64), seq: acked[lane] }
                    }
                    _ => R::Joined { coordinator_id: id.into() },
                }
            }).collect(),
        }).collect();
        for group in grouped(batches) {
            sql.commit(&group).unwrap();
            sim.commit(&group).unwrap();
        }
        for _ in 0..2 {
            let mut snapshot = sql.snapshot().unwrap();
            snapshot.store_id = "w".into();
            prop_assert_eq!(snapshot, WorkerStorage::snapshot(&sim).unwrap());
            prop_assert_eq!(sql.outbox_len(), sim.outbox_len());
            sql = sql.reopen();
            sim = sim.reopen();
        }
    }
}
