//! Consistency of a coordinator's memory, between its tasks, the fleet, the queue, timers and whatever waits for
//! the disk; and the snapshot of a store that applied all its records.

use super::coordinator::Coordinator;
use super::task::Task;
use super::timers::Timer;
use crate::invariants::{Checked, must};
use crate::records::{Asked, CoordSnapshot, TaskRow, TaskState, WorkerRow};
use crate::{AttemptId, Epoch, TaskId};
use std::sync::Arc;

/// A task's attempt at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The newest attempt.
    pub epoch: Epoch,
    /// The store id of the worker that has it, while one has.
    pub worker: Option<Arc<str>>,
    /// Set when a person cancelled it.
    pub cancelling: bool,
    /// Set while it is to be paused.
    pub paused: bool,
    /// Set once its start is known.
    pub started: bool,
}

impl Coordinator {
    /// Returns the attempt of a task in memory.
    pub fn glance(&self, id: &TaskId) -> Option<Glance> {
        let task = self.tasks.get(id)?;
        Some(Glance {
            epoch: task.epoch,
            worker: task.worker().map(|key| self.fleet.get(key).row.store_id.clone()),
            cancelling: task.is_cancelling(),
            paused: task.paused,
            started: task.started_at().is_some(),
        })
    }

    /// Returns the attempts that a worker is taken to hold, by its store id.
    pub fn held_by(&self, store_id: &str) -> Vec<AttemptId> {
        let key = self.fleet.by_store(store_id);
        key.map_or_else(Vec::new, |key| self.fleet.get(key).held.attempts.keys().cloned().collect())
    }

    /// Checks what must hold after every input.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn invariants(&self) -> Result<(), String> {
        self.check_tasks()?;
        self.check_workers()?;
        self.check_links()?;
        self.check_queues()?;
        self.fleet.invariants()?;
        self.scheduler.invariants()
    }

    fn check_tasks(&self) -> Checked {
        let mut waiting = 0;
        for (id, task) in self.tasks.unordered() {
            let queued = self.scheduler.is_waiting(id);
            waiting += usize::from(queued);
            let what = |what: &str| format!("{id}.{} {:?} {what}", task.epoch, task.state());
            match task.state() {
                TaskState::Pending => self.check_pending(id, task, queued)?,
                TaskState::Assigned => {
                    let held =
                        task.worker().and_then(|key| self.fleet.find(key)).is_some_and(|m| {
                            m.held.attempts.keys().any(|a| a.task == *id && a.epoch == task.epoch)
                        });
                    must(held, || what("is not held by its worker"))?;
                    must(!queued && task.due().is_none(), || what("waits"))?;
                    must(task.epoch > task.after, || what("has no epoch of its own"))?;
                }
                _ => {
                    must(!queued && task.due().is_none() && task.worker().is_none(), || {
                        what("waits")
                    })?;
                    must(task.asked == Asked::default(), || what("is asked for something"))?;
                }
            }
            self.tasks.check_task(id, task)?;
        }
        must(waiting == self.scheduler.waiting(), || {
            format!("{waiting} tasks wait, and {} are queued", self.scheduler.waiting())
        })
    }

    fn check_pending(&self, id: &TaskId, task: &Task, queued: bool) -> Checked {
        let what = |what: &str| format!("{id}.{} is pending, and {what}", task.epoch);
        let blank = task.worker().is_none() && !task.is_cancelling() && task.started_at().is_none();
        must(blank, || what("has what only an attempt has"))?;
        let waits = !task.paused && task.due().is_none();
        must(queued == waits, || what(&format!("queued: {queued}, to be queued: {waits}")))?;
        must(task.due().is_none_or(|at| self.recover.waits(at, id)), || what("is never due"))?;
        let avoids = task.recovery.as_ref();
        let avoids = avoids.is_some_and(|r| !r.avoid.is_empty() || r.avoid_hardware.is_some());
        must(!avoids || self.recover.avoidance_ends(id), || what("avoids workers without end"))
    }

    fn check_workers(&self) -> Checked {
        for (key, m) in self.fleet.iter() {
            let name = &m.row.name;
            self.recover.check_worker(m)?;
            let able = !m.link.draining && !m.row.drained && !m.is_unfit() && m.takes_work();
            let offered = m.link.conn.is_some() && m.link.ready && able;
            let load = offered.then(|| m.room());
            let known = self.scheduler.load_of(key);
            must(load == known, || format!("{name} is offered with {known:?}, and has {load:?}"))?;
            if let Some(conn) = m.link.conn {
                let linked = self.conns.get(&conn).is_some_and(|c| c.worker == Some(key));
                must(linked, || format!("{name} has link {conn}, which is not its own"))?;
                continue;
            }
            for id in m.held.attempts.keys() {
                let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
                must(current, || {
                    format!("{name} is away, and holds {}.{} for nothing", id.task, id.epoch)
                })?;
            }
            let ends = m.held.attempts.is_empty() || self.timers.has(Timer::Window(key));
            must(ends, || format!("{name} is away, and its windows do not end"))?;
        }
        let strangers: Vec<_> =
            self.scheduler.offered().filter(|key| self.fleet.find(*key).is_none()).collect();
        must(strangers.is_empty(), || format!("workers {strangers:?} are offered, and not known"))?;
        must(self.timers.has(Timer::Upkeep), || "nothing is balanced any more".into())
    }

    fn check_links(&self) -> Checked {
        for (conn, state) in &self.conns {
            must(self.timers.has(Timer::Link(*conn)), || format!("link {conn} has no timer"))?;
            let loads = self.loads.of_link(*conn);
            must(loads == usize::from(!state.arrivals.is_empty()), || {
                format!("{} messages of link {conn} wait for {loads} loads", state.arrivals.len())
            })?;
            let Some(key) = state.worker else { continue };
            let known = self.fleet.find(key).is_some_and(|m| m.has_link(*conn));
            must(known, || format!("link {conn} is of a worker that does not have it"))?;
        }
        Ok(())
    }

    /// Checks that whatever waits for the disk is in order, and not durable yet.
    fn check_queues(&self) -> Checked {
        self.journal.invariants()?;
        must(self.loads.missed() == 0, || "a decision rests on facts that were not loaded".into())?;
        let settled = self.settled();
        self.tasks.check_waits(&self.journal, settled)?;
        self.undurable.check_waits(&self.journal, settled)
    }

    /// Checks that nothing is left in memory once every task has ended and everything is acknowledged and durable.
    ///
    /// # Errors
    /// The first thing that is never freed.
    pub fn leftovers(&self) -> Result<(), String> {
        let mut counts = vec![
            ("waiting tasks", self.scheduler.waiting()),
            ("outputs", self.journal.held()),
            ("loads", self.loads.len()),
        ];
        counts.extend(self.tasks.leftovers());
        counts.extend(self.undurable.leftovers());
        for (what, count) in counts {
            must(count == 0, || format!("{count} {what} are left"))?;
        }
        for (_, m) in self.fleet.iter() {
            must(m.held.attempts.is_empty(), || {
                format!("{} still holds {:?}", m.row.name, m.held.attempts)
            })?;
            let left = m.remembered();
            must(left == 0, || format!("{left} attempts of {} are remembered", m.row.name))?;
        }
        let of_links = |t: &Timer| match t {
            Timer::Link(conn) => self.conns.contains_key(conn),
            Timer::Window(key) => self.fleet.find(*key).is_some(),
            Timer::Upkeep | Timer::Retry => true,
        };
        let timers = self.timers.iter().filter(|t| of_links(t)).count();
        let most = 2 * (self.conns.len() + self.fleet.keys().len() + 1);
        must(timers <= most, || format!("{timers} timers for {} links", self.conns.len()))
    }

    /// Snapshot of a store that has applied all records, as far as memory knows it: the newest process of a
    /// worker is on record once it has reported its inventory.
    pub fn snapshot(&self) -> CoordSnapshot {
        let row = |(id, t): (&TaskId, &Task)| {
            t.row(id, t.worker().map(|key| self.fleet.get(key).row.store_id.clone()))
        };
        // Sorted below: the order of iteration does not show.
        let mut tasks: Vec<TaskRow> =
            self.tasks.unordered().filter(|(_, t)| !t.state().is_terminal()).map(row).collect();
        tasks.sort_by_key(|t| t.number);
        let mut workers = Vec::new();
        for (_, m) in self.fleet.iter() {
            let mut row = WorkerRow::clone(&m.row);
            if m.has_outbox() && m.settled != (row.incarnation, row.connection) {
                (row.incarnation, row.connection) = m.settled;
            }
            let cursors = m.cursors().into_iter().filter(|c| c.seq > 0).map(|c| (c.lane, c.seq));
            workers.push((row, cursors.collect()));
        }
        workers.sort_by(|(a, _): &(WorkerRow, Vec<_>), (b, _)| a.store_id.cmp(&b.store_id));
        let (failures, quarantines, learned) = self.recover.durable();
        let coordinator_id = self.id.clone();
        let last_number = self.tasks.last_number;
        CoordSnapshot {
            coordinator_id,
            last_number,
            tasks,
            workers,
            failures,
            quarantines,
            learned,
        }
    }
}
