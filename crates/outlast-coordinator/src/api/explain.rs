//! The newest state of a task, and its explanation in sentences.

use super::views;
use crate::app::App;
use crate::clock::{self, text};
use crate::explain::facts::{Facts, Whereabouts};
use crate::explain::story;
use crate::extract::Submitter;
use crate::intake::DOCUMENT;
use crate::problem::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use outlast_core::TaskId;
use outlast_core::coord::{Coordinator, WorkerView};
use outlast_store::StoredWorker;
use outlast_wire::api::{Explanation, TaskStateView};
use std::collections::HashMap;

/// Returns the newest state that a task reported.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/state", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = TaskStateView), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn state(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<TaskStateView>, Refusal> {
    let wanted = id.clone();
    let read = app.read(move |r| {
        let state = r.state(&wanted)?;
        let known = state.is_some() || r.task(&wanted)?.is_some();
        Ok(known.then_some(state))
    });
    let state = read.await?.ok_or_else(|| Refusal::no_task(&id))?;
    let state = state.unwrap_or_default();
    let object = DOCUMENT.read(&state.state_json);
    Ok(Json(TaskStateView {
        id,
        attempt: state.epoch,
        version: state.version,
        progress: state.progress,
        state: object.unwrap_or_else(|_| serde_json::json!({})),
        at: (state.at_ms > 0).then(|| text(state.at_ms)),
    }))
}

/// Explains a task in sentences: its events and their causes, its present state, and what can be done.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/explain", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Explanation), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn explain(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Explanation>, Refusal> {
    let wanted: TaskId = id.clone().into();
    let query = move |core: &Coordinator| (core.explain(&wanted), core.workers());
    let (waiting_for, views) = app.query(query).await?;
    let wanted = id.clone();
    let read = app.read(move |r| {
        let Some(task) = r.task(&wanted)? else { return Ok(None) };
        let extra = r.extras(&[task.number])?.remove(&task.number).unwrap_or_default();
        let (events, mut checkpoints) = (r.history(&wanted)?, r.checkpoints(&wanted)?);
        checkpoints.retain(|c| c.checkpoint.artifact.is_empty());
        Ok(Some((task, extra, events, checkpoints, r.workers()?)))
    });
    let read = read.await?;
    let (task, extra, events, checkpoints, stored) = read.ok_or_else(|| Refusal::no_task(&id))?;
    let views: HashMap<&str, &WorkerView> = views.iter().map(|v| (&*v.row.store_id, v)).collect();
    let whereabouts = |w: StoredWorker| {
        let view = views.get(&*w.row.store_id).filter(|v| v.state.is_there());
        let (there, unfit) = (view.is_some(), view.and_then(|v| v.faults.clone()));
        let (at, gone_cause, _) = views::gone(&w, app.started_at);
        let gone_at = (!there).then_some(at);
        let (name, drained) = (w.row.name, w.row.drained);
        (w.row.store_id, Whereabouts { name, there, drained, unfit, gone_at, gone_cause })
    };
    let workers = stored.into_iter().map(whereabouts).collect();
    let now = clock::wall();
    let facts = Facts { task, extra, events, checkpoints, waiting_for, workers, now };
    Ok(Json(story::explain(&facts)))
}
