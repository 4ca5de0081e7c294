//! Memory of recovery: failures, quarantines, and settings that worked.

mod invariants;

use super::config::CoordConfig;
use crate::recovery::patterns::History;
use crate::recovery::{Learned, Quarantine};
use crate::{Millis, Now, TaskId};
use rand::{SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct State {
    pub rng: SmallRng,
    /// The wall clock at the last tick.
    pub wall: i64,
    pub history: History,
    /// Quarantines by store id.
    pub quarantine: BTreeMap<Arc<str>, Arc<Quarantine>>,
    /// Knob values that worked, by type and hardware.
    pub learned: BTreeMap<(String, String), Arc<Learned>>,
    /// Times of pending retries.
    pub due: BTreeSet<(Millis, TaskId)>,
    /// Times from which on tasks that avoid workers may go to any.
    pub patience: BTreeSet<(Millis, TaskId)>,
    /// Times from which on quarantined workers may get a probe.
    pub probation: BTreeSet<(Millis, Arc<str>)>,
}

impl State {
    pub fn new(config: &CoordConfig, now: Now) -> State {
        State {
            rng: SmallRng::seed_from_u64(config.seed),
            wall: now.wall,
            history: History::default(),
            quarantine: BTreeMap::new(),
            learned: BTreeMap::new(),
            due: BTreeSet::new(),
            patience: BTreeSet::new(),
            probation: BTreeSet::new(),
        }
    }

    pub fn see(&mut self, now: Now) {
        self.wall = now.wall;
    }

    pub fn next_due(&self) -> Millis {
        self.due.first().map_or(Millis::MAX, |(at, _)| *at)
    }
}
