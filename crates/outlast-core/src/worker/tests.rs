use super::*;
use crate::records::{Batch, WorkerRecord, WorkerSnapshot};
use crate::stats::ConnectionState;
use crate::{AttemptId, Epoch, Machine, Millis, Now, Step};
use outlast_model::message::*;
use outlast_model::*;
use std::sync::Arc;

mod fit;
mod rules;
mod timers;

fn at(mono: Millis) -> Now {
    Now { mono, wall: mono as i64 }
}

/// Drains the outputs; batches stay with the caller, who plays the disk.
fn drain(w: &mut Worker) -> (Vec<Output>, Vec<Batch<WorkerRecord>>) {
    w.invariants().expect("memory is consistent after each input");
    let (mut out, mut batches) = (Vec::new(), Vec::new());
    while let Some(o) = w.poll() {
        match o {
            Step::Persist(b) => batches.push(b),
            Step::Perform(o) => out.push(o),
        }
    }
    (out, batches)
}

fn connected(slots: u32) -> Worker {
    let config = WorkerConfig { slots, ..Default::default() };
    let snapshot = WorkerSnapshot { store_id: "s".into(), incarnation: 1, ..Default::default() };
    let mut w = Worker::new(config, snapshot, Vec::new(), 1, at(0));
    welcome(&mut w, 0, 0);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(0), batches[0].number);
    w
}

fn welcome(w: &mut Worker, now: Millis, cursor: u64) {
    w.on_connected(at(now));
    let cursors = vec![Cursor { lane: Lane::Results, seq: cursor }];
    let coordinator_id = "c".into();
    let m = Welcome { protocol: 2, coordinator_id, cursors, credit: 100, ..Default::default() };
    w.on_message(at(now), ToWorker::Welcome(m));
}

fn assign(w: &mut Worker, ids: &[(&str, Epoch)]) {
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let one = |(id, epoch): &(&str, Epoch)| Assignment::new((*id).into(), *epoch, spec.clone());
    let tasks = ids.iter().map(one).collect();
    w.on_message(at(1), ToWorker::Assign(tasks));
}

fn done(task: &str, epoch: Epoch) -> TaskOutcome {
    let kind = OutcomeKind::Succeeded;
    TaskOutcome { task: task.into(), epoch, kind, ..Default::default() }
}

fn runs(out: &[Output]) -> Vec<String> {
    let run = |o: &Output| match o {
        Output::Run(t, e, _) => Some(format!("{t}.{e}")),
        _ => None,
    };
    out.iter().filter_map(run).collect()
}

fn outbox(out: &[Output]) -> Vec<(u64, usize)> {
    let sent = |o: &Output| match o {
        Output::Send(ToCoordinator::Outbox(b)) => Some((b.first_seq, b.items.len())),
        _ => None,
    };
    out.iter().filter_map(sent).collect()
}

#[test]
fn nothing_runs_and_no_result_leaves_before_it_is_durable() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1), ("a", 1)]);
    let (out, batches) = drain(&mut w);
    assert!(runs(&out).is_empty());
    w.on_persisted(at(2), batches[0].number);
    assert_eq!(runs(&drain(&mut w).0), ["a.1"]);
    w.on_finished(at(3), done("a", 1));
    let (out, batches) = drain(&mut w);
    // The next one's arrival is durable: it need not wait for the result before it.
    assert_eq!((outbox(&out), runs(&out)), (vec![], vec!["b.1".to_string()]));
    w.on_persisted(at(4), batches[0].number);
    assert_eq!(outbox(&drain(&mut w).0), [(1, 1)]);
}

#[test]
fn cut_off_it_goes_on_and_sends_everything_once_the_link_is_back() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1)]);
    let settle = |w: &mut Worker, now| {
        let (mut all, mut more) = (Vec::new(), true);
        while more {
            let (out, batches) = drain(w);
            all.extend(out);
            more = !batches.is_empty();
            batches.iter().for_each(|b| w.on_persisted(at(now), b.number));
        }
        all
    };
    settle(&mut w, 1);
    w.on_disconnected(at(2), "cut");
    w.on_finished(at(3), done("a", 1));
    assert_eq!(runs(&settle(&mut w, 3)), ["b.1"]);
    w.on_finished(at(4), done("b", 1));
    assert!(outbox(&settle(&mut w, 4)).is_empty());
    w.on_tick(at(5_000));
    assert!(settle(&mut w, 5_000).iter().any(|o| matches!(o, Output::Dial)));
    welcome(&mut w, 5_000, 1);
    assert_eq!(outbox(&settle(&mut w, 5_000)), [(2, 1)]);
    assert_eq!(w.load(), (0, 0, 1));
    let cursors = vec![Cursor { lane: Lane::Results, seq: 2 }];
    w.drain(at(5_001));
    w.on_message(at(5_002), ToWorker::Ack(cursors));
    assert!(settle(&mut w, 5_002).iter().any(|o| matches!(o, Output::Exit)));
}

#[test]
fn a_silent_coordinator_is_dialled_again_and_sleep_is_no_silence() {
    let mut w = connected(1);
    w.on_tick(at(5_000));
    w.on_tick(at(10_000));
    drain(&mut w);
    // The machine slept for an hour: the link is asked, not judged.
    w.on_tick(at(3_600_000));
    assert_eq!(w.connection_state(), ConnectionState::Connected);
    for t in [3_605_000, 3_610_000, 3_615_000] {
        w.on_tick(at(t));
    }
    assert_eq!(w.connection_state(), ConnectionState::Disconnected);
    assert!(drain(&mut w).0.iter().any(|o| matches!(o, Output::Close(_))));
}

#[test]
fn a_store_put_back_to_an_older_copy_gets_new_sequences() {
    let snapshot = WorkerSnapshot {
        store_id: "s".into(),
        incarnation: 2,
        outbox: vec![(3, Arc::new(done("a", 1)))],
        next_seq: 4,
        ..Default::default()
    };
    let mut w = Worker::new(WorkerConfig::default(), snapshot, Vec::new(), 1, at(0));
    welcome(&mut w, 0, 9);
    let (_, batches) = drain(&mut w);
    let forgets = |r: &WorkerRecord| matches!(r, WorkerRecord::Acked { seq: 3, .. });
    assert!(batches.iter().flat_map(|b| &b.records).any(forgets), "the old ones are not kept");
    w.on_persisted(at(1), batches.last().unwrap().number);
    assert_eq!(outbox(&drain(&mut w).0), [(10, 1)]);
}

/// Assigns and starts task `a`, and makes everything durable.
fn running() -> Worker {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1)]);
    sync(&mut w, 2);
    w
}

fn sync(w: &mut Worker, now: Millis) -> Vec<Output> {
    let (mut out, batches) = drain(w);
    if let Some(last) = batches.last() {
        w.on_persisted(at(now), last.number);
        out.extend(drain(w).0);
    }
    out
}

fn checkpoint(w: &mut Worker, now: Millis, blob: &'static str) {
    let manifest = Bytes::from_static(blob.as_bytes());
    w.on_checkpoint(at(now), now, &"a".into(), 1, manifest, 1, b"{}".to_vec(), "");
}

fn state(w: &mut Worker, now: Millis, n: u64) {
    let members = serde_json::Map::from_iter([("n".to_owned(), n.into())]);
    w.on_state(at(now), now, &"a".into(), 1, StatePatch { members, progress: None });
}

fn uploads(out: &[Output]) -> Vec<Option<String>> {
    let text = |m: &Bytes| String::from_utf8_lossy(m).into_owned();
    let upload = |o: &Output| match o {
        Output::Upload(m) => Some(m.as_ref().map(text)),
        _ => None,
    };
    out.iter().filter_map(upload).collect()
}

fn sent_states(out: &[Output]) -> Vec<(Vec<u64>, u64)> {
    let sent = |o: &Output| match o {
        Output::Send(ToCoordinator::Outbox(b)) if b.lane == Lane::State => {
            Some((b.seqs.clone(), b.prev_seq))
        }
        _ => None,
    };
    out.iter().filter_map(sent).collect()
}

#[test]
fn a_checkpoint_is_answered_when_durable_and_sent_when_uploaded() {
    let mut w = running();
    checkpoint(&mut w, 10, "one");
    let (out, batches) = drain(&mut w);
    assert!(!out.iter().any(|o| matches!(o, Output::Answer(..))));
    w.on_persisted(at(11), batches[0].number);
    let out = drain(&mut w).0;
    assert!(out.iter().any(|o| matches!(o, Output::Answer(10, Answer::Checkpoint(_)))));
    assert_eq!(uploads(&out), [Some("one".into())]);
    assert!(outbox(&out).is_empty());
    w.on_uploaded(b"one", Ok(()));
    assert_eq!(outbox(&drain(&mut w).0), [(1, 1)]);
    // The coordinator has lost it: it is uploaded again, and sent again.
    let manifest = Bytes::from_static(b"one");
    w.on_message(at(12), ToWorker::BlobMissing(manifest));
    assert_eq!(uploads(&drain(&mut w).0), [Some("one".into())]);
    w.on_uploaded(b"one", Ok(()));
    assert_eq!(outbox(&drain(&mut w).0), [(1, 1)]);
}

#[test]
fn of_a_backlog_only_the_newest_are_uploaded_and_the_rest_is_told_of() {
    let mut w = running();
    w.on_disconnected(at(5), "cut");
    for (now, blob) in [(10, "1"), (20, "2"), (30, "3"), (40, "4"), (50, "5")] {
        checkpoint(&mut w, now, blob);
    }
    // Nothing of it is durable yet: a crash could bring every one of them back.
    assert_eq!(w.wanted_blobs().len(), 6, "{:?}", w.wanted_blobs());
    sync(&mut w, 60);
    let wanted: Vec<_> = w.wanted_blobs().iter().map(|b| b[0]).collect();
    assert_eq!(wanted, *b"3455");
    w.on_tick(at(5_000));
    welcome(&mut w, 5_001, 0);
    let out = sync(&mut w, 5_002);
    assert_eq!(uploads(&out), [Some("3".into())]);
    // The two that were dropped need no upload.
    assert!(out.iter().any(|o| matches!(o,
        Output::Send(ToCoordinator::Outbox(b)) if b.lane == Lane::Checkpoints && b.items.len() == 2)));
}

#[test]
fn a_checkpoint_without_room_lets_others_pass_once_their_order_is_durable() {
    let mut w = running();
    for (now, blob) in [(10, "big"), (20, "b"), (30, "c")] {
        checkpoint(&mut w, now, blob);
    }
    assert_eq!(uploads(&sync(&mut w, 31)), [Some("big".into())]);
    w.on_no_room(b"big");
    let (out, batches) = drain(&mut w);
    assert!(uploads(&out).is_empty() && outbox(&out).is_empty());
    let records = batches.iter().flat_map(|b| &b.records);
    let order: Vec<_> = records
        .filter_map(|r| match r {
            WorkerRecord::Checkpoint { seq, checkpoint } => Some((*seq, checkpoint.number)),
            _ => None,
        })
        .collect();
    assert_eq!(order, [(1, 2), (2, 3), (3, 1)]);
    w.on_persisted(at(32), batches.last().unwrap().number);
    assert_eq!(uploads(&drain(&mut w).0), [Some("b".into())]);
    w.on_uploaded(b"b", Ok(()));
    let out = drain(&mut w).0;
    assert_eq!(outbox(&out), [(1, 1)]);
    assert_eq!(uploads(&out), [Some("c".into())]);
    w.on_uploaded(b"c", Ok(()));
    let out = drain(&mut w).0;
    assert_eq!(outbox(&out), [(2, 1)]);
    // Alone it is tried again and again; the task goes on from the newest as before.
    assert_eq!(uploads(&out), [Some("big".into())]);
    w.on_no_room(b"big");
    let (out, batches) = drain(&mut w);
    assert_eq!(uploads(&out), [Some("big".into())]);
    assert!(batches.iter().all(|b| b.records.is_empty()));
    let known = w.known_checkpoints("a", 1);
    assert_eq!(known.last().map(|(c, _)| c.number), Some(3));
    w.on_uploaded(b"big", Ok(()));
    assert_eq!(outbox(&drain(&mut w).0), [(3, 1)]);
}

#[test]
fn a_dropped_checkpoint_needs_no_upload_after_a_restart() {
    let dropped = Checkpoint { dropped: true, number: 1, ..Default::default() };
    let kept = Checkpoint { number: 2, manifest: Bytes::from_static(b"two"), ..Default::default() };
    let snapshot = WorkerSnapshot {
        store_id: "s".into(),
        incarnation: 2,
        checkpoints: vec![(1, Arc::new(dropped)), (2, Arc::new(kept))],
        next_checkpoint: 3,
        ..Default::default()
    };
    let mut w = Worker::new(WorkerConfig::default(), snapshot, Vec::new(), 1, at(0));
    welcome(&mut w, 0, 0);
    let out = sync(&mut w, 1);
    assert_eq!(uploads(&out), [Some("two".into())]);
    assert_eq!(outbox(&out), [(1, 1)]);
}

#[test]
fn a_state_stays_until_the_one_that_replaces_it_is_durable() {
    let mut w = running();
    w.on_disconnected(at(5), "cut");
    state(&mut w, 10, 1);
    sync(&mut w, 11);
    state(&mut w, 12, 2);
    let (_, batches) = drain(&mut w);
    w.on_tick(at(5_000));
    welcome(&mut w, 5_001, 0);
    // The second is not durable: a crash would bring back the first, which must not be passed.
    assert_eq!(sent_states(&drain(&mut w).0), [(vec![1], 0)]);
    w.on_persisted(at(5_002), batches.last().unwrap().number);
    assert_eq!(sent_states(&sync(&mut w, 5_003)), [(vec![2], 1)]);
}

#[test]
fn what_a_keeper_ran_on_is_taken_over_and_the_rest_was_interrupted() {
    let row = |task: &str, started_at| crate::records::AttemptRow {
        task: task.into(),
        epoch: 1,
        spec: Arc::new(TaskSpec::new(Run::Shell("true".into()))),
        started_at,
        survived: 1,
        made: 0,
        paused: false,
        after: 0,
        checkpoint: None,
        state: None,
    };
    let snapshot = || WorkerSnapshot {
        store_id: "s".into(),
        incarnation: 2,
        attempts: vec![row("a", Some(5)), row("b", Some(5)), row("c", None)],
        next_seq: 1,
        ..Default::default()
    };
    let config = WorkerConfig { slots: 2, ..Default::default() };
    let alive = vec![Alive { task: "a".into(), epoch: 1, started_at: 5, paused: false }];
    let mut w = Worker::new(config.clone(), snapshot(), alive, 1, at(100));
    assert_eq!(runs(&sync(&mut w, 101)), ["c.1"]);
    assert_eq!(w.load(), (2, 0, 1));
    w.on_finished(at(102), done("a", 1));
    let out = sync(&mut w, 103);
    assert!(out.iter().any(|o| matches!(o, Output::Forget(task, 1) if **task == *"a")));
    // Whoever ran it knows whether it is paused; the record of that may be lost.
    let alive = vec![Alive { task: "a".into(), epoch: 1, started_at: 5, paused: true }];
    let mut paused = Worker::new(config.clone(), snapshot(), alive, 1, at(100));
    let records: Vec<_> = drain(&mut paused).1.into_iter().flat_map(|b| b.records).collect();
    let is = |r: &WorkerRecord| matches!(r, WorkerRecord::Paused { task, on: true, .. } if **task == *"a");
    assert!(records.iter().any(is), "{records:?}");
    // One that may be what ends its worker is not run for ever.
    let mut again = snapshot();
    again.attempts[2].survived = startup::SURVIVED;
    let mut w = Worker::new(config, again, Vec::new(), 1, at(100));
    assert!(runs(&sync(&mut w, 101)).is_empty());
    assert_eq!(w.load(), (0, 0, 3));
}

#[test]
fn a_passed_window_pauses_and_the_coordinators_word_resumes() {
    let mut w = connected(1);
    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    spec.reconnect_window = 10.0;
    spec.on_lease_expired = outlast_model::spec::OnLeaseExpired::Pause;
    let task = Assignment::new("a".into(), 1, Arc::new(spec));
    w.on_message(at(1), ToWorker::Assign(vec![task]));
    sync(&mut w, 2);
    w.on_disconnected(at(100), "cut");
    let pauses = |out: &[Output]| {
        let pause = |o: &Output| match o {
            Output::Pause(_, _, on) => Some(*on),
            _ => None,
        };
        out.iter().filter_map(pause).collect::<Vec<_>>()
    };
    w.on_tick(at(9_000));
    assert!(pauses(&sync(&mut w, 9_000)).is_empty());
    w.on_tick(at(10_200));
    assert_eq!(pauses(&sync(&mut w, 10_200)), [true]);
    welcome(&mut w, 11_000, 0);
    let attempts = vec![AttemptId { task: "a".into(), epoch: 1 }];
    let kind = ControlKind::Resume;
    w.on_message(at(11_001), ToWorker::Control(attempts, kind));
    assert_eq!(pauses(&sync(&mut w, 11_002)), [false]);
}

#[test]
fn a_new_attempt_goes_on_from_what_an_older_one_made_here_though_the_outcome_overtook_it() {
    let mut w = running();
    checkpoint(&mut w, 10, "one");
    checkpoint(&mut w, 20, "two");
    w.on_uploaded(b"one", Ok(()));
    let interrupted = OutcomeKind::Interrupted;
    w.on_finished(at(30), TaskOutcome { kind: interrupted, ..done("a", 1) });
    sync(&mut w, 31);
    // The coordinator knows of the first only, and of the outcome.
    let number = 1;
    let given = Checkpoint { task: "a".into(), epoch: 1, number, ..Default::default() };
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let mut again = Assignment::new("a".into(), 2, spec);
    again.checkpoint = Some(given.into());
    w.on_message(at(40), ToWorker::Assign(vec![again]));
    let (newest, _) = w.reported("a", 2).expect("it is held");
    assert_eq!(newest.map(|c| (c.epoch, c.number)), Some((1, 2)));
    assert_eq!(w.known_checkpoints("a", 2).last().map(|(c, _)| c.number), Some(2));
}

/// Returns the starts that are reported to the coordinator.
fn told_starts(out: &[Output]) -> Vec<String> {
    let told = |o: &Output| match o {
        Output::Send(ToCoordinator::Started(started)) => Some(started.clone()),
        _ => None,
    };
    let each = out.iter().filter_map(told).flatten();
    each.map(|(a, _)| format!("{}.{}", a.task, a.epoch)).collect()
}

fn assign_once(w: &mut Worker, task: &str) {
    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    spec.rerun = outlast_model::spec::Rerun::Never;
    let task = Assignment::new(task.into(), 1, Arc::new(spec));
    w.on_message(at(1), ToWorker::Assign(vec![task]));
}

#[test]
fn the_start_of_what_must_not_run_twice_is_told_once_it_is_durable() {
    let mut w = connected(1);
    assign_once(&mut w, "a");
    let (out, batches) = drain(&mut w);
    assert_eq!((runs(&out).len(), told_starts(&out).len()), (0, 0));
    w.on_persisted(at(2), batches.last().unwrap().number);
    let out = drain(&mut w).0;
    assert_eq!((runs(&out), told_starts(&out)), (vec!["a.1".into()], vec!["a.1".into()]));
    w.on_tick(at(5_000));
    assert!(told_starts(&sync(&mut w, 5_000)).is_empty(), "once is enough");
}

#[test]
fn a_start_between_inventory_and_welcome_is_told_at_the_welcome() {
    let mut w = connected(1);
    assign_once(&mut w, "a");
    let (_, batches) = drain(&mut w);
    w.on_disconnected(at(2), "cut");
    w.on_tick(at(5_000));
    w.on_connected(at(5_001));
    drain(&mut w);
    w.on_persisted(at(5_002), batches.last().unwrap().number);
    let out = drain(&mut w).0;
    assert_eq!((runs(&out), told_starts(&out).len()), (vec!["a.1".into()], 0));
    let m = Welcome { protocol: 2, coordinator_id: "c".into(), ..Default::default() };
    w.on_message(at(5_003), ToWorker::Welcome(m));
    assert_eq!(told_starts(&drain(&mut w).0), ["a.1"]);
}

#[test]
fn what_runs_and_must_not_run_twice_does_not_stop_for_a_move() {
    let mut w = connected(1);
    assign_once(&mut w, "a");
    sync(&mut w, 2);
    let attempts = vec![AttemptId { task: "a".into(), epoch: 1 }];
    let reason = StopReason::Move;
    w.on_message(at(3), ToWorker::Stop(attempts, reason));
    let out = sync(&mut w, 3);
    assert!(!out.iter().any(|o| matches!(o, Output::StopRun(..))));
}

#[test]
fn a_new_task_of_an_old_id_does_not_go_on_from_what_the_former_one_made() {
    let mut w = running();
    checkpoint(&mut w, 10, "former");
    w.on_finished(at(20), done("a", 1));
    sync(&mut w, 21);
    // The former task was removed; the checkpoint has not arrived yet.
    let give = |w: &mut Worker, epoch| {
        let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
        let new = Assignment { after: 1, ..Assignment::new("a".into(), epoch, spec) };
        w.on_message(at(30), ToWorker::Assign(vec![new]));
        drain(w).1
    };
    let batches = give(&mut w, 2);
    let records = batches.iter().flat_map(|b| &b.records);
    let kept = records.filter_map(|r| match r {
        WorkerRecord::Accepted { after, checkpoint, .. } => Some((*after, checkpoint.is_some())),
        _ => None,
    });
    assert_eq!(kept.collect::<Vec<_>>(), [(1, false)]);
    assert_eq!(w.reported("a", 2).expect("it is held").0, None);
    assert!(w.known_checkpoints("a", 2).is_empty());
    batches.iter().for_each(|b| w.on_persisted(at(31), b.number));
    // What it makes itself counts, also for its next attempt.
    w.on_checkpoint(at(40), 1, &"a".into(), 2, "own".into(), 1, Vec::new(), "");
    w.on_finished(at(50), done("a", 2));
    sync(&mut w, 51);
    give(&mut w, 3);
    let known = |(c, _): &(Arc<Checkpoint>, bool)| (c.epoch, c.number);
    let own: Vec<_> = w.known_checkpoints("a", 3).iter().map(known).collect();
    assert_eq!(own, [(2, 1)]);
}

#[test]
fn a_window_goes_on_through_a_restart_of_its_worker() {
    let mut w = running();
    w.on_disconnected(at(1_000), "cut");
    let noted = |w: &mut Worker| {
        let batches = drain(w).1;
        let records = batches.into_iter().flat_map(|b| b.records);
        let lost = records.filter_map(|r| match r {
            WorkerRecord::LinkLost { at } => Some(at),
            _ => None,
        });
        lost.collect::<Vec<_>>()
    };
    assert_eq!(noted(&mut w), [Some(at(1_000))]);

    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    spec.reconnect_window = 10.0;
    spec.on_lease_expired = outlast_model::spec::OnLeaseExpired::Stop;
    let spec = Arc::new(spec);
    let restart = |lost, now: Now| {
        let row = crate::records::AttemptRow {
            task: "a".into(),
            epoch: 1,
            spec: spec.clone(),
            started_at: Some(5),
            survived: 0,
            made: 0,
            paused: false,
            after: 0,
            checkpoint: None,
            state: None,
        };
        let snapshot = WorkerSnapshot {
            store_id: "s".into(),
            incarnation: 2,
            attempts: vec![row],
            next_seq: 1,
            lost,
            ..Default::default()
        };
        let alive = vec![Alive { task: "a".into(), epoch: 1, started_at: 5, paused: false }];
        Worker::new(WorkerConfig::default(), snapshot, alive, 1, now)
    };
    let stopped = |w: &mut Worker, now: Now| {
        w.on_tick(now);
        sync(w, now.mono).iter().any(|o| matches!(o, Output::StopRun(..)))
    };
    let lost = |same_boot| Some(crate::records::LostLink { at: at(1_000), same_boot });
    let mut w = restart(lost(true), at(9_000));
    assert!(!stopped(&mut w, at(10_999)));
    assert_eq!(w.next_wake().at, 11_000);
    assert!(stopped(&mut w, at(11_000)));
    assert!(stopped(&mut restart(lost(true), at(30_000)), at(30_000)));
    // The machine was rebooted: only the wall clock continues.
    let booted = |wall| Now { mono: 2_000, wall };
    assert!(!stopped(&mut restart(lost(false), booted(9_000)), booted(9_000)));
    assert!(stopped(&mut restart(lost(false), booted(12_000)), booted(12_000)));

    // Nobody noted it: it is lost since the start, and that is noted. The next link ends it.
    let mut w = restart(None, at(9_000));
    assert_eq!(noted(&mut w), [Some(at(9_000))]);
    welcome(&mut w, 10_000, 0);
    assert_eq!(noted(&mut w), [None]);
    let mut w = restart(lost(true), at(9_000));
    welcome(&mut w, 9_500, 0);
    assert_eq!(noted(&mut w), [None]);
    w.on_disconnected(at(10_000), "cut");
    assert!(!stopped(&mut w, at(19_000)));
    assert!(stopped(&mut w, at(20_000)));
}

#[test]
fn a_copy_stops_what_it_runs_and_never_dials_again() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1), ("b", 1)]);
    assert_eq!(runs(&sync(&mut w, 2)), ["a.1"]);
    w.on_disconnected(at(10), "cut");
    w.on_tick(at(10_000));
    w.on_connected(at(10_001));
    let refused = outlast_model::message::Refused {
        code: RefusedCode::Copy,
        reason: "this state folder is a copy".into(),
        ..Default::default()
    };
    w.on_message(at(10_002), ToWorker::Refused(refused));
    let out = sync(&mut w, 10_003);
    assert!(out.iter().any(|o| matches!(o, Output::StopRun(..))));
    let kind = OutcomeKind::Interrupted;
    w.on_finished(at(10_004), TaskOutcome { kind, ..done("a", 1) });
    let out = sync(&mut w, 10_005);
    assert!(out.iter().any(|o| matches!(o, Output::Exit)) && runs(&out).is_empty());
    w.on_tick(at(900_000));
    assert!(!sync(&mut w, 900_001).iter().any(|o| matches!(o, Output::Dial)));
    assert_eq!(w.copied(), Some("this state folder is a copy"));
}

#[test]
fn an_outcome_names_the_last_checkpoint_of_its_attempt() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(2), batches[0].number);
    checkpoint(&mut w, 10, "one");
    checkpoint(&mut w, 20, "two");
    w.on_finished(at(30), done("a", 1));
    let named = |w: &mut Worker| {
        let (_, batches) = drain(w);
        let mut records = batches.iter().flat_map(|b| &b.records);
        records.find_map(|r| match r {
            WorkerRecord::Finished { outcome, .. } => outcome.checkpoint,
            _ => None,
        })
    };
    assert_eq!(named(&mut w), Some((1, 2)));
    // The next attempt goes on from it; given back before it starts, it names the same.
    assign(&mut w, &[("a", 2)]);
    let attempts = vec![AttemptId { task: "a".into(), epoch: 2 }];
    w.on_message(at(40), ToWorker::Stop(attempts, StopReason::Return));
    assert_eq!(named(&mut w), Some((1, 2)));
}

/// Plays a coordinator's address that nothing answers until `back`; when the worker said hello.
fn back_after(outage: Millis, reachable: bool) -> Millis {
    let mut w = connected(1);
    let start = 10_000;
    w.on_heard(at(start));
    w.on_disconnected(at(start), "cut");
    let mut now = start;
    loop {
        now = w.next_wake().at.max(now + 1);
        w.on_tick(at(now));
        while let Some(o) = w.poll() {
            match o {
                Step::Perform(Output::Dial) if now >= start + outage => return now - start,
                Step::Perform(Output::Dial) if reachable => w.on_disconnected(at(now + 1), "503"),
                Step::Perform(Output::Dial) => w.on_unreachable(at(now + 1), "no route"),
                Step::Perform(Output::Probe) => w.on_probed(at(now + 2), now >= start + outage),
                _ => {}
            }
        }
        assert!(now < start + 10 * outage.max(60_000), "it never dials again");
    }
}

#[test]
fn a_lost_link_is_dialled_at_once() {
    assert!(back_after(0, false) <= 300);
}

#[test]
fn a_worker_is_back_soon_after_the_network_is() {
    for outage in [8_000, 45_000, 3_600_000] {
        let late = back_after(outage, false) - outage;
        let limit = if outage < 60_000 { 3_000 } else { 7_000 };
        assert!(late <= limit, "{late} ms after an outage of {outage} ms");
    }
}

#[test]
fn an_address_that_accepts_and_refuses_is_left_to_the_backoff() {
    let mut w = connected(1);
    w.on_disconnected(at(10_000), "cut");
    let (mut now, mut dials) = (10_000, 0);
    while now < 70_000 {
        now = w.next_wake().at.max(now + 1);
        w.on_tick(at(now));
        while let Some(o) = w.poll() {
            match o {
                Step::Perform(Output::Dial) => {
                    dials += 1;
                    w.on_disconnected(at(now + 1), "503");
                }
                Step::Perform(Output::Probe) => panic!("a probe of an address that answers"),
                _ => {}
            }
        }
    }
    // At once, then after 2, 4, 8, 16, 32 s, each ± 20%.
    assert!((5..=7).contains(&dials), "{dials}");
}

#[test]
fn a_link_that_ends_as_soon_as_it_is_up_is_not_dialled_in_a_circle() {
    let mut w = connected(1);
    let (mut now, mut dials) = (10_000, 0);
    w.on_disconnected(at(now), "cut");
    while now < 40_000 {
        now = w.next_wake().at.max(now + 1);
        w.on_tick(at(now));
        let (out, _) = drain(&mut w);
        if out.iter().any(|o| matches!(o, Output::Dial)) {
            dials += 1;
            welcome(&mut w, now, 0);
            w.on_disconnected(at(now + 1), "taken over");
        }
    }
    assert!(dials <= 40, "{dials} dials in half a minute");
}
