//! Conduct of an unfit worker: it starts nothing, and returns attempts that have not started, so that others
//! can run them. While the store cannot be written, outcomes are sent outside of their lane, marked as not durable
//! here: its disk keeps them, and a sequence that this store may forget is not used.

use super::assignments::NeverRan;
use super::machine::Worker;
use super::output::Output;
use crate::Now;
use outlast_model::{Cause, OutcomeKind, Unfit, Unfitness};

impl Worker {
    /// Part of the machine does not work, for this reason; or (none) works again. A success of a
    /// commit clears a fault of the store by itself.
    pub fn set_unfit(&mut self, now: Now, source: Unfit, reason: Option<String>) {
        if self.fitness.set(source, reason) {
            if source == Unfit::Store && self.fitness.store_fails() {
                // The disk may have failed before that was noticed.
                let fitness = &self.fitness;
                self.lanes.change_unsaved(|outcome| fitness.doubted(outcome.clone()));
            }
            self.fitness_changed(now);
        }
        self.settle();
    }

    /// Returns the current faults.
    pub fn unfit(&self) -> Vec<Unfitness> {
        self.fitness.list()
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
        if self.fitness.committed(self.journal.durable()) {
            self.fitness_changed(now);
        }
    }

    /// Notices a commit that does not return.
    pub(super) fn watch_store(&mut self, now: Now, late: bool) {
        let (out, durable) = (self.journal.open() - 1, self.journal.durable());
        if let Some(reason) = self.fitness.watch(now.mono, out, durable, late) {
            self.set_unfit(now, Unfit::Store, Some(reason));
        }
    }

    /// The coordinator accepted this link; whether it knows of unfit workers.
    pub(super) fn accepted(&mut self, now: Now, takes_unsaved: bool) {
        self.fitness.set_takes_unsaved(takes_unsaved);
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
        let older = !self.fitness.takes_unsaved() || !self.uplink.is_up();
        self.is_ending() || (self.fitness.stops_work() && older)
    }

    /// Gives back what has not started, where the coordinator can be informed. Without a link it
    /// waits: it may be over before the link is back.
    pub(super) fn give_back(&mut self, now: Now) {
        let can = !self.fitness.store_fails() || self.fitness.takes_unsaved();
        if !can || !self.uplink.is_up() {
            return;
        }
        let message = self.fitness.list().iter().map(Unfitness::says).collect::<Vec<_>>();
        let message = format!("its worker {}", message.join("; it "));
        let (kind, cause) = (OutcomeKind::Returned, Cause::Machine);
        for id in self.attempts.waiting() {
            self.end_waiting(now, id, NeverRan { kind, cause, message: &message });
        }
        for id in self.attempts.staged() {
            self.journal.output(Output::Recall(id.task, id.epoch));
        }
    }

    /// Sends outcomes that cannot become durable here, beside their lane.
    pub(super) fn send_unsaved(&mut self) {
        if self.uplink.is_up() && self.fitness.store_fails() && self.fitness.takes_unsaved() {
            self.lanes.send_unsaved(&mut self.journal);
        }
    }

    /// Returns true if nothing is lost when this process ends now, although its store cannot be written.
    pub(super) fn is_kept_elsewhere(&self) -> bool {
        self.fitness.store_fails() && self.lanes.is_saved()
    }
}
