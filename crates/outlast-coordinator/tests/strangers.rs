//! Costs of clients without a key, or with the wrong one: nothing of a body is read, a stalled handshake
//! delays nobody, an address has a share of the connections; and what headers say to caches.

mod common;

use common::*;
use outlast_coordinator::{ConnectionConfig, Coordinator, TlsFiles};
use outlast_net::Dialler;
use outlast_store::{Keys, Role};
use serde_json::{Value, json};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Timeout: a busy machine may take its time.
const LONG: Duration = Duration::from_secs(120);

fn key(dir: &Path, role: Role) -> String {
    let keys = Keys::open(&dir.join("coordinator.db")).unwrap();
    keys.add_key(role.as_str(), role).unwrap().token
}

/// Sends the head of a request that announces a body, and nothing of it; the status of the answer.
async fn head_only(c: &Coordinator, method: &str, path: &str, key: &str, length: &str) -> u16 {
    let mut stream = TcpStream::connect(c.local_addr()).await.unwrap();
    let key = if key.is_empty() { String::new() } else { format!("authorization: {key}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{key}{length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = timeout(LONG, stream.read_exact(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("{method} {path} waits for the body")).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

const LENGTH: &str = "content-length: 33000000";

#[tokio::test]
async fn no_route_reads_a_body_before_it_has_seen_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let [worker, submit] = [Role::Worker, Role::Submit].map(|role| key(dir.path(), role));
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let document: Value = serde_json::from_str(&outlast_coordinator::openapi()).unwrap();
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace(['{', '}'], "");
            routes.push((method.to_uppercase(), path));
        }
    }
    let blobs = [("POST", "missing"), ("PUT", "chunks"), ("POST", "chunks"), ("PUT", "manifests")];
    routes.extend(blobs.map(|(m, p)| (m.into(), format!("/api/v2/blobs/{p}"))));
    routes.push(("POST".into(), "/nowhere".into()));
    assert!(routes.iter().filter(|(m, _)| m != "GET").count() > 20, "{routes:?}");
    for (method, path) in routes.iter().filter(|(_, p)| p != "/api/v1/session") {
        for key in ["", "Bearer wrong"] {
            for length in [LENGTH, "transfer-encoding: chunked"] {
                let status = head_only(&c, method, path, key, length).await;
                assert_eq!(status, 401, "{method} {path} {key:?} {length}");
            }
        }
    }
    // A login carries its key in the body, so that is short.
    assert_eq!(head_only(&c, "POST", "/api/v1/session", "", LENGTH).await, 413);
    // The role is looked at before the body, too; and the scheme may be in any case.
    for (method, path, key) in [
        ("POST", "/api/v1/tasks", &worker),
        ("POST", "/api/v1/results", &worker),
        ("POST", "/api/v1/tasks/x/move", &worker),
        ("POST", "/api/v1/workers/x/actions", &submit),
        ("POST", "/api/v1/recovery/allow", &submit),
        ("POST", "/api/v1/recovery/forget", &submit),
        ("POST", "/api/v2/blobs/missing", &submit),
        ("PUT", "/api/v2/blobs/chunks", &submit),
        ("PUT", "/api/v2/blobs/manifests", &submit),
        // With the right key, but without a session.
        ("PUT", "/api/v2/blobs/chunks", &worker),
        ("PUT", "/api/v2/blobs/manifests", &worker),
        ("PUT", "/api/v2/blobs/manifests/parts", &worker),
    ] {
        let status = head_only(&c, method, path, &format!("bEARER {key}"), LENGTH).await;
        assert_eq!(status, 403, "{method} {path}");
    }
    // Longer than it may be, by its own word: not read either.
    for (method, path, key) in [
        ("POST", "/api/v1/tasks", &submit),
        ("POST", "/api/v1/results", &submit),
        ("POST", "/api/v1/tasks/x/move", &submit),
    ] {
        let length = "content-length: 40000000";
        let status = head_only(&c, method, path, &format!("Bearer {key}"), length).await;
        assert_eq!(status, 413, "{method} {path}");
    }
    c.shutdown().await;
}

fn tls(dir: &Path) -> (TlsFiles, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (TlsFiles { cert: cert.clone(), key }, cert)
}

/// A connection from an address of its own, where this machine has such.
async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    timeout(LONG, socket.connect(to)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_delay_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (files, ca) = tls(dir.path());
    let worker = key(dir.path(), Role::Worker);
    let c =
        Coordinator::start(outlast_coordinator::Config { tls: Some(files), ..config(dir.path()) })
            .await
            .unwrap();
    // One byte of TLS, or the announcement of a long ClientHello: each held a turn for 10 s, of
    // which there were 256, so that others waited for a minute.
    let mut stalled = Vec::new();
    for n in 0..1500 {
        let mut stream = from("127.0.0.2", c.local_addr()).await;
        let said: &[u8] = if n % 2 == 0 { &[22] } else { &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3] };
        stream.write_all(said).await.unwrap();
        stalled.push(stream);
    }
    let url = format!("https://localhost:{}", c.local_addr().port());
    let dialler = Dialler::new(&url, "w", Some(&worker), Some(&ca)).unwrap();
    timeout(Duration::from_secs(120), dialler.dial()).await.expect("it waits").unwrap();
    drop(stalled);
    c.shutdown().await;
}

/// An address of this machine that others could reach it by.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only asks for the route.
    socket.connect("198.51.100.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn an_address_has_a_share_of_the_connections() {
    let Some(own) = own_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let submit = key(dir.path(), Role::Submit);
    let connections = ConnectionConfig { per_address: Some(3), ..Default::default() };
    let listen = "0.0.0.0:0".parse().unwrap();
    let c = Coordinator::start(outlast_coordinator::Config {
        listen,
        connections,
        ..config(dir.path())
    })
    .await
    .unwrap();
    let at = SocketAddr::new(own, c.local_addr().port());
    let asked = async |stream: &mut TcpStream| {
        let head = format!(
            "GET /api/v1/counts HTTP/1.1\r\nhost: x\r\nauthorization: bearer {submit}\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        match timeout(LONG, stream.read_exact(&mut answer)).await.expect("an answer, or an end") {
            Ok(_) => String::from_utf8_lossy(&answer[9..]).into_owned(),
            Err(_) => "closed".to_owned(),
        }
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        assert_eq!(asked(&mut stream).await, "200");
        held.push(stream);
    }
    let mut more = TcpStream::connect(at).await.unwrap();
    assert_eq!(asked(&mut more).await, "closed");
    // Others are served, and so is it once it has let one go.
    for _ in 0..5 {
        let mut local = TcpStream::connect(("127.0.0.1", at.port())).await.unwrap();
        assert_eq!(asked(&mut local).await, "200");
        held.push(local);
    }
    held.remove(0);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(at).await.unwrap();
            if asked(&mut stream).await == "200" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, again).await.expect("a place that is free is given again");
    c.shutdown().await;
}

#[tokio::test]
async fn what_is_asked_for_is_kept_by_no_cache_except_what_is_the_same_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    post(&c, "/api/v1/tasks", &json!({ "id": "a", "shell": "true" })).await;
    for path in
        ["/api/v1/tasks", "/api/v1/tasks/a", "/api/v1/info", "/metrics", "/nowhere", "/healthz"]
    {
        let answer = send(&c, "GET", path, "", b"").await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("strict-transport-security"), None, "there is no TLS");
    }
    let page = send(&c, "GET", "/dashboard", "", b"").await;
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let document = send(&c, "GET", "/api/v1/openapi.json", "", b"").await;
    assert_eq!(document.header("cache-control"), Some("public, no-cache"));
    assert!(document.json()["paths"].is_object());
    let tag = document.header("etag").unwrap();
    let lines = format!("if-none-match: \"x\", W/{tag}\r\n");
    let same = send_with(&c, "GET", "/api/v1/openapi.json", &lines, b"").await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(tag)));
    c.shutdown().await;
}

#[tokio::test]
async fn with_tls_browsers_stay_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (files, ca) = tls(dir.path());
    let c =
        Coordinator::start(outlast_coordinator::Config { tls: Some(files), ..config(dir.path()) })
            .await
            .unwrap();
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let url = format!("https://localhost:{}/api/v1/info", c.local_addr().port());
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=2592000");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    c.shutdown().await;
}

#[tokio::test]
async fn a_list_has_a_limit_of_filters_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let many = |part: &str, n: usize| format!("/api/v1/tasks?{}", vec![part; n].join("&"));
    let (status, problem) = get(&c, &many("label=a=b", 3000)).await;
    assert_eq!(status, 400, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("64 is the limit"), "{problem}");
    assert_eq!(get(&c, &many("label=a=b", 64)).await.0, 200);
    assert_eq!(get(&c, &many("state=pending,failed", 1500)).await.0, 200);
    c.shutdown().await;
}

#[tokio::test]
async fn a_batch_is_not_held_beyond_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let many = format!("[{}1]", "1,".repeat(10_000));
    let answer = send(&c, "POST", "/api/v1/tasks", "", many.as_bytes()).await;
    let problem = answer.json();
    assert_eq!(answer.status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("10000 is the limit"), "{problem}");
    c.shutdown().await;
}
