//! Consistency of delays, avoidance and quarantines; and their rows in a store.

use super::State;
use crate::TaskId;
use crate::coord::workers::{Isolation, Member};
use crate::invariants::{Checked, must};
use crate::recovery::{Failure, Learned, Quarantine};
use std::sync::Arc;

/// Failures, quarantines and knobs, as a store has them.
pub type Durable = (Vec<Failure>, Vec<(Arc<str>, Quarantine)>, Vec<Learned>);

impl State {
    /// Returns whether a retry is due at this time.
    pub fn waits(&self, at: crate::Millis, id: &TaskId) -> bool {
        self.due.contains(&(at, id.clone()))
    }

    /// Returns whether a task stops avoiding workers at some time.
    pub fn avoidance_ends(&self, id: &TaskId) -> bool {
        self.patience.iter().any(|(_, task)| task == id)
    }

    /// Returns the first contradiction between a worker and its quarantine.
    pub fn check_worker(&self, member: &Member) -> Checked {
        let (store, name) = (&member.row.store_id, &member.row.name);
        let known = self.quarantine.contains_key(store);
        must(known == (member.isolation != Isolation::Free), || {
            format!("{name} is {:?}, in quarantine: {known}", member.isolation)
        })?;
        let ends = self.probation.iter().any(|(_, s)| s == store);
        must(ends || member.isolation != Isolation::Out, || {
            format!("the quarantine of {name} has no end")
        })
    }

    /// Rows of a store that applied all records.
    pub fn durable(&self) -> Durable {
        let quarantines = self.quarantine.iter().map(|(w, q)| (w.clone(), Quarantine::clone(q)));
        let learned = self.learned.values().map(|l| Learned::clone(l));
        (self.history.all().cloned().collect(), quarantines.collect(), learned.collect())
    }
}
