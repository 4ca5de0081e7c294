//! Workers: list, show, drain, forget, and the link that they dial.

use super::views;
use crate::app::App;
use crate::auth::Pass;
use crate::clock;
use crate::extract::{Dialler, Operator, Submitter};
use crate::intake::DOCUMENT;
use crate::keepalive::Keepalive;
use crate::link::{Link, Session};
use crate::link_v1::LinkV1;
use crate::listen::Connection;
use crate::problem::Refusal;
use crate::quality::tap::Tap;
use axum::Json;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use outlast_core::coord::Request;
use outlast_core::coord::{Response as CoreResponse, V1_MAX_LINKS, check_worker_id};
use outlast_store::StoredWorker;
use outlast_wire::api::{Worker, WorkerAction, WorkerList};
use outlast_wire::frame::MAX_MESSAGE;
use outlast_wire::spec::check_task_id;
use outlast_wire::v1::{Action, MAX_TEXT, UNNAMED};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// axum's default of 128 KiB would be held by every idle link.
const READ_BUFFER: usize = 4 << 10;
/// Bytes that may wait to be written to a link, beside the message that is being written: answers to
/// pings of a peer that reads none.
const WRITE_SLACK: usize = 1 << 20;
/// Bytes of an action.
const MAX_ACTION: usize = 1 << 20;
/// Tasks named in one action.
const NAMED: usize = 1_000;

/// All workers.
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers", responses((status = 200, body = WorkerList)))]
pub(crate) async fn list(
    State(app): State<App>,
    _: Submitter,
) -> Result<Json<WorkerList>, Refusal> {
    let stored = app.read(|r| r.workers()).await?;
    let stored: HashMap<Arc<str>, StoredWorker> =
        stored.into_iter().map(|w| (w.row.store_id.clone(), w)).collect();
    let views = app.query(|core| core.workers()).await?;
    let view = |w| views::worker(w, stored.get(&w.row.store_id), app.started_at);
    Ok(Json(WorkerList { workers: views.iter().map(view).collect() }))
}

/// One worker, by name or store id.
#[utoipa::path(get, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn show(
    State(app): State<App>,
    _: Submitter,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    Ok(Json(views::one_worker(&app, &name).await?))
}

/// Removes a worker that is gone for good; what it held is given to others at once.
#[utoipa::path(delete, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 204), (status = 409, body = outlast_wire::api::Problem, description = "It is connected")))]
pub(crate) async fn forget(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    match app.request(Request::Forget(name.clone())).await? {
        CoreResponse::Forgotten => Ok(StatusCode::NO_CONTENT),
        CoreResponse::Connected => {
            let detail = format!("stop worker {name} first; it is connected");
            Err(Refusal::conflict("connected", "the worker is connected", &detail))
        }
        _ => Err(Refusal::no_worker(&name)),
    }
}

/// Binds a worker to no key any more: it is then bound to the next one that it comes with.
#[utoipa::path(post, path = "/api/v1/workers/{name}/unbind", tag = "workers", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn unbind(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    match app.request(Request::Unbind(name.clone())).await? {
        CoreResponse::Unbound => Ok(StatusCode::NO_CONTENT),
        _ => Err(Refusal::no_worker(&name)),
    }
}

/// Gives a worker no new work, and takes back what it has not started. It stays so over
/// reconnections and restarts.
#[utoipa::path(post, path = "/api/v1/workers/{name}/drain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn drain(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    set_drained(&app, &name, true).await
}

/// Gives a drained worker new work again.
#[utoipa::path(post, path = "/api/v1/workers/{name}/undrain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = Worker), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn undrain(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Worker>, Refusal> {
    set_drained(&app, &name, false).await
}

/// Sends a request to a worker: at once, or when it is back. A worker of the v1 dialect gets it with
/// the answer to its next heartbeat.
#[utoipa::path(post, path = "/api/v1/workers/{name}/actions", tag = "workers", params(("name" = String, Path)),
    request_body = WorkerAction,
    responses((status = 202), (status = 404, body = outlast_wire::api::Problem),
        (status = 409, body = outlast_wire::api::Problem, description = "Its worker needs no such request"),
        (status = 429, body = outlast_wire::api::Problem, description = "Too many actions wait for it")))]
pub(crate) async fn act(
    State(app): State<App>,
    _: Operator,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let body = app.intake.read(&headers, body, MAX_ACTION).await?;
    let action: WorkerAction =
        DOCUMENT.read(&body).map_err(|e| Refusal::bad(&format!("not an action: {e}")))?;
    if let WorkerAction::ResendTaskResults { task_ids } | WorkerAction::CancelTasks { task_ids } =
        &action
        && (task_ids.len() > NAMED || task_ids.iter().any(|id| check_task_id(id).is_err()))
    {
        return Err(Refusal::bad(&format!("task_ids must be up to {NAMED} ids of tasks")));
    }
    let action = match action {
        WorkerAction::SyncState => Action::SyncState,
        WorkerAction::ResetConnectionStats => Action::ResetConnectionStats,
        WorkerAction::ResendTaskResults { task_ids } => Action::ResendTaskResults(task_ids),
        WorkerAction::CancelTasks { task_ids } => Action::CancelTasks(task_ids),
    };
    match app.request(Request::Act(name.clone(), action)).await? {
        CoreResponse::Asked => Ok(StatusCode::ACCEPTED),
        CoreResponse::Needless => {
            let detail = format!(
                "worker {name} speaks protocol 2: its results are on its disk and sent until they are \
                 acknowledged, and tasks are cancelled by `outlast task cancel`"
            );
            Err(Refusal::conflict("needless", "this worker needs no such request", &detail))
        }
        CoreResponse::TooMany { limit } => Err(Refusal::too_many_actions(&name, limit)),
        _ => Err(Refusal::no_worker(&name)),
    }
}

async fn set_drained(app: &App, name: &str, drained: bool) -> Result<Json<Worker>, Refusal> {
    match app.request(Request::Drain(name.to_owned(), drained)).await? {
        CoreResponse::Drained => Ok(Json(views::one_worker(app, name).await?)),
        _ => Err(Refusal::no_worker(name)),
    }
}

/// A link whose messages have at most so many bytes.
fn upgraded(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    limit: usize,
) -> Result<WebSocketUpgrade, Refusal> {
    let upgrade = upgrade.map_err(|e| {
        let status = StatusCode::UPGRADE_REQUIRED;
        let detail = format!("{}; a proxy in the path may not pass WebSockets", e.body_text());
        Refusal::new(status, "no-upgrade", "this address is for WebSockets", &detail)
    })?;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_write_buffer_size(limit + WRITE_SLACK)
        .max_message_size(limit)
        .max_frame_size(limit))
}

/// The link of a worker that speaks the v1 JSON dialect. Its address may have `{worker_id}` in place
/// of the id, as a client has it that formats none: then the worker's first message says it.
pub(crate) async fn link_v1(
    State(app): State<App>,
    Dialler(pass): Dialler,
    Path(name): Path<String>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let name = if name == UNNAMED { String::new() } else { name };
    let checked = if name.is_empty() { Ok(()) } else { check_worker_id(&name) };
    let upgrade = checked.map_err(|e| Refusal::bad(&e)).and_then(|()| {
        // Where the address has no id, the link sees to it.
        let may = if name.is_empty() { Ok(()) } else { pass.who().may_be(&name) };
        may.and_then(|()| upgraded(upgrade, MAX_TEXT))
    });
    let upgrade = upgrade.inspect_err(|refusal| app.refused_links.log(&name, refusal))?;
    // Refused here a client waits longer each time; a link that ends later it opens again at once.
    let (of, now) = (name.clone(), clock::now());
    let room = app.query(move |core| core.admits_link_v1(now, &of)).await;
    if !room? {
        let refusal = Refusal::too_many_links(&name, V1_MAX_LINKS);
        app.refused_links.log(&name, &refusal);
        return Err(refusal);
    }
    let keepalive = keepalive(&app, pass, connection);
    let tap = Tap::new(app.quality.clone(), keepalive.conn);
    let (logs, blobs, refused) = (app.logs.clone(), app.blobs.clone(), app.refused_links.clone());
    let link = LinkV1 { keepalive, logs, tap, blobs, refused };
    Ok(upgrade.on_upgrade(move |socket| link.serve(socket, name)))
}

/// The link of a worker (wire v2).
pub(crate) async fn link(
    State(app): State<App>,
    Dialler(pass): Dialler,
    Path(name): Path<String>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    pass.who().may_be(&name)?;
    let upgrade = upgraded(upgrade, MAX_MESSAGE)?;
    let keepalive = keepalive(&app, pass, connection);
    let tap = Tap::new(app.quality.clone(), keepalive.conn);
    let session = Session::new(app.worker_sessions.clone(), keepalive.conn);
    let tracer = app.otel.as_ref().and_then(|otel| otel.tracer.clone());
    let link = Link { name, keepalive, logs: app.logs.clone(), tap, session, tracer };
    Ok(upgrade.on_upgrade(move |socket| link.serve(socket)))
}

/// The keepalive of a new link, with a number for it.
fn keepalive(app: &App, pass: Pass, connection: Connection) -> Keepalive {
    let conn = app.conns.fetch_add(1, Ordering::Relaxed) + 1;
    Keepalive::new((conn, app.driver.clone()), pass, app.ping, connection)
}
