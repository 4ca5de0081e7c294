//! A backup is made while the coordinator works, and what is restored from it goes on safely.

mod common;

use common::*;
use outlast_coordinator::{BackupError, Coordinator, backup, restore};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, Lane, OutcomeKind, StopReason, outbox_item};
use serde_json::json;
use std::fs;

fn running(task: &str) -> v2::Holding {
    let state = v2::HoldingState::HoldingRunning.into();
    v2::Holding { task_id: task.into(), epoch: 1, state, started_at_ms: 1, paused: false }
}

#[tokio::test]
async fn work_goes_on_from_a_backup_and_nothing_counts_twice() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let c = Coordinator::start(config(&at("data"))).await.unwrap();
    for id in ["running", "finished", "later", "done"] {
        post(&c, "/api/v1/tasks", &json!({ "id": id, "command": ["x"] })).await;
    }
    let hello = |connection| v2::Hello { slots: 4, ..hello("w", "s", connection) };
    let mut worker = FakeWorker::join(&c, hello(1), vec![]).await;
    let mut given = 0;
    while given < 4 {
        given += worker.assigned().await.len();
    }
    let data = noise(500_000, 1);
    let manifest = upload(&c, &data).await;
    let checkpoint = v2::Checkpoint {
        task_id: "running".into(),
        epoch: 1,
        number: 1,
        manifest: manifest.as_bytes().to_vec().into(),
        size: 500_000,
        ..Default::default()
    };
    worker.report(Lane::Checkpoints, outbox_item::Kind::Checkpoint(checkpoint)).await;
    worker.report(Lane::Results, outcome("done", 1, OutcomeKind::OutcomeSucceeded)).await;
    let info = backup(&at("data"), &at("copy")).unwrap();
    assert_eq!((info.tasks, info.unfinished, info.blobs), (4, 3, 1));
    assert!(matches!(backup(&at("data"), &at("copy")), Err(BackupError::Taken(_))));
    // What happens after it is not in it.
    worker.report(Lane::Results, outcome("later", 1, OutcomeKind::OutcomeSucceeded)).await;
    drop(worker);
    c.shutdown().await;
    fs::remove_dir_all(at("data")).unwrap();

    restore(&at("copy"), &at("new"), true, None).unwrap();
    let c = Coordinator::start(config(&at("new"))).await.unwrap();
    assert_eq!(get(&c, "/api/v1/info").await.1["coordinator_id"], info.coordinator_id.as_str());
    assert_eq!(get(&c, "/api/v1/tasks/done").await.1["state"], "succeeded");
    let (_, task) = get(&c, "/api/v1/tasks/running").await;
    assert_eq!((&task["attempt"], &task["worker"]), (&json!(1001), &json!("w")));
    // Its worker still runs one task, and has finished another meanwhile.
    let coordinator_id = info.coordinator_id.clone();
    let back = v2::Hello { coordinator_id, ..hello(2) };
    let holds = vec![
        running("running"),
        v2::Holding { state: v2::HoldingState::HoldingFinished.into(), ..running("finished") },
    ];
    let mut worker = FakeWorker::join(&c, back, holds).await;
    let (mut stopped, mut given) = (Vec::new(), Vec::new());
    while given.len() < 3 {
        match worker.heard().await {
            Kind::Stop(stop) => {
                assert_eq!(stop.reason(), StopReason::StopSuperseded);
                stopped.extend(stop.attempts.into_iter().map(|a| (a.task_id, a.epoch)));
            }
            Kind::Assign(assign) => given.extend(assign.tasks),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stopped, [("running".into(), 1)]);
    assert!(given.iter().all(|a| a.epoch == 1001));
    let newest = given.iter().find(|a| a.task_id == "running").unwrap();
    assert_eq!(newest.checkpoint.as_ref().map(|c| (c.epoch, c.number)), Some((1, 1)));
    let got = send(&c, "GET", "/api/v1/tasks/running/checkpoints/latest/data", "", b"").await;
    assert_eq!(got.body, data);
    // A result of then counts, and the attempt of now does not any more.
    worker.offer(Lane::Results, outcome("finished", 1, OutcomeKind::OutcomeSucceeded)).await;
    loop {
        match worker.heard().await {
            Kind::Stop(stop) => assert_eq!(stop.attempts[0].epoch, 1001),
            Kind::Ack(_) => break,
            other => panic!("{other:?}"),
        }
    }
    for task in ["running", "later"] {
        worker.report(Lane::Results, outcome(task, 1001, OutcomeKind::OutcomeSucceeded)).await;
    }
    worker.report(Lane::Results, outcome("finished", 1001, OutcomeKind::OutcomeSucceeded)).await;
    for id in ["running", "finished", "later", "done"] {
        let (_, history) = get(&c, &format!("/api/v1/tasks/{id}/history")).await;
        let events = history["events"].as_array().unwrap();
        let ends = events.iter().filter(|e| e["event"] == "succeeded").count();
        assert_eq!(ends, 1, "{history}");
        let noted = events.iter().any(|e| e["reason"].as_str().unwrap().contains("a backup of"));
        assert_eq!(noted, id != "done", "{history}");
    }
    let (_, story) = get(&c, "/api/v1/tasks/running/explain").await;
    let story = story["sentences"].to_string();
    assert!(story.contains("attempt 1 was at w") && story.contains("restored"), "{story}");
    c.shutdown().await;
}

#[tokio::test]
async fn what_is_no_backup_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(matches!(backup(&at("none"), &at("copy")), Err(BackupError::NoData(_))));
    let c = Coordinator::start(config(&at("data"))).await.unwrap();
    post(&c, "/api/v1/tasks", &json!({ "id": "t", "command": ["x"] })).await;
    fs::create_dir(at("copy")).unwrap();
    backup(&at("data"), &at("copy")).unwrap();
    c.shutdown().await;
    assert!(matches!(restore(&at("data"), &at("new"), true, None), Err(BackupError::NoBackup(..))));
    assert!(matches!(restore(&at("copy"), &at("data"), true, None), Err(BackupError::Taken(_))));
    let file = at("copy").join("coordinator.db");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    restore(&at("copy"), &at("new"), true, None).unwrap_err();
    assert!(!at("new").exists());
    fs::write(&file, &whole).unwrap();
    restore(&at("copy"), &at("new"), true, None).unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}
