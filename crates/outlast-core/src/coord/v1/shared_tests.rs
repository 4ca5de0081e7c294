//! Several links of one worker, and answers that do not come.

use super::session::{AGAIN, PREFIX};
use super::tests::{Rig, attempts};
use crate::coord::tests::lookup::{Lookup, fact};
use crate::coord::{
    ConnId, CoordConfig, Coordinator, Given, LoadId, Output, PastAttempt, Query, Request,
};
use crate::records::{CoordRecord, CoordSnapshot, TaskState, WorkerRow};
use crate::{Epoch, Machine, Step};
use outlast_model::Bytes;
use outlast_model::{LinkCause, OutcomeKind, StateUpdate, TaskOutcome};
use outlast_wire::v1::{FromWorker, ToWorker};
use serde_json::{Map, json};

fn result(task: &str, value: &'static str) -> FromWorker {
    let result = Bytes::from_static(value.as_bytes());
    FromWorker::TaskResult { task_id: task.into(), attempt: None, result, error: None }
}

/// The links on which tasks were assigned.
fn assigned(said: &[(ConnId, ToWorker)]) -> Vec<ConnId> {
    let given = |m: &ToWorker| matches!(m, ToWorker::TaskAssignment { .. });
    said.iter().filter(|(_, m)| given(m)).map(|(conn, _)| *conn).collect()
}

fn submit(rig: &mut Rig, id: &str) -> Vec<ConnId> {
    assigned(&rig.submit_links(id, |_| {}))
}

#[test]
fn a_second_link_ends_nothing_and_work_goes_to_the_newest_that_lives() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.beat(1, &[]);
    rig.join(2);
    assert_eq!(submit(&mut rig, "a"), [2]);
    assert!(rig.closed.is_empty(), "{:?}", rig.closed);
    // An answer goes to the link that asked, whichever it is.
    rig.c.hear_v1(rig.at(), 1, result("a", "{}"), None, &());
    let said = rig.drain_links(true);
    assert!(matches!(said[..], [(1, ToWorker::ResultAck { .. })]), "{said:?}");
    // The newer one swallows: it is passed over before its time is up, and ends with it.
    rig.passes(11_000, &[1]);
    assert!(rig.closed.is_empty());
    assert_eq!(submit(&mut rig, "b"), [1]);
    rig.passes(6_000, &[1]);
    assert_eq!(rig.closed, [2]);
    let gone = |rig: &Rig| rig.records.iter().any(|r| matches!(r, CoordRecord::WorkerGone { .. }));
    assert!(!gone(&rig), "the session goes on");
    rig.c.on_close(rig.at(), 1, LinkCause::Closed, "cut");
    rig.drain(true);
    assert!(gone(&rig), "it ends with the last link");
}

#[test]
fn dialling_again_when_a_link_ends_comes_to_rest() {
    let mut rig = Rig::new();
    let mut open = vec![1];
    rig.join(1);
    // Nothing arrives for 20 s: the client opens another at 15 s, and the first ends here.
    rig.passes(15_000, &[]);
    let mut dials = 1;
    for second in 0..60 {
        let closed = std::mem::take(&mut rig.closed);
        open.retain(|conn| !closed.contains(conn));
        let again = closed.len() + usize::from(second == 0);
        for _ in 0..again {
            dials += 1;
            open.push(dials);
            rig.join(dials);
            rig.beat(dials, &[]);
        }
        rig.passes(1_000, &open.clone());
    }
    assert!(dials <= 3, "{dials} links were dialled");
    assert_eq!(submit(&mut rig, "a"), [dials]);
}

#[test]
fn of_too_many_links_the_silent_end_first_and_those_that_live_stay() {
    let mut rig = Rig::new();
    (1..=4).for_each(|conn| rig.join(conn));
    rig.passes(11_000, &[1, 4]);
    rig.join(5);
    assert_eq!(rig.closed, [2], "the oldest that is silent");
    rig.join(6);
    assert_eq!(rig.closed, [2, 3]);
    assert!(rig.c.admits_link_v1(rig.at(), "w"));
    (7..=66).for_each(|conn| rig.join(conn));
    assert_eq!(rig.closed, [2, 3], "none that lives");
    assert!(!rig.c.admits_link_v1(rig.at(), "w") && rig.c.admits_link_v1(rig.at(), "x"));
    rig.c.on_open_v1(rig.at(), 67, "w");
    let said = rig.register(67, &[]);
    assert!(said.iter().any(|m| matches!(m, ToWorker::Error { .. })), "{said:?}");
    assert_eq!(submit(&mut rig, "a"), [66]);
}

#[test]
fn what_a_link_asked_is_answered_on_another_if_it_ends() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    rig.join(2);
    rig.c.hear_v1(rig.at(), 1, result("a", "{}"), None, &());
    rig.drain(false);
    rig.c.on_close(rig.at(), 1, LinkCause::Closed, "cut");
    rig.c.on_persisted(u64::MAX / 2);
    let said = rig.drain_links(false);
    assert!(said.iter().any(|m| matches!(m, (2, ToWorker::ResultAck { .. }))), "{said:?}");
}

#[test]
fn an_assignment_on_a_link_that_dies_is_given_again_on_the_other() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.beat(1, &[]);
    rig.join(2);
    rig.beat(2, &[]);
    assert_eq!(submit(&mut rig, "a"), [2]);
    // Both live: a list that was made before it arrived says nothing.
    assert!(attempts(&rig.beat(1, &[])).is_empty());
    rig.now += 1_000;
    assert!(attempts(&rig.beat(1, &[])).is_empty());
    rig.c.on_close(rig.at(), 2, LinkCause::Closed, "cut");
    rig.beat(1, &[]);
    rig.now += 600;
    assert_eq!(attempts(&rig.beat(1, &[])), [1]);
}

#[test]
fn another_process_of_the_same_id_takes_over_from_one_that_is_silent() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    rig.beat(1, &["a"]);
    // Its machine is gone, and nobody said so; it was started again elsewhere.
    rig.passes(11_000, &[]);
    rig.join(2);
    rig.beat(2, &[]);
    rig.now += 3_100;
    let mut given = attempts(&rig.beat(2, &[]));
    let later: Vec<_> = rig.passes(6_000, &[2]).into_iter().map(|(_, m)| m).collect();
    given.extend(attempts(&later));
    assert_eq!(given, [2], "it begins again there");
    assert_eq!(rig.closed, [1]);
}

#[test]
fn two_live_processes_of_one_id_keep_what_they_have() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    rig.join(2);
    for _ in 0..12 {
        rig.now += 5_000;
        rig.beat(1, &["a"]);
        rig.now += 10;
        let said = rig.beat(2, &[]);
        assert!(attempts(&said).is_empty(), "{said:?}");
    }
    rig.c.hear_v1(rig.at(), 1, result("a", "{}"), None, &());
    rig.drain(true);
    assert_eq!(rig.outcomes(), [1]);
}

#[test]
fn an_answer_that_it_runs_is_no_result() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    for _ in 0..2 {
        // Acknowledged, it would be taken for the result's.
        assert_eq!(rig.hear(1, result("a", r#"{"status": "running"}"#)), []);
    }
    assert_eq!(rig.outcomes(), [] as [u64; 0]);
    assert!(submit(&mut rig, "b").is_empty(), "its slot is taken");
    // Its client holds it for done, and names it no more.
    for _ in 0..24 {
        rig.passes(5_000, &[1]);
        let said = rig.beat(1, &[]);
        assert!(matches!(&said[..], [ToWorker::Heartbeat { actions, .. }] if actions.is_empty()));
    }
    rig.hear(1, result("a", r#"{"n": 1}"#));
    assert_eq!(rig.outcomes(), [1]);
    // Nothing follows any more: then it is.
    let said = rig.hear(1, result("a", r#"{"status": "running"}"#));
    assert!(said.iter().any(|m| matches!(m, ToWorker::ResultAck { .. })), "{said:?}");
    assert_eq!(rig.outcomes(), [1]);
    assert_eq!(rig.notes().iter().filter(|n| n.contains("comes later")).count(), 1);
}

#[test]
fn what_was_accepted_ends_with_its_process() {
    for answers in [true, false] {
        let mut rig = Rig::new();
        rig.join(1);
        submit(&mut rig, "a");
        rig.hear(1, result("a", r#"{"status": "running"}"#));
        rig.c.on_close(rig.at(), 1, LinkCause::Closed, "killed");
        rig.join(2);
        let said = rig.beat(2, &[]);
        let asked = |m: &ToWorker| matches!(m, ToWorker::StateRequest { task_id: Some(_) });
        assert!(said.iter().any(asked), "{said:?}");
        if answers {
            // The same process: it knows.
            let state = Map::from_iter([("n".to_owned(), 1.into())]);
            rig.hear(2, FromWorker::TaskState { task_id: "a".into(), state });
            rig.passes(120_000, &[2]);
            rig.beat(2, &[]);
            assert!(!rig.records.iter().any(|r| matches!(r, CoordRecord::Requeued { .. })));
        } else {
            let error = "no such task".into();
            rig.hear(2, FromWorker::StateError { task_id: "a".into(), error });
            assert!(rig.records.iter().any(|r| matches!(r, CoordRecord::Requeued { .. })));
        }
    }
    // One that answers neither is waited for, and not for ever.
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    rig.hear(1, result("a", r#"{"status": "running"}"#));
    rig.c.on_close(rig.at(), 1, LinkCause::Closed, "killed");
    rig.join(2);
    rig.beat(2, &[]);
    for _ in 0..12 {
        assert!(!rig.records.iter().any(|r| matches!(r, CoordRecord::Requeued { .. })));
        rig.passes(5_000, &[2]);
        rig.beat(2, &[]);
    }
    assert!(rig.records.iter().any(|r| matches!(r, CoordRecord::Requeued { .. })));
}

#[test]
fn a_worker_may_say_that_its_results_are_what_they_look_like() {
    let mut rig = Rig::new();
    rig.c.on_open_v1(rig.at(), 1, "w");
    rig.register(1, &[("placeholders", false.into())]);
    submit(&mut rig, "a");
    rig.hear(1, result("a", r#"{"status": "running"}"#));
    assert_eq!(rig.outcomes(), [1]);
}

#[test]
fn a_task_that_runs_too_long_is_stopped_and_timed_out() {
    for answers in [true, false] {
        let mut rig = Rig::new();
        rig.join(1);
        rig.submit("a", |s| s.timeout = Some(20.0));
        rig.hear(1, result("a", r#"{"status": "running"}"#));
        let said = rig.passes(26_000, &[1]);
        let cancels = |m: &(ConnId, ToWorker)| matches!(m, (1, ToWorker::CancelTask { .. }));
        assert_eq!(said.iter().filter(|m| cancels(m)).count(), 1, "{said:?}");
        if answers {
            let what = outlast_wire::v1::Deed::Cancelled;
            rig.hear(1, FromWorker::Done { task_id: "a".into(), what });
        } else {
            rig.passes(16_000, &[1]);
        }
        let timed_out = rig.records.iter().any(|r| {
            matches!(r, CoordRecord::Ended { state: TaskState::Failed, outcome: Some(o), .. }
                if o.message.contains("longer than 20 s"))
        });
        assert!(timed_out, "{:?}", rig.records);
    }
}

#[test]
fn a_pause_without_an_answer_lapses() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    rig.beat(1, &["a"]);
    let pause = |on| Request::Pause("a".into(), on);
    rig.c.on_request(rig.at(), 2, pause(true));
    let said = rig.drain(true);
    assert!(said.iter().any(|m| matches!(m, ToWorker::PauseTask { .. })));
    let said = rig.passes(29_000, &[1]);
    assert!(!said.iter().any(|(_, m)| matches!(m, ToWorker::ResumeTask { .. })));
    let said = rig.passes(11_000, &[1]);
    assert!(said.iter().any(|(_, m)| matches!(m, ToWorker::ResumeTask { .. })), "{said:?}");
    let off = |r: &CoordRecord| matches!(r, CoordRecord::Paused { on: false, .. });
    assert_eq!(rig.records.iter().filter(|r| off(r)).count(), 1);
    assert!(rig.notes().last().unwrap().contains("withdrawn"));
    // An answer that comes after it is too late.
    let what = outlast_wire::v1::Deed::Paused;
    let said = rig.hear(1, FromWorker::Done { task_id: "a".into(), what });
    assert!(said.iter().any(|m| matches!(m, ToWorker::ResumeTask { .. })), "{said:?}");
    // With an answer it holds.
    rig.c.on_request(rig.at(), 3, pause(true));
    rig.hear(1, FromWorker::Done { task_id: "a".into(), what });
    rig.passes(120_000, &[1]);
    assert_eq!(rig.records.iter().filter(|r| off(r)).count(), 1);
}

#[test]
fn progress_may_be_a_percentage() {
    for (said, shown) in
        [(0.5, Some(0.5)), (1.0, Some(1.0)), (37.0, Some(0.37)), (100.0, Some(1.0)), (101.0, None)]
    {
        let mut rig = Rig::new();
        rig.join(1);
        submit(&mut rig, "a");
        let state = Map::from_iter([("progress".to_owned(), json!(said))]);
        rig.hear(1, FromWorker::TaskState { task_id: "a".into(), state });
        let update = rig.records.iter().find_map(|r| match r {
            CoordRecord::State { update } => Some(update.clone()),
            _ => None,
        });
        let update = update.expect("a state");
        assert_eq!(update.progress, shown, "{said}");
    }
}

#[test]
fn a_worker_chooses_its_acknowledgements() {
    let state = || FromWorker::TaskState { task_id: "a".into(), state: Map::new() };
    for (acks, wanted) in [
        (json!(true), [true, true]),
        (json!(false), [false, false]),
        (json!(["task_result_ack"]), [false, true]),
    ] {
        let mut rig = Rig::new();
        rig.c.on_open_v1(rig.at(), 1, "w");
        let said = rig.register(1, &[("acks", acks.clone())]);
        let registered = said.iter().any(|m| matches!(m, ToWorker::RegistrationAck { .. }));
        assert_eq!(registered, acks == true, "{said:?}");
        submit(&mut rig, "a");
        let heard = [rig.hear(1, state()), rig.hear(1, result("a", "{}"))];
        assert_eq!(heard.map(|said| said.iter().any(|m| m.ack().is_some())), wanted, "{acks}");
    }
}

#[test]
fn an_address_without_the_id_waits_for_the_worker_to_say_it() {
    let mut rig = Rig::new();
    rig.c.on_open_v1(rig.at(), 1, "");
    rig.c.on_name_v1(rig.at(), 1, "w");
    rig.c.on_name_v1(rig.at(), 1, "other");
    let said = rig.register(1, &[]);
    let acked =
        |m: &ToWorker| matches!(m, ToWorker::RegistrationAck { worker_id } if worker_id == "w");
    assert!(said.iter().any(acked), "{said:?}");
    rig.c.on_open_v1(rig.at(), 2, "");
    rig.c.on_name_v1(rig.at(), 2, "not/an id");
    rig.drain(true);
    assert_eq!(rig.closed, [2]);
}

/// A store in which attempt 1 of any task was this worker's and has no outcome, and that has a state.
struct Store;

impl Lookup for Store {
    fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
        vec![PastAttempt { epoch: 1, outcomes: Vec::new() }]
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::To(format!("{PREFIX}w").into())
    }
    fn state(&self, _: &str) -> Option<StateUpdate> {
        let state_json = br#"{"kept":1,"changed":1}"#.as_slice().into();
        Some(StateUpdate { epoch: 1, version: 3, state_json, ..Default::default() })
    }
}

#[test]
fn a_state_is_merged_with_what_the_store_has_from_before_a_restart() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    let worker = rig.records.iter().find_map(|record| match record {
        CoordRecord::WorkerSeen { worker, .. } => Some(WorkerRow::clone(worker)),
        _ => None,
    });
    let mut tasks = rig.c.snapshot().tasks;
    tasks[0].reported.state_version = (1, 3);
    let coordinator_id = "c".into();
    let workers = vec![(worker.unwrap(), vec![])];
    let snapshot = CoordSnapshot { coordinator_id, tasks, workers, ..Default::default() };
    rig.c = Coordinator::new(CoordConfig::default(), snapshot, rig.at());
    rig.join(2);
    rig.beat(2, &["a"]);
    let state: Map<_, _> = [("changed".to_owned(), json!(2))].into_iter().collect();
    let report = FromWorker::TaskState { task_id: "a".into(), state };
    rig.c.hear_v1(rig.at(), 2, report, None, &Store);
    rig.drain(true);
    let merged = rig.records.iter().find_map(|record| match record {
        CoordRecord::State { update } => Some((update.version, update.state_json.clone())),
        _ => None,
    });
    let (version, json) = merged.unwrap();
    let all: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((version, all), (4, json!({ "kept": 1, "changed": 2 })));
}

#[test]
fn an_abandoned_task_that_its_worker_lists_goes_on_there() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit_links("a", |s| s.reconnect_window = 10.0);
    rig.beat(1, &["a"]);
    rig.c.on_close(rig.at(), 1, LinkCause::Closed, "cut");
    rig.passes(12_000, &[]);
    assert_eq!(rig.c.task_counts(), (1, 1), "it was abandoned");
    rig.join(2);
    let said = rig.beat(2, &["a"]);
    let given = |m: &ToWorker| matches!(m, ToWorker::TaskAssignment { .. });
    assert!(!said.iter().any(given) && rig.c.task_counts() == (1, 0), "{said:?}");
    rig.hear(2, result("a", "{}"));
    assert_eq!(rig.outcomes(), [1]);
}

#[test]
fn another_end_of_an_attempt_counts_before_the_store_knows_of_the_attempt() {
    let mut rig = Rig::new();
    rig.join(1);
    submit(&mut rig, "a");
    for value in ["1", "2", "1"] {
        rig.c.hear_v1(rig.at(), 1, result("a", value), None, &());
    }
    rig.drain(true);
    assert_eq!(rig.outcomes(), [1, 1], "the second one is late, and the third was heard before");
    assert_eq!(rig.c.counters().outbox.repeated, 1);
}

/// The loads that the core asks for, with every batch durable at once.
fn loads(rig: &mut Rig) -> Vec<(LoadId, Vec<Query>)> {
    let mut loads = Vec::new();
    while let Some(output) = rig.c.poll() {
        match output {
            Step::Perform(Output::Load(load, queries)) => loads.push((load, queries)),
            Step::Persist(batch) => {
                rig.records.extend(batch.records);
                rig.c.on_persisted(batch.number);
            }
            _ => {}
        }
    }
    loads
}

#[test]
fn a_result_on_two_links_counts_once_though_both_were_looked_up_before_it_counted() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.join(2);
    let now = rig.at();
    for conn in [1, 2] {
        rig.c.on_v1(now, conn, result("a", "{}"), None);
    }
    let both = loads(&mut rig);
    assert_eq!(both.len(), 2);
    for (load, queries) in both {
        rig.c.on_loaded(now, load, queries.iter().map(|query| fact(&Store, query)).collect());
        assert!(loads(&mut rig).is_empty());
        rig.c.invariants().unwrap();
    }
    assert_eq!(rig.outcomes(), [1]);
    assert_eq!(rig.c.counters().outbox.repeated, 1);
}

#[test]
fn a_heartbeat_that_waits_long_for_the_store_is_answered() {
    let mut rig = Rig::new();
    rig.join(1);
    let now = rig.at();
    let beat = |n: u64, active: &[&str]| FromWorker::Heartbeat {
        sequence: n.into(),
        active_tasks: Some(active.iter().map(|t| (*t).to_owned()).collect()),
    };
    // The first heartbeat names a task that only the store may know; the next one waits behind it.
    rig.c.on_v1(now, 1, beat(7, &["foreign"]), None);
    rig.c.on_v1(now, 1, beat(8, &[]), None);
    let (mut open, mut answers) = (Vec::new(), Vec::new());
    let mut take = |rig: &mut Rig, open: &mut Vec<_>| {
        while let Some(step) = rig.c.poll() {
            match step {
                Step::Perform(Output::Load(load, queries)) => open.push((load, queries)),
                Step::Perform(Output::SendV1(_, ToWorker::Heartbeat { response_to, actions })) => {
                    answers.push((response_to.as_u64().unwrap(), actions.len()));
                }
                Step::Persist(batch) => rig.c.on_persisted(batch.number),
                Step::Perform(_) => {}
            }
        }
        std::mem::take(&mut answers)
    };
    assert_eq!(take(&mut rig, &mut open), [], "it has one answer, mostly");
    let later = crate::Now { mono: now.mono + 5_001, ..now };
    rig.c.on_tick(later);
    assert_eq!(take(&mut rig, &mut open), [(7, 0), (8, 0)]);
    for (load, queries) in std::mem::take(&mut open) {
        rig.c.on_loaded(later, load, queries.iter().map(|query| fact(&Store, query)).collect());
    }
    // The cancel follows; the other heartbeat asks for nothing, and has no second answer.
    assert_eq!(take(&mut rig, &mut open), [(7, 1)]);
    assert!(open.is_empty());
}

#[test]
fn what_is_cancelled_and_missing_is_not_given_out_again() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.beat(1, &[]);
    assert_eq!(submit(&mut rig, "a"), [1]);
    rig.c.on_request(rig.at(), 2, Request::Cancel("a".into()));
    rig.drain(true);
    let mut given = 0;
    for _ in 0..120 {
        rig.passes(1_000, &[1]);
        let said = rig.beat(1, &[]);
        let is = |m: &&ToWorker| matches!(m, ToWorker::TaskAssignment { .. });
        given += said.iter().filter(is).count();
    }
    let ended = rig.records.iter().any(
        |r| matches!(r, CoordRecord::Ended { state: TaskState::Cancelled, reason, .. } if reason == "cancelled"),
    );
    assert!(ended && given == 0, "ended: {ended}, given {given} times");
}

#[test]
fn an_assignment_that_is_never_heard_of_is_repeated_a_few_times() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.beat(1, &[]);
    let mut given = submit(&mut rig, "a").len();
    let over = |rig: &Rig| rig.records.iter().any(|r| matches!(r, CoordRecord::Requeued { .. }));
    for _ in 0..600 {
        if over(&rig) {
            break;
        }
        given += assigned(&rig.passes(1_000, &[1])).len();
        let said = rig.beat(1, &[]).into_iter().map(|message| (1, message)).collect::<Vec<_>>();
        given += if over(&rig) { 0 } else { assigned(&said).len() };
    }
    assert_eq!((given, over(&rig)), (AGAIN as usize, true));
}

#[test]
fn a_result_of_an_ended_attempt_sent_again_is_not_the_next_ones() {
    struct Twice;
    impl Lookup for Twice {
        fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
            let kind = OutcomeKind::Succeeded;
            let value_json = Bytes::from_static(b"{}");
            let first = TaskOutcome { kind, value_json, ..Default::default() };
            let open = PastAttempt { epoch: 2, outcomes: Vec::new() };
            vec![PastAttempt { epoch: 1, outcomes: vec![first.into()] }, open]
        }
    }
    let mut rig = Rig::new();
    rig.join(1);
    for (value, outcomes) in [("{}", &[][..]), ("7", &[2])] {
        rig.c.hear_v1(rig.at(), 1, result("a", value), None, &Twice);
        rig.drain(true);
        assert_eq!(rig.outcomes(), outcomes);
    }
    assert_eq!(rig.c.counters().outbox.repeated, 1);
}
