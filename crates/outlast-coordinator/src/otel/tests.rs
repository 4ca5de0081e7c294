//! From histories to spans, without a coordinator.

use super::ids::{Sampler, Tracer};
use super::proto::{Event, Span, StatusCode, Value, nanos};
use super::spans::{Life, Outage, Workers, outages, spans};
use outlast_core::records::TaskState;
use outlast_model::{Cause, LinkCause};
use outlast_store::{EventKind, StoredEvent, StoredTask};
use outlast_wire::api::Interval;
use outlast_wire::{Run, TaskSpec};
use std::sync::Arc;

fn happened(at: i64, kind: EventKind, epoch: u64, worker: Option<&str>) -> StoredEvent {
    let (reason, cause) = (String::new(), Cause::Unspecified);
    StoredEvent { at, kind, epoch, worker: worker.map(Into::into), reason, cause, decision: None }
}

fn because(event: StoredEvent, cause: Cause, reason: &str) -> StoredEvent {
    StoredEvent { cause, reason: reason.into(), ..event }
}

fn life(events: Vec<StoredEvent>, ended_at: i64) -> Life {
    let task = StoredTask {
        number: 9,
        id: "t".into(),
        spec: Arc::new(TaskSpec::new(Run::Shell("train.sh".into()))),
        state: TaskState::Succeeded,
        epoch: 2,
        ended_epoch: 1,
        retries: 1,
        cancelling: false,
        worker: Some("s1".into()),
        worker_name: Some("w1".into()),
        submitted_at: 1_000,
        assigned_at: None,
        started_at: None,
        ended_at: Some(ended_at),
        reason: String::new(),
        has_outcome: true,
        owner: None,
    };
    Life { task, cause: Cause::Done, events, checkpoints: Vec::new() }
}

fn made(life: &Life, workers: &Workers) -> Vec<Span> {
    spans(life, &Tracer::new("c", Sampler::new(None, None).unwrap()), workers)
}

fn word<'a>(span: &'a Span, key: &str) -> &'a str {
    let found = span.attributes.iter().find(|a| a.key == key);
    match found.and_then(|a| a.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn names(span: &Span) -> Vec<&str> {
    span.events.iter().map(|e| e.name.as_str()).collect()
}

#[test]
fn an_outcome_that_comes_late_and_counts_ends_its_own_attempt() {
    use EventKind as K;
    let events = vec![
        happened(1_000, K::Submitted, 0, None),
        happened(2_000, K::Assigned, 1, Some("s1")),
        because(happened(5_000, K::Requeued, 1, Some("s1")), Cause::Network, "it was silent"),
        happened(6_000, K::Assigned, 2, Some("s2")),
        because(happened(8_000, K::Succeeded, 1, Some("s1")), Cause::Done, ""),
        because(happened(9_000, K::Superseded, 2, Some("s2")), Cause::Cancelled, "1 counts"),
    ];
    let spans = made(&life(events, 8_000), &Workers::default());
    let [task, one, two] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(
        (word(one, "outlast.attempt.state"), word(two, "outlast.attempt.state")),
        ("succeeded", "superseded")
    );
    assert_eq!([one, two].map(|s| s.end_time_unix_nano), [nanos(8_000), nanos(9_000)]);
    assert_eq!(names(one), ["requeued"]);
    assert_eq!(names(two), ["superseded"]);
    assert_eq!(task.end_time_unix_nano, nanos(8_000));
    assert_eq!(word(one, "outlast.worker.name"), "w1");
    assert_eq!(word(two, "outlast.worker.name"), "");
    assert_eq!(two.status.as_ref().unwrap().code(), StatusCode::Unset);
}

#[test]
fn an_outcome_that_comes_late_and_does_not_count_is_an_event() {
    use EventKind as K;
    let events = vec![
        happened(2_000, K::Assigned, 1, Some("s1")),
        because(happened(5_000, K::Requeued, 1, Some("s1")), Cause::Network, "it was silent"),
        happened(6_000, K::Assigned, 2, Some("s2")),
        because(happened(7_000, K::Superseded, 1, Some("s1")), Cause::Exit, "2 is current"),
        because(happened(8_000, K::Succeeded, 2, Some("s2")), Cause::Done, ""),
    ];
    let spans = made(&life(events, 8_000), &Workers::default());
    assert_eq!(names(&spans[1]), ["requeued", "superseded"]);
    assert_eq!(spans[1].end_time_unix_nano, nanos(5_000));
    let status = spans[1].status.as_ref().unwrap();
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "it was silent"));
    assert_eq!(spans[2].status.as_ref().unwrap().code(), StatusCode::Ok);
}

#[test]
fn only_outages_within_an_attempt_are_its_own() {
    use EventKind as K;
    let events = vec![
        happened(2_000, K::Assigned, 1, Some("s1")),
        // By a clock that is behind.
        happened(1_500, K::Started, 1, Some("s1")),
        happened(8_000, K::Succeeded, 1, Some("s1")),
    ];
    let away = |from, to| Outage { from, to, cause: LinkCause::Silent, reason: String::new() };
    let mut workers = Workers::default();
    let before = away(1_000, Some(2_500));
    let all = vec![before, away(3_000, Some(4_000)), away(7_000, Some(9_000)), away(9_500, None)];
    workers.outages.insert("s1".into(), all);
    let spans = made(&life(events, 8_000), &workers);
    let found: Vec<(&str, u64)> =
        spans[1].events.iter().map(|e| (e.name.as_str(), e.time_unix_nano / 1_000_000)).collect();
    let wanted = [
        ("started", 2_000),
        ("link.back", 2_500),
        ("link.lost", 3_000),
        ("link.back", 4_000),
        ("link.lost", 7_000),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_timeline_s_times_without_a_link_are_joined() {
    let interval = |state: &str, from, to, cause| Interval {
        state: state.into(),
        from,
        to,
        cause,
        reason: String::new(),
    };
    let line = [
        interval("connected", 0, Some(10), LinkCause::Unspecified),
        interval("suspect", 10, Some(20), LinkCause::Closed),
        interval("away", 20, Some(30), LinkCause::Closed),
        interval("resync", 30, Some(31), LinkCause::Unspecified),
        interval("connected", 31, Some(40), LinkCause::Unspecified),
        interval("unknown", 40, None, LinkCause::Restarted),
    ];
    let found = outages(&line);
    let short: Vec<_> = found.iter().map(|o| (o.from, o.to, o.cause.word())).collect();
    assert_eq!(short, [(10, Some(30), "network"), (40, None, "coordinator_restarted")]);
}

#[test]
fn a_long_history_is_cut_and_says_so() {
    use EventKind as K;
    let mut events = Vec::new();
    for n in 1..=300 {
        events.push(happened(n * 10, K::Assigned, n as u64, Some("s1")));
        events.push(happened(n * 10 + 5, K::Requeued, n as u64, Some("s1")));
    }
    for n in 0..200 {
        let note = because(happened(3_000 + n, K::Noted, 300, None), Cause::Unspecified, "a");
        events.push(StoredEvent { reason: "é".repeat(5_000), ..note });
    }
    let spans = made(&life(events, 4_000), &Workers::default());
    assert_eq!(spans.len(), 1 + 256);
    let last = spans.last().unwrap();
    assert_eq!((last.events.len(), last.dropped_events_count), (128, 73));
    let longest =
        |e: &Event| e.attributes.iter().map(prost::Message::encoded_len).max().unwrap_or(0);
    assert!(last.events.iter().all(|e| longest(e) < 2_200));
    // Who is not over has no trace yet.
    let mut open = life(Vec::new(), 0);
    open.task.ended_at = None;
    assert!(made(&open, &Workers::default()).is_empty());
}
