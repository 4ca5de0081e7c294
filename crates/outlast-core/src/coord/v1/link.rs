//! A v1 worker's link: welcome, registration, what is sent on it.

use super::session::{Acks, Link, MAX_LINKS, PATIENCE, PREFIX, Run};
use super::translate::{config_of, restore};
use crate::coord::conn::Arrival;
use crate::coord::coordinator::Coordinator;
use crate::coord::ids::ConnId;
use crate::coord::loads::Facts;
use crate::coord::output::Output;
use crate::records::{CoordRecord, WorkerRow};
use crate::recovery::{TaskRecovery, knobs};
use crate::scheduler::WorkerKey;
use crate::{Millis, Now, TaskId};
use outlast_model::Bytes;
use outlast_model::message::{ControlKind, RefusedCode};
use outlast_model::spec::{MAX_CAPABILITIES, MAX_TASK_ID, check_task_id};
use outlast_wire::v1::{Deed, FromWorker, ToWorker};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The most slots that such a worker may claim by its capability `slots`.
const MAX_SLOTS: u64 = 1_000;
/// Time that a heartbeat may wait for the store before it is answered without what it leads to, in milliseconds. It
/// is looked at with every ping.
const BEAT_WAITS: Millis = 1_000;

/// Checks a worker id of the dialect.
///
/// # Errors
/// What would be accepted.
pub fn check_worker_id(id: &str) -> Result<(), String> {
    check_task_id(id).map_err(|_| {
        let shown: String = id.chars().take(MAX_TASK_ID).collect();
        format!("worker id {shown:?} is not 1-{MAX_TASK_ID} of A-Z a-z 0-9 . _ : -")
    })
}

/// Description that a worker gives of itself when it registers.
struct Claimed {
    /// A flat JSON object.
    capabilities: String,
    slots: u32,
    acks: Acks,
}

impl Coordinator {
    /// A link of the v1 dialect opened; the worker's id is that of its address, and empty if that
    /// does not have it: then [`Coordinator::on_name_v1`] comes before the first message.
    pub fn on_open_v1(&mut self, now: Now, conn: ConnId, worker_id: &str) {
        let link = Link { name: worker_id.into(), joined: now.mono, registered: false };
        self.insert_conn(now, conn, Some(Box::new(link)));
        if !worker_id.is_empty()
            && let Err(reason) = check_worker_id(worker_id)
        {
            return self.hang_up_v1(now, conn, reason);
        }
        let welcome = ToWorker::Welcome { worker_id: worker_id.into() };
        self.journal.output(Output::SendV1(conn, welcome));
    }

    /// The worker said its id, which the address of its link does not have.
    pub fn on_name_v1(&mut self, now: Now, conn: ConnId, worker_id: &str) {
        if let Err(reason) = check_worker_id(worker_id) {
            return self.hang_up_v1(now, conn, reason);
        }
        let link = self.conns.get_mut(&conn).and_then(|c| c.v1.as_mut());
        if let Some(link) = link.filter(|l| l.name.is_empty()) {
            link.name = worker_id.into();
        }
    }

    /// Answers data that is not a message of the dialect; the link stays open.
    pub fn on_malformed_v1(&mut self, now: Now, conn: ConnId, error: &str) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.monitor.heard(now.mono);
        self.counters.v1_malformed += 1;
        self.send_v1(conn, ToWorker::Error { message: error.into(), task_id: None });
    }

    /// The answer to an [`Output::Ping`] arrived.
    pub fn on_pong(&mut self, now: Now, conn: ConnId, seq: u64) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.monitor.heard(now.mono);
        let (rtt, worker) = (state.monitor.reply(seq, now.mono), state.worker);
        if let (Some(rtt), Some(key)) = (rtt, worker) {
            self.fleet.get_mut(key).link.beat.rtt_ms = rtt.try_into().unwrap_or(u32::MAX);
        }
    }

    /// A message of the v1 dialect arrived. `blob` is where the driver put a checkpoint's data:
    /// its manifest.
    pub fn on_v1(&mut self, now: Now, conn: ConnId, message: FromWorker, blob: Option<Bytes>) {
        let Some(state) = self.conns.get_mut(&conn).filter(|c| c.v1.is_some()) else { return };
        state.monitor.heard(now.mono);
        self.arrive(now, conn, Arrival::V1(message, blob, Some(now.mono)));
        self.schedule(now);
    }

    /// Answers heartbeats that wait for facts longer than is usual: the store is slow, and the worker would take the
    /// link for dead.
    fn answer_waiting_beats(&mut self, now: Now, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn).filter(|c| c.worker.is_some()) else { return };
        for waiting in &mut state.arrivals {
            let Arrival::V1(FromWorker::Heartbeat { sequence, .. }, _, since) = waiting else {
                continue;
            };
            if since.take_if(|since| now.mono >= *since + BEAT_WAITS).is_some() {
                let (response_to, actions) = (sequence.clone(), Vec::new());
                let answer = ToWorker::Heartbeat { response_to, actions };
                self.journal.output(Output::SendV1(conn, answer));
            }
        }
    }

    /// Carries a message out, with the facts that were loaded for it.
    pub(in crate::coord) fn on_arrived_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        (message, blob, answered): (FromWorker, Option<Bytes>, bool),
        facts: &Facts,
    ) {
        let Some(state) = self.conns.get(&conn) else { return };
        let worker = state.worker;
        if let FromWorker::Registration { capabilities } = message {
            self.register(now, conn, Some(capabilities), facts);
            return;
        }
        // What waited in a worker's queue while it was cut off may come before its registration.
        let key = match worker {
            Some(key) => Some(key),
            None => self.register(now, conn, None, facts),
        };
        let Some(key) = key else { return };
        self.fleet.get_mut(key).v1.get_or_insert_default().speaker = conn;
        match message {
            FromWorker::Registration { .. } => {}
            FromWorker::Heartbeat { sequence, active_tasks } => {
                self.on_beat_v1(now, conn, key, (sequence, active_tasks, answered), facts);
            }
            FromWorker::TaskResult { task_id, attempt, result, error } => {
                let task: TaskId = task_id.as_str().into();
                if self.on_result_v1(now, key, &task, attempt, (result, error), facts) {
                    self.send_v1(conn, ToWorker::ResultAck { task_id });
                }
            }
            FromWorker::Done { task_id, what } => {
                let task: TaskId = task_id.as_str().into();
                match what {
                    Deed::Cancelled => self.on_cancelled_v1(now, key, &task, facts),
                    Deed::Paused => self.on_paused_v1(now, key, &task, true),
                    Deed::Resumed => self.on_paused_v1(now, key, &task, false),
                }
                self.send_v1(conn, ToWorker::DoneAck { task_id, what });
            }
            FromWorker::TaskState { task_id, state } => {
                self.on_state_v1(now, conn, key, task_id, state, facts);
            }
            FromWorker::Checkpoint { task_id, checkpoint_id } => {
                self.on_checkpoint_v1(now, conn, key, task_id, checkpoint_id, facts);
            }
            FromWorker::CheckpointData { task_id, checkpoint_id, data } => {
                let what = (task_id, checkpoint_id);
                self.on_data_v1(now, conn, key, what, (blob, data.len()), facts);
            }
            FromWorker::CheckpointError { task_id, error } => {
                self.on_checkpoint_error_v1(now, key, &task_id.as_str().into(), &error);
            }
            FromWorker::StateError { task_id, error } => {
                let what = format!("the worker has no state of it: {error}");
                self.note_v1(now, key, &task_id.as_str().into(), &what);
                self.on_unknown_v1(now, key, &task_id.as_str().into());
            }
        }
    }

    /// Makes the link one of its worker's session. Without capabilities only if the worker is known.
    fn register(
        &mut self,
        now: Now,
        conn: ConnId,
        capabilities: Option<Map<String, Value>>,
        facts: &Facts,
    ) -> Option<WorkerKey> {
        let state = self.conns.get(&conn)?;
        let (name, mine) = (state.v1.as_ref()?.name.clone(), state.worker);
        let store_id: Arc<str> = format!("{PREFIX}{name}").into();
        let principal = match self.bind(conn, &name, &store_id, facts) {
            Ok(principal) => principal,
            Err(reason) => {
                self.hang_up_v1(now, conn, reason);
                return None;
            }
        };
        let known = self.fleet.by_store(&store_id);
        let old = known.map(|key| self.fleet.get(key).row.clone());
        let given = self.claimed(now, conn, capabilities, old.as_deref())?;
        if let Err(reason) = self.make_room(now, &store_id) {
            self.hang_up_v1(now, conn, reason);
            return None;
        }
        if mine.is_none() {
            self.accept_link(now, conn, &name, &store_id)?;
        }
        let row = WorkerRow {
            store_id,
            name: name.clone(),
            incarnation: 1,
            connection: old.as_ref().map_or(1, |row| row.connection + u64::from(mine.is_none())),
            slots: given.slots,
            prefetch: 0,
            capabilities: given.capabilities,
            labels: Default::default(),
            version: "v1".into(),
            drained: old.is_some_and(|row| row.drained),
            nonce: 0,
            principal,
        };
        let key = match known {
            Some(key) => {
                self.fleet.replace(key, row);
                key
            }
            None => self.fleet.insert(row, &[], now.mono),
        };
        self.fleet.get_mut(key).v1.get_or_insert_default().acks = given.acks;
        if mine.is_none() {
            self.join(now, conn, key, known.is_none());
        }
        let worker = self.fleet.get(key).row.clone();
        self.journal.record(CoordRecord::WorkerSeen { worker, at: now.wall });
        self.fleet.offer(&mut self.scheduler, key);
        self.send_v1(conn, ToWorker::RegistrationAck { worker_id: name.to_string() });
        Some(key)
    }

    /// Reads what a worker says of itself, or takes what it said before; none if that is refused.
    fn claimed(
        &mut self,
        now: Now,
        conn: ConnId,
        capabilities: Option<Map<String, Value>>,
        old: Option<&WorkerRow>,
    ) -> Option<Claimed> {
        let capabilities = match (capabilities, old) {
            (Some(given), _) => given,
            (None, Some(row)) => serde_json::from_str(&row.capabilities).unwrap_or_default(),
            (None, None) => {
                let message = "say registration first: this worker is not known here".into();
                self.send_v1(conn, ToWorker::Error { message, task_id: None });
                return None;
            }
        };
        let acks = Acks::wanted(capabilities.get("acks"));
        let slots = capabilities.get("slots").and_then(Value::as_u64).unwrap_or(1);
        let slots = slots.clamp(1, MAX_SLOTS) as u32;
        let capabilities = Value::Object(capabilities).to_string();
        if capabilities.len() > MAX_CAPABILITIES {
            let reason = format!("more than {MAX_CAPABILITIES} bytes of capabilities");
            self.hang_up_v1(now, conn, reason);
            return None;
        }
        Some(Claimed { capabilities, slots, acks })
    }

    /// Accepts one more link of this worker; none if it is refused or postponed.
    fn accept_link(
        &mut self,
        now: Now,
        conn: ConnId,
        name: &str,
        store_id: &Arc<str>,
    ) -> Option<()> {
        if let Err(reason) = self.take_name(now, name, store_id) {
            self.hang_up_v1(now, conn, reason);
            return None;
        }
        let known = self.fleet.by_store(store_id);
        if !self.has_room_v1(now, known) {
            let message = format!(
                "this worker has {MAX_LINKS} links that live: close some before opening others"
            );
            self.send_v1(conn, ToWorker::Error { message, task_id: None });
            return None;
        }
        // Another link of a session that lives costs no turn.
        let lives = known.is_some_and(|key| self.lives_v1(now, key));
        if !lives && let Err(after) = self.fleet.admission.ask(store_id, now.mono) {
            self.counters.links.postponed += 1;
            self.postpone(now, conn, after);
            return None;
        }
        Some(())
    }

    /// The name is this worker's, unless another one has it that is there.
    fn take_name(&mut self, now: Now, name: &str, store_id: &str) -> Result<(), String> {
        let Some(key) = self.fleet.by_name(name) else { return Ok(()) };
        let other = self.fleet.get(key);
        if *other.row.store_id == *store_id {
            return Ok(());
        }
        if other.link.conn.is_some() || !other.held.attempts.is_empty() {
            let what = if other.link.conn.is_some() { "is connected" } else { "still holds tasks" };
            return Err(format!(
                "the name {name} belongs to another worker that {what}; choose another name, or run \
                 `outlast workers forget {name}` if that worker is gone for good"
            ));
        }
        self.forget(now, key);
        Ok(())
    }

    /// A worker that was known and has not said what it has gets new work all the same.
    pub(in crate::coord) fn settle_v1(&mut self, now: Now, conn: ConnId) {
        let Some(state) = self.conns.get(&conn) else { return };
        let (Some(key), Some(link)) = (state.worker, &state.v1) else { return };
        let joined = link.joined;
        self.answer_waiting_beats(now, conn);
        self.prefer_v1(now, key);
        if self.fleet.get(key).link.conn == Some(conn) {
            self.end_waits_v1(now, key);
        }
        if now.mono >= joined + PATIENCE && !self.fleet.get(key).link.ready {
            self.fleet.get_mut(key).link.ready = true;
            self.fleet.offer(&mut self.scheduler, key);
        }
    }

    fn hang_up_v1(&mut self, now: Now, conn: ConnId, reason: String) {
        self.refuse(now, conn, RefusedCode::Identity, false, &reason);
    }

    /// Shown as soon as everything decided so far is durable. An acknowledgement that the worker does
    /// not want is left out.
    pub(super) fn send_v1(&mut self, conn: ConnId, message: ToWorker) {
        if let Some(kind) = message.ack()
            && !self.wants_ack_v1(conn, kind)
        {
            return;
        }
        self.journal.release(Output::SendV1(conn, message));
    }

    pub(in crate::coord) fn assign_v1(&mut self, now: Now, key: WorkerKey, ids: &[TaskId]) {
        let Some(conn) = self.fleet.get(key).link.conn else { return };
        for id in ids {
            let Some(task) = self.tasks.get(id) else { continue };
            let (epoch, paused) = (task.epoch, task.paused);
            let (function, config) = match &task.recovery {
                None if task.spec.is_plain() => config_of(&task.spec),
                state => {
                    let blank = TaskRecovery::default();
                    let state = state.as_deref().unwrap_or(&blank);
                    config_of(&knobs::effective(&task.spec, state))
                }
            };
            let checkpoint = task.reported.checkpoints.last().and_then(|c| restore(c));
            let session = self.fleet.get_mut(key).v1.get_or_insert_default();
            let run = session.runs.entry(id.clone()).or_insert_with(|| Run::new(epoch, now));
            if run.epoch != epoch {
                *run = Run::new(epoch, now);
            }
            (run.evidence.since, run.evidence.asked, run.evidence.link) =
                (now.mono, None, Some(conn));
            // The assignment does not say that it is paused.
            run.pause.paused = Some(false);
            run.sent += 1;
            // Sent again, it most likely never arrived.
            let restores = checkpoint.is_some() && run.sent == 1;
            let member = self.fleet.get_mut(key);
            member.link.beat.restored += u64::from(restores);
            let task_id = id.to_string();
            let given =
                ToWorker::TaskAssignment { task_id, config, attempt: epoch, function, checkpoint };
            self.send_v1(conn, given);
            if paused {
                self.send_control(key, id, epoch, ControlKind::Pause);
            }
        }
    }
}
