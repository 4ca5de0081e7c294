//! The runner of an agent's attempts: an executor in this process, or a keeper that outlives it.
//!
//! Both take the same calls and report the same events, and both let attempts wait for slots in the
//! same [`Line`], so the agent need not care which it has.

pub(crate) mod events;
pub(crate) mod line;

pub use events::{Event, Held, HeldAttempt, Start, Tell};
pub use line::Line;

use crate::exec::{Config, Executor, Signal, StopKind};
use crate::keeper::{Keeper, KeeperError, KeeperLaunch};
use outlast_core::AttemptId;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A runner of attempts.
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

/// The reason why there is no runner.
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
        let listener = Arc::clone(&tell);
        let line = Line::new(executor, slots, move |event, _| {
            if let Some(tell) = listener.get() {
                tell(vec![event]);
            }
        });
        Ok((Runner::Here(Here { line, tell }), held))
    }

    /// Sets the receiver of events, called on threads of the runner's; before the first start, and once.
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

    /// Stops everything, waits until all outcomes are reported, and ends what tasks left running, and
    /// the keeper. Takes as long as the longest kill grace. Not for an async thread, nor for one
    /// that receives events.
    pub fn shutdown(&self, kind: StopKind) {
        match self {
            Runner::Here(here) => here.line.shutdown(kind),
            Runner::Kept(keeper) => keeper.shutdown(kind),
        }
    }
}
