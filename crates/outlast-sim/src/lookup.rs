//! The loads that the coordinator's core asks for: read from its store and its blobs, as a driver's thread does it,
//! some of them late, some only at the second try.

use crate::event::Event;
use crate::world::World;
use outlast_core::coord::{Fact, LoadId, Query};
use outlast_store::sim::SimCoordStore;
use rand::Rng;

/// The store's answer to a query; blobs are there if `has_blob` says so.
pub(crate) fn fact(
    store: &SimCoordStore,
    query: &Query,
    has_blob: impl FnOnce(&[u8]) -> bool,
) -> Fact {
    match query {
        Query::Task(id) => Fact::Task(store.committed_row(id).map(Box::new)),
        Query::Former(id) => Fact::Epoch(store.former(id)),
        Query::Owned(..) | Query::Key(_) => Fact::Is(true),
        Query::Blob(manifest, _) => Fact::Is(has_blob(manifest)),
        Query::Attempts(id, worker) => Fact::Attempts(store.attempts(id, worker)),
        Query::Given(id, epoch) => Fact::Given(store.given(id, *epoch)),
        Query::State(id) => Fact::State(store.committed_told(id).0),
        Query::Checkpoints(id) => Fact::Checkpoints(store.committed_told(id).1),
    }
}

impl World {
    /// The core asks for facts: they are read some time from now.
    pub fn coord_loads(&mut self, load: LoadId, queries: Vec<Query>) {
        let life = self.coord.life;
        let took = match self.loads.random_range(0..100) {
            0..70 => 0,
            70..95 => self.loads.random_range(1..20),
            95..99 => self.loads.random_range(100..1_500),
            // The store cannot be read at first.
            _ => {
                self.count("a load that failed at first", 1);
                self.loads.random_range(2_000..8_000)
            }
        };
        self.at(self.now + took, Event::CoordReads(life, load, queries));
    }

    /// The facts are read; the core has them at once, or some time later.
    pub fn coord_reads(&mut self, load: LoadId, queries: &[Query]) {
        let facts: Vec<Fact> = queries.iter().map(|query| self.coord_fact(query)).collect();
        let took = if self.loads.random_bool(0.8) { 0 } else { self.loads.random_range(1..3_000) };
        if took > 0 {
            self.count("a load that came late", 1);
        }
        let life = self.coord.life;
        self.at(self.now + took, Event::CoordLoaded(life, load, facts));
    }

    fn coord_fact(&mut self, query: &Query) -> Fact {
        let now = self.now;
        let blobs = &mut self.blobs;
        let has_blob = |manifest: &[u8]| match blobs.get_mut(manifest) {
            Some(pinned) => {
                *pinned = now;
                true
            }
            None => false,
        };
        let mut fact = fact(&self.coord.store, query, has_blob);
        self.plant_in_fact(query, &mut fact);
        fact
    }
}
