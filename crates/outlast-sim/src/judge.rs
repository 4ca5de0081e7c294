//! The judgement at the end of a run: when nothing is left to do, and what must hold then.

use crate::peer::WorkerPeer;
use crate::world::World;
use outlast_core::coord::Coordinator;
use outlast_core::worker::Worker;

impl World {
    /// The oracle knows when the coordinator last had a link to each worker.
    pub fn note_links(&mut self) {
        let Some(core) = &self.coord.machine else { return };
        if self.coord.paused_until > self.now {
            return;
        }
        for view in core.workers().iter().filter(|v| v.conn.is_some()) {
            self.oracle.seen.insert(view.row.store_id.clone(), self.now);
        }
    }

    /// Returns whether nothing is left to do.
    pub fn quiet(&self) -> bool {
        let idle = |w: &WorkerPeer| {
            if w.out {
                return true;
            }
            // Its disk never works again: it holds nothing, and its unacknowledged records are known.
            if w.peer.disk_full_until == u64::MAX {
                let held =
                    w.peer.machine.as_ref().map(|m| (m.load().0, m.load().1, m.unacknowledged()));
                return held == Some((0, 0, 0));
            }
            let load = w.peer.machine.as_ref().map(Worker::load);
            let written = w.peer.queue.is_empty() && w.peer.writing.is_empty();
            load == Some((0, 0, 0)) && written && w.running.is_empty()
        };
        let core = self.coord.machine.as_ref();
        self.now > self.heal_at + 60_000.max(self.v1.watched())
            && !self.copies_unsettled()
            && core.is_some_and(|c| c.leftovers().is_ok())
            && self.coord.queue.is_empty()
            && self.coord.writing.is_empty()
            && self.workers.iter().all(idle)
            && self.v1.idle()
            && self.oracle.owing().is_none()
    }

    /// Judges the end of a run.
    pub fn judge(&mut self) {
        if let Some(worker) = self.oracle.owing() {
            let text =
                format!("{worker} is connected, and it was not reported that all is acknowledged");
            self.oracle.fail(text);
        }
        self.judge_copies();
        self.check_memory();
        if !self.quiet() {
            let load = self.coord.machine.as_ref().map(Coordinator::task_counts);
            let loads: Vec<_> =
                self.workers.iter().map(|w| w.peer.machine.as_ref().map(Worker::load)).collect();
            let fleet: Vec<_> = self.coord.machine.iter().flat_map(Coordinator::workers).collect();
            let fleet: Vec<_> = fleet
                .iter()
                .map(|w| {
                    format!("{} {:?} holds {} of {}", w.row.name, w.state, w.attempts, w.row.slots)
                })
                .collect();
            let left: Vec<_> = self
                .coord
                .store
                .snapshot()
                .tasks
                .iter()
                .map(|t| {
                    let why = self.coord.machine.as_ref().and_then(|core| core.explain(&t.id));
                    format!(
                        "{}.{} {:?} at {:?} ({why:?}) {:?}",
                        t.id,
                        t.epoch,
                        t.state,
                        t.assigned.worker,
                        self.coord.store.history(&t.id)
                    )
                })
                .collect();
            let kept = self.coord.machine.as_ref().and_then(|core| core.leftovers().err());
            let runs: Vec<_> = self.workers.iter().map(|w| w.running.len()).collect();
            let text = format!(
                "I6: no convergence: coordinator {load:?} {kept:?}, workers {loads:?} with {runs:?} runs \
                 {fleet:?}, left {left:?}"
            );
            self.oracle.fail(text);
        }
        self.oracle.converged(&self.coord.store, &self.blobs);
        let snapshot = self.coord.store.snapshot();
        if !snapshot.tasks.is_empty() && self.oracle.wrong.is_none() {
            let text = format!("I9: memory is empty, the store has {:?}", snapshot.tasks);
            self.oracle.wrong = Some(text);
        }
    }
}
