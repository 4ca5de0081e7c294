//! The session with the coordinator: its link as the driver reports it, time, and what arrives.

use super::machine::Worker;
use super::output::Output;
use super::timers::{Timer, Wake};
use crate::records::WorkerRecord;
use crate::{Machine, Millis, Now, Step};
use outlast_model::LinkCause;
use outlast_model::message::{Heartbeat, ToCoordinator, ToWorker};

/// An attempt that has run this long gets its start on record, in milliseconds.
const RECORD_AFTER: Millis = 200;
/// Starts are put on record at most so often, in milliseconds.
const RECORD_EVERY: Millis = 50;
/// A tick this much later than asked for means that the process was stopped or the machine
/// slept, in milliseconds.
const LATE: Millis = 5_000;

/// Link.
impl Worker {
    /// The link ended, or the dial failed.
    pub fn on_disconnected(&mut self, now: Now, reason: &str) {
        self.on_lost(now, LinkCause::Closed, reason);
    }

    /// The dial failed, since nothing accepted a connection at the address.
    pub fn on_unreachable(&mut self, now: Now, reason: &str) {
        self.on_disconnected(now, reason);
        self.uplink.begin_probes(now.mono);
    }

    /// The answer to a probe: whether a connection was accepted.
    pub fn on_probed(&mut self, now: Now, reached: bool) {
        if self.uplink.probed(now.mono, reached) {
            self.on_tick(now);
        }
    }

    fn on_lost(&mut self, now: Now, cause: LinkCause, reason: &str) {
        if self.uplink.is_up() {
            self.adaptation.lost(now.mono, cause == LinkCause::Silent);
            self.lanes.stop_upload(&mut self.journal);
        }
        let held = !self.attempts.is_empty();
        self.uplink.lost(now, cause, reason, held, &mut self.journal);
    }

    /// Drops the link from this side.
    pub(super) fn hang_up(&mut self, now: Now, cause: LinkCause, reason: &str) {
        self.journal.output(Output::Close(reason.into()));
        self.on_lost(now, cause, reason);
    }

    /// Dials at once, whatever the backoff says; also out of FAILED.
    pub fn force_reconnect(&mut self, now: Now) {
        if self.uplink.has_ended() {
            return;
        }
        if !self.uplink.is_waiting() {
            self.hang_up(now, LinkCause::Closed, "reconnect was asked for");
        }
        self.uplink.dial_at(now.mono);
        self.on_tick(now);
    }
}

impl Machine for Worker {
    type Record = WorkerRecord;
    type Output = Output;
    type Timer = Timer;

    fn poll(&mut self) -> Option<Step<WorkerRecord, Output>> {
        self.journal.next()
    }

    fn next_wake(&self) -> Wake {
        let unrecorded = self.attempts.first_unrecorded().map(|at| {
            // Many at once are reported in batches.
            (at.mono + RECORD_AFTER).max(self.clock.ticked() + RECORD_EVERY)
        });
        self.uplink
            .next_wake()
            .or(Wake::new(unrecorded, Timer::RecordStarts))
            .or(self.attempts.next_wake(self.uplink.outage()))
            .or(Wake::new(self.states_wait(), Timer::States))
            .or(Wake::new(self.fitness.commit_limit(), Timer::Commit))
    }

    fn on_tick(&mut self, now: Now) {
        let late = self.is_late(now);
        self.clock.tick(now);
        self.record_starts(now);
        self.report_starts();
        self.watch_store(now, late);
        self.attend(now);
        if self.uplink.take_probe(now.mono) {
            self.journal.output(Output::Probe);
        }
        match self.uplink.tick(now, late, &mut self.journal) {
            Timer::DialTimeout => {
                let reason = "the coordinator could not be reached in time";
                self.hang_up(now, LinkCause::Silent, reason);
                self.uplink.begin_probes(now.mono);
            }
            Timer::Silence => {
                let reason = "the coordinator has been silent for too long";
                self.hang_up(now, LinkCause::Silent, reason);
            }
            Timer::Heartbeat => {
                self.adapt_heartbeat(now);
                self.beat(now);
                self.send_lanes();
            }
            _ => {}
        }
    }
}

/// Time.
impl Worker {
    fn record_starts(&mut self, now: Now) {
        use crate::records::WorkerRecord::Starting;
        for (id, at) in self.attempts.record_starts(now.mono.saturating_sub(RECORD_AFTER)) {
            let (task, epoch) = (id.task.clone(), id.epoch);
            self.journal.record(Starting { task, epoch, at: at.wall });
            self.report_later(id, at.wall);
        }
    }

    /// Returns true if the process was suspended, or the machine slept, until now.
    pub(super) fn is_late(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.next_wake().at.max(self.clock.ticked())) > LATE
    }

    /// Returns the time from which on waiting states may be sent.
    fn states_wait(&self) -> Option<Millis> {
        let after = self.adaptation.bandwidth.states_after();
        let waits = after > self.clock.newest() && self.lanes.has_unsent_states();
        (waits && self.uplink.is_up()).then_some(after)
    }
}

/// Frames.
impl Worker {
    /// Part of a frame arrived.
    pub fn on_heard(&mut self, now: Now) {
        self.heard(now);
    }

    /// A frame arrived.
    pub fn on_message(&mut self, now: Now, message: ToWorker) {
        if !self.uplink.is_open() {
            return;
        }
        self.heard(now);
        match (message, self.uplink.is_up()) {
            (ToWorker::Welcome(welcome), false) => self.on_welcome(now, welcome),
            (ToWorker::Refused(refused), _) => self.on_refused(now, &refused),
            (ToWorker::Heartbeat(beat), true) => {
                let reply = ToCoordinator::HeartbeatReply(beat.seq);
                self.journal.output(Output::Send(reply));
            }
            (ToWorker::HeartbeatReply(seq), true) => self.answered(seq, now),
            (ToWorker::Assign(assign), true) => {
                self.on_assign(now, assign);
                if self.adaptation.detector.is_stretched() {
                    self.adapt_heartbeat(now);
                }
            }
            (ToWorker::Stop(attempts, reason), true) => self.on_stop(now, attempts, reason),
            (ToWorker::Control(attempts, kind), true) => self.on_control(now, &attempts, kind),
            (ToWorker::ResetStats, true) => self.reset_stats(now),
            (ToWorker::Saved(saved), true) => saved.iter().for_each(|id| self.lanes.saved(id)),
            (ToWorker::Settled, true) => self.on_settled(now),
            (ToWorker::BlobMissing(manifest), true) => {
                self.lanes.missing(&manifest);
                self.adaptation.window.again(1);
            }
            (ToWorker::Ack(cursors), true) => {
                for cursor in cursors {
                    self.adaptation.arrived(now, cursor, true, &mut self.journal);
                    self.lanes.acked(cursor, &mut self.journal);
                }
            }
            _ => {}
        }
        self.send_lanes();
        self.settle();
    }

    /// Handles that everything up to this batch is durable.
    pub fn on_persisted(&mut self, now: Now, batch: u64) {
        self.clock.input(now);
        self.lanes.persisted(batch);
        self.journal.persisted(batch);
        self.store_works(now);
        self.start_reserved(now);
        self.report_starts();
        self.send_lanes();
        self.settle();
    }

    /// Sends what is durable and not sent.
    pub(super) fn send_lanes(&mut self) {
        if self.uplink.is_up() {
            let at_once = self.is_ending();
            self.lanes.send(self.clock.newest(), &mut self.adaptation, at_once, &mut self.journal);
        }
    }

    /// Informs the coordinator at once that no new work is wanted.
    pub(super) fn announce(&mut self, now: Now) {
        self.uplink.beat_soon();
        self.beat(now);
    }

    fn beat(&mut self, now: Now) {
        let Some((seq, interval)) = self.uplink.beat(now.mono) else { return };
        let (running, queued, unacked) = self.load();
        let beat = Heartbeat {
            seq,
            running: running as u32,
            queued: queued as u32,
            unacked: unacked as u64,
            rtt_ms: self.uplink.stats().latency_samples().last().unwrap_or(0.0) as u32,
            draining: self.seems_to_drain(),
            unfit: self.unfit(),
            disk_used: self.blobs.used,
            disk_budget: self.blobs.budget,
            refused: self.blobs.refused,
            restored: self.blobs.restored,
            interval_ms: interval.try_into().unwrap_or(u32::MAX),
        };
        self.journal.output(Output::Send(ToCoordinator::Heartbeat(beat)));
    }
}
