//! The links that one session has at once. A client of the replaced system may open a second
//! connection while the first is still there, and dials again whenever either ends: so closing one
//! only because another came would go on for ever. They share the session: an answer goes to the link
//! that asked, work to the newest that lives, whatever arrives on any is a sign of life, and the
//! session ends with the last.

use super::{PREFIX, Run};
use crate::coord::links::{LinkChange, Resync};
use crate::coord::{ConnId, Coordinator, Output};
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::LinkCause;
use outlast_model::message::Heartbeat;
use serde_json::Value;
use std::collections::BTreeSet;

/// Number of links per worker above which silent ones are closed at once, the oldest first.
pub(super) const LINKS: usize = 4;
/// Links of a worker that live; another one is not let in. Such a client opens one more for each 15 s
/// of an outage, and again each that is closed or refused: so this is well above what outages of some
/// minutes leave.
pub const MAX_LINKS: usize = 64;
/// Heartbeats that a link may miss before it counts as silent. It ends later, by the timeout.
const BEATS: Millis = 2;

/// Acknowledgements that a worker wants, by its capability `acks`.
#[derive(Debug, Default)]
pub(super) enum Acks {
    #[default]
    All,
    None,
    /// Acknowledgements of these types.
    Some(BTreeSet<String>),
}

impl Acks {
    /// `false` is none, a list names types; all others are wanted.
    pub fn wanted(capability: Option<&Value>) -> Acks {
        match capability {
            Some(Value::Bool(false)) => Acks::None,
            Some(Value::Array(names)) => {
                Acks::Some(names.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
            }
            _ => Acks::All,
        }
    }
}

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
            let heard = self.conns.get(conn).map(|c| c.heart.last_heard());
            heard.is_some_and(|at| now.mono < at.saturating_add(quiet))
        };
        links.iter().filter(alive).copied().collect()
    }

    /// Returns the links of a worker of the dialect.
    pub(in crate::coord) fn links_v1(&self, key: WorkerKey) -> &[ConnId] {
        self.fleet.find(key).and_then(|m| m.v1.as_ref()).map_or(&[][..], |s| &s.links)
    }

    /// Returns the number of attempts that are remembered of a worker of the dialect.
    pub(in crate::coord) fn runs_v1(&self, key: WorkerKey) -> usize {
        self.fleet.find(key).and_then(|m| m.v1.as_ref()).map_or(0, |s| s.runs.len())
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
            self.outputs.push_back(Output::Close(conn, reason.into()));
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
        (member.conn, member.draining) = (Some(conn), false);
        if fresh {
            // It may have what was given to others meanwhile, and says so first. A new one has
            // nothing.
            member.ready = new;
            // The dialect does not report restored checkpoints: they are counted here.
            member.beat = Heartbeat { restored: member.beat.restored, ..Default::default() };
        }
        let held: Vec<_> = member.attempts.keys().cloned().collect();
        let session = member.v1.get_or_insert_default();
        session.links.push(conn);
        session.speaker = conn;
        for id in held {
            let run = session.runs.entry(id.task).or_insert_with(|| Run::new(id.epoch, now));
            if fresh {
                (run.since, run.asked, run.fetching, run.pausing) = (now.mono, None, None, None);
            }
        }
        self.counters.welcomed += 1;
        let change = match fresh {
            true => LinkChange::Connected(conn, None),
            false => LinkChange::Switched(conn, true),
        };
        self.tell(now, key, change);
        if let Some(state) = self.conns.get_mut(&conn) {
            (state.worker, state.inventory) = (Some(key), None);
            state.resync = fresh.then(|| Resync::new(now.mono, None));
            if let Some(link) = &mut state.v1 {
                (link.joined, link.told) = (now.mono, false);
            }
            self.timers.insert((state.heart.next_wake(), crate::coord::Timer::Conn(conn)));
        }
    }

    /// Moves on from silent links to a newly opened one: they may still come back, but measurements begin
    /// with the new one.
    fn pass_over_v1(&mut self, now: Now, key: WorkerKey) {
        let member = self.fleet.get(key);
        let links = member.v1.as_ref().map_or_else(Vec::new, |s| s.links.clone());
        let holds = !member.attempts.is_empty();
        for conn in &links {
            if let Some(state) = self.conns.get_mut(conn) {
                state.resync = None;
            }
        }
        if !links.is_empty() {
            let reason = "it was silent, and its worker opened another".to_owned();
            self.tell(now, key, LinkChange::Lost(LinkCause::TakenOver, reason, holds));
        }
    }

    /// Sends work on the newest link that lives from now on, or where none does on the one that was
    /// heard last.
    pub(super) fn prefer_v1(&mut self, now: Now, key: WorkerKey) {
        let alive = self.alive_v1(now, key);
        let member = self.fleet.get(key);
        let Some(session) = member.v1.as_ref() else { return };
        let heard = |conn: &&ConnId| self.conns.get(conn).map(|c| c.heart.last_heard());
        let chosen = alive.last().or_else(|| session.links.iter().max_by_key(heard)).copied();
        let Some(chosen) = chosen.filter(|c| member.conn != Some(*c)) else { return };
        let former = self.fleet.get_mut(key).conn.replace(chosen);
        // What was asked on the former may not have arrived.
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        for run in session.runs.values_mut() {
            run.fetching.take_if(|f| Some(f.link) == former);
        }
        let link = self.conns.get_mut(&chosen).and_then(|c| c.v1.as_mut());
        if let Some(link) = link {
            link.told = false;
        }
        self.tell(now, key, LinkChange::Switched(chosen, false));
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
        if self.fleet.get(key).conn == Some(conn) {
            self.prefer_v1(now, key);
        }
        let Some(other) = self.fleet.get(key).conn else { return false };
        if let Some(state) = self.conns.get_mut(&other) {
            state.resync = state.resync.take().or(resync);
        }
        // What it asked is answered all the same.
        let held = self.held.iter_mut().map(|(_, output)| output);
        for output in self.outputs.iter_mut().chain(held) {
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
