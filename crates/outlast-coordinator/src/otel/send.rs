//! One OTLP/HTTP address: delivers requests to it, and knows whether it is there. An outage is one
//! line in the log, however often it is tried.

use super::config::{OtelConfig, Target};
use super::counts::Count;
use super::proto::{ExportTraceServiceResponse, Resource, text};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The first and the longest pause before something is sent again; the longest that is waited
/// because the other side wants it.
const PAUSES: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30), Duration::from_secs(300));
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// The outcome of one try.
pub(super) enum Tried {
    /// The collector has it.
    Done,
    /// The collector will never take it.
    Refused,
    /// The collector may take it later; when, if it said so.
    Again(Option<Duration>),
}

pub(super) struct Sender {
    client: reqwest::Client,
    target: Target,
    /// Traces or metrics.
    what: &'static str,
    count: Arc<Count>,
    /// Set once the last try failed, and that was logged.
    failing: bool,
}

/// Returns the resource: this coordinator.
pub(super) fn resource(config: &OtelConfig, coordinator: &str, version: &str) -> Resource {
    let mut attributes: Vec<_> = config.attributes.iter().map(|(k, v)| text(k, v)).collect();
    for (key, value) in [("service.instance.id", coordinator), ("service.version", version)] {
        if !config.attributes.iter().any(|(known, _)| known == key) && !value.is_empty() {
            attributes.push(text(key, value));
        }
    }
    Resource { attributes, ..Default::default() }
}

impl Sender {
    pub fn new(
        client: reqwest::Client,
        target: Target,
        what: &'static str,
        count: Arc<Count>,
    ) -> Sender {
        Sender { client, target, what, count, failing: false }
    }

    /// Counts so many as lost.
    pub fn give_up(&self, many: u64) {
        self.count.dropped.fetch_add(many, Ordering::Relaxed);
    }

    /// Sends so many spans or points until they are taken or refused for good.
    pub async fn deliver(&mut self, request: &impl Message, many: u64) {
        let body = request.encode_to_vec();
        let mut pause = PAUSES.0;
        loop {
            match self.attempt(body.clone(), many).await {
                Tried::Done | Tried::Refused => return,
                Tried::Again(wanted) => {
                    tokio::time::sleep(wanted.unwrap_or(pause)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Sends them once.
    pub async fn attempt(&mut self, body: Vec<u8>, many: u64) -> Tried {
        let count = self.count.clone();
        let (tried, why) = match self.post(body).await {
            Ok((rejected, message)) => {
                count.exported.fetch_add(many.saturating_sub(rejected), Ordering::Relaxed);
                count.dropped.fetch_add(rejected.min(many), Ordering::Relaxed);
                if rejected == 0 {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("OTLP: {} are delivered again", self.what);
                    }
                    return Tried::Done;
                }
                (Tried::Done, format!("{rejected} of {many} were refused: {message}"))
            }
            Err((tried, why)) => {
                count.failures.fetch_add(1, Ordering::Relaxed);
                (tried, why)
            }
        };
        if matches!(tried, Tried::Refused) {
            count.dropped.fetch_add(many, Ordering::Relaxed);
        }
        if !std::mem::replace(&mut self.failing, true) {
            let what = match tried {
                Tried::Again(_) => "cannot be delivered for now",
                _ => "were refused and are lost",
            };
            tracing::warn!("OTLP: {} {what}: {why}; /metrics counts what follows", self.what);
        }
        tried
    }

    /// Sends a request; returns the number of those that were refused, and why.
    async fn post(&self, body: Vec<u8>) -> Result<(u64, String), (Tried, String)> {
        let mut request = self.client.post(self.target.url.clone()).timeout(self.target.timeout);
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        // The address may hold a secret: it is not repeated.
        let again = |e: reqwest::Error| (Tried::Again(None), words(&e.without_url()));
        let mut answer = request.send().await.map_err(again)?;
        let status = answer.status();
        if status.is_success() {
            let mut body = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(again)? {
                if body.len() + part.len() > ANSWER {
                    break;
                }
                body.extend_from_slice(&part);
            }
            // Those of traces and metrics have the same shape. One that is not understood is an
            // answer nevertheless.
            let said = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
            let said = said.partial_success.unwrap_or_default();
            return Ok((u64::try_from(said.rejected_spans).unwrap_or(0), said.error_message));
        }
        let wait = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = wait.map(|s| Duration::from_secs(s).clamp(PAUSES.0, PAUSES.2));
        let why = format!("it answered {status}");
        // Those that the protocol names; others will not be different later.
        match status.as_u16() {
            429 | 502..=504 => Err((Tried::Again(wait), why)),
            _ => Err((Tried::Refused, why)),
        }
    }
}

/// With what lies under it: "error sending request" alone says nothing.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        text = error.to_string();
        under = error.source();
    }
    text
}
