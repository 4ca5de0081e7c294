//! Tasks: list, show, result, history. What changes them is in `control`, what they wrote in `logs`.

use super::filter::{Filter, PAGE};
use super::views;
use crate::app::App;
use crate::clock::text;
use crate::events::FeedEvent;
use crate::extract::{Params, Submitter};
use crate::problem::Refusal;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use outlast_core::TaskId;
use outlast_wire::api::{CountsView, History, HistoryEvent, MAX_WAIT, Task, TaskList, TaskResult};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast;

/// Lists tasks. `label` may be given several times; `state` takes several, with commas.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks",
    params(("state" = Option<String>, Query), ("label" = Option<String>, Query, description = "key=value"),
        ("paused" = Option<bool>, Query, description = "true: only paused ones that have not ended"),
        ("queue" = Option<String>, Query), ("worker" = Option<String>, Query), ("prefix" = Option<String>, Query),
        ("limit" = Option<u32>, Query, description = "1 to 1000; default 100"),
        ("cursor" = Option<String>, Query), ("order" = Option<String>, Query, description = "newest (default) or oldest")),
    responses((status = 200, body = TaskList)))]
pub(crate) async fn list(
    State(app): State<App>,
    Submitter(who): Submitter,
    RawQuery(query): RawQuery,
) -> Result<Json<TaskList>, Refusal> {
    let mut filter = Filter::of(&app, who.only(), query, PAGE).await?;
    let (cursor, limit, newest) = filter.page()?;
    let filter = filter.tasks;
    let page = app.read(move |r| {
        let page = r.list(&filter, cursor, limit, newest)?;
        let numbers: Vec<u64> = page.tasks.iter().map(|t| t.number).collect();
        Ok((page, r.extras(&numbers)?))
    });
    let (page, extras) = page.await?;
    let tasks = page.tasks.iter().map(|t| views::task(t, extras.get(&t.number))).collect();
    Ok(Json(TaskList { tasks, next: page.next.map(|n| n.to_string()) }))
}

/// One task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn show(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    Ok(Json(views::one(&app, &id.into()).await?))
}

#[derive(Deserialize)]
pub(crate) struct Wait {
    #[serde(default)]
    wait: u64,
}

/// Returns the result of a task; waits for its end up to `wait` seconds.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/result", tag = "tasks",
    params(("id" = String, Path), ("wait" = Option<u64>, Query, description = "seconds, at most 60")),
    responses((status = 200, body = TaskResult), (status = 404, body = outlast_wire::api::Problem),
        (status = 409, body = outlast_wire::api::Problem, description = "It has not ended")))]
pub(crate) async fn result(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
    Params(Wait { wait }): Params<Wait>,
) -> Result<Json<TaskResult>, Refusal> {
    let id: TaskId = id.into();
    // Before looking, so that an end in between is not missed.
    let mut watch = app.watchers.subscribe();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait.min(MAX_WAIT));
    loop {
        let wanted = id.clone();
        let found = app.read(move |r| {
            let task = r.task(&wanted)?;
            let over = task.as_ref().is_some_and(|t| t.state.is_terminal());
            Ok((task, if over { r.outcome(&wanted)? } else { None }))
        });
        let (task, outcome) = found.await?;
        let task = task.ok_or_else(|| Refusal::no_task(&id))?;
        if task.state.is_terminal() {
            return Ok(Json(views::result(&task, outcome.as_deref())));
        }
        if tokio::time::timeout_at(deadline, ended(&mut watch, &id)).await.is_err() {
            let detail = format!("task {id} is {}; ask with ?wait=30", task.state.as_str());
            return Err(Refusal::conflict("not-finished", "the task has not ended", &detail));
        }
    }
}

/// Waits until this task may have ended.
async fn ended(watch: &mut broadcast::Receiver<std::sync::Arc<FeedEvent>>, id: &TaskId) {
    loop {
        match watch.recv().await {
            Ok(what) => {
                if let FeedEvent::Task { id: of, state: Some(state), .. } = &*what
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

/// Lists the events of a task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/history", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = History), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn history(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<History>, Refusal> {
    let wanted = id.clone();
    let read = app.read(move |r| Ok((r.history(&wanted)?, r.workers()?))).await;
    let (events, workers) = read?;
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
        cause: e.cause,
        recovery: serde_json::to_value(&e.decision).unwrap_or_default(),
    };
    Ok(Json(History { events: events.iter().map(event).collect() }))
}

/// Counts tasks by state: all, or those that a filter leaves.
#[utoipa::path(get, path = "/api/v1/counts", tag = "tasks",
    params(("state" = Option<String>, Query), ("label" = Option<String>, Query, description = "key=value"),
        ("paused" = Option<bool>, Query, description = "true: only paused ones that have not ended"),
        ("queue" = Option<String>, Query), ("worker" = Option<String>, Query), ("prefix" = Option<String>, Query)),
    responses((status = 200, body = CountsView)))]
pub(crate) async fn counts(
    State(app): State<App>,
    Submitter(who): Submitter,
    RawQuery(query): RawQuery,
) -> Result<Json<CountsView>, Refusal> {
    let Filter { tasks: filter, given, .. } = Filter::of(&app, who.only(), query, &[]).await?;
    let counts = app.read(move |r| match &filter.owner {
        _ if given => r.count(&filter),
        Some(owner) => r.counts_of(owner),
        None => Ok(outlast_store::Counts { running: r.running()?, ..r.counts()? }),
    });
    let counts = counts.await?;
    Ok(Json(views::counts(counts, given)))
}
