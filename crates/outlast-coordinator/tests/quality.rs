//! Metrics, timelines, the fleet and alerts, over HTTP.

mod common;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post as post_route;
use common::*;
use outlast_coordinator::{AlertConfig, Config, Coordinator, WebhookConfig};
use outlast_core::alerts::Measure;
use outlast_wire::v2::{self, Lane, OutcomeKind, body::Kind};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

async fn run_tasks(
    c: &Coordinator,
    w: &mut FakeWorker,
    from: usize,
    count: usize,
    kind: OutcomeKind,
) {
    for n in from..from + count {
        let id = format!("t{n}");
        let (status, _) = post(c, "/api/v1/tasks", &json!({"id": id, "shell": "x"})).await;
        assert!(status < 300);
        let tasks = w.assigned().await;
        w.report(Lane::Results, outcome(&id, tasks[0].epoch, kind)).await;
    }
}

#[tokio::test]
async fn what_is_measured_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Config = config(dir.path());
    config.core.heartbeat_interval = 300;
    // It never speaks unasked: a slow machine must not take that for silence.
    config.core.heartbeat_timeout = 60_000;
    let c = Coordinator::start(config.clone()).await.unwrap();
    let link = v2::LinkReport {
        attempts: 3,
        failures: 2,
        connected_ms: 60_000,
        disconnected_ms: 20_000,
        ..Default::default()
    };
    let first = v2::Hello { link: Some(Box::new(link)), ..hello("w", "s", 1) };
    let mut w = FakeWorker::join(&c, first, Vec::new()).await;
    run_tasks(&c, &mut w, 0, 3, OutcomeKind::OutcomeSucceeded).await;
    run_tasks(&c, &mut w, 3, 1, OutcomeKind::OutcomeFailed).await;
    // Answers two heartbeats, late; and sends two with a gap.
    for seq in [1, 5] {
        let beat = loop {
            if let Kind::Heartbeat(beat) = next(&mut w.receiver).await {
                break beat;
            }
        };
        sleep(Duration::from_millis(40)).await;
        let reply = v2::HeartbeatReply { seq: beat.seq };
        say(&mut w.sender, Kind::HeartbeatReply(reply)).await;
        let beat = v2::Heartbeat { seq, running: 1, restored: 2, rtt_ms: 41, ..Default::default() };
        say(&mut w.sender, Kind::Heartbeat(beat)).await;
    }
    let m = until(&c, "/api/v1/workers/w/metrics", |m| m["link"]["rtt"]["samples"] == 2).await;
    assert!(m["avg_message_latency_ms"].as_f64().unwrap() >= 40.0, "{m:#}");
    assert_eq!(m["link"]["heartbeats_lost"], 3);
    assert_eq!((&m["tasks_executed"], &m["task_success_rate"]), (&json!(4), &json!(0.75)));
    assert_eq!((&m["connection_attempts"], &m["successful_connections"]), (&json!(3), &json!(1)));
    assert_eq!((&m["checkpoints_restored"], &m["link"]["worker_rtt_ms"]), (&json!(2), &json!(41)));
    let stability = m["connection_stability"].as_f64().unwrap();
    assert!((0.75..0.80).contains(&stability), "{stability}");
    assert!(m["link"]["suspicion"].as_f64().is_some() && m["messages_sent"].as_u64() > Some(8));
    // Its seconds are kept from the first look on.
    let series = until(&c, "/api/v1/workers/s/metrics?resolution=1s", |m| {
        m["series"]["connected"].as_array().unwrap().iter().any(|v| v == 1.0)
    })
    .await;
    let count = series["series"]["at"].as_array().unwrap().len();
    assert!((300..=301).contains(&count), "{count}");
    let fleet = until(&c, "/api/v1/fleet", |f| f["workers"]["running"][0] == 1).await;
    assert_eq!(fleet["totals"]["connected"], 1);
    assert_eq!(
        (&fleet["workers"]["name"], &fleet["workers"]["state"]),
        (&json!(["w"]), &json!(["connected"]))
    );
    let (_, _, prom) = ask(&c, "GET", "/metrics", "", "").await;
    let prom = prom.as_str().unwrap().to_owned();
    for line in [
        "outlast_heartbeats_lost_total 3",
        "outlast_workers_by_rtt{le=\"+Inf\"} 1",
        "outlast_worker_running{worker=\"w\"} 1",
        "outlast_workers_with_alerts{severity=\"critical\"} 0",
        "outlast_connection_attempts_total 1",
        "outlast_reconnect_seconds_count 0",
        "outlast_reconnect_max_seconds 0",
        "outlast_message_latency_seconds_count 2",
        "outlast_tasks_executed_total{result=\"succeeded\"} 3",
        "outlast_tasks_executed_total{result=\"failed\"} 1",
        "outlast_task_execution_seconds_sum 0.00",
        "outlast_task_execution_seconds_count 4",
        "outlast_checkpoints_restored_total 2",
        "outlast_compression_bytes_total{when=\"before\"}",
        "# TYPE outlast_compression_ratio gauge",
        "outlast_compression_seconds_total ",
        "outlast_decompression_seconds_total ",
        "outlast_worker_loss_ratio{worker=\"w\"} 0.",
        "outlast_worker_jitter_seconds{worker=\"w\"} ",
        "outlast_worker_goodput_up_bytes_per_second{worker=\"w\"} ",
        "outlast_worker_goodput_down_bytes_per_second{worker=\"w\"} ",
    ] {
        assert!(prom.contains(line), "{line} in {prom}");
    }
    let (_, _, prom) = ask(&c, "GET", "/metrics?workers=0", "", "").await;
    assert!(!prom.as_str().unwrap().contains("worker=\"w\""));
    c.shutdown().await;
    drop(w);

    let c = Coordinator::start(config).await.unwrap();
    let m = get(&c, "/api/v1/workers/w/metrics?resolution=1m").await.1;
    let sum = |m: &Value, of: &str| {
        let column = m["series"][of].as_array().unwrap();
        column.iter().filter_map(Value::as_u64).sum::<u64>()
    };
    assert_eq!((sum(&m, "tasks_executed"), sum(&m, "tasks_failed")), (4, 1), "{m:#}");
    assert_eq!(sum(&m, "heartbeats_lost"), 3);
    assert_eq!(m["link"]["last_disconnect"]["cause"], "coordinator_restarted");
    let m = get(&c, "/api/v1/workers/w/metrics?resolution=1h").await.1;
    assert_eq!(sum(&m, "tasks_executed"), 4);
    let line = until(&c, "/api/v1/workers/w/timeline", |t| {
        t["intervals"].as_array().unwrap().last().is_some_and(|i| i["state"] == "away")
    })
    .await;
    let states: Vec<&str> = line["intervals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["resync", "connected", "unknown", "away"], "{line:#}");
    assert_eq!(line["intervals"][3]["cause"], "coordinator_restarted");
    let _w = FakeWorker::join(&c, hello("w", "s", 2), Vec::new()).await;
    until(&c, "/api/v1/workers/w/timeline", |t| {
        t["intervals"].as_array().unwrap().last().is_some_and(|i| i["state"] == "connected")
    })
    .await;
    c.shutdown().await;
}

#[tokio::test]
async fn resync_lasts_until_what_is_owed_was_applied() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let owed = vec![v2::Cursor { lane: Lane::Results.into(), seq: 2 }];
    let link = Some(Box::new(v2::LinkReport { owed, ..Default::default() }));
    let mut w = FakeWorker::join(&c, v2::Hello { link, ..hello("w", "s", 1) }, Vec::new()).await;
    let state = |t: &Value| t["intervals"].as_array().unwrap().last().unwrap()["state"].clone();
    w.report(Lane::Results, outcome("unknown", 1, OutcomeKind::OutcomeSucceeded)).await;
    assert_eq!(state(&get(&c, "/api/v1/workers/w/timeline").await.1), "resync");
    assert!(get(&c, "/api/v1/workers/w/metrics").await.1["link"]["resync_ms"].is_null());
    w.report(Lane::Results, outcome("unknown", 2, OutcomeKind::OutcomeSucceeded)).await;
    assert_eq!(state(&get(&c, "/api/v1/workers/w/timeline").await.1), "connected");
    assert!(get(&c, "/api/v1/workers/w/metrics").await.1["link"]["resync_ms"].is_u64());
    c.shutdown().await;
}

#[tokio::test]
async fn the_fleet_comes_in_pages_and_forgets_the_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut held = Vec::new();
    for name in ["c", "a", "b"] {
        held.push(FakeWorker::join(&c, hello(name, &format!("s-{name}"), 1), Vec::new()).await);
    }
    until(&c, "/api/v1/fleet", |f| f["workers"]["name"] == json!(["a", "b", "c"])).await;
    let page = get(&c, "/api/v1/fleet?limit=2").await.1;
    assert_eq!((&page["workers"]["id"], &page["next"]), (&json!(["s-a", "s-b"]), &json!("b")));
    let page = get(&c, "/api/v1/fleet?limit=2&cursor=b").await.1;
    assert_eq!((&page["workers"]["name"], &page["next"]), (&json!(["c"]), &json!(null)));
    drop(held.remove(1));
    until(&c, "/api/v1/fleet", |f| f["workers"]["state"][0] == "away").await;
    assert_eq!(send(&c, "DELETE", "/api/v1/workers/a", "", b"").await.status, 204);
    until(&c, "/api/v1/fleet", |f| f["workers"]["name"] == json!(["b", "c"])).await;
    assert_eq!(get(&c, "/api/v1/workers/a/metrics").await.0, 404);
    c.shutdown().await;
}

#[tokio::test]
async fn what_a_worker_adapted_is_shown_while_it_lasts_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let mut w = FakeWorker::join(&c, hello("w", "s", 1), Vec::new()).await;
    let narrow = v2::Adapted {
        setting: "batch".into(),
        from: "256 kB".into(),
        to: "64 kB".into(),
        why: "it carries 128 kB/s".repeat(100),
        at_ms: 1,
        ..Default::default()
    };
    let wide = v2::Adapted { to: "256 kB".into(), configured: true, ..narrow.clone() };
    say(&mut w.sender, Kind::Adapted(narrow)).await;
    let m = until(&c, "/api/v1/workers/w/metrics", |m| m["adaptation"][0].is_object()).await;
    let a = &m["adaptation"][0];
    assert_eq!(
        (&a["side"], &a["setting"], &a["to"]),
        (&json!("worker"), &json!("batch"), &json!("64 kB"))
    );
    assert!(a["why"].as_str().unwrap().len() <= 200, "what a worker says is cut");
    say(&mut w.sender, Kind::Adapted(wide)).await;
    until(&c, "/api/v1/workers/w/metrics", |m| m["adaptation"] == json!([])).await;
    let line = until(&c, "/api/v1/workers/w/timeline", |t| {
        t["notes"].as_array().is_some_and(|notes| notes.len() == 2)
    })
    .await;
    let first = line["notes"][0]["text"].as_str().unwrap();
    assert!(first.starts_with("batch (worker): 256 kB → 64 kB: it carries"), "{first}");
    assert_eq!(line["intervals"].as_array().unwrap().last().unwrap()["state"], "connected");
    c.shutdown().await;
}

#[tokio::test]
async fn mistakes_in_questions_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let _w = FakeWorker::join(&c, hello("w", "s", 1), Vec::new()).await;
    for (path, status, says) in [
        ("/api/v1/workers/none/metrics", 404, "none"),
        ("/api/v1/workers/none/timeline", 404, "none"),
        ("/api/v1/workers/w/metrics?resolution=5s", 400, "1s, 1m and 1h"),
        ("/api/v1/workers/w/metrics?from=monday", 400, "RFC 3339"),
        ("/api/v1/workers/w/metrics?resolution=1m&from=1000", 400, "coarser"),
        ("/api/v1/workers/w/metrics?from=2030-01-01T00:00:00Z", 400, "later than to"),
        ("/api/v1/workers/w/timeline?from=9&to=3", 400, "later than to"),
        ("/api/v1/alerts?state=bad", 400, "firing and cleared"),
        ("/api/v1/events?include=task,flet", 400, "fleet"),
        ("/api/v1/fleet?limit=x", 400, "limit"),
    ] {
        let (got, body) = get(&c, path).await;
        assert_eq!(got, status, "{path}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(says), "{path}: {body}");
    }
    // A key is needed where keys are.
    let document = get(&c, "/api/v1/openapi.json").await.1;
    for path in ["workers/{name}/metrics", "workers/{name}/timeline", "fleet", "alerts"] {
        assert!(document["paths"][format!("/api/v1/{path}")]["get"].is_object(), "{path}");
    }
    assert!(document["components"]["schemas"]["FleetEvent"].is_object());
    c.shutdown().await;
}

type Taken = Arc<Mutex<(u32, Vec<Value>)>>;

/// Refuses the first delivery.
async fn take(State(taken): State<Taken>, body: axum::Json<Value>) -> StatusCode {
    let mut taken = taken.lock().unwrap();
    taken.0 += 1;
    if taken.0 == 1 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    taken.1.extend(body.0["alerts"].as_array().unwrap().clone());
    StatusCode::NO_CONTENT
}

/// A webhook that listens, what it takes, and how it is reached.
async fn hook() -> (Taken, WebhookConfig, tokio::task::JoinHandle<std::io::Result<()>>) {
    let taken = Taken::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = Router::new().route("/hook", post_route(take)).with_state(taken.clone());
    let server = tokio::spawn(async move { axum::serve(listener, hook).await });
    (taken, WebhookConfig { url, token: None, timeout: Duration::from_secs(5) }, server)
}

#[tokio::test]
async fn an_alert_that_stands_is_cleared_when_the_coordinator_ends() {
    let (taken, webhook, server) = hook().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.watch.alerts.webhook = Some(webhook);
    for rule in &mut config.watch.alerts.rules {
        rule.enabled = rule.measure == Measure::TaskSuccess;
        rule.min_samples = 4;
    }
    let c = Coordinator::start(config).await.unwrap();
    let mut w = FakeWorker::join(&c, hello("w", "s", 1), Vec::new()).await;
    run_tasks(&c, &mut w, 0, 4, OutcomeKind::OutcomeFailed).await;
    until(&c, "/api/v1/alerts?state=firing", |a| a["alerts"][0].is_object()).await;
    c.shutdown().await;
    let (_, sent) = taken.lock().unwrap().clone();
    let states: Vec<_> = sent.iter().map(|a| a["state"].clone()).collect();
    assert_eq!(states, [json!("firing"), json!("cleared")], "{sent:#?}");
    assert_eq!(sent[0]["id"], sent[1]["id"]);
    assert!(sent[1]["message"].as_str().unwrap().contains("the coordinator ends"));
    server.abort();
}

#[tokio::test]
async fn an_alert_fires_and_clears_once_everywhere() {
    let (taken, webhook, server) = hook().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let mut alerts = AlertConfig { webhook: Some(webhook), ..AlertConfig::default() };
    for rule in &mut alerts.rules {
        rule.enabled = rule.measure == Measure::TaskSuccess;
        (rule.min_samples, rule.clear_hold) = (4, 1_500);
    }
    config.watch.alerts = alerts;
    let c = Coordinator::start(config).await.unwrap();
    let mut events = tokio::net::TcpStream::connect(c.local_addr()).await.unwrap();
    let request = b"GET /api/v1/events?include=alert,fleet HTTP/1.1\r\nhost: localhost\r\n\r\n";
    events.write_all(request).await.unwrap();
    let mut w = FakeWorker::join(&c, hello("w", "s", 1), Vec::new()).await;
    run_tasks(&c, &mut w, 0, 3, OutcomeKind::OutcomeFailed).await;
    sleep(Duration::from_millis(1_200)).await;
    let none = get(&c, "/api/v1/alerts").await.1;
    assert_eq!(none["alerts"], json!([]), "three samples say nothing");
    assert_eq!(none["rules"].as_array().unwrap().len(), Measure::ALL.len());
    run_tasks(&c, &mut w, 3, 1, OutcomeKind::OutcomeFailed).await;
    let fired = until(&c, "/api/v1/alerts?state=firing", |a| a["alerts"][0].is_object()).await;
    let alert = &fired["alerts"][0];
    assert_eq!((&alert["rule"], &alert["severity"]), (&json!("task_success"), &json!("critical")));
    assert_eq!((&alert["worker"], &alert["value"]), (&json!("w"), &json!(0.0)));
    assert_eq!(fired["rules"][3]["to"], json!(["log", "webhook"]));
    until(&c, "/api/v1/fleet", |f| f["workers"]["alert"][0] == "critical").await;
    run_tasks(&c, &mut w, 4, 140, OutcomeKind::OutcomeSucceeded).await;
    let done = until(&c, "/api/v1/alerts?worker=s", |a| a["alerts"][0]["state"] == "cleared").await;
    assert_eq!(done["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(done["alerts"][0]["id"], alert["id"]);
    until(&c, "/api/v1/fleet", |f| f["workers"]["alert"][0] == "").await;
    // The first delivery was refused, and sent again.
    sleep(Duration::from_millis(2_500)).await;
    let (tries, sent) = taken.lock().unwrap().clone();
    let states: Vec<_> = sent.iter().map(|a| (a["id"].clone(), a["state"].clone())).collect();
    let id = &alert["id"];
    assert_eq!(states, [(id.clone(), json!("firing")), (id.clone(), json!("cleared"))]);
    assert!((2..=3).contains(&tries), "{tries}");
    let mut told = vec![0; 1 << 20];
    let mut len = 0;
    while let Ok(Ok(n)) = timeout(Duration::from_millis(300), events.read(&mut told[len..])).await {
        if n == 0 {
            break;
        }
        len += n;
    }
    let told = String::from_utf8_lossy(&told[..len]);
    assert_eq!(told.matches("event: alert").count(), 2, "{told}");
    assert!(told.matches("event: fleet").count() >= 3, "{told}");
    c.shutdown().await;
    server.abort();
}
