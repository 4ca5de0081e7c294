//! Tasks: list, show, result, history, logs. What changes them is in `control`.

use super::{App, Refusal, views};
use crate::clock::text;
use crate::driver::Input;
use crate::events::Happened;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_core::TaskId;
use outlast_core::records::TaskState;
use outlast_store::{Role, TaskFilter};
use outlast_wire::api::{
    CountsView, History, HistoryEvent, MAX_PAGE, MAX_WAIT, Task, TaskList, TaskResult,
};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{LogData, LogRequest};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// How long a worker may take to begin its answer.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// Lists tasks. `label` may be given several times; `state` takes several, with commas.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks",
    params(("state" = Option<String>, Query), ("label" = Option<String>, Query, description = "key=value"),
        ("paused" = Option<bool>, Query, description = "true: only paused ones that are not over"),
        ("queue" = Option<String>, Query), ("worker" = Option<String>, Query), ("prefix" = Option<String>, Query),
        ("limit" = Option<u32>, Query, description = "1 to 1000; default 100"),
        ("cursor" = Option<String>, Query), ("order" = Option<String>, Query, description = "newest (default) or oldest")),
    responses((status = 200, body = TaskList)))]
pub(crate) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<TaskList>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let mut filter = TaskFilter::default();
    let (mut cursor, mut limit, mut newest) = (None, 100, true);
    let query = query.unwrap_or_default();
    let uri = format!("/?{query}").parse().map_err(|_| Refusal::bad("the query cannot be read"))?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|e| Refusal::bad(&e.body_text()))?;
    for (key, value) in pairs.into_iter().filter(|(_, v)| !v.is_empty()) {
        match key.as_str() {
            "state" => {
                for word in value.split(',') {
                    let state = TaskState::parse(word).ok_or_else(|| {
                        let all = "pending, assigned, succeeded, failed, cancelled";
                        Refusal::bad(&format!("state: {word:?} is none of {all}"))
                    })?;
                    filter.states.push(state);
                }
            }
            "label" => match value.split_once('=') {
                Some((k, v)) => filter.labels.push((k.into(), v.into())),
                None => return Err(Refusal::bad("label: must be key=value")),
            },
            "paused" => match value.as_str() {
                "true" => filter.paused = true,
                "false" => filter.paused = false,
                _ => return Err(Refusal::bad("paused: must be true or false")),
            },
            "queue" => filter.queue = Some(value),
            "prefix" => filter.id_prefix = Some(value),
            "worker" => {
                let name = value.clone();
                let found = app.driver.look(move |c| c.worker(&name)).await;
                let found = found.map_err(|_| Refusal::ending())?;
                let found = found.ok_or_else(|| Refusal::no_worker(&value))?;
                filter.worker = Some(found.row.store_id.to_string());
            }
            "limit" => match value.parse() {
                Ok(n) if (1..=MAX_PAGE).contains(&n) => limit = n,
                _ => return Err(Refusal::bad(&format!("limit: must be from 1 to {MAX_PAGE}"))),
            },
            "cursor" => match value.parse() {
                Ok(n) => cursor = Some(n),
                Err(_) => return Err(Refusal::bad("cursor: give the `next` of the former page")),
            },
            "order" => match value.as_str() {
                "newest" => newest = true,
                "oldest" => newest = false,
                _ => return Err(Refusal::bad("order: must be newest or oldest")),
            },
            other => {
                let known = "state, label, paused, queue, worker, prefix, limit, cursor, order";
                return Err(Refusal::bad(&format!("{other:?} is none of {known}")));
            }
        }
    }
    let page = app.readers.read(move |r| {
        let page = r.list(&filter, cursor, limit, newest)?;
        let numbers: Vec<u64> = page.tasks.iter().map(|t| t.number).collect();
        Ok((page, r.extras(&numbers)?))
    });
    let (page, extras) = page.await.map_err(|e| Refusal::store(&e))?;
    let tasks = page.tasks.iter().map(|t| views::task(t, extras.get(&t.number))).collect();
    Ok(Json(TaskList { tasks, next: page.next.map(|n| n.to_string()) }))
}

/// One task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    Ok(Json(views::one(&app, &id.into()).await?))
}

#[derive(Deserialize)]
pub(crate) struct Wait {
    #[serde(default)]
    wait: u64,
}

/// How a task ended; waits for it up to `wait` seconds.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/result", tag = "tasks",
    params(("id" = String, Path), ("wait" = Option<u64>, Query, description = "seconds, at most 60")),
    responses((status = 200, body = TaskResult), (status = 404, body = outlast_wire::api::Problem),
        (status = 409, body = outlast_wire::api::Problem, description = "It is not over")))]
pub(crate) async fn result(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<TaskResult>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let Query(Wait { wait }) = query.map_err(|e| Refusal::bad(&e.body_text()))?;
    let id: TaskId = id.into();
    // Before looking, so that an end in between is not missed.
    let mut watch = app.watchers.subscribe();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait.min(MAX_WAIT));
    loop {
        let wanted = id.clone();
        let found = app.readers.read(move |r| {
            let task = r.task(&wanted)?;
            let over = task.as_ref().is_some_and(|t| t.state.is_terminal());
            Ok((task, if over { r.outcome(&wanted)? } else { None }))
        });
        let (task, outcome) = found.await.map_err(|e| Refusal::store(&e))?;
        let task = task.ok_or_else(|| Refusal::no_task(&id))?;
        if task.state.is_terminal() {
            return Ok(Json(views::result(&task, outcome.as_deref())));
        }
        if tokio::time::timeout_at(deadline, ended(&mut watch, &id)).await.is_err() {
            let detail = format!("task {id} is {}; ask with ?wait=30", task.state.as_str());
            return Err(Refusal::conflict("not-finished", "the task is not over", &detail));
        }
    }
}

/// Waits until this task may have ended.
async fn ended(watch: &mut broadcast::Receiver<std::sync::Arc<Happened>>, id: &TaskId) {
    loop {
        match watch.recv().await {
            Ok(what) => {
                if let Happened::Task { id: of, state: Some(state), .. } = &*what
                    && of == id
                    && state.is_terminal()
                {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Everything that happened to a task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/history", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = History), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn history(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<History>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let wanted = id.clone();
    let read = app.readers.read(move |r| Ok((r.history(&wanted)?, r.workers()?))).await;
    let (events, workers) = read.map_err(|e| Refusal::store(&e))?;
    if events.is_empty() {
        return Err(Refusal::no_task(&id));
    }
    let names: HashMap<_, _> = workers.iter().map(|w| (&w.row.store_id, &w.row.name)).collect();
    let event = |e: &outlast_store::StoredEvent| HistoryEvent {
        at: text(e.at),
        event: e.kind.as_str().into(),
        attempt: e.epoch,
        worker: e.worker.as_ref().map(|w| names.get(w).map_or(w, |n| n).to_string()),
        reason: e.reason.clone(),
        cause: e.cause.word().into(),
        recovery: serde_json::to_value(&e.decision).unwrap_or_default(),
    };
    Ok(Json(History { events: events.iter().map(event).collect() }))
}

#[derive(Deserialize)]
pub(crate) struct LogQuery {
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    attempt: Option<u64>,
}

/// What a task wrote: from the worker that has it, or the end of it from its result.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/logs", tag = "tasks",
    params(("id" = String, Path), ("stream" = Option<String>, Query, description = "stdout (default) or stderr"),
        ("offset" = Option<u64>, Query), ("attempt" = Option<u64>, Query)),
    responses((status = 200, content_type = "text/plain",
        description = "The header outlast-log-source says worker or tail")))]
pub(crate) async fn logs(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let Query(query) = query.map_err(|e| Refusal::bad(&e.body_text()))?;
    let stderr = match query.stream.as_deref() {
        None | Some("stdout") => false,
        Some("stderr") => true,
        Some(_) => return Err(Refusal::bad("stream: must be stdout or stderr")),
    };
    let wanted = id.clone();
    let attempt = query.attempt;
    let read = app.readers.read(move |r| {
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
    let read = read.await.map_err(|e| Refusal::store(&e))?;
    let (epoch, worker, outcome) = read.ok_or_else(|| Refusal::no_task(&id))?;
    if worker.is_none() && attempt.is_some() {
        let detail = format!("task {id:?} has no attempt {epoch}; `outlast task history` has all");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not-found", "no such attempt", &detail));
    }
    let mut why = "it has not been given to a worker yet".to_owned();
    if let Some(worker) = worker {
        let request =
            LogRequest { request: 0, task_id: id.clone(), epoch, stderr, offset: query.offset };
        match ask_worker(&app, &worker, request).await? {
            Ok(response) => return Ok(response),
            Err(error) => why = error,
        }
    }
    match outcome {
        Some(o) => {
            let (tail, total) = match stderr {
                false => (&o.stdout_tail, o.stdout_bytes),
                true => (&o.stderr_tail, o.stderr_bytes),
            };
            let begins = total.saturating_sub(tail.len() as u64);
            let skip = query.offset.saturating_sub(begins).min(tail.len() as u64);
            Ok(log_response("tail", Body::from(tail.slice(skip as usize..))))
        }
        None => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail = format!("the logs of attempt {epoch} cannot be had now: {why}");
            Err(Refusal::new(status, "no-logs", "no logs for now", &detail))
        }
    }
}

fn log_response(source: &'static str, body: Body) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, [("outlast-log-source", source)], body).into_response()
}

/// The log as the worker has it, or why not.
async fn ask_worker(
    app: &App,
    store_id: &str,
    mut request: LogRequest,
) -> Result<Result<Response, String>, Refusal> {
    let worker = store_id.to_owned();
    let conn = app.driver.look(move |core| core.link_of_store(&worker)).await;
    let Some(conn) = conn.map_err(|_| Refusal::ending())? else {
        return Ok(Err("its worker is not connected".into()));
    };
    let (number, mut parts) = app.logs.ask(conn);
    request.request = number;
    let sent = app.driver.put(Input::ToLink(conn, Kind::LogRequest(request))).await;
    sent.map_err(|_| Refusal::ending())?;
    let first = match tokio::time::timeout(LOG_PATIENCE, parts.recv()).await {
        Ok(Some(first)) if first.error.is_empty() => first,
        Ok(Some(failed)) => return Ok(Err(failed.error)),
        Ok(None) => return Ok(Err("its worker's link ended".into())),
        Err(_) => {
            app.logs.forget(number);
            return Ok(Err("its worker did not answer in time".into()));
        }
    };
    let rest = futures_util::stream::unfold(Some((Some(first), parts)), next_part);
    Ok(Ok(log_response("worker", Body::from_stream(rest))))
}

type Parts = (Option<LogData>, mpsc::Receiver<LogData>);

async fn next_part(state: Option<Parts>) -> Option<(Result<Bytes, String>, Option<Parts>)> {
    let (first, mut parts) = state?;
    let part = match first {
        Some(part) => Some(part),
        None => parts.recv().await,
    };
    match part {
        Some(part) if !part.error.is_empty() => Some((Err(part.error), None)),
        Some(part) => {
            let more = (!part.last).then_some((None, parts));
            Some((Ok(part.data), more))
        }
        None => Some((Err("the worker's link ended".into()), None)),
    }
}

/// How many tasks are in each state.
#[utoipa::path(get, path = "/api/v1/counts", tag = "tasks", responses((status = 200, body = CountsView)))]
pub(crate) async fn counts(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<CountsView>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let counts = app.readers.read(|r| r.counts()).await.map_err(|e| Refusal::store(&e))?;
    Ok(Json(views::counts(counts)))
}
