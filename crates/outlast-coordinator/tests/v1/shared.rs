//! Several links of one worker, its addresses, and what an unmodified client does beside results.

use super::client::{dial, dial_at, join};
use super::common::*;
use super::{count, events, start, submit, task, until};
use outlast_coordinator::Coordinator;
use outlast_store::{KeyLimits, Keys, Role};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

#[tokio::test]
async fn links_of_one_worker_share_its_session() {
    let (_dir, c) = start().await;
    let mut first = join(c.local_addr(), "w", json!({ "slots": 2 })).await;
    first.beat(1, &[]).await;
    let mut second = join(c.local_addr(), "w", json!({ "slots": 2 })).await;
    submit(&c, "a", json!({})).await;
    submit(&c, "b", json!({})).await;
    // Work goes to the newest, and each is answered where it asks.
    assert_eq!(second.expect("task_assignment").await["task_id"], "a");
    assert_eq!(second.expect("task_assignment").await["task_id"], "b");
    let result = json!({ "type": "task_result", "task_id": "a", "result": { "n": 1 } });
    for n in 0..4 {
        let link = if n % 2 == 0 { &mut first } else { &mut second };
        link.say(result.clone()).await.unwrap();
        link.expect("task_result_ack").await;
    }
    let happened = events(&c, "a").await;
    assert_eq!((count(&happened, "succeeded"), count(&happened, "superseded")), (1, 0));
    assert_eq!(first.beat(2, &["b"]).await["type"], "heartbeat");
    second.beat(3, &["b"]).await;
    // One of two ends: its session goes on, and so does what it runs.
    drop(second);
    let m = until_links(&c, "w").await;
    assert_eq!(m["state"], "connected", "{m}");
    submit(&c, "c", json!({})).await;
    assert_eq!(first.expect_among("task_assignment").await["task_id"], "c");
    assert_eq!(task(&c, "b").await["attempt"], 1);
    drop(first);
    for _ in 0..200 {
        if get(&c, "/api/v1/workers/w").await.1["state"] == "suspect" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("it ends with its last link");
}

/// The worker, once its coordinator has seen that a link ended.
async fn until_links(c: &Coordinator, name: &str) -> Value {
    let ended = |metrics: &str| metrics.contains("outlast_links_ended_total{");
    for _ in 0..200 {
        let (_, _, metrics) = ask(c, "GET", "/metrics", "", "").await;
        if metrics.as_str().is_some_and(ended) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    get(c, &format!("/api/v1/workers/{name}")).await.1
}

#[tokio::test]
async fn more_links_than_a_worker_may_have_are_refused_before_they_open() {
    let (_dir, c) = start().await;
    let mut links = Vec::new();
    for _ in 0..64 {
        links.push(join(c.local_addr(), "w", json!({})).await);
    }
    match dial(c.local_addr(), "w", "").await.err() {
        Some(Error::Http(response)) => {
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], "60");
        }
        other => panic!("{other:?}"),
    }
    for (n, link) in links.iter_mut().enumerate() {
        link.beat(n as u64, &[]).await;
    }
}

/// The status of a request to upgrade at an address that no client library would write.
async fn raw_upgrade(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn an_address_may_end_with_a_slash_or_lack_the_id() {
    logged("");
    let (_dir, c) = start().await;
    let addr = c.local_addr();
    let paths = ["w1/ws/", "%7Bworker_id%7D/ws", "%7Bworker_id%7D/ws/"];
    for (n, path) in paths.iter().enumerate() {
        let name = format!("w{}", n + 1);
        let mut w = dial_at(addr, &format!("/api/v1/worker/{path}"), &name, "").await.unwrap();
        w.expect("welcome").await;
        w.say(json!({ "type": "registration", "capabilities": {} })).await.unwrap();
        assert_eq!(w.expect("registration_ack").await["worker_id"], *name);
        w.beat(1, &[]).await;
        let (status, worker) = get(&c, &format!("/api/v1/workers/{name}")).await;
        assert_eq!((status, &worker["state"]), (200, &json!("connected")));
    }
    assert_eq!(raw_upgrade(addr, "/api/v1/worker/{worker_id}/ws").await, "HTTP/1.1 101");
    // A message that names nobody there.
    let mut w = dial_at(addr, "/api/v1/worker/%7Bworker_id%7D/ws", "w", "").await.unwrap();
    w.expect("welcome").await;
    w.text(r#"{"type": "registration"}"#.into()).await.unwrap();
    assert!(w.expect("error").await["message"].as_str().unwrap().contains("worker_id"));
    // And an id that cannot be one.
    let mut w = dial_at(addr, "/api/v1/worker/%7Bworker_id%7D/ws", "a b", "").await.unwrap();
    w.expect("welcome").await;
    w.say(json!({ "type": "registration", "capabilities": {} })).await.unwrap();
    assert!(w.expect("error").await["message"].as_str().unwrap().contains("worker id"));
    w.closed().await;
    // What is nowhere is in the log, with its reason.
    assert_eq!(raw_upgrade(addr, "/api/v1/workers/w/socket").await, "HTTP/1.1 404");
    assert_eq!(raw_upgrade(addr, "/api/v1/worker/a%20b/ws").await, "HTTP/1.1 400");
    let lines = logged("/api/v1/workers/w/socket");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("404") && lines[0].contains("/api/v1/worker/ID/ws"), "{lines:?}");
}

#[tokio::test]
async fn an_answer_that_it_runs_is_not_its_result() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    submit(&c, "next", json!({ "priority": -1 })).await;
    let acks = json!({ "acks": ["registration_ack", "task_result_ack"] });
    let mut w = join(c.local_addr(), "w", acks).await;
    let first = w.expect("task_assignment").await["task_id"].clone();
    assert_eq!(first, "t");
    let answer =
        json!({ "type": "task_result", "task_id": "t", "result": { "status": "running" } });
    w.say(answer).await.unwrap();
    w.say(json!({ "type": "task_state", "task_id": "t", "state": { "progress": 40 } }))
        .await
        .unwrap();
    // Nothing follows an answer, no acknowledgement of states is wanted, and the slot is taken.
    w.beat(1, &["t"]).await;
    assert_eq!(task(&c, "t").await["state"], "assigned");
    // A heartbeat's answer does not wait for the disk, what is shown does.
    let state = super::common::until(&c, "/api/v1/tasks/t/state", |s| s["progress"] == 0.4).await;
    assert_eq!(state["state"], json!({ "progress": 40 }));
    w.say(json!({ "type": "task_result", "task_id": "t", "result": { "n": 2 } })).await.unwrap();
    w.expect("task_result_ack").await;
    assert_eq!(w.expect("task_assignment").await["task_id"], "next");
    until(&c, "t", "succeeded").await;
    assert_eq!(get(&c, "/api/v1/tasks/t/result").await.1["value"], json!({ "n": 2 }));
    assert_eq!(count(&events(&c, "t").await, "superseded"), 0);
}

#[tokio::test]
async fn a_key_for_some_workers_lets_in_no_other_that_says_its_id_later() {
    let dir = tempfile::tempdir().unwrap();
    let file = outlast_coordinator::Config::store_file(dir.path());
    Coordinator::start(config(dir.path())).await.unwrap().shutdown().await;
    let limits = KeyLimits { workers: vec!["a*".into()], ..Default::default() };
    let keys = Keys::open(&file).unwrap();
    let key = keys.add_limited_key("k", Role::Worker, &limits).unwrap().token;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let place = "/api/v1/worker/%7Bworker_id%7D/ws";
    for (name, let_in) in [("a1", true), ("b1", false)] {
        let mut w = dial_at(c.local_addr(), place, name, &key).await.unwrap();
        w.expect("welcome").await;
        w.say(json!({ "type": "registration", "capabilities": {} })).await.unwrap();
        if let_in {
            w.expect("registration_ack").await;
        } else {
            let error = w.expect("error").await;
            assert!(error["message"].as_str().unwrap().contains("does not allow"), "{error}");
            w.closed().await;
        }
    }
}
