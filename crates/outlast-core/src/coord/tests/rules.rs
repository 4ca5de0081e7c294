//! Rules of ARCHITECTURE.md that a small mistake would break, a claim each.

use super::super::admission::Admission;
use super::*;
use outlast_model::message::*;
use outlast_model::spec::{LateResult, Rerun};
use outlast_model::*;

const AWAY: LinkCause = LinkCause::Closed;

/// A store with one task, whose attempts were all given to store `s`.
struct Past {
    row: Option<TaskRow>,
    key_is_valid: bool,
}

impl Lookup for Past {
    fn task(&self, _: &str) -> Option<TaskRow> {
        self.row.clone()
    }
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        true
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::To("s".into())
    }
    fn key_is_valid(&self, _: &str) -> bool {
        self.key_is_valid
    }
}

/// Task `t` as a store has it, with attempts from `after` (exclusive) to 2.
fn past(state: TaskState, after: Epoch) -> TaskRow {
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    TaskRow { state, epoch: 2, ..TaskRow::submitted("t".into(), 900, spec, after) }
}

fn checkpoint(epoch: Epoch, number: u64) -> Checkpoint {
    let manifest = vec![number as u8].into();
    Checkpoint { task: "t".into(), epoch, number, manifest, ..Default::default() }
}

impl Rig {
    /// A worker with its own store that holds nothing.
    fn member(&mut self, conn: ConnId, name: &str, slots: u32, prefetch: u32) -> Vec<Output> {
        let (worker_id, store_id) = (name.into(), format!("store-{name}"));
        let own = Hello { worker_id, store_id, connection: conn, ..hello() };
        let mut out = self.greet(conn, Hello { slots, prefetch, ..own });
        out.extend(self.inventory(conn, &[]));
        out
    }
    fn leave(&mut self, conn: ConnId) {
        self.c.on_close(self.now(), conn, AWAY, "gone");
        self.drain(true);
    }
    fn ask(&mut self, request: Request) -> (Response, Vec<Output>) {
        self.ask_with(request, &())
    }
    fn ask_with(&mut self, request: Request, look: &dyn Lookup) -> (Response, Vec<Output>) {
        self.c.ask_of(self.now(), 99, request, look);
        let out = self.drain(true);
        let reply = out.iter().find_map(|o| match o {
            Output::Reply(99, response) => Some(response.clone()),
            _ => None,
        });
        (reply.expect("a request is answered"), out)
    }
    fn brings(&mut self, seq: u64, item: OutboxItem, look: &dyn Lookup) -> Vec<Output> {
        let lane = match &item {
            OutboxItem::Outcome(_) => Lane::Results,
            OutboxItem::Checkpoint(_) => Lane::Checkpoints,
            OutboxItem::State(_) => Lane::State,
            OutboxItem::Nothing => Lane::Results,
        };
        let items = vec![item];
        let seqs = if lane == Lane::State { vec![seq] } else { Vec::new() };
        let (lane, first_seq) = (lane, seq);
        let batch = OutboxBatch { lane, first_seq, items, seqs, ..Default::default() };
        self.c.hear(self.now(), 1, ToCoordinator::Outbox(batch), look);
        self.drain(true)
    }
    fn recorded(&self) -> impl Iterator<Item = &CoordRecord> {
        self.batches.iter().flat_map(|b| &b.records)
    }
    fn count(&self, which: impl Fn(&CoordRecord) -> bool) -> usize {
        self.recorded().filter(|r| which(r)).count()
    }
    fn reason(&self) -> String {
        let ends = self.recorded().filter_map(|r| match r {
            CoordRecord::Ended { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        ends.last().unwrap_or_default()
    }
}

fn request(id: &str) -> Submission {
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    Submission { id: id.into(), spec, chosen: true }
}

fn submit(tasks: Vec<Submission>) -> Request {
    Request::Submit(tasks, Owner::default())
}

fn returned(out: &[Output]) -> Vec<String> {
    let all = stops(out).into_iter().map(|(_, what)| what);
    all.filter(|what| what.ends_with("STOP_RETURN")).collect()
}

#[test]
fn higher_priority_goes_first() {
    let mut r = Rig::new();
    r.submit("low", |_| {});
    r.submit("high", |s| s.priority = 5);
    let out = r.member(1, "w", 1, 1);
    assert_eq!(assigned(&out), [(1, "high.1".into()), (1, "low.1".into())]);
}

#[test]
fn a_drained_worker_gives_back_what_waits_and_stays_drained_when_it_is_back() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("a", |_| {});
    r.submit("b", |_| {});
    r.started(1, "a", 1);
    let drain = |on| Request::Drain("w".into(), on);
    let (_, out) = r.ask(drain(true));
    assert_eq!(returned(&out), ["b.1 STOP_RETURN"]);
    assert_eq!(r.count(|r| matches!(r, CoordRecord::WorkerDrained { on: true, .. })), 1);
    r.leave(1);
    let store = "store-w";
    r.hello(2, store, 2);
    let held = [("a", 1, RUNNING), ("b", 1, HoldingState::Queued)];
    assert_eq!(returned(&r.inventory(2, &held)), ["b.1 STOP_RETURN"]);
    assert_eq!(assigned(&r.submit("c", |_| {})), []);
    let (_, out) = r.ask(drain(false));
    assert_eq!(assigned(&out), [], "it holds as much as it may");
}

#[test]
fn a_quarantined_worker_gives_back_what_waits_and_nothing_of_it_outlives_the_worker() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("a", |_| {});
    r.submit("b", |_| {});
    r.started(1, "a", 1);
    let (_, out) = r.ask(Request::Recovery(RecoveryRequest::Quarantine("w".into())));
    assert_eq!(returned(&out), ["b.1 STOP_RETURN"]);
    r.leave(1);
    assert_eq!(r.ask(Request::Forget("w".into())).0, Response::Forgotten);
    assert!(r.c.recovery(r.now()).quarantined.is_empty());
    let last = r.recorded().filter_map(|r| match r {
        CoordRecord::Quarantined { quarantine, .. } => Some(quarantine.is_none()),
        _ => None,
    });
    assert_eq!(last.last(), Some(true));
    assert_eq!(r.c.task_counts(), (2, 2), "what it had is given to others");
}

#[test]
fn a_request_reaches_a_worker_that_was_away() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("cancelled", |_| {});
    r.submit("moved", |_| {});
    r.leave(1);
    r.ask(Request::Cancel("cancelled".into()));
    assert_eq!(r.count(|r| matches!(r, CoordRecord::CancelRequested { .. })), 1);
    let task = || "moved".into();
    r.ask(Request::Move(task(), None));
    r.ask(Request::Checkpoint(task()));
    let action = outlast_wire::v1::Action::ResetConnectionStats;
    r.ask(Request::Act("w".into(), action));
    r.hello(2, "store-w", 2);
    let out = r.inventory(2, &[("cancelled", 1, RUNNING), ("moved", 1, RUNNING)]);
    let expected = [(2, "cancelled.1 STOP_CANCELLED"), (2, "moved.1 STOP_MOVE")];
    assert_eq!(stops(&out), expected.map(|(conn, what)| (conn, what.to_owned())));
    let controls = out.iter().filter(|o| matches!(o, Output::Send(2, ToWorker::Control(..))));
    assert_eq!(controls.count(), 1, "the checkpoint");
    assert!(out.iter().any(|o| matches!(o, Output::Send(2, ToWorker::ResetStats))));
}

#[test]
fn a_start_is_recorded_once_whoever_reports_it() {
    let started = |r: &Rig| r.count(|r| matches!(r, CoordRecord::Started { .. }));
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.member(2, "other", 1, 1);
    r.submit("t", |_| {});
    r.started(2, "t", 1);
    r.started(1, "t", 7);
    assert_eq!(started(&r), 0, "neither another worker nor another attempt speaks of it");
    r.started(1, "t", 1);
    r.started(1, "t", 1);
    assert_eq!(started(&r), 1);
    r.submit("u", |_| {});
    let conn = if r.c.worker("w").unwrap().attempts == 2 { 1 } else { 2 };
    let name = if conn == 1 { "w" } else { "other" };
    r.leave(conn);
    r.hello_as(3, name, &format!("store-{name}"), 3);
    let all = [("t", 1, RUNNING), ("u", 1, RUNNING)];
    r.inventory(3, if conn == 1 { &all } else { &all[1..] });
    assert_eq!(started(&r), 2, "the inventory reports one that nobody heard of");
}

#[test]
fn a_task_whose_retries_are_used_up_says_so_and_asks_no_planner() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("t", |s| s.max_retries = 0);
    r.outcome(1, "t", 1, OutcomeKind::Interrupted);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 1)]);
    assert!(r.reason().contains("lost 1 times, max_retries is 0"), "{}", r.reason());
    assert_eq!(r.count(|r| matches!(r, CoordRecord::Recovered { .. })), 0);
}

#[test]
fn a_cancel_beats_whatever_else_ends_the_attempt() {
    use OutcomeKind as K;
    let ends = [
        (K::Returned, TaskState::Cancelled),
        (K::Interrupted, TaskState::Cancelled),
        (K::Cancelled, TaskState::Cancelled),
        (K::Failed, TaskState::Failed),
        (K::Succeeded, TaskState::Succeeded),
    ];
    for (kind, state) in ends {
        for moved in [false, true] {
            let mut r = Rig::new();
            r.member(1, "w", 1, 1);
            r.submit("t", |s| s.retry_failures = true);
            if moved {
                r.ask(Request::Move("t".into(), None));
            }
            r.ask(Request::Cancel("t".into()));
            let (after, _) = r.ask(Request::Move("t".into(), None));
            assert_eq!(after, Response::WrongState(TaskState::Assigned));
            r.outcome(1, "t", 1, kind);
            assert_eq!(r.ended("t"), [(state, 1)], "{kind:?}, moved: {moved}");
        }
    }
}

#[test]
fn at_most_once_holds_when_a_person_moves_the_task() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.member(2, "other", 1, 1);
    r.submit("t", |s| s.rerun = Rerun::Never);
    let conn = if r.c.worker("w").unwrap().attempts == 1 { 1 } else { 2 };
    r.ask(Request::Move("t".into(), None));
    r.outcome(conn, "t", 1, OutcomeKind::Interrupted);
    assert_eq!(r.ended("t"), [(TaskState::Failed, 1)]);
}

#[test]
fn a_late_success_is_honoured_where_the_task_failed_for_loss_alone() {
    use LateResult::{Accept, Fence};
    use OutcomeKind::{Failed, Succeeded};
    let cases = [
        (Accept, true, 0, Succeeded, true),
        (Fence, true, 0, Succeeded, false),
        (Accept, false, 0, Succeeded, false),
        (Accept, true, 1, Succeeded, false),
        (Accept, true, 0, Failed, false),
    ];
    for (late, lost, after, kind, honoured) in cases {
        let mut r = Rig::new();
        r.hello(1, "s", 1);
        r.inventory(1, &[]);
        let mut row =
            TaskRow { losses: Losses { lost, retries: 0 }, ..past(TaskState::Failed, after) };
        Arc::make_mut(&mut row.spec).late_result = late;
        let outcome = TaskOutcome {
            task: "t".into(),
            epoch: 1,
            kind,
            started_at_ms: 1,
            ..Default::default()
        };
        let look = Past { row: Some(row), key_is_valid: true };
        r.brings(1, OutboxItem::Outcome(outcome.into()), &look);
        let counts = (r.ended("t").len(), r.superseded());
        let expected = (usize::from(honoured), usize::from(!honoured));
        assert_eq!(counts, expected, "{late:?}, lost: {lost}, after {after}, {kind:?}");
        assert_eq!(r.c.task_counts(), (0, 0), "what was looked up leaves memory");
    }
}

#[test]
fn checkpoints_are_kept_by_rule_and_those_of_a_failed_task_all() {
    let pruned = |r: &Rig| r.count(|r| matches!(r, CoordRecord::CheckpointsPruned { .. }));
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.keep_checkpoints.last = 1);
    let look = Past { row: None, key_is_valid: true };
    for number in 1..=3 {
        let item = OutboxItem::Checkpoint(checkpoint(1, number).into());
        r.brings(number, item, &look);
    }
    assert_eq!(pruned(&r), 2);
    let next = r.c.snapshot().tasks[0].reported.checkpoints.clone();
    assert_eq!(next.iter().map(|c| c.number).collect::<Vec<_>>(), [3]);
    for (failed, expected) in [(true, 0), (false, 1)] {
        let mut r = Rig::new();
        r.hello(1, "s", 1);
        r.inventory(1, &[]);
        let mut row = past(TaskState::Failed, 0);
        row.reported.checkpoints.push(Arc::new(checkpoint(1, 1)));
        let rule = &mut Arc::make_mut(&mut row.spec).keep_checkpoints;
        (rule.last, rule.failed) = (1, failed);
        let look = Past { row: Some(row), key_is_valid: true };
        r.brings(1, OutboxItem::Checkpoint(checkpoint(1, 2).into()), &look);
        assert_eq!(pruned(&r), expected, "keep those of failed tasks: {failed}");
    }
}

#[test]
fn a_checkpoint_waits_for_its_blob_and_keeps_it_until_both_are_durable() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    let kept = |r: &Rig| r.count(|r| matches!(r, CoordRecord::Checkpoint { .. }));
    let item = |n| OutboxItem::Checkpoint(checkpoint(1, n).into());
    let out = r.brings(1, item(1), &());
    assert!(out.iter().any(|o| matches!(o, Output::Send(1, ToWorker::BlobMissing(_)))));
    let acked = |o: &Output| matches!(o, Output::Send(1, ToWorker::Ack(a)) if a[0].seq > 0);
    assert!(kept(&r) == 0 && !out.iter().any(acked));
    // What follows is no gap.
    let out = r.brings(2, item(2), &());
    assert!(refused(&out).is_none() && kept(&r) == 0);
    let items = vec![item(1)];
    let lane = Lane::Checkpoints;
    let batch = OutboxBatch { lane, first_seq: 1, items, ..Default::default() };
    let look = Past { row: None, key_is_valid: true };
    r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &look);
    assert_eq!(r.c.unsynced_blobs().count(), 1);
    r.drain(true);
    assert_eq!((r.c.unsynced_blobs().count(), kept(&r)), (0, 1));
}

#[test]
fn a_former_task_of_the_id_says_nothing_of_this_one() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let look = Past { row: Some(past(TaskState::Succeeded, 1)), key_is_valid: true };
    r.brings(1, OutboxItem::Checkpoint(checkpoint(1, 1).into()), &look);
    let state = |epoch, version| {
        let state_json = b"{}".to_vec().into();
        let task = "t".into();
        let update = StateUpdate { task, epoch, version, state_json, ..Default::default() };
        OutboxItem::State(update.into())
    };
    r.brings(1, state(1, 1), &look);
    // Nor does an attempt that was never given out.
    r.brings(2, state(9, 1), &look);
    assert_eq!(
        r.count(|r| matches!(r, CoordRecord::State { .. } | CoordRecord::Checkpoint { .. })),
        0
    );
    r.brings(3, state(2, 4), &look);
    let mut row = past(TaskState::Succeeded, 1);
    row.reported.state_version = (2, 4);
    let look = Past { row: Some(row), key_is_valid: true };
    r.brings(4, state(2, 4), &look);
    r.brings(5, state(2, 3), &look);
    assert_eq!(
        r.count(|r| matches!(r, CoordRecord::State { .. })),
        1,
        "an older state is not recorded"
    );
}

#[test]
fn unfinished_tasks_have_a_limit_and_an_id_is_taken_once() {
    let mut r = Rig::new();
    r.c.config.max_unfinished = 1;
    let both = vec![request("a"), request("b")];
    assert_eq!(r.ask(submit(both)).0, Response::TooBig { fresh: 2, limit: 1 });
    let (twins, _) = r.ask(submit(vec![request("a"), request("a")]));
    let Response::Submitted(twins) = twins else { panic!("{twins:?}") };
    assert_eq!(twins.iter().map(|s| s.created).collect::<Vec<_>>(), [true, false]);
    assert_eq!(r.count(|r| matches!(r, CoordRecord::Submitted { .. })), 1);
    assert_eq!(r.ask(submit(vec![request("b")])).0, Response::Full { limit: 1 });
    let retry = || Request::Retry("t".into());
    let failed = past(TaskState::Failed, 0);
    assert_eq!(r.ask_with(retry(), &failed).0, Response::Full { limit: 1 });
    r.c.config.max_unfinished = 9;
    let (answer, _) = r.ask_with(retry(), &past(TaskState::Succeeded, 0));
    assert_eq!(answer, Response::WrongState(TaskState::Succeeded), "a success is final");
    let mut paused = past(TaskState::Failed, 0);
    (paused.paused, paused.losses.retries) = (true, 3);
    r.ask_with(retry(), &paused);
    assert_eq!(r.c.task_counts(), (2, 2), "a person's retry goes on");
    let tasks = r.c.snapshot().tasks;
    assert!(tasks.iter().all(|t| t.losses.retries == 0), "and begins its budgets again");
    assert_eq!(r.count(|r| matches!(r, CoordRecord::Retried { .. })), 1);
    let owner = Owner { name: Some("mine".into()), private: true };
    let theirs = TaskRow { id: "x".into(), ..past(TaskState::Pending, 0) };
    let submission = Request::Submit(vec![request("x")], owner);
    let (answer, _) = r.ask_with(submission, &theirs);
    assert_eq!(answer, Response::Conflict(vec!["x".into()]), "somebody else's task");
}

#[test]
fn a_task_that_is_being_removed_is_not_there_any_more() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let unfinished = TaskRow { id: "u".into(), ..past(TaskState::Assigned, 0) };
    let both = [past(TaskState::Failed, 0), unfinished];
    let remove =
        |ids: &[&str]| Request::Remove(ids.iter().map(|id| (*id).into()).collect(), i64::MIN);
    r.c.ask_of(r.now(), 1, remove(&["t", "u"]), &both);
    assert_eq!(r.c.counters().tasks.removed, 1, "only what has ended is removed");
    let outcome = TaskOutcome { task: "t".into(), epoch: 1, ..Default::default() };
    let look = Past { row: None, key_is_valid: true };
    r.brings(1, OutboxItem::Outcome(outcome.into()), &look);
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1);
    r.ask_with(Request::Retry("t".into()), &both[0]);
    let (answer, _) = r.ask_with(remove(&["t"]), &both[0]);
    assert_eq!(answer, Response::Removed(0), "it goes on");
}

#[test]
fn returning_workers_are_admitted_at_a_pace() {
    let mut r = Rig::new();
    r.c.fleet.admission = Admission::new(1, 1);
    assert_eq!(refused(&r.member(1, "a", 1, 1)), None);
    let out: Vec<_> = (2..5).map(|n| refused(&r.member(n, &format!("b{n}"), 1, 1))).collect();
    assert!(out.contains(&Some((RefusedCode::Busy, true))), "{out:?}");
}

#[test]
fn each_that_waits_has_a_turn_of_its_own() {
    let mut a = Admission::new(10, 1);
    let turns: Vec<_> = (0..6).filter_map(|n| a.ask(&format!("s{n}").into(), 0).err()).collect();
    assert!(turns.len() >= 4 && turns.windows(2).all(|w| w[0] < w[1]), "{turns:?}");
}

#[test]
fn a_link_without_a_hello_ends_and_a_hello_of_another_protocol_is_refused() {
    let mut r = Rig::new();
    r.c.on_open(r.now(), 1);
    let mut out = Vec::new();
    for _ in 0..17 {
        r.now += 1_000;
        r.c.on_heard(r.now(), 1);
        r.c.on_tick(r.now());
        out.extend(r.drain(true));
    }
    assert!(out.iter().any(|o| matches!(o, Output::Close(1, _))), "though something arrives");
    let (worker_id, store_id) = ("w".into(), "s".into());
    let other = Hello { protocol: PROTOCOL + 1, worker_id, store_id, ..hello() };
    let out = r.greet(2, other);
    assert_eq!(refused(&out), Some((RefusedCode::Protocol, false)));
}

#[test]
fn numbers_that_no_store_can_hold_are_refused() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let out = r.deliver(1, 1, "t", 1 << 57, OK);
    assert_eq!(refused(&out), Some((RefusedCode::Malformed, true)));
}

#[test]
fn a_revoked_key_binds_nobody_and_an_unbound_worker_is_on_record() {
    for (key_is_valid, expected) in [(true, Some((RefusedCode::Identity, false))), (false, None)] {
        let mut r = Rig::new();
        let principal = |name: &str| Principal { name: name.into(), operator: false };
        r.c.on_open(r.now(), 1);
        r.c.on_principal(1, principal("first"));
        let own = |connection| {
            let (worker_id, store_id) = ("w".into(), "s".into());
            Hello { worker_id, store_id, connection, ..hello() }
        };
        r.c.hear(r.now(), 1, ToCoordinator::Hello(Box::new(own(1))), &());
        r.inventory(1, &[]);
        r.leave(1);
        r.c.on_open(r.now(), 2);
        r.c.on_principal(2, principal("second"));
        let look = Past { row: None, key_is_valid };
        r.c.hear(r.now(), 2, ToCoordinator::Hello(Box::new(own(2))), &look);
        assert_eq!(refused(&r.drain(true)), expected);
        r.ask(Request::Unbind("w".into()));
        assert_eq!(r.count(|r| matches!(r, CoordRecord::WorkerUnbound { .. })), 1);
    }
}

#[test]
fn no_worker_is_forgotten_for_room_that_has_tasks_or_is_drained() {
    for drained in [false, true] {
        let mut r = Rig::new();
        r.c.config.max_workers = (1, usize::MAX);
        r.member(1, "a", 1, 1);
        match drained {
            true => drop(r.ask(Request::Drain("a".into(), true))),
            false => drop(r.submit("t", |_| {})),
        }
        r.leave(1);
        assert_eq!(refused(&r.member(2, "b", 1, 1)), Some((RefusedCode::Busy, true)));
        r.ask(Request::Forget("a".into()));
        assert_eq!(refused(&r.member(3, "b", 1, 1)), None);
    }
}

#[test]
fn windows_end_one_after_the_other_and_not_while_the_process_is_stopped() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("short", |s| s.reconnect_window = 10.0);
    r.submit("long", |s| s.reconnect_window = 60.0);
    r.pass(4_000);
    r.leave(1);
    r.now += 3_600_000;
    r.c.on_tick(r.now());
    r.drain(true);
    assert_eq!(r.c.task_counts(), (2, 0), "whoever slept judges nobody");
    r.pass(8_000);
    assert_eq!(r.c.task_counts(), (2, 0), "a window begins when the link ends");
    r.pass(3_000);
    assert_eq!(r.c.task_counts(), (2, 1));
    r.pass(50_000);
    assert_eq!(r.c.task_counts(), (2, 2));
}

#[test]
fn after_a_restart_what_is_assigned_takes_its_slots() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("held", |_| {});
    r = Rig { c: Rig::from(r.c.snapshot()).c, ..r };
    assert_eq!(r.c.worker("w").unwrap().attempts, 1);
    r.hello(2, "store-w", 2);
    assert_eq!(assigned(&r.inventory(2, &[])), [(2, "held.1".into())]);
    let out = [r.submit("a", |_| {}), r.submit("b", |_| {})].concat();
    assert_eq!(assigned(&out), [(2, "a.1".into())], "two slots' worth");
}

#[test]
fn waiting_work_is_asked_back_for_as_much_room_as_there_is() {
    let crowded = |prefetch, tasks: u32| {
        let mut r = Rig::new();
        r.member(1, "w", 1, prefetch);
        for n in 0..tasks {
            r.submit(&format!("t{n}"), |_| {});
        }
        r.started(1, "t0", 1);
        r
    };
    let mut r = crowded(3, 4);
    r.member(2, "idle", 1, 1);
    assert_eq!(returned(&r.pass(1_100)), ["t1.1 STOP_RETURN"], "one slot is idle");
    assert_eq!(returned(&r.pass(1_000)).len(), 1, "another one, since that is not back yet");
    let mut r = crowded(1, 2);
    r.member(2, "idle", 4, 1);
    assert_eq!(returned(&r.pass(1_100)), ["t1.1 STOP_RETURN"], "it keeps what its slots run");
    assert!(returned(&r.pass(3_000)).is_empty(), "each attempt is recalled once");
    let mut r = Rig::new();
    r.member(1, "w", 2, 1);
    (0..3).for_each(|n| drop(r.submit(&format!("t{n}"), |_| {})));
    r.member(2, "idle", 4, 1);
    assert_eq!(returned(&r.pass(1_100)).len(), 1, "two of three fill its slots");
    let mut r = crowded(1, 2);
    r.ask(Request::Cancel("t1".into()));
    r.member(2, "idle", 4, 1);
    assert!(returned(&r.pass(1_100)).is_empty(), "what is cancelled stays");
    let mut r = crowded(1, 2);
    r.submit("elsewhere", |s| drop(s.requires.insert("gpu".into(), "*".into())));
    r.member(2, "idle", 4, 1);
    assert!(returned(&r.pass(1_100)).is_empty(), "tasks wait");
    let mut r = crowded(1, 2);
    let (worker_id, store_id) = ("drains".into(), "d".into());
    r.greet(2, Hello { worker_id, store_id, draining: true, slots: 4, ..hello() });
    r.inventory(2, &[]);
    assert!(returned(&r.pass(1_100)).is_empty(), "a worker that drains takes nothing");
}

#[test]
fn of_outcomes_of_unknown_tasks_nothing_is_kept_and_one_warning_comes_a_second() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 5);
    let mut out = r.deliver(1, 1, "unknown", 1, OK);
    out.extend(r.deliver(1, 2, "unknown", 1, OK));
    assert_eq!(out.iter().filter(|o| matches!(o, Output::Warn(_))).count(), 1);
    let outcome = TaskOutcome { task: "u".into(), epoch: 1, ..Default::default() };
    let unsaved = vec![outcome];
    r.c.hear(r.now(), 1, ToCoordinator::Unsaved(unsaved), &());
    r.drain(true);
    let counters = r.c.counters();
    assert_eq!(
        (counters.outbox.foreign["outcome"], counters.outbox.unsaved, r.superseded()),
        (3, 0, 0)
    );
}

/// A late success of one worker ended the task while another one, which is away, had the newest attempt: nothing
/// is left of that, so that the worker can be forgotten for room.
#[test]
fn a_worker_that_is_away_holds_nothing_of_a_task_that_has_ended() {
    let mut r = Rig::new();
    r.member(1, "first", 1, 1);
    r.submit("t", |s| s.reconnect_window = 10.0);
    r.leave(1);
    r.pass(11_000);
    r.member(2, "second", 1, 1);
    r.leave(2);
    r.hello_as(3, "first", "store-first", 3);
    r.inventory(3, &[("t", 1, HoldingState::Finished)]);
    r.deliver(3, 1, "t", 1, OK);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
    let second = r.c.worker("second").unwrap();
    assert_eq!((second.state, second.attempts), (WorkerState::Away, 0));
}

#[test]
fn the_first_batch_of_a_connection_may_begin_late_and_no_other() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    r.submit("u", |_| {});
    assert_eq!(refused(&r.deliver(1, 5, "t", 1, OK)), None);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
    let malformed = Some((RefusedCode::Malformed, true));
    assert_eq!(refused(&r.deliver(1, 8, "u", 1, OK)), malformed);
    r.hello(2, "s", 2);
    r.inventory(2, &[("u", 1, RUNNING)]);
    let mut state = |first_seq: u64, prev_seq| {
        let update = StateUpdate {
            task: "u".into(),
            epoch: 1,
            version: first_seq,
            state_json: b"{}".to_vec().into(),
            ..Default::default()
        };
        let items = vec![OutboxItem::State(update.into())];
        let (lane, seqs) = (Lane::State, vec![first_seq]);
        let batch = OutboxBatch { lane, first_seq, items, seqs, prev_seq };
        r.c.hear(r.now(), 2, ToCoordinator::Outbox(batch), &());
        refused(&r.drain(true))
    };
    assert_eq!(state(3, 2), None, "the first may");
    assert_eq!(state(7, 6), malformed, "one is missing");
}

#[test]
fn a_move_that_nobody_takes_ends() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("t", |_| {});
    r.ask(Request::Move("t".into(), None));
    // The worker has not given it back: the move is not over.
    r.pass(3_000);
    r.outcome(1, "t", 1, OutcomeKind::Returned);
    assert_eq!(r.c.task_counts(), (1, 1));
    r.pass(31_000);
    let noted = |r: &CoordRecord| matches!(r, CoordRecord::Noted { note, .. } if note.contains("no worker took it"));
    assert_eq!(r.count(noted), 1);
    r.hello_as(2, "w", "store-w", 2);
    assert_eq!(assigned(&r.inventory(2, &[])), [(2, "t.2".into())]);
}

#[test]
fn what_is_sent_again_is_sent_as_it_is_to_be() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("t", |_| {});
    r.leave(1);
    r.ask(Request::Pause("t".into(), true));
    r.hello_as(2, "w", "store-w", 2);
    let out = r.inventory(2, &[]);
    let paused = |o: &Output| matches!(o, Output::Send(2, ToWorker::Assign(a)) if a[0].paused);
    assert!(out.iter().any(paused));
}

#[test]
fn an_attempt_asked_back_once_may_be_asked_back_in_its_next_try() {
    let mut r = Rig::new();
    r.member(1, "w", 1, 1);
    r.submit("t0", |_| {});
    r.submit("t1", |_| {});
    r.started(1, "t0", 1);
    let (worker_id, store_id) = ("idle".into(), "i".into());
    r.greet(2, Hello { worker_id, store_id, ..hello() });
    r.inventory(2, &[]);
    assert_eq!(returned(&r.pass(1_100)), ["t1.1 STOP_RETURN"]);
    r.leave(2);
    r.deliver(1, 1, "t1", 1, OutcomeKind::Returned);
    let (worker_id, store_id) = ("idle".into(), "i".into());
    r.greet(3, Hello { worker_id, store_id, connection: 2, ..hello() });
    r.inventory(3, &[]);
    assert_eq!(returned(&r.pass(1_100)), ["t1.2 STOP_RETURN"]);
}

/// A checkpoint of a task that had ended came, and before it was durable an operator retried the task.
#[test]
fn a_row_from_the_store_is_brought_up_to_what_was_decided_since() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    let row = past(TaskState::Failed, 0);
    let look = Past { row: Some(row.clone()), key_is_valid: true };
    let items = |n| {
        let item = OutboxItem::Checkpoint(checkpoint(2, n).into());
        vec![item]
    };
    for n in 1..=2 {
        let (lane, items) = (Lane::Checkpoints, items(n));
        let batch = OutboxBatch { lane, first_seq: n, items, ..Default::default() };
        r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &look);
    }
    r.c.on_request(r.now(), 1, Request::Prune("t".into(), vec![(2, 1)]));
    r.c.ask_of(r.now(), 2, Request::Retry("t".into()), &row);
    let out = r.drain(true);
    let from = out.iter().find_map(|o| match o {
        Output::Send(1, ToWorker::Assign(a)) => a[0].checkpoint.clone(),
        _ => None,
    });
    assert_eq!(from.map(|c| (c.epoch, c.number)), Some((2, 2)));
    let kept = r.c.snapshot().tasks[0].reported.checkpoints.clone();
    assert_eq!(kept.iter().map(|c| c.number).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_former_task_of_the_id_says_nothing_of_one_that_goes_on() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    struct Former;
    impl Lookup for Former {
        fn former(&self, _: &str) -> Epoch {
            1
        }
    }
    r.ask_with(submit(vec![request("t")]), &Former);
    let look = Past { row: None, key_is_valid: true };
    let (task, state_json) = ("t".into(), b"{}".to_vec().into());
    let update = StateUpdate { task, epoch: 1, version: 1, state_json, ..Default::default() };
    r.brings(1, OutboxItem::State(update.into()), &look);
    assert_eq!(r.count(|r| matches!(r, CoordRecord::State { .. })), 0);
    let kind = OK;
    let late = TaskOutcome { task: "t".into(), epoch: 1, kind, ..Default::default() };
    r.brings(1, OutboxItem::Outcome(late.into()), &look);
    assert_eq!((r.ended("t").len(), r.superseded()), (0, 1));
}

#[test]
fn a_task_that_has_ended_ends_once_also_before_that_is_durable() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    let look = Past { row: None, key_is_valid: true };
    for (seq, finished_at_ms) in [(1, 10), (2, 20)] {
        let outcome = TaskOutcome {
            task: "t".into(),
            epoch: 1,
            kind: OK,
            started_at_ms: 1,
            finished_at_ms,
            ..Default::default()
        };
        let items = vec![OutboxItem::Outcome(outcome.into())];
        let lane = Lane::Results;
        let batch = OutboxBatch { lane, first_seq: seq, items, ..Default::default() };
        r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &look);
    }
    r.drain(true);
    assert_eq!((r.ended("t").len(), r.superseded()), (1, 1));
}

#[test]
fn a_process_that_slept_learns_nothing_from_the_silence() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.now += 3_600_000;
    r.c.on_heard(r.now(), 1);
    let out = r.drain(true);
    assert!(!out.iter().any(|o| matches!(o, Output::Timeout(..))));
}

#[test]
fn each_wake_up_has_its_reason() {
    use crate::coord::Timer;
    let mut r = Rig::new();
    assert_eq!(r.c.next_wake().why, Timer::Upkeep);
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.reconnect_window = 0.5);
    // Heartbeats are due later than the next round of upkeep.
    r.pass(4_500);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let wake = r.c.next_wake();
        seen.push(wake.why);
        r.now = wake.at;
        r.c.on_tick(r.now());
        r.drain(true);
    }
    assert!(seen.contains(&Timer::Link(1)), "{seen:?}");
    r.leave(1);
    assert_eq!(r.c.next_wake().why, Timer::Window(0), "its tasks are abandoned first");
}

#[test]
fn an_attempt_whose_slots_become_known_counts_with_those() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    let key = r.c.fleet.by_store("s").unwrap();
    let used = |r: &Rig| {
        r.c.fleet.invariants().unwrap();
        r.c.fleet.get(key).held.used
    };
    // A worker names a task that memory does not know, and once it knows it again.
    for (slots, counted) in [(1, 1), (3, 3), (0, 0), (2, 2), (2, 2)] {
        r.c.fleet.get_mut(key).hold("t".into(), 1, slots);
        assert_eq!(used(&r), counted);
    }
    let id = AttemptId { task: "t".into(), epoch: 1 };
    r.c.fleet.get_mut(key).drop_attempt(&id);
    assert_eq!(used(&r), 0);
}
