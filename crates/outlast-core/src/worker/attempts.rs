//! The attempts that a worker holds: those that wait, in order, and those that run.

mod invariants;

use crate::adapt::Thrift;
use crate::{AttemptId, Epoch, Millis, Now, TaskId};
use outlast_model::spec::{OnLeaseExpired, Rerun};
use outlast_model::{Checkpoint, StateUpdate};
use outlast_model::{Run, TaskSpec};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Attempt {
    pub spec: Arc<TaskSpec>,
    order: (Reverse<i32>, u64),
    stage: Stage,
    /// True if it has no slots of its own yet, although it is reserved or handed over.
    ahead: bool,
    /// `Starting` was recorded.
    marked: bool,
    /// The batch that makes its arrival durable.
    batch: u64,
    /// A former process took it, and may have given it back: it starts once the coordinator has
    /// confirmed that it is this worker's.
    doubtful: bool,
    /// True if it is paused, or about to be.
    pub paused: bool,
    /// Paused by this worker itself, since its window passed.
    pub lease_paused: bool,
    /// True once its window has passed, and the requested action was taken.
    expired: bool,
    /// Time at which it is paused, whether or not its checkpoint was made.
    pub pause_at: Option<Millis>,
    /// Time of the next checkpoint request.
    ask_at: Option<Millis>,
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// True if the task queries its control requests.
    pub listens: bool,
    /// Checkpoints and artifacts that it made: the last number given.
    pub made: u64,
    /// Attempts up to this one are of a former task of the same id.
    pub after: Epoch,
    pub state: Option<Arc<StateUpdate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Has its slots, and starts once what it rests on is durable.
    Reserved,
    /// Handed over ahead of its slots: it starts as soon as those before it leave room.
    Staged,
    Running(Now),
}

/// Input of a new attempt.
#[derive(Debug)]
pub(super) struct Arrival {
    pub task: TaskId,
    pub epoch: Epoch,
    pub spec: Arc<TaskSpec>,
    /// The batch that makes its arrival durable.
    pub batch: u64,
    pub paused: bool,
    pub after: Epoch,
    pub made: u64,
    pub checkpoint: Option<Arc<Checkpoint>>,
    pub state: Option<Arc<StateUpdate>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    held: BTreeMap<AttemptId, Attempt>,
    queue: BTreeMap<(Reverse<i32>, u64), AttemptId>,
    arrivals: u64,
    slots: u32,
    used: u32,
    /// Attempts that are ahead, in order, and how many there may be.
    staged: VecDeque<AttemptId>,
    ahead: usize,
    /// Attempts that began to run although they are to be paused: they could not be recalled in time.
    to_pause: Vec<AttemptId>,
    /// True if checkpoints are requested more often than configured.
    hurry: bool,
}

fn id(task: &str, epoch: Epoch) -> AttemptId {
    AttemptId { task: task.into(), epoch }
}

fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0) as Millis
}

impl Attempt {
    fn interval(&self) -> Option<Millis> {
        self.spec.checkpoint_interval.map(millis)
    }
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }
    /// Returns true if it was handed over, so that it may run.
    pub fn is_out(&self) -> bool {
        self.is_running() || self.is_staged()
    }
    pub fn is_staged(&self) -> bool {
        self.stage == Stage::Staged
    }
    /// Returns true if its start is recorded.
    pub fn is_marked(&self) -> bool {
        self.marked
    }
    /// Returns its start time.
    pub fn since(&self) -> Option<Now> {
        match self.stage {
            Stage::Running(at) => Some(at),
            _ => None,
        }
    }
    /// Returns true if it could make a checkpoint on request.
    pub fn answers(&self) -> bool {
        self.listens || self.spec.checkpoint_signal.is_some()
    }
    /// A checkpoint was made, or asked for: the next one is due an interval later.
    pub fn asked(&mut self, now: Millis) {
        self.ask_at = self.interval().map(|every| now + every);
    }
    /// Returns the time of the next checkpoint request, which is earlier with shorter intervals.
    fn ask(&self, hurry: bool) -> Option<Millis> {
        let (at, every) = (self.ask_at?, self.interval()?);
        let sooner = if hurry { every - Thrift::hurried(every) } else { 0 };
        (!self.paused).then_some(at.saturating_sub(sooner))
    }
}

impl Attempts {
    pub fn new(slots: u32) -> Self {
        let (held, queue) = (BTreeMap::new(), BTreeMap::new());
        let staged = VecDeque::new();
        Attempts {
            held,
            queue,
            arrivals: 0,
            slots: slots.max(1),
            used: 0,
            staged,
            ahead: 0,
            to_pause: Vec::new(),
            hurry: false,
        }
    }

    /// Sets whether checkpoints are requested more often than configured.
    pub fn set_hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
    }

    pub fn insert(&mut self, new: Arrival) -> &mut Attempt {
        self.arrivals += 1;
        let order = (Reverse(new.spec.priority), self.arrivals);
        let id = AttemptId { task: new.task, epoch: new.epoch };
        if !new.paused {
            self.queue.insert(order, id.clone());
        }
        let attempt = Attempt {
            spec: new.spec,
            order,
            stage: Stage::Waiting,
            ahead: false,
            marked: false,
            batch: new.batch,
            doubtful: false,
            paused: new.paused,
            lease_paused: false,
            expired: false,
            pause_at: None,
            ask_at: None,
            listens: false,
            made: new.made,
            after: new.after,
            checkpoint: new.checkpoint,
            state: new.state,
        };
        self.held.insert(id.clone(), attempt);
        self.held.get_mut(&id).expect("just inserted")
    }

    /// The attempt runs already: its process outlived the former incarnation.
    pub fn adopt(&mut self, task: &TaskId, epoch: Epoch, since: Now, marked: bool) {
        if let Some(attempt) = self.held.get_mut(&id(task, epoch)) {
            self.queue.remove(&attempt.order);
            self.used += attempt.spec.slots;
            (attempt.stage, attempt.marked) = (Stage::Running(since), marked);
            attempt.asked(since.mono);
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
        if attempt.stage == Stage::Waiting {
            match paused || attempt.doubtful {
                true => drop(self.queue.remove(&attempt.order)),
                false => drop(self.queue.insert(attempt.order, id)),
            }
        }
    }

    /// A former process took this waiting attempt. What must not run twice is not started before
    /// the coordinator confirms it: that process may have given it back without a durable record.
    pub fn doubt(&mut self, task: &TaskId, epoch: Epoch) {
        let Some(attempt) = self.held.get_mut(&id(task, epoch)) else { return };
        if attempt.spec.rerun == Rerun::Never {
            attempt.doubtful = true;
            self.queue.remove(&attempt.order);
        }
    }

    /// Confirms that all held attempts belong to this worker.
    pub fn confirm(&mut self) {
        for (id, a) in self.held.iter_mut().filter(|(_, a)| a.doubtful) {
            a.doubtful = false;
            if !a.paused && a.stage == Stage::Waiting {
                self.queue.insert(a.order, id.clone());
            }
        }
    }

    /// The newest epoch held of a task.
    pub fn newest(&self, task: &str) -> Option<Epoch> {
        let range = id(task, 0)..=id(task, Epoch::MAX);
        self.held.range(range).next_back().map(|(a, _)| a.epoch)
    }

    /// Gives the next waiting attempt its slots: (task, epoch, the batch that it rests on,
    /// whether it must not run twice).
    /// Strictly in order, so that one that needs many slots is not passed for ever.
    pub fn reserve(&mut self) -> Option<(TaskId, Epoch, u64, bool)> {
        let (&order, next) = self.queue.first_key_value()?;
        let attempt = self.held.get_mut(next)?;
        // A task larger than the worker (its slots were lowered) runs alone.
        let fits = self.used == 0 || self.used + attempt.spec.slots <= self.slots;
        // A task that must not run twice is not handed over before it is sure to start, and a
        // call has no line to wait in.
        let patient =
            attempt.spec.rerun != Rerun::Never && !matches!(attempt.spec.run, Run::Call(_));
        if fits && self.staged.is_empty() {
            self.used += attempt.spec.slots;
        } else if patient && self.staged.len() < self.ahead {
            attempt.ahead = true;
            self.staged.push_back(next.clone());
        } else {
            return None;
        }
        attempt.stage = Stage::Reserved;
        let (batch, once) = (attempt.batch, attempt.spec.rerun == Rerun::Never);
        let AttemptId { task, epoch } = self.queue.remove(&order)?;
        Some((task, epoch, batch, once))
    }

    /// The attempt runs from now on; `None` if it is no longer held.
    pub fn begin(&mut self, task: &TaskId, epoch: Epoch, now: Now) -> Option<&mut Attempt> {
        let attempt = self.held.get_mut(&id(task, epoch))?;
        attempt.stage = if attempt.ahead { Stage::Staged } else { Stage::Running(now) };
        attempt.asked(now.mono);
        Some(attempt)
    }

    pub fn remove(&mut self, task: &str, epoch: Epoch, now: Now) {
        let id = id(task, epoch);
        if let Some(attempt) = self.held.remove(&id) {
            self.queue.remove(&attempt.order);
            if attempt.ahead {
                self.staged.retain(|one| *one != id);
            } else if attempt.stage != Stage::Waiting {
                self.used -= attempt.spec.slots;
            }
        }
        self.promote(now);
    }

    /// Gives free slots to waiting attempts, in the same order as the runner.
    fn promote(&mut self, now: Now) {
        while let Some(attempt) = self.staged.front().and_then(|id| self.held.get_mut(id)) {
            if self.used > 0 && self.used + attempt.spec.slots > self.slots {
                return;
            }
            self.used += attempt.spec.slots;
            attempt.ahead = false;
            let id = self.staged.pop_front().expect("just looked");
            if attempt.stage == Stage::Staged {
                attempt.stage = Stage::Running(now);
                attempt.asked(now.mono);
                if attempt.paused {
                    self.to_pause.push(id);
                }
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

    /// Returns true if the attempt was handed over and has not ended; it may not have started.
    pub fn is_out(&self, task: &str, epoch: Epoch) -> bool {
        self.get(task, epoch).is_some_and(Attempt::is_out)
    }

    /// Returns true if the attempt runs, and must not run twice.
    pub fn runs_once(&self, task: &str, epoch: Epoch) -> bool {
        let once = |a: &Attempt| a.is_running() && a.spec.rerun == Rerun::Never;
        self.get(task, epoch).is_some_and(once)
    }

    pub fn holds(&self, task: &str, epoch: Epoch) -> bool {
        self.held.contains_key(&id(task, epoch))
    }

    /// Returns the start time of the first attempt whose start is not recorded.
    pub fn first_unmarked(&self) -> Option<Now> {
        let unmarked = self.held.values().filter(|a| !a.marked);
        let began = unmarked.filter_map(|a| match a.stage {
            Stage::Running(at) => Some(at),
            _ => None,
        });
        began.min_by_key(|at| at.mono)
    }

    /// Attempts that have not started, also those that have their slots.
    pub fn waiting(&self) -> Vec<(TaskId, Epoch)> {
        self.pick(|a| !a.is_running() && !a.is_staged())
    }

    /// Attempts that were handed over and have not started.
    pub fn staged(&self) -> Vec<(TaskId, Epoch)> {
        self.pick(Attempt::is_staged)
    }

    /// Attempts that have started.
    pub fn running(&self) -> Vec<(TaskId, Epoch)> {
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

    fn pick(&self, which: impl Fn(&Attempt) -> bool) -> Vec<(TaskId, Epoch)> {
        let chosen = self.held.iter().filter(|(_, a)| which(a));
        chosen.map(|(a, _)| (a.task.clone(), a.epoch)).collect()
    }

    /// Every attempt, with the time at which it started.
    pub fn all(&self) -> impl Iterator<Item = (&AttemptId, &Attempt, Option<Now>)> {
        self.held.iter().map(|(id, a)| match a.stage {
            Stage::Running(at) => (id, a, Some(at)),
            _ => (id, a, None),
        })
    }

    /// Returns true if its start is recorded.
    pub fn is_marked(&self, task: &str, epoch: Epoch) -> bool {
        self.get(task, epoch).is_some_and(|a| a.marked)
    }

    pub fn mark(&mut self, task: &str, epoch: Epoch) {
        if let Some(attempt) = self.held.get_mut(&id(task, epoch)) {
            attempt.marked = true;
        }
    }

    /// Running attempts whose start is not on record though they began at or before `mono`.
    pub fn unmarked(&mut self, mono: u64) -> Vec<(AttemptId, Now)> {
        let mut found = Vec::new();
        for (id, attempt) in &mut self.held {
            if let Stage::Running(at) = attempt.stage
                && !attempt.marked
                && at.mono <= mono
            {
                attempt.marked = true;
                found.push((id.clone(), at));
            }
        }
        found
    }

    /// Running attempts for which something is due by `now`: a checkpoint to be asked for, or a
    /// pause that has waited for one long enough.
    pub fn due(&mut self, now: Millis) -> Vec<(AttemptId, Due)> {
        let mut found = Vec::new();
        for (id, a) in self.held.iter_mut().filter(|(_, a)| a.is_running()) {
            if a.pause_at.is_some_and(|at| at <= now) {
                a.pause_at = None;
                found.push((id.clone(), Due::Pause));
            }
            if let (Some(at), Some(every)) = (a.ask(self.hurry), a.interval())
                && at <= now
            {
                a.asked(now);
                found.push((id.clone(), Due::Checkpoint(every)));
            }
        }
        found
    }

    /// Running attempts whose window has passed after `away` without a link, once.
    pub fn expire(&mut self, away: Millis) -> Vec<(AttemptId, OnLeaseExpired)> {
        let mut found = Vec::new();
        for (id, a) in self.held.iter_mut().filter(|(_, a)| a.is_running() && !a.expired) {
            if millis(a.spec.reconnect_window) <= away {
                a.expired = true;
                found.push((id.clone(), a.spec.on_lease_expired));
            }
        }
        found
    }

    /// Restarts windows after a reconnect.
    pub fn renew(&mut self) {
        self.held.values_mut().for_each(|a| a.expired = false);
    }

    /// Returns the time of the next check, without a link since `lost`, and for `away` before that.
    pub fn next_wake(&self, lost: Option<Millis>, away: Millis) -> Millis {
        let mut wake = Millis::MAX;
        for a in self.held.values().filter(|a| a.is_running()) {
            let ask = a.ask(self.hurry);
            let lease =
                lost.filter(|_| !a.expired && a.spec.on_lease_expired != OnLeaseExpired::Continue);
            let lease = lease.map(|at| at + millis(a.spec.reconnect_window).saturating_sub(away));
            let times = [ask, a.pause_at, lease];
            wake = times.into_iter().flatten().fold(wake, Millis::min);
        }
        wake
    }
}

/// Action that is due for a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// With the interval at which it is asked for, in milliseconds.
    Checkpoint(Millis),
    Pause,
}
