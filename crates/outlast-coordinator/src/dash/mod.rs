//! The dashboard at `/dashboard`: the built page (`dashboard/` has its sources), who is logged in,
//! what browsers may ask, and how busy the fleet was. What the page shows comes from the API.

mod assets;
pub(crate) mod guard;
pub(crate) mod pulse;
pub(crate) mod session;

use crate::app::App;
use crate::auth::Auth;
use crate::clock::{self, text};
use crate::extract::{Params, Submitter};
use crate::problem::Refusal;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use outlast_store::Role;
use outlast_wire::api::{Login, Session, Throughput};
use serde::Deserialize;

/// Bytes that a login may have: anybody may send one.
const MAX_LOGIN: usize = 4096;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || Redirect::to("dashboard")))
        .route("/dashboard", get(assets::page))
        .route("/dashboard/", get(async || Redirect::permanent("../dashboard")))
        .route("/dashboard/{file}", get(assets::file))
        .route("/api/v1/session", post(login))
        .route("/api/v1/session", get(session).delete(logout))
        .route("/api/v1/throughput", get(throughput))
}

/// Returns the role of the session.
#[utoipa::path(get, path = "/api/v1/session", tag = "dashboard", responses((status = 200, body = Session)))]
pub(crate) async fn session(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<Session>, Refusal> {
    Ok(Json(view(&app, &headers)?))
}

fn view(app: &App, headers: &HeaderMap) -> Result<Session, Refusal> {
    if !app.auth.needed() {
        let role = Some(Role::Operate.as_str().into());
        return Ok(Session { role, needed: false, expires_at: None });
    }
    let token = Auth::token(headers);
    let role = match token {
        Some(token) => app.auth.role(token)?,
        None => None,
    };
    // Nothing is refused, but it says as much as a login does of whether a key is good.
    if token.is_some() && role.is_none() {
        app.auth.log("a key", &Refusal::wrong_key());
    }
    let token = session::cookie(headers, &app.sessions.cookie);
    let expires_at = token.and_then(|t| app.sessions.ends(t)).map(text);
    Ok(Session { role: role.map(|r| r.as_str().into()), needed: true, expires_at })
}

/// Logs in by key: a cookie is set that stands for it, for twelve hours at most.
#[utoipa::path(post, path = "/api/v1/session", tag = "dashboard",
    responses((status = 200, body = Session), (status = 401, body = outlast_wire::api::Problem),
        (status = 403, body = outlast_wire::api::Problem, description = "A key for workers")))]
pub(crate) async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = app.intake.read(&headers, body, MAX_LOGIN).await?;
    let Login { key } =
        serde_json::from_slice(&body).map_err(|e| Refusal::bad(&format!("no login: {e}")))?;
    let key = key.trim();
    let role = may_log_in(&app, key).inspect_err(|refusal| app.auth.log("a login", refusal))?;
    let (cookie, ends) = app.sessions.open(key, clock::wall());
    let role = Some(role.as_str().into());
    let needed = app.auth.needed();
    let view = Session { role, needed, expires_at: Some(text(ends)) };
    Ok(([(header::SET_COOKIE, cookie)], Json(view)).into_response())
}

/// Returns the role of a key, if it may log in.
fn may_log_in(app: &App, key: &str) -> Result<Role, Refusal> {
    // A session remembers its key, also while none is needed.
    if !Auth::plausible(key) {
        return Err(Refusal::wrong_key());
    }
    let role = match app.auth.needed() {
        false => Role::Operate,
        true => app.auth.role(key)?.ok_or_else(Refusal::wrong_key)?,
    };
    if !role.allows(Role::Submit) {
        let detail = format!(
            "its role is {}; the dashboard needs one of role submit or operate, which \
             `outlast keys add NAME --role operate` makes",
            role.as_str()
        );
        let title = "this API key is for workers";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "wrong-role", title, &detail));
    }
    Ok(role)
}

/// Returns whether the session of a request goes on; a request with a key of its own has none that
/// could end. This counts as use of the session, as an open page does.
pub(crate) fn still_in(app: &App, headers: &HeaderMap, by: Option<&str>) -> bool {
    by.is_none_or(|token| {
        let key = app.sessions.key(token, clock::wall());
        key.as_deref().is_some_and(|key| Auth::token(headers) == Some(key))
    })
}

/// The session that a request came by, once `guard` has let it pass.
pub(crate) fn session_of<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    let token = session::cookie(headers, &app.sessions.cookie)?;
    still_in(app, headers, Some(token)).then_some(token)
}

/// Logs out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "dashboard", responses((status = 204)))]
pub(crate) async fn logout(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Some(token) = session::cookie(&headers, &app.sessions.cookie) {
        app.sessions.close(token);
    }
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, app.sessions.blank())]).into_response()
}

#[derive(Deserialize)]
pub(crate) struct ThroughputRange {
    #[serde(default)]
    since: i64,
    #[serde(default)]
    step: Option<String>,
}

/// Returns the numbers of tasks submitted and ended over time, since this process started.
#[utoipa::path(get, path = "/api/v1/throughput", tag = "dashboard",
    params(("step" = Option<String>, Query, description = "1s (default; ten minutes) or 1m (a day)"),
        ("since" = Option<i64>, Query, description = "Unix milliseconds; only what is newer")),
    responses((status = 200, body = Throughput)))]
pub(crate) async fn throughput(
    State(app): State<App>,
    _: Submitter,
    Params(ThroughputRange { since, step }): Params<ThroughputRange>,
) -> Result<Json<Throughput>, Refusal> {
    match step.as_deref() {
        None | Some("1s") => Ok(Json(app.pulse.seconds(since))),
        Some("1m") => Ok(Json(app.pulse.minutes(since))),
        Some(_) => Err(Refusal::bad("step: must be 1s or 1m")),
    }
}
