//! Tasks: list, show, result, history. What changes them is in `control`, what they wrote in `logs`.

use super::{App, Refusal, views};
use crate::clock::text;
use crate::events::Happened;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::HeaderMap;
use outlast_core::TaskId;
use outlast_core::records::TaskState;
use outlast_store::{Role, TaskFilter};
use outlast_wire::api::{
    CountsView, History, HistoryEvent, MAX_PAGE, MAX_WAIT, Task, TaskList, TaskResult,
};
use outlast_wire::spec::MAX_LABELS;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast;

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
    let who = app.auth.check(&headers, Role::Submit)?;
    let mut filter =
        TaskFilter { owner: who.only().map(ToOwned::to_owned), ..TaskFilter::default() };
    let (mut cursor, mut limit, mut newest) = (None, 100, true);
    let query = query.unwrap_or_default();
    let uri = format!("/?{query}").parse().map_err(|_| Refusal::bad("the query cannot be read"))?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|e| Refusal::bad(&e.body_text()))?;
    let labels = pairs.iter().filter(|(k, v)| k == "label" && !v.is_empty()).count();
    if labels > MAX_LABELS {
        let detail = format!("label: {labels} of them; {MAX_LABELS} is the limit of one request");
        return Err(Refusal::bad(&detail));
    }
    for (key, value) in pairs.into_iter().filter(|(_, v)| !v.is_empty()) {
        match key.as_str() {
            "state" => {
                for word in value.split(',') {
                    let state = TaskState::parse(word).ok_or_else(|| {
                        let all = "pending, assigned, succeeded, failed, cancelled";
                        Refusal::bad(&format!("state: {word:?} is none of {all}"))
                    })?;
                    if !filter.states.contains(&state) {
                        filter.states.push(state);
                    }
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

/// How many tasks are in each state.
#[utoipa::path(get, path = "/api/v1/counts", tag = "tasks", responses((status = 200, body = CountsView)))]
pub(crate) async fn counts(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<CountsView>, Refusal> {
    let who = app.auth.check(&headers, Role::Submit)?;
    let owner = who.only().map(ToOwned::to_owned);
    let counts = app.readers.read(move |r| match owner {
        Some(owner) => r.counts_of(&owner),
        None => r.counts(),
    });
    let counts = counts.await.map_err(|e| Refusal::store(&e))?;
    Ok(Json(views::counts(counts)))
}
