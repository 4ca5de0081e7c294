//! Binding of workers to keys. A worker belongs to the first key that it connects with: while that key
//! is valid, another one can take over neither its name nor its store, unless an operator unbinds the
//! worker. Keys of the same name are equivalent, so that a key can be replaced by a newer one.

use super::conn::Principal;
use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::loads::{Facts, Query, Wants};
use super::request::Response;
use crate::Now;
use crate::records::{CoordRecord, WorkerRow};
use std::sync::Arc;

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
        facts: &Facts,
    ) -> Result<Arc<str>, String> {
        let Some(Principal { name: mine, operator }) = self.conns.get(&conn).map(|c| &c.principal)
        else {
            return Ok("".into());
        };
        for row in self.bound_elsewhere(conn, name, store_id) {
            if facts.key_is_valid(&row.principal) {
                let (worker, key) = (&row.name, &row.principal);
                return Err(format!(
                    "worker {worker} is bound to the API key {key:?}, and this is another one; use \
                     that key or another name, or let an operator run `outlast workers unbind \
                     {worker}`"
                ));
            }
        }
        let store = self.fleet.by_store(store_id);
        let old = store.map(|key| self.fleet.get(key).row.principal.clone());
        // An operator's key leaves a worker with whom it belongs to.
        Ok(old.filter(|old| *operator && !old.is_empty()).unwrap_or_else(|| mine.clone()))
    }

    /// Asks for the keys that [`Self::bind`] needs to know of.
    pub(super) fn wants_binding(
        &self,
        conn: ConnId,
        name: &str,
        store_id: &str,
        wants: &mut Wants<'_>,
    ) {
        for row in self.bound_elsewhere(conn, name, store_id) {
            wants.add(Query::Key(row.principal.clone()));
        }
    }

    /// The workers of this store or name that are bound to another key than the link's; none for an operator's.
    fn bound_elsewhere(
        &self,
        conn: ConnId,
        name: &str,
        store_id: &str,
    ) -> impl Iterator<Item = &WorkerRow> {
        let mine = self.conns.get(&conn).map(|c| &c.principal).filter(|mine| !mine.operator);
        let known = [self.fleet.by_store(store_id), self.fleet.by_name(name)];
        let rows = known.into_iter().flatten().map(|key| &*self.fleet.get(key).row);
        rows.filter(move |row| {
            mine.is_some_and(|m| !row.principal.is_empty() && row.principal != m.name)
        })
    }

    pub(super) fn unbind(&mut self, now: Now, worker: &str) -> Response {
        let Some(key) = self.fleet.named(worker) else { return Response::NoWorker };
        let member = self.fleet.get_mut(key);
        let row = WorkerRow { principal: "".into(), ..WorkerRow::clone(&member.row) };
        member.row = Arc::new(row);
        let worker = member.row.store_id.clone();
        self.journal.record(CoordRecord::WorkerUnbound { worker, at: now.wall });
        Response::Unbound
    }
}
