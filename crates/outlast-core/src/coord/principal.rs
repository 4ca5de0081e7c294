//! Binding of workers to keys. A worker belongs to the first key that it connects with: while that key
//! is valid, another one can take over neither its name nor its store, unless an operator unbinds the
//! worker. Keys of the same name are equivalent, so that a key can be replaced by a newer one.

use super::{ConnId, Coordinator, Lookup, Response};
use crate::Now;
use crate::records::{CoordRecord, WorkerRow};
use std::sync::Arc;

/// Owner of a link, by its key.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    /// Name of the key; empty where no key is needed.
    pub name: Arc<str>,
    /// True if it may take over workers of other keys.
    pub operator: bool,
}

impl Coordinator {
    /// Says whose link this is; before anything arrives on it.
    pub fn on_principal(&mut self, conn: ConnId, principal: Principal) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.principal = principal;
        }
    }

    /// The key that a worker of this name and store is bound to from now on, or why this link may
    /// not be its own.
    pub(super) fn bind(
        &self,
        conn: ConnId,
        name: &str,
        store_id: &str,
        look: &dyn Lookup,
    ) -> Result<Arc<str>, String> {
        let Some(Principal { name: mine, operator }) = self.conns.get(&conn).map(|c| &c.principal)
        else {
            return Ok("".into());
        };
        let store = self.fleet.by_store(store_id);
        for key in [store, self.fleet.by_name(name)].into_iter().flatten() {
            let row = &self.fleet.get(key).row;
            let bound = !row.principal.is_empty() && row.principal != *mine;
            if bound && !operator && look.key_is_valid(&row.principal) {
                let (worker, key) = (&row.name, &row.principal);
                return Err(format!(
                    "worker {worker} is bound to the API key {key:?}, and this is another one; use \
                     that key or another name, or let an operator run `outlast workers unbind \
                     {worker}`"
                ));
            }
        }
        let old = store.map(|key| self.fleet.get(key).row.principal.clone());
        // An operator's key leaves a worker with whom it belongs to.
        Ok(old.filter(|old| *operator && !old.is_empty()).unwrap_or_else(|| mine.clone()))
    }

    pub(super) fn unbind(&mut self, now: Now, worker: &str) -> Response {
        let Some(key) = self.fleet.named(worker) else { return Response::NoWorker };
        let member = self.fleet.get_mut(key);
        let row = WorkerRow { principal: "".into(), ..WorkerRow::clone(&member.row) };
        member.row = Arc::new(row);
        let worker = member.row.store_id.clone();
        self.records.push(CoordRecord::WorkerUnbound { worker, at: now.wall });
        Response::Unbound
    }
}
