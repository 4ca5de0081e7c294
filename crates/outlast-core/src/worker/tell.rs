//! Reports of running tasks: checkpoints and states. Both become durable first, and are sent in lanes
//! of their own.

use super::{Output, Question, Worker};
use crate::records::WorkerRecord;
use crate::retention::prunable;
use crate::{Epoch, Now, TaskId};
use outlast_model::{Bytes, Checkpoint, StateUpdate, TaskOutcome};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The largest state of an attempt, in bytes of JSON.
pub const MAX_STATE: usize = 256 << 10;
/// The largest description of a checkpoint, in bytes of JSON.
pub const MAX_META: usize = 16 << 10;

/// Answer to a task's report, sent once the report is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The checkpoint is this worker's, and will reach the coordinator.
    Checkpoint(Arc<Checkpoint>),
    /// The attempt's whole state.
    State(Arc<StateUpdate>),
    /// The report was refused, without a change.
    Refused(Refused),
}

/// Reason why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The attempt has ended, was superseded, or was never here.
    #[error("attempt {1} of task {0} does not run here")]
    NotRunning(TaskId, Epoch),
    /// More than a limit.
    #[error("{what} takes {size} bytes; the limit is {limit}")]
    TooLarge {
        /// Name of the limit.
        what: &'static str,
        /// Number of bytes.
        size: usize,
        /// Number of bytes.
        limit: usize,
    },
}

impl Worker {
    /// A running attempt made a checkpoint, or (if `artifact` is not empty) a file of that name for
    /// its result; the blob is durable here. One `Answer` follows.
    #[allow(clippy::too_many_arguments)]
    pub fn on_checkpoint(
        &mut self,
        now: Now,
        question: Question,
        task: &TaskId,
        epoch: Epoch,
        manifest: Bytes,
        size: u64,
        meta: Vec<u8>,
        artifact: &str,
    ) {
        let Some(attempt) = self.attempts.get_mut(task, epoch).filter(|a| a.is_out()) else {
            return self.refuse(question, Refused::NotRunning(task.clone(), epoch));
        };
        if meta.len() > MAX_META {
            let (size, limit) = (meta.len(), MAX_META);
            return self.refuse(question, Refused::TooLarge { what: "meta", size, limit });
        }
        attempt.made += 1;
        let checkpoint = Arc::new(Checkpoint {
            task: task.clone(),
            epoch,
            number: attempt.made,
            manifest,
            size,
            created_at_ms: now.wall,
            meta_json: meta.into(),
            dropped: false,
            artifact: artifact.into(),
        });
        if artifact.is_empty() {
            attempt.checkpoint = Some(checkpoint.clone());
            attempt.asked(now.mono);
            if attempt.pause_at.is_some() {
                attempt.pause_at = Some(now.mono);
            }
        }
        let rule = attempt.spec.keep_checkpoints.clone();
        let seq = self.checkpoints.push(self.batch, checkpoint.clone());
        self.records.push(WorkerRecord::Checkpoint { seq, checkpoint: checkpoint.clone() });
        // What would not be kept by the time that it arrived need not travel. But what is on its
        // way goes on, or a link that is slower than the checkpoints come would never bring one.
        let needless = prunable(&self.checkpoints.waiting(task, epoch), &rule);
        let uploading = self.uploading.clone();
        let which = |c: &Checkpoint| {
            c.task == *task
                && needless.contains(&(c.epoch, c.number))
                && uploading.as_ref() != Some(&c.manifest)
        };
        for (seq, checkpoint) in self.checkpoints.give_up(which, self.batch) {
            self.records.push(WorkerRecord::Checkpoint { seq, checkpoint });
        }
        self.after
            .push_back((self.batch, Output::Answer(question, Answer::Checkpoint(checkpoint))));
        self.send_outbox();
        self.on_tick(now);
    }

    /// A running attempt's state changes: the members of `patch` replace those of the same name,
    /// and null removes one. One `Answer` follows.
    pub fn on_state(
        &mut self,
        now: Now,
        question: Question,
        task: &TaskId,
        epoch: Epoch,
        patch: Map<String, Value>,
        progress: Option<f64>,
    ) {
        let Some(attempt) = self.attempts.get_mut(task, epoch).filter(|a| a.is_out()) else {
            return self.refuse(question, Refused::NotRunning(task.clone(), epoch));
        };
        let old = attempt.state.as_deref();
        let mut state: Map<String, Value> =
            old.and_then(|s| serde_json::from_slice(&s.state_json).ok()).unwrap_or_default();
        for (key, value) in patch {
            match value {
                Value::Null => drop(state.shift_remove(&key)),
                value => drop(state.insert(key, value)),
            }
        }
        let state_json = serde_json::to_vec(&state).unwrap_or_default();
        if state_json.len() > MAX_STATE {
            let (size, limit) = (state_json.len(), MAX_STATE);
            return self.refuse(question, Refused::TooLarge { what: "state", size, limit });
        }
        let known = progress.or(old.and_then(|s| s.progress));
        let update = Arc::new(StateUpdate {
            task: task.clone(),
            epoch,
            version: old.map_or(0, |s| s.version) + 1,
            state_json: state_json.into(),
            progress: known,
            at_ms: now.wall,
        });
        attempt.state = Some(update.clone());
        let (seq, replaces) = self.states.push(self.batch, update.clone());
        self.records.push(WorkerRecord::State { seq, replaces, update: update.clone() });
        self.after.push_back((self.batch, Output::Answer(question, Answer::State(update))));
    }

    /// Returns the reports of a held attempt: its newest checkpoint (or the one to resume from) and its
    /// state; `None` when it is not held.
    #[allow(clippy::type_complexity)]
    pub fn told(
        &self,
        task: &str,
        epoch: Epoch,
    ) -> Option<(Option<Arc<Checkpoint>>, Option<Arc<StateUpdate>>)> {
        let attempt = self.attempts.get(task, epoch)?;
        Some((attempt.checkpoint.clone(), attempt.state.clone()))
    }

    /// A running attempt asked what is asked of it: it may answer to requests.
    pub fn on_listens(&mut self, task: &str, epoch: Epoch) {
        if let Some(attempt) = self.attempts.get_mut(task, epoch) {
            attempt.listens = true;
        }
    }

    /// Returns the specification of a held attempt, and its start (Unix ms; 0: it does not run yet).
    pub fn held_spec(
        &self,
        task: &str,
        epoch: Epoch,
    ) -> Option<(Arc<outlast_model::TaskSpec>, i64)> {
        let attempt = self.attempts.get(task, epoch)?;
        Some((attempt.spec.clone(), attempt.since().map_or(0, |at| at.wall)))
    }

    /// The checkpoints of a task that are known here, oldest first, each with whether the
    /// coordinator has it.
    pub fn known_checkpoints(&self, task: &str, epoch: Epoch) -> Vec<(Arc<Checkpoint>, bool)> {
        let sending = self.checkpoints.shared();
        let after = self.attempts.get(task, epoch).map_or(0, |a| a.after);
        let of = |c: &&Arc<Checkpoint>| {
            *c.task == *task && c.epoch > after && c.artifact.is_empty() && !c.dropped
        };
        let mut all: Vec<_> = sending.filter(of).map(|c| (c.clone(), false)).collect();
        if let Some(newest) = self.attempts.get(task, epoch).and_then(|a| a.checkpoint.clone())
            && !all.iter().any(|(c, _)| (c.epoch, c.number) == (newest.epoch, newest.number))
        {
            all.push((newest, true));
        }
        all.sort_by_key(|(c, _)| (c.epoch, c.number));
        all
    }

    /// Returns the checkpoint that a new attempt resumes from: the coordinator's, or one of an older
    /// attempt here that has not reached the coordinator yet. Outcomes overtake checkpoints. Attempts up
    /// to `after` belong to a previous task of this id.
    pub(super) fn newest_checkpoint(
        &self,
        task: &str,
        epoch: Epoch,
        after: Epoch,
        given: Option<Arc<Checkpoint>>,
    ) -> Option<Arc<Checkpoint>> {
        let of = |c: &&Arc<Checkpoint>| {
            let own = after < c.epoch && c.epoch < epoch;
            own && *c.task == *task && c.artifact.is_empty() && !c.dropped
        };
        let sending = self.checkpoints.shared().filter(of).cloned();
        sending.chain(given).max_by_key(|c| (c.epoch, c.number))
    }

    /// Writes into an outcome which checkpoint the next attempt could go on from here, so that the
    /// coordinator does not pass over one that is still on its way.
    pub(super) fn name_checkpoint(&self, outcome: &mut TaskOutcome) {
        let Some(attempt) = self.attempts.get(&outcome.task, outcome.epoch) else { return };
        let Some(newest) = attempt.checkpoint.as_deref() else { return };
        let place = (newest.epoch, newest.number);
        if !self
            .checkpoints
            .all()
            .any(|c| c.dropped && c.task == newest.task && (c.epoch, c.number) == place)
        {
            outcome.checkpoint = Some(place);
        }
    }

    /// The blobs that must be kept here: those on their way to the coordinator, and the newest
    /// of every held attempt.
    pub fn wanted_blobs(&self) -> Vec<Bytes> {
        let sending = self.checkpoints.blobs();
        let held = self.attempts.all().filter_map(|(_, a, _)| a.checkpoint.as_ref());
        sending.chain(held.map(|c| c.manifest.clone())).collect()
    }

    /// The upload that was asked for is complete: the coordinator has the blob, durably. Or it
    /// can never be: the blob is damaged here.
    pub fn on_uploaded(&mut self, manifest: &[u8], result: Result<(), String>) {
        match result {
            Ok(()) => self.checkpoints.uploaded(manifest),
            Err(_) => {
                let is = |c: &Checkpoint| c.manifest == manifest;
                for (seq, checkpoint) in self.checkpoints.give_up(is, self.batch) {
                    self.records.push(WorkerRecord::Checkpoint { seq, checkpoint });
                }
            }
        }
        if self.uploading.as_deref() == Some(manifest) {
            self.uploading = None;
        }
        self.send_outbox();
        self.settle();
    }

    /// The coordinator has no room for the blob that was to be uploaded: others that wait are
    /// tried before it.
    pub fn on_no_room(&mut self, manifest: &[u8]) {
        for (seq, checkpoint) in self.checkpoints.postpone(manifest, self.batch) {
            self.records.push(WorkerRecord::Checkpoint { seq, checkpoint });
        }
        if self.uploading.as_deref() == Some(manifest) {
            self.uploading = None;
        }
        self.send_outbox();
        self.settle();
    }

    /// Sets the disk use of blobs, for the heartbeat: bytes used, the budget (0: none), and the number of
    /// refused blobs.
    pub fn on_disk(&mut self, used: u64, budget: u64, refused: u64) {
        self.disk = (used, budget, refused);
    }

    fn refuse(&mut self, question: Question, why: Refused) {
        self.outputs.push_back(Output::Answer(question, Answer::Refused(why)));
    }
}
