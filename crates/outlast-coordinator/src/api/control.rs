//! Requests that change tasks: cancel, retry, pause, resume, checkpoint, move.

use super::views;
use crate::app::App;
use crate::extract::Submitter;
use crate::intake::{DOCUMENT, MAX_REQUEST};
use crate::problem::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use outlast_core::TaskId;
use outlast_core::coord::Request;
use outlast_core::coord::Response as CoreResponse;
use outlast_wire::api::{MoveTo, Task};

/// Cancels a task. One that runs is stopped, and is over once its worker says so.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 409, body = outlast_wire::api::Problem, description = "It has ended")))]
pub(crate) async fn cancel(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    change(&app, id, Request::Cancel, "the task has ended already").await
}

/// Runs a task again that failed or was cancelled.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 409, body = outlast_wire::api::Problem, description = "It did not fail")))]
pub(crate) async fn retry(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    change(&app, id, Request::Retry, "only a failed or cancelled task can be retried").await
}

/// Pauses a task: one that runs is stopped where it is, one that waits is given to nobody. It
/// stays so over attempts and restarts. A worker of the v1 dialect that does not answer within 30 s is
/// not paused: the request is withdrawn.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/pause", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 409, body = outlast_wire::api::Problem, description = "It has ended")))]
pub(crate) async fn pause(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    change(&app, id, |id| Request::Pause(id, true), "the task has ended already").await
}

/// Lets a paused task go on.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/resume", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 409, body = outlast_wire::api::Problem, description = "It has ended")))]
pub(crate) async fn resume(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    change(&app, id, |id| Request::Pause(id, false), "the task has ended already").await
}

/// Asks a task for a checkpoint; a worker that is away gets the request when it is back.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/checkpoint", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Task), (status = 409, body = outlast_wire::api::Problem, description = "No worker has it")))]
pub(crate) async fn checkpoint(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    change(&app, id, Request::Checkpoint, "only a task that a worker has can make a checkpoint")
        .await
}

/// Lets a task go on at another worker, from its newest checkpoint.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/move", tag = "tasks", params(("id" = String, Path)),
    request_body(content = MoveTo, description = "May be left out."),
    responses((status = 200, body = Task), (status = 404, body = outlast_wire::api::Problem, description = "No such task, or worker"),
        (status = 409, body = outlast_wire::api::Problem, description = "It has ended")))]
pub(crate) async fn move_to(
    State(app): State<App>,
    _: Submitter,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Task>, Refusal> {
    let body = app.intake.read(&headers, body, MAX_REQUEST).await?;
    let MoveTo { to } = match body.is_empty() {
        true => MoveTo { to: None },
        false => DOCUMENT
            .read(&body)
            .map_err(|e| Refusal::bad(&format!("not {{\"to\": \"WORKER\"}}: {e}")))?,
    };
    let named = to.clone().unwrap_or_default();
    let request = |id| Request::Move(id, to);
    change_to(&app, id, request, "the task has ended, or is being cancelled", &named).await
}

async fn change(
    app: &App,
    id: String,
    request: impl FnOnce(TaskId) -> Request,
    wrong: &str,
) -> Result<Json<Task>, Refusal> {
    change_to(app, id, request, wrong, "").await
}

/// `named`: the worker that was named.
async fn change_to(
    app: &App,
    id: String,
    request: impl FnOnce(TaskId) -> Request,
    wrong: &str,
    named: &str,
) -> Result<Json<Task>, Refusal> {
    let id: TaskId = id.into();
    match app.request(request(id.clone())).await? {
        CoreResponse::Done(_) => Ok(Json(views::one(app, &id).await?)),
        CoreResponse::NotFound => Err(Refusal::no_task(&id)),
        CoreResponse::NoWorker => Err(Refusal::no_worker(named)),
        CoreResponse::NotTwice => {
            let detail = format!("task {id} runs and must not run twice (rerun = never)");
            Err(Refusal::conflict("not-twice", "the task cannot be moved", &detail))
        }
        CoreResponse::Full { limit } => Err(Refusal::full(limit)),
        CoreResponse::WrongState(state) => {
            let detail = format!("task {id} is {}", state.as_str());
            Err(Refusal::conflict("wrong-state", wrong, &detail))
        }
        other => Err(Refusal::bad(&format!("unexpected answer: {other:?}"))),
    }
}
