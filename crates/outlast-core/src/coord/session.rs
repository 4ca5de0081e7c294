//! Links: who may speak, hello, heartbeats, silence, and what arrives.

use super::copies::Verdict;
use super::links::{LinkChange, Resync};
use super::outbox::MAX_NUMBER;
use super::principal::Principal;
use super::workers::WorkerView;
use super::{ConnId, Coordinator, Lookup, Output, Timer, v1};
use crate::health::Heart;
use crate::records::{CoordRecord, WorkerRow};
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::json::Limit;
use outlast_model::limits::cut;
use outlast_model::message::{
    Heartbeat, Hello, Holding, HoldingState, Inventory, RefusedCode, ToCoordinator, ToWorker,
};
use outlast_model::message::{Refused, Welcome};
use outlast_model::spec::{MAX_CAPABILITIES, MAX_LABEL, MAX_LABELS, MAX_TASK_ID, check_task_id};
use outlast_model::{LinkCause, PROTOCOL};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Limits of `capabilities_json`: bytes, and memory of its values.
const CAPABILITIES: Limit = Limit { bytes: MAX_CAPABILITIES, weight: 1 << 20 };
/// The longest text of a worker's that is given back to it, in bytes.
const MAX_QUOTE: usize = 100;
/// Largest number of lanes in a worker's report of unacknowledged records.
const MAX_OWED: usize = 16;
/// Attempts that an inventory may name and that nobody here gave out.
const MAX_STRANGE: usize = 65_536;
/// The most slots, and the most prefetch, that a worker may claim.
const MAX_SLOTS: u32 = 1_000_000;

#[derive(Debug)]
pub(super) struct Conn {
    pub heart: Heart,
    since: Millis,
    pub worker: Option<WorkerKey>,
    /// Inventory of the worker, until it is complete.
    pub inventory: Option<Vec<Holding>>,
    bye: Option<String>,
    /// An outbox batch has arrived, by lane.
    pub outbox: [bool; 8],
    /// True if it waits for an answer to its inventory.
    takes_settled: bool,
    /// The lane of checkpoints waits for a blob.
    pub blocked: bool,
    /// Link of a worker of the v1 dialect.
    pub v1: Option<Box<v1::Link>>,
    /// Unacknowledged records at its return, until they have been applied.
    pub resync: Option<Resync>,
    /// Timeout as last passed to the driver.
    pub patience: Millis,
    /// Owner of its key.
    pub principal: Principal,
}

impl Coordinator {
    /// A worker's link opened.
    pub fn on_open(&mut self, now: Now, conn: ConnId) {
        self.insert_conn(now, conn, None);
    }

    pub(super) fn insert_conn(&mut self, now: Now, conn: ConnId, v1: Option<Box<v1::Link>>) {
        let c = &self.config;
        let heart = Heart::new(c.heartbeat_interval, c.heartbeat_timeout, now.mono);
        self.timers.insert((now.mono + c.hello_timeout, Timer::Conn(conn)));
        let inventory = Some(Vec::new());
        self.conns.insert(
            conn,
            Conn {
                heart,
                since: now.mono,
                worker: None,
                inventory,
                bye: None,
                outbox: [false; 8],
                takes_settled: false,
                blocked: false,
                v1,
                resync: None,
                patience: 0,
                principal: Principal::default(),
            },
        );
    }

    /// Part of a message arrived.
    pub fn on_heard(&mut self, now: Now, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            let silence = state.heart.heard(now.mono);
            self.on_silence(now, conn, silence);
        }
    }

    /// A link ended.
    pub fn on_close(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        self.drop_conn(now, conn, cause, reason);
        self.schedule(now);
    }

    /// Handles data that is not a message.
    pub fn on_malformed(&mut self, now: Now, conn: ConnId, error: &str) {
        let reason = format!("a message could not be understood: {error}");
        self.refuse(now, conn, RefusedCode::Malformed, true, &reason);
        self.schedule(now);
    }

    /// A message arrived. `look` finds what is not in memory.
    pub fn on_message(
        &mut self,
        now: Now,
        conn: ConnId,
        message: ToCoordinator,
        look: &dyn Lookup,
    ) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let silence = state.heart.heard(now.mono);
        if state.heart.is_notable(silence) {
            self.on_silence(now, conn, silence);
        }
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let (worker, telling) = (state.worker, state.inventory.is_some());
        match (message, worker) {
            (ToCoordinator::Hello(hello), None) => self.on_hello(now, conn, *hello, look),
            (_, None) => {
                let reason = "the first message must be a hello";
                self.refuse(now, conn, RefusedCode::Malformed, false, reason);
            }
            (ToCoordinator::Inventory(part), Some(key)) if telling => {
                self.on_inventory(now, conn, key, part, look);
            }
            (ToCoordinator::Outbox(batch), Some(key)) => {
                self.on_outbox(now, conn, key, batch, look);
                self.settle_resync(now, conn, key);
            }
            (ToCoordinator::Happened(happened), Some(key)) => self.on_happened(now, key, happened),
            (ToCoordinator::Started(started), Some(key)) => self.on_started(now, key, started),
            (ToCoordinator::Heartbeat(mut beat), Some(key)) => {
                // Not held back: it is a sign of life, and depends on no durable fact.
                self.outputs.push_back(Output::Send(conn, ToWorker::HeartbeatReply(beat.seq)));
                let member = self.fleet.get_mut(key);
                let drains = beat.draining;
                let delivered = beat.unacked == 0 && member.ready;
                let faults = std::mem::take(&mut beat.unfit);
                member.beat = beat;
                if member.draining != drains {
                    member.draining = drains;
                    self.fleet.offer(&mut self.scheduler, key);
                }
                self.set_unfit(now, key, &faults);
                if delivered {
                    self.lose_undelivered(now, key);
                }
            }
            (ToCoordinator::Unsaved(unsaved), Some(key)) => {
                self.on_unsaved(now, conn, key, unsaved, look)
            }
            (ToCoordinator::HeartbeatReply(seq), Some(key)) => {
                self.fleet.get_mut(key).rivals.answered(conn, seq);
                self.on_answer(now, conn, key, seq);
            }
            (ToCoordinator::Adapted(told), Some(key)) => self.on_adapted(now, key, told),
            (ToCoordinator::Bye(bye), Some(_)) => state.bye = Some(bye),
            _ => {}
        }
        self.schedule(now);
    }

    /// Handles a part of what a worker holds.
    fn on_inventory(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        part: Inventory,
        look: &dyn Lookup,
    ) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        // Of what has ended, only what is waited for matters.
        let expected = &self.fleet.get(key).attempts;
        let matters = |h: &Holding| {
            let id = || h.attempt();
            h.state != HoldingState::Finished || expected.contains_key(&id())
        };
        let mut parts = part.holdings;
        parts.retain(|h| h.task.len() <= MAX_TASK_ID && matters(h));
        let most = expected.len() + MAX_STRANGE;
        let held = state.inventory.get_or_insert_default();
        if held.len() + parts.len() > most {
            let reason = format!("an inventory of more than {most} attempts");
            self.refuse(now, conn, RefusedCode::Malformed, false, &reason);
        } else {
            held.extend(parts);
            if part.last {
                let held = state.inventory.take().unwrap_or_default();
                self.timers.insert((state.heart.next_wake(), Timer::Conn(conn)));
                let takes_settled = state.takes_settled;
                self.reconcile(now, key, held, look);
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
        self.fleet.by_store(store_id).and_then(|key| self.fleet.get(key).conn)
    }

    fn on_hello(&mut self, now: Now, conn: ConnId, hello: Hello, look: &dyn Lookup) {
        if let Err((code, retry, reason)) = self.admit(now, &hello) {
            return self.refuse(now, conn, code, retry, &reason);
        }
        let principal = match self.bind(conn, &hello.worker_id, &hello.store_id, look) {
            Ok(principal) => principal,
            Err(reason) => {
                let code = RefusedCode::Identity;
                return self.refuse(now, conn, code, false, &reason);
            }
        };
        let store_id: Arc<str> = hello.store_id.as_str().into();
        if let Some(key) = self.fleet.by_store(&store_id) {
            match self.judge_process(now, key, &hello) {
                Verdict::Fine => {}
                Verdict::Stale => {
                    let reason = "a newer connection of this worker has been here";
                    return self.refuse(now, conn, RefusedCode::Stale, true, reason);
                }
                Verdict::Wait => {
                    let reason = "another process of this worker has a link; whether it lives is \
                                  being found out";
                    return self.refuse(now, conn, RefusedCode::Busy, true, reason);
                }
                Verdict::Copy(why) => {
                    let reason = self.note_copy(now, key, &hello, why);
                    return self.refuse(now, conn, RefusedCode::Copy, false, &reason);
                }
            }
        }
        if let Err(reason) = self.make_room(now, &store_id) {
            return self.refuse(now, conn, RefusedCode::Busy, true, &reason);
        }
        if let Err(after) = self.admission.ask(&store_id, now.mono) {
            self.counters.postponed += 1;
            return self.postpone(now, conn, after);
        }
        let lost = hello.lost_cause;
        let why: String = hello.lost_reason.chars().take(200).collect();
        let mut report = hello.link;
        if let Some(report) = &mut report {
            report.owed.truncate(MAX_OWED);
        }
        if let Some(other) = self.fleet.by_name(&hello.worker_id)
            && self.fleet.get(other).row.store_id != store_id
        {
            self.replace_store(now, other);
        }
        let row = WorkerRow {
            store_id: store_id.clone(),
            name: hello.worker_id.as_str().into(),
            incarnation: hello.incarnation,
            connection: hello.connection,
            slots: hello.slots.clamp(1, MAX_SLOTS),
            prefetch: hello.prefetch.min(MAX_SLOTS),
            capabilities: hello.capabilities_json,
            labels: hello.labels.into_iter().collect(),
            version: hello.version.chars().take(64).collect(),
            drained: false,
            nonce: hello.nonce,
            principal,
        };
        let (mut anew, mut renamed) = (false, false);
        let key = match self.fleet.by_store(&store_id) {
            Some(key) => {
                let known = &self.fleet.get(key).row;
                anew = known.incarnation < row.incarnation;
                renamed = known.name != row.name;
                if let Some(old) = self.fleet.get(key).conn {
                    let reason = "a newer connection of this worker took over";
                    self.drop_conn(now, old, LinkCause::TakenOver, reason);
                    self.outputs.push_back(Output::Close(old, reason.into()));
                }
                let drained = self.fleet.get(key).row.drained;
                self.fleet.replace(key, WorkerRow { drained, ..row });
                key
            }
            None => self.fleet.load(row, &[], now.mono),
        };
        self.explain_return(now, key, anew, lost, &why);
        let member = self.fleet.get_mut(key);
        member.met = true;
        (member.conn, member.ready, member.draining) = (Some(conn), false, hello.draining);
        member.beat = Heartbeat { draining: hello.draining, ..Default::default() };
        self.set_unfit(now, key, &hello.unfit);
        let member = self.fleet.get_mut(key);
        let cursors = member.cursors();
        let mut worker = member.row.clone();
        let settled = worker.incarnation == member.settled.0;
        if settled {
            member.settled.1 = worker.connection;
        } else if renamed {
            // Its name may be taken by another worker as of now.
            let (incarnation, connection) = member.settled;
            let nonce = 0;
            let row = WorkerRow::clone(&worker);
            worker = Arc::new(WorkerRow { incarnation, connection, nonce, ..row });
        }
        // Another process is on record once it has said what it holds.
        if settled || renamed {
            self.records.push(CoordRecord::WorkerSeen { worker, at: now.wall });
        }
        if let Some(state) = self.conns.get_mut(&conn) {
            state.worker = Some(key);
            state.takes_settled = hello.takes_settled;
            state.resync = Some(Resync::new(now.mono, report.as_deref()));
        }
        self.tell(now, key, LinkChange::Connected(conn, report));
        self.begin_pace(now, conn, key);
        self.counters.welcomed += 1;
        let welcome = Welcome {
            protocol: PROTOCOL,
            coordinator_id: self.id.to_string(),
            version: self.config.version.clone(),
            cursors,
            credit: self.config.credit,
            max_message_bytes: outlast_model::packing::MAX_MESSAGE as u64,
            heartbeat_interval_ms: self.config.heartbeat_interval.try_into().unwrap_or(u32::MAX),
            now_ms: now.wall,
            takes_unsaved: true,
            session: String::new(),
        };
        // The cursor tells the worker what it may forget: it must be durable first.
        self.send(conn, ToWorker::Welcome(welcome));
    }

    /// Decides whether this worker may connect; if not: code, whether to retry, and reason.
    fn admit(&self, now: Now, hello: &Hello) -> Result<(), (RefusedCode, bool, String)> {
        let refuse = |code, retry, reason: String| Err((code, retry, reason));
        if hello.protocol != PROTOCOL {
            let reason = format!(
                "this coordinator speaks protocol {PROTOCOL}, the worker {}; update the older one",
                hello.protocol
            );
            return refuse(RefusedCode::Protocol, false, reason);
        }
        if !hello.coordinator_id.is_empty() && *hello.coordinator_id != *self.id {
            let reason = format!(
                "this worker's state belongs to coordinator {}, but this is {}; point it there, \
                 or give it a new state folder",
                cut(&hello.coordinator_id, MAX_QUOTE),
                self.id
            );
            return refuse(RefusedCode::Coordinator, false, reason);
        }
        let malformed = |what: String| refuse(RefusedCode::Malformed, false, what);
        if check_task_id(&hello.worker_id).is_err() {
            let name = cut(&hello.worker_id, MAX_QUOTE);
            return malformed(format!("worker name {name:?} is not 1-128 of A-Z a-z 0-9 . _ : -"));
        }
        if hello.incarnation >= MAX_NUMBER || hello.connection >= MAX_NUMBER {
            return malformed("its incarnation or connection is larger than can be".into());
        }
        let other_dialect = hello.store_id.starts_with(v1::PREFIX);
        if hello.store_id.is_empty() || hello.store_id.len() > 64 || other_dialect {
            return malformed("the hello names no store".into());
        }
        let long = hello.labels.iter().any(|(name, value)| name.len().max(value.len()) > MAX_LABEL);
        if hello.labels.len() > MAX_LABELS || long {
            return malformed(format!(
                "more than {MAX_LABELS} labels, or more than {MAX_LABEL} bytes in one"
            ));
        }
        let json = hello.capabilities_json.as_bytes();
        if let Err(why) = CAPABILITIES.check(json) {
            return malformed(format!("its capabilities: {why}"));
        }
        let flat: Result<Map<String, Value>, _> = serde_json::from_slice(json);
        if !flat.is_ok_and(|map| map.values().all(|v| !v.is_object())) {
            return malformed("capabilities are not a flat JSON object".into());
        }
        if let Some(reason) = self.name_is_taken(now, hello) {
            return refuse(RefusedCode::Identity, true, reason);
        }
        Ok(())
    }

    /// A worker that is not known yet takes the place of one that is gone, where there are as many as
    /// there may be.
    pub(super) fn make_room(&mut self, now: Now, store_id: &str) -> Result<(), String> {
        if self.fleet.by_store(store_id).is_some() {
            return Ok(());
        }
        while self.fleet.is_full(self.config.max_workers) {
            let Some(gone) = self.fleet.most_forgettable() else {
                let (most, bytes) = self.config.max_workers;
                return Err(format!(
                    "as many workers are known here as may be ({most}, or {bytes} bytes of what \
                     they say of themselves), and all are connected or hold tasks"
                ));
            };
            self.counters.made_room += 1;
            self.forget(now, gone);
        }
        Ok(())
    }

    /// Notifies a worker of its later admission time.
    pub(super) fn postpone(&mut self, now: Now, conn: ConnId, after: Millis) {
        let code = RefusedCode::Busy;
        *self.counters.refused.entry(code.word()).or_default() += 1;
        let reason = format!("many workers return at once; your turn is in {after} ms");
        let retry_after_ms = after.try_into().unwrap_or(u32::MAX);
        let refused = Refused { code, reason: reason.clone(), retry: true, retry_after_ms };
        let told = self.on_link(conn, ToWorker::Refused(refused));
        self.outputs.extend(told);
        self.hang_up(now, conn, LinkCause::Refused, &reason);
    }

    /// Adds the worker's absence, and its cause, to the history of its tasks. `anew`: it is another
    /// process than before.
    fn explain_return(
        &mut self,
        now: Now,
        key: WorkerKey,
        anew: bool,
        cause: LinkCause,
        why: &str,
    ) {
        let member = self.fleet.get(key);
        if member.conn.is_some() || (cause == LinkCause::Unspecified && !anew) {
            return;
        }
        let away = now.mono.saturating_sub(member.gone);
        let why = match anew {
            true => "its process had ended, and was started again".to_owned(),
            false => format!("its link had ended: {why}"),
        };
        let (name, s, tenth) = (&member.row.name, away / 1000, away % 1000 / 100);
        let note = match member.met {
            true => format!("worker {name} is back after {s}.{tenth} s; {why}"),
            false => format!(
                "worker {name} is back, {s}.{tenth} s after the coordinator was started again; {why}"
            ),
        };
        let held: Vec<_> = member.attempts.keys().cloned().collect();
        for id in held {
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.note(now, &id.task, id.epoch, note.clone());
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        code: RefusedCode,
        retry: bool,
        reason: &str,
    ) {
        *self.counters.refused.entry(code.word()).or_default() += 1;
        let retry_after_ms = if retry { 1000 } else { 0 };
        let refused = Refused { code, reason: reason.into(), retry, retry_after_ms };
        let told = self.on_link(conn, ToWorker::Refused(refused));
        self.outputs.extend(told);
        self.hang_up(now, conn, LinkCause::Refused, reason);
    }

    fn hang_up(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        self.drop_conn(now, conn, cause, reason);
        self.outputs.push_back(Output::Close(conn, reason.into()));
    }

    pub(super) fn drop_conn(&mut self, now: Now, conn: ConnId, cause: LinkCause, reason: &str) {
        let Some(state) = self.conns.remove(&conn) else { return };
        let Some(key) = state.worker else { return };
        if state.v1.is_some() && self.leave_v1(now, conn, key, state.resync) {
            *self.counters.links.entry(cause.word()).or_default() += 1;
            return;
        }
        let member = self.fleet.get_mut(key);
        if let Some(patience) = member.patience.as_mut() {
            patience.lost(cause == LinkCause::Silent);
        }
        (member.conn, member.ready, member.gone) = (None, false, now.mono);
        (member.beat.running, member.beat.queued) = (0, 0);
        let worker = member.row.store_id.clone();
        let cause = if state.bye.is_some() { LinkCause::Stopped } else { cause };
        *self.counters.links.entry(cause.word()).or_default() += 1;
        let reason = state.bye.unwrap_or_else(|| reason.to_owned());
        let told = reason.clone();
        self.records.push(CoordRecord::WorkerGone { worker, reason, cause, at: now.wall });
        self.scheduler.leave(key);
        self.forget_stale_attempts(key);
        let holds = !self.fleet.get(key).attempts.is_empty();
        self.tell(now, key, LinkChange::Lost(cause, told, holds));
        self.arm_window(now, key);
    }

    pub(super) fn on_conn_timer(&mut self, now: Now, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if state.inventory.is_some() && now.mono >= state.since + self.config.hello_timeout {
            let reason = "the worker did not say hello, or register, in time";
            return self.hang_up(now, conn, LinkCause::Silent, reason);
        }
        if state.heart.expired(now.mono) {
            self.counters.silent += 1;
            let reason = format!("silent for {} s", state.heart.pace().1 as f64 / 1000.0);
            return self.hang_up(now, conn, LinkCause::Silent, &reason);
        }
        if let Some(key) = state.worker {
            self.repace(now, conn, key);
        }
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some(seq) = state.heart.beat(now.mono) {
            let interval_ms = state.heart.pace().0.try_into().unwrap_or(u32::MAX);
            let beat = Heartbeat { seq, interval_ms, ..Default::default() };
            self.outputs.push_back(match state.v1 {
                None => Output::Send(conn, ToWorker::Heartbeat(beat)),
                // Its dialect has no heartbeat for the coordinator to begin with.
                Some(_) => Output::Ping(conn, seq),
            });
        }
        self.timers.insert((state.heart.next_wake().max(now.mono + 1), Timer::Conn(conn)));
        self.settle_v1(now, conn);
    }
}
