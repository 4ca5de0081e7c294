//! Running work as people see and steer it: checkpoints, states, pauses, moves, drains, stories.

mod common;

use common::*;
use outlast_coordinator::Coordinator;
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, ControlKind, Lane, OutcomeKind, StopReason, outbox_item};
use prost::Message;
use serde_json::{Value, json};
use std::time::Duration;

fn holding(task: &str, epoch: u64) -> v2::Holding {
    v2::Holding {
        task_id: task.into(),
        epoch,
        state: v2::HoldingState::HoldingRunning.into(),
        started_at_ms: 1_795_514_400_000,
        paused: false,
    }
}

fn checkpoint(number: u64, manifest: Vec<u8>, size: u64, dropped: bool) -> outbox_item::Kind {
    outbox_item::Kind::Checkpoint(v2::Checkpoint {
        task_id: "t".into(),
        epoch: 1,
        number,
        manifest: manifest.into(),
        size,
        created_at_ms: 1_795_514_400_000,
        meta_json: br#"{"kind":"file","name":"model.pt","user":{"step":7}}"#.to_vec().into(),
        dropped,
        ..Default::default()
    })
}

async fn ranged(c: &Coordinator, path: &str, range: &str) -> (u16, Vec<u8>) {
    let answer = send_with(c, "GET", path, &format!("range: {range}\r\n"), b"").await;
    (answer.status, answer.body)
}

async fn submit(c: &Coordinator) {
    let task = json!({ "id": "t", "command": ["x"] });
    assert_eq!(post(c, "/api/v1/tasks", &task).await.0, 201);
}

async fn story(c: &Coordinator) -> (Vec<String>, String, String) {
    let (status, story) = get(c, "/api/v1/tasks/t/explain").await;
    assert_eq!(status, 200);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let sentences = story["sentences"].as_array().unwrap().iter().map(text).collect();
    (sentences, text(&story["now"]), text(&story["hint"]))
}

#[tokio::test]
async fn checkpoints_and_states_are_shown_and_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    submit(&c).await;
    assert_eq!(get(&c, "/api/v1/tasks/t/checkpoints").await.1["checkpoints"], json!([]));
    assert_eq!(get(&c, "/api/v1/tasks/t/state").await.1["state"], json!({}));
    for path in ["none/checkpoints", "none/state", "none/explain", "t/checkpoints/latest/data"] {
        assert_eq!(get(&c, &format!("/api/v1/tasks/{path}")).await.0, 404, "{path}");
    }
    let mut worker = FakeWorker::join(&c, hello("w", "s", 1), vec![]).await;
    worker.assigned().await;
    // A checkpoint whose blob is not here has to wait for it.
    let data = noise(700_000, 9);
    let (_, manifest) = packed(&data);
    let name = outlast_blob::Hash::of(&manifest).as_bytes().to_vec();
    worker.offer(Lane::Checkpoints, checkpoint(1, name.clone(), 700_000, false)).await;
    loop {
        match worker.heard().await {
            Kind::BlobMissing(missing) => break assert_eq!(missing.manifest, name),
            Kind::Ack(ack) => assert_eq!(ack.cursors[0].seq, 0, "not acknowledged"),
            other => panic!("{other:?}"),
        }
    }
    upload(&c, &data).await;
    let mut worker = FakeWorker::join(&c, hello("w", "s", 2), vec![holding("t", 1)]).await;
    worker.report(Lane::Checkpoints, checkpoint(1, name.clone(), 700_000, false)).await;
    worker.report(Lane::Checkpoints, checkpoint(2, vec![], 800_000, true)).await;
    let update = v2::StateUpdate {
        task_id: "t".into(),
        epoch: 1,
        version: 3,
        state_json: br#"{"loss":0.5}"#.to_vec().into(),
        progress: 0.25,
        has_progress: true,
        at_ms: 1_795_514_400_000,
    };
    worker.report(Lane::State, outbox_item::Kind::State(update)).await;
    let (_, list) = get(&c, "/api/v1/tasks/t/checkpoints").await;
    let list = list["checkpoints"].as_array().unwrap();
    let field = |name: &str| list.iter().map(|c| c[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("id"), [json!("1-1"), json!("1-2")]);
    assert_eq!(field("kept"), [json!(true), json!(false)]);
    assert_eq!(field("dropped"), [json!(false), json!(true)]);
    assert_eq!(field("worker"), [json!("w"), json!("w")]);
    assert_eq!(list[0]["meta"]["user"]["step"], 7);
    // Its worker gets the list of what is kept.
    let kept = send(&c, "GET", "/api/v2/tasks/t/checkpoints", "", b"").await;
    let first = v2::Checkpoint::decode_length_delimited(&kept.body[..]).unwrap();
    assert_eq!(first.encode_length_delimited_to_vec(), kept.body, "no other");
    assert_eq!(
        (format!("{}-{}", first.epoch, first.number), &first.manifest[..]),
        ("1-1".to_owned(), &name[..])
    );
    assert_eq!(send(&c, "GET", "/api/v2/tasks/none/checkpoints", "", b"").await.status, 404);
    for which in ["latest", "1-1"] {
        let got =
            send(&c, "GET", &format!("/api/v1/tasks/t/checkpoints/{which}/data"), "", b"").await;
        assert_eq!((got.status, got.header("content-length")), (200, Some("700000")));
        assert_eq!(got.header("outlast-checkpoint"), Some("1-1"));
        assert!(got.header("outlast-checkpoint-meta").unwrap().contains("model.pt"));
        assert_eq!(got.body, data);
    }
    // A download that broke off goes on.
    let (status, rest) =
        ranged(&c, "/api/v1/tasks/t/checkpoints/latest/data", "bytes=699990-").await;
    assert_eq!((status, rest), (206, data[699_990..].to_vec()));
    let (status, all) =
        ranged(&c, "/api/v1/tasks/t/checkpoints/latest/data", "bytes=9999999-").await;
    assert_eq!((status, all.len()), (200, data.len()));
    for (which, says) in [("1-2", "dropped"), ("9-9", "no such"), ("newest", "latest")] {
        let (status, problem) = get(&c, &format!("/api/v1/tasks/t/checkpoints/{which}/data")).await;
        assert_eq!(status, 404);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    // A file that belongs to the result is no checkpoint.
    let file = upload(&c, b"a report").await;
    let outbox_item::Kind::Checkpoint(mut kept) = checkpoint(3, file.as_bytes().to_vec(), 8, false)
    else {
        unreachable!()
    };
    kept.artifact = "report.txt".into();
    worker.report(Lane::Checkpoints, outbox_item::Kind::Checkpoint(kept)).await;
    let (_, list) = get(&c, "/api/v1/tasks/t/artifacts").await;
    assert_eq!(list["artifacts"][0]["artifact"], "report.txt");
    let got = send(&c, "GET", "/api/v1/tasks/t/artifacts/report.txt/data", "", b"").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"a report"[..]));
    assert_eq!(get(&c, "/api/v1/tasks/t/artifacts/other/data").await.0, 404);
    let (_, list) = get(&c, "/api/v1/tasks/t/checkpoints").await;
    assert_eq!(list["checkpoints"].as_array().unwrap().len(), 2);
    let (_, state) = get(&c, "/api/v1/tasks/t/state").await;
    assert_eq!((&state["state"], &state["version"]), (&json!({ "loss": 0.5 }), &json!(3)));
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["progress"], 0.25);
    assert_eq!(get(&c, "/api/v1/tasks").await.1["tasks"][0]["progress"], 0.25);
    let (_, metrics) = get(&c, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "outlast_checkpoints_total 3",
        "outlast_blobs_missing_total 1",
        "outlast_blob_manifests 2",
        "outlast_links_ended_total{cause=\"taken_over\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // Its end has a cause, and a newer attempt would go on from the checkpoint.
    worker.report(Lane::Results, outcome("t", 1, OutcomeKind::OutcomeFailed)).await;
    let (_, task) = get(&c, "/api/v1/tasks/t").await;
    assert_eq!((&task["state"], &task["cause"]), (&json!("failed"), &json!("exit")));
    let (_, history) = get(&c, "/api/v1/tasks/t/history").await;
    assert_eq!(history["events"].as_array().unwrap().last().unwrap()["cause"], "exit");
    let (sentences, now, hint) = story(&c).await;
    assert!(sentences.iter().any(|s| s.contains("checkpoint 1-1")), "{sentences:?}");
    assert!(now.contains("failed") && hint.contains("goes on from checkpoint 1-1"), "{now} {hint}");
    post(&c, "/api/v1/tasks/t/retry", &json!({})).await;
    let again = worker.assigned().await;
    assert_eq!(again[0].checkpoint.as_ref().map(|c| (c.epoch, c.number)), Some((1, 1)));
    c.shutdown().await;
}

#[tokio::test]
async fn people_pause_move_and_drain() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    submit(&c).await;
    let act = async |what: &str, body: &str| {
        let answer = send(&c, "POST", &format!("/api/v1/{what}"), "", body.as_bytes()).await;
        (answer.status, answer.json())
    };
    let (status, task) = act("tasks/t/pause", "").await;
    assert_eq!(
        (status, &task["paused"], &task["waiting_for"]),
        (200, &json!(true), &json!("it is paused"))
    );
    let paused = async || {
        let (_, counts) = get(&c, "/api/v1/counts").await;
        ["paused", "pending", "assigned", "total"].map(|key| counts[key].as_u64().unwrap())
    };
    assert_eq!(paused().await, [1, 1, 0, 1]);
    let listed = async |query: &str| {
        let (status, list) = get(&c, &format!("/api/v1/tasks?{query}")).await;
        (status, list["tasks"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(listed("paused=true").await, (200, 1));
    assert_eq!(listed("paused=true&state=assigned").await, (200, 0));
    assert_eq!(listed("paused=yes").await.0, 400);
    assert_eq!(act("tasks/t/checkpoint", "").await.0, 409, "nobody has it");
    let mut a = FakeWorker::join(&c, hello("a", "sa", 1), vec![]).await;
    let (_, now, hint) = story(&c).await;
    assert!(now.contains("paused") && hint.contains("outlast task resume t"), "{now} {hint}");
    assert_eq!(act("tasks/t/resume", "").await.0, 200);
    assert_eq!(a.assigned().await.len(), 1);
    assert_eq!((paused().await, listed("paused=true").await), ([0, 0, 1, 1], (200, 0)));
    // It runs: pause and checkpoint reach its worker.
    act("tasks/t/pause", "").await;
    act("tasks/t/checkpoint", "").await;
    act("tasks/t/resume", "").await;
    for kind in
        [ControlKind::ControlPause, ControlKind::ControlCheckpoint, ControlKind::ControlResume]
    {
        match a.heard().await {
            Kind::Control(control) => assert_eq!(control.kind(), kind),
            other => panic!("{other:?}"),
        }
    }
    // It is moved.
    assert_eq!(act("tasks/t/move", r#"{"to":"b"}"#).await.0, 404, "no such worker");
    assert_eq!(act("tasks/t/move", "{").await.0, 400);
    let mut b = FakeWorker::join(&c, hello("b", "sb", 1), vec![]).await;
    assert_eq!(act("tasks/t/move", r#"{"to":"b"}"#).await.0, 200);
    loop {
        match a.heard().await {
            Kind::Stop(stop) => break assert_eq!(stop.reason(), StopReason::StopMove),
            // Whoever moves it wants it to go on.
            Kind::Control(control) => assert_eq!(control.kind(), ControlKind::ControlResume),
            other => panic!("{other:?}"),
        }
    }
    a.report(Lane::Results, outcome("t", 1, OutcomeKind::OutcomeInterrupted)).await;
    assert_eq!(b.assigned().await[0].epoch, 2);
    let (sentences, now, _) = story(&c).await;
    assert!(sentences.iter().any(|s| s.contains("to be moved from a to b")), "{sentences:?}");
    assert!(
        sentences.iter().any(|s| s.contains("until a person moved it (moved)")),
        "{sentences:?}"
    );
    assert!(now.starts_with("attempt 2 is at b"), "{now}");
    // A drained worker is given nothing; the drain outlives its connection and the coordinator.
    let (status, worker) = act("workers/a/drain", "").await;
    assert_eq!(
        (status, &worker["state"], &worker["drained"]),
        (200, &json!("draining"), &json!(true))
    );
    assert_eq!(act("workers/none/drain", "").await.0, 404);
    assert_eq!((act("tasks/t/pause", "").await.0, paused().await), (200, [1, 0, 1, 1]));
    assert!(matches!(b.heard().await, Kind::Control(_)), "the pause reaches its worker");
    b.report(Lane::Results, outcome("t", 2, OutcomeKind::OutcomeSucceeded)).await;
    assert_eq!(
        (act("tasks/t/pause", "").await.0, paused().await),
        (409, [0, 0, 0, 1]),
        "it has ended"
    );
    drop(b);
    c.shutdown().await;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut a = FakeWorker::join(&c, hello("a", "sa", 2), vec![]).await;
    post(&c, "/api/v1/tasks", &json!({ "id": "u", "command": ["x"] })).await;
    let (_, worker) = get(&c, "/api/v1/workers/b").await;
    assert_eq!((&worker["state"], &worker["drained"]), (&json!("away"), &json!(false)));
    assert!(!worker["gone_cause"].as_str().unwrap().is_empty(), "{worker}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&c, "/api/v1/tasks/u").await.1["state"], "pending");
    let undrained = send(&c, "POST", "/api/v1/workers/a/undrain", "", b"").await;
    assert_eq!(undrained.status, 200);
    assert_eq!(a.assigned().await[0].task_id, "u");
    c.shutdown().await;
}
