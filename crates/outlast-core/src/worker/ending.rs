//! The worker's end: a drain, or a stop.

use super::assignments::NeverRan;
use super::machine::{Ending, Worker};
use super::output::{Output, StopKind};
use crate::Now;

impl Worker {
    /// Takes no new work, gives back what has not started, finishes and delivers the rest.
    pub fn drain(&mut self, now: Now) {
        self.ending = self.ending.max(Ending::Drain);
        for id in self.attempts.waiting() {
            self.end_waiting(now, id, NeverRan::DRAINED);
        }
        for id in self.attempts.staged() {
            self.journal.output(Output::Recall(id.task, id.epoch));
        }
        self.announce(now);
        self.settle();
    }

    /// Stops what runs as interrupted, makes that durable, and ends without waiting for the
    /// coordinator: the outbox is delivered by the next incarnation.
    pub fn stop(&mut self, now: Now) {
        if self.ending < Ending::Stop {
            self.ending = Ending::Stop;
            // Attempts that were about to start do not; the next incarnation runs them. Those that
            // must not run twice are on record as started, and would be taken for that.
            for id in self.starts.take_all() {
                if self.attempts.get(&id.task, id.epoch).is_some_and(|a| a.is_recorded()) {
                    self.end_waiting(now, id, NeverRan::DRAINED);
                }
            }
            for id in [self.attempts.staged(), self.attempts.running()].concat() {
                self.journal.output(Output::StopRun(id.task, id.epoch, StopKind::Interrupt));
            }
            self.announce(now);
        }
        self.settle();
    }

    /// Ends the process once there is nothing left to do.
    pub(super) fn settle(&mut self) {
        self.send_unsaved();
        if matches!(self.ending, Ending::No | Ending::Over) {
            return;
        }
        let kept_elsewhere = self.is_kept_elsewhere();
        let durable = self.journal.newest() <= self.journal.durable() || kept_elsewhere;
        let idle = !self.attempts.has_handed_over() && durable;
        let delivered = || self.lanes.len() == 0 || (kept_elsewhere && self.unacknowledged() == 0);
        let over = match self.ending {
            Ending::No | Ending::Over => false,
            Ending::Drain => idle && delivered(),
            Ending::Stop => idle,
        };
        if over {
            self.ending = Ending::Over;
            self.uplink.end(&mut self.journal);
            self.journal.output(Output::Exit);
        }
    }
}
