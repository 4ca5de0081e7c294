//! A copy of a worker's state folder that runs as a second worker, as when a machine is cloned.

use crate::event::Event;
use crate::peer::WorkerPeer;
use crate::world::World;
use outlast_core::AttemptId;

/// Earliest time at which the folder is copied, and the span after that within which it is, in
/// virtual milliseconds.
const COPIED: (u64, u64) = (20_000, 200_000);
/// Time after the faults within which both may be there, in virtual milliseconds: the older one dials
/// twice, up to a minute apart.
const SETTLED: u64 = 300_000;

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
        self.oracle.copies.copied(self.workers[of].store_id.clone(), held);
        // It may have been opened before, and have reached nobody.
        let opened = self.heal_seed / 64 % 3;
        (0..opened).for_each(|_| drop(store.open()));
        let blobs = self.workers[of].blobs.clone();
        let copy = &mut self.workers[i];
        (copy.peer.store, copy.blobs, copy.out) = (store, blobs, false);
        let later = [0, 5_000, 60_000][(self.heal_seed / 16 % 3) as usize];
        self.say(|| format!("FAULT worker {of} is copied, and opened {opened} times"));
        self.count("copied folder", 1);
        self.at(self.now + later, Event::StartWorker(i));
    }

    /// A worker learned that another process uses a copy of its folder: it is not started again.
    pub fn note_copied(&mut self, i: usize) {
        let core = self.workers[i].peer.machine.as_ref();
        let Some(why) = core.and_then(|core| core.copied()).map(ToOwned::to_owned) else { return };
        let store = self.workers[i].store_id.clone();
        if !self.oracle.copies.are_of(Some(&store)) {
            let text = format!("worker {i} was taken for a copy, and there is none: {why}");
            self.oracle.fail(text);
        }
        (self.workers[i].out, self.workers[i].drains) = (true, Some(false));
    }

    /// The original whose copy runs beside it.
    fn twins(&self) -> Option<usize> {
        let lives = |w: &WorkerPeer| !w.out && w.peer.machine.is_some();
        let copy = self.workers.last().filter(|w| lives(w))?;
        copy.copy_of.filter(|of| lives(&self.workers[*of]))
    }

    /// Returns whether it is too early to say that both go on.
    pub fn copies_unsettled(&self) -> bool {
        self.now < self.heal_at + SETTLED && self.twins().is_some()
    }

    /// Two that are one cannot both go on.
    pub fn judge_copies(&mut self) {
        if let Some(of) = self.twins() {
            let text = format!("worker {of} and its copy both go on");
            self.oracle.fail(text);
        }
    }
}
