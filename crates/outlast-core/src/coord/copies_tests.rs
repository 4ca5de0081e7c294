//! Two processes that use copies of one state folder: one of them is refused for good.

use super::tests::{Rig, assigned, hello, refused};
use super::*;
use crate::records::WorkerRow;
use crate::records::{CoordRecord, CoordSnapshot};
use outlast_model::message::*;
use outlast_model::spec::Rerun;
use outlast_model::*;

const COPY: Option<(RefusedCode, bool)> = Some((RefusedCode::Copy, false));
const STALE: Option<(RefusedCode, bool)> = Some((RefusedCode::Stale, true));
const WAIT: Option<(RefusedCode, bool)> = Some((RefusedCode::Busy, true));

impl Rig {
    /// A process of store `s` says hello.
    fn process(
        &mut self,
        conn: ConnId,
        nonce: u64,
        incarnation: u64,
        connection: u64,
    ) -> Vec<Output> {
        let (store_id, worker_id) = ("s".into(), "w".into());
        let capabilities_json = r#"{"hostname":"lab-7"}"#.into();
        let own = Hello { store_id, worker_id, incarnation, connection, nonce, ..hello() };
        self.greet(conn, Hello { capabilities_json, ..own })
    }
    fn answers(&mut self, conn: ConnId, out: &[Output]) {
        let seq = out.iter().find_map(|o| match o {
            Output::Send(to, ToWorker::Heartbeat(beat)) if *to == conn => Some(beat.seq),
            _ => None,
        });
        let reply = seq.expect("it is asked");
        self.c.hear(self.now(), conn, ToCoordinator::HeartbeatReply(reply), &());
    }
}

#[test]
fn a_copy_that_was_opened_as_often_is_refused_for_good() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    assert_eq!(refused(&r.process(2, 0xB, 2, 1)), COPY);
    assert_eq!(refused(&r.process(3, 0xB, 2, 9)), COPY, "however often it dials");
    // The one that was there is not disturbed, also when it dials again.
    assert!(r.c.workers()[0].conn == Some(1));
    assert_eq!(refused(&r.process(4, 0xA, 2, 2)), None);
    let seen = r.c.workers()[0].copied.clone().unwrap();
    assert_eq!((seen.times, seen.host.as_str(), r.c.counters().links.copies), (2, "lab-7", 2));
}

#[test]
fn a_copy_is_refused_also_after_the_coordinator_was_restarted() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    let row = r.batches.iter().flat_map(|b| &b.records).find_map(|record| match record {
        CoordRecord::WorkerSeen { worker, .. } => Some(WorkerRow::clone(worker)),
        _ => None,
    });
    let snapshot = CoordSnapshot {
        coordinator_id: "c".into(),
        workers: vec![(row.unwrap(), vec![])],
        ..Default::default()
    };
    let mut r = Rig::from(snapshot);
    assert_eq!(refused(&r.process(1, 0xB, 2, 9)), COPY);
    assert_eq!(refused(&r.process(2, 0xA, 2, 2)), None);
}

#[test]
fn a_restart_is_no_copy() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    assert_eq!(refused(&r.process(2, 0xB, 3, 1)), None);
    // The last words of the former process come late.
    assert_eq!(refused(&r.process(3, 0xA, 2, 2)), STALE);
    assert_eq!(r.c.counters().links.copies, 0);
}

#[test]
fn a_former_process_that_dials_after_it_was_refused_lives_on() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    assert_eq!(refused(&r.process(2, 0xB, 5, 1)), None, "it looks like a restart");
    assert_eq!(refused(&r.process(3, 0xA, 2, 2)), STALE);
    // The last words of another one come in between.
    assert_eq!(refused(&r.process(5, 0xC, 4, 9)), STALE);
    assert_eq!(refused(&r.process(4, 0xA, 2, 3)), COPY);
}

#[test]
fn a_newer_process_is_the_copy_where_the_former_one_answers() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    let out = r.process(2, 0xB, 5, 1);
    assert_eq!(refused(&out), WAIT);
    r.answers(1, &out);
    assert_eq!(refused(&r.process(3, 0xB, 5, 2)), COPY);
    assert_eq!(r.c.workers()[0].conn, Some(1));
}

#[test]
fn a_newer_process_is_let_in_where_the_former_one_is_silent() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    assert_eq!(refused(&r.process(2, 0xB, 3, 1)), WAIT);
    // It answers something older; that proves nothing.
    let reply = 0;
    r.c.hear(r.now(), 1, ToCoordinator::HeartbeatReply(reply), &());
    r.pass(1_000);
    assert_eq!(refused(&r.process(3, 0xB, 3, 2)), WAIT);
    r.pass(2_000);
    assert_eq!(refused(&r.process(4, 0xB, 3, 3)), None);
    assert_eq!(r.c.counters().links.copies, 0);
}

#[test]
fn what_must_not_run_twice_is_never_sent_to_a_copy() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.rerun = Rerun::Never);
    // Before, the copy would have taken the link over and been given what it did not hold.
    assert_eq!(refused(&r.process(2, 0xB, 2, 7)), COPY);
    let out = r.process(3, 0xA, 2, 2);
    assert_eq!(assigned(&out), []);
    let out = r.inventory(3, &[("t", 1, HoldingState::Running)]);
    assert_eq!(assigned(&out), []);
}

#[test]
fn a_worker_is_bound_to_its_key_until_that_is_revoked_or_an_operator_unbinds_it() {
    let mut r = Rig::new();
    let as_key = |r: &mut Rig, conn, name: &str, operator, store: &str, connection| {
        r.c.on_open(r.now(), conn);
        r.c.on_principal(conn, Principal { name: name.into(), operator });
        let (store_id, worker_id) = (store.into(), "w".into());
        let hello = Hello { store_id, worker_id, connection, ..hello() };
        r.c.hear(r.now(), conn, ToCoordinator::Hello(Box::new(hello)), &());
        r.drain(true)
    };
    let identity = Some((RefusedCode::Identity, false));
    assert_eq!(refused(&as_key(&mut r, 1, "fleet", false, "s", 1)), None);
    r.inventory(1, &[]);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    // Neither its store nor its name is another key's, also while it is away.
    assert_eq!(refused(&as_key(&mut r, 2, "thief", false, "s", 2)), identity);
    assert_eq!(refused(&as_key(&mut r, 3, "thief", false, "other", 1)), identity);
    assert_eq!(
        refused(&as_key(&mut r, 4, "fleet", false, "s", 3)),
        None,
        "a newer key of that name"
    );
    assert_eq!(refused(&as_key(&mut r, 5, "boss", true, "s", 4)), None);
    assert_eq!(&*r.c.workers()[0].row.principal, "fleet", "an operator's key takes nothing over");
    r.c.on_request(r.now(), 9, Request::Unbind("w".into()));
    r.drain(true);
    assert_eq!(refused(&as_key(&mut r, 6, "second", false, "s", 5)), None);
    assert_eq!(&*r.c.workers()[0].row.principal, "second");
}

#[test]
fn few_former_processes_are_remembered() {
    let mut r = Rig::new();
    r.process(1, 0x99, 9, 1);
    r.inventory(1, &[]);
    for n in 1..=5 {
        assert_eq!(refused(&r.process(10 + n, n, n, 1)), STALE);
    }
    assert_eq!(refused(&r.process(20, 5, 5, 2)), COPY, "it dials again");
    assert_eq!(refused(&r.process(21, 1, 1, 2)), STALE, "the first of five is forgotten");
}

#[test]
fn another_name_is_on_record_before_the_process_that_has_it_says_what_it_holds() {
    let mut r = Rig::new();
    r.process(1, 0xA, 2, 1);
    r.inventory(1, &[]);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    let (store_id, worker_id) = ("s".into(), "other".into());
    let own = Hello { store_id, worker_id, incarnation: 3, connection: 1, nonce: 0xB, ..hello() };
    r.greet(2, own);
    let seen = |r: &Rig| {
        let records = r.batches.iter().flat_map(|b| &b.records);
        let mut seen = records.filter_map(|record| match record {
            CoordRecord::WorkerSeen { worker, .. } => {
                Some((worker.name.to_string(), worker.incarnation))
            }
            _ => None,
        });
        seen.next_back().unwrap()
    };
    assert_eq!(seen(&r), ("other".into(), 2));
    r.inventory(2, &[]);
    assert_eq!(seen(&r), ("other".into(), 3));
}
