//! The state that the threads of an executor share: its settings, the table of attempts, and what serves
//! all of them. It knows no thread.

use super::attempt::{Attempt, Phase};
use super::config::Config;
use super::environment::Inherited;
use super::fitness::Fitness;
use super::in_vain::InVain;
use super::lock::lock;
use super::note::{Note, Watch};
use super::oom::Memory;
use super::output::Outputs;
use super::spares::{Orphans, Spares};
use super::stop::{StopKind, Why};
use super::table::Table;
use super::terminated::Terminated;
use super::{logs, tree, user};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

/// The parts that the threads of an executor share.
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) root_id: String,
    pub(super) inherited: Inherited,
    pub(super) extra_env: Mutex<Arc<Vec<(String, String)>>>,
    pub(super) watch: OnceLock<Watch>,
    pub(super) fitness: Fitness,
    pub(super) in_vain: InVain,
    pub(super) terminated: Terminated,
    pub(super) memory: Memory,
    /// Every task's standard input.
    pub(super) null: File,
    /// Orphans of tasks become children of this process.
    pub(super) adopts: bool,
    pub(super) table: Mutex<Table>,
    /// Wakes the supervisor.
    pub(super) wake: Condvar,
    /// An attempt left the table.
    pub(super) left: Condvar,
    pub(super) outputs: Outputs,
    pub(super) spares: Mutex<Spares>,
    pub(super) orphans: Orphans,
    /// The largest resident size of this process so far.
    pub(super) own_peak: AtomicU64,
    /// Bytes of logs since the last pruning.
    pub(super) kept: AtomicU64,
    pub(super) pruning: AtomicBool,
}

impl Engine {
    /// The places of an attempt's files.
    pub(super) fn paths(&self, task: &str, epoch: u64) -> logs::Paths {
        let (root, mut paths) =
            (&self.config.root, logs::Paths::of(&self.config.root, task, epoch));
        if self.config.user.is_some() {
            // Its program has no way to the logs.
            paths.result = user::result_of(root, &format!("{task}.{epoch}"));
        }
        paths
    }

    /// The variables that all tasks get.
    pub(super) fn extra_env(&self) -> Arc<Vec<(String, String)>> {
        Arc::clone(&lock(&self.extra_env))
    }

    /// Passes a note to the watcher.
    pub(super) fn note(&self, attempt: &Attempt, note: Note) {
        if let Some(watch) = self.watch.get() {
            watch(&attempt.task, attempt.epoch, note);
        }
    }

    /// Requests the stop of an attempt.
    pub(super) fn stop(&self, attempt: &Attempt, kind: StopKind) {
        let mut state = lock(&attempt.state);
        if state.phase == Phase::Ended {
            return;
        }
        state.stop.get_or_insert(match kind {
            StopKind::Cancel => Why::Cancelled,
            StopKind::Interrupt => Why::Interrupted,
        });
        drop(state);
        attempt.changed.notify_all();
        self.look_at_stops(Some(attempt.key));
    }

    /// Removes an attempt whose outcome was delivered.
    pub(super) fn forget(&self, attempt: &Attempt) {
        let mut table = lock(&self.table);
        table.running.remove(&attempt.key);
        if table.closed {
            self.left.notify_all();
        }
    }

    /// Makes the supervisor look at the limits no later than this.
    pub(super) fn wake_at(&self, deadline: Instant) {
        let mut table = lock(&self.table);
        table.deadline = Some(table.deadline.map_or(deadline, |d| d.min(deadline)));
        if deadline < table.wakes {
            self.wake.notify_one();
        }
    }

    /// Makes the supervisor look at an attempt's stop, or at the trees that are being ended.
    pub(super) fn look_at_stops(&self, key: Option<u64>) {
        let mut table = lock(&self.table);
        match key {
            Some(key) => table.stops.push(key),
            None => table.look = true,
        }
        self.wake.notify_one();
    }

    /// Notes the largest resident size of this process so far.
    pub(super) fn note_own_peak(&self) {
        if let Some(peak) = tree::peak_rss(std::process::id() as i32) {
            self.own_peak.fetch_max(peak, Ordering::Relaxed);
        }
    }

    /// Makes the supervisor pause or resume an attempt, as its state asks for.
    pub(super) fn look_at_pauses(&self, key: u64) {
        lock(&self.table).pauses.push(key);
        self.wake.notify_one();
    }
}
