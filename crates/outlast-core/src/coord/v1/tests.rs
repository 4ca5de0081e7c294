use super::session::*;
use crate::coord::tests::lookup::Lookup;
use crate::coord::{
    ConnId, CoordConfig, Coordinator, Given, Output, Owner, PastAttempt, Request, Submission,
};
use crate::records::{CoordRecord, CoordSnapshot, TaskState};
use crate::{Epoch, Machine, Millis, Now, Step};
use outlast_model::Checkpoint;
use outlast_model::TaskOutcome;
use outlast_model::spec::{Call, Rerun, Run as What};
use outlast_model::{Bytes, TaskSpec};
use outlast_wire::v1::{Deed, FromWorker, TaskError, ToWorker};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A coordinator whose records are its store.
pub(super) struct Rig {
    pub c: Coordinator,
    pub now: Millis,
    pub records: Vec<CoordRecord>,
    /// On which link each was said.
    said: Vec<(ConnId, ToWorker)>,
    /// Links that were closed.
    pub closed: Vec<ConnId>,
    /// Destination of a checkpoint's data; empty if it cannot be stored.
    blob: &'static [u8],
}

struct Look<'a>(&'a [CoordRecord]);

impl Lookup for Look<'_> {
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        true
    }
    fn attempts(&self, id: &str, worker: &str) -> Vec<PastAttempt> {
        let mut found: BTreeMap<Epoch, Vec<Arc<TaskOutcome>>> = BTreeMap::new();
        for record in self.0 {
            match record {
                CoordRecord::Assigned { task, epoch, worker: of, .. }
                    if **task == *id && **of == *worker =>
                {
                    found.entry(*epoch).or_default();
                }
                CoordRecord::Requeued { task, epoch, outcome: Some(o), .. }
                | CoordRecord::Ended { task, epoch, outcome: Some(o), .. }
                | CoordRecord::Superseded { task, epoch, outcome: o, .. }
                    if **task == *id =>
                {
                    found.entry(*epoch).or_default().push(o.clone());
                }
                _ => {}
            }
        }
        found.into_iter().map(|(epoch, outcomes)| PastAttempt { epoch, outcomes }).collect()
    }
    fn given(&self, id: &str, of: Epoch) -> Given {
        let given = self.0.iter().rev().find_map(|record| match record {
            CoordRecord::Assigned { task, epoch, worker, .. } if **task == *id && *epoch == of => {
                Some(worker.clone())
            }
            _ => None,
        });
        given.map_or(Given::Never, Given::To)
    }
    fn checkpoints(&self, id: &str) -> Vec<Arc<Checkpoint>> {
        let of = |r: &CoordRecord| match r {
            CoordRecord::Checkpoint { checkpoint, .. } if *checkpoint.task == *id => {
                Some(checkpoint.clone())
            }
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }
}

impl Rig {
    pub fn new() -> Rig {
        let snapshot = CoordSnapshot { coordinator_id: "c".into(), ..Default::default() };
        let c = Coordinator::new(CoordConfig::default(), snapshot, Now::default());
        let (records, said, closed) = (Vec::new(), Vec::new(), Vec::new());
        Rig { c, now: 0, records, said, closed, blob: b"m" }
    }
    pub fn at(&self) -> Now {
        Now { mono: self.now, wall: self.now as i64 }
    }
    pub fn drain(&mut self, sync: bool) -> Vec<ToWorker> {
        self.drain_links(sync).into_iter().map(|(_, message)| message).collect()
    }
    /// With the link that each was said on.
    pub fn drain_links(&mut self, sync: bool) -> Vec<(ConnId, ToWorker)> {
        self.c.invariants().expect("memory is consistent after each input");
        while let Some(output) = self.c.poll() {
            match output {
                Step::Persist(batch) => {
                    self.records.extend(batch.records);
                    if sync {
                        self.c.on_persisted(batch.number);
                    }
                }
                Step::Perform(Output::SendV1(conn, message)) => self.said.push((conn, message)),
                Step::Perform(Output::Close(conn, _)) => self.closed.push(conn),
                _ => {}
            }
        }
        std::mem::take(&mut self.said)
    }
    pub fn submit(&mut self, id: &str, edit: impl FnOnce(&mut TaskSpec)) -> Vec<ToWorker> {
        self.submit_links(id, edit).into_iter().map(|(_, message)| message).collect()
    }
    /// With the link that each was said on.
    pub fn submit_links(
        &mut self,
        id: &str,
        edit: impl FnOnce(&mut TaskSpec),
    ) -> Vec<(ConnId, ToWorker)> {
        let mut spec = TaskSpec::new(What::Call(Call { function: "f".into(), args: Value::Null }));
        edit(&mut spec);
        let s = Submission { id: id.into(), spec: Arc::new(spec), chosen: false };
        self.c.on_request(self.at(), 1, Request::Submit(vec![s], Owner::default()));
        self.drain_links(true)
    }
    pub fn hear(&mut self, conn: ConnId, message: FromWorker) -> Vec<ToWorker> {
        let known = self.records.clone();
        let blob = Some(Bytes::from_static(self.blob)).filter(|b| !b.is_empty());
        self.c.hear_v1(self.at(), conn, message, blob, &Look(&known));
        self.drain(true)
    }
    pub fn join(&mut self, conn: ConnId) {
        self.c.on_open_v1(self.at(), conn, "w");
        self.register(conn, &[]);
    }
    pub fn register(&mut self, conn: ConnId, capabilities: &[(&str, Value)]) -> Vec<ToWorker> {
        let capabilities = capabilities.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        self.hear(conn, FromWorker::Registration { capabilities })
    }
    /// The answer to a ping arrived, or anything else.
    pub fn pong(&mut self, conn: ConnId) {
        self.c.on_pong(self.at(), conn, 1);
    }
    /// A time passes in which nothing arrives but answers to pings on these links.
    pub fn passes(&mut self, ms: Millis, on: &[ConnId]) -> Vec<(ConnId, ToWorker)> {
        let end = self.now + ms;
        let mut said = Vec::new();
        while self.now < end {
            self.now = (self.now + 1_000).min(end);
            on.iter().for_each(|conn| self.pong(*conn));
            self.c.on_tick(self.at());
            said.extend(self.drain_links(true));
        }
        said
    }
    pub fn beat(&mut self, conn: ConnId, active: &[&str]) -> Vec<ToWorker> {
        let active_tasks = Some(active.iter().map(|t| (*t).to_owned()).collect());
        self.hear(conn, FromWorker::Heartbeat { sequence: 1.into(), active_tasks })
    }
    fn fail(&mut self, conn: ConnId, attempt: Option<u64>) -> Vec<ToWorker> {
        let error = TaskError { message: "boom".into(), traceback: String::new() };
        let (task_id, result) = ("t".to_owned(), Bytes::new());
        self.hear(conn, FromWorker::TaskResult { task_id, attempt, result, error: Some(error) })
    }
    fn checkpoint(&mut self, conn: ConnId, name: &str) -> Vec<ToWorker> {
        let (task_id, checkpoint_id) = ("t".into(), name.into());
        self.hear(conn, FromWorker::Checkpoint { task_id, checkpoint_id })
    }
    fn data(&mut self, conn: ConnId, name: &str, blob: &'static [u8]) -> Vec<ToWorker> {
        self.blob = blob;
        let (task_id, checkpoint_id) = ("t".into(), name.into());
        let data = Bytes::from_static(b"{}");
        self.hear(conn, FromWorker::CheckpointData { task_id, checkpoint_id, data })
    }
    /// Attempt, number and blob of the checkpoints that were recorded.
    fn checkpoints(&self) -> Vec<(Epoch, u64, Bytes)> {
        let kept = |r: &CoordRecord| match r {
            CoordRecord::Checkpoint { checkpoint: c, .. } => {
                Some((c.epoch, c.number, c.manifest.clone()))
            }
            _ => None,
        };
        self.records.iter().filter_map(kept).collect()
    }
    pub fn notes(&self) -> Vec<&str> {
        fn note(r: &CoordRecord) -> Option<&str> {
            if let CoordRecord::Noted { note, .. } = r { Some(note) } else { None }
        }
        self.records.iter().filter_map(note).collect()
    }
    /// Assigns a task whose retry was delayed.
    fn retry_is_due(&mut self) -> Vec<ToWorker> {
        self.now += 4_900;
        self.c.on_tick(self.at());
        self.drain(true)
    }
    /// Epochs whose outcome was recorded.
    pub fn outcomes(&self) -> Vec<Epoch> {
        let outcome = |r: &CoordRecord| match r {
            CoordRecord::Requeued { epoch, outcome: Some(_), .. }
            | CoordRecord::Ended { epoch, outcome: Some(_), .. }
            | CoordRecord::Superseded { epoch, .. } => Some(*epoch),
            _ => None,
        };
        self.records.iter().filter_map(outcome).collect()
    }
}

pub(super) fn attempts(said: &[ToWorker]) -> Vec<u64> {
    let attempt = |m: &ToWorker| match m {
        ToWorker::TaskAssignment { attempt, .. } => Some(*attempt),
        _ => None,
    };
    said.iter().filter_map(attempt).collect()
}

/// The first attempt failed, the second was given out, and the link ended before either side knew
/// what the other had heard.
fn failed_once_and_given_again() -> Rig {
    let mut rig = Rig::new();
    rig.join(1);
    let given = rig.submit("t", |s| s.retry_failures = true);
    assert_eq!(attempts(&given), [1]);
    rig.fail(1, None);
    assert_eq!(attempts(&rig.retry_is_due()), [2]);
    rig.c.on_close(rig.at(), 1, outlast_model::LinkCause::Closed, "cut");
    rig.drain(true);
    rig.join(2);
    rig
}

#[test]
fn a_failure_sent_again_is_not_the_next_attempts() {
    let mut rig = failed_once_and_given_again();
    let said = rig.fail(2, None);
    assert!(matches!(said[..], [ToWorker::ResultAck { .. }]), "{said:?}");
    assert_eq!(rig.outcomes(), [1]);
    // The second attempt never arrived: it is sent again, and fails the same way.
    rig.beat(2, &[]);
    rig.now += 600;
    assert_eq!(attempts(&rig.beat(2, &[])), [2]);
    rig.beat(2, &["t"]);
    rig.fail(2, None);
    assert_eq!(rig.outcomes(), [1, 2]);
}

#[test]
fn the_same_failure_of_an_attempt_that_was_heard_of_counts() {
    let mut rig = failed_once_and_given_again();
    rig.beat(2, &["t"]);
    rig.fail(2, None);
    assert_eq!(rig.outcomes(), [1, 2]);
}

#[test]
fn a_worker_that_gives_the_attempt_back_leaves_nothing_to_be_guessed() {
    let mut rig = failed_once_and_given_again();
    rig.fail(2, Some(1));
    assert_eq!(rig.outcomes(), [1]);
    rig.fail(2, Some(2));
    rig.fail(2, Some(2));
    rig.fail(2, Some(1));
    assert_eq!(rig.outcomes(), [1, 2]);
    // One that it was never given is judged as if it named none: it has none now, so this was
    // said before.
    rig.fail(2, Some(77));
    assert_eq!(rig.outcomes(), [1, 2]);
}

#[test]
fn what_must_not_run_twice_is_never_sent_twice() {
    let mut rig = Rig::new();
    rig.join(1);
    let given = rig.submit("t", |s| s.rerun = Rerun::Never);
    assert_eq!(attempts(&given), [1]);
    rig.c.on_close(rig.at(), 1, outlast_model::LinkCause::Closed, "cut");
    rig.join(2);
    rig.beat(2, &[]);
    rig.now += 4_000;
    assert_eq!(attempts(&rig.beat(2, &[])), [] as [u64; 0]);
    let ended = rig.records.iter().any(|r| {
        matches!(r, CoordRecord::Ended { state: TaskState::Failed, reason, .. }
            if reason.contains("must not run twice"))
    });
    assert!(ended, "{:?}", rig.records);
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |_| {});
    let known = rig.records.clone();
    for _ in 0..2 {
        let result = FromWorker::TaskResult {
            task_id: "t".into(),
            attempt: None,
            result: Bytes::from_static(b"{}"),
            error: None,
        };
        // Sent again while the first is not durable: no lookup finds it yet.
        rig.c.hear_v1(rig.at(), 1, result, None, &Look(&known));
        assert_eq!(rig.drain(false), []);
    }
    rig.c.on_persisted(u64::MAX / 2);
    let acks = rig.drain(false);
    assert!(matches!(acks[..], [ToWorker::ResultAck { .. }, ToWorker::ResultAck { .. }]));
    assert_eq!(rig.outcomes(), [1]);
}

#[test]
fn checkpoints_and_deeds_have_one_effect_however_often_they_are_said() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |_| {});
    for id in ["a", "b", "a", "b"] {
        let (task_id, checkpoint_id) = ("t".into(), id.into());
        let data = Bytes::from_static(b"{}");
        rig.hear(1, FromWorker::CheckpointData { task_id, checkpoint_id, data });
        rig.hear(1, FromWorker::Done { task_id: "t".into(), what: Deed::Paused });
    }
    let count = |f: fn(&CoordRecord) -> bool| rig.records.iter().filter(|r| f(r)).count();
    assert_eq!(count(|r| matches!(r, CoordRecord::Checkpoint { .. })), 2);
    assert_eq!(count(|r| matches!(r, CoordRecord::Noted { .. })), 1);
}

/// Checkpoints that were asked for.
fn asked(said: &[ToWorker]) -> Vec<&str> {
    fn name(m: &ToWorker) -> Option<&str> {
        match m {
            ToWorker::CheckpointRequest { checkpoint_id, .. } => {
                Some(checkpoint_id.as_deref().unwrap_or("newest"))
            }
            _ => None,
        }
    }
    said.iter().filter_map(name).collect()
}

fn is_kept(said: &[ToWorker]) -> bool {
    said.iter().any(|m| matches!(m, ToWorker::CheckpointDataAck { .. }))
}

/// The first attempt kept a checkpoint "1" and failed; the second is there.
fn checkpointed_failed_and_given_again() -> Rig {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |s| s.retry_failures = true);
    assert_eq!(asked(&rig.checkpoint(1, "1")), ["1"]);
    assert!(is_kept(&rig.data(1, "1", b"first")));
    rig.fail(1, None);
    assert_eq!(attempts(&rig.retry_is_due()), [2]);
    rig
}

#[test]
fn a_new_attempts_checkpoint_counts_though_its_name_was_used() {
    let mut rig = checkpointed_failed_and_given_again();
    rig.beat(1, &["t"]);
    assert_eq!(asked(&rig.checkpoint(1, "1")), ["1"]);
    assert!(is_kept(&rig.data(1, "1", b"second")));
    assert!(is_kept(&rig.data(1, "1", b"second")));
    assert!(is_kept(&rig.data(1, "2", b"third")));
    let kept = |e, n, b: &'static [u8]| (e, n, Bytes::from_static(b));
    assert_eq!(
        rig.checkpoints(),
        [kept(1, 1, b"first"), kept(2, 1, b"second"), kept(2, 2, b"third")]
    );
    // It is known by now, and not asked for.
    assert!(asked(&rig.checkpoint(1, "1")).is_empty());
    // What differs is something else, whatever its name: it may be the first that arrived late.
    assert!(is_kept(&rig.data(1, "1", b"fourth")) && is_kept(&rig.data(1, "1", b"second")));
    assert_eq!(rig.checkpoints().last(), Some(&kept(2, 3, b"fourth")));
}

#[test]
fn a_checkpoint_of_an_earlier_attempt_sent_again_has_no_effect() {
    let mut rig = checkpointed_failed_and_given_again();
    rig.c.on_close(rig.at(), 1, outlast_model::LinkCause::Closed, "cut");
    rig.drain(true);
    rig.join(2);
    assert!(is_kept(&rig.data(2, "1", b"first")));
    assert_eq!(rig.checkpoints().len(), 1);
    // Whatever was received about the second meanwhile, even if it was reported again.
    rig.beat(2, &["t"]);
    rig.checkpoint(2, "1");
    assert!(is_kept(&rig.data(2, "1", b"first")));
    assert_eq!(rig.checkpoints().len(), 1);
    // It is not the second's own.
    assert!(is_kept(&rig.data(2, "1", b"second")));
    assert_eq!(rig.checkpoints().len(), 2);
}

#[test]
fn data_that_is_refused_does_not_stop_the_next_checkpoint() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |_| {});
    // The blob could not be stored, and meanwhile another was reported.
    assert_eq!(asked(&rig.checkpoint(1, "a")), ["a"]);
    assert!(asked(&rig.checkpoint(1, "b")).is_empty());
    let said = rig.data(1, "a", b"");
    assert_eq!(asked(&said), ["b"]);
    assert!(said.iter().any(|m| matches!(m, ToWorker::Error { .. })), "{said:?}");
    // The same again is not asked for at once: it would fail again.
    assert!(asked(&rig.data(1, "b", b"")).is_empty());
    assert_eq!(asked(&rig.checkpoint(1, "c")), ["c"]);
    // The message cannot be understood.
    rig.c.on_checkpoint_refused_v1(rig.at(), 1, &"t".into());
    assert!(rig.drain(true).is_empty());
    assert_eq!(asked(&rig.checkpoint(1, "d")), ["d"]);
    assert!(is_kept(&rig.data(1, "d", b"d")));
}

#[test]
fn a_checkpoint_that_never_comes_is_given_up() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |_| {});
    rig.beat(1, &["t"]);
    assert_eq!(asked(&rig.checkpoint(1, "a")), ["a"]);
    rig.now += FETCH - 1;
    assert!(asked(&rig.checkpoint(1, "b")).is_empty());
    assert!(asked(&rig.beat(1, &["t"])).is_empty());
    rig.now += 1;
    assert_eq!(asked(&rig.beat(1, &["t"])), ["b"]);
    rig.now += FETCH;
    assert!(asked(&rig.beat(1, &["t"])).is_empty(), "it does not answer: it is not asked again");
    assert_eq!(asked(&rig.checkpoint(1, "c")), ["c"]);
}

#[test]
fn a_checkpoint_that_ends_the_link_is_not_asked_for_again() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |_| {});
    for (conn, name) in [(1, "a"), (2, "b")] {
        rig.beat(conn, &["t"]);
        assert_eq!(asked(&rig.checkpoint(conn, name)), [name]);
        rig.c.on_oversized_v1(rig.at(), conn, "a message of more than 9 bytes");
        let said = rig.drain(true);
        assert!(matches!(said[..], [ToWorker::Error { .. }]), "{said:?}");
        rig.c.on_close(rig.at(), conn, outlast_model::LinkCause::Refused, "too long");
        rig.drain(true);
        rig.join(conn + 1);
        assert!(asked(&rig.beat(conn + 1, &["t"])).is_empty());
        let notes = rig.notes();
        assert!(notes.last().unwrap().contains(&format!("checkpoint {name}")), "{notes:?}");
    }
    assert!(rig.notes()[0].contains("not asked for again"), "{:?}", rig.notes());
    assert!(rig.notes()[1].contains("no more checkpoints"), "{:?}", rig.notes());
    assert!(asked(&rig.checkpoint(3, "c")).is_empty());
    // Without one on its way it was something else.
    rig.c.on_oversized_v1(rig.at(), 3, "a message of more than 9 bytes");
    rig.drain(true);
    assert_eq!(rig.notes().len(), 2);
}

#[test]
fn a_heartbeat_has_one_answer() {
    let mut rig = Rig::new();
    rig.join(1);
    let known = rig.records.clone();
    let beat = |active: &[&str]| {
        let active_tasks = Some(active.iter().map(|t| (*t).to_owned()).collect());
        FromWorker::Heartbeat { sequence: 7.into(), active_tasks }
    };
    // Something is not durable yet: what the answer asks for may rest on it.
    rig.c.hear_v1(
        rig.at(),
        1,
        FromWorker::Registration { capabilities: Map::new() },
        None,
        &Look(&known),
    );
    rig.c.hear_v1(rig.at(), 1, beat(&["foreign"]), None, &Look(&known));
    assert_eq!(rig.drain(false), []);
    // One that asks for nothing has its answer at once.
    rig.c.hear_v1(rig.at(), 1, beat(&[]), None, &Look(&known));
    let said = rig.drain(false);
    assert!(matches!(&said[..], [ToWorker::Heartbeat { actions, .. }] if actions.is_empty()));
    rig.c.on_persisted(u64::MAX / 2);
    let said = rig.drain(false);
    let beats: Vec<_> = said.iter().filter(|m| matches!(m, ToWorker::Heartbeat { .. })).collect();
    assert!(
        matches!(&beats[..], [ToWorker::Heartbeat { actions, .. }] if actions.len() == 1),
        "{said:?}"
    );
}

#[test]
fn a_checkpoint_that_goes_with_an_assignment_counts_as_read_back() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.submit("t", |s| s.retry_failures = true);
    let data = Bytes::from_static(b"{}");
    let (task_id, checkpoint_id) = ("t".into(), "a".into());
    rig.hear(1, FromWorker::CheckpointData { task_id, checkpoint_id, data });
    assert_eq!(rig.c.sample("w").unwrap().restored, 0);
    rig.fail(1, None);
    assert_eq!(attempts(&rig.retry_is_due()), [2]);
    assert_eq!(rig.c.sample("w").unwrap().restored, 1);
    rig.c.on_close(rig.at(), 1, outlast_model::LinkCause::Closed, "cut");
    rig.join(2);
    assert_eq!(rig.c.sample("w").unwrap().restored, 1, "also on the next link");
}

#[test]
fn states_are_merged_before_they_are_durable_and_actions_have_a_limit() {
    let mut r = Rig::new();
    r.join(1);
    r.beat(1, &[]);
    r.submit("t", |_| ());
    for (name, n) in [("a", 1), ("b", 2)] {
        let state = Map::from_iter([(name.to_owned(), Value::from(n))]);
        r.hear(1, FromWorker::TaskState { task_id: "t".into(), state });
    }
    let states = r.records.iter().filter_map(|r| match r {
        CoordRecord::State { update } => Some((update.version, update.state_json.clone())),
        _ => None,
    });
    let states: Vec<_> = states.collect();
    let last = states.last().unwrap();
    assert_eq!((last.0, &last.1[..]), (2, &br#"{"a":1,"b":2}"#[..]));
    for n in 0..20 {
        let action = outlast_wire::v1::Action::CancelTasks(vec![n.to_string()]);
        r.c.on_request(r.at(), n, Request::Act("w".into(), action));
    }
    let reports = r.beat(1, &["t"]);
    let most = reports.iter().map(|m| match m {
        ToWorker::Heartbeat { actions, .. } => actions.len(),
        _ => 0,
    });
    assert!(most.max().is_some_and(|n| (16..=18).contains(&n)), "{reports:?}");
}

#[test]
fn a_cancel_is_repeated_while_the_worker_names_the_task() {
    let mut r = Rig::new();
    r.join(1);
    r.beat(1, &[]);
    r.submit("t", |_| ());
    r.beat(1, &["t"]);
    r.c.on_request(r.at(), 9, Request::Cancel("t".into()));
    let cancels = |said: Vec<ToWorker>| {
        said.iter().any(|m| matches!(m, ToWorker::CancelTask { task_id } if task_id == "t"))
    };
    assert!(cancels(r.drain(true)));
    assert!(cancels(r.beat(1, &["t"])));
}

#[test]
fn a_drained_worker_stays_so_when_it_is_back() {
    let mut r = Rig::new();
    r.join(1);
    r.beat(1, &[]);
    let drain = Request::Drain("w".into(), true);
    r.c.on_request(r.at(), 9, drain);
    r.drain(true);
    let cause = outlast_model::LinkCause::Closed;
    r.c.on_close(r.at(), 1, cause, "gone");
    r.drain(true);
    r.join(2);
    r.beat(2, &[]);
    let said = r.submit("t", |_| ());
    assert!(!said.iter().any(|m| matches!(m, ToWorker::TaskAssignment { .. })), "{said:?}");
}

#[test]
fn workers_are_admitted_at_their_rate_and_outcomes_of_an_attempt_have_a_limit() {
    let mut r = Rig::new();
    r.join(9);
    r.beat(9, &[]);
    r.submit("t", |_| ());
    for n in 0..20 {
        let result = Bytes::from(format!(r#"{{"run":{n}}}"#).into_bytes());
        let (task_id, attempt) = ("t".to_owned(), None);
        r.hear(9, FromWorker::TaskResult { task_id, attempt, result, error: None });
    }
    assert_eq!(r.outcomes().len(), OUTCOMES);
    r.c.fleet.admission = crate::coord::admission::Admission::new(1, 1);
    let mut accepted = 0;
    for n in 1..5 {
        r.c.on_open_v1(r.at(), n, &format!("w{n}"));
        let said = r.register(n, &[]);
        accepted += said.iter().filter(|m| matches!(m, ToWorker::RegistrationAck { .. })).count();
    }
    assert!(accepted < 4, "{accepted}");
}
