//! Extractors: the parts of a request that handlers take. A handler names the role that its route needs by
//! taking one of these; without such a key it is not called.

use crate::app::App;
use crate::auth::{Auth, Pass, Who};
use crate::problem::Refusal;
use crate::sessions::Scope;
use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use outlast_store::Role;
use serde::de::DeserializeOwned;

/// Makes an extractor that checks a role.
macro_rules! extractor {
    ($(#[$doc:meta])* $name:ident($holds:ident), $check:path, $role:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(pub $holds);

        impl FromRequestParts<App> for $name {
            type Rejection = Refusal;
            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
                $check(&app.auth, &parts.headers, $role).map($name)
            }
        }
    };
}

extractor!(
    /// A key that may submit, change and read tasks.
    Submitter(Who), Auth::check, Role::Submit
);
extractor!(
    /// A key that a worker may dial with; the link ends when it would not be accepted any more.
    Dialler(Pass), Pass::check, Role::Worker
);
extractor!(
    /// A key that may read a stream, which ends when the key would not be accepted any more.
    Subscriber(Pass), Pass::check, Role::Submit
);

/// A key that may change workers and overrule recovery.
pub(crate) struct Operator;

impl FromRequestParts<App> for Operator {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        app.auth.check(&parts.headers, Role::Operate).map(|_| Operator)
    }
}

/// A worker's key and the stores that its request may speak for.
pub(crate) struct WorkerScope(pub Scope);

impl FromRequestParts<App> for WorkerScope {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let who = app.auth.check(&parts.headers, Role::Worker)?;
        app.worker_sessions.scope(&parts.headers, &who).map(WorkerScope)
    }
}

/// A key that sees the tasks of all owners.
pub(crate) struct Overseer;

impl FromRequestParts<App> for Overseer {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        if app.auth.check(&parts.headers, Role::Submit)?.only().is_none() {
            return Ok(Overseer);
        }
        let detail =
            "it sees only tasks that were submitted with it, and this is about all of them";
        let title = "this API key does not allow that";
        Err(Refusal::new(StatusCode::FORBIDDEN, "own-tasks-only", title, detail))
    }
}

/// The parameters of a query string.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Params<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let query = Query::from_request_parts(parts, app).await;
        query.map(|Query(params)| Params(params)).map_err(|e| Refusal::bad(&e.body_text()))
    }
}
