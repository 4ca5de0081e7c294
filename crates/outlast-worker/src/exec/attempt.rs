//! The state of an attempt, shared by its thread, its handle and the supervisor.

use super::lock::lock;
use super::logs::Paths;
use super::outcome::{Unbegun, not_begun, plain};
use super::output::Stream;
use super::stop::Why;
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_wire::{Run, TaskSpec};
use rustix::process::Pid;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The phase of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// No process yet, and nothing was done for one.
    Waiting,
    /// The process is being started.
    Starting,
    /// The main process was started and is not reaped.
    Running(Pid),
    /// The main process ended by itself, or there was none: nothing to signal any more.
    Ended,
}

/// The part of an attempt that its lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub phase: Phase,
    /// The requested stop; it takes effect once `signalled`.
    pub stop: Option<Why>,
    /// Signals were sent to a living main process: from here on the stop decides the outcome.
    pub signalled: bool,
    /// The supervisor found nothing alive of the tree, or gave up on this many processes.
    pub gone: Option<usize>,
    pub deadline: Option<Instant>,
    /// Time at which it had a process.
    pub began: Option<Instant>,
    /// The processes shall not run.
    pub pause: bool,
    /// The processes do not run: the rest of its time, if that is limited.
    pub paused: Option<Option<Duration>>,
}

impl State {
    pub fn new() -> State {
        State {
            phase: Phase::Waiting,
            stop: None,
            signalled: false,
            gone: None,
            deadline: None,
            began: None,
            pause: false,
            paused: None,
        }
    }
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub key: u64,
    pub task: String,
    pub epoch: u64,
    pub worker: String,
    pub spec: Arc<TaskSpec>,
    /// Variables of its own, besides those of its spec.
    pub env: Vec<(String, String)>,
    /// The mark of its processes, in their environment.
    pub mark: String,
    /// The tag of its processes, which their environment does not show.
    pub tag: u64,
    pub paths: Paths,
    /// Stdout and stderr, while it runs.
    pub output: Mutex<Option<[Arc<Stream>; 2]>>,
    pub state: Mutex<State>,
    pub changed: Condvar,
    /// Unix ms; 0 until it is started.
    pub started: AtomicI64,
    /// The largest resident size that was seen of the main process.
    pub peak: AtomicU64,
    /// Disk that its output took at the last sample.
    pub disk: AtomicU64,
    /// The watcher has the note that it runs.
    pub announced: AtomicBool,
}

impl Attempt {
    /// `<task>.<epoch>`, the name of its files.
    pub fn stem(&self) -> String {
        format!("{}.{}", self.task, self.epoch)
    }

    pub(super) fn is_browser(&self) -> bool {
        matches!(self.spec.run, Run::Browser(_))
    }

    /// The outcome of a stop before the start. Without one the start begins: it is too late for a recall.
    pub(super) fn stopped_before_start(&self) -> Option<TaskOutcome> {
        let mut state = lock(&self.state);
        let Some(why) = &state.stop else {
            state.phase = Phase::Starting;
            return None;
        };
        let ended = self.not_begun(why);
        state.phase = Phase::Ended;
        Some(ended)
    }

    /// The outcome of an attempt that was stopped before it had a process.
    pub fn not_begun(&self, why: &Why) -> TaskOutcome {
        let (kind, message, cause) = not_begun(match why {
            Why::Cancelled => Unbegun::Cancelled,
            Why::Recalled => Unbegun::Recalled,
            _ => Unbegun::Stopped,
        });
        self.outcome(kind, cause, message)
    }

    /// An outcome with no more in it than this.
    pub fn outcome(
        &self,
        kind: OutcomeKind,
        cause: Cause,
        message: impl Into<String>,
    ) -> TaskOutcome {
        TaskOutcome {
            started_at_ms: self.started.load(Ordering::Relaxed),
            ..plain(&self.task, self.epoch, kind, cause, message)
        }
    }
}

/// A spec's seconds, within the limits of a spec.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value > 0.0 { value.min(1e9) } else { 0.0 })
}
