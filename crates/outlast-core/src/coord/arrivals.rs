//! Messages of links in the order of their arrival. One that needs facts from the store waits for them, and the
//! messages after it wait behind it. All of them count as signs of life when they arrive, and a heartbeat of v2 is
//! answered then. What arrived before a link's end is handled before the end.

use super::conn::{Arrival, Conn};
use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::loads::{Fact, Facts, LoadId, Query, Waiter, Wants};
use super::output::Output;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Now};
use outlast_model::message::{HoldingState, Inventory, OutboxItem, ToCoordinator};

impl Coordinator {
    /// Begins a load for a message or request that has waited since batch `since` was the newest durable one.
    pub(super) fn begin_load(
        &mut self,
        since: u64,
        waiter: Waiter,
        queries: Vec<Query>,
        facts: Facts,
    ) {
        let (load, queries) = self.loads.begin(since, waiter, queries, facts);
        self.journal.output(Output::Load(load, queries));
    }

    /// The driver answers a load: the facts are in the order of its queries.
    pub fn on_loaded(&mut self, now: Now, load: LoadId, answers: Vec<Fact>) {
        if let Some((waiter, since, facts)) = self.loads.end(load, answers) {
            match waiter {
                Waiter::Request(id, request) => self.serve(now, id, *request, since, facts),
                Waiter::Link(conn) => self.resume(now, conn, since, facts),
            }
        }
        self.forget_durable();
        self.schedule(now);
    }

    /// Returns the number of requests that wait for facts: nothing that is decided yet is their answer.
    pub fn waiting_requests(&self) -> usize {
        self.loads.requests()
    }

    /// Returns the number of messages of a link that wait for facts.
    pub fn waiting(&self, conn: ConnId) -> usize {
        self.conns.get(&conn).map_or(0, |c| c.arrivals.len())
    }

    /// Handles an arrival, after those that wait.
    pub(super) fn arrive(&mut self, now: Now, conn: ConnId, what: Arrival) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if !state.arrivals.is_empty() {
            return state.arrivals.push_back(what);
        }
        self.handle(now, conn, what, self.journal.durable(), Facts::default());
    }

    /// Goes on with the messages that waited on a link.
    fn resume(&mut self, now: Now, conn: ConnId, since: u64, facts: Facts) {
        let first = |c: &mut Conn| c.arrivals.pop_front();
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.handshake.since = now.mono;
        let Some(what) = first(state) else { return };
        let mut goes_on = self.handle(now, conn, what, since, facts);
        while goes_on && let Some(what) = self.conns.get_mut(&conn).and_then(first) {
            goes_on = self.handle(now, conn, what, self.journal.durable(), Facts::default());
        }
    }

    /// Handles an arrival with the facts that were loaded for it; or loads what it needs first, and returns false.
    fn handle(&mut self, now: Now, conn: ConnId, what: Arrival, since: u64, facts: Facts) -> bool {
        let mut wants = Wants::new(&facts);
        self.wants_of_arrival(conn, &what, &mut wants);
        let missing = wants.missing();
        let rest = match missing.is_empty() {
            false => Some((what, missing)),
            true => self.carry(now, conn, what, &facts),
        };
        self.loads.used(&facts);
        let Some((rest, missing)) = rest else { return true };
        if let Some(state) = self.conns.get_mut(&conn) {
            state.arrivals.push_front(rest);
            self.begin_load(since, Waiter::Link(conn), missing, facts);
        }
        false
    }

    /// Carries an arrival out; returns the rest of it that needs more facts.
    fn carry(
        &mut self,
        now: Now,
        conn: ConnId,
        what: Arrival,
        facts: &Facts,
    ) -> Option<(Arrival, Vec<Query>)> {
        match what {
            Arrival::Message(message) => return self.on_arrived(now, conn, message, facts),
            Arrival::Items(lane, items) => {
                let key = self.conns.get(&conn)?.worker?;
                return self.on_items(now, conn, key, (lane, items), facts);
            }
            Arrival::V1(message, blob, since) => {
                self.on_arrived_v1(now, conn, (message, blob, since.is_none()), facts);
            }
            Arrival::Close(cause, reason) => self.drop_conn(now, conn, cause, &reason),
        }
        None
    }

    fn wants_of_arrival(&self, conn: ConnId, what: &Arrival, wants: &mut Wants<'_>) {
        let worker = self.conns.get(&conn).and_then(|c| c.worker);
        match (what, worker) {
            (Arrival::V1(message, blob, _), _) => {
                self.wants_v1(conn, message, blob.as_ref(), wants)
            }
            (Arrival::Message(ToCoordinator::Hello(hello)), None) => {
                self.wants_binding(conn, &hello.worker_id, &hello.store_id, wants);
            }
            (Arrival::Message(ToCoordinator::Inventory(part)), Some(key)) => {
                self.wants_of_inventory(conn, key, part, wants);
            }
            // Their items are looked at one by one: each may change what the next one needs.
            (Arrival::Message(_) | Arrival::Items(..) | Arrival::Close(..), _) => {}
        }
    }

    /// Asks for the abandoned attempts that a worker still runs: they go on there if they were its own and did
    /// not end.
    fn wants_of_inventory(
        &self,
        conn: ConnId,
        key: WorkerKey,
        part: &Inventory,
        wants: &mut Wants<'_>,
    ) {
        let Some(before) = self.conns.get(&conn).and_then(|c| c.handshake.inventory.as_ref())
        else {
            return;
        };
        if !part.last {
            return;
        }
        let store = &self.fleet.get(key).row.store_id;
        let runs = before.iter().chain(&part.holdings);
        for held in runs.filter(|h| h.state != HoldingState::Finished) {
            let AttemptId { task, epoch } = held.attempt();
            if self.tasks.get(&task).is_some_and(|t| t.is_abandoned(epoch)) {
                wants.add(Query::Attempts(task.clone(), store.clone()));
                wants.add(Query::Given(task, epoch));
            }
        }
    }

    /// Asks for the records of an attempt that a worker reports on, unless it is the current one.
    pub(super) fn wants_of_attempt(&self, key: WorkerKey, id: &AttemptId, wants: &mut Wants<'_>) {
        let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
        if current || id.epoch == 0 || self.tasks.is_removed(id) {
            return;
        }
        let store = &self.fleet.get(key).row.store_id;
        wants.add(Query::Given(id.task.clone(), id.epoch));
        wants.add(Query::Attempts(id.task.clone(), store.clone()));
        self.wants_row(&id.task, wants);
    }

    pub(super) fn wants_of_item(&self, key: WorkerKey, item: &OutboxItem, wants: &mut Wants<'_>) {
        match item {
            OutboxItem::Outcome(outcome) => self.wants_of_attempt(key, &outcome.attempt(), wants),
            OutboxItem::State(update) => self.wants_of_attempt(key, &update.attempt(), wants),
            OutboxItem::Checkpoint(checkpoint) => {
                self.wants_of_attempt(key, &checkpoint.attempt(), wants);
                if !checkpoint.dropped {
                    let store = self.fleet.get(key).row.store_id.clone();
                    wants.add(Query::Blob(checkpoint.manifest.clone(), store));
                }
            }
            OutboxItem::Nothing => {}
        }
    }
}
