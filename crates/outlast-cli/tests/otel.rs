//! Traces through real processes: from who submits, over a coordinator that is killed, into what
//! the task itself runs.

#[path = "../../outlast-coordinator/tests/otel/collector.rs"]
mod collector;
mod common;

use collector::{Collector, event, text};
use common::*;
use outlast_wire::trace::TraceParent;
use std::process::{Command, Output};
use std::time::Duration;

const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn outlast(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
    command.env("OUTLAST_NO_KEYS", "1");
    command.env_remove("TRACEPARENT").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command.envs(variables.iter().copied()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_its_submitter_into_the_task_through_a_killed_coordinator() {
    let (base, collector) = (Base::new(), Collector::start().await);
    let url = collector.url();
    let on = ["--otlp-endpoint", url.as_str()];
    let mut coordinator = base.coordinator_with(&on);
    let _worker = base.worker("anna", &base.url(), &["--prefetch", "0"]);
    base.connected("anna").await;
    let at = base.url();
    let ready = base.dir.path().join("ready");
    let go = base.dir.path().join("go");
    // It tells whose child it is only after the coordinator was killed.
    let line = format!(
        "touch {}; while ! test -e {}; do sleep 0.1; done; echo $TRACEPARENT $TRACESTATE",
        ready.display(),
        go.display()
    );
    let variables = [("TRACEPARENT", THEIRS), ("TRACESTATE", "a=1")];
    let args = ["submit", "--coordinator", &at, "--id", "t", "--shell", &line];
    let said = outlast(&variables, &args);
    assert!(said.status.success(), "{said:?}");
    // Again, from elsewhere: it is the same task.
    let said = outlast(&[("TRACEPARENT", "nonsense")], &args);
    assert!(said.status.success(), "{said:?}");
    let began = std::time::Instant::now();
    while !ready.exists() {
        assert!(began.elapsed() < Duration::from_secs(90));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    coordinator.kill();
    let _coordinator = base.coordinator_with(&on);
    base.connected("anna").await;
    std::fs::write(&go, "").unwrap();
    let spans = collector.trace("t").await;
    let [task, attempt] = spans.as_slice() else { panic!("{spans:#?}") };
    let theirs = TraceParent::parse(THEIRS).unwrap();
    assert_eq!(task.trace_id, theirs.trace_id);
    assert_eq!(task.parent_span_id, theirs.span_id);
    assert_eq!(attempt.parent_span_id, task.span_id);
    let result = base.client.result("t", 10).await.unwrap().unwrap();
    let (context, state) = result.stdout.trim().split_once(' ').unwrap();
    let context = TraceParent::parse(context).unwrap();
    assert_eq!((context.trace_id, context.sampled), (theirs.trace_id, true));
    assert_eq!(attempt.span_id, context.span_id);
    assert_eq!(state, "a=1");
    assert_eq!(text(&attempt.attributes, "outlast.worker.name"), "anna");
    event(attempt, "link.lost");
    event(attempt, "link.back");
}

#[test]
fn a_bad_endpoint_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let args = ["coordinator", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let said = |variables: &[(&str, &str)], more: &[&str]| {
        let output = outlast(variables, &[&args[..], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said(&[], &["--otlp-endpoint", "collector:4318"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("http://collector:4318"), "{text}");
    let (code, text) = said(&[("OUTLAST_OTLP_ENDPOINT", "ftp://x")], &[]);
    assert_eq!(code, Some(2), "{text}");
    let grpc = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let (code, text) = said(&grpc, &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("http/protobuf"), "{text}");
}
