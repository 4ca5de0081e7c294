//! Keys that see and change only their own tasks. What is about one task is checked here for all
//! routes below `/api/v1/tasks/{id}`; lists, counts and streams leave out what is another owner's.

use crate::app::App;
use crate::auth::Who;
use crate::events::FeedEvent;
use crate::problem::Refusal;
use crate::readers::Readers;
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
    // Requests without a valid key are refused by the handler.
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

/// The owner whose events a stream may carry; none: all.
pub(crate) struct OwnerFilter {
    readers: Readers,
    owner: Option<String>,
    known: HashMap<Arc<str>, bool>,
}

impl OwnerFilter {
    pub fn new(readers: Readers, who: &Who) -> OwnerFilter {
        let owner = who.only().map(ToOwned::to_owned);
        OwnerFilter { readers, owner, known: HashMap::new() }
    }

    /// Returns whether the stream may carry this event. Events of tasks that were removed, or cannot be read,
    /// are left out.
    pub async fn may_see(&mut self, what: &FeedEvent) -> bool {
        let (Some(owner), FeedEvent::Task { id, .. }) = (&self.owner, what) else { return true };
        if let Some(own) = self.known.get(id) {
            return *own;
        }
        let (wanted, owner) = (id.clone(), owner.clone());
        let own = self.readers.read(move |r| r.is_owned(&wanted, &owner)).await;
        let own = own.unwrap_or(false);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(id.clone(), own);
        own
    }
}
