//! The HTTP API and the worker's link as strangers use them: mistakes, keys, limits, restarts.

mod common;

use common::*;
use outlast_coordinator::{Config, Coordinator, TlsFiles};
use outlast_net::{Dialler, Receiver};
use outlast_store::{Keys, Role};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, RefusedCode};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn many_results_in_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let tasks: Vec<Value> = ["a", "b", "c"].map(|id| json!({ "id": id, "shell": "true" })).to_vec();
    assert_eq!(post(&c, "/api/v1/tasks", &json!(tasks)).await.0, 200);
    let ask = async |body: Value| post(&c, "/api/v1/results", &body).await;
    // Nothing ended: the wait passes. What is not there is said at once.
    let (status, none) = ask(json!({ "ids": ["a", "b"], "wait": 1 })).await;
    assert_eq!((status, none), (200, json!({ "results": [], "unknown": [] })));
    let (_, unknown) = ask(json!({ "ids": ["a", "nobody"], "wait": 60 })).await;
    assert_eq!(unknown["unknown"], json!(["nobody"]));
    // The one that ends while it waits.
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(post(&c, "/api/v1/tasks/b/cancel", &json!({})).await.0, 200);
    };
    let wait = async {
        let asked = ask(json!({ "ids": ["a", "b", "c"], "wait": 60 }));
        tokio::time::timeout(Duration::from_secs(120), asked).await.unwrap().1
    };
    let (ended, ()) = tokio::join!(wait, cancel);
    let ended = ended["results"].as_array().unwrap();
    assert_eq!((ended.len(), &ended[0]["id"]), (1, &json!("b")));
    assert_eq!(ended[0]["state"], "cancelled");
    assert_eq!(ask(json!({ "ids": vec!["c"; 1001] })).await.0, 400);
    assert_eq!(ask(json!({ "nonsense": [] })).await.0, 400);
    c.shutdown().await;
}

async fn refused(receiver: &mut Receiver) -> (RefusedCode, bool) {
    match next(receiver).await {
        Kind::Refused(refused) => {
            assert!(!refused.reason.is_empty());
            (refused.code(), refused.retry)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn submitting_is_idempotent_and_mistakes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let task = json!({ "id": "a", "command": ["true"] });
    let (status, first) = post(&c, "/api/v1/tasks", &task).await;
    assert_eq!((status, &first["state"]), (201, &json!("pending")));
    assert!(first["waiting_for"].as_str().unwrap().contains("no worker"));
    assert_eq!(post(&c, "/api/v1/tasks", &task).await.0, 200);
    let (status, kind, problem) =
        ask(&c, "POST", "/api/v1/tasks", "", r#"[{"id":"b","shell":"x"},{"id":"a","shell":"y"}]"#)
            .await;
    assert_eq!((status, kind.as_str()), (409, "application/problem+json"));
    assert_eq!(problem["conflicts"], json!(["a"]));
    assert_eq!(get(&c, "/api/v1/tasks/b").await.0, 404, "all or nothing");
    for (body, says) in [
        (json!({}), "not a task"),
        (json!({ "shell": "x", "prioriti": 1 }), "prioriti"),
        (json!({ "shell": "x", "timeout": -1 }), "timeout"),
        (json!({ "shell": "x", "id": "a b" }), "id"),
        (json!({ "shell": "x", "requires": { "cores": ">=many" } }), "cores"),
        (json!([{ "shell": "x" }, { "shell": 7 }]), "task 1 of the array"),
    ] {
        let (status, problem) = post(&c, "/api/v1/tasks", &body).await;
        assert_eq!(status, 400, "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{body}: {problem}");
    }
    let many: Vec<Value> = (0..60).map(|_| json!({ "shell": "x" })).collect();
    // Never, however often it is asked; less is refused for now.
    let (status, problem) = post(&c, "/api/v1/tasks", &json!(many)).await;
    assert_eq!(
        (status, &problem["type"]),
        (413, &json!("urn:outlast:problem:too-many-tasks")),
        "{problem}"
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("60 new") && detail.contains("max_unfinished"), "{problem}");
    assert_eq!(post(&c, "/api/v1/tasks", &json!(many[..50])).await.0, 429);
    let many: Vec<Value> = (0..10_001).map(|_| json!({ "shell": "x" })).collect();
    assert_eq!(post(&c, "/api/v1/tasks", &json!(many)).await.0, 400);
    for (path, status) in [
        ("/api/v1/tasks?state=odd", 400),
        ("/api/v1/tasks?colour=red", 400),
        ("/api/v1/tasks?limit=0", 400),
        ("/api/v1/tasks?worker=nobody", 404),
        ("/api/v1/tasks/none/history", 404),
        ("/api/v1/tasks/a/result", 409),
        ("/api/v1/tasks/a/logs", 503),
        ("/api/v1/nothing", 404),
        ("/api/v2/worker/w/ws", 426),
        ("/api/v1/tasks/a", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/api/v1/openapi.json", 200),
    ] {
        assert_eq!(get(&c, path).await.0, status, "{path}");
    }
    assert_eq!(post(&c, "/api/v1/tasks/a/cancel", &json!({})).await.1["state"], "cancelled");
    assert_eq!(post(&c, "/api/v1/tasks/a/cancel", &json!({})).await.0, 409);
    assert_eq!(post(&c, "/api/v1/tasks/a/retry", &json!({})).await.1["state"], "pending");
    c.shutdown().await;
    // Everything is there again.
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let (_, history) = get(&c, "/api/v1/tasks/a/history").await;
    let events: Vec<&str> =
        history["events"].as_array().unwrap().iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(events, ["submitted", "cancelled", "retried"]);
    c.shutdown().await;
}

#[tokio::test]
async fn keys_decide_who_may_do_what() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere = Config { listen: ([0, 0, 0, 0], 0).into(), ..config(dir.path()) };
    let c = Coordinator::start(everywhere).await.unwrap();
    assert!(c.loopback_only() && c.local_addr().ip().is_loopback());
    let (_early, mut early_in) = link(&c, "early").await;
    let keys = Keys::open(&Config::store_file(dir.path())).unwrap();
    let worker = keys.add_key("w", Role::Worker).unwrap();
    let submit = keys.add_key("s", Role::Submit).unwrap().token;
    // The coordinator looks again after a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let status = async |method: &str, path: &str, key: &str| ask(&c, method, path, key, "").await.0;
    assert_eq!(status("GET", "/api/v1/tasks", "").await, 401);
    assert_eq!(status("GET", "/api/v1/tasks", "olk_wrong_key").await, 401);
    assert_eq!(status("GET", "/api/v1/tasks", &worker.token).await, 403);
    assert_eq!(status("GET", "/api/v1/tasks", &submit).await, 200);
    assert_eq!(status("DELETE", "/api/v1/workers/w", &submit).await, 403);
    assert_eq!(status("GET", "/api/v1/info", "").await, 200);
    let url = format!("http://{}", c.local_addr());
    let dial = async |key: Option<&str>| {
        let dialled = Dialler::new(&url, "w", key, None).unwrap().dial().await;
        dialled.map_err(|e| e.to_string())
    };
    let refused = async |key: Option<&str>| dial(key).await.map(drop).unwrap_err();
    assert!(refused(None).await.contains("401"));
    assert!(refused(Some(&submit)).await.contains("403"));
    let (_sender, mut receiver) = dial(Some(&worker.token)).await.unwrap();
    // A link ends with what let it in: that there was no key at all, or one that is revoked.
    let ended = async |receiver: &mut Receiver| {
        let next = tokio::time::timeout(Duration::from_secs(120), receiver.next()).await;
        next.expect("the link goes on").unwrap_err();
    };
    ended(&mut early_in).await;
    let quiet = tokio::time::timeout(Duration::from_millis(1500), receiver.next()).await;
    assert!(quiet.is_err(), "a good key is enough");
    keys.revoke_key(&worker.id).unwrap();
    ended(&mut receiver).await;
    // It is not even sent.
    let text = refused(Some(&worker.token)).await;
    assert!(text.contains("has revoked it: it was not sent"), "{text}");
    c.shutdown().await;
}

#[tokio::test]
async fn bad_links_are_refused_with_a_reason_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let (mut first, mut first_in) = link(&c, "w").await;
    say(&mut first, Kind::Hello(hello("w", "s", 1))).await;
    assert!(matches!(next(&mut first_in).await, Kind::Welcome(_)));
    // Another store of the same name; the same one again, newer; and older.
    let (mut other, mut other_in) = link(&c, "w").await;
    say(&mut other, Kind::Hello(hello("w", "other", 1))).await;
    assert_eq!(refused(&mut other_in).await, (RefusedCode::RefusedIdentity, true));
    let (mut newer, mut newer_in) = link(&c, "w").await;
    say(&mut newer, Kind::Hello(hello("w", "s", 2))).await;
    assert!(matches!(next(&mut newer_in).await, Kind::Welcome(_)));
    let closed = tokio::time::timeout(Duration::from_secs(120), first_in.next()).await.unwrap();
    assert!(closed.unwrap_err().contains("took over"));
    let (mut stale, mut stale_in) = link(&c, "w").await;
    say(&mut stale, Kind::Hello(hello("w", "s", 1))).await;
    assert_eq!(refused(&mut stale_in).await, (RefusedCode::RefusedStale, true));
    for (bad, code) in [
        (v2::Hello { protocol: 9, ..hello("x", "x", 1) }, RefusedCode::RefusedProtocol),
        (
            v2::Hello { coordinator_id: "elsewhere".into(), ..hello("x", "x", 1) },
            RefusedCode::RefusedCoordinator,
        ),
        (
            v2::Hello { capabilities_json: "[]".into(), ..hello("x", "x", 1) },
            RefusedCode::RefusedMalformed,
        ),
    ] {
        let (mut sender, mut receiver) = link(&c, "x").await;
        say(&mut sender, Kind::Hello(bad)).await;
        assert_eq!(refused(&mut receiver).await, (code, false));
    }
    let (mut sender, mut receiver) = link(&c, "x").await;
    say(&mut sender, Kind::Bye(v2::Bye::default())).await;
    assert_eq!(refused(&mut receiver).await.0, RefusedCode::RefusedMalformed);
    let (_, metrics) = get(&c, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "refused_total{code=\"REFUSED_IDENTITY\"} 1",
        "refused_total{code=\"REFUSED_STALE\"} 1",
        "refused_total{code=\"REFUSED_PROTOCOL\"} 1",
        "workers{state=\"connected\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    c.shutdown().await;
}

#[tokio::test]
async fn tls_is_spoken_with_given_files() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let wrong = TlsFiles { cert: key.clone(), key: key.clone() };
    let config = |tls| Config { tls: Some(tls), ..config(dir.path()) };
    let error = Coordinator::start(config(wrong)).await.unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
    let c = Coordinator::start(config(TlsFiles { cert: cert.clone(), key })).await.unwrap();
    let port = c.local_addr().port();
    let dial = async |url: String, ca: Option<&Path>| {
        let dialler = Dialler::new(&url, "w", None, ca).unwrap();
        dialler.dial().await.map(drop).map_err(|e| e.to_string())
    };
    // More that say nothing than there are handshakes at a time keep nobody waiting.
    let silent = (0..300).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let silent: Vec<_> = silent.collect();
    let started = std::time::Instant::now();
    assert_eq!(dial(format!("https://localhost:{port}"), Some(&cert)).await, Ok(()));
    assert!(started.elapsed() < Duration::from_secs(9));
    let name = dial(format!("https://127.0.0.1:{port}"), Some(&cert)).await.unwrap_err();
    assert!(name.contains("another name"), "{name}");
    assert!(dial(format!("http://localhost:{port}"), None).await.is_err());
    let ending = std::time::Instant::now();
    c.shutdown().await;
    assert!(ending.elapsed() < Duration::from_secs(60));
    drop(silent);
}
