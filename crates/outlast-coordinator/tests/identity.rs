//! Identity: worker keys, sessions, owners. Over real sockets.

mod common;

use common::*;
use outlast_coordinator::Coordinator;
use outlast_net::{Dialler, Http};
use outlast_store::{KeyLimits, Keys, Role};
use outlast_wire::v2::{self, Lane, OutcomeKind, body::Kind, outbox_item};
use outlast_wire::{Bytes, SESSION_HEADER};
use serde_json::{Value, json};
use std::path::Path;

const MANIFESTS: &str = "/api/v2/blobs/manifests";

fn keys(dir: &Path) -> Keys {
    std::fs::create_dir_all(dir).unwrap();
    Keys::open(&outlast_coordinator::Config::store_file(dir)).unwrap()
}

/// A worker with a key of its own.
struct Peer {
    worker: FakeWorker,
    session: String,
    key: String,
}

async fn join(c: &Coordinator, name: &str, key: &str, nonce: u64) -> Result<Peer, v2::Refused> {
    let url = format!("http://{}", c.local_addr());
    let dialler = Dialler::new(&url, name, Some(key), None).unwrap();
    let link = dialler.dial().await.unwrap();
    let mut worker = FakeWorker::on(name, link);
    worker.say(Kind::Hello(v2::Hello { nonce, ..hello(name, &format!("store-{name}"), 1) })).await;
    worker.say(Kind::Inventory(v2::Inventory { holdings: vec![], last: true })).await;
    loop {
        match worker.heard().await {
            Kind::Welcome(w) => {
                return Ok(Peer { worker, session: w.session, key: key.into() });
            }
            Kind::Refused(refused) => return Err(refused),
            _ => {}
        }
    }
}

/// Asks as a worker does; status and body.
async fn bulk(c: &Coordinator, peer: &Peer, session: &str, path: &str) -> (u16, Vec<u8>) {
    let mut lines = format!("authorization: Bearer {}\r\n", peer.key);
    if !session.is_empty() {
        lines += &format!("{SESSION_HEADER}: {session}\r\n");
    }
    let answer = send_with(c, "GET", path, &lines, b"").await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_worker_reads_what_its_tasks_made_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let made = keys(dir.path());
    let [fleet, other] = ["fleet", "other"].map(|n| made.add_key(n, Role::Worker).unwrap().token);
    let boss = made.add_key("boss", Role::Operate).unwrap().token;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let task = json!({ "id": "t", "command": ["x"], "requires": { "worker": "a" } }).to_string();
    assert_eq!(ask(&c, "POST", "/api/v1/tasks", &boss, &task).await.0, 201);
    let mut a = join(&c, "a", &fleet, 1).await.ok().unwrap();
    // One with the same key, and one with another.
    let b = join(&c, "b", &fleet, 2).await.ok().unwrap();
    let x = join(&c, "x", &other, 3).await.ok().unwrap();
    while a.worker.assigned().await.is_empty() {}
    let manifest = upload_as(&c, &noise(300_000, 9), &a.key, &a.session).await;
    let path = format!("{MANIFESTS}/{manifest}");
    let made = outbox_item::Kind::Checkpoint(v2::Checkpoint {
        task_id: "t".into(),
        epoch: 1,
        number: 1,
        manifest: manifest.as_bytes().to_vec().into(),
        size: 300_000,
        ..Default::default()
    });
    a.worker.report(Lane::Checkpoints, made).await;
    let listed = "/api/v2/tasks/t/checkpoints";
    for (peer, status) in [(&a, 200), (&b, 404), (&x, 404)] {
        assert_eq!(bulk(&c, peer, &peer.session, &path).await.0, status);
        assert_eq!(bulk(&c, peer, &peer.session, listed).await.0, status);
        // Without a session, with one of another key, or one made up.
        assert_eq!(bulk(&c, peer, "", &path).await.0, 403);
        assert_eq!(bulk(&c, peer, &format!("{}x", peer.session), &path).await.0, 403);
    }
    assert_eq!(bulk(&c, &x, &a.session, &path).await.0, 403, "a session is of its key");
    assert_eq!(send(&c, "GET", &path, &boss, b"").await.status, 200);
    // Who knows the name of a blob has no right to it: a checkpoint of its own that names it
    // waits for the data.
    let task = json!({ "id": "u", "command": ["x"], "requires": { "worker": "b" } }).to_string();
    assert_eq!(ask(&c, "POST", "/api/v1/tasks", &boss, &task).await.0, 201);
    let mut b = b;
    while b.worker.assigned().await.is_empty() {}
    let stolen = outbox_item::Kind::Checkpoint(v2::Checkpoint {
        task_id: "u".into(),
        epoch: 1,
        number: 1,
        manifest: manifest.as_bytes().to_vec().into(),
        ..Default::default()
    });
    b.worker.offer(Lane::Checkpoints, stolen).await;
    loop {
        match b.worker.heard().await {
            Kind::BlobMissing(m) => break assert_eq!(&m.manifest[..], manifest.as_bytes()),
            Kind::Ack(ack) => assert_eq!(ack.cursors[0].seq, 0),
            _ => {}
        }
    }
    assert_eq!(bulk(&c, &b, &b.session, &path).await.0, 404);
    c.shutdown().await;
}

#[tokio::test]
async fn what_a_stranger_says_of_a_task_is_counted_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    post(
        &c,
        "/api/v1/tasks",
        &json!({ "id": "t", "command": ["x"], "requires": { "worker": "a" } }),
    )
    .await;
    let mut a = FakeWorker::join(&c, hello("a", "sa", 1), vec![]).await;
    let mut b = FakeWorker::join(&c, hello("b", "sb", 1), vec![]).await;
    while a.assigned().await.is_empty() {}
    for task in ["t", "unknown"] {
        b.report(Lane::Results, outcome(task, 1, OutcomeKind::OutcomeSucceeded)).await;
    }
    let (_, task) = get(&c, "/api/v1/tasks/t").await;
    assert_eq!(task["state"], "assigned");
    let (_, history) = get(&c, "/api/v1/tasks/t/history").await;
    assert_eq!(history["events"].as_array().unwrap().len(), 2, "{history}");
    let (_, metrics) = get(&c, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("outlast_foreign_total{kind=\"outcome\"} 2"), "{metrics}");
    a.report(Lane::Results, outcome("t", 1, OutcomeKind::OutcomeSucceeded)).await;
    assert_eq!(get(&c, "/api/v1/tasks/t").await.1["state"], "succeeded");
    c.shutdown().await;
}

#[tokio::test]
async fn a_key_connects_the_workers_that_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let made = keys(dir.path());
    let limits = KeyLimits { workers: vec!["gpu-*".into(), "one".into()], own_tasks: false };
    let gpu = made.add_limited_key("gpu", Role::Worker, &limits).unwrap().token;
    let any = made.add_key("any", Role::Worker).unwrap();
    let boss = made.add_key("boss", Role::Operate).unwrap().token;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    for (name, good) in [("gpu-7", true), ("one", true), ("one-2", false), ("cpu", false)] {
        for version in ["v1", "v2"] {
            let path = format!("/api/{version}/worker/{name}/ws");
            let upgrade = format!(
                "authorization: Bearer {gpu}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            );
            let status = handshake(&c, &path, &upgrade).await;
            assert_eq!(status, if good { 101 } else { 403 }, "{path}");
        }
    }
    // Whose it was first, its worker is; also while it is away.
    drop(join(&c, "gpu-1", &gpu, 1).await.ok().unwrap());
    let refused = join(&c, "gpu-1", &any.token, 1).await.err().unwrap();
    assert_eq!(refused.code(), v2::RefusedCode::RefusedIdentity);
    assert!(refused.reason.contains("bound to the API key \"gpu\""), "{}", refused.reason);
    let (_, _, worker) = ask(&c, "GET", "/api/v1/workers/gpu-1", &boss, "").await;
    assert_eq!(worker["bound_to"], "gpu");
    let (status, ..) = ask(&c, "POST", "/api/v1/workers/gpu-1/unbind", &any.token, "").await;
    assert_eq!(status, 403);
    let (status, ..) = ask(&c, "POST", "/api/v1/workers/gpu-1/unbind", &boss, "").await;
    assert_eq!(status, 204);
    let mut connection = 2;
    // Its former link may take a moment to end.
    loop {
        let link =
            Dialler::new(&format!("http://{}", c.local_addr()), "gpu-1", Some(&any.token), None);
        let mut worker = FakeWorker::on("gpu-1", link.unwrap().dial().await.unwrap());
        let hello = v2::Hello { nonce: 1, ..hello("gpu-1", "store-gpu-1", connection) };
        worker.say(Kind::Hello(hello)).await;
        match worker.heard().await {
            Kind::Welcome(_) => break,
            Kind::Refused(why) => assert!(connection < 20, "{why:?}"),
            _ => {}
        }
        connection += 1;
    }
    c.shutdown().await;
}

#[tokio::test]
async fn a_key_for_its_own_tasks_sees_and_changes_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let made = keys(dir.path());
    let own = KeyLimits { workers: vec![], own_tasks: true };
    let [ann, ben] =
        ["ann", "ben"].map(|n| made.add_limited_key(n, Role::Submit, &own).unwrap().token);
    // A newer key of the same name is the same owner.
    let ann2 = made.add_limited_key("ann", Role::Submit, &own).unwrap().token;
    let all = made.add_key("all", Role::Submit).unwrap().token;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let submit = async |key: &str, id: &str| {
        let task = json!({ "id": id, "command": ["x"] }).to_string();
        ask(&c, "POST", "/api/v1/tasks", key, &task).await
    };
    assert_eq!(submit(&ann, "a1").await.2["owner"], "ann");
    assert_eq!(submit(&ben, "b1").await.0, 201);
    assert_eq!(submit(&ben, "b2").await.0, 201);
    // The same spec, but another's: not even that it is there the same is said.
    assert_eq!(submit(&ann, "b1").await.0, 409);
    assert_eq!(submit(&all, "b1").await.0, 200);
    let ids = |list: &Value| -> Vec<String> {
        let tasks = list["tasks"].as_array().unwrap();
        tasks.iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    for (key, seen, total) in
        [(&ann, vec!["a1"], 1), (&ann2, vec!["a1"], 1), (&ben, vec!["b2", "b1"], 2)]
    {
        let (_, _, list) = ask(&c, "GET", "/api/v1/tasks", key, "").await;
        assert_eq!(ids(&list), seen);
        let (_, _, counts) = ask(&c, "GET", "/api/v1/counts", key, "").await;
        assert_eq!((&counts["total"], &counts["pending"]), (&json!(total), &json!(total)));
    }
    let (_, _, list) =
        ask(&c, "GET", "/api/v1/tasks?state=pending,failed&prefix=b", &ann, "").await;
    assert_eq!(ids(&list), Vec::<String>::new());
    for (method, what) in [
        ("GET", ""),
        ("GET", "/result"),
        ("GET", "/history"),
        ("GET", "/logs"),
        ("GET", "/state"),
        ("GET", "/explain"),
        ("GET", "/checkpoints"),
        ("GET", "/checkpoints/latest/data"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/x/data"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/checkpoint"),
        ("POST", "/move"),
        ("POST", "/retry"),
        ("POST", "/cancel"),
    ] {
        for id in ["b1", "%62%31"] {
            let (status, _, body) =
                ask(&c, method, &format!("/api/v1/tasks/{id}{what}"), &ann, "").await;
            assert_eq!(status, 404, "{method} {id}{what}: {body}");
        }
    }
    for path in ["/metrics", "/api/v1/recovery/patterns"] {
        assert_eq!(ask(&c, "GET", path, &ann, "").await.0, 403, "{path}");
    }
    let body = json!({ "ids": ["a1", "b1"], "wait": 0 }).to_string();
    let (_, _, ended) = ask(&c, "POST", "/api/v1/results", &ann, &body).await;
    assert_eq!(ended["unknown"], json!(["b1"]));
    // Its own stream carries its own tasks only.
    let url = format!("http://{}", c.local_addr());
    let key = ann.clone();
    let stream = tokio::spawn(async move { events_until_a1(&url, &key).await });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(ask(&c, "POST", "/api/v1/tasks/b1/cancel", &ben, "").await.0, 200);
    assert_eq!(ask(&c, "POST", "/api/v1/tasks/a1/cancel", &ann2, "").await.0, 200);
    let seen =
        tokio::time::timeout(std::time::Duration::from_secs(60), stream).await.unwrap().unwrap();
    assert!(seen.contains("\"a1\"") && !seen.contains("\"b1\""), "{seen}");
    assert_eq!(ask(&c, "GET", "/api/v1/tasks/b1", &ben, "").await.2["state"], "cancelled");
    c.shutdown().await;
}

/// Returns the event stream until it has something of task a1.
async fn events_until_a1(url: &str, key: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let at = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut all, mut part) = (String::new(), [0; 4096]);
    while !all.contains("\"a1\"") {
        let n = stream.read(&mut part).await.unwrap();
        assert!(n > 0, "{all}");
        all += &String::from_utf8_lossy(&part[..n]);
    }
    all
}

/// Uploads as a connected worker; the manifest's name.
async fn upload_as(c: &Coordinator, data: &[u8], key: &str, session: &str) -> outlast_blob::Hash {
    let url = format!("http://{}", c.local_addr());
    let dialler = Dialler::new(&url, "w", Some(key), None).unwrap();
    dialler.set_session(session);
    let mut http = Http::new(&dialler);
    let (frames, manifest) = packed(data);
    let body: Vec<u8> = frames.iter().flat_map(|(_, f)| f.clone()).collect();
    let put = http.ask("PUT", "/api/v2/blobs/chunks", body.into()).await.unwrap();
    assert_eq!(put.status, 200);
    let put = http.ask("PUT", MANIFESTS, Bytes::from(manifest.clone())).await.unwrap();
    assert_eq!(put.status, 204);
    outlast_blob::Hash::of(&manifest)
}

/// The status of a WebSocket handshake.
async fn handshake(c: &Coordinator, path: &str, lines: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(c.local_addr()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut part = [0; 512];
    let n = stream.read(&mut part).await.unwrap();
    let text = String::from_utf8_lossy(&part[..n]).into_owned();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}
