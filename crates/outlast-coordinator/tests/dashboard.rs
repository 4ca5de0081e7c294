//! The dashboard's frame as browsers and strangers use it: the page, logging in and out, and what
//! pages of other sites may not do.

mod common;

use common::*;
use outlast_coordinator::{Config, Coordinator};
use outlast_store::{Keys, NewKey, Role};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OURS: &str = "outlast-dashboard: 1\r\n";

/// A coordinator with keys: of a worker, of one who submits, of one who operates.
async fn with_keys(dir: &Path) -> (Coordinator, Keys, [NewKey; 3]) {
    let keys = Keys::open(&Config::store_file(dir)).unwrap();
    let made = [Role::Worker, Role::Submit, Role::Operate].map(|r| keys.add_key("k", r).unwrap());
    (Coordinator::start(config(dir)).await.unwrap(), keys, made)
}

async fn log_in(c: &Coordinator, key: &str) -> Answer {
    let body = json!({ "key": key }).to_string();
    let lines = format!("{OURS}content-type: application/json\r\n");
    send_with(c, "POST", "/api/v1/session", &lines, body.as_bytes()).await
}

/// The head line that sends the cookie back.
fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap();
    format!("cookie: {}\r\n", set.split(';').next().unwrap())
}

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy_and_revalidated() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let page = send(&c, "GET", "/dashboard", "", b"").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let html = String::from_utf8(page.body).unwrap();
    assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("style="));
    // All that it names is there, and asked for again it has not changed.
    for name in html.split('"').filter(|t| t.starts_with("dashboard/")) {
        let file = send(&c, "GET", &format!("/{name}"), "", b"").await;
        assert!(file.status == 200 && !file.body.is_empty(), "{name}");
        let known = format!("if-none-match: {}\r\n", file.header("etag").unwrap());
        let again = send_with(&c, "GET", &format!("/{name}"), &known, b"").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
    }
    assert_eq!(send(&c, "GET", "/dashboard/../Cargo.toml", "", b"").await.status, 404);
    assert_eq!(send(&c, "GET", "/", "", b"").await.header("location"), Some("dashboard"));
    let (_, session) = get(&c, "/api/v1/session").await;
    assert_eq!((&session["role"], &session["needed"]), (&json!("operate"), &json!(false)));
    c.shutdown().await;
}

#[tokio::test]
async fn a_key_gives_a_session_that_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (c, keys, [worker, submit, operate]) = with_keys(dir.path()).await;
    let (status, session) = get(&c, "/api/v1/session").await;
    assert_eq!((status, session), (200, json!({"role": null, "needed": true, "expires_at": null})));
    assert_eq!(send(&c, "GET", "/dashboard", "", b"").await.status, 200, "to log in at all");
    let wrong = log_in(&c, "olk_000000000000_wrong").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let role = log_in(&c, &worker.token).await;
    assert_eq!(role.status, 403);
    assert!(role.json()["detail"].as_str().unwrap().contains("submit or operate"));
    assert_eq!(log_in(&c, &"x".repeat(1000)).await.status, 401);
    assert_eq!(log_in(&c, &"x".repeat(10_000)).await.status, 413);
    let bad = send_with(&c, "POST", "/api/v1/session", OURS, b"{}").await;
    assert!((400..500).contains(&bad.status));

    let first = log_in(&c, &format!(" {}\n", submit.token)).await;
    assert_eq!((first.status, first.json()["role"].clone()), (200, json!("submit")));
    let set = first.header("set-cookie").unwrap();
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains(&submit.token)
    );
    let submit_cookie = cookie(&first);
    let status = async |method: &str, path: &str, lines: &str| {
        send_with(&c, method, path, lines, b"").await.status
    };
    assert_eq!(status("GET", "/api/v1/tasks", &submit_cookie).await, 200);
    let ours = format!("{submit_cookie}{OURS}");
    assert_eq!(status("POST", "/api/v1/workers/w/drain", &ours).await, 403, "its role");
    let operate_cookie = cookie(&log_in(&c, &operate.token).await);
    let ours = format!("{operate_cookie}{OURS}");
    assert_eq!(status("POST", "/api/v1/workers/w/drain", &ours).await, 404, "allowed, not there");

    // Logged out, the cookie is worth nothing; others are not touched. What it let in ends.
    let read = async |lines: &str| {
        let events = send_with(&c, "GET", "/api/v1/events", lines, b"");
        let answer = tokio::time::timeout(Duration::from_secs(120), events).await;
        answer.expect("the stream goes on").status
    };
    let log_out = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        status("DELETE", "/api/v1/session", &ours).await
    };
    assert_eq!(tokio::join!(read(&operate_cookie), log_out), (200, 204));
    assert_eq!(status("GET", "/api/v1/tasks", &operate_cookie).await, 401);
    assert_eq!(status("GET", "/api/v1/tasks", &submit_cookie).await, 200);
    let bearer = format!("authorization: Bearer {}\r\n", submit.token);
    let revoke = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        keys.revoke_key(&submit.id).unwrap();
    };
    let ended = tokio::join!(read(&submit_cookie), read(&bearer), revoke);
    assert_eq!(ended, (200, 200, ()));
    assert_eq!(status("GET", "/api/v1/tasks", &submit_cookie).await, 401);
    c.shutdown().await;
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (c, _keys, [.., operate]) = with_keys(dir.path()).await;
    let cookie = cookie(&log_in(&c, &operate.token).await);
    let task: Value = json!({ "command": ["true"] });
    let submit = async |lines: &str| {
        let answer =
            send_with(&c, "POST", "/api/v1/tasks", lines, task.to_string().as_bytes()).await;
        (
            answer.status,
            answer.json()["type"]
                .as_str()
                .unwrap_or_default()
                .rsplit(':')
                .next()
                .unwrap()
                .to_owned(),
        )
    };
    assert_eq!(submit(&cookie).await, (403, "csrf".into()), "the cookie alone");
    for line in [
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
        "origin: http://evil.example",
        "origin: null",
    ] {
        let lines = format!("{cookie}{OURS}{line}\r\n");
        assert_eq!(submit(&lines).await, (403, "cross-site".into()), "{line}");
    }
    for line in ["sec-fetch-site: same-origin", "origin: http://localhost"] {
        assert_eq!(submit(&format!("{cookie}{OURS}{line}\r\n")).await.0, 201, "{line}");
    }
    // A program with a key says nothing of sites.
    assert_eq!(submit(&format!("authorization: Bearer {}\r\n", operate.token)).await.0, 201);
    // Nor may a strange page log somebody in.
    let lines = "origin: http://evil.example\r\ncontent-type: application/json\r\n";
    let body = json!({ "key": operate.token }).to_string();
    assert_eq!(send_with(&c, "POST", "/api/v1/session", lines, body.as_bytes()).await.status, 403);
    c.shutdown().await;
}

#[tokio::test]
async fn without_keys_only_local_names_and_own_pages_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let task = json!({ "command": ["true"] }).to_string();
    for (host, lines, status) in [
        ("127.0.0.1:7117", "", 201),
        ("[::1]:7117", "", 201),
        ("localhost", "origin: http://localhost\r\n", 201),
        ("rebound.example:7117", "", 403),
        ("localhost", "origin: http://evil.example\r\n", 403),
        ("localhost", "sec-fetch-site: cross-site\r\n", 403),
    ] {
        let answer = send_to(&c, "POST", "/api/v1/tasks", host, lines, task.as_bytes()).await;
        assert_eq!(answer.status, status, "{host} {lines}");
    }
    let read = send_to(&c, "GET", "/api/v1/tasks", "rebound.example", "", b"").await;
    assert_eq!(read.status, 403);
    // A page that opens a worker's link.
    let lines = "upgrade: websocket\r\norigin: http://evil.example\r\n";
    let link = send_to(&c, "GET", "/api/v2/worker/w/ws", "localhost", lines, b"").await;
    assert_eq!(link.status, 403);
    c.shutdown().await;
}

#[tokio::test]
async fn throughput_is_counted_by_the_second() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for id in ["a", "b"] {
        assert_eq!(
            post(&c, "/api/v1/tasks", &json!({ "id": id, "command": ["true"] })).await.0,
            201
        );
    }
    post(&c, "/api/v1/tasks/a/cancel", &json!({})).await;
    let sum = |of: &Value| of.as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    let mut seen = Value::Null;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = get(&c, "/api/v1/throughput").await.1;
        if sum(&seen["cancelled"]) > 0 {
            break;
        }
    }
    assert_eq!((sum(&seen["submitted"]), sum(&seen["cancelled"])), (2, 1));
    let at = seen["at"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(seen["waiting"].as_array().unwrap().last(), Some(&json!(1)));
    let (_, newer) = get(&c, &format!("/api/v1/throughput?since={at}")).await;
    assert!(newer["at"].as_array().unwrap().len() <= 1);
    assert_eq!(get(&c, "/api/v1/throughput?step=1h").await.0, 400);
    c.shutdown().await;
}

#[tokio::test]
async fn a_refused_login_is_small_and_in_the_log() {
    logged("");
    let dir = tempfile::tempdir().unwrap();
    let (c, _keys, _) = with_keys(dir.path()).await;
    assert_eq!(log_in(&c, "olk_000000000000_no").await.status, 401);
    assert!(!logged("SECURITY a login was refused").is_empty());
    assert_eq!(log_in(&c, &"x".repeat(300)).await.status, 401);
    let large = log_in(&c, &"x".repeat(5_000)).await;
    assert!((400..500).contains(&large.status) && large.status != 401, "{}", large.head);
    c.shutdown().await;
}

#[tokio::test]
async fn events_end_with_the_key_and_with_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let (c, keys, [_, submit, operate]) = with_keys(dir.path()).await;
    let open = async |lines: &str| {
        let mut stream = TcpStream::connect(c.local_addr()).await.unwrap();
        let request = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n{lines}connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        stream
    };
    let ends = async |mut stream: TcpStream, within: u64| {
        let mut rest = Vec::new();
        let all = stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(within), all).await.is_ok()
    };
    let key = format!("authorization: Bearer {}\r\n", submit.token);
    let session = cookie(&log_in(&c, &operate.token).await);
    let (by_key, by_session) = (open(&key).await, open(&session).await);
    let kept = open(&cookie(&log_in(&c, &operate.token).await)).await;
    keys.revoke_key(&submit.id).unwrap();
    let out = format!("{session}{OURS}");
    assert_eq!(send_with(&c, "DELETE", "/api/v1/session", &out, b"").await.status, 204);
    assert!(ends(by_key, 120).await && ends(by_session, 120).await);
    assert!(!ends(kept, 8).await, "another session of the same key goes on");
    c.shutdown().await;
}
