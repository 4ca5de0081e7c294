//! The links that one session has at once. A client of the replaced system may open a second
//! connection while the first is still there, and dials again whenever either ends: so closing one
//! only because another came would go on for ever. They share the session: an answer goes to the link
//! that asked, work to the newest that lives, whatever arrives on any is a sign of life, and the
//! session ends with the last.

use super::session::{Acks, MAX_LINKS, PREFIX, Run};
use crate::coord::conn::Resync;
use crate::coord::coordinator::Coordinator;
use crate::coord::ids::ConnId;
use crate::coord::news::LinkChange;
use crate::coord::output::Output;
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::LinkCause;
use outlast_model::message::Heartbeat;

/// Number of links per worker above which silent ones are closed at once, the oldest first.
pub(super) const LINKS: usize = 4;
/// Heartbeats that a link may miss before it counts as silent. It ends later, by the timeout.
const BEATS: Millis = 2;

impl Coordinator {
    /// A silence of a link after which work goes by another one, in milliseconds.
    fn quiet_v1(&self) -> Millis {
        self.config.heartbeat_timeout.min(BEATS * self.config.heartbeat_interval)
    }

    /// The links of a worker on which something arrived lately, oldest first.
    pub(super) fn alive_v1(&self, now: Now, key: WorkerKey) -> Vec<ConnId> {
        let quiet = self.quiet_v1();
        let links = self.fleet.get(key).v1.as_ref().map_or(&[][..], |s| &s.links);
        let alive = |conn: &&ConnId| {
            let heard = self.conns.get(conn).map(|c| c.monitor.last_heard());
            heard.is_some_and(|at| now.mono < at.saturating_add(quiet))
        };
        links.iter().filter(alive).copied().collect()
    }

    pub(super) fn lives_v1(&self, now: Now, key: WorkerKey) -> bool {
        !self.alive_v1(now, key).is_empty()
    }

    /// Returns true if a worker may open one more link.
    pub fn admits_link_v1(&self, now: Now, worker_id: &str) -> bool {
        let key = self.fleet.by_store(&format!("{PREFIX}{worker_id}"));
        key.is_none_or(|key| self.alive_v1(now, key).len() < MAX_LINKS)
    }

    /// Makes room for one more link, if there can be.
    pub(super) fn has_room_v1(&mut self, now: Now, key: Option<WorkerKey>) -> bool {
        let Some(key) = key else { return true };
        let alive = self.alive_v1(now, key);
        let links = self.fleet.get(key).v1.as_ref().map_or_else(Vec::new, |s| s.links.clone());
        let silent = links.iter().filter(|l| !alive.contains(l));
        let surplus = (links.len() + 1).saturating_sub(LINKS);
        for conn in silent.take(surplus).copied().collect::<Vec<_>>() {
            let reason = "silent, and its worker has newer connections";
            self.drop_conn(now, conn, LinkCause::Silent, reason);
            self.journal.output(Output::Close(conn, reason.into()));
        }
        self.fleet.get(key).v1.as_ref().is_none_or(|s| s.links.len() < MAX_LINKS)
    }

    /// A link becomes one of its worker's session. What was given on links that do not live any more
    /// is expected to be there.
    pub(super) fn join(&mut self, now: Now, conn: ConnId, key: WorkerKey, new: bool) {
        let fresh = !self.lives_v1(now, key);
        if fresh {
            self.pass_over_v1(now, key);
        }
        let member = self.fleet.get_mut(key);
        (member.link.conn, member.link.draining) = (Some(conn), false);
        if fresh {
            // It may have what was given to others meanwhile, and says so first. A new one has
            // nothing.
            member.link.ready = new;
            // The dialect does not report restored checkpoints: they are counted here.
            member.link.beat =
                Heartbeat { restored: member.link.beat.restored, ..Default::default() };
        }
        let held: Vec<_> = member.held.attempts.keys().cloned().collect();
        let session = member.v1.get_or_insert_default();
        session.links.push(conn);
        session.speaker = conn;
        for id in held {
            let run = session.runs.entry(id.task).or_insert_with(|| Run::new(id.epoch, now));
            if fresh {
                (
                    run.evidence.since,
                    run.evidence.asked,
                    run.transfer.fetching,
                    run.pause.pausing,
                ) = (now.mono, None, None, None);
            }
        }
        self.counters.links.welcomed += 1;
        let change = match fresh {
            true => LinkChange::Connected(conn, None),
            false => LinkChange::Switched(conn, true),
        };
        self.publish(now, key, change);
        if let Some(state) = self.conns.get_mut(&conn) {
            (state.worker, state.handshake.inventory) = (Some(key), None);
            state.resync = fresh.then(|| Resync::new(now.mono, None));
            if let Some(link) = &mut state.v1 {
                (link.joined, link.registered) = (now.mono, false);
            }
            self.timers.set(state.monitor.next_wake(), crate::coord::Timer::Link(conn));
        }
    }

    /// Moves on from silent links to a newly opened one: they may still come back, but measurements begin
    /// with the new one.
    fn pass_over_v1(&mut self, now: Now, key: WorkerKey) {
        let member = self.fleet.get(key);
        let links = member.v1.as_ref().map_or_else(Vec::new, |s| s.links.clone());
        let holds = !member.held.attempts.is_empty();
        for conn in &links {
            if let Some(state) = self.conns.get_mut(conn) {
                state.resync = None;
            }
        }
        if !links.is_empty() {
            let reason = "it was silent, and its worker opened another".to_owned();
            self.publish(now, key, LinkChange::Lost(LinkCause::TakenOver, reason, holds));
        }
    }

    /// Sends work on the newest link that lives from now on, or where none does on the one that was
    /// heard last.
    pub(super) fn prefer_v1(&mut self, now: Now, key: WorkerKey) {
        let alive = self.alive_v1(now, key);
        let member = self.fleet.get(key);
        let Some(session) = member.v1.as_ref() else { return };
        let heard = |conn: &&ConnId| self.conns.get(conn).map(|c| c.monitor.last_heard());
        let chosen = alive.last().or_else(|| session.links.iter().max_by_key(heard)).copied();
        let Some(chosen) = chosen.filter(|c| member.link.conn != Some(*c)) else { return };
        let former = self.fleet.get_mut(key).link.conn.replace(chosen);
        // What was asked on the former may not have arrived.
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        for run in session.runs.values_mut() {
            run.transfer.fetching.take_if(|f| Some(f.link) == former);
        }
        let link = self.conns.get_mut(&chosen).and_then(|c| c.v1.as_mut());
        if let Some(link) = link {
            link.registered = false;
        }
        self.publish(now, key, LinkChange::Switched(chosen, false));
    }

    /// A link of a worker ended; whether its session goes on with others. `resync`: what the link
    /// was to settle.
    pub(in crate::coord) fn leave_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        resync: Option<Resync>,
    ) -> bool {
        let Some(session) = self.fleet.get_mut(key).v1.as_mut() else { return false };
        session.links.retain(|link| *link != conn);
        if session.links.is_empty() {
            return false;
        }
        if self.fleet.get(key).link.conn == Some(conn) {
            self.prefer_v1(now, key);
        }
        let Some(other) = self.fleet.get(key).link.conn else { return false };
        if let Some(state) = self.conns.get_mut(&other) {
            state.resync = state.resync.take().or(resync);
        }
        // What it asked is answered all the same.
        for output in self.journal.outputs_mut() {
            if let Output::SendV1(to, _) = output
                && *to == conn
            {
                *to = other;
            }
        }
        true
    }

    /// Settles the inventory of the session's links.
    pub(super) fn settle_resync_v1(&mut self, now: Now, key: WorkerKey) {
        let links = self.fleet.get(key).v1.as_ref().map_or_else(Vec::new, |s| s.links.clone());
        for conn in links {
            self.settle_resync(now, conn, key);
        }
    }

    pub(super) fn wants_ack_v1(&self, conn: ConnId, kind: &str) -> bool {
        let key = self.conns.get(&conn).and_then(|c| c.worker);
        let session = key.and_then(|key| self.fleet.find(key)?.v1.as_deref());
        match session.map(|s| &s.acks) {
            None | Some(Acks::All) => true,
            Some(Acks::None) => false,
            Some(Acks::Some(names)) => names.contains(kind),
        }
    }
}
