//! Settings that adapt to the link: the policies of `adapt`, and which settings differ from the configuration.

use super::config::HeartbeatConfig;
use super::output::{Output, WorkerJournal};
use crate::adapt::{BandwidthPolicy, Change, FailureDetector, Packing, Pins, SendWindow, Setting};
use crate::invariants::{Checked, must};
use crate::{Millis, Now};
use outlast_model::Lane;
use outlast_model::message::{Adapted, Cursor, ToCoordinator};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Adaptation {
    pub detector: FailureDetector,
    pub window: SendWindow,
    pub bandwidth: BandwidthPolicy,
    /// Compression as last passed to the driver.
    packing: Packing,
    adapted: BTreeMap<Setting, Adapted>,
}

/// Returns the place of a durable lane among those that have a send window.
fn place(lane: Lane) -> Option<usize> {
    [Lane::Results, Lane::Checkpoints, Lane::State].iter().position(|l| *l == lane)
}

impl Adaptation {
    pub fn new(heartbeat: HeartbeatConfig, pins: Pins, now: Now) -> Adaptation {
        let HeartbeatConfig { interval, timeout } = heartbeat;
        let bandwidth = BandwidthPolicy::new(pins);
        let adapts = !pins.has(Setting::Heartbeat);
        Adaptation {
            detector: FailureDetector::new(interval, timeout, adapts, now.mono),
            window: SendWindow::new(!pins.has(Setting::Batch)),
            packing: bandwidth.packing(),
            bandwidth,
            adapted: BTreeMap::new(),
        }
    }

    /// Returns the compression of frames.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The link was accepted, `outage` milliseconds after the previous one ended.
    pub fn accepted(&mut self, now: Millis, outage: Millis) {
        self.detector.back(outage, now);
        self.window.open();
    }

    /// The link was lost.
    pub fn lost(&mut self, now: Millis, silent: bool) {
        self.detector.lost(silent);
        self.bandwidth.lost(now);
    }

    /// Recomputes the heartbeat interval, the timeout and the interval of checkpoint requests; `up`: the
    /// coordinator can be informed.
    pub fn decide(&mut self, now: Now, busy: bool, up: bool, journal: &mut WorkerJournal) {
        let changed = self.detector.decide(busy, now.mono);
        let steady = self.bandwidth.steadiness(now.mono);
        changed
            .into_iter()
            .chain(steady)
            .for_each(|change| self.change(now.wall, change, up, journal));
    }

    /// A checkpoint's upload outside of the link carried `bytes` in `took` milliseconds.
    pub fn carried(
        &mut self,
        now: Now,
        bytes: u64,
        took: Millis,
        up: bool,
        journal: &mut WorkerJournal,
    ) {
        let change = self.window.carried(bytes, took);
        self.learn_width(now, change, up, journal);
    }

    /// The coordinator has applied a lane up to this sequence.
    pub fn arrived(&mut self, now: Now, cursor: Cursor, up: bool, journal: &mut WorkerJournal) {
        let Some(lane) = place(cursor.lane) else { return };
        let before = self.window.samples();
        let change = self.window.acked(lane, cursor.seq, now.mono);
        if self.window.samples() != before {
            self.learn_width(now, change, up, journal);
        }
    }

    fn learn_width(
        &mut self,
        now: Now,
        window: Option<Change>,
        up: bool,
        journal: &mut WorkerJournal,
    ) {
        let goodput = self.window.goodput();
        let width = goodput.map_or_else(Vec::new, |g| self.bandwidth.learn(g, now.mono));
        window
            .into_iter()
            .chain(width)
            .for_each(|change| self.change(now.wall, change, up, journal));
        let packing = self.bandwidth.packing();
        if std::mem::replace(&mut self.packing, packing) != packing {
            journal.output(Output::Packing(packing));
        }
    }

    fn change(&mut self, at_ms: i64, change: Change, up: bool, journal: &mut WorkerJournal) {
        journal.output(Output::Adapted(change.clone()));
        let Change { setting, from, to, why, configured, minor } = change;
        let word = setting.word().to_owned();
        let adapted = Adapted { setting: word, from, to, why, at_ms, configured, minor };
        if configured {
            self.adapted.remove(&setting);
        } else {
            self.adapted.insert(setting, adapted.clone());
        }
        if up {
            journal.output(Output::Send(ToCoordinator::Adapted(adapted)));
        }
    }

    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        let policy = self.bandwidth.packing();
        must(self.packing == policy, || format!("frames are {:?}, not {policy:?}", self.packing))?;
        must(self.adapted.values().all(|a| !a.configured), || "a configured setting differs".into())
    }

    /// Reports on a new link what differs: the coordinator may have forgotten it.
    pub fn report_all(&self, journal: &mut WorkerJournal) {
        for adapted in self.adapted.values().cloned() {
            journal.output(Output::Send(ToCoordinator::Adapted(adapted)));
        }
    }
}
