//! Requirements on every store: claims that each kind is held to, and random sequences of
//! records that all kinds must agree on.

mod common;

use common::*;
use outlast_core::records::{Asked, Awaited, CoordRecord, TaskState, WorkerRecord};
use outlast_model::Cause;
use outlast_store::EventKind;
use outlast_store::EventKind as K;
use outlast_store::StoreError;
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use std::sync::Arc;

macro_rules! claims {
    ($sql:ty, $sim:ty: $($claim:ident)*) => {
        mod sqlite {
            use super::*;
            $(#[test] fn $claim() { super::$claim::<$sql>() })*
        }
        mod sim {
            use super::*;
            $(#[test] fn $claim() { super::$claim::<$sim>() })*
        }
    };
}

mod coordinator {
    use super::*;

    claims!(SqlCoord, SimCoordStore:
        a_plain_task_tells_its_history
        a_result_tells_of_a_start_that_nobody_heard_of
        a_failure_that_is_tried_again_tells_of_its_start_too
        earlier_attempts_stay_in_the_history
        a_late_result_of_an_older_attempt_can_decide
        a_retry_clears_the_result_and_keeps_the_history
        superseded_outcomes_are_kept_for_tasks_over_and_unknown
        a_clock_that_goes_back_does_not_reorder_history
        a_refused_batch_leaves_no_trace
        a_cancel_request_holds_until_the_end
        cursors_only_grow_and_go_with_their_worker
        a_worker_is_replaced_but_not_its_cursors
        numbers_are_never_given_twice
        checkpoints_states_and_pauses_outlive_a_restart
        a_task_that_failed_for_loss_says_so
        an_empty_commit_is_fine
    );

    fn a_plain_task_tells_its_history<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 10), assigned("t", 1, "w", 20)]);
        s.put(vec![started("t", 1, 30), succeeded("t", 1, "w", 40)]);
        let s = s.reopen();
        let entries: Vec<_> =
            s.history("t").into_iter().map(|e| (e.at, e.kind, e.epoch, e.worker)).collect();
        let w = || Some("w".into());
        assert_eq!(
            entries,
            [
                (10, K::Submitted, 0, None),
                (20, K::Assigned, 1, w()),
                (30, K::Started, 1, w()),
                (40, K::Succeeded, 1, w())
            ]
        );
        assert_eq!(s.outcome("t"), Some(outcome("t", 1, 0)));
        let row = s.task_row("t").unwrap().unwrap();
        assert_eq!((row.state, row.epoch, row.assigned.worker), (TaskState::Succeeded, 1, None));
        let snapshot = s.snapshot().unwrap();
        assert!(snapshot.tasks.is_empty());
        assert_eq!(snapshot.last_number, 1);
        assert_eq!(s.task_row("u").unwrap(), None);
        assert_eq!(s.history("u"), []);
    }

    fn a_result_tells_of_a_start_that_nobody_heard_of<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 10), assigned("t", 1, "w", 20)]);
        let mut end = succeeded("t", 1, "w", 40);
        if let CoordRecord::Ended { outcome: told, .. } = &mut end {
            *told = Some(outcome("t", 1, 25));
        }
        s.put(vec![end]);
        let s = s.reopen();
        assert_eq!(
            s.story("t"),
            [(K::Submitted, 0), (K::Assigned, 1), (K::Started, 1), (K::Succeeded, 1)]
        );
        assert_eq!(s.history("t")[2].at, 25);
    }

    fn a_failure_that_is_tried_again_tells_of_its_start_too<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 10), assigned("t", 1, "w", 20)]);
        let mut back = requeued("t", 1, 1, 40);
        if let CoordRecord::Requeued { outcome: told, .. } = &mut back {
            *told = Some(outcome("t", 1, 25));
        }
        s.put(vec![back, assigned("t", 2, "w", 50)]);
        let s = s.reopen();
        assert_eq!(
            s.story("t"),
            [
                (K::Submitted, 0),
                (K::Assigned, 1),
                (K::Started, 1),
                (K::Requeued, 1),
                (K::Assigned, 2)
            ]
        );
        assert_eq!(s.history("t")[2].at, 25);
        assert_eq!(s.task_row("t").unwrap().unwrap().assigned.started_at, None);
    }

    fn earlier_attempts_stay_in_the_history<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 1), assigned("t", 1, "a", 2), started("t", 1, 3)]);
        s.put(vec![requeued("t", 1, 1, 4)]);
        let mut s = s.reopen();
        let row = s.task_row("t").unwrap().unwrap();
        assert_eq!((row.state, row.epoch, row.losses.retries), (TaskState::Pending, 1, 1));
        assert_eq!((row.assigned.worker, row.assigned.started_at), (None, None));
        s.put(vec![assigned("t", 2, "b", 5), started("t", 1, 6), started("t", 2, 7)]);
        let row = s.task_row("t").unwrap().unwrap();
        assert_eq!((row.assigned.worker, row.assigned.started_at), (Some("b".into()), Some(7)));
        s.put(vec![superseded("t", 1, "a", 8), succeeded("t", 2, "b", 9)]);
        let s = s.reopen();
        assert_eq!(
            s.story("t"),
            [
                (K::Submitted, 0),
                (K::Assigned, 1),
                (K::Started, 1),
                (K::Requeued, 1),
                (K::Assigned, 2),
                (K::Started, 1),
                (K::Started, 2),
                (K::Superseded, 1),
                (K::Succeeded, 2)
            ]
        );
        let history = s.history("t");
        assert_eq!(history[1].worker.as_deref(), Some("a"));
        assert_eq!(history[3].worker.as_deref(), Some("a"));
        assert_eq!(history[3].reason, "lost");
        assert_eq!(history[4].worker.as_deref(), Some("b"));
    }

    fn a_late_result_of_an_older_attempt_can_decide<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 1), assigned("t", 1, "a", 2), requeued("t", 1, 1, 3)]);
        s.put(vec![assigned("t", 2, "b", 4), started("t", 2, 5), succeeded("t", 1, "a", 6)]);
        s.put(vec![superseded("t", 2, "b", 7)]);
        let s = s.reopen();
        assert_eq!(
            s.story("t"),
            [
                (K::Submitted, 0),
                (K::Assigned, 1),
                (K::Requeued, 1),
                (K::Assigned, 2),
                (K::Started, 2),
                (K::Succeeded, 1),
                (K::Superseded, 2)
            ]
        );
        assert_eq!(s.history("t")[5].worker.as_deref(), Some("a"));
        assert_eq!(s.outcome("t"), Some(outcome("t", 1, 0)));
        assert_eq!(s.task_row("t").unwrap().unwrap().epoch, 2);
    }

    fn a_retry_clears_the_result_and_keeps_the_history<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 1), assigned("t", 1, "a", 2), requeued("t", 1, 1, 3)]);
        s.put(vec![assigned("t", 2, "a", 4), succeeded("t", 2, "a", 5)]);
        s.put(vec![CoordRecord::Retried { task: "t".into(), at: 6 }]);
        let mut s = s.reopen();
        assert_eq!(s.outcome("t"), None);
        let snapshot = s.snapshot().unwrap();
        let row = &snapshot.tasks[0];
        assert_eq!((row.state, row.epoch, row.losses.retries), (TaskState::Pending, 2, 0));
        s.put(vec![cancelled("t", 7)]);
        assert_eq!(
            s.story("t"),
            [
                (K::Submitted, 0),
                (K::Assigned, 1),
                (K::Requeued, 1),
                (K::Assigned, 2),
                (K::Succeeded, 2),
                (K::Retried, 2),
                (K::Cancelled, 0)
            ]
        );
    }

    fn superseded_outcomes_are_kept_for_tasks_over_and_unknown<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![superseded("t", 7, "z", 1)]);
        s.put(vec![submitted("t", 1, 2), cancelled("t", 3), superseded("t", 8, "z", 4)]);
        let s = s.reopen();
        let found: Vec<_> = s.superseded("t").into_iter().map(|o| o.outcome).collect();
        assert_eq!(found, [outcome("t", 7, 0), outcome("t", 8, 0)]);
        assert_eq!(s.superseded("t")[1].event.worker.as_deref(), Some("z"));
        assert_eq!(s.outcome("t"), None);
    }

    fn a_clock_that_goes_back_does_not_reorder_history<S: Coord>() {
        let mut s = S::fresh();
        let note = |at| CoordRecord::Noted { task: "t".into(), epoch: 1, note: "n".into(), at };
        s.put(vec![submitted("t", 1, 900), note(800), assigned("t", 1, "w", 700), note(600)]);
        s.put(vec![started("t", 1, 500), note(400), succeeded("t", 1, "w", 300), note(200)]);
        let s = s.reopen();
        let times: Vec<_> = s.history("t").iter().map(|e| e.at).collect();
        assert_eq!(times, [900, 800, 700, 600, 500, 400, 300, 200]);
    }

    fn a_refused_batch_leaves_no_trace<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 1)]);
        let before = s.snapshot().unwrap();
        let good = batch(vec![submitted("u", 2, 2), assigned("t", 1, "w", 3), cursor("w", 9)]);
        for bad in [
            vec![submitted("t", 3, 4)],
            vec![submitted("v", 1, 4)],
            vec![assigned("nobody", 1, "w", 4)],
            vec![CoordRecord::Retried { task: "nobody".into(), at: 4 }],
        ] {
            let result = s.commit(&[good.clone(), batch(bad)]);
            assert!(matches!(result, Err(StoreError::Contradiction(_))), "{result:?}");
            assert!(!result.unwrap_err().is_retryable());
            assert_eq!(s.snapshot().unwrap(), before);
        }
        s.commit(&[good]).unwrap();
        let s = s.reopen();
        assert_eq!(s.snapshot().unwrap().tasks.len(), 2);
        assert_eq!(s.history("t")[1].worker.as_deref(), Some("w"));
    }

    fn a_cancel_request_holds_until_the_end<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("t", 1, 1), assigned("t", 1, "w", 2)]);
        s.put(vec![CoordRecord::CancelRequested { task: "t".into(), at: 3 }]);
        let mut s = s.reopen();
        assert!(s.snapshot().unwrap().tasks[0].assigned.cancelling);
        s.put(vec![succeeded("t", 1, "w", 4)]);
        assert!(!s.task_row("t").unwrap().unwrap().assigned.cancelling);
        assert_eq!(s.story("t")[2], (K::CancelRequested, 1));
    }

    fn cursors_only_grow_and_go_with_their_worker<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![seen("w", "name", 1), cursor("w", 5), cursor("w", 7)]);
        s.put(vec![cursor("w", 6)]);
        let mut s = s.reopen();
        assert_eq!(s.snapshot().unwrap().workers[0].1, [(RESULTS, 7)]);
        let gone = CoordRecord::WorkerForgotten { worker: "w".into(), at: 2 };
        s.put(vec![cursor("w", 8), gone, seen("w", "name", 3)]);
        let s = s.reopen();
        assert_eq!(s.snapshot().unwrap().workers, [((*worker_row("w", "name")).clone(), vec![])]);
    }

    fn a_worker_is_replaced_but_not_its_cursors<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![seen("b", "one", 1), seen("a", "two", 1), cursor("b", 5)]);
        let gone = gone("b", "eof", 2);
        s.put(vec![gone, seen("b", "three", 3)]);
        let workers = s.reopen().snapshot().unwrap().workers;
        let names: Vec<_> = workers.iter().map(|(w, c)| (&*w.name, c.len())).collect();
        assert_eq!(names, [("two", 0), ("three", 1)]);
    }

    fn numbers_are_never_given_twice<S: Coord>() {
        let mut s = S::fresh();
        s.put(vec![submitted("a", 5, 1), submitted("b", 9, 1), cancelled("b", 2)]);
        let snapshot = s.reopen().snapshot().unwrap();
        assert_eq!((snapshot.last_number, snapshot.tasks.len()), (9, 1));
    }

    fn checkpoints_states_and_pauses_outlive_a_restart<S: Coord>() {
        let mut s = S::fresh();
        let made = |epoch, n, dropped| CoordRecord::Checkpoint {
            checkpoint: common::checkpoint("a", epoch, n, dropped),
            worker: "w".into(),
            at: 3,
        };
        let told = |epoch, n| CoordRecord::State { update: common::state("a", epoch, n) };
        s.put(vec![submitted("a", 1, 1), assigned("a", 1, "w", 2), made(1, 1, false)]);
        s.put(vec![made(1, 2, false), made(1, 2, false), made(1, 3, true), made(2, 1, false)]);
        s.put(vec![told(1, 5), told(2, 1), told(1, 9)]);
        let (task, which) = ("a".into(), vec![(1, 1), (9, 9)]);
        s.put(vec![CoordRecord::CheckpointsPruned { task, which, at: 4 }]);
        s.put(vec![CoordRecord::Paused { task: "a".into(), on: true, at: 5 }]);
        let asked = Asked {
            checkpoint: true,
            place: Some(("w".into(), false)),
            awaited: Some(Awaited { epoch: 2, number: 5, worker: "w".into() }),
        };
        s.put(vec![CoordRecord::Asked { task: "a".into(), asked: asked.clone() }]);
        // Of a task that is not known: nothing, and no error.
        let stray = common::checkpoint("x", 1, 1, false);
        let worker: Arc<str> = "w".into();
        s.put(vec![CoordRecord::Checkpoint { checkpoint: stray, worker, at: 6 }]);
        let s = s.reopen();
        let row = s.task_row("a").unwrap().unwrap();
        let kept: Vec<_> = row.reported.checkpoints.iter().map(|c| (c.epoch, c.number)).collect();
        assert_eq!(kept, [(1, 2), (2, 1)]);
        assert_eq!((row.reported.state_version, row.paused, row.asked), ((2, 1), true, asked));
        assert_eq!(s.story("a").last(), Some(&(EventKind::PauseRequested, 1)));
    }

    fn a_task_that_failed_for_loss_says_so<S: Coord>() {
        let mut s = S::fresh();
        let end = |cause| CoordRecord::Ended {
            task: "a".into(),
            epoch: 1,
            state: TaskState::Failed,
            reason: "x".into(),
            cause,
            outcome: None,
            worker: None,
            at: 3,
        };
        s.put(vec![submitted("a", 1, 1), assigned("a", 1, "w", 2), end(Cause::Network)]);
        assert!(s.task_row("a").unwrap().unwrap().losses.lost);
        // And a late success may still count.
        s.put(vec![succeeded("a", 1, "w", 9)]);
        let mut s = s.reopen();
        let row = s.task_row("a").unwrap().unwrap();
        assert_eq!((row.state, row.losses.lost), (TaskState::Succeeded, false));
        s.put(vec![submitted("b", 2, 1), assigned("b", 1, "w", 2)]);
        let CoordRecord::Ended { epoch, state, reason, outcome, worker, at, .. } = end(Cause::Exit)
        else {
            unreachable!()
        };
        let (task, cause) = ("b".into(), Cause::Exit);
        s.put(vec![CoordRecord::Ended { task, epoch, state, reason, cause, outcome, worker, at }]);
        assert!(!s.task_row("b").unwrap().unwrap().losses.lost);
        assert_eq!(s.history("b").last().map(|e| e.cause), Some(Cause::Exit));
    }

    fn an_empty_commit_is_fine<S: Coord>() {
        let mut s = S::fresh();
        let before = s.snapshot().unwrap();
        s.commit(&[]).unwrap();
        s.commit(&[batch(vec![])]).unwrap();
        assert_eq!(s.reopen().snapshot().unwrap(), before);
    }
}

mod worker {
    use super::*;

    claims!(SqlWorker, SimWorkerStore:
        an_attempt_becomes_an_outcome_and_goes_when_acknowledged
        a_newer_attempt_replaces_the_older
        when_the_link_was_lost_is_kept_until_it_is_back
        the_identity_stays_and_the_incarnation_grows
        a_refused_batch_leaves_no_trace
        lanes_do_not_mix
        an_attempt_keeps_its_newest_checkpoint_and_state
    );

    fn accepted(task: &str, epoch: u64) -> WorkerRecord {
        common::accepted(task, epoch)
    }
    fn finished(task: &str, epoch: u64, seq: u64) -> WorkerRecord {
        WorkerRecord::Finished { lane: RESULTS, seq, outcome: outcome(task, epoch, 1) }
    }
    fn acked(seq: u64) -> WorkerRecord {
        WorkerRecord::Acked { lane: RESULTS, seq }
    }
    fn held<S: Worker>(s: &S) -> Vec<(String, u64, Option<i64>)> {
        let of = |a: outlast_core::records::AttemptRow| (a.task.to_string(), a.epoch, a.started_at);
        s.snapshot().unwrap().attempts.into_iter().map(of).collect()
    }

    fn an_attempt_becomes_an_outcome_and_goes_when_acknowledged<S: Worker>() {
        let mut s = S::fresh();
        s.put(vec![accepted("b", 1), accepted("a", 1), accepted("c", 1)]);
        s.put(vec![WorkerRecord::Starting { task: "a".into(), epoch: 1, at: 77 }]);
        s.put(vec![finished("b", 1, 1)]);
        let mut s = s.reopen();
        assert_eq!(held(&s), [("a".into(), 1, Some(77)), ("c".into(), 1, None)]);
        assert_eq!(s.snapshot().unwrap().outbox, [(1, outcome("b", 1, 1))]);
        s.put(vec![finished("a", 1, 2), finished("c", 1, 3), acked(2)]);
        assert_eq!(s.snapshot().unwrap().outbox, [(3, outcome("c", 1, 1))]);
        assert_eq!(s.outbox_len(), 1);
        s.put(vec![acked(3)]);
        let s = s.reopen();
        let snapshot = s.snapshot().unwrap();
        assert_eq!((snapshot.outbox.len(), snapshot.next_seq), (0, 4));
        assert_eq!(s.outbox_len(), 0);
    }

    fn a_newer_attempt_replaces_the_older<S: Worker>() {
        let mut s = S::fresh();
        s.put(vec![accepted("a", 1), accepted("b", 1), accepted("a", 3)]);
        let old = |epoch| WorkerRecord::Dropped { task: "a".into(), epoch };
        s.put(vec![old(1), finished("a", 1, 1)]);
        s.put(vec![WorkerRecord::Starting { task: "a".into(), epoch: 1, at: 5 }]);
        let mut s = s.reopen();
        assert_eq!(held(&s), [("b".into(), 1, None), ("a".into(), 3, None)]);
        // As `common::accepted` says.
        let after: Vec<_> = s.snapshot().unwrap().attempts.iter().map(|a| a.after).collect();
        assert_eq!(after, [0, 1]);
        s.put(vec![old(3)]);
        assert_eq!(held(&s).len(), 1);
        assert_eq!(s.outbox_len(), 1);
    }

    fn when_the_link_was_lost_is_kept_until_it_is_back<S: Worker>() {
        let mut s = S::fresh();
        assert_eq!(s.snapshot().unwrap().lost, None);
        let at = outlast_core::Now { mono: 7, wall: -3 };
        s.put(vec![WorkerRecord::LinkLost { at: Some(at) }]);
        let mut s = s.reopen();
        let lost = s.snapshot().unwrap().lost.expect("it is lost");
        assert_eq!((lost.at, lost.same_boot), (at, true));
        s.put(vec![WorkerRecord::LinkLost { at: None }]);
        assert_eq!(s.reopen().snapshot().unwrap().lost, None);
    }

    fn the_identity_stays_and_the_incarnation_grows<S: Worker>() {
        let mut s = S::fresh();
        let first = s.snapshot().unwrap();
        assert_eq!((first.incarnation, first.next_seq), (1, 1));
        assert_eq!(first.coordinator_id, None);
        s.put(vec![WorkerRecord::Joined { coordinator_id: "c".into() }]);
        let second = s.reopen().snapshot().unwrap();
        assert_eq!((second.incarnation, &second.store_id), (2, &first.store_id));
        assert_eq!(second.coordinator_id.as_deref(), Some("c"));
    }

    fn a_refused_batch_leaves_no_trace<S: Worker>() {
        let mut s = S::fresh();
        s.put(vec![accepted("a", 1), accepted("b", 1), finished("a", 1, 1)]);
        let before = s.snapshot().unwrap();
        let result = s.commit(&[
            batch(vec![acked(1), accepted("c", 1)]),
            batch(vec![finished("b", 1, 2), finished("c", 1, 2)]),
        ]);
        assert!(matches!(result, Err(StoreError::Contradiction(_))), "{result:?}");
        assert_eq!(s.snapshot().unwrap(), before);
        assert_eq!(s.outbox_len(), 1);
        s.put(vec![acked(1)]);
        assert_eq!(s.outbox_len(), 0);
    }

    fn lanes_do_not_mix<S: Worker>() {
        let mut s = S::fresh();
        let update = common::state("x", 1, 1);
        let other = WorkerRecord::State { seq: 9, replaces: None, update };
        s.put(vec![
            other,
            finished("a", 1, 1),
            WorkerRecord::Acked { lane: outlast_model::Lane::Checkpoints, seq: 100 },
        ]);
        let mut s = s.reopen();
        let snapshot = s.snapshot().unwrap();
        assert_eq!((snapshot.outbox.len(), snapshot.next_seq), (1, 2));
        assert_eq!((snapshot.states.len(), snapshot.next_state), (1, 10));
        assert_eq!(s.outbox_len(), 2);
        s.put(vec![acked(50)]);
        assert_eq!(s.outbox_len(), 1);
    }

    fn an_attempt_keeps_its_newest_checkpoint_and_state<S: Worker>() {
        let mut s = S::fresh();
        let made = |seq, n, dropped| WorkerRecord::Checkpoint {
            seq,
            checkpoint: common::checkpoint("a", 1, n, dropped),
        };
        let told = |seq, replaces, version| WorkerRecord::State {
            seq,
            replaces,
            update: common::state("a", 1, version),
        };
        s.put(vec![accepted("a", 1), made(1, 1, false), made(2, 2, false)]);
        // The first one could not be uploaded in time.
        s.put(vec![made(1, 1, true), told(1, None, 1), told(2, Some(1), 2)]);
        s.put(vec![WorkerRecord::Paused { task: "a".into(), epoch: 1, on: true }]);
        let s = s.reopen();
        let snapshot = s.snapshot().unwrap();
        let row = &snapshot.attempts[0];
        assert_eq!(row.checkpoint, Some(common::checkpoint("a", 1, 2, false)));
        assert_eq!(row.state, Some(common::state("a", 1, 2)));
        assert!(row.paused && row.survived == 1);
        let sent: Vec<_> = snapshot.checkpoints.iter().map(|(n, c)| (*n, c.dropped)).collect();
        assert_eq!(sent, [(1, true), (2, false)]);
        assert_eq!((snapshot.next_checkpoint, snapshot.states[0].0), (3, 2));
        assert_eq!((snapshot.states.len(), s.outbox_len()), (1, 3));
        // An older one that goes behind it in the lane is no newer for that.
        let mut s = s;
        s.put(vec![made(1, 2, false), made(2, 1, false)]);
        let snapshot = s.reopen().snapshot().unwrap();
        let newest = snapshot.attempts[0].checkpoint.clone();
        assert_eq!(newest, Some(common::checkpoint("a", 1, 2, false)));
        let sent: Vec<_> = snapshot.checkpoints.iter().map(|(n, c)| (*n, c.number)).collect();
        assert_eq!(sent, [(1, 2), (2, 1)]);
    }
}

#[test]
fn a_crash_of_the_model_loses_what_was_not_synced() {
    let mut s = SimCoordStore::new("c");
    s.write(&[batch(vec![submitted("a", 1, 1)])]).unwrap();
    s.sync();
    s.write(&[batch(vec![submitted("b", 2, 1)]), batch(vec![submitted("c", 3, 1)])]).unwrap();
    assert_eq!((s.snapshot().tasks.len(), s.unsynced()), (3, 2));
    let mut partly = s.clone();
    partly.crash_keeping(1);
    assert_eq!((partly.snapshot().last_number, partly.unsynced()), (2, 0));
    s.crash();
    assert_eq!(s.snapshot().last_number, 1);

    let mut w = SimWorkerStore::new("w");
    w.open();
    w.write(&[batch(vec![WorkerRecord::Joined { coordinator_id: "c".into() }])]).unwrap();
    w.crash();
    assert_eq!((w.open().incarnation, w.snapshot().coordinator_id), (2, None));
}
