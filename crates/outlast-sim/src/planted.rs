//! Mistakes planted in what a core reads after a restart, writes, sends and receives. Those of a driver (what it
//! reports too early, or not at all) are in the driver itself.

use crate::Bug;
use crate::world::World;
use outlast_core::coord::{Fact, Query, V1_PREFIX};
use outlast_core::records::{Batch, CoordRecord, CoordSnapshot, TaskState, WorkerSnapshot};
use outlast_core::recovery::{TaskRecovery, knobs};
use outlast_core::worker::Alive;
use outlast_model::message::{OutboxItem, ToCoordinator, ToWorker};
use rand::Rng;
use std::sync::Arc;

impl World {
    /// In what the coordinator knows after a restart.
    pub fn plant_in_snapshot(&self, snapshot: &mut CoordSnapshot) {
        if self.bug == Some(Bug::ReusesEpoch) {
            for task in &mut snapshot.tasks {
                task.epoch = task.epoch.saturating_sub(1);
            }
        }
        if self.bug == Some(Bug::ForgetsLease) {
            for task in &mut snapshot.tasks {
                task.state = TaskState::Pending;
            }
        }
        for recovery in snapshot.tasks.iter_mut().filter_map(|t| t.recovery.as_mut()) {
            let recovery = Arc::make_mut(recovery);
            match self.bug {
                Some(Bug::ForgetsDelay) => recovery.not_before = 0,
                Some(Bug::ForgetsTried) => *recovery = Default::default(),
                Some(Bug::ForgetsBudget) => recovery.oom_retries = 0,
                Some(Bug::ForgetsShared) => recovery.shared = 0,
                _ => {}
            }
        }
    }

    /// In what a worker knows after a restart.
    pub fn plant_at_start(&self, snapshot: &mut WorkerSnapshot, alive: &mut Vec<Alive>) {
        match self.bug {
            Some(Bug::ForgetsStarted) => {
                snapshot.attempts.iter_mut().for_each(|a| a.started_at = None);
            }
            Some(Bug::ForgetsAlive) => alive.clear(),
            _ => {}
        }
    }

    /// In what the coordinator reads of its store later.
    pub fn plant_in_fact(&mut self, query: &Query, fact: &mut Fact) {
        match (self.bug, fact) {
            (Some(Bug::ForgetsFormer), Fact::Epoch(former)) => *former = 0,
            (Some(Bug::ForgetsUnsaved), Fact::Attempts(past)) if !is_of_v1(query) => {
                past.iter_mut().for_each(|a| a.outcomes.clear());
            }
            (Some(Bug::V1ForgetsOutcomes), Fact::Attempts(past)) if is_of_v1(query) => {
                past.iter_mut().for_each(|a| a.outcomes.clear());
            }
            (Some(Bug::ReadsStaleFacts), fact) => {
                *fact = self.stale.entry(query.clone()).or_insert_with(|| fact.clone()).clone();
            }
            _ => {}
        }
    }

    /// In what the coordinator's store is to keep.
    pub fn plant_in_batch(&mut self, batch: &mut Batch<CoordRecord>) {
        match self.bug {
            Some(Bug::ForgetsCursor) => {
                batch.records.retain(|r| !matches!(r, CoordRecord::Cursor { .. }));
            }
            Some(Bug::StateGoesBack) if self.rng.random_bool(0.2) => {
                for record in &mut batch.records {
                    if let CoordRecord::State { update } = record {
                        Arc::make_mut(update).version = 1;
                    }
                }
            }
            Some(Bug::SplitsDecision) if self.rng.random_bool(0.3) => {
                batch.records.retain(|r| !matches!(r, CoordRecord::Recovered { .. }));
            }
            Some(Bug::ForgetsAssigned) => {
                batch.records.retain(|r| !matches!(r, CoordRecord::Assigned { .. }));
            }
            _ => {}
        }
    }

    /// In what a worker sends.
    pub fn plant_above(&mut self, mut message: ToCoordinator) -> ToCoordinator {
        if self.bug == Some(Bug::ForgetsNonces)
            && let ToCoordinator::Hello(hello) = &mut message
        {
            hello.nonce = 0;
        }
        if self.bug == Some(Bug::SkipsFencing)
            && let ToCoordinator::Outbox(batch) = &mut message
        {
            for item in &mut batch.items {
                if let OutboxItem::Outcome(o) = item
                    && let Some(row) = self.coord.store.task_row(&o.task)
                {
                    Arc::make_mut(o).epoch = row.epoch;
                }
            }
        }
        message
    }

    /// In what the coordinator sends: the task as it was submitted, or without its checkpoint.
    pub fn plant_below(&self, mut message: ToWorker) -> ToWorker {
        let ToWorker::Assign(tasks) = &mut message else { return message };
        for t in tasks {
            match self.bug {
                Some(Bug::OldKnobs) => {
                    let spec = &self.specs[&t.task];
                    let plain = knobs::effective(spec, &TaskRecovery::default());
                    t.spec = Ok(Arc::new(plain.into_owned()));
                }
                Some(Bug::PassesCheckpointsOver) => t.checkpoint = None,
                _ => {}
            }
        }
        message
    }
}

fn is_of_v1(query: &Query) -> bool {
    matches!(query, Query::Attempts(_, worker) if worker.starts_with(V1_PREFIX))
}
