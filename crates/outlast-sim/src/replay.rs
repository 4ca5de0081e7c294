//! I9, field by field: the memory of a machine equals that of one that starts now from its records. And the
//! consistency of that memory in itself.

use crate::world::World;
use outlast_core::AttemptId;
use outlast_core::records::{CoordSnapshot, TaskRow, WorkerSnapshot};
use outlast_model::{Cause, Lane, TaskOutcome};
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Number of events between two checks, which cost as much as some events.
const EVERY: u64 = 100;

fn same<T: PartialEq + Debug>(what: &str, memory: &T, store: &T) -> Result<(), String> {
    if memory == store {
        return Ok(());
    }
    Err(format!("I9: {what}: memory has {memory:?}, and its records make {store:?}"))
}

fn same_task(memory: &TaskRow, store: &TaskRow) -> Result<(), String> {
    let id = &memory.id;
    let of = |what: &str| format!("{what} of {id}");
    same(&of("number"), &memory.number, &store.number)?;
    same(&of("state"), &memory.state, &store.state)?;
    same(&of("epoch"), &(memory.after, memory.epoch), &(store.after, store.epoch))?;
    same(&of("retries"), &memory.losses.retries, &store.losses.retries)?;
    same(&of("worker"), &memory.assigned.worker, &store.assigned.worker)?;
    same(&of("cancel"), &memory.assigned.cancelling, &store.assigned.cancelling)?;
    same(&of("start"), &memory.assigned.started_at, &store.assigned.started_at)?;
    same(&of("pause"), &memory.paused, &store.paused)?;
    same(&of("requests"), &memory.asked, &store.asked)?;
    same(&of("loss"), &memory.losses.lost, &store.losses.lost)?;
    same(&of("checkpoints"), &memory.reported.checkpoints, &store.reported.checkpoints)?;
    same(&of("state version"), &memory.reported.state_version, &store.reported.state_version)?;
    same(&of("recovery"), &memory.recovery, &store.recovery)?;
    same(&of("spec"), &memory.spec, &store.spec)
}

fn same_coordinator(memory: &CoordSnapshot, store: &CoordSnapshot) -> Result<(), String> {
    let ids = |s: &CoordSnapshot| s.tasks.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    same("tasks", &ids(memory), &ids(store))?;
    memory.tasks.iter().zip(&store.tasks).try_for_each(|(a, b)| same_task(a, b))?;
    let names =
        |s: &CoordSnapshot| s.workers.iter().map(|w| w.0.store_id.clone()).collect::<Vec<_>>();
    same("workers", &names(memory), &names(store))?;
    for ((a, cursors), (b, stored)) in memory.workers.iter().zip(&store.workers) {
        let what = format!("worker {}", a.name);
        same(&what, &(&a.name, a.drained), &(&b.name, b.drained))?;
        let seen = |w: &outlast_core::records::WorkerRow| (w.incarnation, w.connection);
        same(&what, &seen(a), &seen(b))?;
        // Of a process that has not said what it holds nothing more is on record.
        if a.nonce == b.nonce {
            same(&what, a, b)?;
        }
        let sorted = |mut all: Vec<(Lane, u64)>| {
            all.sort_unstable();
            all
        };
        let cursors = (sorted(cursors.clone()), sorted(stored.clone()));
        same(&format!("cursors of {what}"), &cursors.0, &cursors.1)?;
    }
    same("last number", &memory.last_number, &store.last_number)?;
    same("failures", &memory.failures, &store.failures)?;
    same("quarantines", &memory.quarantines, &store.quarantines)?;
    same("knobs that worked", &memory.learned, &store.learned)
}

/// `stopped`: attempts that are to end; of such a one the store forgets the row when a newer one arrives.
fn same_worker(
    memory: &WorkerSnapshot,
    mut store: WorkerSnapshot,
    stopped: &BTreeSet<AttemptId>,
) -> Result<(), String> {
    same("coordinator", &memory.coordinator_id, &store.coordinator_id)?;
    // A doubt because of a failing disk is not on record: it reaches the coordinator, or goes with the process.
    for ((_, known), (_, stored)) in memory.outbox.iter().zip(&mut store.outbox) {
        let attempt = |o: &TaskOutcome| (o.task.clone(), o.epoch, o.finished_at_ms);
        if known.cause == Cause::Machine && attempt(known) == attempt(stored) {
            stored.clone_from(known);
        }
    }
    same("results", &memory.outbox, &store.outbox)?;
    same("checkpoints", &memory.checkpoints, &store.checkpoints)?;
    same("states", &memory.states, &store.states)?;
    for row in &mut store.attempts {
        row.started_at = row.started_at.map(|_| 1);
        row.survived = 0;
    }
    store.attempts.sort_by(|a, b| (&a.task, a.epoch).cmp(&(&b.task, b.epoch)));
    let mut known = memory.attempts.clone();
    known.retain(|a| {
        let id = AttemptId { task: a.task.clone(), epoch: a.epoch };
        !stopped.contains(&id)
            || store.attempts.iter().any(|b| (&b.task, b.epoch) == (&a.task, a.epoch))
    });
    same("attempts", &known, &store.attempts)
}

impl World {
    /// Checks that a worker which drained has delivered everything when it ends.
    pub fn check_drain(&mut self, i: usize) {
        let worker = &self.workers[i];
        let Some(core) = worker.peer.machine.as_ref().filter(|_| worker.drains == Some(true))
        else {
            return;
        };
        let (results, (running, waiting, unacked)) = (core.unacknowledged(), core.load());
        let broken = !core.unfit().is_empty();
        if running + waiting + results > 0 || (unacked > 0 && !broken) {
            self.oracle.fail(format!(
                "worker {i} drained, and ended with {running} running and {waiting} waiting; {unacked} records \
                 are not acknowledged, {results} of them results"
            ));
        }
    }

    /// Checks all machines now and then.
    pub fn check_machines(&mut self) {
        if self.events.count.is_multiple_of(EVERY) {
            self.check_memory();
        }
    }

    /// Checks all machines.
    pub fn check_memory(&mut self) {
        if let Err(text) = self.coord_memory() {
            self.oracle.fail(format!("coordinator: {text}"));
        }
        for i in 0..self.workers.len() {
            if let Err(text) = self.worker_memory(i) {
                self.oracle.fail(format!("worker {i}: {text}"));
            }
        }
    }

    fn coord_memory(&self) -> Result<(), String> {
        let Some(core) = &self.coord.machine else { return Ok(()) };
        core.invariants()?;
        // What is decided and not handed to the disk is not in the store.
        if !self.coord.queue.is_empty() || self.bug.is_some() {
            return Ok(());
        }
        let (mut memory, store) = (core.snapshot(), self.coord.store.snapshot());
        if self.workers.iter().any(|w| w.copy_of.is_some()) {
            // Copies of one folder number their checkpoints alike: of two with one number the first is on record.
            for (a, b) in memory.tasks.iter_mut().zip(&store.tasks).filter(|(a, b)| a.id == b.id) {
                a.reported.checkpoints.clone_from(&b.reported.checkpoints);
            }
        }
        same_coordinator(&memory, &store)
    }

    fn worker_memory(&self, i: usize) -> Result<(), String> {
        let worker = &self.workers[i];
        let Some(core) = worker.peer.machine.as_ref().filter(|_| !worker.exited) else {
            return Ok(());
        };
        core.invariants()?;
        if !worker.peer.queue.is_empty() || self.bug.is_some() {
            return Ok(());
        }
        let store = worker.peer.store.snapshot();
        same("loss of the link", &core.has_recorded_loss(), &store.lost.is_some())?;
        let stopped = worker.running.iter().filter(|(_, r)| r.stop.is_some());
        let stopped = stopped.map(|(id, _)| id.clone()).collect();
        same_worker(&core.snapshot(), store, &stopped)
    }
}
