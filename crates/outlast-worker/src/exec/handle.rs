//! The handle of an attempt that was given to an executor. Pauses are in `pause`, signals in
//! `signals`.

use super::attempt::{Attempt, Phase};
use super::engine::Engine;
use super::lock::lock;
use super::stop::{StopKind, Why};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One attempt that was started. Dropping it changes nothing.
#[derive(Clone)]
pub struct Handle {
    pub(super) engine: Arc<Engine>,
    pub(super) attempt: Arc<Attempt>,
}

impl Handle {
    /// Stops the attempt: SIGTERM to its whole tree, SIGKILL after its grace. Returns at once;
    /// the first stop of an attempt counts.
    pub fn stop(&self, kind: StopKind) {
        self.engine.stop(&self.attempt, kind);
    }

    /// Takes the attempt back if nothing was done for it yet: RETURNED. False: it is too late.
    pub fn recall(&self) -> bool {
        let mut state = lock(&self.attempt.state);
        let waits = state.phase == Phase::Waiting && state.stop.is_none();
        if waits {
            state.stop = Some(Why::Recalled);
            self.attempt.changed.notify_all();
        }
        waits
    }

    /// Returns the start time of its process in Unix ms; `None` before it starts.
    pub fn started_at_ms(&self) -> Option<i64> {
        Some(self.attempt.started.load(Ordering::Relaxed)).filter(|&ms| ms != 0)
    }
}
