//! Errors as RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_blob::BlobError;
use outlast_wire::api::{PROBLEM_PREFIX, Problem};

/// A request that is not granted.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub problem: Box<Problem>,
    retry_after: Option<u32>,
}

impl Refusal {
    pub fn new(status: StatusCode, word: &str, title: &str, detail: &str) -> Refusal {
        let problem = Problem {
            kind: format!("{PROBLEM_PREFIX}{word}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            conflicts: Vec::new(),
        };
        Refusal { problem: Box::new(problem), retry_after: None }
    }
    pub fn later(mut self, seconds: u32) -> Refusal {
        self.retry_after = Some(seconds);
        self
    }
    pub fn wrong_key() -> Refusal {
        let detail = "it is unknown to this coordinator, or was revoked";
        Self::new(StatusCode::UNAUTHORIZED, "wrong-key", "this API key is not valid", detail)
    }
    pub fn bad(detail: &str) -> Refusal {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "this request cannot be used", detail)
    }
    pub fn no_task(id: &str) -> Refusal {
        let detail = format!("there is no task {id:?}; `outlast tasks` lists them");
        Self::new(StatusCode::NOT_FOUND, "not-found", "no such task", &detail)
    }
    pub fn no_worker(name: &str) -> Refusal {
        let detail = format!("there is no worker {name:?}; `outlast workers` lists them");
        Self::new(StatusCode::NOT_FOUND, "not-found", "no such worker", &detail)
    }
    pub fn conflict(word: &str, title: &str, detail: &str) -> Refusal {
        Self::new(StatusCode::CONFLICT, word, title, detail)
    }
    pub fn full(limit: usize) -> Refusal {
        let detail = format!("{limit} unfinished tasks are the limit; wait until some have ended");
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "full", "too many unfinished tasks", &detail).later(5)
    }
    pub fn too_big(fresh: usize, limit: usize) -> Refusal {
        let detail = format!(
            "{fresh} new tasks in one request, and max_unfinished lets this coordinator have {limit} \
             unfinished ones in all; nothing was submitted. Send smaller batches, or raise \
             max_unfinished"
        );
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, "too-many-tasks", "too many tasks in one request", &detail)
    }
    pub fn too_many_actions(name: &str, limit: usize) -> Refusal {
        let detail = format!(
            "{limit} actions wait for worker {name}, which takes them with its next heartbeat, or \
             when it is back; ask again then"
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "full", "too many actions wait for this worker", &detail).later(5)
    }
    pub fn too_many_links(name: &str, limit: usize) -> Refusal {
        let detail = format!(
            "worker {name} has {limit} links that live, and one is enough: is its id used by several \
             processes?"
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "full", "too many links of this worker", &detail).later(60)
    }
    pub fn store(why: &str) -> Refusal {
        let detail = format!("{why}; nothing was acknowledged, ask again later");
        let status = StatusCode::INSUFFICIENT_STORAGE;
        Self::new(status, "store", "the coordinator's store cannot be used", &detail).later(5)
    }
    /// An error of the blob store.
    pub fn blob(error: &BlobError) -> Refusal {
        let text = error.to_string();
        match error {
            BlobError::Full { .. } | BlobError::DiskFull => {
                let detail = format!("{text}; raise --blob-budget or keep fewer checkpoints");
                let status = StatusCode::INSUFFICIENT_STORAGE;
                Self::new(status, "blobs-full", "no room for blobs", &detail).later(30)
            }
            BlobError::BadChunk { .. } | BlobError::BadManifest { .. } | BlobError::TooLarge => {
                Self::bad(&text)
            }
            BlobError::Unknown(hash) => Self::no_blob(&hash.to_string()),
            error if error.is_retryable() => Self::busy(&text),
            _ => Self::internal(&text),
        }
    }
    pub fn no_blob(hash: &str) -> Refusal {
        let detail = format!("there is no complete blob {hash} here");
        Self::new(StatusCode::NOT_FOUND, "not-found", "no such blob", &detail)
    }
    pub fn no_checkpoint(task: &str, which: &str, why: &str) -> Refusal {
        let detail = format!("task {task}, checkpoint {which:?}: {why}");
        Self::new(StatusCode::NOT_FOUND, "no-such-checkpoint", "no such checkpoint", &detail)
    }
    pub fn busy(why: &str) -> Refusal {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "busy", "not now", &format!("{why}; ask again")).later(2)
    }
    pub fn internal(why: &str) -> Refusal {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "internal", "this failed here", why)
    }
    pub fn ending() -> Refusal {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "ending", "the coordinator ends", "ask again when it is back").later(1)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.problem.status == StatusCode::UNAUTHORIZED.as_u16() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
