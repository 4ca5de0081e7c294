//! The coordinator's state machine: what it owns, and how it is driven.

use super::config::{CoordConfig, LATE, MOVE_PATIENCE};
use super::conn::Conn;
use super::counters::Counters;
use super::ids::ConnId;
use super::loads::Loads;
use super::memory::Tasks;
use super::output::Output;
use super::recover_state::State;
use super::task::Task;
use super::timers::{Timer, Timers};
use super::undurable::Undurable;
use super::v1;
use super::workers::Fleet;
use crate::journal::Journal;
use crate::records::{CoordRecord, CoordSnapshot, TaskRow, TaskState};
use crate::scheduler::{Scheduler, Wish, WorkerKey};
use crate::{Machine, Millis, Now, Step, TaskId, Wake};
use outlast_model::Cause;
use outlast_model::message::ToWorker;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Time between two rounds of upkeep, in milliseconds.
const UPKEEP_EVERY: Millis = 1_000;

/// The state machine of a coordinator.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: CoordConfig,
    pub(super) id: Arc<str>,
    /// Tasks in memory.
    pub(super) tasks: Tasks,
    /// Workers, connected or not.
    pub(super) fleet: Fleet,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    /// Tasks that wait, and workers with room.
    pub(super) scheduler: Scheduler,
    /// Failures, quarantines and settings that worked.
    pub(super) recover: State,
    pub(super) timers: Timers,
    /// Records and outputs on their way.
    pub(super) journal: Journal<CoordRecord, Output>,
    /// Queries of the store on their way.
    pub(super) loads: Loads,
    pub(super) undurable: Undurable,
    pub(super) counters: Counters,
}

impl Machine for Coordinator {
    type Record = CoordRecord;
    type Output = Output;
    type Timer = Timer;

    fn poll(&mut self) -> Option<Step<CoordRecord, Output>> {
        self.journal.next()
    }

    fn next_wake(&self) -> Wake<Timer> {
        let retry = (self.recover.next_due(), Timer::Retry);
        let (at, why) = self.timers.next().map_or(retry, |timer| timer.min(retry));
        Wake { at, why }
    }

    fn on_tick(&mut self, now: Now) {
        let expected = self.next_wake().at.max(self.timers.last_tick);
        let gap = now.mono.saturating_sub(expected);
        self.timers.last_tick = now.mono;
        self.recover.see(now);
        if gap > LATE {
            self.forgive(now, gap);
        }
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Link(conn) => self.on_conn_timer(now, conn),
                Timer::Window(key) => self.on_window(now, key),
                Timer::Upkeep => self.on_upkeep(now),
                Timer::Retry => {}
            }
        }
        self.retry_due(now);
        self.schedule(now);
    }
}

impl Coordinator {
    /// Goes on from what is durable. Workers that had tasks are given their whole reconnect
    /// window from now.
    pub fn new(config: CoordConfig, snapshot: CoordSnapshot, now: Now) -> Self {
        let mut c = Coordinator {
            id: snapshot.coordinator_id,
            tasks: Tasks::with_capacity(snapshot.tasks.len(), snapshot.last_number),
            fleet: Fleet::admitting(config.admit_per_second, config.admit_burst),
            conns: BTreeMap::new(),
            scheduler: Scheduler::default(),
            recover: State::new(&config, now),
            timers: Timers::from(now.mono),
            journal: Journal::default(),
            loads: Loads::default(),
            undurable: Undurable::default(),
            counters: Counters::default(),
            config,
        };
        for (row, cursors) in snapshot.workers {
            c.fleet.insert(row, &cursors, now.mono);
        }
        c.load_recovery(now, snapshot.failures, snapshot.quarantines, snapshot.learned);
        c.load_tasks(now, snapshot.tasks);
        for key in c.fleet.keys() {
            c.arm_window(now, key);
        }
        c.timers.set(now.mono + UPKEEP_EVERY, Timer::Upkeep);
        c
    }

    /// At start: tasks wait again, or are held by the workers that had them.
    fn load_tasks(&mut self, now: Now, rows: Vec<TaskRow>) {
        let mut orphaned = Vec::new();
        for row in rows {
            let id = row.id.clone();
            let holder = row.assigned.worker.as_ref().map(|w| self.fleet.by_store(w));
            let task = self.tasks.remember(row);
            let (place, awaits) = (task.asked.place.clone(), task.asked.awaited.is_some());
            let waits = task.state() != TaskState::Assigned;
            match holder.flatten() {
                _ if waits => {}
                Some(key) => {
                    task.adopt(key);
                    let (epoch, slots) = (task.epoch, task.spec.slots);
                    self.fleet.get_mut(key).hold(id.clone(), epoch, slots);
                }
                None => orphaned.push(id.clone()),
            }
            if let Some((_, there)) = place {
                let patience = if there { MOVE_PATIENCE.1 } else { MOVE_PATIENCE.0 };
                self.tasks.placed.insert((now.mono + patience, id.clone()));
            }
            if awaits {
                self.tasks.awaiting.insert(id.clone(), now.mono);
            }
            if waits {
                self.load_due(now, &id);
                self.enqueue(&id);
            }
        }
        for id in orphaned {
            self.lose(now, &id, "its worker is not known any more", Cause::Lost, None);
        }
    }

    fn on_upkeep(&mut self, now: Now) {
        self.balance();
        self.unplace(now);
        self.relieve(now);
        self.end_awaiting(now);
        self.end_patience(now);
        self.end_probation(now);
        self.timers.set(now.mono + UPKEEP_EVERY, Timer::Upkeep);
    }

    /// Handles that everything up to this batch is durable.
    pub fn on_persisted(&mut self, batch: u64) {
        self.journal.persisted(batch);
        self.forget_durable();
    }

    /// The newest batch that any fact from the store includes: memory need not keep what is in it.
    pub(super) fn settled(&self) -> u64 {
        self.loads.settled(self.journal.durable())
    }

    /// Forgets what the store has by now, and every fact that is still to come includes.
    pub(super) fn forget_durable(&mut self) {
        let settled = self.settled();
        self.undurable.forget_settled(settled);
        self.tasks.forget_settled(settled);
    }

    /// UUID of this coordinator's store.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Returns the counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts of tasks: those in memory, and those that wait for a worker.
    pub fn task_counts(&self) -> (usize, usize) {
        (self.tasks.len(), self.scheduler.waiting())
    }

    /// Returns true if a worker, by its store id, holds more tasks than its slots run at once.
    pub fn has_work_ahead(&self, store_id: &str) -> bool {
        let worker = self.fleet.by_store(store_id);
        worker.is_some_and(|key| self.fleet.get(key).has_work_ahead())
    }

    /// Workers that were given a later time of admission, and are not back.
    pub fn postponed(&self) -> usize {
        self.fleet.admission.waiting()
    }

    /// Blobs that checkpoints refer to, or may soon, which the store does not know yet.
    pub fn unsynced_blobs(&self) -> impl Iterator<Item = &outlast_model::Bytes> {
        self.undurable.blobs.iter().map(|(_, manifest)| manifest).chain(self.loads.blobs())
    }

    /// Explains why a task waits; `None` if it does not.
    pub fn explain(&self, task: &TaskId) -> Option<String> {
        let waits = || Some(self.with_unfit(self.with_quarantine(self.scheduler.explain(task)?)));
        let due = || self.explain_due(task);
        due().or_else(|| self.explain_awaited(task)).or_else(waits)
    }

    /// The batch of what was decided and not handed out yet, if there is any.
    pub fn open_batch(&self) -> Option<u64> {
        self.journal.has_records().then_some(self.journal.open())
    }

    pub(super) fn send(&mut self, conn: ConnId, message: ToWorker) {
        for output in self.on_link(conn, message) {
            self.journal.release(output);
        }
    }

    /// Sends tasks to the worker that they are assigned to.
    pub(super) fn send_assignments(&mut self, now: Now, key: WorkerKey, ids: &[TaskId]) {
        match self.fleet.get(key).has_outbox() {
            true => self.send_assigned(now, key, ids),
            false => self.assign_v1(now, key, ids),
        }
    }

    /// Translates a message for this link.
    pub(super) fn on_link(&self, conn: ConnId, message: ToWorker) -> Vec<Output> {
        match self.conns.get(&conn).is_some_and(|c| c.v1.is_some()) {
            false => vec![Output::Send(conn, message)],
            true => v1::translate(message).into_iter().map(|m| Output::SendV1(conn, m)).collect(),
        }
    }

    /// Lets a pending task wait for a worker.
    pub(super) fn enqueue(&mut self, id: &TaskId) {
        let waits = |t: &&Task| !t.paused && t.due().is_none();
        let Some(task) = self.tasks.get(id).filter(waits) else { return };
        let mut requires = self.requires_of(task);
        if let Some((worker, there)) = &task.asked.place {
            requires.add_worker(worker, *there);
        }
        // Its worker has it on its own disk.
        let awaited = task.asked.awaited.as_ref();
        if let Some(key) = awaited.and_then(|a| self.fleet.by_store(&a.worker)) {
            requires.add_worker(&self.fleet.get(key).row.name, true);
        }
        let queue = if task.spec.queue.is_empty() { "default" } else { &task.spec.queue };
        self.scheduler.push(&Wish {
            task: id,
            number: task.number,
            priority: task.spec.priority,
            queue,
            slots: task.spec.slots,
            requires: &requires,
        });
    }

    /// The process was stopped or the machine slept: silence meanwhile says nothing.
    pub(super) fn forgive(&mut self, now: Now, gap: Millis) {
        for conn in self.conns.values_mut() {
            conn.monitor.heard(now.mono);
            conn.monitor.beat_soon();
        }
        self.fleet.forgive(gap);
    }
}
