//! Handshakes: who may connect, as which worker, and what is said in return.

use super::conn::Resync;
use super::coordinator::Coordinator;
use super::copies::Verdict;
use super::ids::ConnId;
use super::loads::Facts;
use super::news::LinkChange;
use super::outbox::MAX_NUMBER;
use super::output::Output;
use super::workers::is_reserved;
use crate::records::{CoordRecord, WorkerRow};
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::limits::cut;
use outlast_model::message::{Heartbeat, Hello, Refused, RefusedCode, ToWorker, Welcome};
use outlast_model::spec::{MAX_LABEL, MAX_LABELS, check_task_id};
use outlast_model::{Capabilities, LinkCause, PROTOCOL};
use std::sync::Arc;

/// The longest text of a worker's that is given back to it, in bytes.
const MAX_QUOTE: usize = 100;

/// Largest number of lanes in a worker's report of unacknowledged records.
const MAX_OWED: usize = 16;

/// The most slots, and the most prefetch, that a worker may claim.
const MAX_SLOTS: u32 = 1_000_000;

/// Reason why a hello is not accepted.
enum Rejection {
    Refused {
        code: RefusedCode,
        retry: bool,
        reason: String,
    },
    /// Many workers connect at once: milliseconds until its turn.
    Postponed(Millis),
}

/// A worker in its place.
struct Seated {
    key: WorkerKey,
    /// True if another process of it had connected before.
    restarted: bool,
    /// True if it had another name.
    renamed: bool,
}

impl Coordinator {
    pub(super) fn on_hello(&mut self, now: Now, conn: ConnId, hello: Hello, facts: &Facts) {
        let principal = match self.judge_hello(now, conn, &hello, facts) {
            Ok(principal) => principal,
            Err(Rejection::Refused { code, retry, reason }) => {
                return self.refuse(now, conn, code, retry, &reason);
            }
            Err(Rejection::Postponed(after)) => return self.postpone(now, conn, after),
        };
        let unfit = hello.unfit.clone();
        let (draining, takes_settled) = (hello.draining, hello.takes_settled);
        let lost = hello.lost_cause;
        let why: String = hello.lost_reason.chars().take(200).collect();
        let mut report = hello.link.clone();
        if let Some(report) = &mut report {
            report.owed.truncate(MAX_OWED);
        }
        let Seated { key, restarted, renamed } = self.seat(now, hello, principal);
        self.explain_return(now, key, restarted, lost, &why);
        let member = self.fleet.get_mut(key);
        member.link.met = true;
        (member.link.conn, member.link.ready, member.link.draining) = (Some(conn), false, draining);
        member.link.beat = Heartbeat { draining, ..Default::default() };
        self.set_unfit(now, key, &unfit);
        self.record_process(now, key, renamed);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.worker = Some(key);
            state.handshake.takes_settled = takes_settled;
            state.resync = Some(Resync::new(now.mono, report.as_deref()));
        }
        self.publish(now, key, LinkChange::Connected(conn, report));
        self.begin_heartbeats(now, conn, key);
        self.welcome(now, conn, key);
    }

    /// Decides whether a worker is accepted; returns the key that it is bound to from now on.
    fn judge_hello(
        &mut self,
        now: Now,
        conn: ConnId,
        hello: &Hello,
        facts: &Facts,
    ) -> Result<Arc<str>, Rejection> {
        let refused = |code, retry, reason| Rejection::Refused { code, retry, reason };
        self.admit(now, hello).map_err(|(code, retry, reason)| refused(code, retry, reason))?;
        let principal = self
            .bind(conn, &hello.worker_id, &hello.store_id, facts)
            .map_err(|reason| refused(RefusedCode::Identity, false, reason))?;
        let store_id: Arc<str> = hello.store_id.as_str().into();
        if let Some(key) = self.fleet.by_store(&store_id) {
            match self.judge_process(now, key, hello) {
                Verdict::Fine => {}
                Verdict::Stale => {
                    let reason = "a newer connection of this worker has been here";
                    return Err(refused(RefusedCode::Stale, true, reason.into()));
                }
                Verdict::Wait => {
                    let reason = "another process of this worker has a link; whether it lives is \
                                  being found out";
                    return Err(refused(RefusedCode::Busy, true, reason.into()));
                }
                Verdict::Copy(why) => {
                    let reason = self.note_copy(now, key, hello, why);
                    return Err(refused(RefusedCode::Copy, false, reason));
                }
            }
        }
        self.make_room(now, &store_id)
            .map_err(|reason| refused(RefusedCode::Busy, true, reason))?;
        if let Err(after) = self.fleet.admission.ask(&store_id, now.mono) {
            self.counters.links.postponed += 1;
            return Err(Rejection::Postponed(after));
        }
        Ok(principal)
    }

    /// Puts the worker of a hello in its place: over its former link, or that of another store with its name.
    fn seat(&mut self, now: Now, hello: Hello, principal: Arc<str>) -> Seated {
        let store_id: Arc<str> = hello.store_id.as_str().into();
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
        let Some(key) = self.fleet.by_store(&store_id) else {
            let key = self.fleet.insert(row, &[], now.mono);
            return Seated { key, restarted: false, renamed: false };
        };
        let known = &self.fleet.get(key).row;
        let restarted = known.incarnation < row.incarnation;
        let renamed = known.name != row.name;
        if let Some(old) = self.fleet.get(key).link.conn {
            let reason = "a newer connection of this worker took over";
            self.drop_conn(now, old, LinkCause::TakenOver, reason);
            self.journal.output(Output::Close(old, reason.into()));
        }
        let drained = self.fleet.get(key).row.drained;
        self.fleet.replace(key, WorkerRow { drained, ..row });
        Seated { key, restarted, renamed }
    }

    /// Records the process that connected, unless it is another one than before: that is on record once it
    /// has said what it holds.
    fn record_process(&mut self, now: Now, key: WorkerKey, renamed: bool) {
        let member = self.fleet.get_mut(key);
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
        if settled || renamed {
            self.journal.record(CoordRecord::WorkerSeen { worker, at: now.wall });
        }
    }

    fn welcome(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        self.counters.links.welcomed += 1;
        let welcome = Welcome {
            protocol: PROTOCOL,
            coordinator_id: self.id.to_string(),
            version: self.config.version.clone(),
            cursors: self.fleet.get(key).cursors(),
            credit: self.config.credit,
            max_message_bytes: outlast_model::packing::MAX_MESSAGE as u64,
            heartbeat_interval_ms: self.config.heartbeat_interval.try_into().unwrap_or(u32::MAX),
            now_ms: now.wall,
            takes_unsaved: true,
            session: String::new(),
        };
        // The worker forgets what the cursor covers: the cursor must be durable first.
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
        let other_dialect = is_reserved(&hello.store_id);
        if hello.store_id.is_empty() || hello.store_id.len() > 64 || other_dialect {
            return malformed("the hello names no store".into());
        }
        let long = hello.labels.iter().any(|(name, value)| name.len().max(value.len()) > MAX_LABEL);
        if hello.labels.len() > MAX_LABELS || long {
            return malformed(format!(
                "more than {MAX_LABELS} labels, or more than {MAX_LABEL} bytes in one"
            ));
        }
        if let Err(why) = Capabilities::check(&hello.capabilities_json) {
            return malformed(why);
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
        *self.counters.links.refused.entry(code.word()).or_default() += 1;
        let reason = format!("many workers return at once; your turn is in {after} ms");
        let retry_after_ms = after.try_into().unwrap_or(u32::MAX);
        let refused = Refused { code, reason: reason.clone(), retry: true, retry_after_ms };
        let refusal = self.on_link(conn, ToWorker::Refused(refused));
        refusal.into_iter().for_each(|output| self.journal.output(output));
        self.hang_up(now, conn, LinkCause::Refused, &reason);
    }

    /// Adds the worker's absence, and its cause, to the history of its tasks. `restarted`: it is another
    /// process than before.
    fn explain_return(
        &mut self,
        now: Now,
        key: WorkerKey,
        restarted: bool,
        cause: LinkCause,
        why: &str,
    ) {
        let member = self.fleet.get(key);
        if member.link.conn.is_some() || (cause == LinkCause::Unspecified && !restarted) {
            return;
        }
        let away = now.mono.saturating_sub(member.link.gone);
        let why = match restarted {
            true => "its process had ended, and was started again".to_owned(),
            false => format!("its link had ended: {why}"),
        };
        let (name, s, tenth) = (&member.row.name, away / 1000, away % 1000 / 100);
        let note = match member.link.met {
            true => format!("worker {name} is back after {s}.{tenth} s; {why}"),
            false => format!(
                "worker {name} is back, {s}.{tenth} s after the coordinator was started again; {why}"
            ),
        };
        let held: Vec<_> = member.held.attempts.keys().cloned().collect();
        for id in held {
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.note(now, &id.task, id.epoch, note.clone());
            }
        }
    }
}
