//! Client of a task for its worker. It waits for a worker that is away, since a task outlives its
//! worker: the next one listens at the same path.

use super::problem::Problem;
use super::types::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use outlast_wire::spec::check_task_id;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{ErrorKind as K, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// Time for which a worker may be away, unless set otherwise.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Time for which a worker is waited for whose socket is not there: one that dies leaves it, so it has ended
/// for good, or somebody removed the socket, which a worker that lives restores within seconds.
pub const ABSENT: Duration = Duration::from_secs(60);
/// The first pause before asking again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before asking again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The largest document that is taken from a worker, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Reason why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The process was not started by a worker.
    #[error("not inside an Outlast task: {0} is not set; run this from a task's script")]
    NotInTask(&'static str),
    /// The environment is not as a worker makes it.
    #[error("{0} is {1:?}, which no worker says")]
    Environment(&'static str, String),
    /// A mistake in the request.
    #[error("{0}")]
    Invalid(String),
    /// No worker listened, or it ended before it answered, until the time limit.
    #[error("the worker is away ({why}, {}; waited {} s)", socket.display(), waited.as_secs())]
    Away {
        /// Place where it should be.
        socket: PathBuf,
        /// Time for which it was tried.
        waited: Duration,
        /// The last failure.
        why: String,
    },
    /// The worker refused.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer cannot be understood, or broke off.
    #[error("the worker's answer cannot be used: {0}")]
    Strange(String),
    /// The received data could not be written.
    #[error("cannot write what was received: {0}")]
    Output(std::io::Error),
}

/// Talks to the worker of one attempt.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    attempt: Attempt,
    token: Option<String>,
    patience: Duration,
    on_outage: Option<fn(&str)>,
}

impl Client {
    /// For the attempt that this process belongs to.
    ///
    /// # Errors
    /// [`ClientError::NotInTask`] outside of one.
    pub fn from_env() -> Result<Client, ClientError> {
        let get = |name| match std::env::var_os(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(ClientError::NotInTask(name)),
        };
        let socket = PathBuf::from(get(SOCKET_VARIABLE)?);
        let task = get(TASK_VARIABLE)?.to_string_lossy().into_owned();
        let epoch = get(ATTEMPT_VARIABLE)?.to_string_lossy().into_owned();
        let strange = |name, value: &str| ClientError::Environment(name, value.to_owned());
        check_task_id(&task).map_err(|_| strange(TASK_VARIABLE, &task))?;
        let epoch = epoch.parse().map_err(|_| strange(ATTEMPT_VARIABLE, &epoch))?;
        let client = Client::new(socket, Attempt { task, epoch });
        // A worker of a former version gives none.
        Ok(client.token(std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())))
    }

    /// Creates a client for an attempt.
    pub fn new(socket: PathBuf, attempt: Attempt) -> Client {
        Client { socket, attempt, token: None, patience: PATIENCE, on_outage: None }
    }
    /// Sets the token that proves the attempt's identity.
    pub fn token(self, token: Option<String>) -> Client {
        Client { token, ..self }
    }
    /// Time for which the worker may be away before a request fails; zero asks once.
    pub fn patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }
    /// Called once per request when the worker turns out to be away, with the reason.
    pub fn on_outage(self, tell: fn(&str)) -> Client {
        Client { on_outage: Some(tell), ..self }
    }

    /// Fetches the attempt's description.
    ///
    /// # Errors
    /// [`ClientError`], here and below.
    pub async fn info(&self) -> Result<TaskInfo, ClientError> {
        self.ask(Method::GET, "", "", Bytes::new()).await
    }

    /// Makes a checkpoint of a file or folder, which the worker reads itself. Nothing should write
    /// to it meanwhile. The path must be absolute.
    pub async fn checkpoint(
        &self,
        path: &Path,
        name: Option<&str>,
        meta: Map<String, Value>,
    ) -> Result<Made<CheckpointView>, ClientError> {
        let (path, name) = (path.to_owned(), name.map(Into::into));
        let from = FromPath { path, name, meta, request: Some(fresh()) };
        self.ask(Method::POST, "/checkpoints", JSON, encode(&from)?).await
    }

    /// Makes a checkpoint of bytes.
    pub async fn checkpoint_bytes(
        &self,
        data: Bytes,
        name: Option<&str>,
        meta: &Map<String, Value>,
    ) -> Result<Made<CheckpointView>, ClientError> {
        let mut at = format!("/checkpoints?request={}", fresh());
        if let Some(name) = name {
            at += &format!("&name={}", escape(name));
        }
        if !meta.is_empty() {
            at += &format!("&meta={}", escape(&Value::Object(meta.clone()).to_string()));
        }
        self.ask(Method::POST, &at, RAW, data).await
    }

    /// The task's checkpoints, newest last.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointView>, ClientError> {
        #[derive(serde::Deserialize)]
        struct All {
            checkpoints: Vec<CheckpointView>,
        }
        let all: All = self.ask(Method::GET, "/checkpoints", "", Bytes::new()).await?;
        Ok(all.checkpoints)
    }

    /// Has the worker write a checkpoint (the newest unless named) to an absolute path: complete,
    /// or not at all. None if there is none yet.
    pub async fn restore(
        &self,
        path: &Path,
        id: Option<&str>,
        force: bool,
    ) -> Result<Option<Restored>, ClientError> {
        let to = ToPath { path: path.to_owned(), id: id.map(Into::into), force };
        none_if_absent(self.ask(Method::POST, "/restore", JSON, encode(&to)?).await)
    }

    /// Writes the bytes of a checkpoint (the newest unless named) to `out`; how many. None if there
    /// is none yet. After an error a part may have been written.
    pub async fn data(
        &self,
        id: Option<&str>,
        out: &mut impl Write,
    ) -> Result<Option<u64>, ClientError> {
        let at = format!("/checkpoints/{}/data", escape(id.unwrap_or("latest")));
        let answer = none_if_absent(self.send(Method::GET, &at, "", Bytes::new()).await)?;
        let Some(answer) = answer else { return Ok(None) };
        let (mut body, mut all) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ClientError::Strange(format!("it broke off: {e}")))?;
            if let Some(data) = frame.data_ref() {
                out.write_all(data).map_err(ClientError::Output)?;
                all += data.len() as u64;
            }
        }
        Ok(Some(all))
    }

    /// Merges into the state: top-level keys replace, null deletes.
    pub async fn update_state(&self, patch: &Map<String, Value>) -> Result<StateView, ClientError> {
        self.ask(Method::PATCH, "/state", JSON, encode(patch)?).await
    }
    /// The merged state.
    pub async fn state(&self) -> Result<StateView, ClientError> {
        self.ask(Method::GET, "/state", "", Bytes::new()).await
    }
    /// Says how far the task is (0 to 1).
    pub async fn progress(&self, said: &Progress) -> Result<StateView, ClientError> {
        self.ask(Method::PUT, "/progress", JSON, encode(said)?).await
    }

    /// Keeps a file (a folder as a tar file) for the result. The path must be absolute.
    pub async fn artifact(
        &self,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Made<ArtifactView>, ClientError> {
        let (path, name) = (path.to_owned(), name.map(Into::into));
        let from = FromPath { path, name, meta: Map::new(), request: None };
        self.ask(Method::POST, "/artifacts", JSON, encode(&from)?).await
    }

    /// Fetches the requests to the task, as soon as they differ from `seen`, at the latest after `wait`
    /// ([`MAX_WAIT`] at most).
    pub async fn control(&self, seen: Control, wait: Duration) -> Result<Control, ClientError> {
        let at = format!(
            "/control?wait={}&cancel={}&pause={}&checkpoint_request={}",
            wait.as_secs_f64().min(MAX_WAIT as f64),
            seen.cancel,
            seen.pause,
            seen.checkpoint_request
        );
        self.ask(Method::GET, &at, "", Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        at: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = self.send(method, at, kind, body).await?;
        let all = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let all = all.map_err(|e| ClientError::Strange(e.to_string()))?.to_bytes();
        serde_json::from_slice(&all).map_err(|e| ClientError::Strange(e.to_string()))
    }

    /// Sends a request until there is a conclusive answer, or the time limit passes.
    async fn send(
        &self,
        method: Method,
        at: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let started = Instant::now();
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        let mut absent: Option<Instant> = None;
        loop {
            let (error, why, later) = match self.once(&method, at, kind, body.clone()).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let problem = problem(answer).await?;
                    let Some(later) = problem.retry_after else {
                        return Err(ClientError::Problem(problem.into()));
                    };
                    let why = problem.detail.clone();
                    (ClientError::Problem(problem.into()), why, Duration::from_secs(later.into()))
                }
                Err(Failure { why, lasting, missing }) => {
                    let since = absent.filter(|_| missing).or(missing.then(Instant::now));
                    absent = since;
                    let lasting = lasting || since.is_some_and(|at| at.elapsed() >= ABSENT);
                    let (socket, waited) = (self.socket.clone(), started.elapsed());
                    let error = ClientError::Away { socket, waited, why: why.clone() };
                    if lasting {
                        return Err(error);
                    }
                    (error, why, Duration::ZERO)
                }
            };
            // Up to a quarter more, so that tasks do not come back all at once.
            let jitter = RandomState::new().hash_one(0_u8) % 256;
            let wait = pause.max(later) + pause * (jitter as u32) / 1024;
            if started.elapsed() + wait > self.patience {
                return Err(error);
            }
            if !std::mem::replace(&mut told, true)
                && let Some(tell) = self.on_outage
            {
                tell(&why);
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, one request. An error means that whoever listens is not there, or ended.
    async fn once(
        &self,
        method: &Method,
        at: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| {
            // These do not pass.
            let lasting = matches!(e.kind(), K::PermissionDenied | K::InvalidInput);
            let missing = e.kind() == K::NotFound;
            let why = match missing {
                true => "its socket is not there: it has ended, or the socket was removed".into(),
                false => e.to_string(),
            };
            Failure { why, lasting, missing }
        })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake?;
        tokio::spawn(connection);
        let Attempt { task, epoch } = &self.attempt;
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/tasks/{}/{epoch}{at}", escape(task)))
            .header(header::HOST, "outlast")
            .header(header::CONNECTION, "close");
        let request = match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let request = match kind {
            "" => request,
            kind => request.header(header::CONTENT_TYPE, kind),
        };
        let request = request.body(Full::new(body));
        let request =
            request.map_err(|e| Failure { why: e.to_string(), lasting: true, missing: false })?;
        Ok(sender.send_request(request).await?)
    }
}

/// Reason why there is no answer, and whether it is permanent.
struct Failure {
    why: String,
    lasting: bool,
    /// There is no socket.
    missing: bool,
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Failure {
        Failure { why: error.to_string(), lasting: false, missing: false }
    }
}

const JSON: &str = "application/json";
const RAW: &str = "application/octet-stream";

async fn problem(answer: Response<Incoming>) -> Result<Problem, ClientError> {
    let status = answer.status();
    let all = Limited::new(answer.into_body(), MAX_JSON).collect().await;
    let all = all.map_err(|e| ClientError::Strange(format!("{status}: {e}")))?.to_bytes();
    match serde_json::from_slice::<Problem>(&all) {
        Ok(problem) if problem.status != 0 => Ok(problem),
        _ => Err(ClientError::Strange(format!("{status}: {}", String::from_utf8_lossy(&all)))),
    }
}

fn none_if_absent<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ClientError::Problem(problem))
            if problem.status == StatusCode::NOT_FOUND && problem.word() == NO_CHECKPOINT =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn encode(value: &impl Serialize) -> Result<Bytes, ClientError> {
    match serde_json::to_vec(value) {
        Ok(json) => Ok(json.into()),
        Err(error) => Err(ClientError::Invalid(format!("this cannot be said in JSON: {error}"))),
    }
}

/// An id for [`CheckpointMeta::request`]; std seeds these from the system's randomness.
fn fresh() -> String {
    let seeded = RandomState::new();
    format!("{:016x}{:016x}", seeded.hash_one(0_u8), seeded.hash_one(1_u8))
}

/// Percent-encodes all but what is safe anywhere in a URL.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}
