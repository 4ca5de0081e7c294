//! The HTTP API: routes. `tasks`, `control`, `checkpoints`, `workers`, `quality`, `blobs` and `watch` hold the
//! handlers, `views` turns what the store has into what the API says, `document` describes it all.

mod blobs;
mod checkpoints;
mod control;
pub(crate) mod document;
mod explain;
mod filter;
mod logs;
mod owners;
mod prove;
mod quality;
mod recovery;
mod results;
mod schemas;
pub(crate) mod submit;
mod tasks;
mod views;
mod watch;
mod workers;

use crate::app::App;
use crate::dash;
use crate::problem::Refusal;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::routing::{get, post, put};
use outlast_wire::api::MAX_BODY;
use outlast_wire::blobframe::MANIFEST_PARTS;

/// The routes below one task.
fn task_routes(app: &App) -> Router<App> {
    Router::new()
        .route("/api/v1/tasks/{id}", get(tasks::show))
        .route("/api/v1/tasks/{id}/result", get(tasks::result))
        .route("/api/v1/tasks/{id}/history", get(tasks::history))
        .route("/api/v1/tasks/{id}/logs", get(logs::logs))
        .route("/api/v1/tasks/{id}/cancel", post(control::cancel))
        .route("/api/v1/tasks/{id}/retry", post(control::retry))
        .route("/api/v1/tasks/{id}/pause", post(control::pause))
        .route("/api/v1/tasks/{id}/resume", post(control::resume))
        .route("/api/v1/tasks/{id}/checkpoint", post(control::checkpoint))
        .route("/api/v1/tasks/{id}/move", post(control::move_to))
        .route("/api/v1/tasks/{id}/checkpoints", get(checkpoints::checkpoints))
        .route("/api/v1/tasks/{id}/checkpoints/{which}/data", get(checkpoints::data))
        .route("/api/v1/tasks/{id}/artifacts", get(checkpoints::artifacts))
        .route("/api/v1/tasks/{id}/artifacts/{name}/data", get(checkpoints::artifact))
        .route("/api/v1/tasks/{id}/state", get(explain::state))
        .route("/api/v1/tasks/{id}/explain", get(explain::explain))
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), owners::own_tasks))
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .merge(task_routes(&app))
        .route("/api/v1/tasks", post(submit::submit).get(tasks::list))
        .route("/api/v1/counts", get(tasks::counts))
        .route("/api/v1/results", post(results::results))
        .route("/api/v1/workers", get(workers::list))
        .route("/api/v1/workers/{name}", get(workers::show).delete(workers::forget))
        .route("/api/v1/workers/{name}/actions", post(workers::act))
        .route("/api/v1/workers/{name}/drain", post(workers::drain))
        .route("/api/v1/workers/{name}/undrain", post(workers::undrain))
        .route("/api/v1/workers/{name}/unbind", post(workers::unbind))
        .route("/api/v1/workers/{name}/release", post(recovery::release))
        .route("/api/v1/workers/{name}/quarantine", post(recovery::quarantine))
        .route("/api/v1/recovery", get(recovery::table))
        .route("/api/v1/recovery/patterns", get(recovery::patterns))
        .route("/api/v1/recovery/allow", post(recovery::allow))
        .route("/api/v1/recovery/forget", post(recovery::forget))
        .route("/api/v1/workers/{name}/metrics", get(quality::metrics))
        .route("/api/v1/workers/{name}/timeline", get(quality::timeline))
        .route("/api/v1/fleet", get(quality::fleet))
        .route("/api/v1/alerts", get(quality::alerts))
        .route("/api/v1/events", get(watch::events))
        .route("/api/v1/info", get(watch::info))
        .route(outlast_wire::proof::PATH, get(prove::prove))
        .route("/api/v1/probe", put(watch::probe))
        .route("/api/v1/openapi.json", get(document::document))
        .route("/api/v1/worker/{name}/ws", get(workers::link_v1))
        // As some clients write it.
        .route("/api/v1/worker/{name}/ws/", get(workers::link_v1))
        .route("/api/v2/worker/{name}/ws", get(workers::link))
        .route("/api/v2/blobs/missing", post(blobs::missing))
        .route("/api/v2/blobs/chunks", put(blobs::put_chunks).post(blobs::get_chunks))
        .route("/api/v2/blobs/manifests", put(blobs::put_manifest))
        .route(MANIFEST_PARTS, put(blobs::put_manifest_parts))
        .route("/api/v2/blobs/manifests/{hash}", get(blobs::get_manifest))
        .route("/api/v2/tasks/{id}/checkpoints", get(checkpoints::kept))
        .route("/healthz", get(watch::healthz))
        .route("/readyz", get(watch::readyz))
        .route("/metrics", get(watch::metrics))
        .merge(dash::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // Handlers take bodies as they arrive, and read them by `Intake` or in parts.
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), dash::guard::guard))
        .with_state(app)
}

async fn no_route(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Refusal {
    let detail = format!("nothing is at {}; see /api/v1/openapi.json", uri.path());
    let refusal = Refusal::new(StatusCode::NOT_FOUND, "no-route", "no such address", &detail);
    let upgrade = headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes() == b"websocket");
    if upgrade {
        let detail = "workers dial /api/v1/worker/ID/ws, or /api/v2/worker/ID/ws";
        let title = "no such address";
        let shown = Refusal::new(StatusCode::NOT_FOUND, "no-route", title, detail);
        app.refused_links.log(uri.path(), &shown);
    }
    refusal
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    let detail = format!("{} does not know {method}; see /api/v1/openapi.json", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", "no such method here", &detail)
}
