//! The OpenAPI document against the routes, real answers (all other tests here check theirs, too),
//! events, and its copy.

mod common;

use common::*;
use outlast_coordinator::Coordinator;
use outlast_wire::v2::{self, Lane, OutcomeKind, outbox_item};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Copy of the document from which the dashboard's types are generated. It has no descriptions and no
/// summaries, so that it changes with the API only.
const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dashboard/openapi.json");

fn drop_descriptions(part: &mut Value) {
    match part {
        Value::Object(fields) => {
            let text = |name: &str| matches!(name, "description" | "summary");
            fields.retain(|name, value| !text(name) || !value.is_string());
            fields.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

#[test]
fn the_copy_is_current() {
    let mut document = document::document().clone();
    drop_descriptions(&mut document);
    let document = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(COPY, &document).unwrap();
    }
    let copy = std::fs::read_to_string(COPY).unwrap_or_default();
    assert!(copy == document, "run `make openapi`, and commit what it changes");
}

/// Texts of `.route(…)` in the sources below a folder.
fn routes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            routes(&entry, found);
        } else {
            let text = std::fs::read_to_string(&entry).unwrap();
            let after = text.split(".route(").skip(1).map(|rest| rest.trim_start());
            let paths = after.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
            found.extend(paths.map(ToOwned::to_owned));
        }
    }
}

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_exists() {
    let mut found = BTreeSet::new();
    routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 40, "{found:?}");
    // Links and blobs of workers are described in the protocol; the page, and the document itself.
    let other = |path: &str| {
        path == "/"
            || path.starts_with("/dashboard")
            || path.starts_with("/api/v2/")
            || path.starts_with("/api/v1/worker/")
            || path == "/api/v1/openapi.json"
    };
    let paths = document::document()["paths"].as_object().unwrap();
    let missing: Vec<_> =
        found.iter().filter(|path| !other(path) && !paths.contains_key(*path)).collect();
    assert!(missing.is_empty(), "undocumented: {missing:?}");
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    for (path, methods) in paths.iter().filter(|(path, _)| *path != "/api/v1/events") {
        for method in methods.as_object().unwrap().keys() {
            let at = path.replace(['{', '}'], "");
            let answer = send(&c, &method.to_uppercase(), &at, "", b"{}").await;
            let problem = answer.json()["type"].as_str().unwrap_or_default().to_owned();
            let unknown = ["urn:outlast:problem:no-route", "urn:outlast:problem:no-method"];
            assert!(answer.status != 405, "{method} {path} does not exist");
            assert!(!unknown.contains(&&*problem), "{method} {path} does not exist");
        }
    }
    c.shutdown().await;
}

fn checkpoint(task: &str, dropped: bool, artifact: &str, manifest: Vec<u8>) -> outbox_item::Kind {
    outbox_item::Kind::Checkpoint(v2::Checkpoint {
        task_id: task.into(),
        epoch: 1,
        number: if dropped { 2 } else { 1 },
        manifest: manifest.into(),
        size: 7,
        created_at_ms: 1_795_514_400_000,
        meta_json: br#"{"user":{"step":7}}"#.to_vec().into(),
        dropped,
        artifact: artifact.into(),
    })
}

/// Tasks in all states, with checkpoints, a state, a failure and a worker that has gone.
async fn life(c: &Coordinator) {
    let mut w = FakeWorker::join(c, v2::Hello { slots: 8, ..hello("w", "s", 1) }, vec![]).await;
    let spec = json!({ "id": "done", "shell": "true", "labels": { "a": "b" }, "timeout": 9 });
    assert_eq!(post(c, "/api/v1/tasks", &spec).await.0, 201);
    assert_eq!(post(c, "/api/v1/tasks", &spec).await.0, 200);
    let call = json!({ "id": "call", "call": { "function": "f", "args": [1] } });
    let browser = json!({ "id": "browser", "browser": { "script": "1" } });
    let failing = json!({ "id": "failed", "command": ["false"], "max_retries": 0 });
    let batch = json!([failing, call, browser, { "id": "waits", "shell": "x", "requires": { "gpu": "*" } }]);
    assert_eq!(post(c, "/api/v1/tasks", &batch).await.0, 200);
    let mut given = 0;
    while given < 3 {
        given += w.assigned().await.len();
    }
    let manifest = upload(c, b"content").await.as_bytes().to_vec();
    w.report(Lane::Checkpoints, checkpoint("done", false, "", manifest)).await;
    w.report(Lane::Checkpoints, checkpoint("done", true, "", vec![])).await;
    let update = v2::StateUpdate {
        task_id: "call".into(),
        epoch: 1,
        version: 3,
        state_json: br#"{"loss":0.5}"#.to_vec().into(),
        progress: 0.25,
        has_progress: true,
        at_ms: 1_795_514_400_000,
    };
    w.report(Lane::State, outbox_item::Kind::State(update)).await;
    w.report(Lane::Results, outcome("done", 1, OutcomeKind::OutcomeSucceeded)).await;
    w.report(Lane::Results, outcome("failed", 1, OutcomeKind::OutcomeFailed)).await;
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(post(c, &format!("/api/v1/tasks/waits/{action}"), &json!({})).await.0, 200);
    }
    assert_eq!(post(c, "/api/v1/tasks/waits/retry", &json!({})).await.0, 200);
    let wanted = json!({ "ids": ["done", "failed", "none"] });
    assert_eq!(post(c, "/api/v1/results", &wanted).await.0, 200);
    assert_eq!(post(c, "/api/v1/workers/w/drain", &json!({})).await.0, 200);
    drop(w);
    until(c, "/api/v1/workers/w", |w| w["state"] == "suspect").await;
    assert_eq!(post(c, "/api/v1/workers/w/undrain", &json!({})).await.0, 200);
}

#[tokio::test]
async fn every_document_and_event_is_as_described() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut events = TcpStream::connect(c.local_addr()).await.unwrap();
    let request =
        b"GET /api/v1/events?include=task,worker,alert,fleet HTTP/1.0\r\nhost: localhost\r\n\r\n";
    events.write_all(request).await.unwrap();
    life(&c).await;
    // Measured once a second.
    until(&c, "/api/v1/fleet", |f| f["workers"]["cause"][0] == "network").await;
    for (template, methods) in document::document()["paths"].as_object().unwrap() {
        let answer = &methods["get"]["responses"]["200"]["content"]["application/json"];
        // It needs a key to prove.
        if answer.is_null() || template == "/api/v1/prove" {
            continue;
        }
        for task in ["done", "failed", "call", "browser", "waits"] {
            let path = template.replace("{id}", task).replace("{name}", "w");
            let (status, body) = get(&c, &path).await;
            let over = template.ends_with("/result") && !["done", "failed"].contains(&task);
            assert_eq!(status, if over { 409 } else { 200 }, "{path}: {body}");
        }
    }
    let mut told = Vec::new();
    let mut part = vec![0; 1 << 16];
    while let Ok(Ok(n)) = timeout(Duration::from_millis(500), events.read(&mut part)).await {
        told.extend_from_slice(&part[..n]);
        if n == 0 || told.len() > 1 << 20 {
            break;
        }
    }
    let mut seen = BTreeSet::new();
    let told = String::from_utf8(told).unwrap();
    for block in told.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let (Some(kind), Some(data)) = (field("event: "), field("data: ")) else { continue };
        let name = match kind {
            "task" => "TaskEvent",
            "worker" => "WorkerEvent",
            "fleet" => "FleetEvent",
            other => panic!("unknown event {other}"),
        };
        let data: Value = serde_json::from_str(data).unwrap();
        document::check_named(name, &data);
        seen.insert(kind);
    }
    assert_eq!(seen, BTreeSet::from(["task", "worker", "fleet"]), "{told}");
    c.shutdown().await;
}
