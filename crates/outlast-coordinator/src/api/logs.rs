//! The output of tasks.

use crate::app::App;
use crate::extract::{Params, Submitter};
use crate::logs::{Crowded, Reader, Slice};
use crate::problem::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_model::TaskOutcome;
use outlast_wire::api::MAX_LOG_PART;
use outlast_wire::v2::LogRequest;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
pub(crate) struct LogQuery {
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    attempt: Option<u64>,
    limit: Option<u32>,
    tail: Option<u64>,
}

impl LogQuery {
    fn check(&self) -> Result<(), Refusal> {
        match self.stream.as_deref() {
            None | Some("stdout" | "stderr") => {}
            Some(_) => return Err(Refusal::bad("stream: must be stdout or stderr")),
        }
        if self.limit.is_some_and(|n| !(1..=MAX_LOG_PART).contains(&n)) {
            return Err(Refusal::bad(&format!("limit: must be from 1 to {MAX_LOG_PART}")));
        }
        match self.tail {
            Some(_) if self.offset > 0 => {
                Err(Refusal::bad("tail: counts from the end, so that there is no offset"))
            }
            _ => Ok(()),
        }
    }

    fn stderr(&self) -> bool {
        self.stream.as_deref() == Some("stderr")
    }
}

/// Part of a log.
struct Part {
    source: &'static str,
    attempt: u64,
    data: Bytes,
    start: u64,
    next: u64,
    end: bool,
    /// The range that is lost at its beginning.
    gap: Option<(u64, u64)>,
}

/// Returns the output of a task: from the worker that has it, or the end of it from its result. With
/// `limit` an answer is one part, and `outlast-log-next` is the offset to go on at. A part with
/// `outlast-log-gap` begins with a line in place of what is lost. Without `limit` all of it comes, up
/// to its present end.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/logs", tag = "tasks",
    params(("id" = String, Path), ("stream" = Option<String>, Query, description = "stdout (default) or stderr"),
        ("offset" = Option<u64>, Query, description = "of what the task wrote, also of what is lost since"),
        ("attempt" = Option<u64>, Query),
        ("limit" = Option<u32>, Query, description = "the most bytes of one part, up to 1048576"),
        ("tail" = Option<u64>, Query, description = "instead of offset: only so many bytes at the end")),
    responses((status = 200, content_type = "text/plain",
        description = "outlast-log-source: worker or tail; outlast-log-attempt: of which attempt; where they \
            are known: outlast-log-offset, outlast-log-next, outlast-log-end (true: nothing follows as yet) and \
            outlast-log-gap (FROM-TO, what is lost)"),
        (status = 429, body = outlast_wire::api::Problem, description = "Too many read logs of this worker"),
        (status = 503, body = outlast_wire::api::Problem, description = "Its worker is away, or too many read logs")))]
pub(crate) async fn logs(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
    Params(query): Params<LogQuery>,
) -> Result<Response, Refusal> {
    query.check()?;
    let (epoch, worker, outcome) = find(&app, &id, query.attempt).await?;
    if let (None, Some(attempt)) = (&worker, query.attempt) {
        let detail =
            format!("task {id:?} has no attempt {attempt}; `outlast task history` has all");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not-found", "no such attempt", &detail));
    }
    let mut why = "it has not been given to a worker yet".to_owned();
    if let Some(worker) = worker {
        match of_worker(&app, &worker, &id, epoch, &query).await? {
            Ok(response) => return Ok(response),
            Err(error) => why = error,
        }
    }
    match outcome {
        Some(outcome) => Ok(of_result(&outcome, epoch, &query).into_response()),
        None => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail = format!("the logs of attempt {epoch} cannot be had now: {why}");
            Err(Refusal::new(status, "no-logs", "no logs for now", &detail))
        }
    }
}

type Found = (u64, Option<Arc<str>>, Option<Arc<TaskOutcome>>);

/// The attempt to show, which worker has its log, and how it ended.
async fn find(app: &App, id: &str, attempt: Option<u64>) -> Result<Found, Refusal> {
    let wanted = id.to_owned();
    let read = app.read(move |r| {
        let Some(task) = r.task(&wanted)? else { return Ok(None) };
        let shown = if task.ended_epoch > 0 { task.ended_epoch } else { task.epoch };
        let epoch = attempt.unwrap_or(shown);
        // Each attempt's log lies where it ran. Whoever follows one asks often: the history is
        // read for an earlier attempt only.
        let worker = match task.worker.filter(|_| epoch == task.epoch) {
            None if epoch > 0 => {
                let of_it = r.history(&wanted)?.into_iter().filter(|e| e.epoch == epoch);
                of_it.filter_map(|e| e.worker).next_back()
            }
            there => there.filter(|_| epoch > 0),
        };
        let outcome = match epoch == task.ended_epoch {
            true => r.outcome(&wanted)?,
            false => {
                let past = r.past_outcomes(&wanted)?.into_iter();
                past.filter(|past| past.event.epoch == epoch).map(|past| past.outcome).next_back()
            }
        };
        Ok(Some((epoch, worker, outcome)))
    });
    let found = read.await?;
    found.ok_or_else(|| Refusal::no_task(id))
}

/// The log as the worker has it, or why not.
async fn of_worker(
    app: &App,
    store_id: &str,
    id: &str,
    epoch: u64,
    query: &LogQuery,
) -> Result<Result<Response, String>, Refusal> {
    let worker = store_id.to_owned();
    let conn = app.query(move |core| core.link_of_store(&worker)).await;
    let Some(conn) = conn? else {
        return Ok(Err("its worker is not connected".into()));
    };
    let request = LogRequest {
        task_id: id.to_owned(),
        epoch,
        stderr: query.stderr(),
        offset: query.tail.unwrap_or(query.offset),
        from_end: query.tail.is_some(),
        ..LogRequest::default()
    };
    let opened = app.logs.open(&app.driver, conn, request);
    let mut reader = opened.map_err(crowded_out)?;
    let limit = query.limit.unwrap_or(MAX_LOG_PART);
    let first = match reader.next(limit).await {
        Ok(first) => first.unwrap_or_default(),
        Err(error) => return Ok(Err(error)),
    };
    if query.limit.is_none() && !first.end {
        let first = Ok::<_, String>(first.data);
        let first = futures_util::stream::iter([first]);
        let rest = futures_util::stream::unfold(Some(reader), rest);
        let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
        return Ok(Ok(respond("worker", epoch, body)));
    }
    Ok(gathered(first, reader, epoch, limit).await.map(IntoResponse::into_response))
}

/// A whole part: slices up to its limit, to the end, or to what is lost.
async fn gathered(
    first: Slice,
    mut reader: Reader,
    attempt: u64,
    limit: u32,
) -> Result<Part, String> {
    let gap = first.gap.then_some((first.start, first.next));
    let Slice { start, mut next, mut end, .. } = first;
    let mut data = Vec::from(first.data);
    // What is lost is a part of its own: where it comes next this one ends.
    while gap.is_none() && !end && (data.len() as u64) < u64::from(limit) {
        match reader.next(limit - data.len() as u32).await {
            Ok(Some(slice)) if !slice.gap => {
                data.extend_from_slice(&slice.data);
                (next, end) = (slice.next, slice.end);
            }
            Ok(_) => break,
            Err(error) if data.is_empty() => return Err(error),
            // What is here is right; the next part will say it.
            Err(_) => break,
        }
    }
    // A worker that knows no slices sends what it likes.
    let beyond = data.len().saturating_sub(limit as usize);
    if gap.is_none() && beyond > 0 {
        data.truncate(limit as usize);
        (next, end) = (next - beyond as u64, false);
    }
    Ok(Part { source: "worker", attempt, data: data.into(), start, next, end, gap })
}

async fn rest(reader: Option<Reader>) -> Option<(Result<Bytes, String>, Option<Reader>)> {
    let mut reader = reader?;
    match reader.next(MAX_LOG_PART).await {
        Ok(slice) => Some((Ok(slice?.data), Some(reader))),
        Err(error) => Some((Err(error), None)),
    }
}

/// Returns the part of a log that a result has: its end.
fn of_result(outcome: &TaskOutcome, attempt: u64, query: &LogQuery) -> Part {
    let (tail, total) = match query.stderr() {
        false => (&outcome.stdout_tail, outcome.stdout_bytes),
        true => (&outcome.stderr_tail, outcome.stderr_bytes),
    };
    let begins = total.saturating_sub(tail.len() as u64);
    let asked = query.tail.map_or(query.offset, |n| total.saturating_sub(n).max(begins));
    let start = asked.clamp(begins, total);
    let rest = tail.slice((start - begins) as usize..);
    let data = rest.slice(..rest.len().min(query.limit.unwrap_or(MAX_LOG_PART) as usize));
    let next = asked.max(start + data.len() as u64);
    let gap = (asked < start).then_some((asked, start));
    Part { source: "tail", attempt, data, start, next, end: next >= total, gap }
}

impl IntoResponse for Part {
    fn into_response(self) -> Response {
        let mut response = respond(self.source, self.attempt, Body::from(self.data));
        let headers = response.headers_mut();
        let mut add = |name, value: HeaderValue| {
            headers.insert(HeaderName::from_static(name), value);
        };
        add("outlast-log-offset", self.start.into());
        add("outlast-log-next", self.next.into());
        add("outlast-log-end", HeaderValue::from_static(if self.end { "true" } else { "false" }));
        if let Some((from, to)) = self.gap
            && let Ok(value) = HeaderValue::try_from(format!("{from}-{to}"))
        {
            add("outlast-log-gap", value);
        }
        response
    }
}

fn respond(source: &'static str, attempt: u64, body: Body) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    let of =
        [("outlast-log-source", source.to_owned()), ("outlast-log-attempt", attempt.to_string())];
    (headers, of, body).into_response()
}

fn crowded_out(crowded: Crowded) -> Refusal {
    let (status, title, n) = match crowded {
        Crowded::Worker(n) => {
            (StatusCode::TOO_MANY_REQUESTS, "too many read the logs of this worker", n)
        }
        Crowded::All(n) => (StatusCode::SERVICE_UNAVAILABLE, "too many read logs", n),
    };
    let detail = format!("{n} at a time are the limit; ask again");
    Refusal::new(status, "too-many-readers", title, &detail).later(2)
}
