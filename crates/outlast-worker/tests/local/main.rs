//! The local API: the real server on a real socket, before a host in memory.

mod fake;
mod limits;
mod tokens;

use fake::{Fake, start};
use outlast_worker::local::{client::ClientError, *};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) fake: Arc<Fake>,
    pub(crate) server: LocalServer,
    pub(crate) client: Client,
}

impl Rig {
    pub(crate) fn start() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let server = start(dir.path(), &fake);
        let client = client(server.path(), "t", 2);
        Rig { dir, fake, server, client }
    }
    /// (status, body) of what is said literally.
    pub(crate) async fn say(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.server.path()).await.unwrap();
        // A server that refuses early does not read on.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = rest(&mut stream).await;
        let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }
    /// The same, put together.
    pub(crate) async fn ask(&self, method: &str, at: &str, kind: &str, body: &str) -> (u16, Value) {
        let n = body.len();
        let (status, body) = self
            .say(&format!(
                "{method} /v1/tasks/{at} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-type: {kind}\r\ncontent-length: {n}\r\n\r\n{body}"
            ))
            .await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

/// Reads the rest of a stream, even if the connection breaks after it.
pub(crate) async fn rest(stream: &mut UnixStream) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n) = stream.read(&mut part).await
        && n > 0
    {
        all.extend_from_slice(&part[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

pub(crate) fn client(path: &Path, task: &str, epoch: u64) -> Client {
    let attempt = Attempt { task: task.into(), epoch };
    Client::new(path.to_owned(), attempt).patience(Duration::from_secs(60))
}

pub(crate) fn word<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Problem(problem)) => problem.word().to_owned(),
        other => format!("{other:?}"),
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn files_folders_and_bytes_come_back() {
    let rig = Rig::start();
    let here = |name: &str| rig.dir.path().join(name);
    let c = &rig.client;
    assert_eq!(c.restore(&here("out"), None, false).await.unwrap(), None);
    assert_eq!(c.data(None, &mut Vec::new()).await.unwrap(), None);
    std::fs::write(here("model.pt"), vec![7; 300_000]).unwrap();
    let made = c.checkpoint(&here("model.pt"), None, map(json!({"epoch": 3}))).await.unwrap();
    assert_eq!((made.view.id.as_str(), made.view.bytes), ("c1", 300_000));
    assert_eq!((made.view.meta.kind, made.view.meta.name.as_str()), (Kind::File, "model.pt"));
    assert_eq!(made.view.meta.user, map(json!({"epoch": 3})));
    std::fs::create_dir_all(here("ckpt/sub")).unwrap();
    std::fs::write(here("ckpt/sub/x"), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(here("ckpt/s")).unwrap();
    let made = c.checkpoint(&here("ckpt/"), Some("step 9"), Map::new()).await.unwrap();
    assert_eq!((made.view.meta.kind, made.view.meta.name.as_str()), (Kind::Folder, "step 9"));
    assert_eq!(made.notes, ["s: a socket was left out"]);
    let meta = map(json!({"ü": "&="}));
    let made = c.checkpoint_bytes("raw bytes".into(), Some("ä b"), &meta).await.unwrap();
    assert_eq!((made.view.meta.kind, made.view.meta.name.as_str()), (Kind::Raw, "ä b"));
    assert_eq!(made.view.meta.user, meta);
    assert_eq!(c.checkpoints().await.unwrap().len(), 3);
    // Back: the newest, by id, a folder, guarded.
    let newest = c.restore(&here("out"), None, false).await.unwrap().unwrap();
    assert_eq!(newest.view.id, "c3");
    assert_eq!(std::fs::read(here("out")).unwrap(), b"raw bytes");
    c.restore(&here("out"), Some("c1"), false).await.unwrap().unwrap();
    assert_eq!(std::fs::read(here("out")).unwrap(), vec![7; 300_000]);
    let full = c.restore(&here("ckpt"), Some("c2"), false).await;
    assert_eq!(word(full), "conflict");
    c.restore(&here("ckpt/"), Some("c2"), true).await.unwrap().unwrap();
    assert_eq!(std::fs::read(here("ckpt/sub/x")).unwrap(), b"x");
    assert!(!here("ckpt/s").exists());
    assert_eq!(word(c.restore(&here("out"), Some("c9"), false).await), "no-such-checkpoint");
    let mut all = Vec::new();
    assert_eq!(c.data(Some("c1"), &mut all).await.unwrap(), Some(300_000));
    assert_eq!(all, vec![7; 300_000]);
    assert_eq!(word(c.data(Some("c9"), &mut all).await), "no-such-checkpoint");
    // Nothing is left behind, and the spool is empty.
    assert_eq!(std::fs::read_dir(here("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn state_progress_artifacts_and_info() {
    let rig = Rig::start();
    let c = &rig.client;
    let info = c.info().await.unwrap();
    assert_eq!((info.task.as_str(), info.attempt, info.worker.as_str()), ("t", 2, "w"));
    assert_eq!(c.state().await.unwrap(), StateView::default());
    c.update_state(&map(json!({"a": 1, "b": {"c": 2}}))).await.unwrap();
    c.update_state(&map(json!({"a": null, "b": {"d": 3}}))).await.unwrap();
    let said = Progress {
        progress: 0.85,
        data: map(json!({"loss": 0.1})),
        message: Some("epoch 3".into()),
    };
    let state = c.progress(&said).await.unwrap();
    assert_eq!(state.progress, Some(0.85));
    let all = map(json!({"b": {"d": 3}, "loss": 0.1, "message": "epoch 3"}));
    assert_eq!((&state.state, state.updates), (&all, 3));
    assert_eq!(c.state().await.unwrap(), state);
    assert_eq!(word(c.progress(&Progress { progress: 1.5, ..said }).await), "bad-request");
    std::fs::write(rig.dir.path().join("log.txt"), "log").unwrap();
    let made = c.artifact(&rig.dir.path().join("log.txt"), None).await.unwrap();
    assert_eq!((made.view.name.as_str(), made.view.bytes), ("log.txt", 3));
    std::fs::create_dir(rig.dir.path().join("plots")).unwrap();
    let made = c.artifact(&rig.dir.path().join("plots"), Some("all/plots")).await.unwrap();
    assert_eq!(made.view.name, "all/plots.tar");
    let bad = c.artifact(&rig.dir.path().join("log.txt"), Some("../x")).await;
    assert_eq!(word(bad), "bad-request");
}

#[tokio::test]
async fn control_waits_until_something_is_asked() {
    let rig = Rig::start();
    let c = &rig.client;
    let none = Control::default();
    assert_eq!(c.control(none, Duration::ZERO).await.unwrap(), none);
    let started = Instant::now();
    assert_eq!(c.control(none, Duration::from_millis(200)).await.unwrap(), none);
    assert!(started.elapsed() >= Duration::from_millis(200));
    let (waiting, started) = (c.clone(), Instant::now());
    let waiting =
        tokio::spawn(async move { waiting.control(none, Duration::from_secs(60)).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.fake.control.send_modify(|control| control.checkpoint_request = 1);
    let asked = waiting.await.unwrap();
    assert_eq!(asked, Control { checkpoint_request: 1, ..none });
    assert!(started.elapsed() < Duration::from_secs(50));
    assert_eq!(c.control(asked, Duration::from_millis(50)).await.unwrap(), asked);
    assert_eq!(rig.ask("GET", "t/2/control?wait=61", "", "").await.0, 400);
    assert_eq!(rig.ask("GET", "t/2/control?wiat=1", "", "").await.0, 400);
    assert_eq!(rig.ask("GET", "t/2/control", "", "").await.1["checkpoint_request"], 1);
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let rig = Rig::start();
    let json = "application/json";
    let cases = [
        ("GET", "x/1", "", "", 404, "no-such-attempt"),
        ("GET", "t/1", "", "", 409, "ended"),
        ("GET", "fenced/1/state", "", "", 409, "fenced"),
        ("POST", "full/1/checkpoints", "x/y", "x", 507, "full"),
        ("GET", "t/two", "", "", 400, "bad-request"),
        ("GET", "t/0/state", "", "", 400, "bad-request"),
        ("GET", "t/2/nothing", "", "", 404, "no-route"),
        ("DELETE", "t/2/state", "", "", 405, "no-method"),
        ("POST", "t/2/checkpoints", json, r#"{"path": "relative"}"#, 400, "bad-request"),
        ("POST", "t/2/checkpoints", json, r#"{"path": "/no/such/file"}"#, 400, "bad-request"),
        ("POST", "t/2/checkpoints", json, r#"{"path": "/dev/null"}"#, 400, "bad-request"),
        ("POST", "t/2/checkpoints", json, r#"{"pth": "/x"}"#, 400, "bad-request"),
        ("POST", "t/2/checkpoints", json, "no json", 400, "bad-request"),
        ("POST", "t/2/checkpoints?nmae=x", "x/y", "x", 400, "bad-request"),
        ("POST", "t/2/checkpoints?meta=1", "x/y", "x", 400, "bad-request"),
        ("POST", "t/2/checkpoints?name=", "x/y", "x", 400, "bad-request"),
        ("POST", "t/2/restore", json, r#"{"path": "x"}"#, 400, "bad-request"),
        ("POST", "t/2/restore", json, r#"{"path": "/x"}"#, 404, "no-checkpoint"),
        ("GET", "t/2/checkpoints/latest/data", "", "", 404, "no-checkpoint"),
        ("GET", "t/2/checkpoints/c1/data", "", "", 404, "no-such-checkpoint"),
        ("PATCH", "t/2/state", json, "[1]", 400, "bad-request"),
        ("PUT", "t/2/progress", json, r#"{"progress": -1}"#, 400, "bad-request"),
        ("PUT", "t/2/progress", json, r#"{"data": {}}"#, 400, "bad-request"),
        ("POST", "t/2/artifacts", "x/y", "x", 400, "bad-request"),
    ];
    for (method, at, kind, body, status, expected) in cases {
        let (got, problem) = rig.ask(method, at, kind, body).await;
        let kind = problem["type"].as_str().unwrap_or_default();
        let context = format!("{method} {at} {body}: {got} {problem}");
        assert_eq!((got, kind), (status, &*format!("urn:outlast:problem:{expected}")), "{context}");
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{context}");
    }
    let (_, full) = rig.ask("POST", "full/1/checkpoints", "x/y", "x").await;
    assert_eq!((&full["budget"], &full["used"]), (&json!(10), &json!(9)));
}

#[tokio::test]
async fn a_client_outlasts_its_worker() {
    let rig = Rig::start();
    let (path, dir) = (rig.server.path().to_owned(), rig.dir.path().to_owned());
    rig.server.shutdown().await;
    assert!(!path.exists());
    let now = client(&path, "t", 2).patience(Duration::ZERO).state().await;
    assert!(matches!(now, Err(ClientError::Away { .. })), "{now:?}");
    let patient = client(&path, "t", 2);
    let asked = tokio::spawn(async move {
        patient.checkpoint_bytes("x".into(), None, &Map::new()).await.unwrap()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let server = start(&dir, &rig.fake);
    assert_eq!(server.path(), path);
    assert_eq!(asked.await.unwrap().view.id, "c1");
    // A connection that breaks in mid-request is the same thing.
    drop(server);
    let dead = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let patient = client(&path, "t", 2);
    let asked = tokio::spawn(async move { patient.state().await.unwrap() });
    tokio::task::spawn_blocking(move || {
        dead.accept().unwrap();
        drop(dead);
    })
    .await
    .unwrap();
    let server = start(&dir, &rig.fake);
    assert_eq!(asked.await.unwrap(), StateView::default());
    // A successor that has the place keeps it.
    let successor = start_over(&dir, &rig.fake, server);
    assert!(successor.path().exists());
    client(&path, "t", 2).state().await.unwrap();
}

/// A server in the place of one that is stuck.
fn start_over(dir: &Path, fake: &Arc<Fake>, old: LocalServer) -> LocalServer {
    std::fs::remove_file(old.path()).unwrap();
    let new = start(dir, fake);
    drop(old);
    new
}

#[tokio::test]
async fn a_long_state_folder_has_a_socket_too() {
    let rig = Rig::start();
    let long = rig.dir.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let server = start(&long, &rig.fake);
    assert_eq!(server.path(), socket_path(&long));
    assert!(!server.path().starts_with(rig.dir.path()));
    client(server.path(), "t", 2).state().await.unwrap();
    let folder = server.path().parent().unwrap().to_owned();
    server.shutdown().await;
    std::fs::remove_dir(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_can_do_it() {
    let rig = Rig::start();
    let curl = |args: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "--unix-socket"]).arg(rig.server.path()).args(args);
        let out = command.output().ok()?;
        assert!(out.status.success(), "{out:?}");
        Some(String::from_utf8(out.stdout).unwrap())
    };
    let at = |rest: &str| format!("http://x/v1/tasks/t/2/{rest}");
    let big = rig.dir.path().join("big");
    std::fs::write(&big, vec![9; 3 << 20]).unwrap();
    let data = format!("@{}", big.display());
    let Some(made) = curl(&["--data-binary", &data, &at("checkpoints?name=big")]) else {
        eprintln!("no curl here");
        return;
    };
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&made["bytes"], &made["name"]), (&json!(3 << 20), &json!("big")));
    let made = curl(&["-T", &big.display().to_string(), "-X", "POST", &at("checkpoints")]).unwrap();
    assert!(made.contains("\"c2\""), "{made}");
    let back = rig.dir.path().join("back").display().to_string();
    curl(&["-o", &back, &at("checkpoints/latest/data")]).unwrap();
    assert_eq!(std::fs::read(&back).unwrap(), vec![9; 3 << 20]);
    let state = curl(&["-X", "PATCH", "-d", r#"{"a": 1}"#, &at("state")]).unwrap();
    assert!(state.contains(r#""a":1"#), "{state}");
}
