//! Pings, actions, and a coordinator that restarts.

use super::client::join;
use super::common::*;
use super::{start, submit, task};
use outlast_coordinator::Coordinator;
use outlast_wire::v2::body::Kind;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_link_on_which_nothing_arrives_after_a_ping_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let ping = outlast_coordinator::PingConfig {
        interval: Duration::from_millis(150),
        timeout: Duration::from_millis(150),
    };
    let config = outlast_coordinator::Config { ping, ..config(dir.path()) };
    let c = Coordinator::start(config).await.unwrap();
    let gone = async |name: &str| {
        let (_, worker) = get(&c, &format!("/api/v1/workers/{name}")).await;
        (worker["state"] == "away").then(|| worker["gone_reason"].as_str().unwrap().to_owned())
    };
    let mut reads = join(c.local_addr(), "reads", json!({})).await;
    let mut v2 = FakeWorker::join(&c, hello("v2", "s", 1), vec![]).await;
    // One that reads answers pings by itself; one that does not, does not.
    let silent = join(c.local_addr(), "silent", json!({})).await;
    let reading = async {
        tokio::select! {
            _ = reads.hear() => panic!("nothing is said"),
            _ = v2.receiver.next() => panic!("nothing is said to it either"),
            () = tokio::time::sleep(Duration::from_millis(1_500)) => {}
        }
    };
    reading.await;
    assert_eq!(gone("reads").await, None);
    assert_eq!(gone("v2").await, None);
    assert!(gone("silent").await.unwrap().contains("0.15 s of a WebSocket ping"));
    drop(silent);
}

#[tokio::test]
async fn a_person_can_ask_something_of_a_worker() {
    let (_dir, c) = start().await;
    let act = async |name: &str, what: Value| {
        post(&c, &format!("/api/v1/workers/{name}/actions"), &what).await
    };
    let reset = json!({ "type": "reset_connection_stats" });
    let mut w = join(c.local_addr(), "w", json!({})).await;
    assert_eq!(act("w", reset.clone()).await.0, 202);
    let resend = json!({ "type": "resend_task_results", "task_ids": ["a", "b"] });
    assert_eq!(act("w", resend.clone()).await.0, 202);
    let told = w.beat(1, &[]).await["actions"].clone();
    assert_eq!(told, json!([resend, reset]));
    assert_eq!(w.beat(2, &[]).await.get("actions"), None, "it is asked once");
    // Workers of protocol 2: the reset reaches them, the rest is needless.
    let mut v2 = FakeWorker::join(&c, hello("v2", "s", 1), vec![]).await;
    assert_eq!(act("v2", reset.clone()).await.0, 202);
    assert!(matches!(v2.heard().await, Kind::ResetStats(_)));
    assert_eq!(act("v2", json!({ "type": "sync_state" })).await.0, 409);
    drop(v2);
    for _ in 0..100 {
        if get(&c, "/api/v1/workers/v2").await.1["state"] == "away" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(act("v2", reset.clone()).await.0, 202);
    let mut v2 = FakeWorker::join(&c, hello("v2", "s", 2), vec![]).await;
    assert!(matches!(v2.heard().await, Kind::ResetStats(_)), "asked while it was away");
    assert_eq!(act("nobody", reset).await.0, 404);
    assert_eq!(act("w", json!({ "type": "dance" })).await.0, 400);
    let many = json!({ "type": "cancel_tasks", "task_ids": vec!["x"; 1_001] });
    assert_eq!(act("w", many).await.0, 400);
}

#[tokio::test]
async fn a_restarted_coordinator_asks_for_what_it_may_have_missed() {
    let (dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.expect("task_assignment").await;
    w.say(json!({ "type": "task_state", "task_id": "t", "state": { "a": 1 } })).await.unwrap();
    w.expect("task_state_ack").await;
    c.shutdown().await;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.say(json!({ "type": "heartbeat", "sequence": 1, "active_tasks": ["t"] })).await.unwrap();
    assert_eq!(w.expect_among("state_request").await["task_id"], "t");
    assert_eq!(w.expect_among("checkpoint_request").await.get("checkpoint_id"), None);
    // It goes on with what was known: merged, and newer.
    w.say(json!({ "type": "task_state", "task_id": "t", "state": { "b": 2 } })).await.unwrap();
    w.expect_among("task_state_ack").await;
    let (_, state) = get(&c, "/api/v1/tasks/t/state").await;
    assert_eq!((&state["state"], &state["version"]), (&json!({ "a": 1, "b": 2 }), &json!(2)));
    assert_eq!(task(&c, "t").await["attempt"], 1, "its worker keeps it");
}

async fn gone(c: &Coordinator, name: &str) -> String {
    for _ in 0..200 {
        let (_, worker) = get(c, &format!("/api/v1/workers/{name}")).await;
        // Until the cause is in the store it looks as if the coordinator had been restarted.
        match worker["gone_cause"].as_str().unwrap() {
            "" | "coordinator_restarted" => {}
            cause => return cause.to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} is there");
}

#[tokio::test]
async fn a_worker_that_closes_its_link_stopped_and_finds_its_tasks_again() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    for (code, cause) in [(1000, "worker_stopped"), (1001, "worker_stopped"), (1011, "network")] {
        let mut w = join(c.local_addr(), "w", json!({})).await;
        let beat = json!({ "type": "heartbeat", "sequence": 1, "active_tasks": ["t"] });
        if code == 1000 {
            w.expect("task_assignment").await;
        }
        w.say(beat).await.unwrap();
        w.expect_among("heartbeat").await;
        w.close(code).await;
        assert_eq!(gone(&c, "w").await, cause, "{code}");
        let task = task(&c, "t").await;
        assert_eq!((&task["state"], &task["attempt"]), (&json!("assigned"), &json!(1)));
    }
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.say(json!({ "type": "task_result", "task_id": "t", "result": {} })).await.unwrap();
    w.expect("task_result_ack").await;
    assert_eq!(task(&c, "t").await["attempt"], 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_a_checkpoint_too_long_is_not_asked_for_again() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.expect("task_assignment").await;
    w.beat(1, &["t"]).await;
    w.bytes(vec![1, 2]).await.unwrap();
    w.expect("error").await;
    w.say(json!({ "type": "checkpoint", "task_id": "t", "checkpoint_id": "1" })).await.unwrap();
    assert_eq!(w.expect_among("checkpoint_request").await["checkpoint_id"], "1");
    // The coordinator may end the link before all of it is written.
    let _ = w.text("x".repeat((24 << 20) + 1)).await;
    drop(w);
    gone(&c, "w").await;
    let (_, history) = get(&c, "/api/v1/tasks/t/history").await;
    assert!(history.to_string().contains("checkpoint 1 was on its way"), "{history}");
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.say(json!({ "type": "heartbeat", "sequence": 2, "active_tasks": ["t"] })).await.unwrap();
    w.expect_among("heartbeat").await;
    // What it would be asked for would have come before this answer.
    w.say(json!({ "type": "checkpoint", "task_id": "t", "checkpoint_id": "2" })).await.unwrap();
    assert_eq!(w.expect_among("checkpoint_request").await["checkpoint_id"], "2");
    let (_, metrics) = get(&c, "/api/v1/workers/w/metrics").await;
    let number = |of: &Value| of.as_u64().unwrap();
    let lost = number(&metrics["link"]["heartbeats_lost"]);
    assert_eq!(
        number(&metrics["message_errors"]) - lost,
        2,
        "the binary one, and the one too long"
    );
}

#[tokio::test]
async fn its_links_are_counted_and_its_statistics_begin_anew() {
    logged("");
    let (_dir, c) = start().await;
    let metrics = "/api/v1/workers/counted/metrics";
    let mut w = join(c.local_addr(), "counted", json!({})).await;
    w.beat(7, &[]).await;
    drop(w);
    let m = until(&c, metrics, |m| m["state"] == "away").await;
    assert_eq!((&m["connection_attempts"], &m["successful_connections"]), (&json!(1), &json!(1)));
    assert_eq!(m["avg_reconnect_time"], json!(null));
    // It counts its heartbeats on.
    let mut w = join(c.local_addr(), "counted", json!({})).await;
    w.beat(12, &[]).await;
    let m = until(&c, metrics, |m| m["link"]["resync_ms"].is_u64()).await;
    assert_eq!((&m["connection_attempts"], &m["successful_connections"]), (&json!(2), &json!(2)));
    assert!(m["avg_reconnect_time"].is_number() && m["max_reconnect_time"].is_number(), "{m:#}");
    assert_eq!((&m["link"]["heartbeats_lost"], &m["link"]["reconnects"]), (&json!(0), &json!(1)));
    assert_eq!(logged("CONNECT worker counted is here").len(), 1);
    assert_eq!(logged("RECONNECT worker counted is back").len(), 1);
    assert!(!logged("SYNC worker counted has delivered everything").is_empty());

    let reset = json!({ "type": "reset_connection_stats" });
    assert_eq!(post(&c, "/api/v1/workers/counted/actions", &reset).await.0, 202);
    let m = until(&c, metrics, |m| m["link"]["reconnects"] == 0).await;
    assert_eq!((&m["connection_stability"], &m["message_errors"]), (&json!(1.0), &json!(0)));
    assert_eq!((&m["max_reconnect_time"], &m["connection_attempts"]), (&json!(null), &json!(0)));
    let (_, _, prom) = ask(&c, "GET", "/metrics", "", "").await;
    for line in ["outlast_reconnects_total 1", "outlast_reconnect_seconds_count 1"] {
        assert!(prom.as_str().unwrap().contains(line), "{line} goes on");
    }
}

#[tokio::test]
async fn more_actions_than_may_wait_are_refused() {
    let (_dir, c) = start().await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    let act = async |n: usize| {
        let what = json!({ "type": "resend_task_results", "task_ids": [format!("t{n}")] });
        post(&c, "/api/v1/workers/w/actions", &what).await
    };
    for n in 0..16 {
        assert_eq!(act(n).await.0, 202);
    }
    let (status, problem) = act(16).await;
    assert_eq!((status, &problem["status"]), (429, &json!(429)), "{problem}");
    assert_eq!(act(3).await.0, 202, "it waits already");
    w.beat(1, &[]).await;
    assert_eq!(act(16).await.0, 202, "those were sent");
}
