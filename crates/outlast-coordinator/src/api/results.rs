//! Results of many tasks in one request, for clients that follow more tasks than they could query one by
//! one.

use super::views;
use crate::app::App;
use crate::events::FeedEvent;
use crate::extract::Submitter;
use crate::intake::DOCUMENT;
use crate::problem::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use outlast_store::{CoordReader, StoreError};
use outlast_wire::api::{EndedTasks, MAX_PAGE, MAX_WAIT, WhichEnded};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// Time in which others may join the first that ends, so that many ends are one answer.
const LINGER: Duration = Duration::from_millis(5);
/// Bytes of a request: names of tasks.
const MAX_ASKED: usize = 1 << 20;
/// Bytes of values and output after which an answer is full; what is left is for the next one.
const FULL: usize = 8 << 20;

/// Returns those of up to 1,000 tasks that have ended, with their results; waits up to `wait` seconds
/// for the first. One answer may leave some out: request again what it does not name.
#[utoipa::path(post, path = "/api/v1/results", tag = "tasks", request_body = WhichEnded,
    responses((status = 200, body = EndedTasks)))]
pub(crate) async fn results(
    State(app): State<App>,
    Submitter(who): Submitter,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<EndedTasks>, Refusal> {
    let owner: Option<Arc<str>> = who.only().map(Into::into);
    let body = app.intake.read(&headers, body, MAX_ASKED).await?;
    let asked = DOCUMENT.read(&body).map_err(|e| Refusal::bad(&e))?;
    let WhichEnded { ids, wait } = asked;
    if ids.len() > MAX_PAGE {
        let detail = format!("ids: {}; {MAX_PAGE} is the limit of one request", ids.len());
        return Err(Refusal::bad(&detail));
    }
    // Before looking, so that an end in between is not missed.
    let mut watch = app.watchers.subscribe();
    let deadline = Instant::now() + Duration::from_secs(wait.min(MAX_WAIT));
    let ids: Arc<HashSet<String>> = Arc::new(ids.into_iter().collect());
    loop {
        let (asked, owner) = (ids.clone(), owner.clone());
        let found = app.read(move |r| ended_of(r, &asked, owner.as_deref())).await?;
        let waits = !ids.is_empty() && found.results.is_empty() && found.unknown.is_empty();
        if !waits || tokio::time::timeout_at(deadline, ended(&mut watch, &ids)).await.is_err() {
            return Ok(Json(found));
        }
        tokio::time::sleep(LINGER).await;
    }
}

fn ended_of(
    reader: &CoordReader,
    ids: &HashSet<String>,
    owner: Option<&str>,
) -> Result<EndedTasks, StoreError> {
    let (mut found, mut size) = (EndedTasks { results: Vec::new(), unknown: Vec::new() }, 0);
    for id in ids {
        let seen = owner.map_or(Ok(true), |owner| reader.is_owned(id, owner))?;
        match reader.task_state(id)?.filter(|_| seen) {
            None => found.unknown.push(id.clone()),
            Some(state) if state.is_terminal() && size < FULL => {
                // One that is retried meanwhile is not over any more.
                let task = reader.task(id)?.filter(|t| t.state.is_terminal());
                let Some(task) = task else { continue };
                let result = views::result(&task, reader.outcome(id)?.as_deref());
                size += result.stdout.len() + result.stderr.len() + result.message.len();
                size += result.value.get().len();
                found.results.push(result);
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

/// Waits until a task of these may have ended.
async fn ended(watch: &mut Receiver<Arc<FeedEvent>>, ids: &HashSet<String>) {
    loop {
        match watch.recv().await {
            Ok(what) => {
                if let FeedEvent::Task { id, state: Some(state), .. } = &*what
                    && state.is_terminal()
                    && ids.contains(&**id)
                {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
