//! Recovery from failures, with real processes.

mod common;

use common::*;
use outlast::api::HistoryEvent;
use outlast::{NewTask, Run, TaskSpec};
use serde_json::json;
use std::time::Duration;

/// Fails until it has been tried so often.
fn flaky(count: &std::path::Path, times: u32) -> TaskSpec {
    let count = count.display();
    let line = format!("echo x >> '{count}'; test $(wc -l < '{count}') -gt {times}");
    let mut spec = TaskSpec::new(Run::Shell(line));
    spec.retry_failures = true;
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_retry_outlives_the_coordinator() {
    let base = Base::new();
    let mut server = base.coordinator();
    let _worker = base.worker("w1", &base.url(), &[]);
    let mut spec = flaky(&base.dir.path().join("tries"), 1);
    let own = json!({"base_delay": 6, "jitter": 0});
    spec.recovery = Some(serde_json::from_value(own).unwrap());
    base.client.submit(&NewTask { id: "t".into(), spec }).await.unwrap();
    let decided = loop {
        let history = base.client.history("t").await.unwrap();
        if let Some(event) = history.events.into_iter().find(|e| e.event == "recovery") {
            break event;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(decided.recovery["strategy"], "delayed_retry");
    assert_eq!(decided.recovery["delay_ms"], 6000);
    server.kill();
    server = base.coordinator();
    let waits = base.client.task("t").await.unwrap();
    assert!(waits.waiting_for.unwrap().contains("tried again"));
    let result = base.client.wait("t").await.unwrap();
    assert_eq!((result.state.as_str(), result.attempt), ("succeeded", 2));
    let events = base.client.history("t").await.unwrap().events;
    let again = events.iter().find(|e| e.event == "assigned" && e.attempt == 2).unwrap();
    let at = |e: &HistoryEvent| e.at.parse::<jiff::Timestamp>().unwrap();
    let waited = at(again).duration_since(at(&decided));
    assert!(waited.as_millis() >= 5990, "it was tried again after {waited:?}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_worker_is_shown_and_released() {
    let base = Base::new();
    let _server = base.coordinator();
    let _workers = [base.worker("w1", &base.url(), &[]), base.worker("w2", &base.url(), &[])];
    for name in ["w1", "w2"] {
        base.connected(name).await;
    }
    // Three tasks that die of a device on w1, each once.
    for n in 0..3 {
        let line = "echo 'CUDA error: unspecified launch failure' >&2; exit 1".to_owned();
        let mut spec = TaskSpec::new(Run::Shell(line));
        spec.requires.insert("worker".into(), "w1".into());
        let id = format!("t{n}");
        base.client.submit(&NewTask { id: id.clone(), spec }).await.unwrap();
        assert_eq!(base.client.wait(&id).await.unwrap().state, "failed");
    }
    let found = base.client.recovery_patterns().await.unwrap();
    assert_eq!(found.quarantined.len(), 1, "{found:?}");
    assert_eq!(found.quarantined[0].worker, "w1");
    assert_eq!(found.failures.len(), 3);
    assert!(found.failures[0].evidence.contains("unspecified launch failure"));
    assert_eq!(base.client.worker("w1").await.unwrap().quarantine, "quarantined");
    let mut spec = TaskSpec::new(Run::Shell("true".into()));
    spec.requires.insert("worker".into(), "w1".into());
    base.client.submit(&NewTask { id: "waits".into(), spec }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(base.client.task("waits").await.unwrap().state, "pending");
    base.client.release("w1").await.unwrap();
    assert_eq!(base.client.wait("waits").await.unwrap().state, "succeeded");
    assert!(base.client.recovery_patterns().await.unwrap().quarantined.is_empty());
    assert!(base.client.release("nobody").await.is_err());
}
