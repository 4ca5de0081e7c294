//! The fitness of this machine to start tasks: whether it is fit, who is informed, and when the next probe
//! is due. Without fitness nothing is started.

use super::lock::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Pauses between two probes: the first, and the longest. Each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Time without a fault after which the pauses start again with the first one.
const SETTLED: Duration = Duration::from_secs(60);
/// The watcher of fitness: called with the reason why nothing can be started, or with `None` once it can
/// again.
pub type FitnessWatch = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// The fitness, as its last probe found it.
pub(super) struct Fitness {
    /// Set after the watcher was called, so that no outcome gets there before.
    unfit: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while fitness is probed and reported.
    checking: Mutex<()>,
    watch: OnceLock<FitnessWatch>,
}

struct State {
    reason: Option<String>,
    pause: Duration,
    fit_since: Instant,
    closed: bool,
}

impl Fitness {
    /// A machine that is fit.
    pub fn new() -> Fitness {
        let (pause, fit_since) = (PAUSES.0, Instant::now());
        Fitness {
            unfit: AtomicBool::new(false),
            state: Mutex::new(State { reason: None, pause, fit_since, closed: false }),
            changed: Condvar::new(),
            checking: Mutex::new(()),
            watch: OnceLock::new(),
        }
    }

    /// Waits until nobody else probes.
    pub fn check(&self) -> MutexGuard<'_, ()> {
        lock(&self.checking)
    }

    /// Replaces the reason, which is reported already.
    pub fn still_unfit(&self, reason: String) {
        lock(&self.state).reason = Some(reason);
    }

    /// Sets the watcher; the first one stays.
    pub fn set_watch(&self, watch: FitnessWatch) {
        let _ = self.watch.set(watch);
    }

    /// The reason why nothing can be started, if so; known before the watcher is called.
    pub fn reason(&self) -> Option<String> {
        lock(&self.state).reason.clone()
    }

    /// The same, once the watcher was called.
    pub fn unfit(&self) -> Option<String> {
        match self.unfit.load(Ordering::Acquire) {
            true => lock(&self.state).reason.clone(),
            false => None,
        }
    }

    /// Assumes, without a probe since this thread must not wait, that the machine is unfit.
    pub fn assume(&self, reason: &str) {
        if let Ok(_checking) = self.checking.try_lock()
            && self.unfit().is_none()
        {
            self.set(Some(reason));
        }
    }

    /// Reports the result of a probe, with the guard of [`Fitness::check`] held.
    pub fn set(&self, reason: Option<&str>) {
        let mut state = lock(&self.state);
        match reason {
            Some(_) if state.fit_since.elapsed() > SETTLED => state.pause = PAUSES.0,
            Some(_) => {}
            None => state.fit_since = Instant::now(),
        }
        state.reason = reason.map(ToOwned::to_owned);
        drop(state);
        match reason {
            Some(reason) => tracing::error!("no task can be started here: {reason}"),
            None => tracing::info!("tasks can be started again"),
        }
        if let Some(watch) = self.watch.get() {
            watch(reason);
        }
        self.unfit.store(reason.is_some(), Ordering::Release);
        self.changed.notify_all();
    }

    /// Lets the prober end.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Waits until it is time for the next probe; false at the end.
    pub fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while state.reason.is_none() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        let until = Instant::now() + state.pause;
        state.pause = (state.pause * 2).min(PAUSES.1);
        while !state.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return true };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        false
    }
}
