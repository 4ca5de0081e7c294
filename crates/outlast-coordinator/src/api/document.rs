//! The OpenAPI document of the API. `dashboard/openapi.json` is a copy without descriptions, from which
//! the page's types are generated.

use super::{
    checkpoints, control, explain, logs, prove, quality, recovery, results, schemas, submit, tasks,
    watch, workers,
};
use crate::dash;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use outlast_blob::Hash;
use outlast_wire::api as dto;
use std::sync::LazyLock;
use utoipa::OpenApi;

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
        checkpoints::checkpoints,
        checkpoints::data,
        checkpoints::artifacts,
        checkpoints::artifact,
        explain::state,
        explain::explain,
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
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    schemas::complete(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// The OpenAPI document. It is the same for everybody and for as long as the program runs, so that
/// clients may keep it; with each new program it has another ETag.
pub(crate) async fn document(headers: HeaderMap) -> impl IntoResponse {
    static MADE: LazyLock<(Bytes, String)> = LazyLock::new(|| {
        let text = openapi();
        let tag = format!("\"{}\"", &Hash::of(text.as_bytes()).to_string()[..16]);
        (text.into(), tag)
    });
    let (text, tag) = &*MADE;
    let asked = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same =
        asked.is_some_and(|all| all.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let body = if same { Bytes::new() } else { text.clone() };
    (
        if same { StatusCode::NOT_MODIFIED } else { StatusCode::OK },
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "public, no-cache"),
            (header::ETAG, tag.as_str()),
        ],
        body,
    )
}
