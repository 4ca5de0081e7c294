//! The last checkpoint named in an outcome decides where the next attempt goes.

use super::super::awaited::{WAIT_LINKED, WAIT_UNLINKED};
use super::*;
use outlast_model::message::*;
use outlast_model::*;

impl Rig {
    fn connect(&mut self, conn: ConnId, name: &str) -> Vec<Output> {
        self.c.on_open(self.now(), conn);
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: name.into(),
            store_id: format!("store-{name}"),
            incarnation: 1,
            connection: conn,
            slots: 1,
            capabilities_json: "{}".into(),
            ..Default::default()
        };
        self.c.hear(self.now(), conn, ToCoordinator::Hello(Box::new(hello)), &());
        self.inventory(conn, &[])
    }
    /// The attempt is interrupted, and names its checkpoint `number`.
    fn interrupted(&mut self, conn: ConnId, epoch: Epoch, seq: u64, number: u64) -> Vec<Output> {
        let outcome = TaskOutcome {
            task: "t".into(),
            epoch,
            kind: OutcomeKind::Interrupted,
            cause: Cause::Stopped,
            started_at_ms: 1,
            checkpoint: (number > 0).then_some((epoch, number)),
            ..Default::default()
        };
        self.item(conn, Lane::Results, seq, OutboxItem::Outcome(outcome.into()))
    }
    fn checkpoint(
        &mut self,
        conn: ConnId,
        epoch: Epoch,
        number: u64,
        dropped: bool,
    ) -> Vec<Output> {
        let checkpoint = Checkpoint {
            task: "t".into(),
            epoch,
            number,
            dropped,
            manifest: vec![number as u8].into(),
            ..Default::default()
        };
        let item = OutboxItem::Checkpoint(checkpoint.into());
        self.item(conn, Lane::Checkpoints, number, item)
    }
    fn item(&mut self, conn: ConnId, lane: Lane, first_seq: u64, item: OutboxItem) -> Vec<Output> {
        let items = vec![item];
        let batch = OutboxBatch { lane, first_seq, items, ..Default::default() };
        let (now, batches) = (self.now(), std::mem::take(&mut self.batches));
        self.c.hear(now, conn, ToCoordinator::Outbox(batch), &Records(&batches));
        self.batches = batches;
        self.drain(true)
    }
    /// Time passes; these links stay up by heartbeats.
    fn alive(&mut self, ms: Millis, conns: &[ConnId]) -> Vec<Output> {
        let mut out = Vec::new();
        for seq in 0..ms.div_ceil(5_000) {
            out.extend(self.pass(5_000));
            for conn in conns {
                let beat = Heartbeat { seq, ..Default::default() };
                self.c.hear(self.now(), *conn, ToCoordinator::Heartbeat(beat), &());
            }
            out.extend(self.drain(true));
        }
        out
    }
    fn noted(&self) -> Option<String> {
        let records = self.batches.iter().flat_map(|b| &b.records);
        let note = |r: &CoordRecord| match r {
            CoordRecord::Noted { note, .. } if note.contains("out of reach") => Some(note.clone()),
            _ => None,
        };
        records.filter_map(note).next_back()
    }
    /// Worker a loses an attempt whose checkpoint 1 has arrived and whose 2 has not, and takes no
    /// new work; b has room.
    fn left_behind() -> Rig {
        let mut r = Rig::new();
        r.connect(1, "a");
        r.submit("t", |s| s.max_retries = 9);
        r.checkpoint(1, 1, 1, false);
        r.c.drain_worker(r.now(), "a", true);
        r.interrupted(1, 1, 1, 2);
        r.connect(2, "b");
        r
    }
}

/// Checkpoints that assignments name, by the attempt's epoch.
fn from(out: &[Output]) -> Vec<(ConnId, Epoch, Option<u64>)> {
    let tasks = |o: &Output| match o {
        Output::Send(conn, ToWorker::Assign(a)) => {
            let of_t = a.iter().filter(|t| *t.task == *"t");
            let one = |t: &Assignment| (*conn, t.epoch, t.checkpoint.as_ref().map(|c| c.number));
            of_t.map(one).collect()
        }
        _ => Vec::new(),
    };
    out.iter().flat_map(tasks).collect()
}

#[test]
fn another_worker_waits_until_the_last_checkpoint_has_arrived() {
    let mut r = Rig::left_behind();
    let out = r.alive(20_000, &[1, 2]);
    assert_eq!(from(&out), [], "given out before its checkpoint arrived");
    let why = r.c.explain(&"t".into()).unwrap();
    assert!(why.contains("checkpoint 1-2") && why.contains("worker a"), "{why}");
    let out = r.checkpoint(1, 1, 2, false);
    assert_eq!(from(&out), [(2, 2, Some(2))]);
    assert_eq!(r.noted(), None);
}

#[test]
fn the_worker_that_has_the_checkpoint_may_go_on_at_once() {
    let mut r = Rig::new();
    r.connect(1, "a");
    r.connect(2, "b");
    r.submit("t", |s| s.max_retries = 9);
    // Both have room; only worker a has the checkpoint on its own disk.
    let mut out = r.interrupted(1, 1, 1, 2);
    out.extend(r.pass(10_000));
    assert_eq!(from(&out), [(1, 2, None)]);
}

#[test]
fn a_worker_that_stays_away_is_waited_for_only_so_long() {
    let mut r = Rig::left_behind();
    r.c.on_close(r.now(), 1, LinkCause::Closed, "cut");
    r.drain(true);
    assert_eq!(from(&r.alive(WAIT_UNLINKED - 5_000, &[2])), []);
    let out = r.alive(10_000, &[2]);
    assert_eq!(from(&out), [(2, 2, Some(1))]);
    let note = r.noted().expect("a note says what was out of reach");
    assert!(note.contains("checkpoint 1-2 of worker a") && note.contains("1-1"), "{note}");
}

#[test]
fn a_checkpoint_that_never_comes_is_waited_for_only_so_long() {
    let mut r = Rig::left_behind();
    let out = r.alive(WAIT_LINKED + 10_000, &[1, 2]);
    assert_eq!(from(&out), [(2, 2, Some(1))]);
    assert!(r.noted().is_some_and(|n| n.contains("did not arrive in time")));
}

#[test]
fn a_dropped_checkpoint_is_not_waited_for() {
    let mut r = Rig::left_behind();
    let out = r.checkpoint(1, 1, 2, true);
    assert_eq!(from(&out), [(2, 2, Some(1))]);
    assert!(r.noted().is_some_and(|n| n.contains("dropped")));
}

#[test]
fn a_coordinator_that_restarts_still_waits() {
    let r = Rig::left_behind();
    let asked = r.batches.iter().flat_map(|b| &b.records).rev().find_map(|record| match record {
        CoordRecord::Asked { asked, .. } => Some(asked.clone()),
        _ => None,
    });
    let awaited = asked.and_then(|a| a.awaited).expect("it is on record");
    assert_eq!((awaited.place(), &*awaited.worker), ((1, 2), "store-a"));
}

#[test]
fn a_checkpoint_that_has_arrived_is_not_waited_for() {
    let mut r = Rig::new();
    r.connect(1, "w");
    r.submit("t", |_| {});
    r.checkpoint(1, 1, 1, false);
    r.interrupted(1, 1, 1, 1);
    let task = r.c.snapshot().tasks[0].clone();
    assert_eq!((task.asked.awaited, r.c.explain_awaited(&"t".into())), (None, None));
}

#[test]
fn a_newer_checkpoint_will_do_and_the_drop_of_a_newer_one_ends_no_wait() {
    let awaited = |r: &Rig| r.c.snapshot().tasks[0].asked.awaited.is_some();
    for dropped in [false, true] {
        let mut r = Rig::new();
        r.connect(1, "w");
        r.submit("t", |_| {});
        r.interrupted(1, 1, 1, 1);
        assert!(awaited(&r));
        r.checkpoint(1, 1, 2, dropped);
        assert_eq!(awaited(&r), dropped);
    }
}

#[test]
fn a_move_does_not_end_while_its_checkpoint_is_on_its_way() {
    let mut r = Rig::new();
    r.connect(1, "w");
    r.submit("t", |_| {});
    r.c.on_request(r.now(), 9, Request::Move("t".into(), None));
    r.interrupted(1, 1, 1, 1);
    let mut out = r.connect(2, "x");
    for _ in 0..40 {
        r.now += 1_000;
        r.c.on_heard(r.now(), 1);
        r.c.on_heard(r.now(), 2);
        r.c.on_tick(r.now());
        out.extend(r.drain(true));
    }
    assert_eq!(assigned(&out), []);
    assert_eq!(assigned(&r.checkpoint(1, 1, 1, false)), [(2, "t.2".into())]);
}
