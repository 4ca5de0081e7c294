//! Errors on the socket: RFC 9457 problem details.

use super::error::HostError;
use super::types::DAMAGED;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_wire::api::PROBLEM_PREFIX;
use serde::{Deserialize, Serialize};

/// The document of an error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// `urn:outlast:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The word's meaning.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Explanation, and what to do.
    pub detail: String,
    /// Bytes that may be used, when there is no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
    /// Bytes that are used, when there is no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Bytes, when something is too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Seconds, when it is worth asking again; also the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, word: &str, title: &str, detail: String) -> Problem {
        Problem {
            kind: format!("{PROBLEM_PREFIX}{word}"),
            title: title.into(),
            status: status.as_u16(),
            detail,
            ..Default::default()
        }
    }
    /// The word that tells this kind of problem from others, such as `full`.
    pub fn word(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_PREFIX).unwrap_or(&self.kind)
    }
    pub(super) fn busy(detail: &str) -> Problem {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Problem::new(status, "unavailable", "not now", detail.into());
        Problem { retry_after: Some(1), ..problem }
    }
    pub(super) fn slow(what: &str) -> Problem {
        let detail = format!("{what} stopped coming; send it again");
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "the request took too long", detail)
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Problem {
        use StatusCode as S;
        let detail = error.to_string();
        let (status, word, title) = match &error {
            HostError::NoSuchAttempt => (S::NOT_FOUND, "no-such-attempt", "no such attempt here"),
            HostError::NoSuchCheckpoint(_) => {
                (S::NOT_FOUND, "no-such-checkpoint", "no such checkpoint")
            }
            HostError::Damaged(_) => (S::GONE, DAMAGED, "its data is damaged"),
            HostError::Fenced(_) => (S::CONFLICT, "fenced", "superseded"),
            HostError::Ended(_) => (S::CONFLICT, "ended", "over"),
            HostError::Conflict(_) => (S::CONFLICT, "conflict", "not in this state"),
            HostError::Full { .. } => (S::INSUFFICIENT_STORAGE, "full", "no room"),
            HostError::Denied(_) => (S::FORBIDDEN, "not-yours", "another attempt's"),
            HostError::Invalid(_) => (S::BAD_REQUEST, "bad-request", "this request cannot be used"),
            HostError::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too-large", "too large"),
            HostError::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable", "not now"),
            HostError::Internal(_) => {
                (S::INTERNAL_SERVER_ERROR, "internal", "the worker failed inside")
            }
        };
        let mut problem = Problem::new(status, word, title, detail);
        match error {
            HostError::Full { budget, used, retry_after, detail } => {
                // A disk that is full has no budget of ours to name.
                match budget {
                    0 => problem.detail = detail,
                    _ => (problem.budget, problem.used) = (Some(budget), Some(used)),
                }
                problem.retry_after = retry_after;
            }
            HostError::TooLarge { limit, .. } => problem.limit = Some(limit),
            HostError::Unavailable(_) => problem.retry_after = Some(1),
            _ => {}
        }
        problem
    }
}

/// A problem on its way out; small, since every result carries it.
#[derive(Debug)]
pub(super) struct Refusal(Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(Box::new(problem))
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Refusal {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        let json = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, kind, json).into_response();
        if let Some(seconds) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
