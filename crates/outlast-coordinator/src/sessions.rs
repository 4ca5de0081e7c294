//! Sessions of workers, for their requests for blobs. A worker gets one when it is accepted, and names it
//! with each request: the store and the key that it belongs to, under a secret of this process. So nothing
//! is kept, a session ends with the process or its key, and another key cannot use it.

use crate::auth::Who;
use crate::problem::Refusal;
use axum::http::{HeaderMap, StatusCode};
use outlast_blob::Hash;
use outlast_core::coord::ConnId;
use outlast_wire::SESSION_HEADER;
use parking_lot::Mutex;
use std::collections::HashMap;
use uuid::Uuid;

/// The stores that a request may speak for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All blobs: the key is an operator's, or none is needed.
    All,
    /// The blobs of these stores. More than one for workers of a former version, which do not say who
    /// they are: then those that are connected with the same key.
    Stores(Vec<String>),
}

/// Sessions of workers.
pub(crate) struct WorkerSessions {
    secret: [u8; 32],
    /// Links of workers of a version that knows no sessions: their stores, and keys.
    old: Mutex<HashMap<ConnId, (String, String)>>,
}

impl WorkerSessions {
    pub fn new() -> WorkerSessions {
        // 244 random bits of the system.
        let random = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
        WorkerSessions { secret: *Hash::of(&random).as_bytes(), old: Mutex::default() }
    }

    fn mark(&self, store: &str, key: &str) -> String {
        let text = format!("{key}\0{store}");
        Hash::of(&[&self.secret, text.as_bytes()].concat()).to_string()
    }

    /// A session for the worker with this store.
    pub fn issue(&self, store: &str, who: &Who) -> String {
        format!("{}.{store}", self.mark(store, who.key_id()))
    }

    /// Notes that a worker of a former version was accepted.
    pub fn old(&self, conn: ConnId, store: &str, who: &Who) {
        let known = (store.to_owned(), who.key_id().to_owned());
        self.old.lock().insert(conn, known);
    }

    pub fn ended(&self, conn: ConnId) {
        self.old.lock().remove(&conn);
    }

    /// Returns the stores that a request speaks for.
    pub fn scope(&self, headers: &HeaderMap, who: &Who) -> Result<Scope, Refusal> {
        if let Some(session) = headers.get(SESSION_HEADER).and_then(|v| v.to_str().ok()) {
            if let Some((mark, store)) = session.split_once('.') {
                // Where two hashes of what was sent differ says nothing of it.
                let same = |a: &str, b: &str| Hash::of(a.as_bytes()) == Hash::of(b.as_bytes());
                if same(mark, &self.mark(store, who.key_id())) {
                    return Ok(Scope::Stores(vec![store.to_owned()]));
                }
            }
            let detail = "it is of another key, or of a former process of this coordinator; a \
                          worker gets one with each connection";
            return Err(refused("the worker's session is not valid", detail));
        }
        if who.may_read_all() {
            return Ok(Scope::All);
        }
        let old = self.old.lock();
        let mine = old.values().filter(|(_, key)| key == who.key_id());
        let stores: Vec<String> = mine.map(|(store, _)| store.clone()).collect();
        if stores.is_empty() {
            let detail = "connect as a worker, and send the session of the welcome with each \
                          request; a worker of a former version has to be connected meanwhile";
            return Err(refused("this request names no worker's session", detail));
        }
        Ok(Scope::Stores(stores))
    }
}

fn refused(title: &str, detail: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "no-session", title, detail)
}
