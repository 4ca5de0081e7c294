//! A task's history as it is written: what its row cannot tell goes to `events`.
//!
//! `schema` describes rounds and phases; `history` reads them.

use super::apply::Applier;
use super::schema::{kind_code, phase, state_code, state_of};
use crate::StoreError;
use crate::types::EventKind;
use outlast_core::records::TaskState;
use outlast_wire::v2::TaskOutcome;
use prost::Message;
use rusqlite::params;

/// What a record needs to know of the task it changes.
pub(super) struct Current {
    pub(super) number: i64,
    pub(super) state: i64,
    pub(super) epoch: i64,
    pub(super) worker: Option<i64>,
    pub(super) assigned_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) ended_epoch: Option<i64>,
    pub(super) ended_worker: Option<i64>,
    pub(super) round: i64,
    pub(super) paused: bool,
}

impl Current {
    pub(super) fn is(&self, state: TaskState) -> bool {
        self.state == state_code(state)
    }
    /// It is not over.
    pub(super) fn goes_on(&self) -> bool {
        self.is(TaskState::Pending) || self.is(TaskState::Assigned)
    }
    /// Where an entry that is recorded now belongs.
    pub(super) fn phase(&self) -> i64 {
        if self.ended_at.is_some() {
            phase::AFTER_ENDED
        } else if self.started_at.is_some() {
            phase::AFTER_STARTED
        } else if self.assigned_at.is_some() {
            phase::AFTER_ASSIGNED
        } else {
            phase::BEFORE
        }
    }
}

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

impl Applier<'_> {
    /// Moves to `events` what the row is about to forget; gives the row's round from then on.
    pub(super) fn set_aside(&self, now: &Current) -> Result<i64, StoreError> {
        let event = |phase, kind, worker, at| {
            let (epoch, reason, cause, outcome) = (now.epoch, "", 0, None);
            let event = Event { phase, kind, epoch, worker, at, reason, cause, outcome };
            self.insert_event(now, event)
        };
        if let Some(at) = now.assigned_at {
            event(phase::ASSIGNED, EventKind::Assigned, now.worker, at)?;
            // Without an assignment it is the start that a late outcome told, and no entry.
            if let Some(at) = now.started_at {
                event(phase::STARTED, EventKind::Started, now.worker, at)?;
            }
        }
        if let Some(at) = now.ended_at {
            let state = state_of(now.state);
            let kind = state.and_then(EventKind::of_end).ok_or_else(|| {
                StoreError::damaged("a task has ended but is not over, number", now.number)
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
        let forgets = now.assigned_at.is_some() || now.ended_at.is_some();
        Ok(if forgets { now.round + 1 } else { now.round })
    }

    pub(super) fn tell(
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
                event.outcome.map(Message::encode_to_vec),
                event.cause,
            ],
        )
    }
}
