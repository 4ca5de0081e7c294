//! Links: their opening, the dispatch of what arrives, inventories, and their end.

use super::conn::{Arrival, Conn, Handshake, Lanes, Principal};
use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::loads::{Facts, Query};
use super::news::LinkChange;
use super::output::Output;
use super::timers::Timer;
use super::v1;
use super::workers::WorkerView;
use crate::Now;
use crate::health::HeartbeatMonitor;
use crate::records::CoordRecord;
use crate::scheduler::WorkerKey;
use outlast_model::LinkCause;
use outlast_model::message::{
    Heartbeat, Holding, HoldingState, Inventory, Refused, RefusedCode, ToCoordinator, ToWorker,
};
use outlast_model::spec::MAX_TASK_ID;
use std::collections::VecDeque;

/// Attempts that an inventory may name and that nobody here gave out.
const MAX_STRANGE: usize = 65_536;
impl Coordinator {
    /// A worker's link opened.
    pub fn on_open(&mut self, now: Now, conn: ConnId) {
        self.insert_conn(now, conn, None);
    }

    pub(super) fn insert_conn(&mut self, now: Now, conn: ConnId, v1: Option<Box<v1::Link>>) {
        let c = &self.config;
        let monitor = HeartbeatMonitor::new(c.heartbeat_interval, c.heartbeat_timeout, now.mono);
        self.timers.set(now.mono + c.hello_timeout, Timer::Link(conn));
        let inventory = Some(Vec::new());
        self.conns.insert(
            conn,
            Conn {
                monitor,
                worker: None,
                handshake: Handshake { since: now.mono, inventory, takes_settled: false },
                bye: None,
                lanes: Lanes::default(),
                v1,
                resync: None,
                timeout: 0,
                principal: Principal::default(),
                arrivals: VecDeque::new(),
            },
        );
    }

    /// Part of a message arrived.
    pub fn on_heard(&mut self, now: Now, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            let silence = state.monitor.heard(now.mono);
            self.on_silence(now, conn, silence);
        }
    }

    /// A link ended. What arrived on it before is handled first.
    pub fn on_close(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        self.arrive(now, conn, Arrival::Close(cause, reason.to_owned()));
        self.schedule(now);
    }

    /// Handles data that is not a message.
    pub fn on_malformed(&mut self, now: Now, conn: ConnId, error: &str) {
        let reason = format!("a message could not be understood: {error}");
        self.refuse(now, conn, RefusedCode::Malformed, true, &reason);
        self.schedule(now);
    }

    /// A message arrived.
    pub fn on_message(&mut self, now: Now, conn: ConnId, message: ToCoordinator) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let silence = state.monitor.heard(now.mono);
        if state.monitor.is_notable(silence) {
            self.on_silence(now, conn, silence);
        }
        let worker = self.conns.get(&conn).and_then(|c| c.worker);
        match (&message, worker) {
            // Not held back: it is a sign of life, and depends on no durable fact.
            (ToCoordinator::Heartbeat(beat), Some(_)) => {
                self.journal.output(Output::Send(conn, ToWorker::HeartbeatReply(beat.seq)));
            }
            (ToCoordinator::HeartbeatReply(seq), Some(key)) => {
                self.fleet.get_mut(key).rivals.answered(conn, *seq);
                self.on_answer(now, conn, key, *seq);
                return self.schedule(now);
            }
            _ => {}
        }
        self.arrive(now, conn, Arrival::Message(message));
        self.schedule(now);
    }

    /// Carries a message out, with the facts that were loaded for it; returns the rest of it that needs more.
    pub(super) fn on_arrived(
        &mut self,
        now: Now,
        conn: ConnId,
        message: ToCoordinator,
        facts: &Facts,
    ) -> Option<(Arrival, Vec<Query>)> {
        let state = self.conns.get_mut(&conn)?;
        let (worker, telling) = (state.worker, state.handshake.inventory.is_some());
        match (message, worker) {
            (ToCoordinator::Hello(hello), None) => self.on_hello(now, conn, *hello, facts),
            (_, None) => {
                let reason = "the first message must be a hello";
                self.refuse(now, conn, RefusedCode::Malformed, false, reason);
            }
            (ToCoordinator::Inventory(part), Some(key)) if telling => {
                self.on_inventory(now, conn, key, part, facts);
            }
            (ToCoordinator::Outbox(batch), Some(key)) => {
                return self.on_outbox(now, conn, key, batch, facts);
            }
            (ToCoordinator::Happened(happened), Some(key)) => self.on_happened(now, key, happened),
            (ToCoordinator::Started(started), Some(key)) => self.on_started(now, key, started),
            (ToCoordinator::Heartbeat(beat), Some(key)) => self.on_heartbeat(now, key, beat),
            (ToCoordinator::Unsaved(unsaved), Some(key)) => {
                return self.on_unsaved(now, conn, key, unsaved, facts);
            }
            (ToCoordinator::Adapted(change), Some(key)) => self.on_adapted(now, key, change),
            (ToCoordinator::Bye(bye), Some(_)) => state.bye = Some(bye),
            _ => {}
        }
        None
    }

    fn on_heartbeat(&mut self, now: Now, key: WorkerKey, mut beat: Heartbeat) {
        let member = self.fleet.get_mut(key);
        let drains = beat.draining;
        let delivered = beat.unacked == 0 && member.link.ready;
        let faults = std::mem::take(&mut beat.unfit);
        member.link.beat = beat;
        if member.link.draining != drains {
            member.link.draining = drains;
            self.fleet.offer(&mut self.scheduler, key);
        }
        self.set_unfit(now, key, &faults);
        if delivered {
            self.lose_undelivered(now, key);
        }
    }

    /// Handles a part of what a worker holds.
    fn on_inventory(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        part: Inventory,
        facts: &Facts,
    ) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        // An ended attempt matters only if it is waited for.
        let expected = &self.fleet.get(key).held.attempts;
        let matters =
            |h: &Holding| h.state != HoldingState::Finished || expected.contains_key(&h.attempt());
        let mut parts = part.holdings;
        parts.retain(|h| h.task.len() <= MAX_TASK_ID && matters(h));
        let most = expected.len() + MAX_STRANGE;
        let held = state.handshake.inventory.get_or_insert_default();
        if held.len() + parts.len() > most {
            let reason = format!("an inventory of more than {most} attempts");
            self.refuse(now, conn, RefusedCode::Malformed, false, &reason);
        } else {
            held.extend(parts);
            if part.last {
                let held = state.handshake.inventory.take().unwrap_or_default();
                self.timers.set(state.monitor.next_wake(), Timer::Link(conn));
                let takes_settled = state.handshake.takes_settled;
                self.reconcile(now, key, held, facts);
                if takes_settled {
                    self.send(conn, ToWorker::Settled);
                }
                self.settle_resync(now, conn, key);
            }
        }
    }

    /// All workers, by name.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.fleet.views()
    }

    /// One worker, by name or store id.
    pub fn worker(&self, name_or_store: &str) -> Option<WorkerView> {
        self.fleet.view(name_or_store)
    }

    /// The link of the worker that has this attempt, to ask it for logs.
    pub fn link_of_store(&self, store_id: &str) -> Option<ConnId> {
        self.fleet.by_store(store_id).and_then(|key| self.fleet.get(key).link.conn)
    }

    pub(super) fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        code: RefusedCode,
        retry: bool,
        reason: &str,
    ) {
        *self.counters.links.refused.entry(code.word()).or_default() += 1;
        let retry_after_ms = if retry { 1000 } else { 0 };
        let refused = Refused { code, reason: reason.into(), retry, retry_after_ms };
        let refusal = self.on_link(conn, ToWorker::Refused(refused));
        refusal.into_iter().for_each(|output| self.journal.output(output));
        self.hang_up(now, conn, LinkCause::Refused, reason);
    }

    pub(super) fn hang_up(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        self.drop_conn(now, conn, cause, reason);
        self.journal.output(Output::Close(conn, reason.into()));
    }

    pub(super) fn drop_conn(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        let Some(state) = self.conns.remove(&conn) else { return };
        // One that was refused before its hello was accepted is no worker's, and has no cause.
        let Some(key) = state.worker else { return };
        if state.v1.is_some() && self.leave_v1(now, conn, key, state.resync) {
            *self.counters.links.ended.entry(cause.word()).or_default() += 1;
            return;
        }
        let member = self.fleet.get_mut(key);
        if let Some(detector) = member.link.detector.as_mut() {
            detector.lost(cause == LinkCause::Silent);
        }
        (member.link.conn, member.link.ready, member.link.gone) = (None, false, now.mono);
        (member.link.beat.running, member.link.beat.queued) = (0, 0);
        let worker = member.row.store_id.clone();
        let cause = if state.bye.is_some() { LinkCause::Stopped } else { cause };
        *self.counters.links.ended.entry(cause.word()).or_default() += 1;
        let reason = state.bye.unwrap_or_else(|| reason.to_owned());
        let (recorded, at) = (reason.clone(), now.wall);
        self.journal.record(CoordRecord::WorkerGone { worker, reason: recorded, cause, at });
        self.scheduler.leave(key);
        self.forget_stale_attempts(key);
        let holds = !self.fleet.get(key).held.attempts.is_empty();
        self.publish(now, key, LinkChange::Lost(cause, reason, holds));
        self.arm_window(now, key);
    }

    pub(super) fn on_conn_timer(&mut self, now: Now, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        // While one of its messages waits for the store, the delay is not the worker's.
        if state.handshake.inventory.is_some()
            && state.arrivals.is_empty()
            && now.mono >= state.handshake.since + self.config.hello_timeout
        {
            let reason = "the worker did not say hello, or register, in time";
            return self.hang_up(now, conn, LinkCause::Silent, reason);
        }
        if state.monitor.expired(now.mono) {
            self.counters.links.silent += 1;
            let reason = format!("silent for {} s", state.monitor.pace().1 as f64 / 1000.0);
            return self.hang_up(now, conn, LinkCause::Silent, &reason);
        }
        if let Some(key) = state.worker {
            self.retime(now, conn, key);
        }
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some(seq) = state.monitor.beat(now.mono) {
            let interval_ms = state.monitor.pace().0.try_into().unwrap_or(u32::MAX);
            let beat = Heartbeat { seq, interval_ms, ..Default::default() };
            self.journal.output(match state.v1 {
                None => Output::Send(conn, ToWorker::Heartbeat(beat)),
                // Its dialect has no heartbeat for the coordinator to begin with.
                Some(_) => Output::Ping(conn, seq),
            });
        }
        self.timers.set(state.monitor.next_wake().max(now.mono + 1), Timer::Link(conn));
        self.settle_v1(now, conn);
    }
}
