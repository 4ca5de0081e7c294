//! Reports of running tasks: checkpoints and states, and the retention of checkpoints.

use super::coordinator::Coordinator;
use super::given::ARTIFACT;
use super::ids::ConnId;
use super::loads::Facts;
use super::request::Response;
use super::revisions::Revision;
use super::task::is_own;
use crate::records::{CoordRecord, TaskState};
use crate::retention::{keep, prunable};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, Now, TaskId};
use outlast_model::message::{ControlKind, Happened, HappenedKind, ToWorker};
use outlast_model::spec::check_artifact_name;
use outlast_model::{Checkpoint, StateUpdate};
use std::sync::Arc;

/// The longest note of a worker that is kept, in characters.
const MAX_NOTE: usize = 500;

impl Coordinator {
    /// Returns true if the item took effect; otherwise the lane waits for its blob.
    pub(super) fn on_checkpoint(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        checkpoint: Arc<Checkpoint>,
        facts: &Facts,
    ) -> bool {
        let id = checkpoint.attempt();
        if !self.is_given(key, &id, facts) {
            self.drop_foreign(now, key, "checkpoint", &id.task, id.epoch);
            return true;
        }
        if !checkpoint.artifact.is_empty() && check_artifact_name(&checkpoint.artifact).is_err() {
            self.drop_foreign(now, key, ARTIFACT, &id.task, id.epoch);
            return true;
        }
        if !checkpoint.dropped
            && !facts.has_blob(&checkpoint.manifest, &self.fleet.get(key).row.store_id)
        {
            self.counters.outbox.blobs_missing += 1;
            self.send(conn, ToWorker::BlobMissing(checkpoint.manifest.clone()));
            return false;
        }
        let id = id.task;
        let worker = self.fleet.get(key).row.store_id.clone();
        let at = now.wall;
        let over = (!self.tasks.contains_key(&id)).then(|| self.look_up(facts, &id)).flatten();
        // An attempt that was never given out has nothing to tell.
        let range = self.tasks.get(&id).map(|t| (t.after, t.epoch));
        let range = range.or(over.as_ref().map(|r| (r.after, r.epoch)));
        let known = range.is_some_and(|(after, newest)| is_own(checkpoint.epoch, after, newest));
        if !known {
            return true;
        }
        {
            self.undurable.blobs.push_back((self.journal.open(), checkpoint.manifest.clone()));
            let checkpoint = checkpoint.clone();
            self.journal.record(CoordRecord::Checkpoint { checkpoint, worker, at });
            self.counters.outbox.checkpoints += 1;
        }
        if !checkpoint.artifact.is_empty() {
            return true;
        }
        let arrived = checkpoint.place();
        if checkpoint.dropped {
            self.on_awaited(now, &id, arrived, true);
            return true;
        }
        self.fleet.get_mut(key).held.tally.checkpoints += 1;
        let (rule, state, mut kept) = match (self.tasks.get(&id), over) {
            (Some(task), _) => (
                task.spec.keep_checkpoints.clone(),
                task.state(),
                task.reported.checkpoints.clone(),
            ),
            (None, Some(row)) => {
                (row.spec.keep_checkpoints.clone(), row.state, row.reported.checkpoints)
            }
            (None, None) => return true,
        };
        let first = keep(&mut kept, &checkpoint);
        let all_stay = state == TaskState::Failed && rule.failed;
        let which = if all_stay { Vec::new() } else { prunable(&kept, &rule) };
        self.tasks.revise(self.journal.open(), &id, Revision::Kept(first));
        kept.retain(|c| !which.contains(&c.place()));
        if let Some(task) = self.tasks.get_mut(&id) {
            task.reported.checkpoints = kept;
            self.on_awaited(now, &id, arrived, false);
        }
        if !which.is_empty() {
            self.tasks.revise(self.journal.open(), &id, Revision::Pruned(which.clone()));
            self.journal.record(CoordRecord::CheckpointsPruned { task: id, which, at });
        }
        true
    }

    /// A task that goes on keeps its checkpoints, whatever somebody thought when asking.
    pub(super) fn prune(&mut self, now: Now, task: TaskId, which: Vec<(Epoch, u64)>) -> Response {
        if let Some(known) = self.tasks.get(&task) {
            return Response::WrongState(known.state());
        }
        self.tasks.revise(self.journal.open(), &task, Revision::Pruned(which.clone()));
        self.journal.record(CoordRecord::CheckpointsPruned { task, which, at: now.wall });
        Response::Pruned
    }

    pub(super) fn on_state(
        &mut self,
        now: Now,
        key: WorkerKey,
        update: Arc<StateUpdate>,
        facts: &Facts,
    ) {
        let attempt = update.attempt();
        if !self.is_given(key, &attempt, facts) {
            return self.drop_foreign(now, key, "state", &attempt.task, attempt.epoch);
        }
        let id = attempt.task;
        let version = (update.epoch, update.version);
        let known = match self.tasks.get_mut(&id) {
            Some(task) if !is_own(update.epoch, task.after, task.epoch) => return,
            Some(task) => {
                let known = task.reported.state_version;
                task.reported.state_version = known.max(version);
                known
            }
            None => match self.look_up(facts, &id) {
                Some(row) if !is_own(update.epoch, row.after, row.epoch) => return,
                Some(row) => row.reported.state_version,
                None => return,
            },
        };
        // What an older attempt says now says nothing of the newer one.
        if version > known {
            self.tasks.revise(self.journal.open(), &id, Revision::State(version));
            self.journal.record(CoordRecord::State { update });
        }
    }

    /// Handles a worker's report on a request.
    pub(super) fn on_happened(&mut self, now: Now, key: WorkerKey, happened: Happened) {
        let Happened { attempt, kind, note, .. } = happened;
        let task = attempt.task;
        let Some(known) = self.tasks.get(&task).filter(|t| t.is_current(key, attempt.epoch)) else {
            return;
        };
        let epoch = known.epoch;
        let note: String = note.chars().take(MAX_NOTE).collect();
        let what = match kind {
            HappenedKind::Paused => "paused",
            HappenedKind::Resumed => "goes on",
            HappenedKind::Note => "",
        };
        let note = [what, &note].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
        self.note(now, &task, epoch, note.join(" "));
    }

    pub(super) fn note(&mut self, now: Now, task: &TaskId, epoch: u64, note: String) {
        let (task, at) = (task.clone(), now.wall);
        self.journal.record(CoordRecord::Noted { task, epoch, note, at });
    }

    /// A current attempt's desired pause, against what its worker says.
    pub(super) fn settle_pause(&mut self, key: WorkerKey, id: &AttemptId, paused: bool) {
        let Some(task) = self.tasks.get(&id.task).filter(|t| t.is_current(key, id.epoch)) else {
            return;
        };
        if task.paused != paused {
            let kind = match task.paused {
                true => ControlKind::Pause,
                false => ControlKind::Resume,
            };
            self.send_control(key, &id.task, id.epoch, kind);
        }
        if self.change_asked(&id.task, |asked| asked.checkpoint = false) {
            self.send_control(key, &id.task, id.epoch, ControlKind::Checkpoint);
        }
    }

    pub(super) fn send_control(
        &mut self,
        key: WorkerKey,
        task: &TaskId,
        epoch: u64,
        kind: ControlKind,
    ) {
        let member = self.fleet.get_mut(key);
        let Some(conn) = member.link.conn else { return };
        if kind == ControlKind::Checkpoint {
            member.expect_checkpoint(task, epoch);
        }
        let attempts = vec![AttemptId { task: task.clone(), epoch }];
        self.send(conn, ToWorker::Control(attempts, kind));
    }
}
