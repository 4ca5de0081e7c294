//! Removal of what ended long ago; its id may be used again.

mod common;

use common::*;
use outlast_coordinator::{Config, Coordinator, RetentionConfig};
use outlast_wire::v2::{Lane, OutcomeKind, TaskOutcome};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const OK: OutcomeKind = OutcomeKind::OutcomeSucceeded;

async fn start(dir: &Path, keep: Duration, most: u64) -> Coordinator {
    let retention = RetentionConfig { keep, most, every: Duration::from_millis(100) };
    Coordinator::start(Config { retention, ..config(dir) }).await.unwrap()
}

async fn gone(c: &Coordinator, path: &str) {
    let begun = Instant::now();
    while get(c, path).await.0 != 404 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{path} stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_old_task_goes_and_a_new_one_of_its_id_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path(), Duration::from_secs(2), 1000).await;
    let task = |id: &str, priority| {
        json!({ "id": id, "command": ["x"], "priority": priority, "labels": { "k": "v" },
                "max_retries": 0 })
    };
    let mut worker = FakeWorker::join(&c, hello("w", "s", 1), vec![]).await;
    post(&c, "/api/v1/tasks", &task("t", 0)).await;
    assert_eq!(worker.assigned().await[0].epoch, 1);
    worker.report(Lane::Results, outcome("t", 1, OutcomeKind::OutcomeFailed)).await;
    post(&c, "/api/v1/tasks", &task("unfinished", 0)).await;
    gone(&c, "/api/v1/tasks/t").await;
    assert_eq!(get(&c, "/api/v1/tasks/unfinished").await.0, 200, "only what is over");
    assert_eq!(get(&c, "/api/v1/tasks?label=k%3Dv").await.1["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(post(&c, "/api/v1/tasks/t/retry", &json!({})).await.0, 404);

    // Another spec is no conflict; and what comes late of the former task is not its result.
    assert_eq!(worker.assigned().await[0].task_id, "unfinished");
    worker.report(Lane::Results, outcome("unfinished", 1, OK)).await;
    assert_eq!(post(&c, "/api/v1/tasks", &task("t", 5)).await.0, 201);
    let new = worker.assigned().await;
    assert_eq!((new[0].task_id.as_str(), new[0].epoch), ("t", 2));
    worker.report(Lane::Results, outcome("t", 1, OK)).await;
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["state"], "assigned");
    c.shutdown().await;

    // The same after a restart.
    let c = start(dir.path(), Duration::from_secs(3600), 1000).await;
    let held = outlast_wire::v2::Holding { task_id: "t".into(), epoch: 2, ..Default::default() };
    let mut worker = FakeWorker::join(&c, hello("w", "s", 2), vec![held]).await;
    worker.report(Lane::Results, outcome("t", 1, OK)).await;
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["state"], "assigned");
    let late = TaskOutcome { task_id: "t".into(), epoch: 2, kind: OK.into(), ..Default::default() };
    worker.report(Lane::Results, outlast_wire::v2::outbox_item::Kind::Outcome(late)).await;
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["state"], "succeeded");
    c.shutdown().await;
}

#[tokio::test]
async fn only_so_many_stay_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path(), Duration::from_secs(3600), 2).await;
    for n in 0..5 {
        let id = format!("t{n}");
        post(&c, "/api/v1/tasks", &json!({ "id": id, "command": ["x"] })).await;
        if n != 1 {
            post(&c, &format!("/api/v1/tasks/{id}/cancel"), &json!({})).await;
        }
    }
    gone(&c, "/api/v1/tasks/t2").await;
    gone(&c, "/api/v1/tasks/t0").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for stays in ["t1", "t3", "t4"] {
        assert_eq!(get(&c, &format!("/api/v1/tasks/{stays}")).await.0, 200, "{stays}");
    }
    c.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_never_came_back_is_forgotten_and_taken_back_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path(), Duration::from_secs(1), 1000).await;
    let worker = FakeWorker::join(&c, hello("away", "s", 1), vec![]).await;
    let stays = FakeWorker::join(&c, hello("here", "s2", 1), vec![]).await;
    drop(worker);
    gone(&c, "/api/v1/workers/away").await;
    assert_eq!(get(&c, "/api/v1/workers/here").await.0, 200);
    FakeWorker::join(&c, hello("away", "s", 2), vec![]).await;
    assert_eq!(get(&c, "/api/v1/workers/away").await.0, 200);
    drop(stays);
    c.shutdown().await;
}

#[tokio::test]
async fn a_coordinator_that_starts_on_another_day_removes_nothing_by_age_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let submit = async |c: &Coordinator, id: &str| {
        post(c, "/api/v1/tasks", &json!({ "id": id, "command": ["x"] })).await;
        post(c, &format!("/api/v1/tasks/{id}/cancel"), &json!({})).await;
    };
    let c = start(dir.path(), Duration::from_secs(3600), 1000).await;
    submit(&c, "t").await;
    c.shutdown().await;
    // As if the clock had gone on by three days meanwhile.
    let store = rusqlite::Connection::open(dir.path().join("coordinator.db")).unwrap();
    let days = 3 * 86_400_000;
    store.execute("UPDATE events SET at = at - ?1", [days]).unwrap();
    store
        .execute(
            "UPDATE tasks SET submitted_at = submitted_at - ?1, ended_at = ended_at - ?1",
            [days],
        )
        .unwrap();
    drop(store);
    let c = start(dir.path(), Duration::from_secs(3600), 1000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(&c, "/api/v1/tasks/t").await.0, 200, "the clock may be wrong");
    c.shutdown().await;
    // The number that stay is kept to.
    let c = start(dir.path(), Duration::from_secs(3600), 0).await;
    gone(&c, "/api/v1/tasks/t").await;
    // What is of today was removed by its age, and by the next start nothing is strange.
    submit(&c, "u").await;
    c.shutdown().await;
    let c = start(dir.path(), Duration::ZERO, 1000).await;
    gone(&c, "/api/v1/tasks/u").await;
    c.shutdown().await;
}
