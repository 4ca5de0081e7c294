//! Fitness of the worker: faults of its machine, attempts that it returns while one lasts, and outcomes
//! that cannot become durable here.
//!
//! An unfit worker starts nothing. Attempts that have not started are returned, so that others can run
//! them. While the store cannot be written, outcomes are sent outside of their lane, marked as
//! not durable here: its disk keeps them, and a sequence that this store may forget is not used.

use super::session::Link;
use super::{Ending, Given, Output, Worker};
use crate::{AttemptId, Millis, Now};
use outlast_model::message::ToCoordinator;
use outlast_model::packing::BULK_TARGET;
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
    /// Returns the time by which a pending commit must be done, in milliseconds of `Now::mono`.
    pub fn next_wake(&self) -> Millis {
        match self.watched {
            Some((_, since)) if !self.store_fails() => since + STUCK,
            _ => Millis::MAX,
        }
    }
}

impl Worker {
    /// Part of the machine does not work, for this reason; or (none) works again. A success of a
    /// commit clears a fault of the store by itself.
    pub fn set_unfit(&mut self, now: Now, source: Unfit, reason: Option<String>) {
        let reason = reason.map(|r| r.chars().take(MAX_REASON).collect::<String>());
        let changed = match reason {
            Some(reason) => self.fitness.faults.insert(source, reason.clone()) != Some(reason),
            None => self.fitness.faults.remove(&source).is_some(),
        };
        if changed {
            if source == Unfit::Store && self.fitness.store_fails() {
                self.doubt_failures();
            }
            self.fitness_changed(now);
        }
        self.settle();
    }

    /// Returns the current faults.
    pub fn unfit(&self) -> Vec<Unfitness> {
        self.fitness.list()
    }

    /// A task that fails beside a disk that fails may have failed by it: its output and its folder
    /// are there. That is a loss, and no failure of the task's.
    pub(super) fn doubted(&self, outcome: TaskOutcome) -> TaskOutcome {
        let by_itself = matches!(
            outcome.cause,
            Cause::Unspecified | Cause::Exit | Cause::Signal | Cause::NotStarted
        );
        let reason = self.fitness.faults.get(&Unfit::Store);
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

    /// The same for failures that are decided and not durable: the disk may have failed before that
    /// was noticed.
    fn doubt_failures(&mut self) {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.change_unsaved(|outcome| self.doubted(outcome.clone()));
        self.outbox = outbox;
    }

    fn fitness_changed(&mut self, now: Now) {
        if self.fitness.stops_work() {
            self.give_back(now);
        } else {
            self.start_reserved(now);
            self.start_queued(now);
        }
        self.announce(now);
    }

    /// A commit succeeded.
    pub(super) fn store_works(&mut self, now: Now) {
        if self.fitness.watched.is_some_and(|(batch, _)| batch <= self.persisted) {
            self.fitness.watched = None;
        }
        if self.fitness.faults.remove(&Unfit::Store).is_some() {
            self.fitness_changed(now);
        }
    }

    /// Notices a commit that does not return. The process may have been stopped meanwhile (`late`):
    /// that is no fault of the disk.
    pub(super) fn watch_store(&mut self, now: Now, late: bool) {
        let out = self.batch - 1;
        let watched = self.fitness.watched.filter(|(batch, _)| *batch > self.persisted && !late);
        self.fitness.watched = watched.or((out > self.persisted).then_some((out, now.mono)));
        let Some((_, since)) = watched else { return };
        if now.mono >= since + STUCK && !self.fitness.store_fails() {
            let reason = format!("a write has not returned for {} s", (now.mono - since) / 1000);
            self.set_unfit(now, Unfit::Store, Some(reason));
        }
    }

    /// The coordinator accepted this link; whether it knows of unfit workers.
    pub(super) fn welcomed(&mut self, now: Now, takes_unsaved: bool) {
        self.fitness.takes_unsaved = takes_unsaved;
        if !takes_unsaved {
            self.on_settled(now);
        }
        if self.fitness.stops_work() {
            self.give_back(now);
            self.announce(now);
        }
    }

    /// The coordinator has answered the inventory: what is still held is this worker's.
    pub(super) fn on_settled(&mut self, now: Now) {
        self.attempts.confirm();
        self.start_queued(now);
    }

    /// Returns true if the worker reports itself as draining to the coordinator, since an older one does
    /// not know unfit workers.
    pub(super) fn seems_to_drain(&self) -> bool {
        let older = !self.fitness.takes_unsaved || !matches!(self.link, Link::Up { .. });
        self.ending != Ending::No || (self.fitness.stops_work() && older)
    }

    /// Gives back what has not started, where the coordinator can be informed. Without a link it
    /// waits: it may be over before the link is back.
    pub(super) fn give_back(&mut self, now: Now) {
        let can = !self.fitness.store_fails() || self.fitness.takes_unsaved;
        if !can || !matches!(self.link, Link::Up { .. }) {
            return;
        }
        let message = self.fitness.list().iter().map(Unfitness::says).collect::<Vec<_>>();
        let message = format!("its worker {}", message.join("; it "));
        let (kind, cause) = (OutcomeKind::Returned, Cause::Machine);
        for (task, epoch) in self.attempts.waiting() {
            self.end_waiting(now, &task, epoch, Given { kind, cause, message: &message });
        }
        for (task, epoch) in self.attempts.staged() {
            self.outputs.push_back(Output::Recall(task, epoch));
        }
    }

    /// Sends outcomes that cannot become durable here, beside their lane.
    pub(super) fn send_unsaved(&mut self) {
        let up = matches!(self.link, Link::Up { .. });
        if !up || !self.fitness.store_fails() || !self.fitness.takes_unsaved {
            return;
        }
        while let Some(mut outcomes) = self.outbox.next_unsaved(BULK_TARGET) {
            for o in &mut outcomes {
                // A crash would take a checkpoint along that is not durable: nobody waits for it.
                o.checkpoint = o.checkpoint.and_then(|c| self.checkpoints.durable(&o.task, c));
            }
            self.outputs.push_back(Output::Send(ToCoordinator::Unsaved(outcomes)));
        }
    }

    pub(super) fn on_saved(&mut self, saved: &[AttemptId]) {
        for attempt in saved {
            self.outbox.saved(&attempt.task, attempt.epoch);
        }
    }

    /// Outcomes that the coordinator has not made durable.
    pub fn owes(&self) -> usize {
        self.outbox.owes()
    }

    /// Returns true if nothing is lost when this process ends now, although its store cannot be written.
    pub(super) fn is_kept_elsewhere(&self) -> bool {
        self.fitness.store_fails() && self.outbox.is_saved()
    }
}
