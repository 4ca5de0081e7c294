//! The change of rows by each record. All of it happens inside one transaction.

use super::current::Current;
use super::history_rows::Event;
use super::schema::{phase, queue_column, state_code};
use super::transaction::Transaction;
use crate::StoreError;
use crate::db::int;
use crate::types::EventKind;
use outlast_core::records::{CoordRecord, TaskState, WorkerRow};
use outlast_model::{TaskOutcome, TaskSpec};
use outlast_wire::Kept;
use rusqlite::params;
use std::sync::Arc;

/// The end of a task.
struct End<'a> {
    epoch: i64,
    state: TaskState,
    reason: &'a str,
    cause: i64,
    outcome: Option<&'a TaskOutcome>,
    worker: Option<i64>,
    at: i64,
}

impl Transaction<'_> {
    /// Changes rows as this record says.
    pub(super) fn apply(&mut self, record: &CoordRecord) -> Result<(), StoreError> {
        use CoordRecord as R;
        match record {
            R::Submitted { task, number, spec, after, owner, at } => {
                let owner = owner.as_deref();
                self.on_submitted(task, int(*number)?, spec, (int(*after)?, owner), *at)
            }
            R::TasksRemoved { tasks, before, at } => self.on_removed(tasks, *before, *at),
            R::Assigned { task, epoch, worker, at } => {
                self.on_assigned(task, int(*epoch)?, worker, *at)
            }
            R::Started { task, epoch, started_at, at: _ } => {
                self.on_started(task, int(*epoch)?, *started_at)
            }
            R::Requeued { task, epoch, retries, reason, cause, outcome, at } => {
                let (worker, outcome, at) = (None, outcome.as_deref(), *at);
                let (epoch, cause, kind) =
                    (int(*epoch)?, i64::from(cause.number()), EventKind::Requeued);
                // It belongs to the attempt that it ends, so that it is ordered between the attempts.
                let phase = phase::AFTER_ENDED;
                let event = Event { phase, kind, epoch, worker, at, reason, cause, outcome };
                self.on_requeued(task, *retries, event)
            }
            R::Ended { task, epoch, state, reason, cause, outcome, worker, at } => {
                let worker = worker.as_ref().map(|w| self.worker_ref(w)).transpose()?;
                let (epoch, outcome) = (int(*epoch)?, outcome.as_deref());
                let (state, cause, at) = (*state, i64::from(cause.number()), *at);
                self.on_ended(task, End { epoch, state, reason, cause, outcome, worker, at })
            }
            R::Superseded { task, epoch, reason, outcome, worker, at } => {
                self.on_superseded(task, int(*epoch)?, reason, outcome, worker, *at)
            }
            R::CancelRequested { task, at } => self.on_cancel_requested(task, *at),
            R::Retried { task, at } => self.on_retried(task, *at),
            R::Noted { task, epoch, note, at } => {
                let now = self.known(task)?;
                let epoch = int(*epoch)?;
                self.record_event(&now, EventKind::Noted, epoch, None, *at, note)
            }
            R::WorkerSeen { worker, at } => self.on_worker_seen(worker, *at),
            R::WorkerGone { worker, reason, cause, at } => self.run(
                "UPDATE workers SET gone_at = ?2, gone_reason = ?3, gone_cause = ?4
                 WHERE store_id = ?1",
                params![worker, at, reason, cause.number()],
            ),
            R::WorkerDrained { worker, on, at: _ } => {
                self.run("UPDATE workers SET drained = ?2 WHERE store_id = ?1", params![worker, on])
            }
            R::WorkerUnbound { worker, at: _ } => {
                self.run("UPDATE workers SET principal = '' WHERE store_id = ?1", params![worker])
            }
            R::Checkpoint { checkpoint, worker, at } => self.on_checkpoint(checkpoint, worker, *at),
            R::CheckpointsPruned { task, which, at } => self.on_pruned(task, which, *at),
            R::State { update } => self.on_state(update),
            R::Paused { task, on, at } => self.on_paused(task, *on, *at),
            R::Asked { task, asked } => self.on_asked(task, asked),
            R::Recovered { task, epoch, decision, state, at } => {
                self.on_recovered(task, int(*epoch)?, decision, state, *at)
            }
            R::FailureSeen { failure, forget } => self.on_failure(failure, *forget),
            R::FailuresForgotten { worker, task_type } => {
                self.on_failures_forgotten(worker.as_deref(), task_type.as_deref())
            }
            R::Quarantined { worker, quarantine } => {
                self.on_quarantined(worker, quarantine.as_deref())
            }
            R::Learned { learned } => self.on_learned(learned),
            R::Unlearned { task_type, hardware } => {
                self.on_unlearned(task_type.as_deref(), hardware.as_deref())
            }
            R::WorkerForgotten { worker, at: _ } => self.on_worker_forgotten(worker),
            R::Cursor { worker, lane, seq } => {
                let key = (self.worker_ref(worker)?, *lane);
                let last = self.cursors.entry(key).or_default();
                *last = (*last).max(int(*seq)?);
                Ok(())
            }
        }
    }

    fn on_submitted(
        &mut self,
        task: &str,
        number: i64,
        spec: &TaskSpec,
        (after, owner): (i64, Option<&str>),
        at: i64,
    ) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO tasks (number, id, state, epoch, retries, cancelling, round,
                 submitted_at, priority, queue, spec, after, owner)
             VALUES (?1, ?2, 0, ?7, 0, 0, 0, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                number,
                task,
                at,
                spec.priority,
                queue_column(&spec.queue),
                spec.to_json(),
                after,
                owner,
            ],
        )?;
        for (key, value) in &spec.labels {
            self.run("INSERT INTO labels VALUES (?1, ?2, ?3)", params![key, value, number])?;
        }
        self.moved[0] += 1;
        self.last_number = self.last_number.max(number);
        Ok(())
    }

    fn on_assigned(
        &mut self,
        task: &str,
        epoch: i64,
        worker: &Arc<str>,
        at: i64,
    ) -> Result<(), StoreError> {
        let worker = self.worker_ref(worker)?;
        let now = self.known(task)?;
        let round = self.set_aside(&now)?;
        self.run(
            "UPDATE tasks SET state = 1, epoch = ?2, worker = ?3, assigned_at = ?4, round = ?5,
                 started_at = NULL, ended_at = NULL, ended_epoch = NULL, ended_worker = NULL,
                 reason = NULL, outcome = NULL WHERE number = ?1",
            params![now.number, epoch, worker, at, round],
        )?;
        self.count(&now, TaskState::Assigned);
        Ok(())
    }

    fn on_started(&mut self, task: &str, epoch: i64, started_at: i64) -> Result<(), StoreError> {
        let now = self.known(task)?;
        let current = now.is(TaskState::Assigned) && now.epoch == epoch;
        if current && now.started_at.is_none() {
            let sql = "UPDATE tasks SET started_at = ?2 WHERE number = ?1";
            return self.run(sql, params![now.number, started_at]);
        }
        // The attempt is no longer current, or its start is reported again.
        let worker = now.worker.filter(|_| now.epoch == epoch);
        self.record_event(&now, EventKind::Started, epoch, worker, started_at, "")
    }

    fn on_requeued(
        &mut self,
        task: &str,
        retries: u32,
        event: Event<'_>,
    ) -> Result<(), StoreError> {
        let mut now = self.known(task)?;
        if now.is(TaskState::Assigned) && now.epoch == event.epoch {
            // Its outcome has a start that was not reported.
            let started = event.outcome.map(|o| o.started_at_ms).filter(|ms| *ms > 0);
            now.started_at = now.started_at.or(started);
        }
        let round = self.set_aside(&now)?;
        let worker = now.worker.filter(|_| now.epoch == event.epoch);
        self.insert_event(&now, Event { worker, ..event })?;
        self.run(
            "UPDATE tasks SET state = 0, retries = ?2, worker = NULL, round = ?3,
                 assigned_at = NULL, started_at = NULL, ended_at = NULL, ended_epoch = NULL,
                 ended_worker = NULL, reason = NULL, outcome = NULL WHERE number = ?1",
            params![now.number, retries, round.max(now.round + 1)],
        )?;
        self.count(&now, TaskState::Pending);
        Ok(())
    }

    fn on_ended(&mut self, task: &str, end: End<'_>) -> Result<(), StoreError> {
        if !end.state.is_terminal() {
            let word = end.state.as_str();
            return Err(StoreError::Contradiction(format!("{task} cannot end as {word}")));
        }
        let mut now = self.known(task)?;
        // Another attempt decided it: the row's entries of this one are history now.
        let other = (end.epoch != 0 && end.epoch != now.epoch)
            || (end.worker.is_some() && end.worker != now.worker);
        if now.ended_at.is_some() || (now.assigned_at.is_some() && other) {
            now.round = self.set_aside(&now)?;
            (now.assigned_at, now.started_at) = (None, None);
        }
        let started = end.outcome.map(|o| o.started_at_ms).filter(|ms| *ms > 0 && end.epoch != 0);
        self.run(
            "UPDATE tasks SET state = ?2, cancelling = 0, round = ?3, worker = ?4,
                 assigned_at = ?5, started_at = ?6, ended_at = ?7, ended_epoch = ?8,
                 ended_worker = ?9, reason = ?10, outcome = ?11, cause = ?12 WHERE number = ?1",
            params![
                now.number,
                state_code(end.state),
                now.round,
                end.worker.or(now.worker),
                now.assigned_at,
                now.started_at.or(started),
                end.at,
                end.epoch,
                end.worker,
                Some(end.reason).filter(|r| !r.is_empty()),
                end.outcome.map(Kept::to_bytes),
                end.cause,
            ],
        )?;
        self.count(&now, end.state);
        Ok(())
    }

    fn on_superseded(
        &mut self,
        task: &str,
        epoch: i64,
        reason: &str,
        outcome: &TaskOutcome,
        worker: &Arc<str>,
        at: i64,
    ) -> Result<(), StoreError> {
        let worker = self.worker_ref(worker)?;
        let Some(now) = self.find(task)? else {
            return self.run(
                "INSERT INTO orphans (task, epoch, worker, at, reason, outcome)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![task, epoch, worker, at, reason, outcome.to_bytes()],
            );
        };
        let (phase, kind) = (now.phase(), EventKind::Superseded);
        let (worker, cause) = (Some(worker), i64::from(outcome.cause.number()));
        let outcome = Some(outcome);
        self.insert_event(&now, Event { phase, kind, epoch, worker, at, reason, cause, outcome })
    }

    fn on_cancel_requested(&mut self, task: &str, at: i64) -> Result<(), StoreError> {
        let now = self.known(task)?;
        self.run("UPDATE tasks SET cancelling = 1 WHERE number = ?1", params![now.number])?;
        self.record_event(&now, EventKind::CancelRequested, now.epoch, now.worker, at, "")
    }

    fn on_retried(&mut self, task: &str, at: i64) -> Result<(), StoreError> {
        let now = self.known(task)?;
        let round = self.set_aside(&now)?;
        let (assigned_at, started_at, ended_at, paused) = (None, None, None, false);
        let next = Current { round, assigned_at, started_at, ended_at, paused, ..now };
        self.record_event(&next, EventKind::Retried, now.epoch, None, at, "")?;
        self.run(
            "UPDATE tasks SET state = 0, retries = 0, cancelling = 0, paused = 0, recovery = NULL,
                 worker = NULL, round = ?2,
                 assigned_at = NULL, started_at = NULL, ended_at = NULL, ended_epoch = NULL,
                 ended_worker = NULL, reason = NULL, outcome = NULL WHERE number = ?1",
            params![next.number, round],
        )?;
        self.count(&next, TaskState::Pending);
        Ok(())
    }

    fn on_worker_seen(&mut self, worker: &WorkerRow, at: i64) -> Result<(), StoreError> {
        let number = self.worker_ref(&worker.store_id)?;
        let sql = "UPDATE worker_refs SET name = ?2 WHERE ref = ?1 AND name IS NOT ?2";
        self.run(sql, params![number, worker.name])?;
        let labels =
            serde_json::to_string(&worker.labels).expect("a map of strings is always JSON");
        self.run(
            "INSERT OR REPLACE INTO workers
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, '', 0, ?11, ?12, ?13)",
            params![
                worker.store_id,
                worker.name,
                int(worker.incarnation)?,
                int(worker.connection)?,
                worker.slots,
                worker.prefetch,
                worker.capabilities,
                labels,
                worker.version,
                at,
                worker.drained,
                worker.nonce.cast_signed(),
                worker.principal,
            ],
        )
    }

    fn on_worker_forgotten(&mut self, worker: &Arc<str>) -> Result<(), StoreError> {
        let number = self.worker_ref(worker)?;
        self.cursors.retain(|(of, _), _| *of != number);
        self.run("DELETE FROM cursors WHERE worker = ?1", params![number])?;
        self.run("DELETE FROM workers WHERE store_id = ?1", params![worker])
    }
}
