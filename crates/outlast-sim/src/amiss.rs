//! Register of what is amiss, each with the time at which it began; an entry goes as soon as it is well again.

use std::collections::BTreeMap;

/// A register of what is amiss.
#[derive(Default)]
pub(crate) struct Amiss {
    /// Time of the next check.
    pub next: u64,
    /// By the coordinator's life and the text.
    since: BTreeMap<(u32, String), u64>,
}

impl Amiss {
    /// Notes what is amiss now, with the time that each may last; returns the first that has lasted longer.
    pub fn update(&mut self, now: u64, life: u32, amiss: BTreeMap<String, u64>) -> Option<String> {
        let (mut since, mut late) = (BTreeMap::new(), None);
        for (what, limit) in amiss {
            let place = (life, what);
            let began = self.since.get(&place).copied().unwrap_or(now);
            if now - began > limit {
                late.get_or_insert(format!("{}, for {} ms without a fault", place.1, now - began));
            }
            since.insert(place, began);
        }
        self.since = since;
        late
    }
}
