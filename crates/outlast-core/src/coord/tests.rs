mod again;
mod awaited;
mod limits;
mod loads;
pub(super) mod lookup;
mod rules;

use super::config::*;
use super::*;
use crate::records::WorkerRow;
use crate::records::{
    Asked, Assigned, Batch, CoordRecord, CoordSnapshot, Losses, TaskRow, TaskState,
};
use crate::{Epoch, Machine, Millis, Now, Step};
use lookup::Lookup;
use outlast_model::message::*;
use outlast_model::*;
use std::collections::BTreeMap;
use std::sync::Arc;

mod unfit;

/// A store of the records that were decided.
pub(super) struct Records<'a>(pub(super) &'a [Batch<CoordRecord>]);

impl Lookup for Records<'_> {
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        true
    }
    fn given(&self, id: &str, epoch: Epoch) -> Given {
        let mut given = Given::Never;
        for record in self.0.iter().flat_map(|b| &b.records) {
            match record {
                CoordRecord::Assigned { task, epoch: e, worker, .. }
                    if **task == *id && *e == epoch =>
                {
                    given = Given::To(worker.clone());
                }
                CoordRecord::TasksRemoved { tasks, .. } if tasks.iter().any(|t| **t == *id) => {
                    given = Given::Never;
                }
                _ => {}
            }
        }
        given
    }
}

pub(super) struct Rig {
    pub(super) c: Coordinator,
    pub(super) now: Millis,
    pub(super) batches: Vec<Batch<CoordRecord>>,
    out: Vec<Output>,
    seq: u64,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::from(CoordSnapshot { coordinator_id: "c".into(), ..Default::default() })
    }
    pub(super) fn from(snapshot: CoordSnapshot) -> Self {
        let c = Coordinator::new(CoordConfig::default(), snapshot, Now::default());
        Rig { c, now: 0, batches: Vec::new(), out: Vec::new(), seq: 0 }
    }
    pub(super) fn now(&self) -> Now {
        Now { mono: self.now, wall: self.now as i64 }
    }
    /// Takes all outputs; batches become durable at once when `sync`.
    pub(super) fn drain(&mut self, sync: bool) -> Vec<Output> {
        loop {
            self.c.answer(self.now(), &Records(&self.batches));
            self.c.invariants().expect("memory is consistent after each input");
            let mut synced = None;
            while let Some(o) = self.c.poll() {
                match o {
                    Step::Persist(b) => {
                        synced = Some(b.number);
                        self.batches.push(b);
                    }
                    Step::Perform(Output::Load(..)) => {}
                    Step::Perform(o) => self.out.push(o),
                }
            }
            match synced {
                Some(n) if sync => self.c.on_persisted(n),
                _ => return std::mem::take(&mut self.out),
            }
        }
    }
    pub(super) fn submit(&mut self, id: &str, edit: impl FnOnce(&mut TaskSpec)) -> Vec<Output> {
        let mut spec = TaskSpec::new(Run::Shell("true".into()));
        edit(&mut spec);
        let s = Submission { id: id.into(), spec: Arc::new(spec), chosen: false };
        self.c.on_request(self.now(), 1, Request::Submit(vec![s], Owner::default()));
        self.drain(true)
    }
    pub(super) fn hello(&mut self, conn: ConnId, store: &str, connection: u64) -> Vec<Output> {
        self.hello_of(conn, store, 1, connection)
    }
    pub(super) fn hello_of(
        &mut self,
        conn: ConnId,
        store: &str,
        incarnation: u64,
        connection: u64,
    ) -> Vec<Output> {
        let (store_id, worker_id) = (store.into(), "w".into());
        self.greet(conn, Hello { worker_id, store_id, incarnation, connection, ..hello() })
    }
    pub(super) fn hello_as(
        &mut self,
        conn: ConnId,
        name: &str,
        store: &str,
        connection: u64,
    ) -> Vec<Output> {
        let (store_id, worker_id) = (store.into(), name.into());
        self.greet(conn, Hello { worker_id, store_id, connection, ..hello() })
    }
    pub(super) fn greet(&mut self, conn: ConnId, hello: Hello) -> Vec<Output> {
        self.c.on_open(self.now(), conn);
        self.c.hear(self.now(), conn, ToCoordinator::Hello(Box::new(hello)), &());
        self.drain(true)
    }
    pub(super) fn inventory(
        &mut self,
        conn: ConnId,
        held: &[(&str, Epoch, HoldingState)],
    ) -> Vec<Output> {
        let one = |(id, epoch, state): &(&str, Epoch, HoldingState)| Holding {
            task: (*id).into(),
            epoch: *epoch,
            state: *state,
            started_at_ms: i64::from(*state == HoldingState::Running),
            paused: false,
        };
        let holdings = held.iter().map(one).collect();
        let part = Inventory { holdings, last: true };
        self.c.hear(self.now(), conn, ToCoordinator::Inventory(part), &Records(&self.batches));
        self.drain(true)
    }
    pub(super) fn started(&mut self, conn: ConnId, id: &str, epoch: Epoch) {
        let started = vec![(AttemptId { task: id.into(), epoch }, 1)];
        self.c.hear(self.now(), conn, ToCoordinator::Started(started), &());
        self.drain(true);
    }
    pub(super) fn outcome(
        &mut self,
        conn: ConnId,
        id: &str,
        epoch: Epoch,
        kind: OutcomeKind,
    ) -> Vec<Output> {
        self.seq += 1;
        self.deliver(conn, self.seq, id, epoch, kind)
    }
    pub(super) fn deliver(
        &mut self,
        conn: ConnId,
        seq: u64,
        id: &str,
        epoch: Epoch,
        kind: OutcomeKind,
    ) -> Vec<Output> {
        let outcome =
            TaskOutcome { task: id.into(), epoch, kind, started_at_ms: 1, ..Default::default() };
        let item = OutboxItem::Outcome(outcome.into());
        let items = vec![item];
        let lane = Lane::Results;
        let batch = OutboxBatch { lane, first_seq: seq, items, ..Default::default() };
        self.c.hear(self.now(), conn, ToCoordinator::Outbox(batch), &Records(&self.batches));
        self.drain(true)
    }
    pub(super) fn pass(&mut self, ms: Millis) -> Vec<Output> {
        let mut out = Vec::new();
        let end = self.now + ms;
        while self.now < end {
            self.now = end.min(self.c.next_wake().at.max(self.now + 1));
            self.c.on_tick(self.now());
            out.extend(self.drain(true));
        }
        out
    }
    pub(super) fn ended(&self, id: &str) -> Vec<(TaskState, Epoch)> {
        let records = self.batches.iter().flat_map(|b| &b.records);
        let end = |r: &CoordRecord| match r {
            CoordRecord::Ended { task, state, epoch, .. } if **task == *id => {
                Some((*state, *epoch))
            }
            _ => None,
        };
        records.filter_map(end).collect()
    }
    pub(super) fn superseded(&self) -> usize {
        let records = self.batches.iter().flat_map(|b| &b.records);
        records.filter(|r| matches!(r, CoordRecord::Superseded { .. })).count()
    }
}

pub(super) fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        incarnation: 1,
        slots: 1,
        prefetch: 1,
        capabilities_json: "{}".into(),
        ..Default::default()
    }
}

pub(super) fn assigned(out: &[Output]) -> Vec<(ConnId, String)> {
    let tasks = |o: &Output| match o {
        Output::Send(conn, ToWorker::Assign(a)) => {
            let name = |t: &Assignment| (*conn, format!("{}.{}", t.task, t.epoch));
            a.iter().map(name).collect()
        }
        _ => Vec::new(),
    };
    out.iter().flat_map(tasks).collect()
}

pub(super) fn stops(out: &[Output]) -> Vec<(ConnId, String)> {
    let tasks = |o: &Output| match o {
        Output::Send(conn, ToWorker::Stop(attempts, reason)) => {
            let a = &attempts[0];
            Some((*conn, format!("{}.{} STOP_{}", a.task, a.epoch, reason.word().to_uppercase())))
        }
        _ => None,
    };
    out.iter().filter_map(tasks).collect()
}

pub(super) fn refused(out: &[Output]) -> Option<(RefusedCode, bool)> {
    out.iter().find_map(|o| match o {
        Output::Send(_, ToWorker::Refused(r)) => Some((r.code, r.retry)),
        _ => None,
    })
}

const RUNNING: HoldingState = HoldingState::Running;
const OK: OutcomeKind = OutcomeKind::Succeeded;

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let s = Submission { id: "t".into(), spec, chosen: false };
    r.c.on_request(r.now(), 7, Request::Submit(vec![s], Owner::default()));
    let before = r.drain(false);
    assert!(before.is_empty(), "{before:?}");
    let batch = r.batches.last().unwrap().number;
    r.c.on_persisted(batch);
    let out = r.drain(false);
    assert_eq!(assigned(&out), [(1, "t.1".into())]);
    assert!(out.iter().any(|o| matches!(o, Output::Reply(7, Response::Submitted(_)))));
}

#[test]
fn an_outcome_takes_effect_once_and_is_acknowledged_each_time() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    for _ in 0..2 {
        let out = r.deliver(1, 1, "t", 1, OK);
        assert!(matches!(&out[..], [Output::Send(1, ToWorker::Ack(a))] if a[0].seq == 1));
    }
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
    assert_eq!((r.c.task_counts(), r.c.counters().outbox.repeated), ((0, 0), 1));
}

#[test]
fn an_absent_worker_keeps_its_task_for_the_window_and_is_readopted_after_it() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.reconnect_window = 60.0);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.pass(59_000);
    assert_eq!(r.c.task_counts(), (1, 0));
    r.pass(2_000);
    assert_eq!(r.c.task_counts(), (1, 1), "abandoned after its window");
    r.hello(2, "s", 2);
    let out = r.inventory(2, &[("t", 1, RUNNING)]);
    assert_eq!((assigned(&out), stops(&out)), (vec![], vec![]), "it goes on where it is");
    r.outcome(2, "t", 1, OK);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
}

#[test]
fn a_restart_readopts_and_sends_the_difference() {
    let mut r = Rig::new();
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let row = |id: &str, number| TaskRow {
        state: TaskState::Assigned,
        epoch: 3,
        assigned: Assigned {
            worker: Some("s".into()),
            cancelling: id == "c",
            ..Assigned::default()
        },
        ..TaskRow::submitted(id.into(), number, spec.clone(), 0)
    };
    let worker = WorkerRow {
        store_id: "s".into(),
        name: "w".into(),
        incarnation: 1,
        connection: 1,
        slots: 1,
        prefetch: 0,
        capabilities: "{}".into(),
        labels: BTreeMap::new(),
        version: String::new(),
        drained: false,
        nonce: 0,
        principal: "".into(),
    };
    let snapshot = CoordSnapshot {
        coordinator_id: "c".into(),
        last_number: 4,
        tasks: vec![row("held", 1), row("lost", 2), row("c", 3), row("done", 4)],
        workers: vec![(worker, vec![(Lane::Results, 9)])],
        ..Default::default()
    };
    r = Rig { c: Rig::from(snapshot).c, ..r };
    assert_eq!(refused(&r.hello(1, "s", 1)), Some((RefusedCode::Stale, true)));
    let out = r.hello(2, "s", 2);
    assert!(
        out.iter()
            .any(|o| matches!(o, Output::Send(2, ToWorker::Welcome(w)) if w.cursors[0].seq == 9))
    );
    let finished = HoldingState::Finished;
    let held = [("held", 3, RUNNING), ("done", 3, finished), ("old", 1, RUNNING)];
    let out = r.inventory(2, &held);
    assert_eq!(assigned(&out), [(2, "lost.3".into())]);
    assert_eq!(stops(&out), [(2, "old.1 STOP_SUPERSEDED".into())]);
    assert_eq!(r.ended("c"), [(TaskState::Cancelled, 0)]);
    r.deliver(2, 10, "done", 3, OK);
    assert_eq!(r.ended("done"), [(TaskState::Succeeded, 3)]);
}

#[test]
fn a_late_result_counts_or_is_fenced_as_the_task_says() {
    use outlast_model::spec::LateResult::{Accept, Fence};
    for (late, expected) in [(Accept, 1), (Fence, 2)] {
        let mut r = Rig::new();
        r.hello(1, "s", 1);
        r.inventory(1, &[]);
        r.submit("t", |s| (s.reconnect_window, s.late_result) = (10.0, late));
        r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
        r.pass(11_000);
        // The name is free once nothing is held under it.
        r.hello(2, "other", 1);
        let out = r.inventory(2, &[]);
        assert_eq!(assigned(&out), [(2, "t.2".into())]);
        r.c.on_open(r.now(), 3);
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: "w2".into(),
            store_id: "s".into(),
            incarnation: 1,
            connection: 2,
            slots: 1,
            capabilities_json: "{}".into(),
            ..Default::default()
        };
        r.c.hear(r.now(), 3, ToCoordinator::Hello(Box::new(hello)), &());
        r.inventory(3, &[("t", 1, HoldingState::Finished)]);
        let out = r.deliver(3, 1, "t", 1, OK);
        let stopped = stops(&out);
        r.deliver(2, 1, "t", 2, OK);
        assert_eq!(r.ended("t"), [(TaskState::Succeeded, expected)]);
        assert_eq!((r.superseded(), stopped.len()), (1, usize::from(late == Accept)));
    }
}

#[test]
fn losses_count_and_a_task_that_must_not_run_twice_fails() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.max_retries = 1);
    r.outcome(1, "t", 1, OutcomeKind::Interrupted);
    r.outcome(1, "t", 2, OutcomeKind::Returned);
    assert_eq!(r.ended("t"), [], "what was only given back does not count");
    r.outcome(1, "t", 3, OutcomeKind::Interrupted);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 3)]);
    r.submit("once", |s| s.rerun = outlast_model::spec::Rerun::Never);
    r.outcome(1, "once", 1, OutcomeKind::Interrupted);
    assert_eq!(r.ended("once"), [(TaskState::Failed, 1)]);
}

#[test]
fn success_is_final_even_while_cancelling() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    r.c.on_request(r.now(), 2, Request::Cancel("t".into()));
    assert_eq!(stops(&r.drain(true)), [(1, "t.1 STOP_CANCELLED".into())]);
    r.outcome(1, "t", 1, OK);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
}

#[test]
fn identity_is_the_store_and_the_newest_connection_wins() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    assert_eq!(refused(&r.hello(2, "x", 1)), Some((RefusedCode::Identity, true)));
    let out = r.hello(3, "s", 2);
    assert!(refused(&out).is_none());
    assert!(out.iter().any(|o| matches!(o, Output::Close(1, _))));
    assert_eq!(refused(&r.hello(4, "s", 2)), Some((RefusedCode::Stale, true)));
    assert_eq!(r.c.workers().len(), 1);
}

#[test]
fn a_fresh_store_takes_a_name_once_the_former_one_has_left_and_what_that_held_is_lost() {
    let mut r = Rig::new();
    let taken = Some((RefusedCode::Identity, true));
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    // It waits: for as long as the other is connected, and where that drops for a moment.
    assert_eq!(refused(&r.hello(2, "x", 1)), taken);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.drain(true);
    r.pass(1_000);
    assert_eq!(refused(&r.hello(3, "x", 1)), taken);
    r.pass(30_000);
    assert_eq!(refused(&r.hello(4, "x", 1)), None);
    r.inventory(4, &[]);
    // Its task does not wait for the reconnect window, and goes to the newcomer.
    assert_eq!(r.c.workers().len(), 1);
    r.outcome(4, "t", 2, OK);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 2)]);
    // The former store has to wait in its turn.
    assert_eq!(refused(&r.hello(5, "s", 2)), taken);
}

#[test]
fn silence_closes_a_link_but_a_paused_coordinator_forgives() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.now += 60_000;
    r.c.on_tick(r.now());
    assert!(r.c.workers()[0].conn.is_some(), "it was the coordinator that was stopped");
    let out = r.pass(16_000);
    assert!(out.iter().any(|o| matches!(o, Output::Close(1, _))));
    assert_eq!(r.c.counters().links.silent, 1);
}

#[test]
fn the_same_submission_twice_is_one_task_and_another_spec_is_a_conflict() {
    let mut r = Rig::new();
    let reply = |out: Vec<Output>| {
        out.into_iter().find_map(|o| match o {
            Output::Reply(_, r) => Some(r),
            _ => None,
        })
    };
    let made = |created| {
        let state = TaskState::Pending;
        Some(Response::Submitted(vec![Submitted { id: "t".into(), created, state }]))
    };
    assert_eq!(reply(r.submit("t", |_| {})), made(true));
    assert_eq!(reply(r.submit("t", |_| {})), made(false));
    let other = reply(r.submit("t", |s| s.priority = 1));
    assert_eq!(other, Some(Response::Conflict(vec!["t".into()])));
    assert_eq!(r.c.task_counts(), (1, 1));
}

#[test]
fn a_task_that_was_retried_stays_though_its_end_becomes_durable() {
    let mut r = Rig::new();
    r.submit("t", |_| {});
    r.c.on_request(r.now(), 2, Request::Cancel("t".into()));
    r.c.on_request(r.now(), 3, Request::Retry("t".into()));
    r.drain(true);
    assert_eq!(r.c.task_counts(), (1, 1));
}

#[test]
fn waiting_work_moves_to_a_worker_that_idles() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("a", |_| {});
    r.submit("b", |_| {});
    r.c.on_open(r.now(), 2);
    let hello = Hello {
        protocol: PROTOCOL,
        worker_id: "w2".into(),
        store_id: "s2".into(),
        incarnation: 1,
        connection: 1,
        slots: 1,
        capabilities_json: "{}".into(),
        ..Default::default()
    };
    r.c.hear(r.now(), 2, ToCoordinator::Hello(Box::new(hello)), &());
    r.inventory(2, &[]);
    let started = vec![(AttemptId { task: "a".into(), epoch: 1 }, 1)];
    r.c.hear(r.now(), 1, ToCoordinator::Started(started), &());
    assert_eq!(stops(&r.pass(3_000)), [(1, "b.1 STOP_RETURN".into())]);
    let out = r.outcome(1, "b", 1, OutcomeKind::Returned);
    assert_eq!(assigned(&out), [(2, "b.2".into())]);
}

#[test]
fn a_new_task_of_an_old_id_has_nothing_to_do_with_the_former_one() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let spec = |s: &mut TaskSpec| (s.reconnect_window, s.max_retries) = (1.0, 0);
    r.submit("t", spec);
    let mut goes_on = r.c.tasks["t"].spec.as_ref().clone();
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.pass(2_000);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 1)]);
    goes_on.priority = 7;
    let row = TaskRow {
        state: TaskState::Failed,
        epoch: 1,
        losses: Losses { lost: true, ..Losses::default() },
        ..TaskRow::submitted("t".into(), 1, goes_on.clone().into(), 0)
    };

    r.c.ask_of(r.now(), 2, Request::Remove(vec!["t".into()], 0), &row);
    assert!(r.drain(false).is_empty(), "removed once it is durable");
    // The store still shows it.
    r.c.ask_of(r.now(), 3, Request::Retry("t".into()), &row);
    let s = Submission { id: "t".into(), spec: goes_on.into(), chosen: true };
    r.c.ask_of(r.now(), 4, Request::Submit(vec![s], Owner::default()), &row);
    let out = r.drain(true);
    let replies = out.iter().filter_map(|o| match o {
        Output::Reply(_, r) => Some(r),
        _ => None,
    });
    let created = Submitted { id: "t".into(), created: true, state: TaskState::Pending };
    assert!(replies.eq([
        &Response::Removed(1),
        &Response::NotFound,
        &Response::Submitted(vec![created])
    ]));

    r.hello(2, "s", 2);
    let out = r.inventory(2, &[("t", 1, RUNNING)]);
    assert_eq!(stops(&out), [(2, "t.1 STOP_SUPERSEDED".into())]);
    assert_eq!(assigned(&out), [(2, "t.2".into())]);
    let floor = out.iter().find_map(|o| match o {
        Output::Send(_, ToWorker::Assign(a)) => Some(a[0].after),
        _ => None,
    });
    assert_eq!(floor, Some(1), "its worker may still hold what the former one made");
    r.outcome(2, "t", 1, OK);
    assert_eq!((r.ended("t").len(), r.superseded()), (1, 0));
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1, "nobody knows whose it was");
    r.outcome(2, "t", 2, OK);
    assert_eq!(r.ended("t")[1..], [(TaskState::Succeeded, 2)]);
}

#[test]
fn what_must_not_run_twice_is_not_given_again_to_another_process_of_its_worker() {
    let once = |s: &mut TaskSpec| s.rerun = outlast_model::spec::Rerun::Never;
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", once);
    // The assignment was lost with the link: the process that it was given to never had it.
    r.hello(2, "s", 2);
    assert_eq!(assigned(&r.inventory(2, &[])), [(2, "t.1".into())]);
    // It ran, and its worker's folder was put back to an older copy. One that says no more than
    // hello settles nothing.
    r.hello_of(3, "s", 2, 1);
    let mut seen = r.batches.iter().flat_map(|b| &b.records).filter_map(|record| match record {
        CoordRecord::WorkerSeen { worker, .. } => Some((worker.incarnation, worker.connection)),
        _ => None,
    });
    assert_eq!(seen.next_back(), Some((1, 2)));
    r.hello_of(4, "s", 2, 2);
    assert_eq!(assigned(&r.inventory(4, &[])), []);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 1)]);
}

#[test]
fn a_start_that_its_worker_forgot_is_not_repeated() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.rerun = outlast_model::spec::Rerun::Never);
    r.started(1, "t", 1);
    r.hello_of(2, "s", 2, 1);
    let out = r.inventory(2, &[("t", 1, HoldingState::Queued)]);
    assert_eq!(stops(&out), [(2, "t.1 STOP_SUPERSEDED".into())]);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 1)]);
}

#[test]
fn what_must_not_run_twice_is_not_moved_once_it_runs() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.rerun = outlast_model::spec::Rerun::Never);
    let away = || Request::Move("t".into(), None);
    // Its start was on its way.
    r.c.on_request(r.now(), 2, away());
    assert_eq!(stops(&r.drain(true)), [(1, "t.1 STOP_MOVE".into())]);
    r.started(1, "t", 1);
    assert_eq!(r.c.tasks["t"].asked.place, None);
    r.c.on_request(r.now(), 3, away());
    let out = r.drain(true);
    assert!(out.iter().any(|o| matches!(o, Output::Reply(3, Response::NotTwice))));
    assert_eq!(stops(&out), []);
}

#[test]
fn what_was_asked_of_an_absent_workers_task_survives_a_restart() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| ());
    r.started(1, "t", 1);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.c.on_request(r.now(), 2, Request::Checkpoint("t".into()));
    r.c.on_request(r.now(), 3, Request::Move("t".into(), None));
    r.drain(true);
    let told = |r: &Rig| {
        let records = r.batches.iter().flat_map(|b| b.records.clone());
        let asked = records.filter_map(|record| match record {
            CoordRecord::Asked { asked, .. } => Some(asked),
            _ => None,
        });
        asked.last()
    };
    let asked = Asked { checkpoint: true, place: Some(("w".into(), false)), awaited: None };
    assert_eq!(told(&r), Some(asked.clone()));

    let worker = WorkerRow::clone(&r.c.fleet.get(r.c.fleet.named("w").unwrap()).row);
    let row = TaskRow {
        state: TaskState::Assigned,
        epoch: 1,
        assigned: Assigned { worker: Some("s".into()), started_at: Some(1), ..Assigned::default() },
        asked,
        ..TaskRow::submitted("t".into(), 1, r.c.tasks["t"].spec.clone(), 0)
    };
    let mut r = Rig::from(CoordSnapshot {
        coordinator_id: "c".into(),
        last_number: 1,
        tasks: vec![row],
        workers: vec![(worker, Vec::new())],
        ..Default::default()
    });
    r.hello(1, "s", 2);
    let out = r.inventory(1, &[("t", 1, HoldingState::Running)]);
    assert_eq!(stops(&out), [(1, "t.1 STOP_MOVE".into())]);
    let asks =
        |o: &&Output| matches!(o, Output::Send(_, ToWorker::Control(_, ControlKind::Checkpoint)));
    assert_eq!(out.iter().filter(asks).count(), 1);
    // The checkpoint was asked for; the place holds until another worker has it.
    assert_eq!(
        told(&r),
        Some(Asked { checkpoint: false, place: Some(("w".into(), false)), awaited: None })
    );
    r.outcome(1, "t", 1, OutcomeKind::Interrupted);
    assert!(r.c.tasks["t"].is_misplaced("w"));
    r.c.on_request(r.now(), 4, Request::Cancel("t".into()));
    r.drain(true);
    assert_eq!(told(&r), Some(Asked::default()));
}
