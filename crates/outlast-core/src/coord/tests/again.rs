//! Ends of attempts and tasks that come again, late, or beside another one.

use super::loads::{Store, connected, failed, outbox, outcome};
use super::*;
use crate::coord::PastAttempt;

fn interrupted(cause: Cause) -> TaskOutcome {
    TaskOutcome {
        task: "v".into(),
        epoch: 1,
        kind: OutcomeKind::Interrupted,
        cause,
        started_at_ms: 1,
        finished_at_ms: 5,
        ..Default::default()
    }
}

/// A store that knows this outcome of the worker's attempt.
fn knows(outcome: TaskOutcome) -> Store {
    let attempts = vec![PastAttempt { epoch: 1, outcomes: vec![outcome.into()] }];
    Store { attempts, ..failed() }
}

#[test]
fn a_late_success_counts_also_before_the_loss_is_durable() {
    let mut r = connected();
    r.submit("v", |s| (s.reconnect_window, s.max_retries) = (10.0, 0));
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.pass(9_900);
    r.now += 200;
    r.c.on_tick(r.now());
    r.drain(false);
    assert_eq!(r.ended("v"), [(TaskState::Failed, 1)]);
    r.c.on_open(r.now(), 2);
    let own = Hello { worker_id: "w".into(), store_id: "s".into(), connection: 2, ..hello() };
    r.c.hear(r.now(), 2, ToCoordinator::Hello(Box::new(own)), &());
    let part = Inventory { holdings: Vec::new(), last: true };
    r.c.hear(r.now(), 2, ToCoordinator::Inventory(part), &());
    r.c.hear(r.now(), 2, outbox(1, vec![outcome("v", 1)]), &failed());
    r.drain(false);
    assert_eq!(r.ended("v"), [(TaskState::Failed, 1), (TaskState::Succeeded, 1)]);
}

#[test]
fn a_task_that_ended_again_stays_in_memory_until_its_last_end_is_durable() {
    let mut r = Rig::new();
    r.submit("t", |_| {});
    r.c.on_request(r.now(), 2, Request::Cancel("t".into()));
    r.drain(false);
    let first = r.batches.last().unwrap().number;
    r.c.on_request(r.now(), 3, Request::Retry("t".into()));
    r.c.on_request(r.now(), 4, Request::Cancel("t".into()));
    r.drain(false);
    r.c.on_persisted(first);
    assert_eq!((r.ended("t").len(), r.c.task_counts().0), (2, 1));
    r.c.on_persisted(first + 1);
    assert_eq!(r.c.task_counts().0, 0);
}

#[test]
fn an_attempt_that_ended_beside_its_lane_is_not_taken_up_again() {
    let mut r = connected();
    r.submit("v", |_| {});
    r.c.on_request(r.now(), 2, Request::Pause("v".into(), true));
    let lost = interrupted(Cause::Stopped);
    r.c.hear(r.now(), 1, ToCoordinator::Unsaved(vec![lost.clone()]), &failed());
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.drain(true);
    r.hello(2, "s", 2);
    // Its store is an older copy, and has forgotten the end.
    let holding =
        Holding { task: "v".into(), epoch: 1, state: RUNNING, started_at_ms: 1, paused: false };
    let part = Inventory { holdings: vec![holding], last: true };
    r.c.hear(r.now(), 2, ToCoordinator::Inventory(part), &knows(lost));
    let out = r.drain(true);
    assert_eq!(stops(&out), [(2, "v.1 STOP_SUPERSEDED".into())]);
    assert!(r.c.tasks["v"].is_pending());
}

#[test]
fn an_end_that_was_doubted_beside_its_lane_comes_again_in_its_lane_without_effect() {
    let mut r = connected();
    r.submit("v", |_| {});
    r.c.on_request(r.now(), 2, Request::Pause("v".into(), true));
    let doubted = interrupted(Cause::Machine);
    r.c.hear(r.now(), 1, ToCoordinator::Unsaved(vec![doubted.clone()]), &failed());
    r.drain(true);
    let saved = TaskOutcome { kind: OK, cause: Cause::Done, ..doubted.clone() };
    let items = vec![OutboxItem::Outcome(saved.into())];
    r.c.hear(r.now(), 1, outbox(1, items), &knows(doubted));
    r.drain(true);
    assert_eq!((r.ended("v").len(), r.superseded(), r.c.counters().outbox.repeated), (0, 0, 1));
}

#[test]
fn a_worker_whose_machine_failed_gets_the_task_again_where_nobody_else_could_run_it() {
    let mut r = connected();
    r.submit("v", |_| {});
    let items = vec![OutboxItem::Outcome(interrupted(Cause::Machine).into())];
    r.c.hear(r.now(), 1, outbox(1, items), &());
    let mut out = r.drain(true);
    out.extend(r.pass(MOVE_PATIENCE.0 / 2));
    assert_eq!(assigned(&out), [(1, "v.2".into())]);
}
