//! Times at which the coordinator's core is to be woken, and why.

use super::ids::ConnId;
use crate::Millis;
use crate::scheduler::WorkerKey;
use std::collections::BTreeSet;

/// Reason for a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// On this link a heartbeat is due, or a silence, a handshake or an answer has lasted too long.
    Link(ConnId),
    /// The first reconnect window of an absent worker's attempts has passed.
    Window(WorkerKey),
    /// Once a second: whatever has waited long enough for a place, a checkpoint or a worker, and workers that
    /// idle while tasks wait elsewhere.
    Upkeep,
    /// The delay of a failed task has passed.
    Retry,
}

/// Pending timers. A timer that is set again fires at each of its times.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pending: BTreeSet<(Millis, Timer)>,
    /// Time of the last tick.
    pub last_tick: Millis,
    /// Time of the last log warning about records of attempts that were never assigned.
    pub warned: Option<Millis>,
}

impl Timers {
    /// No timers; time counts from now.
    pub fn from(now: Millis) -> Timers {
        Timers { last_tick: now, ..Timers::default() }
    }
    pub fn set(&mut self, at: Millis, timer: Timer) {
        self.pending.insert((at, timer));
    }
    /// Returns the next timer and its time.
    pub fn next(&self) -> Option<(Millis, Timer)> {
        self.pending.first().copied()
    }
    /// Takes a timer out whose time has come.
    pub fn pop(&mut self, now: Millis) -> Option<Timer> {
        self.next().filter(|(at, _)| *at <= now)?;
        self.pending.pop_first().map(|(_, timer)| timer)
    }
    pub fn has(&self, timer: Timer) -> bool {
        self.pending.iter().any(|(_, t)| *t == timer)
    }
    pub fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.pending.iter().map(|(_, timer)| timer)
    }
}
