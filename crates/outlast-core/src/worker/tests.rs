use super::*;
use outlast_wire::Run;

fn at(mono: Millis) -> Now {
    Now { mono, wall: mono as i64 }
}

/// Drains the outputs; batches stay with the caller, who plays the disk.
fn drain(w: &mut Worker) -> (Vec<Output>, Vec<Batch<WorkerRecord>>) {
    let (mut out, mut batches) = (Vec::new(), Vec::new());
    while let Some(o) = w.poll_output() {
        match o {
            Output::Persist(b) => batches.push(b),
            o => out.push(o),
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
    let cursors = vec![v2::Cursor { lane: v2::Lane::Results.into(), seq: cursor }];
    let coordinator_id = "c".into();
    let m = v2::Welcome { protocol: 2, coordinator_id, cursors, credit: 100, ..Default::default() };
    w.on_message(at(now), Kind::Welcome(m));
}

fn assign(w: &mut Worker, ids: &[(&str, Epoch)]) {
    let spec = TaskSpec::new(Run::Shell("true".into()));
    let one = |(id, epoch): &(&str, Epoch)| v2::Assignment {
        task_id: (*id).into(),
        epoch: *epoch,
        spec_json: spec.to_json().into(),
        ..Default::default()
    };
    let tasks = ids.iter().map(one).collect();
    w.on_message(at(1), Kind::Assign(v2::Assign { tasks }));
}

fn done(task: &str, epoch: Epoch) -> v2::TaskOutcome {
    let kind = v2::OutcomeKind::OutcomeSucceeded.into();
    v2::TaskOutcome { task_id: task.into(), epoch, kind, ..Default::default() }
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
        Output::Send(Kind::Outbox(b)) => Some((b.first_seq, b.items.len())),
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
    let cursors = vec![v2::Cursor { lane: v2::Lane::Results.into(), seq: 2 }];
    w.drain(at(5_001));
    w.on_message(at(5_002), Kind::Ack(v2::Ack { cursors }));
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
    w.on_persisted(at(1), batches.last().unwrap().number);
    assert_eq!(outbox(&drain(&mut w).0), [(10, 1)]);
}
