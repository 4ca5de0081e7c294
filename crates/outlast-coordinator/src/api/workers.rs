//! Workers: list, show, drain, forget, and the link that they dial.

use super::{App, Refusal, views};
use crate::driver::Ask;
use crate::{link, link_v1};
use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use outlast_core::coord::{Response as CoreResponse, check_worker_id};
use outlast_store::{Role, StoredWorker};
use outlast_wire::api::{Worker, WorkerList};
use outlast_wire::frame::MAX_MESSAGE;
use outlast_wire::v1::MAX_TEXT;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// axum's default of 128 KiB would be held by every idle link.
const READ_BUFFER: usize = 4 << 10;

/// All workers.
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers", responses((status = 200, body = WorkerList)))]
pub(crate) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<WorkerList>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let stored = app.readers.read(|r| r.workers()).await.map_err(|e| Refusal::store(&e))?;
    let stored: HashMap<Arc<str>, StoredWorker> =
        stored.into_iter().map(|w| (w.row.store_id.clone(), w)).collect();
    let views = app.driver.look(|core| core.workers()).await.map_err(|_| Refusal::ending())?;
    let view = |w| views::worker(w, stored.get(&w.row.store_id), app.started_at);
    Ok(Json(WorkerList { workers: views.iter().map(view).collect() }))
}

/// One worker, by name or store id.
#[utoipa::path(get, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    app.auth.check(&headers, Role::Submit)?;
    let wanted = name.clone();
    let view = app.driver.look(move |core| core.worker(&wanted)).await;
    let view = view.map_err(|_| Refusal::ending())?.ok_or_else(|| Refusal::no_worker(&name))?;
    let store_id = view.row.store_id.clone();
    let stored = app.readers.read(move |r| r.worker(&store_id)).await;
    let stored = stored.map_err(|e| Refusal::store(&e))?;
    Ok(Json(views::worker(&view, stored.as_ref(), app.started_at)))
}

/// Removes a worker that is gone for good; what it held is given to others at once.
#[utoipa::path(delete, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 204), (status = 409, body = outlast_wire::api::Problem, description = "It is connected")))]
pub(crate) async fn forget(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    app.auth.check(&headers, Role::Operate)?;
    match app.ask(Ask::Forget(name.clone())).await? {
        CoreResponse::Forgotten => Ok(StatusCode::NO_CONTENT),
        CoreResponse::Connected => {
            let detail = format!("stop worker {name} first; it is connected");
            Err(Refusal::conflict("connected", "the worker is connected", &detail))
        }
        _ => Err(Refusal::no_worker(&name)),
    }
}

/// Gives a worker no new work, and takes back what it has not started. It stays so over
/// reconnections and restarts.
#[utoipa::path(post, path = "/api/v1/workers/{name}/drain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn drain(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    turn(app, headers, name, true).await
}

/// Gives a drained worker new work again.
#[utoipa::path(post, path = "/api/v1/workers/{name}/undrain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn undrain(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    turn(app, headers, name, false).await
}

async fn turn(
    app: App,
    headers: HeaderMap,
    name: String,
    drain: bool,
) -> Result<Json<Worker>, Refusal> {
    app.auth.check(&headers, Role::Operate)?;
    match app.ask(Ask::Drain(name.clone(), drain)).await? {
        CoreResponse::Drained => show(State(app), headers, Path(name)).await,
        _ => Err(Refusal::no_worker(&name)),
    }
}

fn upgraded(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Refusal> {
    upgrade.map_err(|e| {
        let status = StatusCode::UPGRADE_REQUIRED;
        let detail = format!("{}; a proxy in the path may not pass WebSockets", e.body_text());
        Refusal::new(status, "no-upgrade", "this address is for WebSockets", &detail)
    })
}

/// The link of a worker that speaks the v1 JSON dialect.
pub(crate) async fn link_v1(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    app.auth.check(&headers, Role::Worker)?;
    check_worker_id(&name).map_err(|e| Refusal::bad(&e))?;
    let upgrade = upgraded(upgrade)?;
    let conn = app.conns.fetch_add(1, Ordering::Relaxed) + 1;
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_message_size(MAX_TEXT)
        .max_frame_size(MAX_TEXT);
    Ok(upgrade.on_upgrade(move |socket| link_v1::serve(socket, conn, name, app)))
}

/// The link of a worker (wire v2).
pub(crate) async fn link(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    app.auth.check(&headers, Role::Worker)?;
    let upgrade = upgraded(upgrade)?;
    let conn = app.conns.fetch_add(1, Ordering::Relaxed) + 1;
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE);
    let (driver, logs) = (app.driver.clone(), app.logs.clone());
    Ok(upgrade.on_upgrade(move |socket| link::serve(socket, conn, name, driver, logs)))
}
