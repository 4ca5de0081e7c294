//! Measurements of the link, and the settings that follow from them.

use super::machine::Worker;
use crate::adapt::Packing;
use crate::{Millis, Now};

impl Worker {
    /// The coordinator answered a heartbeat.
    pub(super) fn answered(&mut self, seq: u64, now: Now) {
        if let Some(rtt) = self.uplink.answered(seq, now.mono) {
            self.adaptation.detector.answered(rtt);
        }
    }

    /// A silence ended with what just arrived.
    pub(super) fn heard(&mut self, now: Now) {
        self.clock.input(now);
        let Some(silence) = self.uplink.heard(now.mono) else { return };
        // Whoever slept himself has learned nothing of others.
        if !self.is_late(now) {
            self.adaptation.detector.survived(silence, now.mono);
            self.adapt_heartbeat(now);
        }
    }

    /// Recomputes the heartbeat interval and the timeout.
    pub(super) fn adapt_heartbeat(&mut self, now: Now) {
        if !self.uplink.is_up() {
            return;
        }
        let busy = !self.attempts.is_empty() || self.lanes.len() > 0;
        self.adaptation.decide(now, busy, true, &mut self.journal);
        self.uplink.set_heartbeat(self.adaptation.detector.current(), now.mono);
        self.attempts.shorten_intervals(self.adaptation.bandwidth.is_unsteady());
    }

    /// The silence that this link is known to survive and is given, where that is more than what
    /// is configured; else 0. In milliseconds.
    pub fn longer_timeout(&self) -> Millis {
        self.adaptation.detector.longer()
    }

    /// Returns the compression of frames.
    pub fn packing(&self) -> Packing {
        self.adaptation.packing()
    }

    /// Records that a checkpoint's upload outside of the link carried `bytes` in `took` milliseconds.
    pub fn on_carried(&mut self, now: Now, bytes: u64, took: Millis) {
        self.clock.input(now);
        let up = self.uplink.is_up();
        self.adaptation.carried(now, bytes, took, up, &mut self.journal);
    }

    /// Returns true if a due checkpoint may be skipped, since the last one has not arrived and the link is
    /// narrow.
    pub(super) fn skips_checkpoint(
        &self,
        now: Now,
        task: &str,
        epoch: u64,
        interval: Millis,
    ) -> bool {
        let waiting = self.lanes.waiting_checkpoints(task, epoch);
        let oldest = waiting.first().map(|c| now.wall.saturating_sub(c.created_at_ms).max(0));
        self.adaptation.bandwidth.skips(interval, oldest.map(|ms| ms as Millis))
    }
}
