//! Reports of changes of links, for those who measure and watch. Nothing is decided by them.

use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::news::{LinkChange, LinkNews, LinkSample};
use super::output::Output;
use crate::Now;
use crate::scheduler::WorkerKey;
use outlast_model::Lane;

impl Coordinator {
    /// All workers at this moment, by name.
    pub fn samples(&self) -> Vec<LinkSample> {
        self.fleet.by_names().map(LinkSample::of).collect()
    }

    /// One worker at this moment, by name or store id.
    pub fn sample(&self, name_or_store: &str) -> Option<LinkSample> {
        let key = self.fleet.named(name_or_store)?;
        self.fleet.find(key).map(LinkSample::of)
    }

    pub(super) fn publish(&mut self, now: Now, key: WorkerKey, what: LinkChange) {
        let row = &self.fleet.get(key).row;
        let (worker, name) = (row.store_id.clone(), row.name.clone());
        self.journal.output(Output::News(LinkNews { worker, name, at: now.wall, what }));
    }

    /// Ends the resynchronization of a worker once it has nothing left to deliver.
    pub(super) fn settle_resync(&mut self, now: Now, conn: ConnId, key: WorkerKey) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let Some(resync) = &state.resync else { return };
        let member = self.fleet.get_mut(key);
        let ready = member.link.ready;
        let applied = |(lane, seq): &(Lane, u64)| member.cursor(*lane).is_none_or(|c| *c >= *seq);
        if ready && resync.owed.iter().all(applied) {
            let took = now.mono.saturating_sub(resync.since);
            state.resync = None;
            self.publish(now, key, LinkChange::Resynced(took));
        }
    }
}
