//! Runner of an agent's attempts: an executor in this process, or a keeper that outlives it.
//!
//! Both take the same calls and report the same events, and both let attempts wait for slots in the
//! same [`Line`], so the agent need not know which it has.

mod line;

pub use line::Line;

use crate::exec::{Config, Ended, Executor, Signal, StopKind};
use crate::keeper::{Keeper, KeeperError, KeeperLaunch};
use outlast_core::AttemptId;
use outlast_wire::TaskSpec;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// An attempt to run.
#[derive(Debug, Clone)]
pub struct Start {
    /// Id of the attempt.
    pub id: AttemptId,
    /// Specification of the task.
    pub spec: Arc<TaskSpec>,
    /// Name of the worker, for the task.
    pub worker: Arc<str>,
    /// Variables of this attempt only, over those of its spec and of the worker.
    pub env: Vec<(String, String)>,
}

/// Event of an attempt. Each started attempt has one `Finished`, and no event after that except a
/// `Started`, `Paused` or `Resumed` that crossed with it.
#[derive(Debug, Clone, PartialEq)]
// Nearly every event is the large one.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// The attempt has been running for a while. Short attempts finish without this event.
    Started {
        /// Id of the attempt.
        id: AttemptId,
        /// Start time in Unix ms.
        at_ms: i64,
    },
    /// The attempt has ended.
    Finished(Ended),
    /// The attempt's processes are suspended until it is resumed.
    Paused(AttemptId),
    /// The attempt's processes run again.
    Resumed(AttemptId),
    /// No task can be started here, and why, or, by `None`, they can again.
    Unfit(Option<String>),
    /// The keeper died, and why. What it ran is ended and reported; a new one takes its place.
    Died(String),
}

/// Takes events, in order, as many as there are at once.
pub type Tell = Box<dyn Fn(Vec<Event>) + Send + Sync>;

/// An attempt that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAttempt {
    /// Id of the attempt.
    pub id: AttemptId,
    /// Start time in Unix ms; `None` if it waits for slots.
    pub started_at_ms: Option<i64>,
    /// True if it is paused, or about to be.
    pub paused: bool,
}

/// Attempts that a previous agent left. For each of `running` a `Finished` follows; each of `finished`
/// is kept until it is forgotten.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Attempts that wait or run.
    pub running: Vec<HeldAttempt>,
    /// Outcomes that no agent has forgotten.
    pub finished: Vec<Ended>,
    /// Processes of a former worker that nobody held, and that were killed.
    pub swept: usize,
    /// Reason why no task can be started here, if so.
    pub unfit: Option<String>,
}

/// Runs attempts.
pub enum Runner {
    /// In this process: they end with it.
    Here(Here),
    /// In a process that outlives this one.
    Kept(Keeper),
}

/// An executor in this process. Dropping it ends its tasks, with little grace.
pub struct Here {
    line: Arc<Line>,
    tell: Arc<OnceLock<Tell>>,
}

impl Drop for Here {
    fn drop(&mut self) {
        // Each attempt that runs holds the line.
        self.line.abandon();
    }
}

/// Reason why there is no runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The executor's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] std::io::Error),
    /// There is no keeper.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

impl Runner {
    /// Opens the executor's folder, here or with a keeper, and takes over what is there. At most
    /// `slots` are in use at a time; what does not fit waits. Blocks while it kills what a former
    /// worker left and, with a keeper, until that answers.
    ///
    /// # Errors
    /// [`RunnerError`]; nothing runs then.
    pub fn open(
        exec: Config,
        slots: u32,
        keeper: Option<KeeperLaunch>,
    ) -> Result<(Runner, Held), RunnerError> {
        if let Some(launch) = keeper {
            let (keeper, held) = Keeper::connect(&exec.root, launch, slots, exec.extra_env)?;
            return Ok((Runner::Kept(keeper), held));
        }
        let executor = Executor::new(exec)?;
        let held = Held { swept: executor.killed_at_start(), ..Held::default() };
        let tell: Arc<OnceLock<Tell>> = Arc::default();
        let told = Arc::clone(&tell);
        let line = Line::new(executor, slots, move |event, _| {
            if let Some(tell) = told.get() {
                tell(vec![event]);
            }
        });
        Ok((Runner::Here(Here { line, tell }), held))
    }

    /// Sets the callback for events, called on the runner's threads; before the first start, and once.
    pub fn listen(&self, tell: Tell) {
        match self {
            Runner::Here(here) => drop(here.tell.set(tell)),
            Runner::Kept(keeper) => keeper.listen(tell),
        }
    }

    /// The folder, as [`crate::exec::logs::read`] wants it.
    pub fn root(&self) -> &Path {
        match self {
            Runner::Here(here) => here.line.executor().root(),
            Runner::Kept(keeper) => keeper.root(),
        }
    }

    /// Starts attempts, in this order, as slots become free. One that is held already is not
    /// started again. Many at once cost less than one by one.
    pub fn start(&self, starts: Vec<Start>) {
        match self {
            Runner::Here(here) => starts.into_iter().for_each(|start| here.line.start(start)),
            Runner::Kept(keeper) => keeper.start(starts),
        }
    }

    /// Ends an attempt as its spec says: SIGTERM, SIGKILL after its grace.
    pub fn stop(&self, id: &AttemptId, kind: StopKind) {
        match self {
            Runner::Here(here) => here.line.stop(id, kind),
            Runner::Kept(keeper) => keeper.stop(id, kind),
        }
    }

    /// Gives an attempt back as RETURNED if nothing was done for it yet; if not, does nothing.
    pub fn recall(&self, id: &AttemptId) {
        match self {
            Runner::Here(here) => here.line.recall(id),
            Runner::Kept(keeper) => keeper.recall(id),
        }
    }

    /// Stops all processes of an attempt for a while, its time limit too. One that waits keeps
    /// waiting, and lets others pass. One that runs keeps its slots.
    pub fn pause(&self, id: &AttemptId) {
        match self {
            Runner::Here(here) => here.line.pause(id, true),
            Runner::Kept(keeper) => keeper.pause(id),
        }
    }

    /// Lets a paused attempt go on.
    pub fn resume(&self, id: &AttemptId) {
        match self {
            Runner::Here(here) => here.line.pause(id, false),
            Runner::Kept(keeper) => keeper.resume(id),
        }
    }

    /// Sends the main process of an attempt a signal, if it has one.
    pub fn signal(&self, id: &AttemptId, signal: Signal) {
        match self {
            Runner::Here(here) => here.line.signal(id, signal),
            Runner::Kept(keeper) => keeper.signal(id, signal),
        }
    }

    /// The outcomes of these are durable here: a keeper need not keep them.
    pub fn forget(&self, ids: &[AttemptId]) {
        match self {
            Runner::Here(_) => {}
            Runner::Kept(keeper) => keeper.forget(ids),
        }
    }

    /// Stops everything, waits until all outcomes are reported, and ends processes that tasks left
    /// running, and the keeper. Takes as long as the longest kill grace. Not for an async thread, nor for
    /// a thread that receives events.
    pub fn shutdown(&self, kind: StopKind) {
        match self {
            Runner::Here(here) => here.line.shutdown(kind),
            Runner::Kept(keeper) => keeper.shutdown(kind),
        }
    }
}
