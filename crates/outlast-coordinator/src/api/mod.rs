//! The HTTP API: routes, and what all of them share. `tasks`, `control`, `told`, `workers`,
//! `quality`, `blobs` and `watch` hold the handlers, `views` turns what the store has into what the API says.

mod blobs;
mod control;
mod filter;
mod logs;
mod missed;
mod own;
mod problem;
mod prove;
mod quality;
mod recovery;
mod results;
mod submit;
mod tasks;
mod told;
mod views;
mod watch;
mod workers;

use crate::auth::Auth;
use crate::blobs::BlobShelf;
use crate::dash::{self, Pulse, Sessions};
use crate::driver::{Ask, Driver};
use crate::events::Happened;
use crate::intake::Intake;
use crate::logs::Logs;
use crate::otel::Otel;
use crate::quality::Quality;
use crate::readers::Readers;
use crate::sessions::WorkerSessions;
use crate::writer::Health;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
pub(crate) use missed::Missed;
use outlast_core::coord::Response as CoreResponse;
use outlast_net::pulse::PingConfig;
use outlast_wire::api as dto;
use outlast_wire::blobframe::MANIFEST_PARTS;
use outlast_wire::json::Limit;
pub(crate) use problem::Refusal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
pub(crate) use submit::submitted;
use tokio::sync::{broadcast, watch as watch_channel};
use utoipa::OpenApi;
pub(crate) use watch::gathered;

/// Bytes of the body of a request that changes one thing.
const MAX_REQUEST: usize = 16 << 10;

pub(crate) struct Shared {
    pub driver: Driver,
    pub readers: Readers,
    pub auth: Auth,
    pub intake: Intake,
    pub logs: Arc<Logs>,
    pub shelf: BlobShelf,
    pub quality: Arc<Quality>,
    pub watchers: broadcast::Sender<Arc<Happened>>,
    pub health: watch_channel::Receiver<Health>,
    pub conns: AtomicU64,
    pub coordinator_id: String,
    pub version: String,
    pub started_at: i64,
    pub data_dir: std::path::PathBuf,
    pub tls: bool,
    pub ping: PingConfig,
    pub sessions: Sessions,
    pub worker_sessions: Arc<WorkerSessions>,
    pub pulse: Arc<Pulse>,
    pub otel: Option<Otel>,
    pub missed: Missed,
}

pub(crate) type App = Arc<Shared>;

#[derive(OpenApi)]
#[openapi(
    info(title = "Outlast", description = "Work that outlasts the network."),
    paths(
        submit::submit,
        tasks::list,
        tasks::show,
        tasks::result,
        tasks::history,
        logs::logs,
        tasks::counts,
        results::results,
        prove::prove,
        control::cancel,
        control::retry,
        control::pause,
        control::resume,
        control::checkpoint,
        control::move_to,
        told::checkpoints,
        told::data,
        told::artifacts,
        told::artifact,
        told::state,
        told::explain,
        workers::list,
        workers::show,
        workers::drain,
        workers::undrain,
        workers::unbind,
        workers::forget,
        recovery::table,
        recovery::patterns,
        recovery::release,
        recovery::quarantine,
        recovery::allow,
        recovery::forget,
        workers::act,
        quality::metrics,
        quality::timeline,
        quality::fleet,
        quality::alerts,
        watch::events,
        watch::info,
        watch::probe,
        watch::healthz,
        watch::readyz,
        watch::metrics,
        dash::session,
        dash::login,
        dash::logout,
        dash::throughput,
    ),
    components(schemas(
        dto::Problem,
        dto::TaskEvent,
        dto::WorkerEvent,
        dto::FleetEvent,
        dto::Alert
    ))
)]
struct Document;

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default()
}

/// What a document of a request may be, where it holds no tasks.
pub(crate) const DOCUMENT: Limit = Limit { bytes: 1 << 20, weight: 4 << 20 };

/// Whatever is about one task.
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
        .route("/api/v1/tasks/{id}/checkpoints", get(told::checkpoints))
        .route("/api/v1/tasks/{id}/checkpoints/{which}/data", get(told::data))
        .route("/api/v1/tasks/{id}/artifacts", get(told::artifacts))
        .route("/api/v1/tasks/{id}/artifacts/{name}/data", get(told::artifact))
        .route("/api/v1/tasks/{id}/state", get(told::state))
        .route("/api/v1/tasks/{id}/explain", get(told::explain))
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), own::own_tasks))
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
        .route("/api/v1/openapi.json", get(watch::document))
        .route("/api/v1/worker/{name}/ws", get(workers::link_v1))
        // As some clients write it.
        .route("/api/v1/worker/{name}/ws/", get(workers::link_v1))
        .route("/api/v2/worker/{name}/ws", get(workers::link))
        .route("/api/v2/blobs/missing", post(blobs::missing))
        .route("/api/v2/blobs/chunks", put(blobs::put_chunks).post(blobs::get_chunks))
        .route("/api/v2/blobs/manifests", put(blobs::put_manifest))
        .route(MANIFEST_PARTS, put(blobs::put_manifest_parts))
        .route("/api/v2/blobs/manifests/{hash}", get(blobs::get_manifest))
        .route("/api/v2/tasks/{id}/checkpoints", get(told::kept))
        .route("/healthz", get(watch::healthz))
        .route("/readyz", get(watch::readyz))
        .route("/metrics", get(watch::metrics))
        .merge(dash::routes())
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        // Handlers take bodies as they arrive, and read them by `Intake` or in parts.
        .layer(DefaultBodyLimit::max(dto::MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), dash::guard))
        .with_state(app)
}

impl Shared {
    /// Asks the core, unless nothing can be made durable just now.
    pub async fn ask(&self, ask: Ask) -> Result<CoreResponse, Refusal> {
        if let Health::Trouble(why) | Health::Broken(why) = &*self.health.borrow() {
            return Err(Refusal::store(why));
        }
        let mut health = self.health.clone();
        let answer = self.driver.ask(ask);
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(why)) => Err(Refusal::store(&why)),
                Err(_) => Err(Refusal::ending()),
            },
            // What was asked may still be done once there is room: asking again does no harm.
            trouble = health.wait_for(|h| *h != Health::Good) => match trouble.as_deref() {
                Ok(Health::Trouble(why) | Health::Broken(why)) => Err(Refusal::store(why)),
                _ => Err(Refusal::ending()),
            },
        }
    }
}
