//! What is asked of each running attempt, for those that ask for it.

use crate::local::{Attempt, Control};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Control by attempt; an attempt of which nothing was asked has none.
#[derive(Default)]
pub(super) struct Controls(Mutex<HashMap<Attempt, watch::Sender<Control>>>);

impl Controls {
    fn map(&self) -> MutexGuard<'_, HashMap<Attempt, watch::Sender<Control>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is asked of the attempt.
    pub fn set(&self, task: &str, epoch: u64, change: impl FnOnce(&mut Control)) {
        let mut map = self.map();
        let at = Attempt { task: task.to_owned(), epoch };
        map.entry(at).or_default().send_modify(change);
    }

    /// What is asked of it now.
    pub fn get(&self, at: &Attempt) -> Control {
        self.map().get(at).map(|c| *c.borrow()).unwrap_or_default()
    }

    /// The attempt is over.
    pub fn forget(&self, task: &str, epoch: u64) {
        self.map().remove(&Attempt { task: task.to_owned(), epoch });
    }

    /// What is asked, as soon as it differs from `seen`, at the latest after `wait`.
    pub async fn wait(&self, at: &Attempt, seen: Control, wait: Duration) -> Control {
        let mut changes = self.map().entry(at.clone()).or_default().subscribe();
        let differs = tokio::time::timeout(wait, changes.wait_for(|now| *now != seen)).await;
        match differs {
            Ok(Ok(now)) => *now,
            // Over, or nothing new.
            Ok(Err(_)) => Control { cancel: true, ..seen },
            Err(_) => seen,
        }
    }
}
