//! Workers that say that they cannot work.

use super::*;
use outlast_model::spec::Rerun;

/// The disk of a worker is full.
fn full() -> Vec<Unfitness> {
    let reason = "No space left on device".into();
    vec![Unfitness { source: Unfit::Store, reason }]
}

/// Past outcomes of attempts, as a store would have them.
#[derive(Default)]
struct Past(Vec<PastAttempt>);

impl Lookup for Past {
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        false
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::Unrecorded
    }
    fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
        self.0.clone()
    }
}

impl Rig {
    /// Another worker, with its own name, that holds nothing.
    fn join(&mut self, conn: ConnId, name: &str) -> Vec<Output> {
        self.c.on_open(self.now(), conn);
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: name.into(),
            store_id: format!("store of {name}"),
            incarnation: 1,
            connection: 1,
            slots: 1,
            prefetch: 1,
            capabilities_json: "{}".into(),
            takes_settled: true,
            ..Default::default()
        };
        self.c.hear(self.now(), conn, ToCoordinator::Hello(Box::new(hello)), &());
        self.drain(true);
        self.inventory(conn, &[])
    }
    fn beat(&mut self, conn: ConnId, unfit: Vec<Unfitness>) -> Vec<Output> {
        let beat = Heartbeat { seq: 1, unfit, ..Default::default() };
        self.c.hear(self.now(), conn, ToCoordinator::Heartbeat(beat), &());
        self.drain(true)
    }
    fn unsaved(&mut self, conn: ConnId, outcome: TaskOutcome, past: &Past) -> Vec<Output> {
        let unsaved = vec![outcome];
        self.c.hear(self.now(), conn, ToCoordinator::Unsaved(unsaved), past);
        self.drain(true)
    }
    fn lane(&mut self, conn: ConnId, seq: u64, outcome: TaskOutcome) {
        let item = OutboxItem::Outcome(outcome.into());
        let (lane, items) = (Lane::Results, vec![item]);
        let batch = OutboxBatch { lane, first_seq: seq, items, ..Default::default() };
        self.c.hear(self.now(), conn, ToCoordinator::Outbox(batch), &());
        self.drain(true);
    }
}

fn outcome(id: &str, epoch: Epoch, kind: OutcomeKind, cause: Cause) -> TaskOutcome {
    TaskOutcome { task: id.into(), epoch, kind, cause, finished_at_ms: 7, ..Default::default() }
}

fn given(out: &[Output]) -> Vec<(ConnId, String)> {
    let mut found = Vec::new();
    for o in out {
        let Output::Send(conn, ToWorker::Assign(a)) = o else { continue };
        found.extend(a.iter().map(|t| (*conn, format!("{}.{}", t.task, t.epoch))));
    }
    found
}

fn kept(out: &[Output]) -> usize {
    let saved = |o: &Output| match o {
        Output::Send(_, ToWorker::Saved(s)) => s.len(),
        _ => 0,
    };
    out.iter().map(saved).sum()
}

#[test]
fn an_unfit_worker_is_given_nothing_and_what_it_gives_back_goes_elsewhere_at_once() {
    let mut r = Rig::new();
    r.join(1, "a");
    assert_eq!(given(&r.submit("t", |_| ())), [(1, "t.1".into())]);
    r.beat(1, full());
    let view = r.c.worker("a").unwrap();
    let says = "cannot write its store: No space left on device";
    assert_eq!((view.state, &*view.faults.unwrap().says), (WorkerState::Unfit, says));
    // Nobody else is there: what comes waits, and says why.
    assert!(given(&r.submit("u", |_| ())).is_empty());
    let why = r.c.explain(&"u".into()).unwrap();
    assert!(why.contains(&format!("a {says}")), "{why}");
    let back = outcome("t", 1, OutcomeKind::Returned, Cause::Machine);
    let out = r.unsaved(1, back, &Past::default());
    assert_eq!((kept(&out), given(&out).len()), (1, 0));
    assert_eq!(r.c.tasks["t"].retries, 0, "it did not start: that is no loss");
    assert_eq!(given(&r.join(2, "b")), [(2, "t.2".into()), (2, "u.1".into())]);
    assert!(given(&r.submit("v", |_| ())).is_empty(), "b is full, and a gets nothing");
    assert_eq!(given(&r.beat(1, Vec::new())), [(1, "v.1".into())]);
    assert_eq!(r.c.worker("a").unwrap().state, WorkerState::Connected);
}

#[test]
fn the_answer_waits_for_this_disk_and_an_outcome_counts_once() {
    let mut r = Rig::new();
    r.join(1, "a");
    r.submit("t", |_| ());
    r.beat(1, full());
    let done = outcome("t", 1, OutcomeKind::Succeeded, Cause::Done);
    let unsaved = vec![done.clone()];
    r.c.hear(r.now(), 1, ToCoordinator::Unsaved(unsaved), &());
    assert_eq!(kept(&r.drain(false)), 0);
    // It comes again in its lane before the first is durable: known all the same.
    let lane = OutboxItem::Outcome(done.clone().into());
    let batch =
        OutboxBatch { lane: Lane::Results, first_seq: 1, items: vec![lane], ..Default::default() };
    r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &Past::default());
    r.drain(false);
    let newest = r.batches.last().map_or(0, |b| b.number);
    r.c.on_persisted(newest);
    assert_eq!(kept(&r.drain(true)), 1);
    assert_eq!((r.c.counters().outbox.repeated, r.superseded()), (1, 0));
    // And again later, when only the store knows of it, from a store that has forgotten.
    let past = Past(vec![PastAttempt { epoch: 1, outcomes: vec![Arc::new(done.clone())] }]);
    r.unsaved(1, done, &past);
    assert_eq!((r.c.counters().outbox.repeated, r.superseded()), (2, 0));
    // Something else is news of it.
    let other = outcome("t", 1, OutcomeKind::Interrupted, Cause::WorkerCrashed);
    r.unsaved(1, other, &past);
    assert_eq!(r.superseded(), 1);
}

#[test]
fn an_attempt_whose_end_its_store_forgot_is_not_taken_up_again() {
    let mut r = Rig::new();
    r.join(1, "a");
    r.submit("t", |s| s.rerun = Rerun::Never);
    r.beat(1, full());
    let back = outcome("t", 1, OutcomeKind::Returned, Cause::Machine);
    r.unsaved(1, back.clone(), &Past::default());
    r.c.on_close(r.now(), 1, LinkCause::Closed, "crash");
    r.drain(true);
    // It is back, with a store in which the attempt waits still.
    r.c.on_open(r.now(), 2);
    let hello = Hello {
        protocol: PROTOCOL,
        worker_id: "a".into(),
        store_id: "store of a".into(),
        incarnation: 2,
        connection: 1,
        slots: 1,
        capabilities_json: "{}".into(),
        takes_settled: true,
        ..Default::default()
    };
    let past = Past(vec![PastAttempt { epoch: 1, outcomes: vec![Arc::new(back)] }]);
    r.c.hear(r.now(), 2, ToCoordinator::Hello(Box::new(hello)), &past);
    r.drain(true);
    let holdings = vec![Holding { task: "t".into(), epoch: 1, ..Default::default() }];
    let part = Inventory { holdings, last: true };
    r.c.hear(r.now(), 2, ToCoordinator::Inventory(part), &past);
    let out = r.drain(true);
    let order: Vec<&str> = out
        .iter()
        .filter_map(|o| match o {
            Output::Send(2, ToWorker::Stop(attempts, reason))
                if *reason == StopReason::Superseded =>
            {
                Some("stop")
            }
            Output::Send(2, ToWorker::Settled) => Some("settled"),
            Output::Send(2, ToWorker::Assign(_)) => Some("assign"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["stop", "settled", "assign"], "the old attempt never starts");
    assert_eq!(r.c.tasks["t"].epoch, 2);
}

#[test]
fn what_runs_there_goes_elsewhere_after_its_window_unless_it_must_not_run_twice() {
    window_passes(false);
}

#[test]
fn what_is_not_given_back_then_is_lost() {
    window_passes(true);
}

fn window_passes(hangs: bool) {
    let mut r = Rig::new();
    r.join(1, "a");
    r.join(2, "b");
    r.submit("t", |s| s.reconnect_window = 30.0);
    r.submit("o", |s| (s.reconnect_window, s.rerun) = (30.0, Rerun::Never));
    let at = |r: &Rig, id: &str| r.c.tasks[id].worker().unwrap();
    let (t, o) = (at(&r, "t"), at(&r, "o"));
    assert_ne!(t, o);
    let conn = |key| if key == 0 { 1 } else { 2 };
    r.started(conn(t), "t", 1);
    r.started(conn(o), "o", 1);
    // Nobody else could run it: it stays where it is.
    r.beat(1, full());
    r.beat(2, full());
    let stops = |out: &[Output]| {
        let is = |o: &&Output| matches!(o, Output::Send(_, ToWorker::Stop(..)));
        out.iter().filter(is).count()
    };
    let tick = |r: &mut Rig, unfit: [bool; 2]| {
        let mut out = Vec::new();
        for (conn, ill) in [1, 2].into_iter().zip(unfit) {
            out.extend(r.beat(conn, if ill { full() } else { Vec::new() }));
        }
        out.extend(r.pass(5_000));
        out
    };
    for _ in 0..8 {
        assert_eq!(stops(&tick(&mut r, [true, true])), 0);
    }
    // A third is there: after the window the one goes, once, and the other stays.
    r.join(3, "c");
    let out: Vec<Output> = (0..3)
        .flat_map(|_| {
            let mut out = tick(&mut r, [true, true]);
            out.extend(r.beat(3, Vec::new()));
            out
        })
        .collect();
    let moved: Vec<_> = out
        .iter()
        .filter_map(|o| match o {
            Output::Send(c, ToWorker::Stop(attempts, reason)) => {
                Some((*c, *reason, attempts[0].task.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(moved, [(conn(t), StopReason::Move, "t".into())]);
    // One that hangs altogether does not answer to that: then it is lost.
    if hangs {
        let out: Vec<Output> = (0..8)
            .flat_map(|_| {
                let mut out = tick(&mut r, [true, true]);
                out.extend(r.beat(3, Vec::new()));
                out
            })
            .collect();
        assert_eq!(given(&out), [(3, "t.2".into())]);
        assert_eq!((r.c.tasks["t"].retries, r.c.tasks["o"].epoch), (1, 1));
        return;
    }
    let back = outcome("t", 1, OutcomeKind::Interrupted, Cause::Stopped);
    let out = r.unsaved(conn(t), back, &Past::default());
    assert_eq!(given(&out), [(3, "t.2".into())]);
    assert_eq!(r.c.tasks["t"].retries, 0);
}

#[test]
fn a_fault_of_the_machine_is_a_loss_and_goes_round_only_so_often() {
    let mut r = Rig::new();
    r.join(1, "a");
    r.join(2, "b");
    r.submit("t", |s| (s.max_retries, s.retry_failures) = (3, false));
    let (mut places, mut seqs) = (Vec::new(), [0, 0, 0]);
    while !r.c.tasks.get(&"t".into()).is_none_or(|t| t.state().is_terminal()) {
        let (task, conn) = (&r.c.tasks["t"], r.c.tasks["t"].worker().unwrap() + 1);
        let epoch = task.epoch;
        places.push(conn);
        let kind = OutcomeKind::Interrupted;
        let lost = outcome("t", epoch, kind, Cause::Machine);
        let seq = &mut seqs[conn as usize];
        *seq += 1;
        r.lane(conn.into(), *seq, lost);
        r.pass(1_000);
        assert!(places.len() < 10);
    }
    assert_eq!(places, [1, 2, 1, 2], "each time the other one is tried");
    let end =
        r.batches.iter().flat_map(|b| &b.records).rfind(|r| matches!(r, CoordRecord::Ended { .. }));
    let Some(CoordRecord::Ended { state, reason, cause, .. }) = end else { panic!("no end") };
    assert_eq!((*state, *cause), (TaskState::Failed, Cause::Machine));
    assert!(reason.contains("lost 4 times"), "{reason}");
}

#[test]
fn a_fault_that_stops_no_work_is_shown_and_no_more() {
    let mut r = Rig::new();
    r.join(1, "a");
    let blobs = Unfitness { source: Unfit::Blobs, reason: "read-only\u{1b}[31m".into() };
    r.beat(1, vec![blobs]);
    let view = r.c.worker("a").unwrap();
    assert_eq!(view.state, WorkerState::Connected);
    assert_eq!(view.faults.unwrap().says, "cannot keep checkpoints: read-only [31m");
    assert_eq!(given(&r.submit("t", |_| ())).len(), 1);
}

#[test]
fn an_end_beside_the_lane_frees_its_slots_whether_or_not_it_counts() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    // Its task was removed while the worker was away.
    r.inventory(1, &[("gone", 1, RUNNING)]);
    assert_eq!(r.c.worker("w").unwrap().attempts, 1);
    let gone = outcome("gone", 1, OutcomeKind::Failed, Cause::Exit);
    let unsaved = vec![gone];
    r.c.hear(r.now(), 1, ToCoordinator::Unsaved(unsaved), &());
    r.drain(true);
    assert_eq!(r.c.worker("w").unwrap().attempts, 0);
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1);
}

#[test]
fn an_outcome_that_was_announced_and_never_comes_is_a_loss() {
    let mut r = Rig::new();
    r.submit("t", |s| s.max_retries = 3);
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "cut");
    r.drain(true);
    r.hello(2, "s", 2);
    r.inventory(2, &[("t", 1, HoldingState::Finished)]);
    let beat = |unacked| Heartbeat { seq: 1, unacked, ..Default::default() };
    // It is still on its way.
    r.c.hear(r.now(), 2, ToCoordinator::Heartbeat(beat(1)), &());
    assert!(assigned(&r.drain(true)).is_empty());
    r.c.hear(r.now(), 2, ToCoordinator::Heartbeat(beat(0)), &());
    let mut out = r.drain(true);
    out.extend(r.pass(5_000));
    assert_eq!(assigned(&out), [(2, "t.2".into())]);
}

#[test]
fn what_runs_at_an_unfit_worker_stays_within_its_window_and_when_it_is_cancelled() {
    for (window, cancelled, moved) in [(5.0, false, 1), (60.0, false, 0), (5.0, true, 0)] {
        let mut r = Rig::new();
        r.join(1, "a");
        r.submit("t", |s| s.reconnect_window = window);
        r.join(2, "b");
        if cancelled {
            r.c.on_request(r.now(), 9, Request::Cancel("t".into()));
            r.drain(true);
        }
        r.beat(1, full());
        let stops = stops(&r.pass(8_000));
        assert_eq!(stops.len(), moved, "window {window}, cancelled: {cancelled}: {stops:?}");
    }
}
