//! Reports of running tasks at v1 workers: states, which are merged here, and checkpoints, whose data is
//! fetched as soon as their worker reports them.

use super::session::{FETCH, Fetch, Known, OVERSIZED, TaskReports, Unsynced};
use crate::coord::coordinator::Coordinator;
use crate::coord::ids::ConnId;
use crate::coord::loads::Facts;
use crate::scheduler::WorkerKey;
use crate::worker::MAX_STATE;
use crate::{Epoch, Now, TaskId};
use outlast_model::message::ControlKind;
use outlast_model::{Bytes, Checkpoint, StateUpdate};
use outlast_wire::v1::{MAX_CHECKPOINT, ToWorker};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The longest remark of a worker that is kept, in characters.
const MAX_NOTE: usize = 500;

/// The share that is done: `progress` is from 0 to 1, or a percentage if it is more than 1.
fn share(progress: f64) -> Option<f64> {
    match progress {
        p if (0.0..=1.0).contains(&p) => Some(p),
        p if p > 1.0 && p <= 100.0 => Some(p / 100.0),
        _ => None,
    }
}

impl TaskReports {
    /// Returns the checkpoint that its worker reported in this attempt, and that is not here.
    pub(super) fn wanted_of(&self, epoch: Epoch) -> Option<String> {
        self.wanted.as_ref().filter(|(of, _)| *of == epoch).map(|(_, name)| name.clone())
    }
}

impl Coordinator {
    /// The current attempt of this task, if it is the worker's.
    pub(super) fn current_v1(&self, key: WorkerKey, task: &TaskId) -> Option<Epoch> {
        self.tasks.get(task).filter(|t| t.is_current(key, t.epoch)).map(|t| t.epoch)
    }

    /// The same where the worker said something of it that shows that it has it.
    fn heard_of(&mut self, now: Now, key: WorkerKey, task: &TaskId) -> Option<Epoch> {
        let epoch = self.current_v1(key, task)?;
        self.note_start(now, task, epoch, now.wall);
        self.fleet.get_mut(key).v1.get_or_insert_default().saw(now, task, epoch);
        Some(epoch)
    }

    pub(super) fn on_state_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        task_id: String,
        patch: Map<String, Value>,
        facts: &Facts,
    ) {
        let task: TaskId = task_id.as_str().into();
        // What an attempt that is not current says now says nothing of the one that is.
        if let Some(epoch) = self.heard_of(now, key, &task)
            && let Err(message) = self.merge(now, key, &task, epoch, patch, facts)
        {
            return self.send_v1(conn, ToWorker::Error { message, task_id: Some(task_id) });
        }
        self.send_v1(conn, ToWorker::StateAck { task_id });
    }

    fn merge(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: &TaskId,
        epoch: Epoch,
        patch: Map<String, Value>,
        facts: &Facts,
    ) -> Result<(), String> {
        let Some(task) = self.tasks.get_mut(id) else { return Ok(()) };
        let (of, version) = task.reported.state_version;
        let reports = task.v1.get_or_insert_default();
        let known = match &reports.state {
            Some((at, known)) if *at == epoch => known.clone(),
            _ if of == epoch => {
                let stored = facts.state(id).filter(|s| s.epoch == epoch);
                let known = stored.and_then(|s| serde_json::from_slice(&s.state_json).ok());
                known.unwrap_or_default()
            }
            _ => Map::new(),
        };
        let mut merged = known.clone();
        for (name, value) in patch {
            match value {
                Value::Null => drop(merged.shift_remove(&name)),
                value => drop(merged.insert(name, value)),
            }
        }
        let state_json = Value::Object(merged.clone()).to_string().into_bytes();
        if state_json.len() > MAX_STATE {
            let size = state_json.len();
            return Err(format!(
                "the state of task {id} would take {size} bytes; the limit is {MAX_STATE}"
            ));
        }
        if merged == known && of == epoch {
            self.counters.outbox.repeated += 1;
            return Ok(());
        }
        let progress = merged.get("progress").and_then(Value::as_f64).and_then(share);
        reports.state = Some((epoch, merged));
        let update = StateUpdate {
            task: id.clone(),
            epoch,
            version: if of == epoch { version + 1 } else { 1 },
            state_json: state_json.into(),
            progress,
            at_ms: now.wall,
        };
        self.on_state(now, key, Arc::new(update), facts);
        Ok(())
    }

    /// The worker has one. Its data makes it worth something: it is asked for.
    pub(super) fn on_checkpoint_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        task_id: String,
        checkpoint_id: String,
        facts: &Facts,
    ) {
        let task: TaskId = task_id.as_str().into();
        if let Some(epoch) = self.heard_of(now, key, &task)
            && !self
                .checkpoints_v1(&task, facts)
                .keys()
                .any(|(e, n, _)| (*e, n) == (epoch, &checkpoint_id))
        {
            if let Some(task) = self.tasks.get_mut(&task) {
                task.v1.get_or_insert_default().wanted = Some((epoch, checkpoint_id.clone()));
            }
            self.fetch_v1(now, key, &task, epoch, Some(checkpoint_id.clone()));
        }
        self.send_v1(conn, ToWorker::CheckpointAck { task_id, checkpoint_id });
    }

    /// Asks for a checkpoint's data, unless one of the task is on its way.
    pub(super) fn fetch_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        epoch: Epoch,
        name: Option<String>,
    ) {
        let member = self.fleet.get_mut(key);
        let Some(conn) = member.link.conn else { return };
        let Some(run) = member.v1.as_mut().and_then(|s| s.run(task, epoch)) else { return };
        let waits = run.transfer.fetching.as_ref().is_some_and(|f| now.mono < f.since + FETCH);
        if waits || run.transfer.oversized >= OVERSIZED {
            return;
        }
        run.transfer.fetching = Some(Fetch { name: name.clone(), since: now.mono, link: conn });
        let task_id = task.to_string();
        self.send_v1(conn, ToWorker::CheckpointRequest { task_id, checkpoint_id: name });
    }

    /// Handles the end of a transfer: the newest checkpoint that was reported meanwhile is requested.
    fn fetched(&mut self, now: Now, key: WorkerKey, task: &TaskId, name: Option<&str>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let epoch = known.epoch;
        let reports = known.v1.get_or_insert_default();
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let Some(run) = session.run(task, epoch) else { return };
        let was = run.transfer.fetching.take().and_then(|f| f.name);
        run.transfer.asked_checkpoint = false;
        if let Some(done) = name.map(ToOwned::to_owned).or(was) {
            reports.wanted.take_if(|(of, wanted)| *of == epoch && *wanted == done);
        }
        let next = reports.wanted_of(epoch);
        if next.is_some() {
            self.fetch_v1(now, key, task, epoch, next);
        }
    }

    /// Drops a checkpoint that could not be used now. It is not requested again until its worker reports it
    /// or reconnects; but later ones are.
    fn not_kept(&mut self, now: Now, key: WorkerKey, task: &TaskId) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let epoch = known.epoch;
        let wanted = known.v1.get_or_insert_default().wanted_of(epoch);
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let Some(run) = session.run(task, epoch) else { return };
        let was = run.transfer.fetching.take().and_then(|f| f.name);
        if wanted.is_some() && wanted != was {
            self.fetch_v1(now, key, task, epoch, wanted);
        }
    }

    /// A message about a checkpoint of this task could not be understood, and never will be.
    pub fn on_checkpoint_refused_v1(&mut self, now: Now, conn: ConnId, task: &TaskId) {
        let key = self.conns.get(&conn).and_then(|c| c.worker);
        if let Some(key) = key
            && self.tasks.get(task).is_some_and(|t| t.is_current(key, t.epoch))
        {
            self.fetched(now, key, task, None);
        }
    }

    /// A message too long to be read ends the link: most likely one of the checkpoints that were on
    /// their way. Asking for it again would end the next link too.
    pub fn on_oversized_v1(&mut self, now: Now, conn: ConnId, error: &str) {
        self.on_malformed_v1(now, conn, error);
        let Some(key) = self.conns.get(&conn).and_then(|c| c.worker) else { return };
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let mut open = Vec::new();
        for (task, run) in &mut session.runs {
            let asked = std::mem::take(&mut run.transfer.asked_checkpoint);
            let fetch = run.transfer.fetching.take();
            if fetch.is_some() || asked {
                run.transfer.oversized += 1;
                open.push((
                    task.clone(),
                    run.epoch,
                    fetch.and_then(|f| f.name),
                    run.transfer.oversized,
                ));
            }
        }
        for (task, epoch, name, times) in open {
            let Some(known) = self.tasks.get_mut(&task).filter(|t| t.is_current(key, epoch)) else {
                continue;
            };
            let reports = known.v1.get_or_insert_default();
            reports.wanted.take_if(|(of, wanted)| *of == epoch && name.as_ref() == Some(wanted));
            let name =
                name.map_or_else(|| "its newest checkpoint".into(), |n| format!("checkpoint {n}"));
            let rest = match times < OVERSIZED {
                true => "it is not asked for again",
                false => "no more checkpoints of this attempt are asked for",
            };
            self.note_v1(now, key, &task, &format!("{name} was on its way as {error}; {rest}"));
        }
    }

    pub(super) fn on_data_v1(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        (task_id, checkpoint_id): (String, String),
        (blob, size): (Option<Bytes>, usize),
        facts: &Facts,
    ) {
        let task: TaskId = task_id.as_str().into();
        let fail = |message: String| ToWorker::Error { message, task_id: Some(task.to_string()) };
        let current = self.heard_of(now, key, &task);
        if size > MAX_CHECKPOINT {
            let what = format!(
                "checkpoint {checkpoint_id} takes {size} bytes; the limit of this dialect is \
                 {MAX_CHECKPOINT}"
            );
            if let Some(epoch) = current {
                self.note(now, &task, epoch, what.clone());
            }
            self.fetched(now, key, &task, Some(&checkpoint_id));
            return self.send_v1(conn, fail(what));
        }
        let newest = || self.attempts_v1(key, &task, facts).last().map(|a| a.epoch);
        let Some(epoch) = current.or_else(newest).filter(|e| *e > 0) else {
            let what = format!("task {task} was never given to this worker");
            return self.send_v1(conn, fail(what));
        };
        let mut known = self.checkpoints_v1(&task, facts);
        let Some(manifest) = blob else {
            let what = format!("checkpoint {checkpoint_id} was not kept; send it again later");
            self.not_kept(now, key, &task);
            return self.send_v1(conn, fail(what));
        };
        let what = (epoch, checkpoint_id.clone(), manifest.clone());
        if known.contains_key(&what) || self.is_earlier(key, &task, &known, &what) {
            self.counters.outbox.repeated += 1;
        } else {
            let last = known.iter().filter(|((e, ..), _)| *e == epoch).map(|(_, n)| *n).max();
            let number = last.unwrap_or(0) + 1;
            let user = json!({ "codec": "json", "checkpoint_id": checkpoint_id });
            let meta = json!({ "kind": "raw", "name": "data", "user": user });
            let checkpoint = Checkpoint {
                task: task.clone(),
                epoch,
                number,
                manifest,
                size: size as u64,
                created_at_ms: now.wall,
                meta_json: meta.to_string().into_bytes().into(),
                ..Default::default()
            };
            if !self.on_checkpoint(now, conn, key, Arc::new(checkpoint), facts) {
                return self.not_kept(now, key, &task);
            }
            let item = Unsynced::Checkpoint { task: task.clone(), what: what.clone(), number };
            self.undurable.v1.push_back((self.journal.open(), item));
            known.insert(what, number);
            if let Some(task) = self.tasks.get_mut(&task) {
                task.v1.get_or_insert_default().checkpoints = Some(known);
            }
        }
        self.fetched(now, key, &task, Some(&checkpoint_id));
        self.send_v1(conn, ToWorker::CheckpointDataAck { task_id, checkpoint_id });
    }

    /// Returns true if this is a checkpoint of an earlier attempt, sent again: one of that name with the
    /// same data is known. An attempt that made the same again loses nothing while one as new is kept;
    /// otherwise it counts if it was requested.
    fn is_earlier(
        &mut self,
        key: WorkerKey,
        task: &TaskId,
        known: &Known,
        (epoch, name, blob): &(Epoch, String, Bytes),
    ) -> bool {
        let same = known.iter().rfind(|((e, n, b), _)| e < epoch && n == name && b == blob);
        let Some(((of, ..), number)) = same else { return false };
        let kept = self.tasks.get(task).and_then(|t| t.reported.checkpoints.last());
        if kept.is_some_and(|c| (c.epoch, c.number) >= (*of, *number)) {
            return true;
        }
        let run = self.fleet.get_mut(key).v1.get_or_insert_default().run(task, *epoch);
        !run.is_some_and(|r| {
            let asked = r.transfer.fetching.as_ref();
            r.transfer.asked_checkpoint
                || asked.is_some_and(|f| f.name.as_ref().is_none_or(|n| n == name))
        })
    }

    /// Returns the reported checkpoints of a task.
    fn checkpoints_v1(&mut self, id: &TaskId, facts: &Facts) -> Known {
        if let Some(known) = self.tasks.get(id).and_then(|t| t.v1.as_ref()?.checkpoints.clone()) {
            return known;
        }
        let mut known = Known::new();
        for checkpoint in facts.checkpoints(id) {
            let meta: Option<Value> = serde_json::from_slice(&checkpoint.meta_json).ok();
            let name = meta.as_ref().and_then(|m| m["user"]["checkpoint_id"].as_str());
            // One that did not come by it still takes its number.
            let name = name.map_or_else(|| checkpoint.id(), ToOwned::to_owned);
            let what = (checkpoint.epoch, name, checkpoint.manifest.clone());
            known.insert(what, checkpoint.number);
        }
        for (_, item) in &self.undurable.v1 {
            if let Unsynced::Checkpoint { task, what, number } = item
                && task == id
            {
                known.insert(what.clone(), *number);
            }
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.v1.get_or_insert_default().checkpoints = Some(known.clone());
        }
        known
    }

    pub(super) fn on_checkpoint_error_v1(
        &mut self,
        now: Now,
        key: WorkerKey,
        task: &TaskId,
        error: &str,
    ) {
        if let Some(epoch) = self.current_v1(key, task) {
            let session = self.fleet.get_mut(key).v1.get_or_insert_default();
            let asked = session.run(task, epoch).is_some_and(|r| {
                std::mem::take(&mut r.transfer.asked_checkpoint) || r.transfer.fetching.is_some()
            });
            if asked {
                self.note_v1(now, key, task, &format!("its worker gave no checkpoint: {error}"));
            }
        }
        self.fetched(now, key, task, None);
    }

    pub(super) fn on_paused_v1(&mut self, now: Now, key: WorkerKey, task: &TaskId, on: bool) {
        let Some(epoch) = self.current_v1(key, task) else { return };
        let session = self.fleet.get_mut(key).v1.get_or_insert_default();
        let Some(run) = session.run(task, epoch) else { return };
        let before = run.pause.paused.replace(on);
        run.pause.pausing = None;
        let late = on && std::mem::take(&mut run.pause.lapsed);
        if before.unwrap_or(false) != on {
            self.note(now, task, epoch, if on { "paused" } else { "goes on" }.into());
        }
        // The request was withdrawn before this answer.
        if late && self.tasks.get(task).is_some_and(|t| !t.paused) {
            self.send_control(key, task, epoch, ControlKind::Resume);
        }
    }

    /// Puts a remark into the history of a task that the worker has.
    pub(super) fn note_v1(&mut self, now: Now, key: WorkerKey, task: &TaskId, what: &str) {
        if let Some(epoch) = self.tasks.get(task).filter(|t| t.is_current(key, t.epoch)) {
            let epoch = epoch.epoch;
            self.note(now, task, epoch, what.chars().take(MAX_NOTE).collect());
        }
    }
}
