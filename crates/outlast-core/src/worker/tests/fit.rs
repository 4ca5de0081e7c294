//! Workers whose machine is at fault.

use super::*;
use crate::records::AttemptRow;

/// Creates a worker that is accepted by a coordinator which knows unfit workers.
fn knowing(slots: u32) -> Worker {
    let mut w = connected(slots);
    w.accepted(at(0), true);
    w
}

fn unsaved(out: &[Output]) -> Vec<String> {
    let mut found = Vec::new();
    for o in out {
        let Output::Send(ToCoordinator::Unsaved(u)) = o else { continue };
        let text = |o: &TaskOutcome| format!("{}.{} {:?}", o.task, o.epoch, o.kind);
        found.extend(u.iter().map(text));
    }
    found
}

fn beats(out: &[Output]) -> Vec<(bool, Vec<String>)> {
    let of = |o: &Output| match o {
        Output::Send(ToCoordinator::Heartbeat(b)) => {
            Some((b.draining, b.unfit.iter().map(Unfitness::says).collect()))
        }
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn full(w: &mut Worker, now: Millis) {
    w.set_unfit(at(now), Unfit::Store, Some("No space left on device".into()));
}

#[test]
fn a_worker_that_cannot_write_says_so_and_gives_back_what_has_not_started() {
    let mut w = knowing(1);
    assign(&mut w, &[("a", 1), ("b", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(2), batches.last().unwrap().number);
    let (out, _) = drain(&mut w);
    assert_eq!(runs(&out), ["a.1"]);
    // The disk fills: what waits goes back at once, also what comes now; what runs goes on.
    assign(&mut w, &[("c", 1)]);
    full(&mut w, 3);
    let (out, stuck) = drain(&mut w);
    assert_eq!(unsaved(&out), ["b.1 Returned", "c.1 Returned"]);
    let says = "cannot write its store: No space left on device".to_owned();
    assert_eq!(beats(&out), [(false, vec![says])]);
    assert!(outbox(&out).is_empty(), "nothing that is not durable is in the lane");
    assign(&mut w, &[("d", 1)]);
    let (out, more) = drain(&mut w);
    assert_eq!((unsaved(&out), runs(&out).len()), (vec!["d.1 Returned".into()], 0));
    // What ends now is offered too, once a connection.
    w.on_finished(at(4), done("a", 1));
    let (out, last) = drain(&mut w);
    assert_eq!(unsaved(&out), ["a.1 Succeeded"]);
    w.on_tick(at(5));
    assert!(unsaved(&drain(&mut w).0).is_empty());
    // What the coordinator keeps has a place in the lane and no content, once the disk works.
    let attempts = vec![AttemptId { task: "a".into(), epoch: 1 }];
    w.on_message(at(6), ToWorker::Saved(attempts));
    let newest = last.last().or(more.last()).or(stuck.last()).unwrap().number;
    w.on_persisted(at(7), newest);
    let (out, _) = drain(&mut w);
    assert_eq!(beats(&out), [(false, vec![])], "it is fit again, and says so at once");
    let sent = out.iter().find_map(|o| match o {
        Output::Send(ToCoordinator::Outbox(b)) => {
            Some(b.items.iter().map(|i| *i != OutboxItem::Nothing).collect())
        }
        _ => None,
    });
    assert_eq!(sent, Some(vec![true, true, true, false]));
    assign(&mut w, &[("e", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(8), batches.last().unwrap().number);
    assert_eq!(runs(&drain(&mut w).0), ["e.1"]);
}

#[test]
fn without_a_link_or_for_an_older_coordinator_it_waits_for_its_disk() {
    let mut w = connected(1);
    assign(&mut w, &[("a", 1)]);
    drain(&mut w);
    full(&mut w, 2);
    let (out, batches) = drain(&mut w);
    assert!(unsaved(&out).is_empty() && batches.is_empty());
    assert!(beats(&out)[0].0, "an older coordinator takes it for one that drains");
    w.on_disconnected(at(3), "cut");
    w.on_persisted(at(4), 99);
    assert_eq!(runs(&drain(&mut w).0), ["a.1"]);
}

#[test]
fn what_the_coordinator_did_not_take_is_offered_on_the_next_link() {
    let mut w = knowing(1);
    assign(&mut w, &[("a", 1)]);
    full(&mut w, 2);
    assert_eq!(unsaved(&drain(&mut w).0).len(), 1);
    w.on_disconnected(at(3), "cut");
    w.on_tick(at(10_000));
    w.on_connected(at(10_001));
    let (out, _) = drain(&mut w);
    let hello = out.iter().find_map(|o| match o {
        Output::Send(ToCoordinator::Hello(h)) => Some((h.unfit.len(), h.takes_settled)),
        _ => None,
    });
    assert_eq!(hello, Some((1, true)));
    let m = Welcome { protocol: 2, credit: 9, takes_unsaved: true, ..Default::default() };
    w.on_message(at(10_002), ToWorker::Welcome(m));
    assert_eq!(unsaved(&drain(&mut w).0), ["a.1 Returned"]);
}

#[test]
fn a_commit_that_does_not_return_is_noticed_and_a_sleep_is_not_taken_for_one() {
    let mut w = knowing(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    let says = |w: &Worker| w.unfit().first().map(Unfitness::says).unwrap_or_default();
    w.on_tick(at(10));
    w.on_tick(at(60_000));
    assert_eq!(says(&w), "", "the machine slept");
    // Part of every frame is a sign of life: only the disk hangs.
    w.on_heard(at(60_000));
    while w.next_wake().at < 75_000 {
        let now = w.next_wake().at;
        w.on_heard(at(now));
        w.on_tick(at(now));
    }
    assert!(says(&w).starts_with("cannot write its store: a write has not returned for 1"));
    assert_eq!(unsaved(&drain(&mut w).0), ["a.1 Returned"]);
    w.on_persisted(at(75_000), batches.last().unwrap().number);
    assert_eq!(says(&w), "");
}

#[test]
fn a_task_that_must_not_run_twice_waits_for_the_coordinator_after_a_restart() {
    let mut once = TaskSpec::new(Run::Shell("true".into()));
    once.rerun = outlast_model::spec::Rerun::Never;
    let row = |id: &str, spec: &TaskSpec| AttemptRow {
        task: id.into(),
        epoch: 1,
        spec: Arc::new(spec.clone()),
        started_at: None,
        survived: 1,
        made: 0,
        paused: false,
        after: 0,
        checkpoint: None,
        state: None,
    };
    let any = TaskSpec::new(Run::Shell("true".into()));
    let attempts = vec![row("once", &once), row("any", &any), row("other", &once)];
    let snapshot = || WorkerSnapshot {
        store_id: "s".into(),
        incarnation: 2,
        attempts: attempts.clone(),
        ..Default::default()
    };
    let config = WorkerConfig { slots: 3, ..Default::default() };
    let mut w = Worker::new(config.clone(), snapshot(), Vec::new(), 1, at(0));
    let (out, _) = drain(&mut w);
    assert_eq!(runs(&out), ["any.1"], "the process before may have given the others back");
    w.on_connected(at(1));
    let m = Welcome { protocol: 2, credit: 9, takes_unsaved: true, ..Default::default() };
    w.on_message(at(2), ToWorker::Welcome(m));
    let attempts = vec![AttemptId { task: "other".into(), epoch: 1 }];
    let reason = StopReason::Superseded;
    w.on_message(at(3), ToWorker::Stop(attempts, reason));
    let (out, _) = drain(&mut w);
    assert!(runs(&out).is_empty());
    w.on_message(at(4), ToWorker::Settled);
    w.on_persisted(at(5), 99);
    assert_eq!(runs(&drain(&mut w).0), ["once.1"]);
    // An older coordinator took nothing back that way.
    let mut w = Worker::new(config, snapshot(), Vec::new(), 1, at(0));
    welcome(&mut w, 1, 0);
    w.on_persisted(at(2), 99);
    assert_eq!(runs(&drain(&mut w).0).len(), 3);
}

#[test]
fn a_stop_need_not_wait_for_a_broken_disk_once_the_coordinator_has_everything() {
    let mut w = knowing(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(2), batches.last().unwrap().number);
    full(&mut w, 3);
    w.stop(at(4));
    w.on_finished(at(5), done("a", 1));
    let ends = |w: &mut Worker| drain(w).0.iter().any(|o| matches!(o, Output::Exit));
    assert!(!ends(&mut w));
    let attempts = vec![AttemptId { task: "a".into(), epoch: 1 }];
    w.on_message(at(6), ToWorker::Saved(attempts));
    assert!(ends(&mut w));
}

#[test]
fn a_failure_beside_a_failing_disk_is_a_loss() {
    let mut w = knowing(3);
    assign(&mut w, &[("a", 1), ("b", 1), ("c", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(2), batches.last().unwrap().number);
    drain(&mut w);
    let failed = |task: &str, cause: Cause| TaskOutcome {
        kind: OutcomeKind::Failed,
        cause,
        message: "exit code 1".into(),
        ..done(task, 1)
    };
    // The one ends before the fault is noticed, by the same fault.
    w.on_finished(at(3), failed("a", Cause::Exit));
    drain(&mut w);
    full(&mut w, 4);
    w.on_finished(at(5), failed("b", Cause::Exit));
    w.on_finished(at(6), failed("c", Cause::OutOfMemory));
    let (out, _) = drain(&mut w);
    let told = ["a.1 Interrupted", "b.1 Interrupted", "c.1 Failed"];
    assert_eq!(unsaved(&out), told);
    let why = out.iter().find_map(|o| match o {
        Output::Send(ToCoordinator::Unsaved(u)) => Some((u[0].cause, u[0].message.clone())),
        _ => None,
    });
    let text = "exit code 1, while its worker could not write its store: No space left on device";
    assert_eq!(why, Some((Cause::Machine, text.to_owned())));
}

#[test]
fn an_outcome_that_is_not_durable_names_no_checkpoint_that_a_crash_would_lose() {
    let mut w = knowing(1);
    assign(&mut w, &[("a", 1)]);
    let (_, batches) = drain(&mut w);
    w.on_persisted(at(2), batches.last().unwrap().number);
    let checkpoint = |w: &mut Worker, n: u64| {
        let manifest = n.to_string().into_bytes().into();
        w.on_checkpoint(at(3), n, &"a".into(), 1, manifest, 1, Vec::new(), "");
        drain(w).1.last().unwrap().number
    };
    let first = checkpoint(&mut w, 1);
    w.on_persisted(at(4), first);
    checkpoint(&mut w, 2);
    full(&mut w, 5);
    w.on_finished(at(6), TaskOutcome { started_at_ms: 2, ..done("a", 1) });
    let named = drain(&mut w).0.iter().find_map(|o| match o {
        Output::Send(ToCoordinator::Unsaved(u)) => u[0].checkpoint,
        _ => None,
    });
    assert_eq!(named, Some((1, 1)));
}
