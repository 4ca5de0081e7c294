//! Places that tasks waited for in vain, and are not waited for again for a while.

use super::lock::lock;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time for which a place is not waited for again.
const IN_VAIN: Duration = Duration::from_secs(60);
/// Number of places that are remembered.
const PLACES: usize = 64;
/// The places, each with the time at which it was added.
#[derive(Debug, Default)]
pub(super) struct InVain(Mutex<HashMap<PathBuf, Instant>>);

impl InVain {
    /// Returns whether this place was waited for in vain lately.
    pub fn has(&self, place: &Path) -> bool {
        lock(&self.0).get(place).is_some_and(|at| at.elapsed() < IN_VAIN)
    }

    /// Adds a place.
    pub fn add(&self, place: PathBuf) {
        let mut places = lock(&self.0);
        places.retain(|_, at| at.elapsed() < IN_VAIN);
        if places.len() < PLACES {
            places.insert(place, Instant::now());
        }
    }
}
