//! Requests of a task to its worker over the socket: a server that grants nothing.

use crate::memory::measure;
use crate::target::{Run, Target};
use outlast_worker::local::{
    ArtifactView, Attempt, CheckpointMeta, CheckpointView, Config, Control, Host, HostError,
    LocalServer, Restore, Source, StateView, TaskInfo, serve,
};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Memory bound of a request: a document of 1 MiB and 8 MiB of values, and the connection's buffers.
const BOUND: usize = 16 << 20;
/// Longest input to a server in bytes.
const LONGEST: usize = 256 << 10;

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "socket",
        what: "requests of tasks to their worker",
        seeds,
        words: &[
            "GET ",
            "POST ",
            "PUT ",
            "PATCH ",
            " HTTP/1.1\r\n",
            "\r\n\r\n",
            "content-length: ",
            "%00",
            "transfer-encoding: chunked\r\n",
            "/v1/tasks/t/1",
            "/../",
            "?wait=0",
            "{\"progress\":0.5}",
            "{\"path\":\"/x\"}",
            "[1],",
        ],
        make: None,
        run: |input| SERVER.with(|server| server.run(&input[..input.len().min(LONGEST)])),
    }]
}

fn seeds() -> Vec<Vec<u8>> {
    let one = |line: &str, body: &str| {
        let len = body.len();
        let head = "host: x\r\nconnection: close\r\ncontent-type: application/json";
        format!("{line} HTTP/1.1\r\n{head}\r\ncontent-length: {len}\r\n\r\n{body}").into_bytes()
    };
    vec![
        one("GET /v1/tasks/t/1/", ""),
        one("GET /v1/tasks/t/1/checkpoints", ""),
        one("POST /v1/tasks/t/1/checkpoints", r#"{"path":"/nowhere","name":"n","meta":{"a":1}}"#),
        one("POST /v1/tasks/t/1/checkpoints?name=n&meta=%7B%7D", "bytes"),
        one("POST /v1/tasks/t/1/restore", r#"{"to":"/nowhere"}"#),
        one("PATCH /v1/tasks/t/1/state", r#"{"state":{"a":[1,2]},"progress":0.5}"#),
        one("PUT /v1/tasks/t/1/progress", r#"{"progress":0.5}"#),
        one("POST /v1/tasks/t/1/artifacts", r#"{"path":"/nowhere"}"#),
        one("GET /v1/tasks/t/1/control?wait=0&cancel=false", ""),
        one("GET /v1/tasks/t/x/control", ""),
        b"PATCH /v1/tasks/t/1/state HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n0\r\n\r\n"
            .to_vec(),
    ]
}

thread_local! {
    static SERVER: Server = Server::start();
}

struct Server {
    runtime: Runtime,
    server: LocalServer,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let config = Config {
            socket: dir.path().join("s"),
            max_upload: 1 << 20,
            body_patience: Duration::from_secs(1),
            ..Config::new(dir.path())
        };
        let server = runtime.block_on(async { serve(config, Arc::new(Nothing)) });
        Server { server: server.expect("a server"), runtime, _dir: dir }
    }

    fn run(&self, input: &[u8]) -> Run {
        let (said, peak) = measure(|| self.runtime.block_on(self.ask(input)));
        Run { said, peak, bound: BOUND }
    }

    async fn ask(&self, input: &[u8]) -> String {
        let Ok(stream) = UnixStream::connect(self.server.path()).await else {
            return "no connection".into();
        };
        let (mut from, mut to) = stream.into_split();
        let write = async {
            let _ = to.write_all(input).await;
            let _ = to.shutdown().await;
        };
        let mut answer = Vec::new();
        let read = async { from.read_to_end(&mut answer).await };
        let both = async { tokio::join!(write, read) };
        let done = timeout(Duration::from_secs(20), both).await;
        assert!(done.is_ok(), "the server does not answer");
        let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
        text.split("\r\n\r\n").nth(1).unwrap_or("nothing").to_owned()
    }
}

/// Knows one attempt, and grants nothing.
struct Nothing;

fn no<T>() -> Result<T, HostError> {
    Err(HostError::Unavailable("not here".into()))
}

impl Host for Nothing {
    async fn info(&self, at: &Attempt) -> Result<TaskInfo, HostError> {
        match at.task.as_str() {
            "t" => Ok(TaskInfo {
                task: at.task.clone(),
                attempt: at.epoch,
                worker: "w".into(),
                started_at_ms: 0,
                spec: Value::Null,
            }),
            _ => Err(HostError::NoSuchAttempt),
        }
    }
    async fn checkpoint(
        &self,
        _: &Attempt,
        _: Source,
        _: CheckpointMeta,
    ) -> Result<CheckpointView, HostError> {
        no()
    }
    async fn checkpoints(&self, _: &Attempt) -> Result<Vec<CheckpointView>, HostError> {
        Ok(Vec::new())
    }
    async fn restore(&self, _: &Attempt, _: Option<String>) -> Result<Option<Restore>, HostError> {
        Ok(None)
    }
    async fn update_state(
        &self,
        _: &Attempt,
        _: Map<String, Value>,
        _: Option<f64>,
    ) -> Result<StateView, HostError> {
        no()
    }
    async fn state(&self, _: &Attempt) -> Result<StateView, HostError> {
        no()
    }
    async fn artifact(&self, _: &Attempt, _: String, _: Source) -> Result<ArtifactView, HostError> {
        no()
    }
    async fn control(&self, _: &Attempt, seen: Control, _: Duration) -> Result<Control, HostError> {
        Ok(seen)
    }
}
