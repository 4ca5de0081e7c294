//! HTTP/1.1 to the coordinator, over a connection of its own that is kept open: for bulk, so that
//! no heartbeat waits behind it.

use crate::dial::Dialler;
use crate::error::DialError;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use outlast_wire::api::Problem;
use outlast_wire::{SESSION_HEADER, WORKER_HEADER};
use std::time::{Duration, Instant};

/// Time for which the other side may be silent in the middle of a request.
const SILENCE: Duration = Duration::from_secs(30);
/// A kept connection that breaks this soon had been closed before.
const STALE: Duration = Duration::from_secs(2);
/// The largest answer that is held, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The complete body.
    pub body: Bytes,
}

impl Answer {
    /// The word of the problem that it is, and its text for people.
    pub fn problem(&self) -> (String, String) {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(p) => (p.word().to_owned(), format!("{}: {}", p.title, p.detail)),
            Err(_) => (String::new(), format!("HTTP status {}", self.status)),
        }
    }
}

/// A connection for requests, opened when it is needed.
pub struct Http<'a> {
    dialler: &'a Dialler,
    open: Option<Open>,
}

/// An open connection, and the key to show on it.
type Open = (SendRequest<Full<Bytes>>, Option<HeaderValue>);

impl<'a> Http<'a> {
    /// Creates a client without opening a connection.
    pub fn new(dialler: &'a Dialler) -> Http<'a> {
        Http { dialler, open: None }
    }

    /// Sends a request and waits for the complete answer.
    ///
    /// # Errors
    /// The reason why there is no answer; the connection is then closed.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, DialError> {
        if let Some(open) = self.open.take().filter(|(sender, _)| !sender.is_closed()) {
            let began = Instant::now();
            let answer = self.exchange(open, method, path, body.clone()).await;
            // A connection that was kept may have been closed meanwhile: then by another one.
            if answer.is_ok() || began.elapsed() > STALE {
                return answer;
            }
        }
        let open = self.connect().await?;
        self.exchange(open, method, path, body).await
    }

    async fn exchange(
        &mut self,
        (mut sender, key): Open,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, DialError> {
        let at = self.dialler.url.authority();
        let cut = |why: String| DialError::Cut { at: at.clone(), why };
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.dialler.url.prefix))
            .header("host", &at)
            .header(WORKER_HEADER, &self.dialler.worker)
            .header("content-type", "application/octet-stream");
        let request = match &key {
            Some(key) => request.header("authorization", key.clone()),
            None => request,
        };
        let request = match self.dialler.session() {
            Some(session) => request.header(SESSION_HEADER, session),
            None => request,
        };
        let request = request.body(Full::new(body)).map_err(|e| cut(e.to_string()))?;
        sender.ready().await.map_err(|e| cut(e.to_string()))?;
        let response = tokio::time::timeout(SILENCE * 4, sender.send_request(request)).await;
        let response = response.map_err(|_| cut("it does not answer".into()))?;
        let response = response.map_err(|e| cut(chain(&e)))?;
        let status = response.status().as_u16();
        let body = match read(response.into_body()).await {
            Ok(body) => body,
            // A refusal is one without its text, too.
            Err(_) if status >= 400 => return Ok(Answer { status, body: Bytes::new() }),
            Err(why) => return Err(cut(why)),
        };
        self.open = Some((sender, key));
        Ok(Answer { status, body })
    }

    async fn connect(&self) -> Result<Open, DialError> {
        let (stream, key) = self.dialler.connect_with_key().await?;
        let at = self.dialler.url.authority();
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| DialError::Unreachable { at, why: e.to_string() })?;
        tokio::spawn(async move { drop(connection.await) });
        Ok((sender, key))
    }
}

/// An error with its cause, which is what matters.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        match frame.map_err(|_| "its answer stopped".to_owned())? {
            None => return Ok(all.freeze()),
            Some(frame) => {
                if let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() {
                    all.extend_from_slice(&data);
                }
                if all.len() > MAX_ANSWER {
                    return Err(format!("its answer is larger than {MAX_ANSWER} bytes"));
                }
            }
        }
    }
}
