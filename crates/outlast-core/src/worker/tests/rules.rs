//! Rules of ARCHITECTURE.md that a small mistake would break, a claim each.

use super::*;
use crate::records::AttemptRow;
use outlast_model::spec::{OnLeaseExpired, Rerun};

/// Assigns a task with this specification.
pub(super) fn give(
    w: &mut Worker,
    now: Millis,
    task: &str,
    paused: bool,
    edit: impl FnOnce(&mut TaskSpec),
) {
    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    edit(&mut spec);
    let one = Assignment { paused, ..Assignment::new(task.into(), 1, Arc::new(spec)) };
    w.on_message(at(now), ToWorker::Assign(vec![one]));
}

fn stop(w: &mut Worker, now: Millis, task: &str, reason: StopReason) {
    let attempts = vec![AttemptId { task: task.into(), epoch: 1 }];
    w.on_message(at(now), ToWorker::Stop(attempts, reason));
}

pub(super) fn control(w: &mut Worker, now: Millis, task: &str, kind: ControlKind) {
    let attempts = vec![AttemptId { task: task.into(), epoch: 1 }];
    w.on_message(at(now), ToWorker::Control(attempts, kind));
}

pub(super) fn refuse(
    w: &mut Worker,
    now: Millis,
    code: RefusedCode,
    retry: bool,
    retry_after_ms: u32,
) {
    w.on_connected(at(now));
    let reason = "for a test".into();
    let refused = outlast_model::message::Refused { code, reason, retry, retry_after_ms };
    w.on_message(at(now), ToWorker::Refused(refused));
}

fn ack(w: &mut Worker, now: Millis, seq: u64) {
    let cursors = vec![Cursor { lane: Lane::Results, seq }];
    w.on_message(at(now), ToWorker::Ack(cursors));
}

fn dials(out: &[Output]) -> usize {
    out.iter().filter(|o| matches!(o, Output::Dial)).count()
}

fn asked(out: &[Output]) -> usize {
    out.iter().filter(|o| matches!(o, Output::AskCheckpoint(..))).count()
}

fn pauses(out: &[Output]) -> Vec<bool> {
    let of = |o: &Output| if let Output::Pause(_, _, on) = o { Some(*on) } else { None };
    out.iter().filter_map(of).collect()
}

fn stopped(out: &[Output]) -> usize {
    out.iter().filter(|o| matches!(o, Output::StopRun(..))).count()
}

fn count(batches: &[Batch<WorkerRecord>], which: impl Fn(&WorkerRecord) -> bool) -> usize {
    batches.iter().flat_map(|b| &b.records).filter(|r| which(r)).count()
}

/// A worker that has not reached its coordinator, with its first dial out.
pub(super) fn dialling(edit: impl FnOnce(&mut WorkerConfig)) -> Worker {
    let mut config = WorkerConfig::default();
    edit(&mut config);
    let snapshot = WorkerSnapshot { store_id: "s".into(), incarnation: 1, ..Default::default() };
    let mut w = Worker::new(config, snapshot, Vec::new(), 1, at(0));
    sync(&mut w, 0);
    w
}

#[test]
fn an_attempt_starts_once_its_own_arrival_is_durable() {
    let mut w = connected(2);
    assign(&mut w, &[("a", 1)]);
    let (_, first) = drain(&mut w);
    assign(&mut w, &[("b", 1)]);
    let (_, second) = drain(&mut w);
    w.on_persisted(at(2), first[0].number);
    assert_eq!(runs(&drain(&mut w).0), ["a.1"]);
    w.on_persisted(at(3), second[0].number);
    assert_eq!(runs(&drain(&mut w).0), ["b.1"]);
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let mut w = running();
    state(&mut w, 3, 1);
    let (_, first) = drain(&mut w);
    state(&mut w, 4, 2);
    let (_, second) = drain(&mut w);
    let answers =
        |w: &mut Worker| drain(w).0.iter().filter(|o| matches!(o, Output::Answer(..))).count();
    w.on_persisted(at(5), first.last().unwrap().number);
    assert_eq!(answers(&mut w), 1);
    w.on_persisted(at(6), second.last().unwrap().number);
    assert_eq!(answers(&mut w), 1);
}

#[test]
fn an_unfit_worker_starts_nothing_until_it_works_again() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    w.set_unfit(at(2), Unfit::Machine, Some("it is gone".into()));
    w.on_persisted(at(3), batches[0].number);
    assert!(runs(&sync(&mut w, 4)).is_empty());
    assign(&mut w, &[("b", 1)]);
    assert!(runs(&sync(&mut w, 5)).is_empty());
    w.set_unfit(at(6), Unfit::Machine, None);
    assign(&mut w, &[("c", 1)]);
    assert_eq!(runs(&sync(&mut w, 7)), ["c.1"]);
}

#[test]
fn a_drain_says_so_gives_back_what_waits_and_ends_once_results_are_acknowledged() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1)]);
    sync(&mut w, 2);
    w.drain(at(3));
    let out = sync(&mut w, 4);
    let says = |o: &Output| matches!(o, Output::Send(ToCoordinator::Heartbeat(b)) if b.draining);
    assert!(out.iter().any(says));
    assert_eq!(outbox(&out), [(1, 1)], "b goes back");
    assign(&mut w, &[("c", 1)]);
    assert_eq!(outbox(&sync(&mut w, 5)), [(2, 1)], "nothing new is taken");
    w.on_finished(at(6), done("a", 1));
    let out = sync(&mut w, 7);
    assert!(!out.iter().any(|o| matches!(o, Output::Exit)), "three are not acknowledged");
    ack(&mut w, 8, 2);
    assert!(!sync(&mut w, 8).iter().any(|o| matches!(o, Output::Exit)));
    ack(&mut w, 9, 3);
    assert!(sync(&mut w, 9).iter().any(|o| matches!(o, Output::Exit)));
}

#[test]
fn a_refusal_is_kept_to() {
    let mut w = dialling(|_| ());
    refuse(&mut w, 10, RefusedCode::Busy, true, 30_000);
    w.on_tick(at(29_000));
    assert_eq!(dials(&sync(&mut w, 29_000)), 0);
    w.on_tick(at(30_010));
    assert_eq!(dials(&sync(&mut w, 30_010)), 1, "its turn");
    refuse(&mut w, 30_020, RefusedCode::Stale, true, 50_000);
    w.on_tick(at(79_000));
    assert_eq!(dials(&sync(&mut w, 79_000)), 0);
    w.on_tick(at(80_100));
    assert_eq!(dials(&sync(&mut w, 80_100)), 1);
    refuse(&mut w, 80_200, RefusedCode::Protocol, false, 0);
    assert_eq!(w.connection_state(), ConnectionState::Failed);
    w.on_tick(at(9_000_000));
    assert_eq!(dials(&sync(&mut w, 9_000_000)), 0, "it is for good");
}

#[test]
fn dials_have_a_limit_in_time_and_number() {
    let mut w = dialling(|c| c.reconnect.max_attempts = 2);
    w.on_tick(at(15_000));
    assert!(sync(&mut w, 15_000).iter().any(|o| matches!(o, Output::Close(_))), "it took too long");
    assert_eq!(w.connection_state(), ConnectionState::Disconnected, "one of two failed");
    let wake = w.next_wake().at.max(18_000);
    w.on_tick(at(wake));
    w.on_disconnected(at(wake + 1), "refused");
    assert_eq!(w.connection_state(), ConnectionState::Failed);
}

#[test]
fn a_welcome_begins_the_delays_and_the_leases_anew() {
    let mut w = connected(1);
    give(&mut w, 1, "a", false, |s| {
        (s.reconnect_window, s.on_lease_expired) = (5.0, OnLeaseExpired::Pause);
    });
    sync(&mut w, 2);
    for round in 0..2 {
        let now = 100_000 * (round + 1);
        w.on_tick(at(now - 60_000));
        w.on_message(at(now - 1), ToWorker::HeartbeatReply(0));
        w.on_disconnected(at(now), "cut");
        sync(&mut w, now);
        w.on_tick(at(now + 5_000));
        assert_eq!(pauses(&sync(&mut w, now + 5_001)), [true], "the window ends each time");
        w.on_tick(at(now + 5_400));
        assert!(pauses(&sync(&mut w, now + 5_401)).is_empty(), "and once");
        if w.connection_state() != ConnectionState::Connecting {
            w.on_tick(at(now + 6_000));
        }
        welcome(&mut w, now + 6_001, 0);
        control(&mut w, now + 6_002, "a", ControlKind::Resume);
        assert_eq!(pauses(&sync(&mut w, now + 6_003)), [false]);
    }
    assert!(w.uplink.failures() == 0);
}

#[test]
fn a_lease_is_not_judged_while_the_inventory_is_unanswered() {
    let mut w = connected(1);
    give(&mut w, 1, "a", false, |s| {
        (s.reconnect_window, s.on_lease_expired) = (5.0, OnLeaseExpired::Stop);
    });
    sync(&mut w, 2);
    w.on_disconnected(at(3), "cut");
    w.on_tick(at(4_000));
    sync(&mut w, 4_000);
    w.on_connected(at(4_500));
    w.on_tick(at(8_000));
    assert_eq!(stopped(&sync(&mut w, 8_000)), 0);
    w.on_disconnected(at(8_001), "cut");
    w.on_tick(at(8_500));
    assert_eq!(stopped(&sync(&mut w, 8_500)), 1);
    w.on_tick(at(8_700));
    assert_eq!(stopped(&sync(&mut w, 8_700)), 0, "once");
}

#[test]
fn a_pause_waits_for_a_checkpoint_but_not_for_ever_and_can_be_taken_back() {
    let mut w = running();
    w.on_listens("a", 1);
    control(&mut w, 10, "a", ControlKind::Pause);
    let out = sync(&mut w, 11);
    assert_eq!((asked(&out), pauses(&out).len()), (1, 0));
    w.on_tick(at(10_010));
    assert_eq!(pauses(&sync(&mut w, 10_011)), [true]);
    control(&mut w, 10_012, "a", ControlKind::Resume);
    assert_eq!(pauses(&sync(&mut w, 10_013)), [false]);
    control(&mut w, 10_014, "a", ControlKind::Pause);
    control(&mut w, 10_015, "a", ControlKind::Resume);
    sync(&mut w, 10_016);
    w.on_tick(at(14_000));
    w.on_message(at(14_001), ToWorker::HeartbeatReply(0));
    w.on_tick(at(20_020));
    assert!(pauses(&sync(&mut w, 20_021)).is_empty());
}

#[test]
fn what_arrives_paused_waits_and_is_asked_for_nothing() {
    let mut w = connected(1);
    give(&mut w, 1, "p", true, |_| ());
    assert!(runs(&sync(&mut w, 2)).is_empty());
    control(&mut w, 3, "p", ControlKind::Resume);
    assert_eq!(runs(&sync(&mut w, 4)), ["p.1"]);
    let mut w = connected(1);
    give(&mut w, 1, "a", false, |s| s.checkpoint_interval = Some(2.0));
    sync(&mut w, 2);
    w.on_tick(at(2_100));
    assert_eq!(asked(&sync(&mut w, 2_100)), 1);
    w.on_tick(at(2_200));
    assert_eq!(asked(&sync(&mut w, 2_200)), 0, "not before the next interval");
    control(&mut w, 2_300, "a", ControlKind::Pause);
    sync(&mut w, 2_301);
    w.on_tick(at(4_900));
    assert_eq!(asked(&sync(&mut w, 4_900)), 0, "not while it is paused");
}

#[test]
fn a_start_is_recorded_once_after_a_while() {
    let mut w = running();
    let starting = |r: &WorkerRecord| matches!(r, WorkerRecord::Starting { .. });
    w.on_tick(at(100));
    assert_eq!(count(&drain(&mut w).1, starting), 0, "short tasks cost one write");
    w.on_tick(at(300));
    let (_, batches) = drain(&mut w);
    assert_eq!(count(&batches, starting), 1);
    w.on_persisted(at(301), batches.last().unwrap().number);
    w.on_tick(at(600));
    assert_eq!(count(&drain(&mut w).1, starting), 0);
}

#[test]
fn only_what_runs_reports_and_within_limits() {
    let refused = |w: &mut Worker, now| {
        sync(w, now).iter().any(|o| matches!(o, Output::Answer(_, Answer::Refused(_))))
    };
    let mut w = connected(1);
    assign(&mut w, &[("b", 1), ("a", 1)]);
    sync(&mut w, 2);
    checkpoint(&mut w, 3, "one");
    assert!(refused(&mut w, 3), "it waits");
    let mut w = running();
    let meta = vec![b' '; reports::MAX_META + 1];
    w.on_checkpoint(at(3), 3, &"a".into(), 1, Bytes::from_static(b"m"), 1, meta, "");
    assert!(refused(&mut w, 3));
    let members = serde_json::Map::from_iter([("n".to_owned(), "x".repeat(MAX_STATE).into())]);
    w.on_state(at(4), 4, &"a".into(), 1, StatePatch { members, progress: None });
    assert!(refused(&mut w, 4));
    w.on_disconnected(at(5), "cut");
    state(&mut w, 6, 1);
    let members = serde_json::Map::from_iter([("m".to_owned(), 2.into())]);
    w.on_state(at(7), 7, &"a".into(), 1, StatePatch { members, progress: None });
    let (_, batches) = drain(&mut w);
    let mut updates = batches.iter().flat_map(|b| &b.records).filter_map(|r| match r {
        WorkerRecord::State { update, .. } => Some(update.clone()),
        _ => None,
    });
    let last = updates.next_back().unwrap();
    assert_eq!((last.version, &last.state_json[..]), (2, &b"{\"n\":1,\"m\":2}"[..]));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_ignored() {
    let mut w = running();
    w.on_finished(at(3), done("a", 1));
    sync(&mut w, 4);
    ack(&mut w, 5, 9);
    assert_eq!(w.load(), (0, 0, 1));
    ack(&mut w, 6, 1);
    let (_, batches) = drain(&mut w);
    assert_eq!(
        (w.load(), count(&batches, |r| matches!(r, WorkerRecord::Acked { .. }))),
        ((0, 0, 0), 1)
    );
}

#[test]
fn what_may_be_unacknowledged_has_a_limit() {
    let mut w = dialling(|c| c.slots = 9);
    w.on_connected(at(1));
    let coordinator_id = "c".into();
    let m = Welcome { protocol: 2, coordinator_id, credit: 2, ..Default::default() };
    w.on_message(at(1), ToWorker::Welcome(m));
    assign(&mut w, &[("a", 1), ("b", 1), ("c", 1)]);
    sync(&mut w, 2);
    ["a", "b", "c"].iter().for_each(|task| w.on_finished(at(3), done(task, 1)));
    let sent = |out: &[Output]| outbox(out).iter().map(|(_, n)| *n).sum::<usize>();
    assert_eq!(sent(&sync(&mut w, 4)), 2);
    ack(&mut w, 5, 1);
    assert_eq!(sent(&sync(&mut w, 5)), 1);
}

#[test]
fn a_task_larger_than_the_worker_runs_alone() {
    let mut w = connected(2);
    give(&mut w, 1, "large", false, |s| s.slots = 5);
    give(&mut w, 1, "small", false, |_| ());
    assert_eq!(runs(&sync(&mut w, 2)), ["large.1"]);
    w.on_finished(at(3), done("large", 1));
    assert_eq!(runs(&sync(&mut w, 4)), ["small.1"]);
}

#[test]
fn higher_priority_runs_first() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("low", 1)]);
    give(&mut w, 1, "high", false, |s| s.priority = 3);
    sync(&mut w, 2);
    w.on_finished(at(3), done("a", 1));
    assert_eq!(runs(&sync(&mut w, 4)), ["high.1"]);
}

#[test]
fn a_stop_ends_what_waits_and_stops_what_runs_and_a_recall_leaves_that_alone() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1), ("c", 1)]);
    sync(&mut w, 2);
    stop(&mut w, 3, "a", StopReason::Return);
    let out = sync(&mut w, 3);
    let recalls = out.iter().filter(|o| matches!(o, Output::Recall(..))).count();
    assert_eq!((stopped(&out), recalls, outbox(&out).len()), (0, 0, 0));
    stop(&mut w, 4, "b", StopReason::Return);
    assert_eq!(outbox(&sync(&mut w, 4)), [(1, 1)]);
    stop(&mut w, 5, "a", StopReason::Cancelled);
    assert_eq!(stopped(&sync(&mut w, 5)), 1);
}

#[test]
fn a_newer_attempt_ends_the_older_one() {
    let mut w = running();
    assign(&mut w, &[("a", 2)]);
    assert_eq!(stopped(&sync(&mut w, 3)), 1);
    w.on_finished(at(4), done("a", 1));
    let out = sync(&mut w, 4);
    assert_eq!(runs(&out), ["a.2"]);
    w.on_finished(at(5), done("a", 2));
    sync(&mut w, 5);
    assign(&mut w, &[("a", 2)]);
    assert!(runs(&sync(&mut w, 6)).is_empty(), "what has ended here does not run again");
}

#[test]
fn what_must_not_run_twice_is_on_record_before_it_starts_and_is_not_handed_over_ahead() {
    let mut w = connected(1);
    w.attempts.set_ahead(4);
    assign(&mut w, &[("a", 1)]);
    give(&mut w, 1, "once", false, |s| s.rerun = Rerun::Never);
    sync(&mut w, 2);
    w.on_finished(at(3), done("a", 1));
    let (out, batches) = drain(&mut w);
    assert!(runs(&out).is_empty());
    assert_eq!(count(&batches, |r| matches!(r, WorkerRecord::Starting { .. })), 1);
    w.on_persisted(at(4), batches.last().unwrap().number);
    assert_eq!(runs(&drain(&mut w).0), ["once.1"]);
}

#[test]
fn an_upload_stops_with_the_link_and_goes_on_while_newer_checkpoints_come() {
    let mut w = connected(1);
    give(&mut w, 1, "a", false, |s| s.keep_checkpoints.last = 1);
    sync(&mut w, 2);
    checkpoint(&mut w, 3, "one");
    assert_eq!(uploads(&sync(&mut w, 4)), [Some("one".into())]);
    checkpoint(&mut w, 5, "two");
    checkpoint(&mut w, 6, "three");
    assert!(uploads(&sync(&mut w, 7)).is_empty(), "what is on its way goes on");
    w.on_disconnected(at(8), "cut");
    assert_eq!(uploads(&sync(&mut w, 9)), [None]);
}

#[test]
fn an_inventory_names_what_has_ended_and_starts_are_not_reported_twice() {
    let mut w = running();
    assign(&mut w, &[("b", 1)]);
    w.on_tick(at(300));
    sync(&mut w, 301);
    w.on_disconnected(at(302), "cut");
    w.on_finished(at(303), done("a", 1));
    sync(&mut w, 304);
    w.on_tick(at(700));
    sync(&mut w, 701);
    if w.connection_state() != ConnectionState::Connecting {
        w.on_tick(at(9_000));
    }
    w.on_connected(at(9_001));
    let out = drain(&mut w).0;
    let held = out.iter().find_map(|o| match o {
        Output::Send(ToCoordinator::Inventory(i)) => Some(i.holdings.clone()),
        _ => None,
    });
    let finished = HoldingState::Finished;
    let named = held.unwrap().into_iter().filter(|h| h.state == finished);
    assert_eq!(named.map(|h| h.task.to_string()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_stop_gives_back_what_is_on_record_as_started_and_did_not_start() {
    let mut w = connected(1);
    give(&mut w, 1, "once", false, |s| s.rerun = Rerun::Never);
    drain(&mut w);
    w.stop(at(2));
    let (_, batches) = drain(&mut w);
    assert_eq!(count(&batches, |r| matches!(r, WorkerRecord::Finished { .. })), 1);
}

#[test]
fn without_a_link_nothing_is_given_back_and_what_waits_starts_once_the_worker_is_fit() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1)]);
    sync(&mut w, 2);
    w.on_disconnected(at(3), "cut");
    w.set_unfit(at(4), Unfit::Machine, Some("no processes".into()));
    w.on_finished(at(5), done("a", 1));
    let (out, batches) = drain(&mut w);
    assert_eq!(count(&batches, |r| matches!(r, WorkerRecord::Finished { .. })), 1);
    assert!(runs(&out).is_empty());
    w.on_persisted(at(6), batches.last().unwrap().number);
    w.set_unfit(at(7), Unfit::Machine, None);
    assert_eq!(runs(&sync(&mut w, 8)), ["b.1"]);
}

#[test]
fn what_is_handed_over_ahead_runs_in_order_and_is_recalled_or_paused_in_time() {
    let mut w = connected(2);
    w.attempts.set_ahead(4);
    assign(&mut w, &[("a", 1)]);
    give(&mut w, 1, "big", false, |s| s.slots = 2);
    assign(&mut w, &[("small", 1)]);
    assert_eq!(runs(&sync(&mut w, 2)).len(), 3);
    assert!(!w.attempts.is_running("small", 1), "it does not pass the one before it");
    control(&mut w, 3, "big", ControlKind::Pause);
    let recalls = |out: &[Output]| out.iter().filter(|o| matches!(o, Output::Recall(..))).count();
    assert_eq!(recalls(&sync(&mut w, 3)), 1);
    w.on_finished(at(4), done("a", 1));
    assert_eq!(pauses(&sync(&mut w, 4)), [true], "it began before it could be recalled");
    w.drain(at(5));
    assert_eq!(recalls(&sync(&mut w, 5)), 1, "the small one");
}

/// A worker that starts with an attempt which must not run twice, and has not started as far as is known.
fn doubtful(paused: bool) -> Worker {
    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    spec.rerun = Rerun::Never;
    let row = AttemptRow {
        task: "once".into(),
        epoch: 1,
        spec: Arc::new(spec),
        started_at: None,
        survived: 1,
        made: 0,
        paused,
        after: 0,
        checkpoint: None,
        state: None,
    };
    let attempts = vec![row];
    let snapshot =
        WorkerSnapshot { store_id: "s".into(), incarnation: 2, attempts, ..Default::default() };
    let mut w = Worker::new(WorkerConfig::default(), snapshot, Vec::new(), 1, at(0));
    sync(&mut w, 0);
    w.on_connected(at(1));
    let coordinator_id = "c".into();
    let (credit, takes_unsaved) = (9, true);
    let m = Welcome { protocol: 2, coordinator_id, credit, takes_unsaved, ..Default::default() };
    w.on_message(at(1), ToWorker::Welcome(m));
    w
}

#[test]
fn what_a_former_process_took_and_must_not_run_twice_waits_for_the_coordinator() {
    for paused in [false, true] {
        let mut w = doubtful(paused);
        assert!(runs(&sync(&mut w, 2)).is_empty());
        if paused {
            control(&mut w, 3, "once", ControlKind::Resume);
            assert!(runs(&sync(&mut w, 3)).is_empty());
            control(&mut w, 4, "once", ControlKind::Pause);
        }
        w.on_message(at(5), ToWorker::Settled);
        assert_eq!(runs(&sync(&mut w, 5)).len(), usize::from(!paused));
    }
}

#[test]
fn only_an_outcome_that_was_offered_on_this_link_is_taken_for_saved() {
    let mut w = running();
    w.on_finished(at(3), done("a", 1));
    let attempts = vec![AttemptId { task: "a".into(), epoch: 1 }];
    w.on_message(at(4), ToWorker::Saved(attempts));
    assert_eq!(w.unacknowledged(), 1);
}

/// The former process made the outcome durable, and ended before its keeper heard of it.
#[test]
fn a_keeper_forgets_at_once_what_was_durable_before() {
    let outbox = vec![(1, Arc::new(done("a", 1)))];
    let snapshot = WorkerSnapshot {
        store_id: "s".into(),
        incarnation: 2,
        outbox,
        next_seq: 2,
        ..Default::default()
    };
    let mut w = Worker::new(WorkerConfig::default(), snapshot, Vec::new(), 1, at(0));
    w.on_finished(at(1), done("a", 1));
    assert!(drain(&mut w).0.iter().any(|o| matches!(o, Output::Forget(..))));
}

#[test]
fn an_unfit_worker_without_a_link_keeps_what_has_its_slots_from_starting() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_disconnected(at(2), "cut");
    w.set_unfit(at(3), Unfit::Machine, Some("no processes".into()));
    w.on_persisted(at(4), batches[0].number);
    assert!(runs(&drain(&mut w).0).is_empty());
    w.set_unfit(at(5), Unfit::Machine, None);
    assert_eq!(runs(&drain(&mut w).0), ["a.1"]);
}

#[test]
fn a_process_that_slept_learns_nothing_from_the_silence() {
    let mut w = connected(1);
    w.on_tick(at(5_000));
    w.on_heard(at(3_600_000));
    assert_eq!(w.longer_timeout(), 0);
}

#[test]
fn an_outcome_does_not_name_a_checkpoint_that_was_dropped() {
    let mut w = running();
    checkpoint(&mut w, 3, "one");
    sync(&mut w, 4);
    w.on_uploaded(b"one", Err("damaged".into()));
    sync(&mut w, 5);
    w.on_finished(at(6), done("a", 1));
    let (_, batches) = drain(&mut w);
    let named = batches.iter().flat_map(|b| &b.records).find_map(|r| match r {
        WorkerRecord::Finished { outcome, .. } => Some(outcome.checkpoint),
        _ => None,
    });
    assert_eq!(named, Some(None));
}

#[test]
fn what_is_paused_between_its_reservation_and_its_start_is_paused() {
    let mut w = connected(1);
    give(&mut w, 1, "a", false, |_| {});
    control(&mut w, 2, "a", ControlKind::Pause);
    let out = sync(&mut w, 3);
    assert_eq!((runs(&out), pauses(&out)), (vec!["a.1".to_owned()], vec![true]));
}
