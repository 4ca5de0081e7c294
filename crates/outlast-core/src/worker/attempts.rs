//! The attempts that a worker holds: those that wait, in order, and those that run.

mod invariants;

use super::attempt::{Arrival, Attempt, Order};
use super::timers::{Timer, Wake};
use crate::{AttemptId, Epoch, Millis, Now, TaskId};
use outlast_model::spec::OnLeaseExpired;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    held: BTreeMap<AttemptId, Attempt>,
    queue: BTreeMap<Order, AttemptId>,
    arrivals: u64,
    slots: u32,
    used: u32,
    /// Attempts that are ahead, in order, and how many there may be.
    staged: VecDeque<AttemptId>,
    ahead: usize,
    /// Attempts that began to run although they are to be paused: they could not be recalled in time.
    to_pause: Vec<AttemptId>,
    /// True if checkpoints are requested more often than configured.
    shorter: bool,
}

/// Action that is due for a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// With the interval at which it is requested, in milliseconds.
    Checkpoint(Millis),
    Pause,
}

/// Attempt that has been given its slots, or a place ahead of them.
#[derive(Debug)]
pub(super) struct Reserved {
    pub id: AttemptId,
    /// The batch that makes its arrival durable.
    pub batch: u64,
    /// True if it must not run twice.
    pub once: bool,
}

fn id(task: &str, epoch: Epoch) -> AttemptId {
    AttemptId { task: task.into(), epoch }
}

impl Attempts {
    pub fn new(slots: u32) -> Self {
        Attempts {
            held: BTreeMap::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            slots: slots.max(1),
            used: 0,
            staged: VecDeque::new(),
            ahead: 0,
            to_pause: Vec::new(),
            shorter: false,
        }
    }

    /// Sets whether checkpoints are requested more often than configured.
    pub fn shorten_intervals(&mut self, shorter: bool) {
        self.shorter = shorter;
    }

    pub fn insert(&mut self, new: Arrival) -> &mut Attempt {
        self.arrivals += 1;
        let order = (Reverse(new.spec.priority), self.arrivals);
        let id = AttemptId { task: new.task.clone(), epoch: new.epoch };
        if !new.paused {
            self.queue.insert(order, id.clone());
        }
        self.held.insert(id.clone(), Attempt::new(new, order));
        self.held.get_mut(&id).expect("just inserted")
    }

    /// The attempt runs already: its process outlived the former incarnation.
    pub fn adopt(&mut self, task: &TaskId, epoch: Epoch, since: Now, recorded: bool) {
        if let Some(attempt) = self.held.get_mut(&id(task, epoch)) {
            self.queue.remove(&attempt.order());
            self.used += attempt.spec.slots;
            attempt.become_adopted(since, recorded);
        }
    }

    pub fn get(&self, task: &str, epoch: Epoch) -> Option<&Attempt> {
        self.held.get(&id(task, epoch))
    }
    pub fn get_mut(&mut self, task: &str, epoch: Epoch) -> Option<&mut Attempt> {
        self.held.get_mut(&id(task, epoch))
    }

    /// Keeps a waiting attempt from starting, or lets it.
    pub fn hold_back(&mut self, task: &TaskId, epoch: Epoch, paused: bool) {
        let id = id(task, epoch);
        let Some(attempt) = self.held.get_mut(&id) else { return };
        attempt.paused = paused;
        if attempt.is_queued() {
            self.queue.insert(attempt.order(), id);
        } else {
            self.queue.remove(&attempt.order());
        }
    }

    /// A former process took this waiting attempt. What must not run twice is not started before
    /// the coordinator confirms it: that process may have given it back without a durable record.
    pub fn doubt(&mut self, task: &TaskId, epoch: Epoch) {
        let Some(attempt) = self.held.get_mut(&id(task, epoch)) else { return };
        if attempt.runs_once() {
            attempt.become_doubtful(true);
            self.queue.remove(&attempt.order());
        }
    }

    /// Confirms that all held attempts belong to this worker.
    pub fn confirm(&mut self) {
        for (id, a) in self.held.iter_mut().filter(|(_, a)| a.is_waiting()) {
            a.become_doubtful(false);
            if a.is_queued() {
                self.queue.insert(a.order(), id.clone());
            }
        }
    }

    /// The newest epoch held of a task.
    pub fn newest(&self, task: &str) -> Option<Epoch> {
        let range = id(task, 0)..=id(task, Epoch::MAX);
        self.held.range(range).next_back().map(|(a, _)| a.epoch)
    }

    /// Gives the next waiting attempt its slots, or a place ahead of them.
    /// Strictly in order, so that one that needs many slots is not passed for ever.
    pub fn reserve(&mut self) -> Option<Reserved> {
        let (&order, next) = self.queue.first_key_value()?;
        let attempt = self.held.get_mut(next)?;
        // A task larger than the worker (its slots were lowered) runs alone.
        let fits = self.used == 0 || self.used + attempt.spec.slots <= self.slots;
        if fits && self.staged.is_empty() {
            self.used += attempt.spec.slots;
            attempt.become_reserved();
        } else if attempt.may_be_ahead() && self.staged.len() < self.ahead {
            self.staged.push_back(next.clone());
            attempt.become_reserved_ahead();
        } else {
            return None;
        }
        let (batch, once) = (attempt.batch(), attempt.runs_once());
        Some(Reserved { id: self.queue.remove(&order)?, batch, once })
    }

    /// Hands over an attempt that was reserved; `None` if it is no longer held.
    pub fn begin(&mut self, id: &AttemptId, now: Now) -> Option<&mut Attempt> {
        let attempt = self.held.get_mut(id).filter(|a| a.is_reserved())?;
        attempt.become_handed_over(now);
        Some(attempt)
    }

    /// Removes an attempt; the one that was held.
    pub fn remove(&mut self, task: &str, epoch: Epoch, now: Now) -> Option<Attempt> {
        let id = id(task, epoch);
        let gone = self.held.remove(&id);
        if let Some(attempt) = &gone {
            self.queue.remove(&attempt.order());
            if attempt.is_ahead() {
                self.staged.retain(|one| *one != id);
            } else if attempt.has_slots() {
                self.used -= attempt.spec.slots;
            }
        }
        self.promote(now);
        gone
    }

    /// Gives free slots to waiting attempts, in the same order as the runner.
    fn promote(&mut self, now: Now) {
        while let Some(attempt) = self.staged.front().and_then(|id| self.held.get_mut(id)) {
            if self.used > 0 && self.used + attempt.spec.slots > self.slots {
                return;
            }
            self.used += attempt.spec.slots;
            attempt.become_promoted(now);
            let id = self.staged.pop_front().expect("just looked");
            if attempt.is_running() && attempt.paused {
                self.to_pause.push(id);
            }
        }
    }

    /// Attempts that began to run and are to be paused, once.
    pub fn take_to_pause(&mut self) -> Vec<AttemptId> {
        std::mem::take(&mut self.to_pause)
    }

    /// Sets the number of attempts that may be handed over ahead of their slots.
    pub fn set_ahead(&mut self, ahead: usize) {
        self.ahead = ahead;
    }

    /// Returns true if the attempt has started and not ended.
    pub fn is_running(&self, task: &str, epoch: Epoch) -> bool {
        self.get(task, epoch).is_some_and(Attempt::is_running)
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub fn holds(&self, task: &str, epoch: Epoch) -> bool {
        self.held.contains_key(&id(task, epoch))
    }

    /// Returns the start time of the first attempt whose start is not recorded.
    pub fn first_unrecorded(&self) -> Option<Now> {
        let unrecorded = self.held.values().filter(|a| !a.is_recorded());
        unrecorded.filter_map(Attempt::since).min_by_key(|at| at.mono)
    }

    /// Attempts that have not started, also those that have their slots.
    pub fn waiting(&self) -> Vec<AttemptId> {
        self.pick(|a| !a.is_handed_over())
    }

    /// Attempts that were handed over and have not started.
    pub fn staged(&self) -> Vec<AttemptId> {
        self.pick(Attempt::is_staged)
    }

    /// Attempts that have started.
    pub fn running(&self) -> Vec<AttemptId> {
        self.pick(Attempt::is_running)
    }

    /// Returns the number of attempts that wait for a slot; `None` if none is held, not even a running one.
    pub fn backlog(&self) -> Option<usize> {
        (!self.held.is_empty()).then(|| self.queue.len() + self.staged.len())
    }

    /// (running, waiting)
    pub fn count(&self) -> (usize, usize) {
        let running = self.held.values().filter(|a| a.is_running()).count();
        (running, self.held.len() - running)
    }

    /// Returns true if an attempt was handed over and has not ended.
    pub fn has_handed_over(&self) -> bool {
        self.held.values().any(Attempt::is_handed_over)
    }

    fn pick(&self, which: impl Fn(&Attempt) -> bool) -> Vec<AttemptId> {
        self.held.iter().filter(|(_, a)| which(a)).map(|(id, _)| id.clone()).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = (&AttemptId, &Attempt)> {
        self.held.iter()
    }

    /// Records the starts of running attempts that began at or before `mono`; returns those that were not
    /// on record.
    pub fn record_starts(&mut self, mono: u64) -> Vec<(AttemptId, Now)> {
        let mut found = Vec::new();
        for (id, attempt) in self.held.iter_mut().filter(|(_, a)| !a.is_recorded()) {
            if let Some(at) = attempt.since().filter(|at| at.mono <= mono) {
                attempt.become_recorded();
                found.push((id.clone(), at));
            }
        }
        found
    }

    /// Running attempts for which something is due by `now`: a checkpoint request, or a pause that has
    /// waited for a checkpoint long enough.
    pub fn due(&mut self, now: Millis) -> Vec<(AttemptId, Due)> {
        let mut found = Vec::new();
        for (id, a) in self.held.iter_mut().filter(|(_, a)| a.is_running()) {
            if a.take_pause(now) {
                found.push((id.clone(), Due::Pause));
            }
            if let Some(every) = a.take_request(now, self.shorter) {
                found.push((id.clone(), Due::Checkpoint(every)));
            }
        }
        found
    }

    /// Running attempts whose window has passed after `away` without a link, once.
    pub fn expire(&mut self, away: Millis) -> Vec<(AttemptId, OnLeaseExpired)> {
        let passed = |(id, a): (&AttemptId, &mut Attempt)| Some((id.clone(), a.take_expiry(away)?));
        self.held.iter_mut().filter_map(passed).collect()
    }

    /// Restarts windows after a reconnect.
    pub fn renew(&mut self) {
        self.held.values_mut().for_each(Attempt::renew);
    }

    /// Returns the next check. `outage`: since when there is no link, and for how long there was none
    /// before that.
    pub fn next_wake(&self, outage: Option<(Millis, Millis)>) -> Wake {
        let mut wake = Wake::NEVER;
        for a in self.held.values().filter(|a| a.is_running()) {
            let lease = outage.and_then(|outage| a.expires_at(outage));
            wake = wake
                .or(Wake::new(a.request_at(self.shorter), Timer::Checkpoint))
                .or(Wake::new(a.pause_at(), Timer::Pause))
                .or(Wake::new(lease, Timer::Lease));
        }
        wake
    }
}
