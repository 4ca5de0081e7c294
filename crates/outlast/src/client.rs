//! The HTTP client.

use crate::proxy::Via;
use outlast_wire::TaskSpec;
use outlast_wire::api::{
    CountsView, EndedTasks, History, Info, MAX_BATCH, MAX_BODY, PROBLEM_PREFIX, Problem, Submitted,
    SubmittedTask, Task, TaskList, TaskResult, WhichEnded, Worker, WorkerList,
};
use outlast_wire::local::{Credential, Said};
use outlast_wire::proof::{Challenge, Proof};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first pause before a request is repeated, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A body of more than so many bytes that was cut on its way may have been too large for a proxy.
const SUSPECT: usize = 64 << 10;
/// Status codes that proxies return by themselves: the request is too large, needs a login at the
/// proxy, or has no server behind it.
const PROXY: [u16; 5] = [407, 413, 502, 503, 504];

/// Treatment of a request that is interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnCut {
    /// Sends it again.
    Again,
    /// The caller sends less.
    Split,
}

/// Time limit of a plain request.
const REQUEST: Duration = Duration::from_secs(60);
/// The time in which a coordinator must prove that it knows a key.
const CHALLENGE: Duration = Duration::from_secs(10);
/// For how long it holds which key is sent, if any.
const DECIDED: Duration = Duration::from_secs(10);
/// Seconds that one request waits for a result.
const WAIT: u64 = 30;

/// Reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator said no.
    #[error("{}{}", .0.title, if .0.detail.is_empty() { String::new() } else { format!(": {}", .0.detail) })]
    Problem(Box<Problem>),
    /// The coordinator did not answer.
    #[error("the coordinator at {url} cannot be reached: {why}")]
    Unreachable {
        /// Address of the coordinator.
        url: String,
        /// The system's error.
        why: String,
    },
    /// The answer does not come from a coordinator.
    #[error("{url} does not answer as an Outlast coordinator: {why}")]
    Strange {
        /// Address of the coordinator.
        url: String,
        /// The unexpected answer.
        why: String,
    },
    /// The client cannot be made so.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Problem(problem) if problem.word() == word)
    }

    /// The HTTP status, when the coordinator answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }
}

/// A task to submit.
#[derive(Debug, Clone, Serialize)]
pub struct NewTask {
    /// Id; submitting the same id and spec again returns the same task.
    pub id: String,
    /// Specification of the task.
    #[serde(flatten)]
    pub spec: TaskSpec,
}

impl NewTask {
    /// Creates a task with a new random id.
    pub fn new(spec: TaskSpec) -> Self {
        NewTask { id: uuid::Uuid::now_v7().to_string(), spec }
    }
}

/// Query of tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// In any of these states; empty: in any.
    pub states: Vec<String>,
    /// Only those that are paused and not over.
    pub paused: bool,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// Queue of the tasks.
    pub queue: Option<String>,
    /// Held, or last held, by this worker.
    pub worker: Option<String>,
    /// With an id that begins so.
    pub prefix: Option<String>,
    /// Largest number of tasks (1 to 1000).
    pub limit: Option<usize>,
    /// Cursor of a previous page.
    pub cursor: Option<String>,
    /// True to list the oldest first.
    pub oldest: bool,
}

impl TaskQuery {
    /// Returns the parameters without those of the page.
    fn filter(&self) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if !self.states.is_empty() {
            pairs.push(("state", self.states.join(",")));
        }
        pairs.extend(self.labels.iter().map(|(k, v)| ("label", format!("{k}={v}"))));
        let optional = [
            ("paused", self.paused.then(|| "true".into())),
            ("queue", self.queue.clone()),
            ("worker", self.worker.clone()),
            ("prefix", self.prefix.clone()),
        ];
        pairs.extend(optional.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))));
        pairs
    }
}

/// Callback for outages: the reason when a request has to be repeated, None when that has ended.
type Notice = dyn Fn(Option<&str>) + Send + Sync;

/// Settings of a new client.
pub struct Builder {
    url: String,
    key: Option<String>,
    ca: Option<PathBuf>,
    patience: Duration,
    notice: Option<Arc<Notice>>,
}

impl Builder {
    /// An API key of role submit or operate.
    pub fn api_key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }
    /// A PEM file of authorities to trust beside the system's.
    pub fn ca(mut self, path: Option<PathBuf>) -> Self {
        self.ca = path;
        self
    }
    /// Sets the time for which requests to an unreachable coordinator are retried; default 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
    /// Called with the reason when the coordinator is lost, and with `None` when it is back.
    pub fn on_outage(mut self, notice: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(notice));
        self
    }
    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] when the address or the certificates cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        // Somebody may have chosen another provider before: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |e: String| Error::Setup(e);
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.ca {
            let named = |e: &dyn std::fmt::Display| setup(format!("{}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| named(&e))?;
            let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| named(&e))?;
            if certs.is_empty() {
                return Err(named(&"holds no certificate"));
            }
            http = http.tls_certs_merge(certs);
        }
        let url = outlast_wire::Url::parse(&self.url).map_err(setup)?;
        let via = Via::of(&url, |name| std::env::var(name).ok());
        http = http.no_proxy();
        if let Some(via) = &via {
            let proxy = reqwest::Proxy::all(&via.url);
            let wrong = |e| setup(format!("{}: {}", via.variable, chain(&e)));
            http = http.proxy(proxy.map_err(wrong)?);
        }
        let via = via.map(|via| via.named());
        let http = http.build().map_err(|e| setup(e.to_string()))?;
        let (key, patience, notice) = (self.key, self.patience, self.notice);
        let (base, decided) = (url.http(), Arc::default());
        Ok(Client { http, base, via, url, key, decided, patience, notice })
    }
}

/// The key that is sent, if any, and when that was decided.
type Decided = (Option<String>, Instant);

/// A coordinator, as seen by a user.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub(crate) base: String,
    /// The proxy that requests go through, in words.
    via: Option<String>,
    url: outlast_wire::Url,
    /// The key that was given.
    key: Option<String>,
    decided: Arc<Mutex<Option<Decided>>>,
    patience: Duration,
    notice: Option<Arc<Notice>>,
}

impl Client {
    /// Starts a client of the coordinator at this address, such as `http://127.0.0.1:7117`; see
    /// [`outlast_wire::Url`] for its optional parts.
    pub fn builder(url: &str) -> Builder {
        let url = url.to_owned();
        Builder { url, key: None, ca: None, patience: REQUEST, notice: None }
    }
    /// The coordinator's address.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Submits a task: it, and whether it is new.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn submit(&self, task: &NewTask) -> Result<(Task, bool), Error> {
        let send = || self.request(Method::POST, "/api/v1/tasks").json(task);
        let response = self.send(send).await?;
        let created = response.status() == StatusCode::CREATED;
        Ok((self.read(response).await?, created))
    }

    /// Submits any number of tasks, in parts of up to 10,000; each part as a whole or not at all.
    /// A part that the coordinator can never take at once is sent as smaller ones.
    ///
    /// # Errors
    /// See [`Error`]; former parts stay submitted, and submitting all of them again is safe.
    pub async fn submit_all(&self, tasks: &[NewTask]) -> Result<Vec<SubmittedTask>, Error> {
        let mut done = Vec::with_capacity(tasks.len());
        let (mut left, mut most, mut room) = (tasks, MAX_BATCH, MAX_BODY / 4);
        while !left.is_empty() {
            let (part, count) = part(left, most, room)?;
            let bytes = part.len();
            let send = || {
                self.request(Method::POST, "/api/v1/tasks")
                    .header("content-type", "application/json")
                    .body(part.clone())
            };
            let cut = if bytes > SUSPECT && count > 1 { OnCut::Split } else { OnCut::Again };
            match self.send_cut(send, cut).await {
                Err(e) if e.is("too-many-tasks") && count > 1 => most = count / 2,
                Err(e) if e.status() == Some(413) && count > 1 => room = bytes / 2,
                // A proxy may cut what is too large for it.
                Err(Error::Unreachable { .. }) if cut == OnCut::Split => room = bytes / 2,
                Err(Error::Problem(mut problem)) if problem.status == 413 => {
                    let id = &left[0].id;
                    problem.detail += &format!("; task {id} alone is {bytes} bytes");
                    return Err(Error::Problem(problem));
                }
                Err(e) => return Err(e),
                Ok(response) => {
                    done.extend(self.read::<Submitted>(response).await?.tasks);
                    left = &left[count..];
                }
            }
        }
        Ok(done)
    }

    /// A page of tasks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tasks(&self, query: &TaskQuery) -> Result<TaskList, Error> {
        let mut pairs = query.filter();
        let page = [
            ("limit", query.limit.map(|n| n.to_string())),
            ("cursor", query.cursor.clone()),
            ("order", query.oldest.then(|| "oldest".into())),
        ];
        pairs.extend(page.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))));
        let send = || self.request(Method::GET, "/api/v1/tasks").query(&pairs);
        self.read(self.send(send).await?).await
    }

    /// One task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn task(&self, id: &str) -> Result<Task, Error> {
        self.get(&format!("/api/v1/tasks/{}", escape(id))).await
    }

    /// Returns the end of a task, if it has ended within `wait` seconds (at most 60).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn result(&self, id: &str, wait: u64) -> Result<Option<TaskResult>, Error> {
        match self.get(&format!("/api/v1/tasks/{}/result?wait={wait}", escape(id))).await {
            Ok(result) => Ok(Some(result)),
            Err(Error::Problem(problem)) if problem.word() == "not-finished" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a task to end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wait(&self, id: &str) -> Result<TaskResult, Error> {
        loop {
            if let Some(result) = self.result(id, WAIT).await? {
                return Ok(result);
            }
        }
    }

    /// Returns those of up to 1,000 tasks that have ended; waits up to `wait` seconds (at most 60) for the
    /// first. May omit some: request those that it does not name again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn results(&self, ids: &[String], wait: u64) -> Result<EndedTasks, Error> {
        let asked = WhichEnded { ids: ids.to_vec(), wait };
        let send = || self.request(Method::POST, "/api/v1/results").json(&asked);
        self.read(self.send(send).await?).await
    }

    /// Returns the events of a task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn history(&self, id: &str) -> Result<History, Error> {
        self.get(&format!("/api/v1/tasks/{}/history", escape(id))).await
    }

    /// Cancels a task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/cancel", escape(id))).await
    }

    /// Runs a task again that failed or was cancelled.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retry(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/retry", escape(id))).await
    }

    /// Returns the number of tasks in each state.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn counts(&self) -> Result<CountsView, Error> {
        self.get("/api/v1/counts").await
    }

    /// Returns the number of tasks of a query in each state, regardless of its page.
    ///
    /// # Errors
    /// See [`Error`]; also if the coordinator is too old to count some only.
    pub async fn counts_of(&self, query: &TaskQuery) -> Result<CountsView, Error> {
        let pairs = query.filter();
        let send = || self.request(Method::GET, "/api/v1/counts").query(&pairs);
        let counts: CountsView = self.read(self.send(send).await?).await?;
        if !pairs.is_empty() && !counts.filtered {
            let why = "it is of an older version, and can count only all tasks".into();
            return Err(Error::Strange { url: self.base.clone(), why });
        }
        Ok(counts)
    }

    /// All workers.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn workers(&self) -> Result<WorkerList, Error> {
        self.get("/api/v1/workers").await
    }

    /// One worker.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn worker(&self, name: &str) -> Result<Worker, Error> {
        self.get(&format!("/api/v1/workers/{}", escape(name))).await
    }

    /// Removes a worker that is gone for good.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget(&self, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}", escape(name));
        self.send(|| self.request(Method::DELETE, &path)).await.map(drop)
    }

    /// Binds a worker to no API key any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unbind(&self, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/unbind", escape(name));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Returns the coordinator's description.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn info(&self) -> Result<Info, Error> {
        self.get("/api/v1/info").await
    }

    /// Checks that the coordinator can accept tasks: its store can be written.
    ///
    /// # Errors
    /// See [`Error`]; a problem of status 507 says why its store cannot be written.
    pub async fn ready(&self) -> Result<(), Error> {
        let answer = self.request(Method::GET, "/readyz").send().await;
        let unreachable =
            |e| Error::Unreachable { url: self.base.clone(), why: advised(chain(&e)) };
        let answer = answer.map_err(unreachable)?;
        if answer.status().is_success() { Ok(()) } else { Err(self.problem(answer).await) }
    }

    /// Sends a body of so many bytes that is thrown away, to see whether it passes.
    ///
    /// # Errors
    /// See [`Error`]: of status 413 where a proxy refuses it.
    pub async fn probe(&self, bytes: usize) -> Result<(), Error> {
        let send = || self.request(Method::PUT, "/api/v1/probe").body(vec![b'x'; bytes]);
        self.send_cut(send, OnCut::Split).await.map(drop)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.send(|| self.request(Method::GET, path)).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.send(|| self.request(Method::POST, path)).await?).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        request.timeout(REQUEST + Duration::from_secs(WAIT))
    }

    /// The key to send: the one that was given, or this user's own coordinator's. Where no TLS says
    /// who answers, whoever does has proved to know it.
    async fn key(&self) -> Result<Option<String>, Error> {
        if let Some((key, at)) = &*self.decided()
            && at.elapsed() < DECIDED
        {
            return Ok(key.clone());
        }
        let key = match Credential::find(&self.url, self.key.as_deref()) {
            Some(found) if !self.url.tls => {
                let said = self.challenge(&found.token).await?;
                let url = self.url.authority();
                let key = found.after(said, &url).map(|key| key.map(ToOwned::to_owned));
                key.map_err(|why| Error::Strange { url, why })?
            }
            found => found.map(|found| found.token),
        };
        *self.decided() = Some((key.clone(), Instant::now()));
        Ok(key)
    }

    fn decided(&self) -> MutexGuard<'_, Option<Decided>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn challenge(&self, token: &str) -> Result<Said, Error> {
        let Some(challenge) = Challenge::new(token) else { return Ok(Said::Nothing) };
        let request = self.http.get(format!("{}{}", self.base, challenge.path()));
        let unreachable =
            |e| Error::Unreachable { url: self.base.clone(), why: advised(chain(&e)) };
        let answer = request.timeout(CHALLENGE).send().await.map_err(unreachable)?;
        Ok(match answer.status().as_u16() {
            200 => match answer.json::<Proof>().await {
                Ok(proof) if proof.proof.is_empty() => Said::NoKeys,
                Ok(proof) if challenge.is_proven(token, &proof) => Said::Proof,
                _ => Said::Unknown,
            },
            403 => Said::Unknown,
            429 | 500..=599 => return Err(self.problem(answer).await),
            _ => Said::Nothing,
        })
    }

    /// Sends a request once, with the key.
    async fn once(&self, request: RequestBuilder) -> Result<Response, Failed> {
        let request = match self.key().await.map_err(Failed::Before)? {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.send().await.map_err(Failed::Sent);
        if answer.is_err() {
            // Whoever answers next may be somebody else.
            *self.decided() = None;
        }
        answer
    }

    /// Returns true if there is a key by now that was not sent: the coordinator makes its user's when it starts
    /// for the first time, and may need one that it did not need before.
    async fn has_new_key(&self, refused: &Response) -> bool {
        if refused.status() != StatusCode::UNAUTHORIZED {
            return false;
        }
        let sent = self.decided().take().and_then(|(key, _)| key);
        matches!(self.key().await, Ok(Some(key)) if Some(&key) != sent.as_ref())
    }

    /// Sends a request, and retries while that can help, up to the time limit.
    pub(crate) async fn send(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.send_cut(request, OnCut::Again).await
    }

    async fn send_cut(
        &self,
        request: impl Fn() -> RequestBuilder,
        on_cut: OnCut,
    ) -> Result<Response, Error> {
        let started = Instant::now();
        let (mut pause, mut told, mut renewed) = (PAUSE.0, false, false);
        loop {
            let (error, after) = match self.once(request()).await {
                Ok(response) if response.status().is_success() => {
                    if told && let Some(notice) = &self.notice {
                        notice(None);
                    }
                    return Ok(response);
                }
                Ok(response) if !renewed && self.has_new_key(&response).await => {
                    renewed = true;
                    continue;
                }
                Ok(response) => {
                    let after = response.headers().get("retry-after");
                    let after = after.and_then(|v| v.to_str().ok()?.parse().ok());
                    let error = self.problem(response).await;
                    match error.status() {
                        Some(429 | 502 | 503 | 504 | 507) => (error, after),
                        _ => return Err(error),
                    }
                }
                Err(Failed::Before(error)) => match error {
                    Error::Unreachable { .. } => (error, None),
                    Error::Problem(ref p) if matches!(p.status, 429 | 500..=599) => (error, None),
                    _ => return Err(error),
                },
                Err(Failed::Sent(e)) if e.is_builder() => return Err(Error::Setup(chain(&e))),
                Err(Failed::Sent(e)) => {
                    let cut = on_cut == OnCut::Split && !e.is_connect() && !e.is_timeout();
                    let mut why = advised(chain(&e));
                    if let Some(via) = &self.via {
                        why += &format!(" (through {via}; NO_PROXY can exclude this host)");
                    }
                    if cut {
                        return Err(Error::Unreachable { url: self.base.clone(), why });
                    }
                    (Error::Unreachable { url: self.base.clone(), why }, None)
                }
            };
            if started.elapsed() + pause > self.patience {
                return Err(error);
            }
            if !told && let Some(notice) = &self.notice {
                notice(Some(&error.to_string()));
            }
            told = true;
            let asked = Duration::from_secs(after.unwrap_or(0)).min(PAUSE.1);
            // Jitter without a generator: the clock's nanoseconds are as good here.
            let spread = f64::from(started.elapsed().subsec_nanos() % 1000) / 1000.0;
            tokio::time::sleep(asked.max(pause.mul_f64(0.5 + spread / 2.0))).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn problem(&self, response: Response) -> Error {
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) => Error::Problem(Box::new(problem)),
            Err(_) if PROXY.contains(&status.as_u16()) => {
                Error::Problem(Box::new(by_proxy(&self.base, self.via.as_deref(), status)))
            }
            Err(_) => Error::Strange { url: self.base.clone(), why: format!("status {status}") },
        }
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let strange = |e: reqwest::Error| Error::Strange { url: self.base.clone(), why: chain(&e) };
        response.json().await.map_err(strange)
    }
}

/// Reason why there was no answer.
enum Failed {
    /// The request was not sent.
    Before(Error),
    /// The request may have been received.
    Sent(reqwest::Error),
}

/// A refusal that is no coordinator's.
fn by_proxy(base: &str, via: Option<&str>, status: StatusCode) -> Problem {
    let via = via.unwrap_or("a proxy");
    let code = status.as_u16();
    let detail = match code {
        413 => "the request is more than it lets through (nginx: client_max_body_size 32m)",
        407 => "it wants a name and a password; see HTTP_PROXY and NO_PROXY",
        _ => "it does not reach the coordinator",
    };
    Problem {
        kind: format!("{PROBLEM_PREFIX}proxy"),
        title: format!("{via} on the way to {base} answered {status}"),
        status: code,
        detail: detail.into(),
        conflicts: Vec::new(),
    }
}

/// The first of these tasks as an array, and how many: one at least, no more than `most`, and than
/// `room` bytes hold.
fn part(tasks: &[NewTask], most: usize, room: usize) -> Result<(Vec<u8>, usize), Error> {
    let (mut part, mut count) = (Vec::from(b"["), 0);
    for task in tasks.iter().take(most) {
        let before = part.len();
        if count > 0 {
            part.push(b',');
        }
        serde_json::to_writer(&mut part, task).map_err(|e| Error::Setup(e.to_string()))?;
        if count > 0 && part.len() >= room {
            part.truncate(before);
            break;
        }
        count += 1;
    }
    part.push(b']');
    Ok((part, count))
}

/// An error with its causes: reqwest's own text leaves out what matters.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

/// With what to do about it, where TLS is the matter.
fn advised(why: String) -> String {
    let says = |word: &str| why.contains(word);
    // The latter two: another authority of the same name is trusted.
    let unknown = ["UnknownIssuer", "BadSignature", "UnsupportedSignature"];
    let hint = if unknown.into_iter().any(says) {
        "; its certificate's authority is not trusted here: give it with --ca"
    } else if says("not valid for name") {
        "; its certificate is for another name: use the name in the certificate"
    } else if says("corrupt message") {
        "; it may not speak TLS: try http://"
    } else if says("invalid HTTP version") {
        "; it may speak TLS: try https://"
    } else {
        ""
    };
    why + hint
}

pub(crate) fn escape(id: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    id.bytes().map(|b| if keep(b) { (b as char).into() } else { format!("%{b:02X}") }).collect()
}
