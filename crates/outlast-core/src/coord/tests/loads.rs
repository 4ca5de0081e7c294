//! Messages and requests that wait for facts from the store.

use super::lookup::Lookup;
use super::*;
use crate::coord::loads::{Fact, Given, LoadId, PastAttempt, Query};
use crate::{Machine, Step};

/// The loads that the core asks for, and everything else that it puts out, with every batch durable at once.
fn outputs(r: &mut Rig) -> (Vec<(LoadId, Vec<Query>)>, Vec<Output>) {
    let (mut loads, mut rest) = (Vec::new(), Vec::new());
    while let Some(output) = r.c.poll() {
        match output {
            Step::Perform(Output::Load(load, queries)) => loads.push((load, queries)),
            Step::Persist(batch) => {
                let number = batch.number;
                r.batches.push(batch);
                r.c.on_persisted(number);
            }
            Step::Perform(other) => rest.push(other),
        }
        r.c.invariants().unwrap();
    }
    (loads, rest)
}

/// Worker `w` has failed attempt 1 of task `t`, which waits for another worker; and its link 1.
fn returned() -> Rig {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |s| s.requires = [("gpu".to_owned(), "*".to_owned())].into());
    r
}

pub(super) fn outcome(task: &str, epoch: Epoch) -> OutboxItem {
    let task = task.into();
    OutboxItem::Outcome(TaskOutcome { task, epoch, kind: OK, ..Default::default() }.into())
}

pub(super) fn outbox(first_seq: u64, items: Vec<OutboxItem>) -> ToCoordinator {
    ToCoordinator::Outbox(OutboxBatch {
        lane: Lane::Results,
        first_seq,
        items,
        ..Default::default()
    })
}

fn facts(look: &dyn Lookup, queries: &[Query]) -> Vec<Fact> {
    queries.iter().map(|query| lookup::fact(look, query)).collect()
}

fn acks(out: &[Output]) -> Vec<u64> {
    let ack = |o: &Output| match o {
        Output::Send(_, ToWorker::Ack(cursors)) => Some(cursors[0].seq),
        _ => None,
    };
    out.iter().filter_map(ack).collect()
}

#[test]
fn a_batch_goes_on_where_it_waited_and_later_messages_wait_behind_it() {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r.submit("t", |_| {});
    // The first item is about the current attempt, the second about a task that is not in memory.
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("t", 1), outcome("gone", 1)]));
    r.c.on_message(r.now(), 1, outbox(3, vec![OutboxItem::Nothing]));
    let (loads, out) = outputs(&mut r);
    assert_eq!(acks(&out), [1], "what needs nothing is applied and acknowledged");
    assert_eq!((r.ended("t").len(), loads.len(), r.c.waiting(1)), (1, 1, 2));
    // A sign of life is answered at once.
    let beat = Heartbeat { seq: 9, ..Default::default() };
    r.c.on_message(r.now(), 1, ToCoordinator::Heartbeat(beat));
    let (none, out) = outputs(&mut r);
    assert!(none.is_empty());
    assert!(out.iter().any(|o| matches!(o, Output::Send(1, ToWorker::HeartbeatReply(9)))));
    let (load, queries) = &loads[0];
    r.c.on_loaded(r.now(), *load, facts(&(), queries));
    let (none, out) = outputs(&mut r);
    assert_eq!((none.len(), r.c.waiting(1)), (0, 0));
    assert_eq!(acks(&out), [2, 3], "in the order of arrival");
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1);
}

#[test]
fn what_ends_while_a_load_is_open_stays_in_memory_until_the_load_is_answered() {
    let mut r = returned();
    r.hello_as(2, "x", "other", 1);
    r.inventory(2, &[]);
    r.submit("u", |s| s.requires = [("worker".to_owned(), "x".to_owned())].into());
    r.c.on_request(r.now(), 7, Request::Retry("v".into()));
    let (loads, _) = outputs(&mut r);
    let [(load, queries)] = &loads[..] else { panic!("{loads:?}") };
    r.c.on_message(r.now(), 2, outbox(1, vec![outcome("u", 1)]));
    outputs(&mut r);
    assert_eq!(r.ended("u").len(), 1);
    assert_eq!(r.c.task_counts().0, 2, "a load that was read before may not show the end");
    let row = TaskRow {
        state: TaskState::Failed,
        epoch: 1,
        ..TaskRow::submitted("v".into(), 9, Arc::new(TaskSpec::new(Run::Shell("x".into()))), 0)
    };
    r.c.on_loaded(r.now(), *load, facts(&row, queries));
    let (_, out) = outputs(&mut r);
    let done = Response::Done(TaskState::Pending);
    assert!(out.iter().any(|o| matches!(o, Output::Reply(7, answer) if *answer == done)));
    assert_eq!(
        r.c.task_counts().0,
        2,
        "the task that ended is forgotten, and the other one goes on"
    );
}

#[test]
fn a_request_that_waits_sees_what_was_decided_meanwhile() {
    let mut r = returned();
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let task = |chosen| Submission { id: "new".into(), spec: spec.clone(), chosen };
    let submit = |chosen| Request::Submit(vec![task(chosen)], Owner::default());
    r.c.on_request(r.now(), 1, submit(true));
    r.c.on_request(r.now(), 2, submit(true));
    let (loads, _) = outputs(&mut r);
    assert_eq!(loads.len(), 2);
    for (load, queries) in loads.iter().rev() {
        r.c.on_loaded(r.now(), *load, facts(&(), queries));
    }
    let (_, out) = outputs(&mut r);
    let created = out.iter().filter_map(|o| match o {
        Output::Reply(_, Response::Submitted(tasks)) => Some(tasks[0].created),
        _ => None,
    });
    assert_eq!(created.collect::<Vec<_>>(), [true, false], "the task is accepted once");
}

#[test]
fn a_link_ends_after_what_arrived_on_it() {
    let mut r = returned();
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("gone", 1)]));
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    let (loads, _) = outputs(&mut r);
    assert!(r.c.worker("w").unwrap().conn.is_some(), "its message is not handled yet");
    let (load, queries) = &loads[0];
    r.c.on_loaded(r.now(), *load, facts(&(), queries));
    outputs(&mut r);
    assert!(r.c.worker("w").unwrap().conn.is_none());
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1);
    // An answer for a link that is not there any more has no effect.
    r.c.on_loaded(r.now(), *load, facts(&(), queries));
    assert!(outputs(&mut r).0.is_empty());
}

#[test]
fn a_key_is_looked_up_before_another_takes_a_workers_name_over() {
    for (valid, accepted) in [(true, false), (false, true)] {
        struct Keys(bool);
        impl Lookup for Keys {
            fn key_is_valid(&self, _: &str) -> bool {
                self.0
            }
        }
        let mut r = Rig::new();
        r.c.on_open(r.now(), 1);
        r.c.on_principal(1, Principal { name: "first".into(), operator: false });
        let own =
            |n| Hello { worker_id: "w".into(), store_id: "s".into(), connection: n, ..hello() };
        r.c.on_message(r.now(), 1, ToCoordinator::Hello(Box::new(own(1))));
        assert!(outputs(&mut r).0.is_empty(), "a key that is its own needs no load");
        r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
        r.c.on_open(r.now(), 2);
        r.c.on_principal(2, Principal { name: "second".into(), operator: false });
        r.c.on_message(r.now(), 2, ToCoordinator::Hello(Box::new(own(2))));
        let (loads, _) = outputs(&mut r);
        assert_eq!(loads[0].1, [Query::Key("first".into())]);
        r.c.on_loaded(r.now(), loads[0].0, facts(&Keys(valid), &loads[0].1));
        let (_, out) = outputs(&mut r);
        let welcome = |o: &Output| matches!(o, Output::Send(2, ToWorker::Welcome(_)));
        assert_eq!(out.iter().any(welcome), accepted);
    }
}

/// A store with one task that has ended, and what it knows of a worker's attempts.
pub(super) struct Store {
    pub row: TaskRow,
    /// True if the task is of whoever asks.
    pub own: bool,
    pub attempts: Vec<PastAttempt>,
    /// The worker with store id `s` was given this one.
    pub given: Epoch,
}

impl Lookup for Store {
    fn task(&self, id: &str) -> Option<TaskRow> {
        self.row.task(id)
    }
    fn is_owned(&self, _: &str, _: &str) -> bool {
        self.own
    }
    fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
        self.attempts.clone()
    }
    fn given(&self, _: &str, epoch: Epoch) -> Given {
        Given::To(if epoch == self.given { "s" } else { "other" }.into())
    }
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        true
    }
}

fn spec() -> Arc<TaskSpec> {
    Arc::new(TaskSpec::new(Run::Shell("true".into())))
}

/// A store in which task `v` has failed with attempt 1, that worker `s` was given.
pub(super) fn failed() -> Store {
    let row = TaskRow {
        state: TaskState::Failed,
        epoch: 1,
        ..TaskRow::submitted("v".into(), 9, spec(), 0)
    };
    let attempts = vec![PastAttempt { epoch: 1, outcomes: Vec::new() }];
    Store { row, own: true, attempts, given: 1 }
}

pub(super) fn connected() -> Rig {
    let mut r = Rig::new();
    r.hello(1, "s", 1);
    r.inventory(1, &[]);
    r
}

fn answer(r: &mut Rig, look: &dyn Lookup, (load, queries): &(LoadId, Vec<Query>)) {
    let now = r.now();
    r.c.on_loaded(now, *load, facts(look, queries));
}

fn replies(out: &[Output]) -> Vec<(u64, &Response)> {
    let reply = |o| match o {
        &Output::Reply(id, ref response) => Some((id, response)),
        _ => None,
    };
    out.iter().filter_map(reply).collect()
}

fn submit_private(id: &str) -> Request {
    let task = Submission { id: id.into(), spec: spec(), chosen: true };
    Request::Submit(vec![task], Owner { name: Some("k".into()), private: true })
}

fn unsaved(outcomes: &[(&str, Epoch)]) -> ToCoordinator {
    let one = |(id, epoch): &(&str, Epoch)| TaskOutcome {
        task: (*id).into(),
        epoch: *epoch,
        kind: OK,
        ..Default::default()
    };
    ToCoordinator::Unsaved(outcomes.iter().map(one).collect())
}

fn saved(out: &[Output]) -> Vec<Vec<&str>> {
    let saved = |o| match o {
        &Output::Send(_, ToWorker::Saved(ref ids)) => {
            Some(ids.iter().map(|id| &*id.task).collect())
        }
        _ => None,
    };
    out.iter().filter_map(saved).collect()
}

#[test]
fn a_private_key_hears_only_of_tasks_that_are_its_own() {
    for own in [true, false] {
        let mut r = connected();
        r.c.on_request(r.now(), 7, submit_private("v"));
        let (loads, _) = outputs(&mut r);
        let [load] = &loads[..] else { panic!("{loads:?}") };
        answer(&mut r, &Store { own, ..failed() }, load);
        let (_, out) = outputs(&mut r);
        let known = Submitted { id: "v".into(), created: false, state: TaskState::Failed };
        let expected = match own {
            true => Response::Submitted(vec![known]),
            false => Response::Conflict(vec!["v".into()]),
        };
        assert_eq!(replies(&out), [(7, &expected)]);
    }
}

#[test]
fn a_removal_that_a_load_missed_is_known_until_the_load_is_answered() {
    let mut r = connected();
    r.c.on_request(r.now(), 1, submit_private("v"));
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("v", 1)]));
    r.c.on_request(r.now(), 2, Request::Remove(vec!["v".into()], 0));
    let (loads, _) = outputs(&mut r);
    let [submit, result, remove] = &loads[..] else { panic!("{loads:?}") };
    let old = Store { own: false, ..failed() };
    answer(&mut r, &old, remove);
    let (_, out) = outputs(&mut r);
    assert_eq!(replies(&out), [(2, &Response::Removed(1))]);
    answer(&mut r, &old, result);
    outputs(&mut r);
    assert_eq!((r.superseded(), r.c.counters().outbox.foreign["outcome"]), (0, 1));
    answer(&mut r, &old, submit);
    let (_, out) = outputs(&mut r);
    let fresh = Submitted { id: "v".into(), created: true, state: TaskState::Pending };
    assert_eq!(replies(&out), [(1, &Response::Submitted(vec![fresh]))]);
    let task = &r.c.tasks["v"];
    assert_eq!((task.after, task.epoch), (1, 2), "its attempts go on from the former ones");
}

#[test]
fn a_new_task_goes_on_from_a_former_one_that_was_removed_long_ago() {
    struct Removed;
    impl Lookup for Removed {
        fn former(&self, _: &str) -> Epoch {
            4
        }
    }
    let mut r = connected();
    r.c.ask_of(r.now(), 1, submit_private("v"), &Removed);
    outputs(&mut r);
    assert_eq!((r.c.tasks["v"].after, r.c.tasks["v"].epoch), (4, 5));
}

#[test]
fn outcomes_beside_their_lane_wait_in_order_and_each_counts_once() {
    let mut r = connected();
    let look = [failed().row, TaskRow { id: "u".into(), ..failed().row }];
    struct Two([TaskRow; 2]);
    impl Lookup for Two {
        fn task(&self, id: &str) -> Option<TaskRow> {
            self.0.task(id)
        }
        fn given(&self, _: &str, _: Epoch) -> Given {
            Given::To("s".into())
        }
    }
    let look = Two(look);
    r.c.on_message(r.now(), 1, unsaved(&[("v", 1), ("u", 1), ("v", 1)]));
    let (loads, out) = outputs(&mut r);
    assert_eq!(
        (loads.len(), saved(&out).len()),
        (1, 0),
        "nothing is acknowledged before it counts"
    );
    answer(&mut r, &look, &loads[0]);
    let (loads, out) = outputs(&mut r);
    assert_eq!((loads.len(), saved(&out)), (1, vec![vec!["v"]]));
    // The second load is newer than the first end, and the facts of the first one are not.
    answer(&mut r, &look, &loads[0]);
    let (loads, out) = outputs(&mut r);
    assert_eq!((loads.len(), saved(&out)), (0, vec![vec!["u", "v"]]));
    assert_eq!((r.superseded(), r.c.counters().outbox.repeated), (2, 1));
}

#[test]
fn a_long_batch_waits_once_and_only_the_workers_own_attempt_counts() {
    let mut r = connected();
    let gathered = TaskOutcome { finished_at_ms: 3, ..Default::default() };
    let stray = PastAttempt { epoch: 0, outcomes: vec![gathered.into()] };
    let attempts = [vec![stray], failed().attempts].concat();
    let look = Store { attempts, ..failed() };
    let items = vec![outcome("v", 1), outcome("v", 2), outcome("v", 0), outcome("gone", 1)];
    r.c.on_message(r.now(), 1, outbox(1, items));
    let (loads, _) = outputs(&mut r);
    answer(&mut r, &look, &loads[0]);
    let (more, out) = outputs(&mut r);
    assert_eq!((more.len(), acks(&out)), (0, vec![4]));
    assert_eq!((r.superseded(), r.c.counters().outbox.foreign["outcome"]), (2, 2));
}

#[test]
fn a_batch_that_waits_again_stays_before_later_messages() {
    let mut r = connected();
    r.submit("t", |_| {});
    // The facts for the last item are known only once the second one has ended the task.
    let items = vec![outcome("gone", 1), outcome("t", 1), outcome("t", 1)];
    r.c.on_message(r.now(), 1, outbox(1, items));
    r.c.on_message(r.now(), 1, outbox(4, vec![OutboxItem::Nothing]));
    let (loads, out) = outputs(&mut r);
    assert_eq!((loads.len(), acks(&out).len()), (1, 0), "nothing that waits is acknowledged");
    answer(&mut r, &(), &loads[0]);
    let (loads, out) = outputs(&mut r);
    assert_eq!((loads.len(), acks(&out)), (1, vec![2]));
    answer(&mut r, &failed(), &loads[0]);
    let (_, out) = outputs(&mut r);
    assert_eq!(acks(&out), [3, 4]);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
}

#[test]
fn the_facts_of_a_batch_are_as_old_as_its_first_load() {
    let mut r = connected();
    r.submit("t", |_| {});
    // The first load is of the first and of the last item; the third one needs another.
    let items = vec![outcome("gone", 1), outcome("t", 1), outcome("t", 1), outcome("v", 1)];
    r.c.on_message(r.now(), 1, outbox(1, items));
    let (first, _) = outputs(&mut r);
    // Meanwhile the last item's task is removed, durably.
    r.c.on_request(r.now(), 2, Request::Remove(vec!["v".into()], 0));
    let (removal, _) = outputs(&mut r);
    answer(&mut r, &failed(), &removal[0]);
    let (_, out) = outputs(&mut r);
    assert_eq!(replies(&out), [(2, &Response::Removed(1))]);
    answer(&mut r, &failed(), &first[0]);
    let (second, _) = outputs(&mut r);
    answer(&mut r, &failed(), &second[0]);
    let (_, out) = outputs(&mut r);
    assert_eq!((acks(&out), r.ended("t").len()), (vec![4], 1));
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1, "that of the removed task");
}

#[test]
fn a_slot_that_an_outcome_frees_after_its_wait_is_given_out() {
    let mut r = connected();
    for id in ["t", "u", "x"] {
        r.submit(id, |_| {});
    }
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("gone", 1), outcome("t", 1)]));
    let (loads, _) = outputs(&mut r);
    answer(&mut r, &(), &loads[0]);
    let (_, out) = outputs(&mut r);
    assert_eq!(assigned(&out), [(1, "x.1".into())]);
}

#[test]
fn what_a_heartbeat_tells_waits_behind_an_outcome_that_waits() {
    let mut r = connected();
    r.submit("t", |_| {});
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.hello(2, "s", 2);
    r.inventory(2, &[("t", 1, HoldingState::Finished)]);
    r.c.on_message(r.now(), 2, outbox(1, vec![outcome("gone", 1), outcome("t", 1)]));
    // The worker has nothing left to deliver: a finished attempt without an outcome would be lost.
    let beat = Heartbeat { seq: 1, unacked: 0, ..Default::default() };
    r.c.on_message(r.now(), 2, ToCoordinator::Heartbeat(beat));
    let (loads, _) = outputs(&mut r);
    answer(&mut r, &(), &loads[0]);
    outputs(&mut r);
    assert_eq!(r.ended("t"), [(TaskState::Succeeded, 1)]);
    assert_eq!(r.c.counters().attempts.requeued, 0);
}

#[test]
fn an_answer_to_a_heartbeat_proves_a_copy_while_messages_wait() {
    let own = |nonce, incarnation| Hello {
        worker_id: "w".into(),
        store_id: "s".into(),
        connection: 1,
        nonce,
        incarnation,
        ..hello()
    };
    let mut r = Rig::new();
    r.greet(1, own(0xA, 2));
    r.inventory(1, &[]);
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("gone", 1)]));
    let waits = outputs(&mut r).0;
    let newer = ToCoordinator::Hello(Box::new(own(0xB, 3)));
    r.c.on_open(r.now(), 2);
    r.c.on_message(r.now(), 2, newer.clone());
    let (_, out) = outputs(&mut r);
    let asked = out.iter().find_map(|o| match o {
        Output::Send(1, ToWorker::Heartbeat(beat)) => Some(beat.seq),
        _ => None,
    });
    r.c.on_message(r.now(), 1, ToCoordinator::HeartbeatReply(asked.unwrap()));
    r.c.on_open(r.now(), 3);
    r.c.on_message(r.now(), 3, newer);
    let (_, out) = outputs(&mut r);
    assert_eq!((waits.len(), refused(&out)), (1, Some((RefusedCode::Copy, false))));
}

#[test]
fn a_blob_is_kept_while_it_is_asked_for() {
    let mut r = connected();
    r.submit("t", |_| {});
    let manifest: Bytes = vec![7; 32].into();
    let checkpoint = Checkpoint {
        task: "t".into(),
        epoch: 1,
        number: 1,
        manifest: manifest.clone(),
        ..Default::default()
    };
    let items = vec![OutboxItem::Checkpoint(checkpoint.into())];
    let (lane, first_seq) = (Lane::Checkpoints, 1);
    let batch = OutboxBatch { lane, first_seq, items, ..Default::default() };
    r.c.on_message(r.now(), 1, ToCoordinator::Outbox(batch));
    let (loads, _) = outputs(&mut r);
    assert_eq!(r.c.unsynced_blobs().collect::<Vec<_>>(), [&manifest]);
    answer(&mut r, &failed(), &loads[0]);
    assert_eq!(r.c.unsynced_blobs().collect::<Vec<_>>(), [&manifest], "now it is referred to");
    outputs(&mut r);
    assert_eq!(r.c.unsynced_blobs().count(), 0);
}

#[test]
fn the_first_part_of_an_inventory_is_looked_up_with_the_last() {
    let mut r = connected();
    r.submit("t", |s| s.reconnect_window = 10.0);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    r.pass(11_000);
    r.hello(2, "s", 2);
    let holding =
        Holding { task: "t".into(), epoch: 1, state: RUNNING, started_at_ms: 1, paused: false };
    let first = Inventory { holdings: vec![holding], last: false };
    let last = Inventory { holdings: Vec::new(), last: true };
    r.c.on_message(r.now(), 2, ToCoordinator::Inventory(first));
    r.c.on_message(r.now(), 2, ToCoordinator::Inventory(last));
    let (loads, _) = outputs(&mut r);
    answer(&mut r, &failed(), &loads[0]);
    let (_, out) = outputs(&mut r);
    assert!(stops(&out).is_empty() && r.c.tasks["t"].is_current(0, 1), "it goes on where it is");
}

#[test]
fn a_task_that_leaves_memory_is_looked_up_with_what_was_decided_since_its_end() {
    let mut r = connected();
    r.submit("v", |_| {});
    let durable = r.batches.last().unwrap().number;
    let failed_outcome = TaskOutcome {
        task: "v".into(),
        epoch: 1,
        kind: OutcomeKind::Failed,
        started_at_ms: 1,
        ..Default::default()
    };
    let items = vec![OutboxItem::Outcome(failed_outcome.into())];
    r.c.on_message(r.now(), 1, outbox(1, items));
    r.drain(false);
    assert_eq!(r.c.tasks["v"].ended_with(), Some(durable + 1));
    let checkpoint = Checkpoint {
        task: "v".into(),
        epoch: 1,
        number: 1,
        manifest: vec![7; 32].into(),
        ..Default::default()
    };
    let items = vec![OutboxItem::Checkpoint(checkpoint.into())];
    let (lane, first_seq) = (Lane::Checkpoints, 1);
    let batch = OutboxBatch { lane, first_seq, items, ..Default::default() };
    r.c.hear(r.now(), 1, ToCoordinator::Outbox(batch), &failed());
    r.drain(false);
    r.c.on_persisted(durable + 1);
    assert_eq!(r.c.task_counts().0, 0, "its end is durable, and its checkpoint is not");
    r.c.ask_of(r.now(), 1, Request::Retry("v".into()), &failed());
    assert_eq!(r.c.tasks["v"].reported.checkpoints.len(), 1);
}

#[test]
fn a_late_outcome_takes_no_task_out_of_memory_whose_end_is_not_durable() {
    let mut r = connected();
    r.submit("v", |_| {});
    r.c.on_message(r.now(), 1, outbox(1, vec![outcome("v", 1)]));
    r.drain(false);
    let late = TaskOutcome { task: "v".into(), epoch: 1, finished_at_ms: 9, ..Default::default() };
    let late = outbox(2, vec![OutboxItem::Outcome(late.into())]);
    r.c.hear(r.now(), 1, late, &failed());
    r.drain(false);
    assert_eq!((r.superseded(), r.c.task_counts().0), (1, 1));
}

#[test]
fn a_handshake_that_waits_for_the_store_is_not_late() {
    let mut r = Rig::new();
    let own = |n| Hello { worker_id: "w".into(), store_id: "s".into(), connection: n, ..hello() };
    let dial = |r: &mut Rig, conn, key: &str| {
        r.c.on_open(r.now(), conn);
        r.c.on_principal(conn, Principal { name: key.into(), operator: false });
        r.c.on_message(r.now(), conn, ToCoordinator::Hello(Box::new(own(conn))));
    };
    dial(&mut r, 1, "first");
    outputs(&mut r);
    r.c.on_close(r.now(), 1, LinkCause::Closed, "gone");
    dial(&mut r, 2, "second");
    let (loads, _) = outputs(&mut r);
    let mut said = Vec::new();
    for _ in 0..40 {
        r.now += 1_000;
        r.c.on_heard(r.now(), 2);
        r.c.on_tick(r.now());
        said.extend(outputs(&mut r).1);
    }
    assert!(!said.iter().any(|o| matches!(o, Output::Close(2, _))), "the delay is not its own");
    r.c.on_loaded(r.now(), loads[0].0, vec![Fact::Is(false)]);
    r.now += 10_000;
    r.c.on_heard(r.now(), 2);
    r.c.on_tick(r.now());
    let said = outputs(&mut r).1;
    assert!(said.iter().any(|o| matches!(o, Output::Send(2, ToWorker::Welcome(_)))));
    assert!(!said.iter().any(|o| matches!(o, Output::Close(2, _))), "its time begins now");
}

#[test]
fn ended_tasks_that_stay_for_a_load_leave_room_for_others() {
    let mut r = returned();
    r.c.config.max_unfinished = 2;
    r.c.on_request(r.now(), 7, Request::Retry("old".into()));
    let (loads, _) = outputs(&mut r);
    r.c.on_request(r.now(), 8, Request::Cancel("t".into()));
    for (n, answer) in [(1, true), (2, true), (3, false)] {
        let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
        let id: TaskId = format!("n{n}").into();
        let task = Submission { id, spec, chosen: false };
        r.c.on_request(r.now(), 10 + n, Request::Submit(vec![task], Owner::default()));
        let (_, out) = outputs(&mut r);
        let accepted = |o: &Output| matches!(o, Output::Reply(_, Response::Submitted(_)));
        assert_eq!(out.iter().any(accepted), answer, "{n}");
    }
    r.c.on_loaded(r.now(), loads[0].0, vec![Fact::Task(None)]);
    outputs(&mut r);
}

#[test]
fn a_task_that_is_not_durable_yet_belongs_to_who_submitted_it() {
    let mut r = Rig::new();
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let submit = |key: &str| {
        let task = Submission { id: "t".into(), spec: spec.clone(), chosen: true };
        Request::Submit(vec![task], Owner { name: Some(key.into()), private: true })
    };
    for (n, key) in [(1, "first"), (2, "second"), (3, "first")] {
        r.c.on_request(r.now(), n, submit(key));
        // The store shows none of them yet.
        r.c.answer(r.now(), &());
    }
    let (_, out) = outputs(&mut r);
    let replies = out.iter().filter_map(|o| match o {
        Output::Reply(n, Response::Submitted(tasks)) => Some((*n, tasks[0].created)),
        _ => None,
    });
    assert_eq!(replies.collect::<Vec<_>>(), [(1, true), (3, false)]);
    let taken = |o: &Output| matches!(o, Output::Reply(2, Response::Conflict(_)));
    assert!(out.iter().any(taken), "a key that sees only its own tasks learns nothing of it");
}

#[test]
fn a_new_task_of_a_removed_ones_id_is_not_removed_while_a_load_is_open() {
    let mut r = connected();
    // This load is not answered: a fact that it finds may be older than all that follows.
    r.c.on_request(r.now(), 7, Request::Retry("other".into()));
    outputs(&mut r);
    r.c.on_request(r.now(), 2, Request::Remove(vec!["v".into()], 0));
    let (removal, _) = outputs(&mut r);
    answer(&mut r, &failed(), &removal[0]);
    let (_, out) = outputs(&mut r);
    assert_eq!(replies(&out), [(2, &Response::Removed(1))]);
    let spec = Arc::new(TaskSpec::new(Run::Shell("true".into())));
    let task = Submission { id: "v".into(), spec, chosen: false };
    r.c.on_request(r.now(), 1, Request::Submit(vec![task], Owner::default()));
    assert_eq!(assigned(&outputs(&mut r).1), [(1, "v.2".into())]);
    // Once it has ended, what is said of its attempt is looked up, and of the former task's not.
    let items = vec![outcome("v", 2), outcome("v", 1), outcome("v", 2)];
    r.c.on_message(r.now(), 1, outbox(1, items));
    let (loads, _) = outputs(&mut r);
    assert_eq!((r.ended("v").len(), loads.len()), (1, 1));
    assert!(loads[0].1.contains(&Query::Given("v".into(), 2)), "{loads:?}");
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1);
    r.c.on_loaded(r.now(), loads[0].0, facts(&Gave, &loads[0].1));
    let (_, out) = outputs(&mut r);
    assert_eq!(acks(&out), [3]);
    assert_eq!(r.c.counters().outbox.foreign["outcome"], 1, "it is the worker's own");
}

/// A store in which every attempt was given to store `s`.
struct Gave;

impl Lookup for Gave {
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::To("s".into())
    }
}
