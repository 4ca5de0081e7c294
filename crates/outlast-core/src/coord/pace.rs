//! The coordinator's side of adaptation: how often it beats to each worker, and which silence of
//! theirs is too long. Workers of the v1 dialect are left as configured.

use super::links::LinkChange;
use super::{ConnId, Coordinator, Output, Timer};
use crate::Now;
use crate::adapt::{Patience, Setting};
use crate::scheduler::WorkerKey;
use outlast_model::message::Adapted;

/// Characters of what a worker says of a change that are kept.
const MAX_TEXT: usize = 200;

impl Coordinator {
    /// Starts the failure detector of a new link with the learned values.
    pub(super) fn begin_pace(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let c = &self.config;
        let adapts = !c.pins.has(Setting::Heartbeat);
        let fresh = Patience::new(c.heartbeat_interval, c.heartbeat_timeout, adapts, now.mono);
        let member = self.fleet.get_mut(key);
        let away = now.mono.saturating_sub(member.gone);
        let patience = member.patience.get_or_insert_with(|| Box::new(fresh));
        patience.back(away, now.mono);
        self.repace(now, conn, key);
    }

    /// Recomputes the heartbeat interval and the timeout of a worker's link.
    pub(super) fn repace(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let member = self.fleet.get_mut(key);
        let busy = !member.attempts.is_empty();
        let Some(patience) = member.patience.as_mut() else { return };
        let changed = patience.decide(busy, now.mono);
        let (current, longer) = (patience.current(), patience.longer());
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let before = state.heart.next_wake();
        state.heart.set(current, now.mono);
        let next = state.heart.next_wake();
        if next < before && state.inventory.is_none() {
            self.timers.insert((next.max(now.mono + 1), Timer::Conn(conn)));
        }
        if std::mem::replace(&mut state.patience, longer) != longer {
            self.outputs.push_back(Output::Patience(conn, longer));
        }
        if let Some(change) = changed {
            self.tell(now, key, LinkChange::Adapted(change));
        }
    }

    /// A worker that idled is given work: its loss should be noticed as soon as that of others.
    pub(super) fn wake_pace(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        if self.fleet.get(key).patience.as_ref().is_some_and(|p| p.is_stretched()) {
            self.repace(now, conn, key);
        }
    }

    /// A silence ended with what just arrived.
    pub(super) fn on_silence(&mut self, now: Now, conn: ConnId, silence: u64) {
        let Some(state) = self.conns.get(&conn) else { return };
        // Whoever slept himself has learned nothing of others.
        let slept = now.mono.saturating_sub(self.next_wake().max(self.last_tick)) > super::LATE;
        let Some(key) = state.worker.filter(|_| state.heart.is_notable(silence) && !slept) else {
            return;
        };
        if let Some(patience) = self.fleet.get_mut(key).patience.as_mut() {
            patience.survived(silence, now.mono);
            self.repace(now, conn, key);
        }
    }

    pub(super) fn on_answer(&mut self, now: Now, conn: ConnId, key: WorkerKey, seq: u64) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some(rtt) = state.heart.reply(seq, now.mono)
            && let Some(patience) = self.fleet.get_mut(key).patience.as_mut()
        {
            patience.answered(rtt);
        }
    }

    /// The worker changed something of its side.
    pub(super) fn on_adapted(&mut self, now: Now, key: WorkerKey, told: Adapted) {
        let short = |text: String| text.chars().take(MAX_TEXT).collect();
        let Adapted { setting, from, to, why, .. } = told;
        let (setting, from, to, why) = (short(setting), short(from), short(to), short(why));
        let told = Adapted { setting, from, to, why, ..told };
        self.tell(now, key, LinkChange::WorkerAdapted(told));
    }
}
