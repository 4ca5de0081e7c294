//! The client: requests with its key, repeated while the coordinator cannot be reached.

use crate::error::{Error, PROXY, advised, by_proxy, chain};
use outlast_wire::api::{Info, Problem};
use outlast_wire::local::{Credential, Said};
use outlast_wire::proof::{Challenge, Proof};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first pause before a request is repeated, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The reaction to a request that is cut on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnCut {
    /// The request is sent again.
    Again,
    /// The caller sends less.
    Split,
}

/// Time for which a coordinator that cannot be reached is tried again, unless set otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Time that a request may take: a minute, and half a one for those that wait for results.
const REQUEST: Duration = Duration::from_secs(90);
/// The time in which a coordinator must prove that it knows a key.
const CHALLENGE: Duration = Duration::from_secs(10);
/// Time for which the decision holds which key is sent, if any.
const DECIDED: Duration = Duration::from_secs(10);

/// The receiver of the reason why requests have to be repeated, and of `None` when that has ended.
pub(crate) type Notice = dyn Fn(Option<&str>) + Send + Sync;

/// The key that is sent, if any, and when that was decided.
pub(crate) type Decided = (Option<String>, Instant);

/// A client of a coordinator.
#[derive(Clone)]
///
/// # Examples
/// ```
/// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
/// # common::with_worker(async |client| {
/// // Clones are cheap, and share their connections.
/// let other = client.clone();
/// let (counts, workers) = tokio::join!(client.counts(), other.workers());
/// assert_eq!((counts?.total, workers?.workers.len()), (0, 1));
/// # Ok(())
/// # });
/// ```
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    /// The proxy that requests go through, in words.
    pub(crate) via: Option<String>,
    pub(crate) url: outlast_wire::Url,
    /// The key that was given.
    pub(crate) key: Option<String>,
    pub(crate) decided: Arc<Mutex<Option<Decided>>>,
    pub(crate) patience: Duration,
    pub(crate) notice: Option<Arc<Notice>>,
}

impl Client {
    /// The coordinator's address.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// println!("tasks go to {}", client.url());
    /// assert!(client.url().starts_with("http://127.0.0.1:"));
    /// # Ok(())
    /// # });
    /// ```
    pub fn url(&self) -> &str {
        &self.base
    }

    /// A description of the coordinator.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let info = client.info().await?;
    /// println!("coordinator {} of version {}", info.coordinator_id, info.version);
    /// assert!(!info.tls);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn info(&self) -> Result<Info, Error> {
        self.get("/api/v1/info").await
    }

    /// Checks that the coordinator can accept tasks: its store can be written.
    ///
    /// # Errors
    /// See [`Error`]; a problem of status 507 says why its store cannot be written.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// client.ready().await?;
    /// # Ok(())
    /// # });
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// // A body of 1 MiB passes whatever is on the way.
    /// client.probe(1 << 20).await?;
    /// # Ok(())
    /// # });
    /// ```
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
        request.timeout(REQUEST)
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

    /// Sends a request, again and again while that can help and time is left.
    pub(crate) async fn send(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.send_cut(request, OnCut::Again).await
    }

    pub(crate) async fn send_cut(
        &self,
        request: impl Fn() -> RequestBuilder,
        on_cut: OnCut,
    ) -> Result<Response, Error> {
        let started = Instant::now();
        let (mut pause, mut noticed, mut renewed) = (PAUSE.0, false, false);
        loop {
            let (error, after) = match self.once(request()).await {
                Ok(response) if response.status().is_success() => {
                    if noticed && let Some(notice) = &self.notice {
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
            if !noticed && let Some(notice) = &self.notice {
                notice(Some(&error.to_string()));
            }
            noticed = true;
            let requested = Duration::from_secs(after.unwrap_or(0)).min(PAUSE.1);
            // Jitter without a generator: the clock's nanoseconds are as good here.
            let spread = f64::from(started.elapsed().subsec_nanos() % 1000) / 1000.0;
            tokio::time::sleep(requested.max(pause.mul_f64(0.5 + spread / 2.0))).await;
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

/// The reason why there was no answer.
enum Failed {
    /// The request was not sent.
    Before(Error),
    /// The request may have been sent.
    Sent(reqwest::Error),
}

/// An id as a part of a path.
pub(crate) fn escape(id: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    id.bytes().map(|b| if keep(b) { (b as char).into() } else { format!("%{b:02X}") }).collect()
}
