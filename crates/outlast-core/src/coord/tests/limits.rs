//! Limits of the memory that one worker can make the coordinator use.

use super::*;
use outlast_model::message::*;
use outlast_model::*;

/// Finds the outcomes that were recorded, as the store would.
struct Recorded<'a>(&'a [Batch<CoordRecord>]);

impl Lookup for Recorded<'_> {
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        true
    }
    fn attempts(&self, task: &str, worker: &str) -> Vec<PastAttempt> {
        let of = |r: &CoordRecord| match r {
            CoordRecord::Superseded { task: of, worker: by, outcome, .. }
                if **of == *task && **by == *worker =>
            {
                Some(outcome.clone())
            }
            _ => None,
        };
        let outcomes = self.0.iter().flat_map(|b| &b.records).filter_map(of).collect();
        vec![PastAttempt { epoch: 1, outcomes }]
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::To("s".into())
    }
}

fn refused(out: &[Output]) -> Option<&Refused> {
    out.iter().find_map(|o| match o {
        Output::Send(_, ToWorker::Refused(refused)) => Some(refused),
        _ => None,
    })
}

fn hello(n: usize) -> Hello {
    Hello {
        protocol: PROTOCOL,
        worker_id: format!("w{n}"),
        store_id: format!("s{n}"),
        incarnation: 1,
        connection: 1,
        slots: 1,
        capabilities_json: "{}".into(),
        ..Default::default()
    }
}

impl Rig {
    fn say(&mut self, conn: ConnId, hello: Hello) -> Vec<Output> {
        self.c.on_open(self.now(), conn);
        self.c.hear(self.now(), conn, ToCoordinator::Hello(Box::new(hello)), &());
        self.drain(true)
    }
    fn known(&self) -> Vec<String> {
        self.c.workers().iter().map(|w| w.row.name.to_string()).collect()
    }
}

#[test]
fn outcomes_of_unknown_tasks_are_counted_and_not_kept() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    for _ in 0..3 {
        let out = r.outcome(1, "nobody-knows", 1, OutcomeKind::Succeeded);
        let acked = |o: &Output| matches!(o, Output::Send(1, ToWorker::Ack(_)));
        assert!(out.iter().any(acked), "the worker may forget it");
    }
    assert_eq!((r.c.counters().outbox.foreign["outcome"], r.superseded()), (3, 0));
}

#[test]
fn of_one_attempt_a_few_outcomes_are_kept() {
    let mut r = Rig::new();
    r.submit("t", |_| {});
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    // Abandoned, and assigned again: outcomes of the first attempt are late, and fail.
    r.outcome(1, "t", 1, OutcomeKind::Interrupted);
    for seq in 2..60 {
        let outcome = TaskOutcome {
            task: "t".into(),
            epoch: 1,
            kind: OutcomeKind::Failed,
            exit_code: Some(seq),
            finished_at_ms: seq.into(),
            ..Default::default()
        };
        let item = OutboxItem::Outcome(outcome.into());
        let batch = OutboxBatch {
            lane: Lane::Results,
            first_seq: seq as u64,
            items: vec![item],
            ..Default::default()
        };
        let batches = r.batches.clone();
        let look = Recorded(&batches);
        r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &look);
        r.drain(true);
    }
    assert_eq!(r.superseded(), 16);
    assert_eq!(r.c.counters().outbox.surplus, 58 - 16);
}

#[test]
fn a_hello_is_small() {
    let labels = |n: usize, len: usize| (0..n).map(|n| (n.to_string(), "x".repeat(len))).collect();
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let many = format!("{{\"a\":[{}1]}}", "[1],".repeat(15_000));
    let mut r = Rig::new();
    for (n, (edit, why)) in [
        (Hello { labels: labels(65, 1), ..hello(0) }, "64 labels"),
        (Hello { labels: labels(1, 2000), ..hello(0) }, "1024 bytes"),
        (Hello { capabilities_json: nested, ..hello(0) }, "levels"),
        (Hello { capabilities_json: many, ..hello(0) }, "bytes of memory"),
        (Hello { worker_id: "w".repeat(1 << 20), ..hello(0) }, "128"),
        (Hello { coordinator_id: "w".repeat(1 << 20), ..hello(0) }, "belongs"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = r.say(n as ConnId + 1, edit);
        let reason = &refused(&out).expect("it is too large").reason;
        assert!(reason.contains(why) && reason.len() < 500, "{reason}");
    }
    assert!(r.known().is_empty());
}

#[test]
fn who_is_gone_makes_room_for_others() {
    let mut r = Rig::new();
    r.c.config.max_workers = (3, 1 << 20);
    for n in 1..=3 {
        r.say(n as ConnId, hello(n));
        r.inventory(n as ConnId, &[]);
    }
    // All are there.
    let out = r.say(4, hello(4));
    let refusal = refused(&out).unwrap();
    assert!(refusal.retry && refusal.reason.contains("as many workers"), "{}", refusal.reason);
    // The first one delivered something, the second one is gone for longer than the third.
    r.submit("t", |_| {});
    r.outcome(1, "t", 1, OutcomeKind::Succeeded);
    for conn in [1, 2, 3] {
        r.now += 1_000;
        r.c.on_close(r.now(), conn, LinkCause::Closed, "");
    }
    for (n, left) in [(5, ["w1", "w3", "w5"]), (6, ["w1", "w5", "w6"])] {
        assert!(refused(&r.say(n as ConnId, hello(n))).is_none());
        assert_eq!(r.known(), left);
    }
    assert_eq!(r.c.counters().made_room, 2);
    // What they say of themselves counts too.
    r.c.config.max_workers = (100, 60 << 10);
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(60 << 10));
    assert!(refused(&r.say(7, Hello { capabilities_json: text, ..hello(7) })).is_none());
    assert!(refused(&r.say(8, hello(8))).is_some());
    assert_eq!(r.known(), ["w5", "w6", "w7"], "nobody else is gone");
}

#[test]
fn an_inventory_holds_what_matters() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    let part = |from: usize, state: HoldingState, last| {
        let one =
            |n| Holding { task: format!("t{n}").into(), epoch: 1, state, ..Default::default() };
        ToCoordinator::Inventory(Inventory {
            holdings: (from..from + 10_000).map(one).collect(),
            last,
        })
    };
    // What has ended is in the outbox, however much it is.
    for n in 0..20 {
        let part = part(n * 10_000, HoldingState::Finished, false);
        r.c.hear(r.now(), 1, part, &());
    }
    assert_eq!(r.c.conns[&1].handshake.inventory.as_ref().map(Vec::len), Some(0));
    for n in 0..7 {
        let part = part(n * 10_000, HoldingState::Running, false);
        r.c.hear(r.now(), 1, part, &());
    }
    let out = r.drain(true);
    assert!(refused(&out).unwrap().reason.contains("65536 attempts"));
}
