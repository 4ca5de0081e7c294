//! The history of a task as it is written: its row has the newest entries, `events` all others.
//!
//! `schema` describes history rows and phases; `history` reads them.

use super::current::Current;
use super::schema::{kind_code, phase, state_of};
use super::transaction::Transaction;
use crate::StoreError;
use crate::types::EventKind;
use outlast_model::TaskOutcome;
use outlast_wire::Kept;
use rusqlite::params;

/// An entry of the history.
pub(super) struct Event<'a> {
    pub(super) phase: i64,
    pub(super) kind: EventKind,
    pub(super) epoch: i64,
    pub(super) worker: Option<i64>,
    pub(super) at: i64,
    pub(super) reason: &'a str,
    pub(super) cause: i64,
    pub(super) outcome: Option<&'a TaskOutcome>,
}

impl Transaction<'_> {
    /// Moves to `events` the entries that the row is about to lose; returns the row's new `round`.
    pub(super) fn set_aside(&self, now: &Current) -> Result<i64, StoreError> {
        let event = |phase, kind, worker, at| {
            let (epoch, reason, cause, outcome) = (now.epoch, "", 0, None);
            let event = Event { phase, kind, epoch, worker, at, reason, cause, outcome };
            self.insert_event(now, event)
        };
        if let Some(at) = now.assigned_at {
            event(phase::ASSIGNED, EventKind::Assigned, now.worker, at)?;
            // Without an assignment it is the start of a late outcome, and no entry.
            if let Some(at) = now.started_at {
                event(phase::STARTED, EventKind::Started, now.worker, at)?;
            }
        }
        if let Some(at) = now.ended_at {
            let state = state_of(now.state);
            let kind = state.and_then(EventKind::of_end).ok_or_else(|| {
                StoreError::damaged("a task has an end and no final state, number", now.number)
            })?;
            self.run(
                "INSERT INTO events
                     (number, round, phase, kind, epoch, worker, at, reason, outcome, cause)
                 SELECT number, round, ?2, ?3, ?4, ?5, ?6, coalesce(reason, ''), outcome, cause
                 FROM tasks WHERE number = ?1",
                params![
                    now.number,
                    phase::ENDED,
                    kind_code(kind),
                    now.ended_epoch.unwrap_or(0),
                    now.ended_worker,
                    at
                ],
            )?;
        }
        let moved = now.assigned_at.is_some() || now.ended_at.is_some();
        Ok(if moved { now.round + 1 } else { now.round })
    }

    /// Writes an entry without cause and outcome, in the phase that the task is in.
    pub(super) fn record_event(
        &self,
        now: &Current,
        kind: EventKind,
        epoch: i64,
        worker: Option<i64>,
        at: i64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (phase, cause, outcome) = (now.phase(), 0, None);
        self.insert_event(now, Event { phase, kind, epoch, worker, at, reason, cause, outcome })
    }

    /// Writes an entry of the history.
    pub(super) fn insert_event(&self, now: &Current, event: Event<'_>) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO events
                 (number, round, phase, kind, epoch, worker, at, reason, outcome, cause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                now.number,
                now.round,
                event.phase,
                kind_code(event.kind),
                event.epoch,
                event.worker,
                event.at,
                event.reason,
                event.outcome.map(Kept::to_bytes),
                event.cause,
            ],
        )
    }
}
