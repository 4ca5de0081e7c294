//! Fitness of the worker: faults of its machine, and commits that do not return.

use crate::Millis;
use crate::invariants::{Checked, must};
use outlast_model::{Cause, OutcomeKind, TaskOutcome, Unfit, Unfitness};
use std::collections::BTreeMap;

/// A commit that takes longer than this is stuck, in milliseconds.
const STUCK: Millis = 10_000;
/// The longest reason that is reported, in characters.
const MAX_REASON: usize = 300;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    faults: BTreeMap<Unfit, String>,
    /// The newest batch that was out at some time, and that time.
    watched: Option<(u64, Millis)>,
    /// The coordinator of the open link takes outcomes that are not durable here.
    takes_unsaved: bool,
}

impl Fitness {
    /// Every fault.
    pub fn list(&self) -> Vec<Unfitness> {
        let one = |(source, reason): (&Unfit, &String)| Unfitness {
            source: (*source),
            reason: reason.clone(),
        };
        self.faults.iter().map(one).collect()
    }
    /// Returns true if nothing may start.
    pub fn stops_work(&self) -> bool {
        self.faults.keys().any(|f| f.stops_work())
    }
    pub fn store_fails(&self) -> bool {
        self.faults.contains_key(&Unfit::Store)
    }
    /// Returns true if the coordinator of the open link takes outcomes that are not durable here, and so
    /// knows unfit workers.
    pub fn takes_unsaved(&self) -> bool {
        self.takes_unsaved
    }
    pub fn set_takes_unsaved(&mut self, takes: bool) {
        self.takes_unsaved = takes;
    }

    /// Sets or (none) clears a fault; true if that is a change.
    pub fn set(&mut self, source: Unfit, reason: Option<String>) -> bool {
        match reason.map(|r| r.chars().take(MAX_REASON).collect::<String>()) {
            Some(reason) => self.faults.insert(source, reason.clone()) != Some(reason),
            None => self.faults.remove(&source).is_some(),
        }
    }

    /// A commit succeeded, so that everything up to `durable` is on disk; true if that cleared a fault.
    pub fn committed(&mut self, durable: u64) -> bool {
        if self.watched.is_some_and(|(batch, _)| batch <= durable) {
            self.watched = None;
        }
        self.faults.remove(&Unfit::Store).is_some()
    }

    /// Watches the newest batch that is out; returns a fault if a commit does not return. The process may
    /// have been stopped meanwhile (`late`): that is no fault of the disk.
    pub fn watch(&mut self, now: Millis, out: u64, durable: u64, late: bool) -> Option<String> {
        let watched = self.watched.filter(|(batch, _)| *batch > durable && !late);
        self.watched = watched.or((out > durable).then_some((out, now)));
        let (_, since) = watched?;
        let stuck = now >= since + STUCK && !self.store_fails();
        stuck.then(|| format!("a write has not returned for {} s", (now - since) / 1000))
    }

    /// Returns the first contradiction. Batches up to `durable` are, and `open` is not handed out.
    pub fn invariants(&self, durable: u64, open: u64) -> Checked {
        let out = self.watched.is_none_or(|(batch, _)| durable < batch && batch < open);
        must(out, || format!("{:?} is watched; {durable} is durable", self.watched))
    }

    /// Returns the time by which a pending commit must be done, in milliseconds of `Now::mono`.
    pub fn commit_limit(&self) -> Option<Millis> {
        let (_, since) = self.watched.filter(|_| !self.store_fails())?;
        Some(since + STUCK)
    }

    /// A task that fails beside a disk that fails may have failed by it: its output and its folder
    /// are there. That is a loss, and no failure of the task's.
    pub fn doubted(&self, outcome: TaskOutcome) -> TaskOutcome {
        let by_itself = matches!(
            outcome.cause,
            Cause::Unspecified | Cause::Exit | Cause::Signal | Cause::NotStarted
        );
        let reason = self.faults.get(&Unfit::Store);
        let Some(reason) = reason.filter(|_| outcome.kind == OutcomeKind::Failed && by_itself)
        else {
            return outcome;
        };
        let message = format!(
            "{}, while its worker could not write its store: {reason}",
            if outcome.message.is_empty() { "it failed" } else { &outcome.message }
        );
        let (kind, cause) = (OutcomeKind::Interrupted, Cause::Machine);
        TaskOutcome { kind, cause, message, ..outcome }
    }
}
