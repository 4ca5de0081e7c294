//! Requests to each running attempt, for tasks that query them.

use crate::local::{Attempt, Control};
use outlast_core::worker::StopKind;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Control by attempt; an attempt of which nothing was asked has none.
#[derive(Default)]
pub(super) struct Controls(Mutex<HashMap<Attempt, Asked>>);

#[derive(Default)]
struct Asked {
    control: watch::Sender<Control>,
    /// Kind of the requested stop, if there is one.
    stop: Option<StopKind>,
}

impl Controls {
    fn map(&self) -> MutexGuard<'_, HashMap<Attempt, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the requests to an attempt.
    pub fn set(&self, task: &str, epoch: u64, change: impl FnOnce(&mut Control)) {
        let mut map = self.map();
        let at = Attempt { task: task.to_owned(), epoch };
        map.entry(at).or_default().control.send_modify(change);
    }

    /// The attempt is to be stopped; the first reason counts.
    pub fn stop(&self, task: &str, epoch: u64, kind: StopKind) {
        let mut map = self.map();
        let asked = map.entry(Attempt { task: task.to_owned(), epoch }).or_default();
        asked.stop.get_or_insert(kind);
        asked.control.send_modify(|c| c.cancel = true);
    }

    /// Returns the kind of the requested stop, if there was one.
    pub fn stopped(&self, task: &str, epoch: u64) -> Option<StopKind> {
        self.map().get(&Attempt { task: task.to_owned(), epoch }).and_then(|a| a.stop)
    }

    /// Returns the current requests.
    pub fn get(&self, at: &Attempt) -> Control {
        self.map().get(at).map(|a| *a.control.borrow()).unwrap_or_default()
    }

    /// Removes an attempt that has ended.
    pub fn forget(&self, task: &str, epoch: u64) {
        self.map().remove(&Attempt { task: task.to_owned(), epoch });
    }

    /// Waits for requests that differ from `seen`, at the latest until `wait` has passed.
    pub async fn wait(&self, at: &Attempt, seen: Control, wait: Duration) -> Control {
        let mut changes = self.map().entry(at.clone()).or_default().control.subscribe();
        let differs = tokio::time::timeout(wait, changes.wait_for(|now| *now != seen)).await;
        match differs {
            Ok(Ok(now)) => *now,
            // Over, or nothing new.
            Ok(Err(_)) => Control { cancel: true, ..seen },
            Err(_) => seen,
        }
    }
}
