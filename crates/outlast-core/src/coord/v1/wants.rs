//! Facts that messages of v1 workers need. Results name no attempt, so theirs are found by what is on record.

use super::session::PREFIX;
use crate::Epoch;
use crate::TaskId;
use crate::coord::coordinator::Coordinator;
use crate::coord::ids::ConnId;
use crate::coord::loads::{Query, Wants};
use crate::scheduler::WorkerKey;
use outlast_model::Bytes;
use outlast_wire::v1::{Deed, FromWorker, MAX_CHECKPOINT};

impl Coordinator {
    pub(in crate::coord) fn wants_v1(
        &self,
        conn: ConnId,
        message: &FromWorker,
        blob: Option<&Bytes>,
        wants: &mut Wants<'_>,
    ) {
        let Some(state) = self.conns.get(&conn) else { return };
        let Some(link) = &state.v1 else { return };
        let store_id = format!("{PREFIX}{}", link.name());
        if state.worker.is_none() || matches!(message, FromWorker::Registration { .. }) {
            self.wants_binding(conn, link.name(), &store_id, wants);
        }
        let Some(key) = state.worker.or_else(|| self.fleet.by_store(&store_id)) else { return };
        match message {
            FromWorker::Heartbeat { active_tasks, .. } => {
                for id in active_tasks.iter().flatten() {
                    self.wants_listed_v1(key, &id.as_str().into(), wants);
                }
            }
            FromWorker::TaskResult { task_id, attempt, .. } => {
                self.wants_end_v1(key, &task_id.as_str().into(), *attempt, wants);
            }
            FromWorker::Done { task_id, what: Deed::Cancelled } => {
                self.wants_end_v1(key, &task_id.as_str().into(), None, wants);
            }
            FromWorker::TaskState { task_id, .. } => {
                self.wants_state_v1(key, &task_id.as_str().into(), wants);
            }
            FromWorker::Checkpoint { task_id, .. } => {
                let id: TaskId = task_id.as_str().into();
                if self.current_v1(key, &id).is_some() {
                    self.wants_checkpoints_v1(&id, wants);
                }
            }
            FromWorker::CheckpointData { task_id, data, .. } if data.len() <= MAX_CHECKPOINT => {
                self.wants_data_v1(key, &task_id.as_str().into(), blob, wants);
            }
            FromWorker::CheckpointData { .. }
            | FromWorker::Registration { .. }
            | FromWorker::Done { .. }
            | FromWorker::CheckpointError { .. }
            | FromWorker::StateError { .. } => {}
        }
    }

    fn wants_attempts_v1(&self, key: WorkerKey, id: &TaskId, wants: &mut Wants<'_>) {
        wants.add(Query::Attempts(id.clone(), self.fleet.get(key).row.store_id.clone()));
    }

    /// A task that the worker lists: one that is not its own may be of an abandoned attempt, which goes on.
    fn wants_listed_v1(&self, key: WorkerKey, id: &TaskId, wants: &mut Wants<'_>) {
        if self.current_v1(key, id).is_some() {
            return;
        }
        self.wants_attempts_v1(key, id, wants);
        if let Some(task) = self.tasks.get(id).filter(|t| t.is_abandoned(t.epoch)) {
            wants.add(Query::Given(id.clone(), task.epoch));
        }
    }

    /// An attempt's end: the first attempt of all is in memory, and needs nothing.
    fn wants_end_v1(
        &self,
        key: WorkerKey,
        id: &TaskId,
        named: Option<Epoch>,
        wants: &mut Wants<'_>,
    ) {
        let current = self.current_v1(key, id);
        if current != Some(1) || named.is_some_and(|n| n != 1) {
            self.wants_attempts_v1(key, id, wants);
            self.wants_row(id, wants);
        }
    }

    fn wants_state_v1(&self, key: WorkerKey, id: &TaskId, wants: &mut Wants<'_>) {
        let Some(epoch) = self.current_v1(key, id) else { return };
        let Some(task) = self.tasks.get(id) else { return };
        let merged = task.v1.as_ref().is_some_and(|t| t.has_state_of(epoch));
        if task.reported.state_version.0 == epoch && !merged {
            wants.add(Query::State(id.clone()));
        }
    }

    fn wants_checkpoints_v1(&self, id: &TaskId, wants: &mut Wants<'_>) {
        let known =
            self.tasks.get(id).and_then(|t| t.v1.as_ref()).is_some_and(|t| t.has_checkpoints());
        if !known {
            wants.add(Query::Checkpoints(id.clone()));
        }
    }

    fn wants_data_v1(
        &self,
        key: WorkerKey,
        id: &TaskId,
        blob: Option<&Bytes>,
        wants: &mut Wants<'_>,
    ) {
        let epoch = self.current_v1(key, id);
        if epoch.is_none() {
            self.wants_attempts_v1(key, id, wants);
        }
        self.wants_checkpoints_v1(id, wants);
        if let Some(manifest) = blob {
            let store = self.fleet.get(key).row.store_id.clone();
            wants.add(Query::Blob(manifest.clone(), store));
            self.wants_row(id, wants);
        }
    }
}
