//! Telemetry of tasks at a collector: one trace over their whole life, whatever became of links, of
//! the coordinator and of the collector meanwhile; and the span that a task gets.

mod collector;
#[path = "../common/mod.rs"]
mod common;

use axum::http::StatusCode;
use collector::{Collector, event, names, number, text};
use common::*;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Status;
use outlast_coordinator::{Config, Coordinator, OtelConfig};
use outlast_wire::TaskSpec;
use outlast_wire::trace::TraceParent;
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, Lane, OutcomeKind, outbox_item};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traced(dir: &Path, url: &str, variables: &'static [(&'static str, &'static str)]) -> Config {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let mut config = config(dir);
    config.watch.otel = OtelConfig::new(Some(url), &variable).unwrap();
    config.core.max_unfinished = 10_000;
    // Nobody here sends heartbeats.
    config.core.heartbeat_timeout = 3_600_000;
    config
}

/// Settings for traces alone.
const TRACES: &[(&str, &str)] = &[("OTEL_METRICS_EXPORTER", "none")];

/// The next assignments, however long they take.
async fn all_given(worker: &mut FakeWorker) -> Vec<v2::Assignment> {
    let wait = async {
        loop {
            if let Kind::Assign(assign) = worker.receiver.next().await.unwrap() {
                return assign.tasks;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("no assignment")
}

async fn given(worker: &mut FakeWorker) -> v2::Assignment {
    let all = all_given(worker).await;
    let [one] = <[_; 1]>::try_from(all).expect("one task");
    one
}

fn told(given: &v2::Assignment) -> TraceParent {
    let spec = TaskSpec::from_json(&given.spec_json).unwrap();
    assert!(spec.traceparent.is_empty() && spec.tracestate.is_empty());
    TraceParent::parse(&spec.env["TRACEPARENT"]).unwrap()
}

async fn until(c: &Coordinator, path: &str, what: impl Fn(&Value) -> bool) {
    let began = Instant::now();
    loop {
        let (_, said) = get(c, path).await;
        if what(&said) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{path} says {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn holding(task: &str, epoch: u64) -> Vec<v2::Holding> {
    let state = v2::HoldingState::HoldingRunning.into();
    vec![v2::Holding {
        task_id: task.into(),
        epoch,
        state,
        started_at_ms: now(),
        ..Default::default()
    }]
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis() as i64
}

fn ended(task: &str, epoch: u64, kind: OutcomeKind) -> outbox_item::Kind {
    let outbox_item::Kind::Outcome(mut done) = outcome(task, epoch, kind) else { unreachable!() };
    (done.started_at_ms, done.finished_at_ms) = (now(), now());
    if kind == OutcomeKind::OutcomeFailed {
        (done.has_exit_code, done.exit_code, done.cause) = (true, 3, v2::Cause::Exit.into());
        done.message = "exit code 3".into();
    }
    outbox_item::Kind::Outcome(done)
}

async fn submit(c: &Coordinator, task: &Value) {
    let (status, said) = post(c, "/api/v1/tasks", task).await;
    assert_eq!(status, 201, "{said}");
}

#[tokio::test]
async fn a_task_is_one_trace_through_a_cut_and_two_attempts() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let c = Coordinator::start(traced(dir.path(), &collector.url(), TRACES)).await.unwrap();
    let before = now();
    let mut worker = FakeWorker::join(&c, hello("anna", "s1", 1), Vec::new()).await;
    let task = json!({ "id": "t", "command": ["train"], "retry_failures": true,
                       "labels": { "team": "blue" } });
    submit(&c, &task).await;
    let first = told(&given(&mut worker).await);
    // The cut.
    drop(worker);
    until(&c, "/api/v1/workers/anna", |w| w["state"] == "suspect").await;
    let mut worker = FakeWorker::join(&c, hello("anna", "s1", 2), holding("t", 1)).await;
    let blob = upload(&c, b"weights").await;
    let checkpoint = v2::Checkpoint {
        task_id: "t".into(),
        epoch: 1,
        number: 1,
        manifest: blob.as_bytes().to_vec().into(),
        size: 7,
        created_at_ms: now(),
        ..Default::default()
    };
    worker.offer(Lane::Checkpoints, outbox_item::Kind::Checkpoint(checkpoint)).await;
    until(&c, "/api/v1/tasks/t/checkpoints", |said| said["checkpoints"][0]["kept"] == true).await;
    assert_eq!(post(&c, "/api/v1/tasks/t/pause", &json!({})).await.0, 200);
    assert_eq!(post(&c, "/api/v1/tasks/t/resume", &json!({})).await.0, 200);
    worker.offer(Lane::Results, ended("t", 1, OutcomeKind::OutcomeFailed)).await;
    let second = told(&given(&mut worker).await);
    worker.offer(Lane::Results, ended("t", 2, OutcomeKind::OutcomeSucceeded)).await;

    let spans = collector.trace("t").await;
    let [task, one, two] = spans.as_slice() else { panic!("{spans:#?}") };
    assert!(spans.iter().all(|s| s.trace_id == first.trace_id));
    assert_eq!(second.trace_id, first.trace_id);
    assert_eq!((&one.span_id[..], &two.span_id[..]), (&first.span_id[..], &second.span_id[..]));
    assert!(task.parent_span_id.is_empty());
    assert!([one, two].iter().all(|s| s.parent_span_id == task.span_id));
    assert_eq!((task.name.as_str(), one.name.as_str()), ("train", "attempt train"));

    // Times: each attempt within the task, one after the other.
    assert!(task.start_time_unix_nano >= before as u64 * 1_000_000);
    assert!(task.end_time_unix_nano <= now() as u64 * 1_000_000);
    for attempt in [one, two] {
        assert!(task.start_time_unix_nano <= attempt.start_time_unix_nano);
        assert!(attempt.start_time_unix_nano <= attempt.end_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= task.end_time_unix_nano);
    }
    assert!(one.end_time_unix_nano <= two.start_time_unix_nano);
    assert!(one.events.is_sorted_by_key(|e| e.time_unix_nano));

    let of = |span: &Span| span.status.clone().unwrap_or_default();
    assert_eq!([task, one, two].map(|s| of(s).code()), [Status::Ok, Status::Error, Status::Ok]);
    assert_eq!(of(one).message, "exit code 3");
    assert_eq!(text(&task.attributes, "outlast.task.state"), "succeeded");
    assert_eq!(number(&task.attributes, "outlast.task.attempts"), Some(2));
    assert_eq!(text(&task.attributes, "outlast.task.label.team"), "blue");
    assert_eq!(text(&one.attributes, "outlast.cause"), "exit");
    assert_eq!(text(&one.attributes, "outlast.attempt.state"), "requeued");
    assert_eq!(text(&one.attributes, "outlast.worker.name"), "anna");
    assert_eq!(text(&one.attributes, "outlast.worker.id"), "s1");

    let lost = event(one, "link.lost");
    assert_eq!(text(&lost.attributes, "outlast.link.cause"), "network");
    assert!(lost.time_unix_nano <= event(one, "link.back").time_unix_nano);
    let places = ["link.lost", "link.back"].map(|name| names(one).iter().position(|n| *n == name));
    assert!(places[0] < places[1], "{:?}", names(one));
    for name in ["checkpoint", "paused", "resumed", "recovery", "requeued"] {
        event(one, name);
    }
    let recovery = event(one, "recovery");
    assert!(!text(&recovery.attributes, "outlast.recovery.strategy").is_empty());
    assert!(!text(&recovery.attributes, "outlast.reason").is_empty());
    assert!(!names(two).contains(&"link.lost"), "{:?}", names(two));

    c.shutdown().await;
}

#[tokio::test]
async fn a_task_that_a_person_runs_again_goes_on_in_its_trace() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let c = Coordinator::start(traced(dir.path(), &collector.url(), TRACES)).await.unwrap();
    let mut worker = FakeWorker::join(&c, hello("w", "s1", 1), Vec::new()).await;
    submit(&c, &json!({ "id": "t", "command": ["x"] })).await;
    let first = told(&given(&mut worker).await);
    worker.offer(Lane::Results, ended("t", 1, OutcomeKind::OutcomeFailed)).await;
    let spans = collector.trace("t").await;
    let [before, one] = spans.as_slice() else { panic!("{spans:#?}") };
    let failed = before.status.clone().unwrap();
    assert_eq!((failed.code(), failed.message.as_str()), (Status::Error, "exit code 3"));
    assert_eq!(post(&c, "/api/v1/tasks/t/retry", &json!({})).await.0, 200);
    let second = told(&given(&mut worker).await);
    assert_eq!(second.trace_id, first.trace_id);
    worker.offer(Lane::Results, ended("t", 2, OutcomeKind::OutcomeSucceeded)).await;
    let new = |got: &collector::Got| got.spans.iter().any(|s| s.span_id == second.span_id);
    collector.until("the second attempt", |got| new(got).then_some(())).await;
    let spans = collector.trace("t").await;
    let [after, again, two] = spans.as_slice() else { panic!("{spans:#?}") };
    // What was there is there under the same ids, and only grows.
    assert_eq!((&after.span_id, again), (&before.span_id, one));
    assert_eq!(after.start_time_unix_nano, before.start_time_unix_nano);
    assert!(after.end_time_unix_nano >= two.end_time_unix_nano);
    assert_eq!(after.status.clone().unwrap().code(), Status::Ok);
    event(after, "retried");
    c.shutdown().await;
}

#[tokio::test]
async fn a_restart_in_mid_task_changes_no_id() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let config = || traced(dir.path(), &collector.url(), TRACES);
    let c = Coordinator::start(config()).await.unwrap();
    let mut worker = FakeWorker::join(&c, hello("w", "s1", 1), Vec::new()).await;
    submit(&c, &json!({ "id": "t", "shell": "sleep 1" })).await;
    let context = told(&given(&mut worker).await);
    let submitted = get(&c, "/api/v1/tasks/t").await.1["submitted_at"].clone();
    c.shutdown().await;
    drop(worker);
    let c = Coordinator::start(config()).await.unwrap();
    let mut worker = FakeWorker::join(&c, hello("w", "s1", 2), holding("t", 1)).await;
    worker.offer(Lane::Results, ended("t", 1, OutcomeKind::OutcomeSucceeded)).await;
    let spans = collector.trace("t").await;
    let [task, attempt] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(task.trace_id, context.trace_id);
    assert_eq!(attempt.span_id, context.span_id);
    assert_eq!(attempt.parent_span_id, task.span_id);
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["submitted_at"], submitted);
    // The time before the restart is part of it, and so is the restart.
    assert!(event(attempt, "link.lost").time_unix_nano >= attempt.start_time_unix_nano);
    assert!(event(attempt, "link.back").time_unix_nano <= attempt.end_time_unix_nano);
    c.shutdown().await;
}

/// Submits tasks and cancels them: they are over at once.
async fn over(c: &Coordinator, ids: impl Iterator<Item = String>) -> BTreeSet<String> {
    let ids: BTreeSet<String> = ids.collect();
    let tasks: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "command": ["x"] })).collect();
    let (status, said) = post(c, "/api/v1/tasks", &Value::Array(tasks)).await;
    assert_eq!(status, 200, "{said}");
    for id in &ids {
        let path = format!("/api/v1/tasks/{id}/cancel");
        assert_eq!(post(c, &path, &json!({})).await.0, 200);
    }
    ids
}

#[tokio::test]
async fn what_ends_while_the_collector_is_away_arrives_later() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let addr = outlast_chaos::free_address().unwrap();
    let url = format!("http://{addr}");
    let config = || traced(dir.path(), &url, TRACES);
    let c = Coordinator::start(config()).await.unwrap();
    let mut all = over(&c, (0..300).map(|n| format!("a{n}"))).await;
    let metrics = || async { get(&c, "/metrics").await.1.as_str().unwrap().to_owned() };
    let began = Instant::now();
    while metrics().await.contains("outlast_otlp_failures_total{what=\"spans\"} 0\n") {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Neither its end nor its start waits for the collector.
    c.shutdown().await;
    let c = Coordinator::start(config()).await.unwrap();
    all.extend(over(&c, (0..300).map(|n| format!("b{n}"))).await);
    let collector = Collector::at(addr).await;
    collector.got.lock().unwrap().refuse = Some(StatusCode::SERVICE_UNAVAILABLE);
    collector.until("a refusal", |got| (got.refused > 0).then_some(())).await;
    collector.got.lock().unwrap().refuse = None;
    let arrived = collector
        .until("all tasks", |got| {
            let id = |s: &Span| text(&s.attributes, "outlast.task.id").to_owned();
            let ids: BTreeSet<String> = got.spans.iter().map(id).collect();
            (ids == all).then(|| got.spans.clone())
        })
        .await;
    let ids: HashSet<&[u8]> = arrived.iter().map(|s| &s.span_id[..]).collect();
    assert_eq!(ids.len(), all.len());
    assert!(arrived.iter().all(|s| text(&s.attributes, "outlast.task.state") == "cancelled"));
    let text = get(&c, "/metrics").await.1.as_str().unwrap().to_owned();
    assert!(text.contains("outlast_otlp_dropped_total{what=\"spans\"} 0\n"), "{text}");
    assert!(text.contains("outlast_otlp_waiting 0\n"), "{text}");
    // What is out stays out: a restart repeats at most what ended in one millisecond.
    c.shutdown().await;
    collector.got.lock().unwrap().spans.clear();
    let c = Coordinator::start(config()).await.unwrap();
    let last = over(&c, ["c".to_owned()].into_iter()).await;
    collector.trace(last.first().unwrap()).await;
    let again = collector.got.lock().unwrap().spans.len();
    assert!(again < 50, "{again} spans again");
    c.shutdown().await;
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Connections are taken by the kernel, and that is all.
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    let c = Coordinator::start(traced(dir.path(), &url, &[])).await.unwrap();
    over(&c, (0..20).map(|n| n.to_string())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(get(&c, "/api/v1/tasks/7").await.1["state"], "cancelled");
    let ending = tokio::time::timeout(PATIENCE, c.shutdown());
    ending.await.expect("it waits for the collector");
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_is_counted() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let c = Coordinator::start(traced(dir.path(), &collector.url(), TRACES)).await.unwrap();
    collector.got.lock().unwrap().refuse = Some(StatusCode::BAD_REQUEST);
    over(&c, ["a".to_owned()].into_iter()).await;
    collector.until("a refusal", |got| (got.refused == 1).then_some(())).await;
    {
        let mut got = collector.got.lock().unwrap();
        (got.refuse, got.reject) = (None, 1);
    }
    over(&c, ["b".to_owned()].into_iter()).await;
    collector.trace("b").await;
    let began = Instant::now();
    loop {
        let said = get(&c, "/metrics").await.1.as_str().unwrap().to_owned();
        if said.contains("outlast_otlp_dropped_total{what=\"spans\"} 2\n") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    c.shutdown().await;
}

#[tokio::test]
async fn a_task_joins_the_trace_of_who_submits_it() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let c = Coordinator::start(traced(dir.path(), &collector.url(), TRACES)).await.unwrap();
    let theirs = TraceParent::parse(THEIRS).unwrap();
    let body = br#"{"id":"t","command":["x"]}"#;
    let send = |lines: String| {
        let c = &c;
        async move { send_with(c, "POST", "/api/v1/tasks", &lines, body).await }
    };
    let lines = format!("traceparent: {THEIRS}\r\ntracestate: a=1\r\ntracestate: b=2\r\n");
    assert_eq!(send(lines).await.status, 201);
    // Sent again, from another span, or without: it is the same task.
    let other = THEIRS.replace("00f067aa0ba902b7", "1111111111111111");
    let again = send(format!("traceparent: {other}\r\n")).await;
    assert_eq!(again.status, 200, "{}", again.json());
    assert_eq!(again.json()["spec"]["traceparent"], THEIRS);
    assert_eq!(send(String::new()).await.status, 200);
    // What is malformed is ignored, unless the document itself has it.
    let bad = b"traceparent: 00-xyz\r\ntracestate: a=1\r\n";
    let bad = String::from_utf8(bad.to_vec()).unwrap();
    let path = "/api/v1/tasks";
    let made = send_with(&c, "POST", path, &bad, br#"[{"id":"u","command":["x"]}]"#).await;
    assert_eq!(made.status, 200);
    let spec = get(&c, "/api/v1/tasks/u").await.1["spec"].clone();
    assert_eq!(spec, json!({ "command": ["x"] }));
    let wrong = json!({ "command": ["x"], "traceparent": "00-xyz" });
    let (status, said) = post(&c, path, &wrong).await;
    assert_eq!(status, 400);
    assert!(said.to_string().contains("traceparent"), "{said}");
    // Its submitter does not record: neither do we, and the task learns that.
    let off = json!({ "id": "v", "command": ["x"], "traceparent": THEIRS.replace("-01", "-00") });
    submit(&c, &off).await;

    let mut worker = FakeWorker::join(&c, hello("w", "s1", 1), Vec::new()).await;
    let mut seen = Vec::new();
    let mut waiting = Vec::new();
    while seen.len() < 3 {
        if waiting.is_empty() {
            waiting = all_given(&mut worker).await;
        }
        let given = waiting.remove(0);
        let (context, id) = (told(&given), given.task_id.clone());
        worker.offer(Lane::Results, ended(&id, 1, OutcomeKind::OutcomeSucceeded)).await;
        let spec = TaskSpec::from_json(&given.spec_json).unwrap();
        match id.as_str() {
            "t" => {
                assert_eq!(context.trace_id, theirs.trace_id);
                assert_eq!(spec.env["TRACESTATE"], "a=1,b=2");
            }
            "u" => assert_ne!(context.trace_id, theirs.trace_id),
            _ => assert_eq!((context.trace_id, context.sampled), (theirs.trace_id, false)),
        }
        seen.push(id);
    }
    seen.sort();
    assert_eq!(seen, ["t", "u", "v"]);
    let spans = collector.trace("t").await;
    let [task, attempt] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(task.trace_id, theirs.trace_id);
    assert_eq!(task.parent_span_id, theirs.span_id);
    assert_eq!(task.trace_state, "a=1,b=2");
    assert_eq!(attempt.parent_span_id, task.span_id);
    collector.trace("u").await;
    let spans = collector.got.lock().unwrap().spans.clone();
    assert!(!spans.iter().any(|s| text(&s.attributes, "outlast.task.id") == "v"));
    c.shutdown().await;
}

#[tokio::test]
async fn without_a_collector_a_task_has_its_submitter_s_trace_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut worker = FakeWorker::join(&c, hello("w", "s1", 1), Vec::new()).await;
    submit(&c, &json!({ "id": "t", "command": ["x"], "traceparent": THEIRS })).await;
    assert_eq!(told(&given(&mut worker).await).to_string(), THEIRS);
    worker.offer(Lane::Results, ended("t", 1, OutcomeKind::OutcomeSucceeded)).await;
    submit(&c, &json!({ "id": "u", "command": ["x"] })).await;
    let plain = given(&mut worker).await;
    assert_eq!(&plain.spec_json[..], br#"{"command":["x"]}"#);
    assert!(!dir.path().join("otlp-cursor").exists());
    let said = get(&c, "/metrics").await.1;
    assert!(!said.as_str().unwrap().contains("otlp"));
    c.shutdown().await;
}

#[tokio::test]
async fn metrics_arrive_with_their_kinds() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let often = &[
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret"),
    ];
    let c = Coordinator::start(traced(dir.path(), &collector.url(), often)).await.unwrap();
    over(&c, ["a".to_owned(), "b".to_owned()].into_iter()).await;
    let cancelled = |metrics: &[Metric]| {
        let Some(Data::Sum(sum)) = &metrics.iter().find(|m| m.name == "outlast.ended")?.data else {
            panic!("outlast.ended is no sum")
        };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality, 2, "cumulative");
        let state = |p: &&_| point_text(p, "state") == "cancelled";
        let point = sum.data_points.iter().find(state)?;
        assert!(point.start_time_unix_nano > 0);
        assert!(point.start_time_unix_nano <= point.time_unix_nano);
        Some(point.value.unwrap())
    };
    let two = Some(number_data_point::Value::AsInt(2));
    let all = collector
        .until("two tasks", |got| (cancelled(&got.metrics) == two).then(|| got.metrics.clone()));
    let all = all.await;
    for (name, unit) in [("outlast.tasks", "1"), ("outlast.blob_bytes", "By")] {
        let metric = all.iter().find(|m| m.name == name).unwrap();
        assert!(matches!(&metric.data, Some(Data::Gauge(g)) if !g.data_points.is_empty()));
        assert_eq!(metric.unit, unit);
    }
    // As at /metrics, but for single workers.
    let names: HashSet<&str> = all.iter().map(|m| m.name.as_str()).collect();
    let said = get(&c, "/metrics").await.1;
    let shown = said.as_str().unwrap().lines().filter_map(|l| l.strip_prefix("# TYPE outlast_"));
    for line in shown {
        let name = line.split(' ').next().unwrap();
        let name = name.strip_suffix("_total").unwrap_or(name);
        assert!(names.contains(format!("outlast.{name}").as_str()), "{name} is missing");
    }
    let headers = collector.got.lock().unwrap().headers.clone();
    assert!(headers.iter().all(|h| h["authorization"] == "Bearer secret"));
    c.shutdown().await;
}

fn point_text<'a>(
    point: &'a opentelemetry_proto::tonic::metrics::v1::NumberDataPoint,
    key: &str,
) -> &'a str {
    text(&point.attributes, key)
}
