//! Explanations in full.

use super::facts::{Facts, Whereabouts};
use super::story::explain;
use outlast_core::records::TaskState;
use outlast_model::{Cause, Checkpoint, LinkCause};
use outlast_store::{EventKind, StoredCheckpoint, StoredEvent, StoredTask, TaskExtra};
use outlast_wire::{Run, TaskSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// 2026-11-24, 10:00:00 UTC.
const T: i64 = 1_795_514_400_000;

fn facts(state: TaskState) -> Facts {
    let spec = Arc::new(TaskSpec::new(Run::Shell("x".into())));
    let task = StoredTask {
        number: 1,
        id: "t".into(),
        spec,
        state,
        epoch: 0,
        ended_epoch: 0,
        retries: 0,
        cancelling: false,
        worker: None,
        worker_name: None,
        submitted_at: T,
        assigned_at: None,
        started_at: None,
        ended_at: None,
        reason: String::new(),
        has_outcome: false,
        owner: None,
    };
    let worker = |name: &str| Whereabouts {
        name: name.into(),
        there: true,
        drained: false,
        unfit: None,
        gone_at: None,
        gone_cause: LinkCause::Unspecified,
    };
    let workers = HashMap::from([("s1".into(), worker("w1")), ("s2".into(), worker("w2"))]);
    let (events, checkpoints) = (vec![event(0, EventKind::Submitted, 0, None)], Vec::new());
    let (extra, waiting_for, now) = (TaskExtra::default(), None, T + 1_000_000);
    Facts { task, extra, events, checkpoints, waiting_for, workers, now }
}

fn event(at: i64, kind: EventKind, epoch: u64, worker: Option<&str>) -> StoredEvent {
    let (at, worker) = (T + at, worker.map(Into::into));
    let (reason, cause, decision) = (String::new(), Cause::Unspecified, None);
    StoredEvent { at, kind, epoch, worker, reason, cause, decision }
}

fn because(event: StoredEvent, cause: Cause, reason: &str) -> StoredEvent {
    StoredEvent { cause, reason: reason.into(), ..event }
}

fn checkpoint(epoch: u64, number: u64, size: u64, at: i64) -> StoredCheckpoint {
    let created_at_ms = T + at;
    let checkpoint = Checkpoint { epoch, number, size, created_at_ms, ..Default::default() };
    StoredCheckpoint {
        checkpoint: checkpoint.into(),
        kept: true,
        worker: None,
        worker_name: None,
        at: T + at,
        gone_at: None,
    }
}

#[test]
fn a_network_loss_names_the_worker_the_window_and_the_checkpoint() {
    let mut f = facts(TaskState::Assigned);
    f.task.epoch = 2;
    f.task.worker = Some("s2".into());
    f.task.assigned_at = Some(T + 764_100);
    f.task.started_at = Some(T + 765_000);
    f.extra.progress = Some(0.4);
    f.events.extend([
        event(123_000, EventKind::Assigned, 1, Some("s1")),
        event(123_000, EventKind::Started, 1, Some("s1")),
        because(
            event(764_000, EventKind::Requeued, 1, Some("s1")),
            Cause::Network,
            "worker w1 did not return within 600 s",
        ),
        event(764_100, EventKind::Assigned, 2, Some("s2")),
        event(765_000, EventKind::Started, 2, Some("s2")),
    ]);
    f.checkpoints = vec![checkpoint(1, 8, 12 << 20, 155_000)];
    let story = explain(&f);
    assert_eq!(
        story.sentences,
        [
            "submitted on 2026-11-24 at 10:00:00 UTC",
            "attempt 1 ran on w1 from 10:02:03 for 41 s until w1 could not be reached for 600 s \
             (network); it had a checkpoint 1-8 of 12 MiB taken 9.0 s before",
        ]
    );
    assert_eq!(
        story.now,
        "attempt 2 runs on w2, going on from checkpoint 1-8, since 10:12:45 (3 min), and is 40% done"
    );
    assert_eq!(story.hint, None);
    // It succeeds, going on from there.
    f.task.state = TaskState::Succeeded;
    f.task.ended_at = Some(T + 800_000);
    f.events.push(because(event(800_000, EventKind::Succeeded, 2, Some("s2")), Cause::Done, ""));
    let late = event(801_000, EventKind::Superseded, 1, Some("s1"));
    f.events.push(because(late, Cause::Done, "the task was already over, or is not known"));
    let story = explain(&f);
    assert_eq!(
        story.sentences[2..],
        [
            "attempt 2 ran on w2, going on from checkpoint 1-8, from 10:12:45 for 35 s and \
             succeeded",
            "at 10:13:21 attempt 1 of w1 ended too, and did not count: the task was already \
             over, or is not known",
        ]
    );
    assert_eq!((story.now.as_str(), story.hint), ("it succeeded at 10:13:20", None));
}

#[test]
fn an_absent_worker_keeps_its_task_for_a_while() {
    let mut f = facts(TaskState::Assigned);
    (f.task.epoch, f.task.worker) = (1, Some("s1".into()));
    f.task.assigned_at = Some(T + 1000);
    let w1 = f.workers.get_mut("s1").unwrap();
    (w1.there, w1.gone_at, w1.gone_cause) = (false, Some(T + 940_000), LinkCause::Silent);
    let story = explain(&f);
    assert_eq!(
        story.now,
        "attempt 1 is at w1 since 10:00:01, and waits there; w1 cannot be reached since 10:15:40 \
         (nothing came from it any more: silent), and keeps it for another 9 min"
    );
    assert!(story.hint.unwrap().contains("outlast workers forget w1"));
}

#[test]
fn waiting_tasks_say_for_what() {
    let mut f = facts(TaskState::Pending);
    f.waiting_for = Some("no worker has gpu".into());
    let spec = Arc::make_mut(&mut f.task.spec);
    spec.requires.insert("gpu".into(), "*".into());
    let story = explain(&f);
    assert_eq!(story.now, "it waits since 10:00:00: no worker has gpu");
    assert!(story.hint.unwrap().contains("gpu *"));
    f.workers.clear();
    assert!(explain(&f).hint.unwrap().contains("start a worker"));
    f.extra.paused = true;
    f.events.push(event(5_000, EventKind::PauseRequested, 0, None));
    let story = explain(&f);
    assert_eq!(story.sentences[1], "at 10:00:05 somebody paused it");
    assert!(story.now.starts_with("it is paused since 10:00:05"), "{}", story.now);
    assert_eq!(story.hint.unwrap(), "`outlast task resume t` lets it go on");
}

#[test]
fn failures_say_why_and_what_helps() {
    let mut f = facts(TaskState::Failed);
    (f.task.epoch, f.task.ended_epoch, f.task.ended_at) = (1, 1, Some(T + 90_000_000));
    f.task.reason = "exit code 3".into();
    f.events.extend([
        event(1000, EventKind::Assigned, 1, Some("s1")),
        event(2000, EventKind::Started, 1, Some("s1")),
        because(event(90_000_000, EventKind::Failed, 1, Some("s1")), Cause::Exit, "exit code 3"),
    ]);
    f.extra.cause = Cause::Exit;
    let story = explain(&f);
    assert_eq!(
        story.sentences[1],
        "attempt 1 ran on w1 from 10:00:02 for 25.0 h until it failed: exit code 3 (exit)"
    );
    assert_eq!(story.now, "it failed at 2026-11-25 at 11:00:00 UTC: exit code 3 (exit)");
    assert!(story.hint.unwrap().contains("outlast task logs --stderr t"));
    for (cause, says) in [
        (Cause::OutOfMemory, "memory"),
        (Cause::TimedOut, "timeout"),
        (Cause::Network, "workers were lost"),
        (Cause::NotStarted, "is there"),
    ] {
        f.extra.cause = cause;
        assert!(explain(&f).hint.unwrap().contains(says), "{cause:?}");
    }
    f.checkpoints = vec![checkpoint(1, 3, 10, 0)];
    assert!(explain(&f).hint.unwrap().contains("from checkpoint 1-3"));
}

#[test]
fn who_ended_by_itself_had_begun() {
    let mut f = facts(TaskState::Pending);
    for (epoch, cause, reason) in [(1, Cause::Exit, "exit code 4"), (2, Cause::Drained, "drained")]
    {
        let at = epoch as i64 * 10_000;
        f.events.push(event(at, EventKind::Assigned, epoch, Some("s1")));
        let requeued = event(at + 2000, EventKind::Requeued, epoch, Some("s1"));
        f.events.push(because(requeued, cause, reason));
    }
    let story = explain(&f);
    let begins = "attempt 1, given to w1 at 10:00:10, ran there until it failed: exit code 4";
    assert!(story.sentences[1].starts_with(begins), "{}", story.sentences[1]);
    assert!(story.sentences[2].contains("is not known to have started"), "{}", story.sentences[2]);
}

#[test]
fn attempts_without_a_recorded_end_are_named() {
    let mut f = facts(TaskState::Succeeded);
    f.events.extend([
        event(1000, EventKind::Assigned, 1, Some("s1")),
        event(2000, EventKind::Assigned, 1001, Some("s1")),
        event(3000, EventKind::Assigned, 2001, Some("s2")),
        because(event(9000, EventKind::Succeeded, 1001, Some("s1")), Cause::Done, "it came late"),
    ]);
    f.task.ended_at = Some(T + 9000);
    assert_eq!(
        explain(&f).sentences[1..],
        [
            "attempt 1 was at w1 since 10:00:01; what became of it is not known",
            "attempt 1001, given to w1 at 10:00:02, ran there and succeeded (it came late)",
        ]
    );
}

#[test]
fn many_remarks_are_counted() {
    let mut f = facts(TaskState::Cancelled);
    f.events.extend((0..20).map(|n| {
        because(event(n, EventKind::Noted, 1, None), Cause::Unspecified, "to be moved from w1")
    }));
    f.events.push(because(event(30, EventKind::Cancelled, 0, None), Cause::Cancelled, "cancelled"));
    let story = explain(&f);
    assert_eq!(story.sentences[1], "at 10:00:00 (attempt 1): to be moved from w1");
    assert_eq!(story.sentences.last().unwrap(), "8 more remarks are in its history");
    assert!(story.sentences.contains(&"at 10:00:00 it was cancelled: cancelled".to_owned()));
}
