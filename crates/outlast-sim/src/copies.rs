//! A copy of a worker's state folder that runs as a second worker, as when a machine is cloned.
//!
//! Of a task that must not run twice the promise is: what did not wait in the folder when it was
//! copied never does; what waited there may, where the copy is let in while the original cannot be
//! reached. And one of the two ends for good once both have spoken. What the two held at the time
//! of the copy, or did while both were let in in turn, is not judged otherwise: they number their
//! outboxes alike.

use crate::oracle::Oracle;
use crate::peers::WorkerPeer;
use crate::world::{Event, World};
use outlast_core::{AttemptId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// When the folder is copied at the earliest, and within how long after that, in milliseconds.
const COPIED: (u64, u64) = (20_000, 200_000);
/// How long after the faults ended both may be there, in milliseconds: the older one dials twice, up
/// to a minute apart.
const SETTLED: u64 = 300_000;

/// Which worker is copied in this seed, if one is. No draw, so that other choices stay.
pub(crate) fn original(seed: u64, workers: usize) -> Option<usize> {
    seed.is_multiple_of(4).then_some((seed / 4) as usize % workers)
}

/// The copy, before it is made.
pub(crate) fn slot(of: &WorkerPeer, original: usize) -> WorkerPeer {
    WorkerPeer {
        slots: of.slots,
        gpu: of.gpu,
        copy_of: Some(original),
        out: true,
        ..WorkerPeer::new(of.peer.store.clone(), of.name.clone(), of.store_id.clone())
    }
}

/// What the oracle knows of copies.
#[derive(Default)]
pub(crate) struct Copies {
    /// Stores of which there is a copy.
    stores: BTreeSet<Arc<str>>,
    /// What waited in the folder when it was copied.
    waited: BTreeSet<TaskId>,
}

impl Copies {
    /// Whether this may run twice though it must not.
    pub fn waited(&self, task: &TaskId) -> bool {
        self.waited.contains(task)
    }
    /// Whether two may have spoken for what this worker did.
    pub fn spoke_for(&self, worker: Option<&Arc<str>>) -> bool {
        worker.is_some_and(|worker| self.stores.contains(worker))
    }
}

impl Oracle {
    fn copied(&mut self, store: Arc<str>, held: impl Iterator<Item = AttemptId>) {
        self.copies.stores.insert(store);
        self.copies.waited.extend(held.map(|id| id.task));
    }
}

impl World {
    /// Sets the time at which the folder is copied.
    pub fn plan_copy(&mut self) {
        if self.workers.last().is_some_and(|w| w.copy_of.is_some()) {
            let at = COPIED.0 + self.heal_seed.wrapping_mul(7_919) % COPIED.1;
            self.at(at, Event::Copy);
        }
    }

    /// The folder of a worker is copied, whatever it does; the copy starts now or later.
    pub fn copy(&mut self) {
        let Some(i) = self.workers.len().checked_sub(1) else { return };
        let Some(of) = self.workers[i].copy_of else { return };
        let mut store = self.workers[of].peer.store.clone();
        // What was not synced is not in it.
        store.crash();
        let held = store.snapshot().attempts;
        let held = held.into_iter().map(|a| AttemptId { task: a.task, epoch: a.epoch });
        self.oracle.copied(self.workers[of].store_id.clone(), held);
        // It may have been started, and have failed to reach anybody, before.
        let opened = self.heal_seed / 64 % 3;
        (0..opened).for_each(|_| drop(store.open()));
        let blobs = self.workers[of].blobs.clone();
        let copy = &mut self.workers[i];
        (copy.peer.store, copy.blobs, copy.out) = (store, blobs, false);
        let later = [0, 5_000, 60_000][(self.heal_seed / 16 % 3) as usize];
        self.say(|| format!("FAULT worker {of} is copied, and opened {opened} times"));
        *self.faults.entry("copied folder").or_default() += 1;
        self.at(self.now + later, Event::StartWorker(i));
    }

    /// A worker was told that another process uses a copy of its folder: it is not started again.
    pub fn note_copied(&mut self, i: usize) {
        let core = self.workers[i].peer.machine.as_ref();
        let Some(why) = core.and_then(|core| core.copied()).map(ToOwned::to_owned) else { return };
        let store = self.workers[i].store_id.clone();
        if !self.oracle.copies.spoke_for(Some(&store)) {
            let text = format!("worker {i} was taken for a copy, and there is none: {why}");
            self.oracle.wrong.get_or_insert(text);
        }
        self.workers[i].out = true;
    }

    /// Two that are one and both go on.
    fn twins(&self) -> Option<usize> {
        let lives = |w: &WorkerPeer| !w.out && w.peer.machine.is_some();
        let copy = self.workers.last().filter(|w| lives(w))?;
        copy.copy_of.filter(|of| lives(&self.workers[*of]))
    }

    /// Whether it is too early to say that both go on.
    pub fn copies_unsettled(&self) -> bool {
        self.now < self.heal_at + SETTLED && self.twins().is_some()
    }

    /// Two that are one cannot both go on.
    pub fn judge_copies(&mut self) {
        if let Some(of) = self.twins() {
            let text = format!("worker {of} and its copy both go on");
            self.oracle.wrong.get_or_insert(text);
        }
    }
}
