//! Bodies of requests, read with limits; bodies of answers, made from a `Read`.

use super::error::HostError;
use super::problem::{Problem, Refusal};
use super::types::MAX_JSON;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use outlast_wire::json::Limit;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Bytes of an answer that are read at once.
const CHUNK: usize = 256 << 10;
/// Limit of a document: twice that of a task's state.
const DOCUMENT: Limit = Limit { bytes: MAX_JSON, weight: 8 << 20 };

/// A request's body, piece by piece. Fails if the client stops sending.
pub(super) struct Chunks {
    body: Body,
    idle: Duration,
}

impl Chunks {
    /// `idle` is the longest wait for the next piece.
    pub fn new(body: Body, idle: Duration) -> Chunks {
        Chunks { body, idle }
    }
    /// The size that was announced.
    pub fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            match timeout(self.idle, self.body.frame()).await {
                Err(_) => return Err(Problem::slow("the body").into()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    let detail = format!("the body broke off: {error}");
                    let title = "this request cannot be used";
                    let status = StatusCode::BAD_REQUEST;
                    return Err(Problem::new(status, "bad-request", title, detail).into());
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The body as a JSON document.
    pub async fn json<T: DeserializeOwned>(mut self) -> Result<T, Refusal> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            if all.len() + chunk.len() > MAX_JSON {
                let what = "the JSON document".into();
                return Err(HostError::TooLarge { what, limit: MAX_JSON as u64 }.into());
            }
            all.extend_from_slice(&chunk);
        }
        DOCUMENT
            .read(&all)
            .map_err(|e| HostError::Invalid(format!("the body is not what is wanted: {e}")).into())
    }
}

/// An answer's body from a `Read`, a piece at a time: a slow client holds no thread, and no more
/// than one piece of memory.
pub(super) struct FromRead(State);

type Piece = (Box<dyn Read + Send>, io::Result<Vec<u8>>);

enum State {
    Idle(Box<dyn Read + Send>),
    Reading(JoinHandle<Piece>),
    Ended,
}

impl FromRead {
    pub fn new(body: Box<dyn Read + Send>) -> FromRead {
        FromRead(State::Idle(body))
    }
}

fn read(mut body: Box<dyn Read + Send>) -> Piece {
    let mut piece = Vec::with_capacity(CHUNK);
    let result = body.by_ref().take(CHUNK as u64).read_to_end(&mut piece);
    (body, result.map(|_| piece))
}

impl HttpBody for FromRead {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let State::Idle(_) = self.0
            && let State::Idle(body) = std::mem::replace(&mut self.0, State::Ended)
        {
            self.0 = State::Reading(spawn_blocking(move || read(body)));
        }
        let State::Reading(job) = &mut self.0 else { return Poll::Ready(None) };
        let done = ready!(Pin::new(job).poll(cx));
        self.0 = State::Ended;
        match done {
            Ok((body, Ok(piece))) if !piece.is_empty() => {
                self.0 = State::Idle(body);
                Poll::Ready(Some(Ok(Frame::data(piece.into()))))
            }
            Ok((_, Ok(_))) => Poll::Ready(None),
            // The answer breaks off, so that nobody takes a part for the whole.
            Ok((_, Err(error))) => {
                tracing::warn!("a checkpoint cannot be read: {error}");
                Poll::Ready(Some(Err(error)))
            }
            Err(error) => Poll::Ready(Some(Err(io::Error::other(error)))),
        }
    }
    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Ended)
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
