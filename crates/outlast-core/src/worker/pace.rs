//! The worker's side of adaptation: passes measurements to `adapt`, applies the resulting settings to
//! the heartbeat, the lanes and the driver, and reports them to the coordinator.

use super::session::Link;
use super::{Output, Worker};
use crate::adapt::{Change, Flow, Packing, Patience, Pins, Setting, Thrift};
use crate::{Millis, Now};
use outlast_model::Lane;
use outlast_model::message::{Adapted, Cursor, ToCoordinator};
use std::collections::BTreeMap;

/// Adaptive settings of the link, and those that differ from the configuration.
#[derive(Debug)]
pub(super) struct Pace {
    pub patience: Patience,
    pub flow: Flow,
    pub thrift: Thrift,
    /// Compression as last passed to the driver.
    packing: Packing,
    adapted: BTreeMap<Setting, Adapted>,
    /// The time of the newest input, for those that bring none.
    pub clock: Millis,
}

impl Pace {
    pub fn new((interval, timeout): (Millis, Millis), pins: Pins, now: Now) -> Pace {
        let thrift = Thrift::new(pins);
        Pace {
            patience: Patience::new(interval, timeout, !pins.has(Setting::Heartbeat), now.mono),
            flow: Flow::new(!pins.has(Setting::Batch)),
            packing: thrift.packing(),
            thrift,
            adapted: BTreeMap::new(),
            clock: now.mono,
        }
    }
}

/// The place of a durable lane among those whose flow is measured.
pub(super) fn place(lane: Lane) -> Option<usize> {
    [Lane::Results, Lane::Checkpoints, Lane::State].iter().position(|l| *l == lane)
}

impl Worker {
    /// The coordinator answered a heartbeat.
    pub(super) fn answered(&mut self, seq: u64, now: Now) {
        if let Some(rtt) = self.link.heart().and_then(|h| h.reply(seq, now.mono)) {
            self.stats.add_latency_sample(rtt as f64);
            self.pace.patience.answered(rtt);
        }
    }

    /// A silence ended with what just arrived.
    pub(super) fn heard(&mut self, now: Now) {
        self.pace.clock = self.pace.clock.max(now.mono);
        let Some(heart) = self.link.heart() else { return };
        let silence = heart.heard(now.mono);
        // Whoever slept himself has learned nothing of others.
        if heart.is_notable(silence) && !self.is_late(now) {
            self.pace.patience.survived(silence, now.mono);
            self.repace(now);
        }
    }

    /// Recomputes the heartbeat interval and the timeout.
    pub(super) fn repace(&mut self, now: Now) {
        if !matches!(self.link, Link::Up { .. }) {
            return;
        }
        let (running, waiting, unacked) = self.load();
        let busy = running + waiting + unacked > 0;
        let changed = self.pace.patience.decide(busy, now.mono);
        let current = self.pace.patience.current();
        if let Some(heart) = self.link.heart() {
            heart.set(current, now.mono);
        }
        let steady = self.pace.thrift.steadiness(now.mono);
        self.attempts.set_hurry(self.pace.thrift.is_unsteady());
        self.adapt(now.wall, changed.into_iter().chain(steady));
    }

    /// The silence that this link is known to survive and is given, where that is more than what
    /// is configured; else 0. In milliseconds.
    pub fn patience(&self) -> Millis {
        self.pace.patience.longer()
    }

    /// Returns the compression of frames.
    pub fn packing(&self) -> Packing {
        self.pace.packing
    }

    /// Records that a checkpoint's upload outside of the link carried `bytes` in `took` milliseconds.
    pub fn on_carried(&mut self, now: Now, bytes: u64, took: Millis) {
        self.pace.clock = self.pace.clock.max(now.mono);
        let batch = self.pace.flow.carried(bytes, took);
        self.learn_width(now, batch);
    }

    /// The coordinator has applied a lane up to this sequence.
    pub(super) fn arrived(&mut self, now: Now, cursor: Cursor) {
        let Some(lane) = place(cursor.lane) else { return };
        let before = self.pace.flow.samples();
        let batch = self.pace.flow.acked(lane, cursor.seq, now.mono);
        if self.pace.flow.samples() != before {
            self.learn_width(now, batch);
        }
    }

    fn learn_width(&mut self, now: Now, batch: Option<Change>) {
        let width = self.pace.flow.goodput().map(|g| self.pace.thrift.learn(g, now.mono));
        self.adapt(now.wall, batch.into_iter().chain(width.into_iter().flatten()));
        let packing = self.pace.thrift.packing();
        if std::mem::replace(&mut self.pace.packing, packing) != packing {
            self.outputs.push_back(Output::Packing(packing));
        }
    }

    /// Reports changes.
    fn adapt(&mut self, at_ms: i64, changes: impl Iterator<Item = Change>) {
        let changes: Vec<Change> = changes.collect();
        for change in changes {
            self.outputs.push_back(Output::Adapted(change.clone()));
            let Change { setting, from, to, why, configured, minor } = change;
            let word = setting.word().to_owned();
            let told = Adapted { setting: word, from, to, why, at_ms, configured, minor };
            if configured {
                self.pace.adapted.remove(&setting);
            } else {
                self.pace.adapted.insert(setting, told.clone());
            }
            if matches!(self.link, Link::Up { .. }) {
                self.outputs.push_back(Output::Send(ToCoordinator::Adapted(told)));
            }
        }
    }

    /// A new link: the coordinator may have forgotten what differs.
    pub(super) fn tell_adapted(&mut self) {
        let all = self.pace.adapted.values().cloned().map(ToCoordinator::Adapted).map(Output::Send);
        self.outputs.extend(all);
    }

    pub(super) fn send_outbox(&mut self) {
        if !matches!(self.link, Link::Up { .. }) {
            return;
        }
        let now = self.pace.clock;
        // Results first, then checkpoints, then states.
        macro_rules! lane {
            ($lane:expr, $at:expr) => {
                while let Some(limit) = self.pace.flow.frame($at)
                    && let Some((frame, last, size)) = $lane.next_frame(limit)
                {
                    self.pace.flow.sent($at, last, size, now);
                    self.outputs.push_back(Output::Send(ToCoordinator::Outbox(frame)));
                }
            };
        }
        lane!(self.outbox, 0);
        lane!(self.checkpoints, 1);
        let hurry = self.ending != super::Ending::No;
        while (hurry || now >= self.pace.thrift.states_after())
            && let Some(limit) = self.pace.flow.frame(2)
            && let Some((frame, last, size)) = self.states.next_frame(limit)
        {
            self.pace.flow.sent(2, last, size, now);
            self.pace.thrift.states_sent(size, self.pace.flow.goodput(), now);
            self.outputs.push_back(Output::Send(ToCoordinator::Outbox(frame)));
        }
        let next = self.checkpoints.to_upload();
        if next != self.uploading {
            self.uploading.clone_from(&next);
            self.outputs.push_back(Output::Upload(next));
        }
    }

    /// Returns the time from which on waiting states may be sent.
    pub(super) fn states_wake(&self) -> Millis {
        let after = self.pace.thrift.states_after();
        let waits = after > self.pace.clock && self.states.has_unsent();
        if waits && matches!(self.link, Link::Up { .. }) { after } else { Millis::MAX }
    }

    /// Returns true if a due checkpoint may be skipped, since the last one has not arrived and the link is
    /// narrow.
    pub(super) fn spares(&self, now: Now, task: &str, epoch: u64, interval: Millis) -> bool {
        let waiting = self.checkpoints.waiting(task, epoch);
        let oldest = waiting.first().map(|c| now.wall.saturating_sub(c.created_at_ms).max(0));
        self.pace.thrift.skips(interval, oldest.map(|ms| ms as Millis))
    }
}
