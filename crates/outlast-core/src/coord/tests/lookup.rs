//! Answers to loads, as a driver gives them whose store answers at once.

use crate::Epoch;
use crate::Now;
use crate::coord::{ConnId, Coordinator, Fact, Given, PastAttempt, Query, Request, RequestId};
use crate::records::TaskRow;
use outlast_model::message::ToCoordinator;
use outlast_model::{Bytes, Checkpoint, StateUpdate};
use outlast_wire::v1::FromWorker;
use std::sync::Arc;

/// A store of tests; by itself it has nothing.
pub(in crate::coord) trait Lookup {
    fn task(&self, _: &str) -> Option<TaskRow> {
        None
    }
    fn former(&self, _: &str) -> Epoch {
        0
    }
    fn is_owned(&self, _: &str, _: &str) -> bool {
        false
    }
    fn has_blob(&self, _: &[u8], _: &str) -> bool {
        false
    }
    fn attempts(&self, _: &str, _: &str) -> Vec<PastAttempt> {
        Vec::new()
    }
    fn given(&self, _: &str, _: Epoch) -> Given {
        Given::Never
    }
    fn key_is_valid(&self, _: &str) -> bool {
        true
    }
    fn state(&self, _: &str) -> Option<StateUpdate> {
        None
    }
    fn checkpoints(&self, _: &str) -> Vec<Arc<Checkpoint>> {
        Vec::new()
    }
}

impl Lookup for () {}

/// A store that has this row.
impl Lookup for TaskRow {
    fn task(&self, id: &str) -> Option<TaskRow> {
        (*self.id == *id).then(|| self.clone())
    }
}

/// A store that has these rows.
impl<const N: usize> Lookup for [TaskRow; N] {
    fn task(&self, id: &str) -> Option<TaskRow> {
        self.iter().find(|row| *row.id == *id).cloned()
    }
}

pub(in crate::coord) fn fact(look: &dyn Lookup, query: &Query) -> Fact {
    match query {
        Query::Task(id) => Fact::Task(look.task(id).map(Box::new)),
        Query::Former(id) => Fact::Epoch(look.former(id)),
        Query::Owned(id, owner) => Fact::Is(look.is_owned(id, owner)),
        Query::Blob(manifest, store) => Fact::Is(look.has_blob(manifest, store)),
        Query::Attempts(id, store) => Fact::Attempts(look.attempts(id, store)),
        Query::Given(id, epoch) => Fact::Given(look.given(id, *epoch)),
        Query::Key(name) => Fact::Is(look.key_is_valid(name)),
        Query::State(id) => Fact::State(look.state(id).map(Arc::new)),
        Query::Checkpoints(id) => Fact::Checkpoints(look.checkpoints(id)),
    }
}

impl Coordinator {
    /// Answers every open load.
    pub(in crate::coord) fn answer(&mut self, now: Now, look: &dyn Lookup) {
        while let Some((load, queries)) = self.loads.oldest() {
            let facts = queries.iter().map(|query| fact(look, query)).collect();
            self.on_loaded(now, load, facts);
        }
    }
    pub(in crate::coord) fn hear(
        &mut self,
        now: Now,
        conn: ConnId,
        message: ToCoordinator,
        look: &dyn Lookup,
    ) {
        self.on_message(now, conn, message);
        self.answer(now, look);
    }
    pub(in crate::coord) fn hear_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        message: FromWorker,
        blob: Option<Bytes>,
        look: &dyn Lookup,
    ) {
        self.on_v1(now, conn, message, blob);
        self.answer(now, look);
    }
    pub(in crate::coord) fn ask_of(
        &mut self,
        now: Now,
        id: RequestId,
        request: Request,
        look: &dyn Lookup,
    ) {
        self.on_request(now, id, request);
        self.answer(now, look);
    }
}
