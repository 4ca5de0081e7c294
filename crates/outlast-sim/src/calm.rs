//! Progress in bounded time while a worker and its coordinator reach each other and nothing fails: stops, pauses
//! and starts arrive, both sides agree on each attempt, results are acknowledged, windows end.

use crate::peer::WorkerPeer;
use crate::world::World;
use outlast_core::AttemptId;
use outlast_core::coord::{Coordinator, Glance};
use outlast_core::stats::ConnectionState;
use std::collections::{BTreeMap, BTreeSet};

/// Time between two checks, in virtual milliseconds.
const EVERY: u64 = 1_000;
/// Time for which something may be amiss, in milliseconds: messages take up to 3 s, heartbeats come every 10 s.
const SOON: u64 = 25_000;
/// The same time for a pause, which may wait for a checkpoint.
const PAUSE: u64 = 40_000;
/// The same time for the head of each lane: a checkpoint waits for its upload, a state for a narrow link.
const LANES: [u64; 3] = [40_000, 240_000, 240_000];
/// Delay with which a window may end, in milliseconds.
const WINDOW: u64 = 15_000;

impl World {
    /// Checks once a second what must come about while nothing fails.
    pub fn check_calm(&mut self) {
        if self.now < self.amiss.next {
            return;
        }
        self.amiss.next = self.now + EVERY;
        let mut amiss = BTreeMap::new();
        if let Some(core) = self.coord.machine.as_ref().filter(|_| self.coord_is_calm()) {
            for (i, worker) in self.workers.iter().enumerate() {
                if self.oracle.copies.are_of(Some(&worker.store_id)) {
                    continue;
                }
                match self.is_calm(core, worker) {
                    true => compare(core, i, worker, &mut amiss),
                    false => self.note_windows(core, worker, &mut amiss),
                }
            }
        }
        if let Some(text) = self.amiss.update(self.now, self.coord.life, amiss) {
            self.oracle.fail(text);
        }
    }

    fn coord_is_calm(&self) -> bool {
        let c = &self.coord;
        c.paused_until <= self.now
            && c.disk_full_until <= self.now
            && !c.disk_slow
            && self.bug.is_none()
    }

    /// Returns whether the two reach each other, and the worker can write.
    fn is_calm(&self, core: &Coordinator, worker: &WorkerPeer) -> bool {
        let peer = &worker.peer;
        let works =
            peer.paused_until <= self.now && peer.disk_full_until <= self.now && !peer.disk_slow;
        let up =
            |w: &outlast_core::worker::Worker| w.connection_state() == ConnectionState::Connected;
        let Some(link) = worker.link.filter(|_| works && peer.machine.as_ref().is_some_and(up))
        else {
            return false;
        };
        let carries = self.links.get(&link).is_some_and(|l| !l.mute_up && !l.mute_down);
        carries
            && !worker.exited
            && core.worker(&worker.store_id).is_some_and(|v| v.conn == Some(link))
    }

    /// Notes the attempts of a worker that is away: each is lost when its window ends.
    fn note_windows(
        &self,
        core: &Coordinator,
        worker: &WorkerPeer,
        amiss: &mut BTreeMap<String, u64>,
    ) {
        let known = core.worker(&worker.store_id).filter(|v| v.conn.is_none());
        // The worker may have been back for a moment between two checks: then its windows began again.
        let Some(since) = known.map(|v| v.row.connection) else { return };
        for id in core.held_by(&worker.store_id) {
            let Some(spec) = self.specs.get(&id.task) else { continue };
            let window = (spec.reconnect_window * 1000.0) as u64;
            let AttemptId { task, epoch } = id;
            let name = &worker.name;
            let what = format!("{name} is away since connection {since}, and keeps {task}.{epoch}");
            amiss.insert(what, window + WINDOW);
        }
    }
}

/// Notes where the two disagree.
fn compare(core: &Coordinator, i: usize, worker: &WorkerPeer, amiss: &mut BTreeMap<String, u64>) {
    let Some(machine) = &worker.peer.machine else { return };
    let current = |id: &AttemptId| {
        let glance = core.glance(&id.task);
        glance.filter(|g| g.epoch == id.epoch && g.worker.as_ref() == Some(&worker.store_id))
    };
    for (id, run) in
        worker.running.iter().filter(|(_, run)| run.ended.is_none() && run.stop.is_none())
    {
        let mut wrong = |what: &str, limit| {
            amiss.insert(format!("worker {i}: {}.{} {what}", id.task, id.epoch), limit);
        };
        let since = machine.held_spec(&id.task, id.epoch).map_or(0, |(_, since)| since);
        match current(id) {
            None => wrong("runs, and is not current", SOON),
            Some(Glance { cancelling: true, .. }) => wrong("runs, and is cancelled", SOON),
            Some(g) if g.paused != run.paused && since > 0 => {
                wrong(&format!("is to be paused: {}, and is: {}", g.paused, run.paused), PAUSE);
            }
            Some(g) if !g.started && since > 0 => wrong("runs, and nobody knows", SOON),
            Some(_) => {}
        }
    }
    let memory = machine.snapshot();
    let ended = memory.outbox.iter().map(|(_, o)| (o.task.clone(), o.epoch));
    let ended: BTreeSet<AttemptId> = ended.map(|(task, epoch)| AttemptId { task, epoch }).collect();
    let held = core.held_by(&worker.store_id);
    for id in &held {
        if machine.reported(&id.task, id.epoch).is_none() && !ended.contains(id) {
            let what =
                format!("worker {i} is believed to hold {}.{}, and does not", id.task, id.epoch);
            amiss.insert(what, SOON);
        }
    }
    for row in &memory.attempts {
        let id = AttemptId { task: row.task.clone(), epoch: row.epoch };
        if !held.contains(&id) {
            amiss.insert(
                format!("worker {i} holds {}.{}, and nobody knows", id.task, id.epoch),
                SOON,
            );
        }
    }
    let heads = [
        memory.outbox.first().map(|(seq, _)| *seq),
        memory.checkpoints.first().map(|(seq, _)| *seq),
        memory.states.first().map(|(seq, _)| *seq),
    ];
    for ((head, limit), lane) in heads.into_iter().zip(LANES).zip(["result", "checkpoint", "state"])
    {
        if let Some(seq) = head {
            amiss.insert(format!("{lane} {seq} of worker {i} is not taken"), limit);
        }
    }
}
