//! One attempt that a worker holds, and the phase that it is in.

use crate::adapt::BandwidthPolicy;
use crate::{Epoch, Millis, Now, TaskId};
use outlast_model::spec::{OnLeaseExpired, Rerun};
use outlast_model::{Checkpoint, Run, StateUpdate, TaskSpec};
use std::cmp::Reverse;
use std::sync::Arc;

/// Place in the queue: by priority, then by arrival.
pub(super) type Order = (Reverse<i32>, u64);

/// Input of a new attempt.
#[derive(Debug)]
pub(super) struct Arrival {
    pub task: TaskId,
    pub epoch: Epoch,
    pub spec: Arc<TaskSpec>,
    /// The batch that makes its arrival durable; 0: a former process wrote it.
    pub batch: u64,
    pub paused: bool,
    /// Attempts up to this one are of a former task of the same id.
    pub after: Epoch,
    /// Checkpoints and artifacts that it made: the last number given.
    pub made: u64,
    pub checkpoint: Option<Arc<Checkpoint>>,
    pub state: Option<Arc<StateUpdate>>,
}

/// Attempt without an outcome.
#[derive(Debug)]
pub(super) struct Attempt {
    pub spec: Arc<TaskSpec>,
    /// True if it is paused, or about to be.
    pub paused: bool,
    pub checkpoint: Option<Arc<Checkpoint>>,
    pub made: u64,
    pub after: Epoch,
    pub state: Option<Arc<StateUpdate>>,
    order: Order,
    batch: u64,
    phase: Phase,
}

/// Phase of an attempt, with what is valid in it. An attempt that has slots goes from waiting by
/// reserved to running; one that is ahead of its slots from waiting by reserved ahead to staged, and to
/// the other line when there are slots for it.
#[derive(Debug)]
enum Phase {
    /// Waits for slots, in the queue; beside it while it is paused or doubtful.
    Waiting {
        /// A former process took it, and may have given it back: it starts once the coordinator has
        /// confirmed that it is this worker's.
        doubtful: bool,
    },
    /// Has its slots, and starts once what it rests on is durable.
    Reserved {
        /// True if its start is on record, and among what it rests on.
        recorded: bool,
    },
    /// Has no slots yet, and is handed over once its arrival is durable.
    ReservedAhead,
    /// Handed over ahead of its slots: it starts as soon as those before it leave room.
    Staged {
        /// True if the task queries its control requests.
        listens: bool,
    },
    /// Has started.
    Running(Running),
}

/// State of an attempt that has started.
#[derive(Debug)]
struct Running {
    since: Now,
    /// True if its start is on record.
    recorded: bool,
    /// True if the task queries its control requests.
    listens: bool,
    /// Time at which it is paused, whether or not its checkpoint was made.
    pause_at: Option<Millis>,
    /// Time of the next checkpoint request.
    request_at: Option<Millis>,
    /// True once its window has passed, and the requested action was taken.
    expired: bool,
}

/// Returns a time of a specification in milliseconds.
fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0) as Millis
}

impl Attempt {
    /// Creates an attempt that waits.
    pub fn new(new: Arrival, order: Order) -> Attempt {
        Attempt {
            spec: new.spec,
            paused: new.paused,
            checkpoint: new.checkpoint,
            made: new.made,
            after: new.after,
            state: new.state,
            order,
            batch: new.batch,
            phase: Phase::Waiting { doubtful: false },
        }
    }

    fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }
    fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    pub fn order(&self) -> Order {
        self.order
    }
    /// Returns the batch that makes its arrival durable.
    pub fn batch(&self) -> u64 {
        self.batch
    }
    /// Returns true if it has neither slots nor a place ahead of them.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }
    /// Returns true if it belongs into the queue.
    pub fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Waiting { doubtful: false }) && !self.paused
    }
    /// Returns true if it starts, or is handed over, once what it rests on is durable.
    pub fn is_reserved(&self) -> bool {
        matches!(self.phase, Phase::Reserved { .. } | Phase::ReservedAhead)
    }
    /// Returns true if it is reserved or handed over, and has no slots yet.
    pub fn is_ahead(&self) -> bool {
        matches!(self.phase, Phase::ReservedAhead | Phase::Staged { .. })
    }
    pub fn is_staged(&self) -> bool {
        matches!(self.phase, Phase::Staged { .. })
    }
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }
    /// Returns true if it was handed over, so that it may run.
    pub fn is_handed_over(&self) -> bool {
        matches!(self.phase, Phase::Staged { .. } | Phase::Running(_))
    }
    /// Returns true if it takes slots.
    pub fn has_slots(&self) -> bool {
        matches!(self.phase, Phase::Reserved { .. } | Phase::Running(_))
    }
    /// Returns true if its start is on record.
    pub fn is_recorded(&self) -> bool {
        match &self.phase {
            Phase::Reserved { recorded } => *recorded,
            Phase::Running(running) => running.recorded,
            Phase::Waiting { .. } | Phase::ReservedAhead | Phase::Staged { .. } => false,
        }
    }
    /// Returns true if it must not run twice.
    pub fn runs_once(&self) -> bool {
        self.spec.rerun == Rerun::Never
    }
    /// Returns true if it may be handed over ahead of its slots. A task that must not run twice is not
    /// before it is sure to start, and a call has no line to wait in.
    pub fn may_be_ahead(&self) -> bool {
        !self.runs_once() && !matches!(self.spec.run, Run::Call(_))
    }
    /// Returns its start time.
    pub fn since(&self) -> Option<Now> {
        self.running().map(|running| running.since)
    }
    /// Returns true if it could make a checkpoint on request.
    pub fn takes_requests(&self) -> bool {
        let listens = match &self.phase {
            Phase::Staged { listens } => *listens,
            Phase::Running(running) => running.listens,
            Phase::Waiting { .. } | Phase::Reserved { .. } | Phase::ReservedAhead => false,
        };
        listens || self.spec.checkpoint_signal.is_some()
    }
    /// Records that the task queries its control requests.
    pub fn listen(&mut self) {
        match &mut self.phase {
            Phase::Staged { listens } => *listens = true,
            Phase::Running(running) => running.listens = true,
            Phase::Waiting { .. } | Phase::Reserved { .. } | Phase::ReservedAhead => {}
        }
    }
}

/// Transitions. Each asserts the phase that it leaves.
impl Attempt {
    /// Keeps it from starting before the coordinator has confirmed it; or confirms it.
    pub fn become_doubtful(&mut self, doubtful: bool) {
        debug_assert!(self.is_waiting(), "{:?}", self.phase);
        self.phase = Phase::Waiting { doubtful };
    }

    /// Gives it slots.
    pub fn become_reserved(&mut self) {
        debug_assert!(self.is_queued(), "{:?}", self.phase);
        self.phase = Phase::Reserved { recorded: false };
    }

    /// Gives it a place ahead of its slots.
    pub fn become_reserved_ahead(&mut self) {
        debug_assert!(self.is_queued() && self.may_be_ahead(), "{:?}", self.phase);
        self.phase = Phase::ReservedAhead;
    }

    /// Notes that its start is on record.
    pub fn become_recorded(&mut self) {
        debug_assert!(self.has_slots() && !self.is_recorded(), "{:?}", self.phase);
        match &mut self.phase {
            Phase::Reserved { recorded } => *recorded = true,
            Phase::Running(running) => running.recorded = true,
            Phase::Waiting { .. } | Phase::ReservedAhead | Phase::Staged { .. } => {}
        }
    }

    /// Hands it over; it runs if it has its slots.
    pub fn become_handed_over(&mut self, now: Now) {
        debug_assert!(self.is_reserved(), "{:?}", self.phase);
        match self.phase {
            Phase::ReservedAhead => self.phase = Phase::Staged { listens: false },
            _ => self.run(now, self.is_recorded(), false),
        }
    }

    /// Makes it run since an earlier time: its process outlived the former incarnation.
    pub fn become_adopted(&mut self, since: Now, recorded: bool) {
        debug_assert!(self.is_waiting(), "{:?}", self.phase);
        self.run(since, recorded, false);
    }

    /// Gives slots to an attempt that was ahead of them.
    pub fn become_promoted(&mut self, now: Now) {
        debug_assert!(self.is_ahead(), "{:?}", self.phase);
        match self.phase {
            Phase::Staged { listens } => self.run(now, false, listens),
            _ => self.phase = Phase::Reserved { recorded: false },
        }
    }

    fn run(&mut self, since: Now, recorded: bool, listens: bool) {
        let (pause_at, request_at, expired) = (None, None, false);
        let running = Running { since, recorded, listens, pause_at, request_at, expired };
        self.phase = Phase::Running(running);
        self.plan_request(since.mono);
    }
}

/// Times of a running attempt.
impl Attempt {
    fn interval(&self) -> Option<Millis> {
        self.spec.checkpoint_interval.map(millis)
    }

    /// A checkpoint was made or requested, or it runs on: the next request is due an interval later.
    pub fn plan_request(&mut self, now: Millis) {
        let at = self.interval().map(|every| now + every);
        if let Some(running) = self.running_mut() {
            running.request_at = at;
        }
    }

    /// Returns the time of the next checkpoint request, which is earlier with shorter intervals.
    pub fn request_at(&self, shorter: bool) -> Option<Millis> {
        let (at, every) = (self.running()?.request_at?, self.interval()?);
        let sooner = if shorter { every - BandwidthPolicy::shortened(every) } else { 0 };
        (!self.paused).then_some(at.saturating_sub(sooner))
    }

    /// Returns the interval of checkpoint requests if one is due, and plans the next.
    pub fn take_request(&mut self, now: Millis, shorter: bool) -> Option<Millis> {
        let due = self.request_at(shorter).is_some_and(|at| at <= now);
        let every = self.interval().filter(|_| due)?;
        self.plan_request(now);
        Some(every)
    }

    /// Returns the time at which it is paused even without a checkpoint.
    pub fn pause_at(&self) -> Option<Millis> {
        self.running()?.pause_at
    }

    /// Plans a pause once the checkpoint is there, at this time at the latest.
    pub fn plan_pause(&mut self, at: Millis) {
        debug_assert!(self.paused && self.is_running(), "{:?}", self.phase);
        if let Some(running) = self.running_mut() {
            running.pause_at = Some(at);
        }
    }

    /// Makes a pause due that waited for a checkpoint: that is there.
    pub fn pause_soon(&mut self, now: Millis) {
        if let Some(at) = self.running_mut().and_then(|running| running.pause_at.as_mut()) {
            *at = now;
        }
    }

    pub fn cancel_pause(&mut self) {
        if let Some(running) = self.running_mut() {
            running.pause_at = None;
        }
    }

    /// Returns true if a planned pause is due, once.
    pub fn take_pause(&mut self, now: Millis) -> bool {
        let due = self.pause_at().is_some_and(|at| at <= now);
        if due {
            self.cancel_pause();
        }
        due
    }

    /// Returns what is to be done if its window has passed after `away` without a link, once.
    pub fn take_expiry(&mut self, away: Millis) -> Option<OnLeaseExpired> {
        let (window, policy) = (millis(self.spec.reconnect_window), self.spec.on_lease_expired);
        let running = self.running_mut()?;
        let passed = !running.expired && window <= away;
        running.expired |= passed;
        passed.then_some(policy)
    }

    /// Restarts its window after a reconnect.
    pub fn renew(&mut self) {
        if let Some(running) = self.running_mut() {
            running.expired = false;
        }
    }

    /// Returns the time at which its window passes, without a link since `lost` and for `away` before
    /// that, if something is to be done then.
    pub fn expires_at(&self, (lost, away): (Millis, Millis)) -> Option<Millis> {
        let waits =
            !self.running()?.expired && self.spec.on_lease_expired != OnLeaseExpired::Continue;
        waits.then(|| lost + millis(self.spec.reconnect_window).saturating_sub(away))
    }
}
