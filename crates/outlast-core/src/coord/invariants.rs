//! Consistency of a coordinator's memory, between its tasks, the fleet, the queue, timers and whatever waits for
//! the disk; and the snapshot of a store that applied all its records.

use super::{ConnId, Coordinator, Task, Timer};
use crate::invariants::{Checked, must};
use crate::records::{Asked, CoordSnapshot, TaskRow, TaskState, WorkerRow};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Epoch, TaskId};
use std::collections::BTreeSet;
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
            worker: task.worker.map(|key| self.fleet.get(key).row.store_id.clone()),
            cancelling: task.cancelling,
            paused: task.paused,
            started: task.started_at.is_some(),
        })
    }

    /// Returns the attempts that a worker is taken to hold, by its store id.
    pub fn held_by(&self, store_id: &str) -> Vec<AttemptId> {
        let key = self.fleet.by_store(store_id);
        key.map_or_else(Vec::new, |key| self.fleet.get(key).attempts.keys().cloned().collect())
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
        for (id, task) in &self.tasks {
            let queued = self.scheduler.is_waiting(id);
            waiting += usize::from(queued);
            let what = |what: &str| format!("{id}.{} {:?} {what}", task.epoch, task.state);
            match task.state {
                TaskState::Pending => self.check_pending(id, task, queued)?,
                TaskState::Assigned => {
                    let held = task.worker.and_then(|key| self.fleet.find(key)).is_some_and(|m| {
                        m.attempts.keys().any(|a| a.task == *id && a.epoch == task.epoch)
                    });
                    must(held, || what("is not held by its worker"))?;
                    must(!queued && task.due.is_none(), || what("waits"))?;
                    must(task.epoch > task.after, || what("has no epoch of its own"))?;
                }
                _ => {
                    let leaves = self.over.iter().any(|(b, over)| *b == task.over_in && over == id);
                    must(leaves, || what("never leaves memory"))?;
                    must(!queued && task.due.is_none() && task.worker.is_none(), || what("waits"))?;
                    must(task.asked == Asked::default(), || what("is asked for something"))?;
                }
            }
            if !task.state.is_terminal() {
                let ends = task.asked.awaited.is_none() || self.awaiting.contains_key(id);
                must(ends, || what("awaits a checkpoint without end"))?;
                let ends = task.asked.place.is_none() || self.placed.iter().any(|(_, t)| t == id);
                must(ends, || what("is to go somewhere without end"))?;
            }
        }
        must(waiting == self.scheduler.waiting(), || {
            format!("{waiting} tasks wait, and {} are queued", self.scheduler.waiting())
        })
    }

    fn check_pending(&self, id: &TaskId, task: &Task, queued: bool) -> Checked {
        let what = |what: &str| format!("{id}.{} is pending, and {what}", task.epoch);
        let blank = task.worker.is_none() && !task.cancelling && task.started_at.is_none();
        must(blank, || what("has what only an attempt has"))?;
        let waits = !task.paused && task.due.is_none();
        must(queued == waits, || what(&format!("queued: {queued}, to be queued: {waits}")))?;
        must(task.due.is_none_or(|at| self.recover.waits(at, id)), || what("is never due"))?;
        let avoids = task.recovery.as_ref();
        let avoids = avoids.is_some_and(|r| !r.avoid.is_empty() || r.avoid_hardware.is_some());
        must(!avoids || self.recover.avoidance_ends(id), || what("avoids workers without end"))
    }

    fn check_workers(&self) -> Checked {
        for (key, m) in self.fleet.iter() {
            let name = &m.row.name;
            self.recover.check_worker(m)?;
            let able = !m.draining && !m.row.drained && !m.is_unfit() && m.takes_work();
            let offered = m.conn.is_some() && m.ready && able;
            let load = offered.then(|| m.load());
            let known = self.scheduler.load_of(key);
            must(load == known, || format!("{name} is offered with {known:?}, and has {load:?}"))?;
            if let Some(conn) = m.conn {
                let linked = self.conns.get(&conn).is_some_and(|c| c.worker == Some(key));
                must(linked, || format!("{name} has link {conn}, which is not its own"))?;
                continue;
            }
            for id in m.attempts.keys() {
                let current = self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch));
                must(current, || {
                    format!("{name} is away, and holds {}.{} for nothing", id.task, id.epoch)
                })?;
            }
            let ends = m.attempts.is_empty() || self.has_timer(Timer::Window(key));
            must(ends, || format!("{name} is away, and its windows do not end"))?;
        }
        let strangers: Vec<_> =
            self.scheduler.offered().filter(|key| self.fleet.find(*key).is_none()).collect();
        must(strangers.is_empty(), || format!("workers {strangers:?} are offered, and not known"))?;
        must(self.has_timer(Timer::Balance), || "nothing is balanced any more".into())
    }

    fn check_links(&self) -> Checked {
        for (conn, state) in &self.conns {
            must(self.has_timer(Timer::Conn(*conn)), || format!("link {conn} has no timer"))?;
            let Some(key) = state.worker else { continue };
            let known = self.fleet.find(key).is_some_and(|m| self.knows_link(key, *conn, m.conn));
            must(known, || format!("link {conn} is of a worker that does not have it"))?;
        }
        Ok(())
    }

    fn knows_link(&self, key: WorkerKey, conn: ConnId, newest: Option<ConnId>) -> bool {
        newest == Some(conn) || self.links_v1(key).contains(&conn)
    }

    fn has_timer(&self, timer: Timer) -> bool {
        self.timers.iter().any(|(_, t)| *t == timer)
    }

    /// Checks that whatever waits for the disk is in order, and not durable yet.
    fn check_queues(&self) -> Checked {
        let batches = |what: &str, all: Vec<u64>| {
            let good =
                all.is_sorted() && all.iter().all(|b| *b > self.persisted && *b <= self.batch);
            must(good, || format!("{what} wait for {all:?}; {} is durable", self.persisted))
        };
        batches("effects", self.held.iter().map(|(b, _)| *b).collect())?;
        batches("ended tasks", self.over.iter().map(|(b, _)| *b).collect())?;
        batches("blobs", self.unsynced.iter().map(|(b, _)| *b).collect())?;
        batches("removals", self.removing.iter().map(|(b, _)| *b).collect())?;
        batches("revisions", self.revisions.batches())?;
        batches("v1 records", self.unsynced_v1.iter().map(|(b, _)| *b).collect())?;
        batches("outcomes beside their lane", self.beside_batches())?;
        let removing: BTreeSet<&TaskId> = self.removing.iter().map(|(_, id)| id).collect();
        let same = removing.len() == self.removed.len()
            && removing.iter().all(|id| self.removed.contains_key(*id));
        must(same, || format!("{removing:?} are being removed, not {:?}", self.removed))
    }

    /// Checks that nothing is left in memory once every task has ended and everything is acknowledged and durable.
    ///
    /// # Errors
    /// The first thing that is never freed.
    pub fn leftovers(&self) -> Result<(), String> {
        let counts = [
            ("tasks", self.tasks.len()),
            ("waiting tasks", self.scheduler.waiting()),
            ("effects", self.held.len()),
            ("ended tasks", self.over.len()),
            ("blobs", self.unsynced.len()),
            ("revisions", self.revisions.batches().len()),
            ("removals", self.removed.len() + self.removing.len()),
            ("v1 records", self.unsynced_v1.len()),
            ("outcomes beside their lane", self.beside.len()),
            ("awaited checkpoints", self.awaiting.len()),
        ];
        for (what, count) in counts {
            must(count == 0, || format!("{count} {what} are left"))?;
        }
        for (key, m) in self.fleet.iter() {
            must(m.attempts.is_empty(), || format!("{} still holds {:?}", m.row.name, m.attempts))?;
            let runs = self.runs_v1(key);
            must(runs == 0, || format!("{runs} runs of v1 worker {} are left", m.row.name))?;
        }
        let of_links = |t: &Timer| match t {
            Timer::Conn(conn) => self.conns.contains_key(conn),
            Timer::Window(key) => self.fleet.find(*key).is_some(),
            Timer::Balance => true,
        };
        let timers = self.timers.iter().filter(|(_, t)| of_links(t)).count();
        let most = 2 * (self.conns.len() + self.fleet.keys().len() + 1);
        must(timers <= most, || format!("{timers} timers for {} links", self.conns.len()))
    }

    /// Snapshot of a store that has applied all records, as far as memory knows it: the newest process of a
    /// worker is on record once it has reported its inventory.
    pub fn snapshot(&self) -> CoordSnapshot {
        let row = |(id, t): (&TaskId, &Task)| TaskRow {
            id: id.clone(),
            number: t.number,
            spec: t.spec.clone(),
            state: t.state,
            epoch: t.epoch,
            after: t.after,
            retries: t.retries,
            worker: t.worker.map(|key| self.fleet.get(key).row.store_id.clone()),
            cancelling: t.cancelling,
            started_at: t.started_at,
            paused: t.paused,
            asked: t.asked.clone(),
            lost: t.lost,
            checkpoints: t.checkpoints.clone(),
            state_version: t.state_version,
            recovery: t.recovery.clone(),
        };
        // Sorted below: the order of iteration does not show.
        #[allow(clippy::disallowed_methods)]
        let mut tasks: Vec<TaskRow> =
            self.tasks.iter().filter(|(_, t)| !t.state.is_terminal()).map(row).collect();
        tasks.sort_by_key(|t| t.number);
        let mut workers = Vec::new();
        for (_, m) in self.fleet.iter() {
            let mut row = WorkerRow::clone(&m.row);
            if m.v1.is_none() && m.settled != (row.incarnation, row.connection) {
                (row.incarnation, row.connection) = m.settled;
            }
            let cursors = m.cursors().into_iter().filter(|c| c.seq > 0).map(|c| (c.lane, c.seq));
            workers.push((row, cursors.collect()));
        }
        workers.sort_by(|(a, _): &(WorkerRow, Vec<_>), (b, _)| a.store_id.cmp(&b.store_id));
        let (failures, quarantines, learned) = self.recover.durable();
        let coordinator_id = self.id.clone();
        let last_number = self.last_number;
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
