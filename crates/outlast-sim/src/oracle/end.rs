//! The facts at the end of a run: what must be known once everything works again and nothing is left to do.

use super::Oracle;
use crate::world::Blobs;
use outlast_core::AttemptId;
use outlast_store::sim::SimCoordStore;
use outlast_store::{EventKind, StoredEvent};
use std::collections::BTreeSet;

impl Oracle {
    /// A worker that is connected and has unacknowledged results, as far as was reported.
    pub fn owing(&self) -> Option<&str> {
        self.links.iter().find(|(_, (_, done))| !done).map(|(worker, _)| &**worker)
    }

    /// Judges a world in which everything works since long.
    pub fn converged(&mut self, store: &SimCoordStore, blobs: &Blobs) {
        self.no_report_is_lost(store, blobs);
        for id in self.accepted.clone() {
            match store.task_row(&id) {
                Some(row) if row.state.is_terminal() => {}
                Some(row) => self.fail(format!("I6: {id} is still {}", row.state.as_str())),
                None => self.fail(format!("I1: {id} was accepted and is gone")),
            }
        }
        let orphans: BTreeSet<AttemptId> = store
            .orphans()
            .iter()
            .map(|o| AttemptId { task: o.task.clone(), epoch: o.event.epoch })
            .collect();
        for id in self.finished.clone() {
            let two = self.copies.are_of(self.assigned.get(&id));
            if two || self.is_removed(&id.task, id.epoch) {
                continue;
            }
            let tells = |e: &StoredEvent| {
                use EventKind as K;
                let kinds = [K::Succeeded, K::Failed, K::Cancelled, K::Requeued, K::Superseded];
                e.epoch == id.epoch && kinds.contains(&e.kind)
            };
            if !store.history(&id.task).iter().any(tells) && !orphans.contains(&id) {
                self.fail(format!("I1: nothing is known of {}.{}", id.task, id.epoch));
            }
        }
    }

    /// Every checkpoint and state that a worker made durable is known, or its loss is.
    fn no_report_is_lost(&mut self, store: &SimCoordStore, blobs: &Blobs) {
        for ((task, epoch, number), dropped) in self.checkpoints.clone() {
            if !self.accepted.contains(&task)
                || self.is_removed(&task, epoch)
                || self.is_broken(&task, epoch)
            {
                continue;
            }
            let known = store.checkpoints(&task);
            let newest =
                known.iter().filter(|(c, _)| !c.dropped).map(|(c, _)| (c.epoch, c.number)).max();
            let found = known.iter().find(|(c, _)| (c.epoch, c.number) == (epoch, number));
            match found {
                None => self.fail(format!("I4: nothing is known of {task}.{epoch} #{number}")),
                Some((_, false)) if newest == Some((epoch, number)) && !dropped => {
                    self.fail(format!("I4: the newest, {task}.{epoch} #{number}, was not kept"));
                }
                Some((c, true)) => self.restorable(c, blobs),
                _ => {}
            }
        }
        for (task, newest) in self.states.clone() {
            let known = store.state(&task).map_or((0, 0), |s| (s.epoch, s.version));
            let counts = self.accepted.contains(&task)
                && !self.is_removed(&task, newest.0)
                && !self.is_broken(&task, newest.0);
            if counts && known != newest {
                self.fail(format!(
                    "I5: {task} is known at {known:?}, and was reported at {newest:?}"
                ));
            }
        }
    }
}
