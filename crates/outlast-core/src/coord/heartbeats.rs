//! The coordinator's side of adaptation: how often it beats to each worker, and which silence of
//! theirs is too long. Workers of the v1 dialect are left as configured.

use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::news::LinkChange;
use super::output::Output;
use super::timers::Timer;
use crate::adapt::{FailureDetector, Setting};
use crate::scheduler::WorkerKey;
use crate::{Machine, Now};
use outlast_model::message::Adapted;

/// Characters of what a worker says of a change that are kept.
const MAX_TEXT: usize = 200;

impl Coordinator {
    /// Starts the failure detector of a new link with the learned values.
    pub(super) fn begin_heartbeats(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let c = &self.config;
        let adapts = !c.pins.has(Setting::Heartbeat);
        let fresh =
            FailureDetector::new(c.heartbeat_interval, c.heartbeat_timeout, adapts, now.mono);
        let member = self.fleet.get_mut(key);
        let away = now.mono.saturating_sub(member.link.gone);
        let detector = member.link.detector.get_or_insert_with(|| Box::new(fresh));
        detector.back(away, now.mono);
        self.retime(now, conn, key);
    }

    /// Recomputes the heartbeat interval and the timeout of a worker's link.
    pub(super) fn retime(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let member = self.fleet.get_mut(key);
        let busy = !member.held.attempts.is_empty();
        let Some(detector) = member.link.detector.as_mut() else { return };
        let changed = detector.decide(busy, now.mono);
        let (current, longer) = (detector.current(), detector.longer());
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let before = state.monitor.next_wake();
        state.monitor.set(current, now.mono);
        let next = state.monitor.next_wake();
        if next < before && state.handshake.inventory.is_none() {
            self.timers.set(next.max(now.mono + 1), Timer::Link(conn));
        }
        if std::mem::replace(&mut state.timeout, longer) != longer {
            self.journal.output(Output::Timeout(conn, longer));
        }
        if let Some(change) = changed {
            self.publish(now, key, LinkChange::Adapted(change));
        }
    }

    /// A worker that idled is given work: its loss should be noticed as soon as that of others.
    pub(super) fn wake_heartbeats(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        if self.fleet.get(key).link.detector.as_ref().is_some_and(|p| p.is_stretched()) {
            self.retime(now, conn, key);
        }
    }

    /// A silence ended with what just arrived.
    pub(super) fn on_silence(&mut self, now: Now, conn: ConnId, silence: u64) {
        let Some(state) = self.conns.get(&conn) else { return };
        // Whoever slept himself has learned nothing of others.
        let slept = now.mono.saturating_sub(self.next_wake().at.max(self.timers.last_tick))
            > super::config::LATE;
        let Some(key) = state.worker.filter(|_| state.monitor.is_notable(silence) && !slept) else {
            return;
        };
        if let Some(detector) = self.fleet.get_mut(key).link.detector.as_mut() {
            detector.survived(silence, now.mono);
            self.retime(now, conn, key);
        }
    }

    pub(super) fn on_answer(&mut self, now: Now, conn: ConnId, key: WorkerKey, seq: u64) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some(rtt) = state.monitor.reply(seq, now.mono)
            && let Some(detector) = self.fleet.get_mut(key).link.detector.as_mut()
        {
            detector.answered(rtt);
        }
    }

    /// The worker changed something of its side.
    pub(super) fn on_adapted(&mut self, now: Now, key: WorkerKey, change: Adapted) {
        let short = |text: String| text.chars().take(MAX_TEXT).collect();
        let Adapted { setting, from, to, why, .. } = change;
        let (setting, from, to, why) = (short(setting), short(from), short(to), short(why));
        let change = Adapted { setting, from, to, why, ..change };
        self.publish(now, key, LinkChange::WorkerAdapted(change));
    }
}
