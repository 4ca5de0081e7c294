//! Recovery after failures: the table, patterns, and requests of operators that overrule it.

use crate::app::App;
use crate::clock::{self, text};
use crate::extract::{Operator, Overseer, Submitter};
use crate::intake::{DOCUMENT, MAX_REQUEST};
use crate::problem::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use outlast_core::coord::Request;
use outlast_core::coord::{RecoveryRequest, Response as CoreResponse};
use outlast_core::recovery::{Config, Failure, Learned, Pattern};
use outlast_wire::api::{
    FailurePattern, LearnedKnobs, OfType, PastFailure, QuarantinedWorker, RecoveryPatterns,
    RecoveryTable,
};

/// Returns the table of recovery: the strategies tried after each kind of failure, in order.
#[utoipa::path(get, path = "/api/v1/recovery", tag = "recovery", responses((status = 200, body = RecoveryTable)))]
pub(crate) async fn table(
    State(app): State<App>,
    _: Submitter,
) -> Result<Json<RecoveryTable>, Refusal> {
    let config = app.query(|core| core.recovery_config()).await?;
    Ok(Json(shown(&config)))
}

fn shown(config: &Config) -> RecoveryTable {
    let all = config.all();
    let errors = all.errors.iter().map(|(class, ladder)| (class.as_str().into(), ladder.clone()));
    let hardware = all.hardware.iter().map(|(h, ladder)| (h.as_str().into(), ladder.clone()));
    RecoveryTable {
        errors: errors.collect(),
        hardware: hardware.collect(),
        base_delay: all.base_delay as f64 / 1000.0,
        max_delay: all.max_delay as f64 / 1000.0,
        jitter: all.jitter,
        remember: all.remember,
        rules: config.rules().iter().cloned().collect(),
        labels: config.labels().map(|(label, with)| (label.to_owned(), with.clone())).collect(),
        patterns: config.patterns.clone(),
    }
}

/// Returns the patterns of recent failures, and what was done about them.
#[utoipa::path(get, path = "/api/v1/recovery/patterns", tag = "recovery", responses((status = 200, body = RecoveryPatterns)))]
pub(crate) async fn patterns(
    State(app): State<App>,
    _: Overseer,
) -> Result<Json<RecoveryPatterns>, Refusal> {
    let now = clock::now();
    let view = app.query(move |core| core.recovery(now)).await?;
    let quarantined = view.quarantined.iter().map(|(_, name, how, q)| QuarantinedWorker {
        worker: name.clone(),
        state: how.as_str().into(),
        since: text(q.since),
        until: text(q.until),
        failed_probes: q.failed,
        reason: q.reason.clone(),
    });
    Ok(Json(RecoveryPatterns {
        patterns: view.patterns.iter().map(pattern).collect(),
        quarantined: quarantined.collect(),
        learned: view.learned.iter().map(|l| learned(l)).collect(),
        failures: view.failures.iter().map(failure).collect(),
    }))
}

fn pattern(p: &Pattern) -> FailurePattern {
    FailurePattern {
        kind: p.kind.as_str().into(),
        subject: p.subject.clone(),
        class: p.class.as_str().into(),
        count: p.count,
        tasks: p.tasks,
        workers: p.workers,
        first: text(p.between.0),
        last: text(p.between.1),
        evidence: p.text.clone(),
    }
}

fn learned(l: &Learned) -> LearnedKnobs {
    LearnedKnobs {
        task_type: l.task_type.clone(),
        hardware: l.hardware.clone(),
        knobs: l.knobs.clone(),
        task: l.task.clone(),
        at: text(l.at),
    }
}

fn failure(f: &Failure) -> PastFailure {
    PastFailure {
        at: text(f.at),
        task: f.task.clone(),
        attempt: f.epoch,
        task_type: f.task_type.clone(),
        worker: f.worker_name.clone(),
        hardware: f.hardware.as_str().into(),
        class: f.class.as_str().into(),
        failure_type: f.class.failure_type().into(),
        evidence: f.text.clone(),
    }
}

/// Gives a quarantined worker work again; what failed there counts no more.
#[utoipa::path(post, path = "/api/v1/workers/{name}/release", tag = "recovery", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn release(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::no_worker(&name);
    overrule(&app, RecoveryRequest::Release(name.clone()), missing).await
}

/// Gives a worker no work but a probe after a while, as if tasks had failed there.
#[utoipa::path(post, path = "/api/v1/workers/{name}/quarantine", tag = "recovery", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn quarantine(
    State(app): State<App>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::no_worker(&name);
    overrule(&app, RecoveryRequest::Quarantine(name.clone()), missing).await
}

/// The failures of tasks of a type count no more: it may run on any hardware again.
#[utoipa::path(post, path = "/api/v1/recovery/allow", tag = "recovery", request_body = OfType,
    responses((status = 204), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn allow(
    State(app): State<App>,
    _: Operator,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let of = of_type(&app, &headers, body).await?;
    let Some(kind) = of.task_type else {
        return Err(Refusal::bad("name a type: {\"type\": \"TYPE\"}"));
    };
    let missing = || no_type(&kind, "failed lately");
    overrule(&app, RecoveryRequest::Allow(kind.clone()), missing).await
}

/// Forgets the knobs that worked, for a type or for all.
#[utoipa::path(post, path = "/api/v1/recovery/forget", tag = "recovery", request_body = OfType,
    responses((status = 204), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn forget(
    State(app): State<App>,
    _: Operator,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let of = of_type(&app, &headers, body).await?;
    let kind = of.task_type.clone().unwrap_or_default();
    let missing = || no_type(&kind, "has knobs that are remembered");
    overrule(&app, RecoveryRequest::Unlearn(of.task_type), missing).await
}

async fn of_type(app: &App, headers: &HeaderMap, body: Body) -> Result<OfType, Refusal> {
    let body = app.intake.read(headers, body, MAX_REQUEST).await?;
    DOCUMENT.read(&body).map_err(|e| Refusal::bad(&format!("not {{\"type\": \"TYPE\"}}: {e}")))
}

fn no_type(kind: &str, what: &str) -> Refusal {
    let detail = format!("no task of type {kind:?} {what}; see `outlast recovery patterns`");
    Refusal::new(StatusCode::NOT_FOUND, "not-found", "no such type", &detail)
}

async fn overrule(
    app: &App,
    what: RecoveryRequest,
    missing: impl FnOnce() -> Refusal,
) -> Result<StatusCode, Refusal> {
    match app.request(Request::Recovery(what)).await? {
        CoreResponse::Overruled => Ok(StatusCode::NO_CONTENT),
        _ => Err(missing()),
    }
}
