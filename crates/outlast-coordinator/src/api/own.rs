//! Keys that see and change only their own tasks. What is about one task is checked here for all
//! routes below `/api/v1/tasks/{id}`; lists, counts and streams leave out what is another owner's.

use super::{App, Refusal};
use crate::auth::Who;
use crate::events::Happened;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use outlast_store::Role;
use std::collections::HashMap;
use std::sync::Arc;

/// Tasks whose owner a stream remembers.
const REMEMBERED: usize = 4096;

/// Answers as if there were no such task where it is another owner's.
pub(crate) async fn own_tasks(
    State(app): State<App>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    // Whoever is not let in at all is told so by the handler.
    if let Ok(who) = app.auth.who(request.headers(), Role::Submit)
        && let Some(owner) = who.only().map(ToOwned::to_owned)
        && let Some((_, id)) = params.iter().find(|(name, _)| *name == "id")
    {
        let (id, wanted) = (id.to_owned(), id.to_owned());
        match app.readers.read(move |r| r.is_owned(&wanted, &owner)).await {
            Ok(true) => {}
            Ok(false) => return Refusal::no_task(&id).into_response(),
            Err(error) => return Refusal::store(&error).into_response(),
        }
    }
    next.run(request).await
}

/// What a key that sees only its own tasks may not read at all.
pub(crate) fn all_tasks(who: &Who) -> Result<(), Refusal> {
    if who.only().is_none() {
        return Ok(());
    }
    let detail = "it sees only tasks that were submitted with it, and this is about all of them";
    let title = "this API key does not allow that";
    Err(Refusal::new(axum::http::StatusCode::FORBIDDEN, "own-tasks-only", title, detail))
}

/// The owner whose events a stream may carry; none: all.
pub(crate) struct Own {
    app: App,
    owner: Option<String>,
    known: HashMap<Arc<str>, bool>,
}

impl Own {
    pub fn new(app: &App, who: &Who) -> Own {
        let owner = who.only().map(ToOwned::to_owned);
        Own { app: app.clone(), owner, known: HashMap::new() }
    }

    /// Whether this may be told. Of tasks that are removed, or cannot be looked up: no.
    pub async fn may_see(&mut self, what: &Happened) -> bool {
        let (Some(owner), Happened::Task { id, .. }) = (&self.owner, what) else { return true };
        if let Some(own) = self.known.get(id) {
            return *own;
        }
        let (wanted, owner) = (id.clone(), owner.clone());
        let own = self.app.readers.read(move |r| r.is_owned(&wanted, &owner)).await;
        let own = own.unwrap_or(false);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(id.clone(), own);
        own
    }
}
