//! Assignment of waiting tasks to workers: pure data structures, no protocol.
//!
//! Tasks with equal demands share a *class*. Each class keeps its waiting tasks in order of
//! (priority, turn of their queue, number) and the workers that satisfy it in order of load, so
//! that one assignment costs O(log n) for each class that the worker serves.

mod invariants;

use crate::TaskId;
use outlast_model::Capabilities;
use outlast_model::requires::Requires;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A worker, as a small number that its owner chose.
pub type WorkerKey = u32;

/// A waiting task's order: higher priority, then its queue's turn, then first come.
type Rank = (Reverse<i32>, u64, u64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Demand {
    requires: Requires,
    slots: u32,
}

/// Waiting tasks of one priority: by queue, then by number.
type Queues = BTreeMap<Arc<str>, BTreeMap<u64, TaskId>>;

#[derive(Debug, Default)]
struct Class {
    waiting: BTreeMap<Reverse<i32>, Queues>,
    /// Workers that satisfy it and have room, least loaded first.
    room: BTreeSet<(u64, WorkerKey)>,
    /// Position in `heads`, if a task waits and a worker has room.
    head: Option<Rank>,
}

#[derive(Debug)]
struct Member {
    capabilities: Capabilities,
    labels: BTreeMap<String, String>,
    slots: u32,
    used: u64,
    limit: u64,
    classes: Vec<usize>,
}

/// The waiting tasks and the workers with room.
#[derive(Debug, Default)]
pub struct Scheduler {
    classes: Vec<(Demand, Class)>,
    by_demand: BTreeMap<Demand, usize>,
    heads: BTreeSet<(Rank, usize)>,
    workers: BTreeMap<WorkerKey, Member>,
    /// Virtual time of each queue: what it was served, in slots.
    turns: HashMap<Arc<str>, u64>,
    served: u64,
    waiting: HashMap<TaskId, (usize, i32, Arc<str>, u64)>,
}

/// Properties of a task that matter to the scheduler.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// Id of the task.
    pub task: &'a TaskId,
    /// Order of submission.
    pub number: u64,
    /// Higher goes first.
    pub priority: i32,
    /// Queue of the task; queues of equal priority are served in rotation.
    pub queue: &'a str,
    /// Slots that it takes.
    pub slots: u32,
    /// Requirements on the worker.
    pub requires: &'a Requires,
}

impl Scheduler {
    /// Tasks that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a waiting task; one that waits already stays as it is.
    pub fn push(&mut self, wish: &Wish<'_>) {
        if self.waiting.contains_key(wish.task) {
            return;
        }
        let class = self.class(Demand { requires: wish.requires.clone(), slots: wish.slots });
        let queue: Arc<str> = wish.queue.into();
        if !self.turns.contains_key(&queue) {
            if self.turns.len() >= 4096 {
                self.turns.clear();
            }
            self.turns.insert(queue.clone(), 0);
        }
        // A queue that was idle must not cash in the turns that it did not use.
        let turn = self.turns.get_mut(&queue).expect("just inserted");
        *turn = (*turn).max(self.served);
        let levels = &mut self.classes[class].1.waiting;
        let level = levels.entry(Reverse(wish.priority)).or_default();
        level.entry(queue.clone()).or_default().insert(wish.number, wish.task.clone());
        self.waiting.insert(wish.task.clone(), (class, wish.priority, queue, wish.number));
        self.place(class);
    }

    /// Takes a waiting task out; whether it was there.
    pub fn remove(&mut self, task: &TaskId) -> bool {
        let Some((class, priority, queue, number)) = self.waiting.remove(task) else {
            return false;
        };
        let waiting = &mut self.classes[class].1.waiting;
        if let Some(level) = waiting.get_mut(&Reverse(priority)) {
            if let Some(tasks) = level.get_mut(&queue) {
                tasks.remove(&number);
                if tasks.is_empty() {
                    level.remove(&queue);
                }
            }
            if level.is_empty() {
                waiting.remove(&Reverse(priority));
            }
        }
        self.place(class);
        true
    }

    /// Adds or replaces a worker that may be given tasks. It may hold `limit` slots' worth of
    /// them, of which `slots` run at once, and holds `used`.
    pub fn join(
        &mut self,
        key: WorkerKey,
        capabilities: Capabilities,
        labels: BTreeMap<String, String>,
        (slots, used, limit): (u32, u64, u64),
    ) {
        self.leave(key);
        let mut member = Member { capabilities, labels, slots, used, limit, classes: Vec::new() };
        for (i, (demand, _)) in self.classes.iter().enumerate() {
            if member.satisfies(demand) {
                member.classes.push(i);
            }
        }
        self.workers.insert(key, member);
        self.offer(key, true);
    }

    /// Takes a worker out.
    pub fn leave(&mut self, key: WorkerKey) {
        self.offer(key, false);
        self.workers.remove(&key);
    }

    /// A worker's load or limit changed.
    pub fn set_used(&mut self, key: WorkerKey, used: u64, limit: u64) {
        if self.workers.get(&key).is_none_or(|w| (w.used, w.limit) == (used, limit)) {
            return;
        }
        self.offer(key, false);
        if let Some(worker) = self.workers.get_mut(&key) {
            (worker.used, worker.limit) = (used, limit);
        }
        self.offer(key, true);
    }

    /// The next assignment; the task no longer waits, and the worker's load has grown.
    pub fn assign(&mut self) -> Option<(TaskId, WorkerKey)> {
        loop {
            let (rank, class) = self.heads.pop_first()?;
            self.classes[class].1.head = None;
            // A queue's turn may have moved since the head was placed; place it again.
            let (fresh, queue) = self.rank(class)?;
            if fresh > rank {
                self.place(class);
                continue;
            }
            let (demand, state) = &self.classes[class];
            let slots = u64::from(demand.slots);
            let task = state.waiting.get(&fresh.0)?.get(&queue)?.get(&fresh.2)?.clone();
            let &(_, worker) = state.room.first()?;
            self.served = self.served.max(fresh.1);
            *self.turns.entry(queue).or_default() = fresh.1 + slots;
            self.remove(&task);
            let (used, limit) = self.workers.get(&worker).map(|w| (w.used + slots, w.limit))?;
            self.set_used(worker, used, limit);
            return Some((task, worker));
        }
    }

    /// The workers that could run such a task, were they empty.
    pub fn fitting(&self, requires: &Requires, slots: u32) -> impl Iterator<Item = WorkerKey> {
        self.workers.keys().copied().filter(move |key| self.fits(*key, requires, slots))
    }

    /// Returns true if any connected worker could run this waiting task.
    pub fn has_place(&self, task: &TaskId) -> bool {
        let demand = self.waiting.get(task).map(|(class, ..)| &self.classes[*class].0);
        demand.is_some_and(|d| self.workers.values().any(|w| w.satisfies(d)))
    }

    /// Returns true if this worker, were it idle, could run such a task.
    pub fn fits(&self, key: WorkerKey, requires: &Requires, slots: u32) -> bool {
        self.workers.get(&key).is_some_and(|w| {
            slots <= w.slots && requires.unmet(&w.capabilities, &w.labels).is_none()
        })
    }

    /// Returns true if there is no worker that takes tasks.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Explains why a waiting task is not assigned; `None` if it does not wait.
    pub fn explain(&self, task: &TaskId) -> Option<String> {
        let (class, ..) = self.waiting.get(task)?;
        let (demand, state) = &self.classes[*class];
        if !state.room.is_empty() {
            return Some("it is next in line".into());
        }
        if self.workers.is_empty() {
            return Some("no worker that takes tasks is connected".into());
        }
        let unmet = |w: &Member| demand.requires.unmet(&w.capabilities, &w.labels);
        let fits = self.workers.values().filter(|w| w.satisfies(demand)).count();
        if fits > 0 {
            return Some(format!("all slots of the {fits} workers that could run it are taken"));
        }
        let missing: BTreeSet<String> = self.workers.values().filter_map(unmet).collect();
        if missing.is_empty() {
            return Some(format!("no connected worker has {} slots", demand.slots));
        }
        let names: Vec<String> = missing.into_iter().collect();
        Some(format!("no connected worker meets `requires`: {}", names.join(", ")))
    }

    fn class(&mut self, demand: Demand) -> usize {
        if let Some(&class) = self.by_demand.get(&demand) {
            return class;
        }
        // Reuse the place of a class that nothing waits in, once there are many.
        let idle = |(_, c): &(Demand, Class)| c.waiting.is_empty();
        let spot =
            if self.classes.len() >= 256 { self.classes.iter().position(idle) } else { None };
        let class = match spot {
            Some(class) => {
                self.by_demand.remove(&self.classes[class].0);
                for worker in self.workers.values_mut() {
                    worker.classes.retain(|c| *c != class);
                }
                self.classes[class] = (demand.clone(), Class::default());
                class
            }
            None => {
                self.classes.push((demand.clone(), Class::default()));
                self.classes.len() - 1
            }
        };
        for (key, worker) in &mut self.workers {
            if worker.satisfies(&demand) {
                worker.classes.push(class);
                if worker.used < worker.limit {
                    self.classes[class].1.room.insert((worker.order(), *key));
                }
            }
        }
        self.by_demand.insert(demand, class);
        class
    }

    /// Puts a worker into, or takes it out of, the room of its classes.
    fn offer(&mut self, key: WorkerKey, into: bool) {
        let Some(worker) = self.workers.get(&key) else { return };
        if worker.used >= worker.limit {
            return;
        }
        let entry = (worker.order(), key);
        for i in 0..worker.classes.len() {
            let class = self.workers[&key].classes[i];
            let room = &mut self.classes[class].1.room;
            let was_empty = room.is_empty();
            if into {
                room.insert(entry);
            } else {
                room.remove(&entry);
            }
            if was_empty != room.is_empty() {
                self.place(class);
            }
        }
    }

    /// Returns the current rank of a class's first task.
    fn rank(&self, class: usize) -> Option<(Rank, Arc<str>)> {
        let (priority, queues) = self.classes[class].1.waiting.first_key_value()?;
        let of = |(queue, tasks): (&Arc<str>, &BTreeMap<u64, TaskId>)| {
            let turn = self.turns.get(queue).copied().unwrap_or(0);
            tasks.first_key_value().map(|(number, _)| ((*priority, turn, *number), queue.clone()))
        };
        queues.iter().filter_map(of).min()
    }

    fn place(&mut self, class: usize) {
        let state = &self.classes[class].1;
        let rank = if state.room.is_empty() { None } else { self.rank(class).map(|(r, _)| r) };
        let old = std::mem::replace(&mut self.classes[class].1.head, rank);
        if old == rank {
            return;
        }
        if let Some(old) = old {
            self.heads.remove(&(old, class));
        }
        if let Some(rank) = rank {
            self.heads.insert((rank, class));
        }
    }
}

impl Member {
    fn satisfies(&self, demand: &Demand) -> bool {
        demand.slots <= self.slots
            && demand.requires.unmet(&self.capabilities, &self.labels).is_none()
    }
    /// Load relative to size: every slot of the fleet is filled before anything waits at a worker.
    fn order(&self) -> u64 {
        (self.used << 20) / u64::from(self.slots.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(s: &mut Scheduler, number: u64, priority: i32, queue: &str, requires: &[(&str, &str)]) {
        let map = requires.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let requires = Requires::parse(&map).unwrap();
        let task: TaskId = format!("t{number}").into();
        s.push(&Wish { task: &task, number, priority, queue, slots: 1, requires: &requires });
    }

    fn join(s: &mut Scheduler, key: WorkerKey, caps: &[(&str, &str)], limit: u64) {
        let mut all = Capabilities::default();
        caps.iter().for_each(|(k, v)| all.set(k, *v));
        s.join(key, all, BTreeMap::new(), (1, 0, limit));
    }

    fn drain(s: &mut Scheduler) -> Vec<(String, WorkerKey)> {
        std::iter::from_fn(|| s.assign()).map(|(t, w)| (t.to_string(), w)).collect()
    }

    #[test]
    fn priority_then_queues_in_turn_then_first_come() {
        let mut s = Scheduler::default();
        for n in 1..=4 {
            push(&mut s, n, 0, "a", &[]);
        }
        push(&mut s, 5, 0, "b", &[]);
        push(&mut s, 6, 9, "a", &[]);
        push(&mut s, 7, 0, "b", &[]);
        join(&mut s, 0, &[], 100);
        let order: Vec<String> = drain(&mut s).into_iter().map(|(t, _)| t).collect();
        assert_eq!(order, ["t6", "t5", "t1", "t7", "t2", "t3", "t4"]);
    }

    #[test]
    fn demands_limits_and_explanations() {
        let mut s = Scheduler::default();
        push(&mut s, 1, 0, "", &[("gpu", "*")]);
        assert!(s.explain(&"t1".into()).unwrap().contains("no worker"));
        push(&mut s, 2, 0, "", &[]);
        push(&mut s, 3, 0, "", &[]);
        join(&mut s, 7, &[], 1);
        assert_eq!(drain(&mut s), [("t2".into(), 7)]);
        assert!(s.explain(&"t1".into()).unwrap().contains("gpu"));
        assert!(s.explain(&"t3".into()).unwrap().contains("taken"));
        join(&mut s, 8, &[("gpu", "x")], 2);
        assert_eq!(drain(&mut s), [("t1".into(), 8), ("t3".into(), 8)]);
        s.leave(8);
        push(&mut s, 4, 0, "", &[("gpu", "*")]);
        assert_eq!(drain(&mut s), []);
        assert!(s.remove(&"t4".into()) && !s.remove(&"t4".into()));
    }

    #[test]
    fn load_is_spread_before_anything_waits_at_a_worker() {
        let mut s = Scheduler::default();
        join(&mut s, 1, &[], 2);
        join(&mut s, 2, &[], 2);
        for n in 0..4 {
            push(&mut s, n, 0, "", &[]);
        }
        let got: Vec<WorkerKey> = drain(&mut s).into_iter().map(|(_, w)| w).collect();
        assert_eq!(got, [1, 2, 1, 2]);
        s.set_used(1, 0, 2);
        push(&mut s, 9, 0, "", &[]);
        assert_eq!(drain(&mut s), [("t9".into(), 1)]);
    }

    /// A task of a queue that needs something of its worker.
    fn push_to(s: &mut Scheduler, id: &str, number: u64, queue: &str, slots: u32, needs: &str) {
        let needs = (!needs.is_empty()).then(|| (needs.to_owned(), "*".to_owned()));
        let map = needs.into_iter().collect();
        let requires = Requires::parse(&map).unwrap();
        let task: TaskId = id.into();
        s.push(&Wish { task: &task, number, priority: 0, queue, slots, requires: &requires });
    }

    fn names(s: &mut Scheduler) -> Vec<String> {
        drain(s).into_iter().map(|(task, _)| task).collect()
    }

    #[test]
    fn a_queue_that_was_idle_does_not_catch_up() {
        let mut s = Scheduler::default();
        join(&mut s, 0, &[], 1000);
        for n in 1..=10 {
            push(&mut s, n, 0, "busy", &[]);
            drain(&mut s);
        }
        s.leave(0);
        (11..=13).for_each(|n| push(&mut s, n, 0, "busy", &[]));
        (14..=16).for_each(|n| push(&mut s, n, 0, "idle", &[]));
        join(&mut s, 0, &[], 1000);
        assert_eq!(names(&mut s), ["t14", "t11", "t15", "t12", "t16", "t13"]);
        s.invariants().unwrap();
    }

    #[test]
    fn a_queue_is_served_once_a_turn_whatever_its_tasks_need() {
        let mut s = Scheduler::default();
        push_to(&mut s, "a1", 1, "a", 1, "gpu");
        push_to(&mut s, "a2", 2, "a", 1, "cpu");
        push_to(&mut s, "b3", 3, "b", 1, "");
        join(&mut s, 0, &[("gpu", "x"), ("cpu", "x")], 100);
        join(&mut s, 1, &[("gpu", "x"), ("cpu", "x")], 100);
        assert_eq!(names(&mut s), ["a1", "b3", "a2"]);
    }

    #[test]
    fn a_task_waits_once_and_goes_where_it_fits() {
        let mut s = Scheduler::default();
        push_to(&mut s, "t", 1, "a", 1, "");
        push_to(&mut s, "t", 1, "b", 1, "");
        push_to(&mut s, "large", 2, "a", 3, "");
        join(&mut s, 0, &[], 5);
        assert_eq!(names(&mut s), ["t"]);
        s.invariants().unwrap();
    }

    #[test]
    fn classes_and_queues_that_are_remembered_have_a_limit() {
        let mut s = Scheduler::default();
        join(&mut s, 7, &[], 100_000);
        push_to(&mut s, "first", 0, "", 1, "");
        assert_eq!(names(&mut s), ["first"]);
        (1..=255).for_each(|n| push_to(&mut s, &format!("t{n}"), n, "", 1, &format!("k{n}")));
        // The class of the first task is used for another demand, which the worker does not meet.
        push_to(&mut s, "gpu", 300, "", 1, "gpu");
        assert_eq!(s.classes.len(), 256);
        s.set_used(7, 5, 100_000);
        assert!(drain(&mut s).is_empty());
        s.invariants().unwrap();
        let mut s = Scheduler::default();
        for n in 0..5_000 {
            push_to(&mut s, "t", n, &format!("q{n}"), 1, "");
            s.remove(&"t".into());
        }
        assert!(s.turns.len() <= 4_096);
    }

    #[test]
    fn load_is_relative_to_size() {
        let mut s = Scheduler::default();
        s.join(1, Capabilities::default(), BTreeMap::new(), (1, 0, 10));
        s.join(2, Capabilities::default(), BTreeMap::new(), (4, 0, 10));
        (0..4).for_each(|n| push(&mut s, n, 0, "", &[]));
        let got: Vec<WorkerKey> = drain(&mut s).into_iter().map(|(_, w)| w).collect();
        assert_eq!(got, [1, 2, 2, 2]);
    }
}
