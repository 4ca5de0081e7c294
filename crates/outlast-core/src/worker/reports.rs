//! Reports of running tasks: checkpoints and states. Both become durable first, and are sent in lanes
//! of their own.

use super::machine::Worker;
use super::output::{Answer, Output, Question, Refused};
use crate::{Epoch, Machine, Now, TaskId};
use outlast_model::{Bytes, Checkpoint, StatePatch, StateUpdate};
use std::sync::Arc;

/// The largest state of an attempt, in bytes of JSON.
pub const MAX_STATE: usize = 256 << 10;
/// The largest description of a checkpoint, in bytes of JSON.
pub const MAX_META: usize = 16 << 10;

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
        let Some(attempt) = self.attempts.get_mut(task, epoch).filter(|a| a.is_handed_over())
        else {
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
            attempt.plan_request(now.mono);
            attempt.pause_soon(now.mono);
        }
        let rule = attempt.spec.keep_checkpoints.clone();
        self.lanes.add_checkpoint(&checkpoint, &rule, &mut self.journal);
        self.journal.release(Output::Answer(question, Answer::Checkpoint(checkpoint)));
        self.send_lanes();
        self.on_tick(now);
    }

    /// A running attempt's state changes. One `Answer` follows.
    pub fn on_state(
        &mut self,
        now: Now,
        question: Question,
        task: &TaskId,
        epoch: Epoch,
        patch: StatePatch,
    ) {
        let Some(attempt) = self.attempts.get_mut(task, epoch).filter(|a| a.is_handed_over())
        else {
            return self.refuse(question, Refused::NotRunning(task.clone(), epoch));
        };
        let old = attempt.state.as_deref();
        let progress = patch.progress.or(old.and_then(|s| s.progress));
        let state_json = patch.apply(old.map(|s| &*s.state_json));
        if state_json.len() > MAX_STATE {
            let (size, limit) = (state_json.len(), MAX_STATE);
            return self.refuse(question, Refused::TooLarge { what: "state", size, limit });
        }
        let update = Arc::new(StateUpdate {
            task: task.clone(),
            epoch,
            version: old.map_or(0, |s| s.version) + 1,
            state_json: state_json.into(),
            progress,
            at_ms: now.wall,
        });
        attempt.state = Some(update.clone());
        self.lanes.add_state(update.clone(), &mut self.journal);
        self.journal.release(Output::Answer(question, Answer::State(update)));
    }

    /// A running attempt asked what is asked of it: it may answer to requests.
    pub fn on_listens(&mut self, task: &str, epoch: Epoch) {
        if let Some(attempt) = self.attempts.get_mut(task, epoch) {
            attempt.listen();
        }
    }

    /// The upload that was asked for is complete: the coordinator has the blob, durably. Or it
    /// can never be: the blob is damaged here.
    pub fn on_uploaded(&mut self, manifest: &[u8], result: Result<(), String>) {
        self.lanes.uploaded(manifest, result.is_ok(), &mut self.journal);
        self.send_lanes();
        self.settle();
    }

    /// The coordinator has no room for the blob that was to be uploaded: others that wait are
    /// tried before it.
    pub fn on_no_room(&mut self, manifest: &[u8]) {
        self.lanes.postpone(manifest, &mut self.journal);
        self.send_lanes();
        self.settle();
    }

    fn refuse(&mut self, question: Question, why: Refused) {
        self.journal.output(Output::Answer(question, Answer::Refused(why)));
    }
}
