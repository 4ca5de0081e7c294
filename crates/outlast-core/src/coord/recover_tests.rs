//! Recovery from failures, with several workers.

use super::config::*;
use super::*;
use crate::records::{CoordRecord, CoordSnapshot, TaskRow, TaskState};
use crate::recovery::{Decision, Strategy, TaskRecovery};
use crate::{Machine, Millis, Now, Step, TaskId};
use outlast_model::message::*;
use outlast_model::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Workers w1, w2… on connections 1, 2…, each with one slot.
struct Rig {
    c: Coordinator,
    now: Millis,
    records: Vec<CoordRecord>,
    out: Vec<(ConnId, Assignment)>,
    seq: BTreeMap<ConnId, u64>,
}

impl Rig {
    fn new(workers: u64) -> Rig {
        let snapshot = CoordSnapshot { coordinator_id: "c".into(), ..Default::default() };
        let mut rig = Rig::from(snapshot, 0);
        (1..=workers).for_each(|n| rig.join(n, 1));
        rig
    }
    fn from(snapshot: CoordSnapshot, now: Millis) -> Rig {
        let at = Now { mono: now, wall: now as i64 };
        let c = Coordinator::new(CoordConfig::default(), snapshot, at);
        let (records, out, seq) = (Vec::new(), Vec::new(), BTreeMap::new());
        Rig { c, now, records, out, seq }
    }
    fn at(&self) -> Now {
        Now { mono: self.now, wall: self.now as i64 }
    }
    fn drain(&mut self) {
        self.c.invariants().expect("memory is consistent after each input");
        while let Some(o) = self.c.poll() {
            match o {
                Step::Persist(b) => {
                    self.records.extend(b.records);
                    self.c.on_persisted(b.number);
                }
                Step::Perform(Output::Send(conn, ToWorker::Assign(a))) => {
                    self.out.extend(a.into_iter().map(|t| (conn, t)));
                }
                _ => {}
            }
        }
    }
    fn join(&mut self, n: u64, connection: u64) {
        self.c.on_open(self.at(), n);
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: format!("w{n}"),
            store_id: format!("s{n}"),
            incarnation: 1,
            connection,
            slots: 1,
            prefetch: 0,
            capabilities_json: json!({"hardware": "cpu,gpu", "gpu": "G"}).to_string(),
            ..Default::default()
        };
        self.c.hear(self.at(), n, ToCoordinator::Hello(Box::new(hello)), &());
        let part = Inventory { holdings: Vec::new(), last: true };
        self.c.hear(self.at(), n, ToCoordinator::Inventory(part), &());
        self.drain();
    }
    fn submit(&mut self, id: &str, spec: serde_json::Value) {
        let spec = TaskSpec::from_json(spec.to_string().as_bytes()).unwrap();
        let s = Submission { id: id.into(), spec: Arc::new(spec), chosen: false };
        self.c.on_request(self.at(), 1, Request::Submit(vec![s], Owner::default()));
        self.drain();
    }
    /// The attempt given out since the last look: its worker, its number, and its command.
    fn given(&mut self) -> Option<(u64, u64, String)> {
        let (conn, a) = self.out.pop()?;
        assert!(self.out.is_empty(), "more than one attempt was given out");
        let spec = TaskSpec::clone(&a.spec.unwrap());
        let Run::Shell(line) = spec.run else { panic!("no shell line") };
        Some((conn, a.epoch, line))
    }
    /// Gives a worker as much as it takes.
    fn fill(&mut self, n: u64) {
        for part in 0..2 {
            let requires = json!({"worker": format!("w{n}")});
            self.submit(&format!("fill{part}"), json!({"shell": "y", "requires": requires}));
        }
        self.out.clear();
    }
    fn ends(&mut self, conn: u64, id: &str, epoch: u64, stderr: &str) {
        self.ends_with(conn, id, epoch, stderr, i32::from(!stderr.is_empty()));
    }
    fn ends_with(&mut self, conn: u64, id: &str, epoch: u64, stderr: &str, code: i32) {
        let good = stderr.is_empty();
        let kind = if good { OutcomeKind::Succeeded } else { OutcomeKind::Failed };
        let outcome = TaskOutcome {
            task: id.into(),
            epoch,
            kind,
            started_at_ms: 1,
            finished_at_ms: 60_001,
            message: if good { String::new() } else { "exit code 1".into() },
            exit_code: Some(code),
            stderr_tail: stderr.as_bytes().to_vec().into(),
            ..Default::default()
        };
        self.tells(conn, outcome);
    }
    fn tells(&mut self, conn: u64, outcome: TaskOutcome) {
        let seq = self.seq.entry(conn).or_default();
        *seq += 1;
        let items = vec![OutboxItem::Outcome(outcome.into())];
        let lane = Lane::Results;
        let batch = OutboxBatch { lane, first_seq: *seq, items, ..Default::default() };
        self.c.hear(self.at(), conn, ToCoordinator::Outbox(batch), &());
        self.drain();
    }
    fn pass(&mut self, ms: Millis) {
        let end = self.now + ms;
        while self.now < end {
            self.now = end.min(self.c.next_wake().at.max(self.now + 1));
            self.c.on_tick(self.at());
            self.drain();
            // The links live.
            for conn in 1..=9 {
                let beat = Heartbeat::default();
                self.c.hear(self.at(), conn, ToCoordinator::Heartbeat(beat), &());
            }
            self.drain();
        }
    }
    fn decisions(&self, id: &str) -> Vec<Arc<Decision>> {
        let of = |r: &CoordRecord| match r {
            CoordRecord::Recovered { task, decision, .. } if **task == *id => {
                Some(decision.clone())
            }
            _ => None,
        };
        self.records.iter().filter_map(of).collect()
    }
    fn strategies(&self, id: &str) -> Vec<Strategy> {
        self.decisions(id).iter().filter_map(|d| d.strategy).collect()
    }
    fn reason(&self, id: &str) -> String {
        let end = |r: &CoordRecord| match r {
            CoordRecord::Ended { task, reason, .. } if **task == *id => Some(reason.clone()),
            _ => None,
        };
        self.records.iter().rev().find_map(end).expect("it ended")
    }
}

const OOM: &str = "Traceback (most recent call last):\nMemoryError\n";
const CUDA: &str = "RuntimeError: CUDA error: unspecified launch failure\n";

#[test]
fn a_task_that_runs_out_of_memory_is_tried_smaller_and_the_next_one_starts_there() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "train {knob.batch_size}", "knobs": {"batch_size": [64, 32, 16]}});
    r.submit("a", spec.clone());
    assert_eq!(r.given(), Some((1, 1, "train 64".into())));
    r.ends(1, "a", 1, OOM);
    assert_eq!(r.given(), Some((1, 2, "train 32".into())));
    r.ends(1, "a", 2, OOM);
    assert_eq!(r.given(), Some((1, 3, "train 16".into())));
    r.ends(1, "a", 3, "");
    assert_eq!(r.strategies("a"), [Strategy::ReducedBatchSize; 2]);
    let first = &r.decisions("a")[0];
    assert_eq!(
        first.text,
        "out_of_memory (stderr: \"MemoryError\"): it is tried with batch_size 32 instead of 64"
    );
    let second = &r.decisions("a")[1].text;
    assert!(
        second.ends_with("; 2 out_of_memory failures of 1 task on 1 worker within 60 min"),
        "{second}"
    );
    r.submit("b", spec.clone());
    assert_eq!(r.given(), Some((1, 1, "train 16".into())));
    let told = &r.decisions("b")[0].text;
    assert_eq!(told, "it starts with batch_size 16, which worked for task a on cpu");
    // At the end of the ladder a person is asked.
    r.ends(1, "b", 1, OOM);
    assert_eq!(r.given(), None);
    let reason = r.reason("b");
    assert!(reason.contains("the same settings would meet the same"), "{reason}");
    // It can be forgotten, and not be wanted.
    r.c.on_request(r.at(), 2, Request::Recovery(RecoveryRequest::Unlearn(Some("train".into()))));
    r.drain();
    r.submit("c", spec);
    assert_eq!(r.given(), Some((1, 1, "train 64".into())));
}

#[test]
fn the_budget_for_memory_is_apart_and_failures_without_a_wish_are_final() {
    let mut r = Rig::new(1);
    let knobs = json!({"batch_size": [8, 4, 2, 1]});
    r.submit("a", json!({"shell": "x", "knobs": knobs, "max_oom_retries": 1, "max_retries": 0}));
    r.given();
    r.ends(1, "a", 1, OOM);
    assert!(r.given().is_some());
    r.ends(1, "a", 2, OOM);
    assert_eq!(r.given(), None);
    assert!(
        r.reason("a").contains("max_oom_retries is 1; tried: reduced_batch_size"),
        "{}",
        r.reason("a")
    );
    r.submit("b", json!({"shell": "x"}));
    r.given();
    r.ends(1, "b", 1, OOM);
    assert_eq!((r.given(), r.reason("b").as_str()), (None, "exit code 1"));
    r.submit("c", json!({"shell": "x", "knobs": knobs, "rerun": "never"}));
    r.given();
    r.ends(1, "c", 1, OOM);
    assert_eq!((r.given(), r.reason("c").as_str()), (None, "exit code 1"));
}

#[test]
fn a_delayed_retry_waits_also_over_a_restart() {
    let mut r = Rig::new(1);
    r.submit("a", json!({"shell": "x", "retry_failures": true}));
    r.given();
    r.ends(1, "a", 1, "nobody knows\n");
    assert_eq!(r.strategies("a"), [Strategy::DelayedRetry]);
    assert!(r.c.explain(&"a".into()).unwrap().contains("tried again in"));
    r.pass(1_500);
    assert_eq!(r.given(), None);
    // The coordinator restarts: what is durable says when.
    let state = r.records.iter().rev().find_map(|record| match record {
        CoordRecord::Recovered { state, .. } => Some(state.clone()),
        _ => None,
    });
    let state: Arc<TaskRecovery> = state.unwrap();
    assert!((1_600..=2_400).contains(&state.not_before), "{}", state.not_before);
    let spec = r.c.tasks[&TaskId::from("a")].spec.clone();
    let row = TaskRow {
        epoch: 1,
        losses: crate::records::Losses { retries: 1, ..Default::default() },
        recovery: Some(state.clone()),
        ..TaskRow::submitted("a".into(), 1, spec, 0)
    };
    let snapshot = CoordSnapshot { tasks: vec![row], ..Default::default() };
    let mut again = Rig::from(snapshot, 1_500);
    again.join(1, 1);
    assert_eq!(again.given(), None);
    let left = u64::try_from(state.not_before).unwrap() - 1_500;
    again.pass(left.saturating_sub(20));
    assert_eq!(again.given(), None);
    again.pass(40);
    assert_eq!(again.given(), Some((1, 2, "x".into())));
    // A person who cancels it, or moves it, need not wait.
    r.c.on_request(r.at(), 5, Request::Cancel("a".into()));
    r.drain();
    r.pass(5_000);
    assert_eq!(r.given(), None);
}

#[test]
fn another_worker_gets_it_and_if_there_is_none_any_after_a_while() {
    let mut r = Rig::new(2);
    let spec = json!({"shell": "x", "retry_failures": true,
        "recovery": {"errors": {"device": ["different_worker", "delayed_retry"]}}});
    r.submit("a", spec.clone());
    let (first, ..) = r.given().unwrap();
    r.ends(first, "a", 1, CUDA);
    let (second, ..) = r.given().unwrap();
    assert_ne!(first, second);
    r.ends(second, "a", 2, "");
    // Now the other one goes away before it is given the task.
    r.submit("b", spec);
    let (holder, ..) = r.given().unwrap();
    let other = 3 - holder;
    r.fill(other);
    r.ends(holder, "b", 1, CUDA);
    assert_eq!(r.given(), None);
    r.c.on_close(r.at(), other, LinkCause::Closed, "gone");
    r.drain();
    r.pass(29_000);
    assert_eq!(r.given(), None);
    r.pass(3_000);
    assert_eq!(r.given().unwrap().0, holder);
    assert!(r.decisions("b").last().unwrap().text.contains("no other worker took it"));
}

#[test]
fn a_bad_worker_is_quarantined_probed_and_released() {
    let mut r = Rig::new(2);
    let spec = json!({"shell": "x", "retry_failures": true, "max_retries": 9});
    // Worker 1 fails whatever it gets; worker 2 is kept busy by another task.
    r.fill(2);
    let bad = 1;
    r.submit("a", spec.clone());
    r.given();
    r.ends(bad, "a", 1, CUDA);
    r.submit("b", spec.clone());
    r.given();
    r.ends(bad, "b", 1, CUDA);
    r.submit("c", spec.clone());
    r.given();
    r.ends(bad, "c", 1, CUDA);
    let view = |r: &Rig| r.c.recovery(r.at());
    let found = view(&r);
    assert_eq!(found.quarantined.len(), 1);
    assert!(found.quarantined[0].3.reason.contains("CUDA error"), "{:?}", found.quarantined);
    assert_eq!(found.patterns[0].count, 3);
    r.pass(50_000);
    assert_eq!(r.given(), None, "a quarantined worker is given nothing");
    // The probe fails, and the next one comes later.
    r.pass(12_000);
    let (conn, epoch, _) = r.given().unwrap();
    assert_eq!(conn, bad);
    let id =
        ["a", "b", "c"].into_iter().find(|id| r.c.tasks[&TaskId::from(*id)].worker().is_some());
    r.ends(bad, id.unwrap(), epoch, CUDA);
    assert_eq!(view(&r).quarantined[0].3.failed, 1);
    r.pass(110_000);
    assert_eq!(r.given(), None);
    r.pass(20_000);
    let (conn, epoch, _) = r.given().unwrap();
    assert_eq!(conn, bad);
    let id =
        ["a", "b", "c"].into_iter().find(|id| r.c.tasks[&TaskId::from(*id)].worker().is_some());
    r.ends(bad, id.unwrap(), epoch, "");
    assert!(view(&r).quarantined.is_empty() && view(&r).failures.is_empty());
    r.submit("new", spec);
    r.pass(70_000);
    assert!(r.out.iter().any(|(conn, _)| *conn == bad), "it is given work again");
}

#[test]
fn when_the_last_free_worker_leaves_a_quarantined_one_is_probed_at_once() {
    let mut r = Rig::new(2);
    r.fill(2);
    let spec = json!({"shell": "x"});
    for id in ["a", "b", "c"] {
        r.submit(id, spec.clone());
        r.given();
        r.ends(1, id, 1, CUDA);
    }
    assert_eq!(r.c.recovery(r.at()).quarantined.len(), 1);
    r.submit("next", spec.clone());
    assert_eq!(r.given(), None);
    r.c.on_close(r.at(), 2, LinkCause::Closed, "gone");
    let why = r.c.explain(&"next".into()).unwrap();
    assert!(why.starts_with("the 1 worker that is connected is in quarantine"), "{why}");
    r.pass(1_500);
    assert_eq!(r.given(), Some((1, 1, "x".into())));
    // As long as nobody else is there, a probe that fails takes nothing from it.
    r.ends(1, "next", 1, CUDA);
    r.submit("more", spec);
    assert_eq!(r.given(), Some((1, 1, "x".into())));
}

#[test]
fn a_mistyped_command_quarantines_nobody() {
    let mut r = Rig::new(2);
    r.fill(2);
    for id in ["a", "b", "c", "d"] {
        r.submit(id, json!({"shell": "pyhton3 x"}));
        r.given();
        r.ends_with(1, id, 1, "sh: 1: pyhton3: not found", 127);
    }
    let found = r.c.recovery(r.at());
    assert_eq!((found.quarantined.len(), found.failures.len()), (0, 4));
}

#[test]
fn after_a_long_ladder_the_next_task_starts_with_what_worked() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "t {knob.device} {knob.batch_size}",
        "knobs": {"batch_size": [64, 32, 16, 8], "device": ["cuda", "cpu"]}});
    // One task that fails three times does not keep its type off the GPU.
    r.submit("a", spec.clone());
    for (epoch, batch) in [(1, 64), (2, 32), (3, 16)] {
        assert_eq!(r.given(), Some((1, epoch, format!("t cuda {batch}"))));
        r.pass(10);
        r.ends(1, "a", epoch, OOM);
    }
    r.pass(10);
    assert_eq!(r.given(), Some((1, 4, "t cuda 8".into())));
    r.ends(1, "a", 4, "");
    r.pass(10);
    r.submit("b", spec.clone());
    assert_eq!(r.given(), Some((1, 1, "t cuda 8".into())));
}

#[test]
fn several_that_find_their_way_at_the_same_time_keep_no_type_off_its_hardware() {
    let mut r = Rig::new(4);
    let spec = json!({"shell": "t {knob.device} {knob.batch_size}",
        "knobs": {"batch_size": [64, 32], "device": ["cuda", "cpu"]}});
    let mut at = BTreeMap::new();
    for id in ["a", "b", "c", "e"] {
        r.submit(id, spec.clone());
        at.insert(id, r.given().unwrap().0);
    }
    // The first one is through before the others fail.
    for id in ["a", "b", "c", "e"] {
        r.pass(10);
        r.ends(at[id], id, 1, OOM);
        let (conn, _, line) = r.given().unwrap();
        assert_eq!(line, "t cuda 32");
        at.insert(id, conn);
        if id == "a" {
            r.pass(10);
            r.ends(conn, id, 2, "");
        }
    }
    r.pass(10);
    r.ends(at["b"], "b", 2, "");
    r.submit("d", spec);
    assert_eq!(r.given().unwrap().2, "t cuda 32");
}

#[test]
fn a_fallback_to_the_processor_is_found_again() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "t {knob.device} {knob.batch_size}",
        "knobs": {"batch_size": [64, 32], "device": ["cuda", "cpu"]}});
    r.submit("a", spec.clone());
    for epoch in 1..=2 {
        r.given();
        r.ends(1, "a", epoch, OOM);
    }
    assert_eq!(r.given(), Some((1, 3, "t cpu 32".into())));
    r.ends(1, "a", 3, "");
    r.submit("b", spec);
    assert_eq!(r.given(), Some((1, 1, "t cpu 32".into())));
    let told = &r.decisions("b")[0].text;
    assert_eq!(
        told,
        "it starts with batch_size 32, device cpu, which worked for task a where gpu G did not"
    );
}

#[test]
fn a_task_with_other_knobs_of_the_same_type_erases_nothing() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "t {knob.batch_size}", "knobs": {"batch_size": [64, 32]}});
    r.submit("a", spec.clone());
    r.given();
    r.ends(1, "a", 1, OOM);
    r.given();
    r.ends(1, "a", 2, "");
    let other = json!({"shell": "t {knob.precision}", "knobs": {"precision": ["fp32", "fp16"]}});
    r.submit("b", other.clone());
    r.given();
    r.ends(1, "b", 1, "");
    r.submit("c", other);
    r.given();
    r.ends(1, "c", 1, OOM);
    assert_eq!(r.given(), Some((1, 2, "t fp16".into())));
    r.ends(1, "c", 2, "");
    let found = r.c.recovery(r.at());
    assert_eq!(found.learned.len(), 1);
    let knobs = json!({"batch_size": 32, "precision": "fp16"});
    assert_eq!(serde_json::to_value(&found.learned[0].knobs).unwrap(), knobs);
    r.submit("d", spec);
    assert_eq!(r.given(), Some((1, 1, "t 32".into())));
}

#[test]
fn a_person_overrules_a_quarantine() {
    let mut r = Rig::new(2);
    r.c.on_request(r.at(), 2, Request::Recovery(RecoveryRequest::Quarantine("w1".into())));
    r.c.on_request(r.at(), 3, Request::Recovery(RecoveryRequest::Quarantine("w2".into())));
    r.drain();
    r.submit("a", json!({"shell": "x"}));
    assert_eq!(r.given(), None);
    r.c.on_request(r.at(), 4, Request::Recovery(RecoveryRequest::Release("w2".into())));
    r.drain();
    assert_eq!(r.given().unwrap().0, 2);
}

#[test]
fn a_type_is_kept_off_hardware_where_it_fails() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "t {knob.device}", "knobs": {"device": ["cuda", "cpu"]},
        "requires": {"gpu": "*"}, "retry_failures": false});
    for n in 0..3 {
        let id = format!("t{n}");
        r.submit(&id, spec.clone());
        assert_eq!(r.given().unwrap().2, "t cuda");
        r.ends(1, &id, 1, CUDA);
    }
    r.submit("next", spec.clone());
    assert_eq!(r.given().unwrap().2, "t cpu");
    assert!(r.decisions("next")[0].text.contains("tasks of type t fail on gpu"));
    r.ends(1, "next", 1, "");
    r.c.on_request(r.at(), 4, Request::Recovery(RecoveryRequest::Allow("t".into())));
    r.c.on_request(r.at(), 5, Request::Recovery(RecoveryRequest::Unlearn(None)));
    r.drain();
    r.submit("last", spec);
    assert_eq!(r.given().unwrap().2, "t cuda");
}

#[test]
fn what_ran_beside_others_when_its_keeper_was_killed_pays_once() {
    let mut r = Rig::new(1);
    r.submit("t", json!({"shell": "x", "max_retries": 2}));
    let mut lose = |beside| {
        let (conn, epoch, _) = r.given().expect("it is tried again");
        r.tells(
            conn,
            TaskOutcome {
                task: "t".into(),
                epoch,
                kind: OutcomeKind::Interrupted,
                cause: Cause::WorkerCrashed,
                started_at_ms: 1,
                finished_at_ms: 2,
                beside,
                ..Default::default()
            },
        );
        r.pass(3_600_000);
        let last = r.records.iter().rev().find_map(|record| match record {
            CoordRecord::Requeued { retries, reason, .. } => Some((*retries, reason.clone())),
            CoordRecord::Ended { state, reason, .. } => {
                assert_eq!(*state, TaskState::Failed);
                Some((9, reason.clone()))
            }
            _ => None,
        });
        last.unwrap()
    };
    assert_eq!(lose(3).0, 1);
    let (retries, reason) = lose(1);
    assert_eq!(retries, 1);
    assert!(reason.contains("beside another task") && reason.contains("not count"), "{reason}");
    assert!(lose(7).1.contains("beside 7 other tasks"));
    assert_eq!(lose(0).0, 2, "alone");
    // None is left, and what it shares with others is free up to the tenth.
    for n in 4..=10 {
        assert_eq!(lose(2).0, 2, "{n}");
    }
    let (ended, reason) = lose(2);
    assert!(ended == 9 && reason.contains("max_retries is 2"), "{reason}");
}

#[test]
fn a_delayed_retry_comes_at_its_own_time_and_does_not_hold_up_a_move() {
    let mut r = Rig::new(1);
    r.submit("a", json!({"shell": "x", "retry_failures": true}));
    let (first, ..) = r.given().unwrap();
    r.ends(first, "a", 1, "nobody knows\n");
    assert_eq!(r.given(), None);
    let to = Some("w1".to_owned());
    r.c.on_request(r.at(), 5, Request::Move("a".into(), to));
    r.drain();
    assert_eq!(r.given(), Some((1, 2, "x".into())), "the move is immediate");
    // It fails again, and waits for longer: the time of the first delay means nothing.
    r.pass(500);
    r.ends(1, "a", 2, "nobody knows\n");
    r.pass(2_400);
    assert_eq!(r.given(), None);
    r.pass(4_000);
    assert_eq!(r.given().unwrap().1, 3);
}

#[test]
fn running_out_of_memory_costs_no_retry_and_only_knobs_that_moved_are_remembered() {
    let mut r = Rig::new(1);
    let spec = json!({"shell": "x", "max_retries": 1, "knobs": {"batch_size": [64, 32]}});
    r.submit("good", spec.clone());
    r.given();
    r.ends(1, "good", 1, "");
    let learned =
        |r: &Rig| r.records.iter().filter(|r| matches!(r, CoordRecord::Learned { .. })).count();
    assert_eq!(learned(&r), 0);
    r.submit("a", spec);
    r.given();
    r.ends(1, "a", 1, OOM);
    let retries = r.records.iter().rev().find_map(|record| match record {
        CoordRecord::Requeued { retries, .. } => Some(*retries),
        _ => None,
    });
    assert_eq!(retries, Some(0));
    let (_, epoch, _) = r.given().unwrap();
    r.ends(1, "a", epoch, "");
    assert_eq!(learned(&r), 1);
}

#[test]
fn a_wall_clock_that_jumped_makes_no_task_wait_longer() {
    let spec = TaskSpec::from_json(br#"{"shell": "x"}"#).unwrap();
    let most = CoordConfig::default().recovery.of(&spec).max_delay;
    let state = TaskRecovery { not_before: i64::MAX / 4, ..TaskRecovery::default() };
    let mut r = Rig::new(0);
    r.submit("a", json!({"shell": "x"}));
    let mut snapshot = r.c.snapshot();
    snapshot.tasks[0].recovery = Some(Arc::new(state));
    let again = Rig::from(snapshot, 1_000);
    assert_eq!(again.c.recover.next_due(), 1_000 + most);
}

/// A task that avoids one worker is given to another one, which gives it back: the first may have it after a while.
#[test]
fn a_task_that_is_given_back_stops_avoiding_workers_after_a_while() {
    let mut r = Rig::new(2);
    r.submit(
        "a",
        json!({"shell": "x", "retry_failures": true,
        "recovery": {"errors": {"device": ["different_worker", "delayed_retry"]}}}),
    );
    let (first, ..) = r.given().unwrap();
    r.ends(first, "a", 1, CUDA);
    let (second, epoch, _) = r.given().unwrap();
    assert_ne!(first, second);
    r.pass(40_000);
    let kind = OutcomeKind::Returned;
    r.tells(second, TaskOutcome { task: "a".into(), epoch, kind, ..Default::default() });
    r.given();
    r.c.on_close(r.at(), second, LinkCause::Closed, "gone");
    r.c.on_request(r.at(), 9, Request::Forget(format!("w{second}")));
    r.drain();
    r.pass(70_000);
    assert_eq!(r.given().unwrap().0, first);
}

#[test]
fn a_worker_is_avoided_while_another_one_that_fits_is_busy() {
    let mut r = Rig::new(2);
    r.submit(
        "a",
        json!({"shell": "x", "retry_failures": true,
        "recovery": {"errors": {"device": ["different_worker", "delayed_retry"]}}}),
    );
    let (holder, ..) = r.given().unwrap();
    r.fill(3 - holder);
    r.ends(holder, "a", 1, CUDA);
    r.pass(45_000);
    assert_eq!(r.given(), None);
}
