//! Reports about an attempt that was never assigned to the worker have no effect, in any lane.

use super::tests::{Records, Rig, assigned, stops};
use super::*;
use crate::Epoch;
use crate::records::{CoordRecord, TaskState};
use outlast_model::message::*;
use outlast_model::*;
use std::sync::Arc;

/// Worker `w` (store `s`) runs `t`; worker `thief` is connected too. And the thief's connection.
fn robbed(edit: impl FnOnce(&mut TaskSpec)) -> (Rig, ConnId) {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", edit);
    r.started(1, "t", 1);
    r.hello_as(2, "thief", "x", 1);
    r.inventory(2, &[]);
    (r, 2)
}

impl Rig {
    /// Sends one record of a lane; how the lane is acknowledged.
    fn tell(&mut self, conn: ConnId, lane: Lane, seq: u64, kind: OutboxItem) -> Option<u64> {
        let items = vec![kind];
        let seqs = if lane == Lane::State { vec![seq] } else { Vec::new() };
        let batch = OutboxBatch { lane, first_seq: seq, items, seqs, prev_seq: seq - 1 };
        let look = Records(&self.batches);
        self.c.hear(self.now(), conn, ToCoordinator::Outbox(batch), &look);
        self.drain(true).iter().find_map(|o| match o {
            Output::Send(_, ToWorker::Ack(ack)) => Some(ack[0].seq),
            _ => None,
        })
    }
    fn records(&self, what: impl Fn(&CoordRecord) -> bool) -> usize {
        self.batches.iter().flat_map(|b| &b.records).filter(|r| what(r)).count()
    }
}

fn outcome(epoch: Epoch) -> OutboxItem {
    OutboxItem::Outcome(Arc::new(TaskOutcome {
        task: "t".into(),
        epoch,
        kind: OutcomeKind::Succeeded,
        ..Default::default()
    }))
}

fn checkpoint(epoch: Epoch, number: u64, artifact: &str) -> OutboxItem {
    OutboxItem::Checkpoint(Arc::new(Checkpoint {
        task: "t".into(),
        epoch,
        number,
        manifest: vec![7; 32].into(),
        artifact: artifact.into(),
        ..Default::default()
    }))
}

fn state(epoch: Epoch, version: u64) -> OutboxItem {
    let state_json = b"{}".as_slice().into();
    OutboxItem::State(Arc::new(StateUpdate {
        task: "t".into(),
        epoch,
        version,
        state_json,
        ..Default::default()
    }))
}

#[test]
fn another_workers_attempt_cannot_be_spoken_for() {
    let (mut r, thief) = robbed(|_| {});
    // Each lane goes on, so that the worker's outbox drains.
    assert_eq!(r.tell(thief, Lane::Results, 1, outcome(1)), Some(1));
    assert_eq!(r.tell(thief, Lane::Checkpoints, 1, checkpoint(1, 9, "")), Some(1));
    assert_eq!(r.tell(thief, Lane::State, 1, state(1, 1_000_000)), Some(1));
    r.started(thief, "t", 1);
    let happened = Happened {
        attempt: AttemptId { task: "t".into(), epoch: 1 },
        note: "forged".into(),
        kind: HappenedKind::Note,
        at_ms: 0,
    };
    r.c.hear(r.now(), thief, ToCoordinator::Happened(happened), &());
    r.drain(true);
    assert_eq!(r.ended("t"), []);
    let effects = r.records(|r| {
        use CoordRecord as R;
        matches!(r, R::Checkpoint { .. } | R::State { .. } | R::Noted { .. } | R::Superseded { .. })
    });
    assert_eq!(effects, 0);
    let foreign = &r.c.counters().outbox.foreign;
    assert_eq!((foreign["outcome"], foreign["checkpoint"], foreign["state"]), (1, 1, 1));
    // Neither the next attempt nor the state is in the way of the one that has it.
    assert_eq!(r.tell(1, Lane::Checkpoints, 1, checkpoint(1, 1, "")), Some(1));
    assert_eq!(r.tell(1, Lane::State, 1, state(1, 1)), Some(1));
    assert_eq!(r.c.tasks["t"].reported.state_version, (1, 1));
    assert_eq!(r.c.tasks["t"].reported.checkpoints.len(), 1);
    assert_eq!(r.tell(1, Lane::Results, 1, outcome(1)), Some(1));
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
}

#[test]
fn a_future_attempt_cannot_be_spoken_for() {
    let (mut r, thief) = robbed(|_| {});
    for epoch in [0, 2, 1_000_000] {
        let seq = 1 + r.c.counters().outbox.foreign.get("outcome").copied().unwrap_or(0);
        assert_eq!(r.tell(thief, Lane::Results, seq, outcome(epoch)), Some(seq));
    }
    assert_eq!(r.ended("t"), []);
    assert_eq!(r.superseded(), 0, "it fills no disk either");
}

#[test]
fn an_attempt_that_waits_to_be_given_again_is_not_taken_by_who_never_had_it() {
    let (mut r, thief) = robbed(|s| {
        s.reconnect_window = 1.0;
        s.requires = [("worker".to_owned(), "w".to_owned())].into();
    });
    r.c.on_close(r.now(), thief, LinkCause::Closed, "gone");
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.pass(2_000);
    assert_eq!(r.c.tasks["t"].state(), TaskState::Pending);
    r.hello_as(3, "thief", "x", 2);
    let out = r.inventory(3, &[("t", 1, HoldingState::Running)]);
    assert_eq!(stops(&out), [(3, "t.1 STOP_SUPERSEDED".into())]);
    // Its rightful worker goes on with it.
    r.hello(4, "s", 2);
    let out = r.inventory(4, &[("t", 1, HoldingState::Running)]);
    assert_eq!((stops(&out), assigned(&out)), (vec![], vec![]));
    assert!(r.c.tasks["t"].is_current(r.c.fleet.by_store("s").unwrap(), 1));
}

#[test]
fn a_late_result_of_its_own_attempt_is_honoured_under_another_name() {
    let (mut r, thief) = robbed(|s| s.reconnect_window = 1.0);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    let out = r.pass(2_000);
    assert_eq!(assigned(&out), [(thief, "t.2".into())]);
    // The store is the identity: its worker was renamed meanwhile.
    r.hello_as(3, "renamed", "s", 2);
    r.inventory(3, &[("t", 1, HoldingState::Finished)]);
    r.tell(3, Lane::Results, 1, outcome(1));
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
}

#[test]
fn an_artifact_does_not_lead_out_of_its_folder() {
    let (mut r, _) = robbed(|_| {});
    for (n, name) in ["..", "a/../../b", "/etc/passwd", "a\nb", "a/b.png"].iter().enumerate() {
        let seq = n as u64 + 1;
        let done = r.tell(1, Lane::Checkpoints, seq, checkpoint(1, seq, name));
        assert_eq!(done, Some(seq));
    }
    assert_eq!(r.c.counters().outbox.foreign["artifact"], 4);
    assert_eq!(r.records(|r| matches!(r, CoordRecord::Checkpoint { .. })), 1);
}
