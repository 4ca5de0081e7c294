//! Attempts as a runner gets them, holds them, and reports their events.

use outlast_core::AttemptId;
use outlast_model::TaskOutcome;
use outlast_wire::TaskSpec;
use std::sync::Arc;

/// An attempt to run.
#[derive(Debug, Clone)]
pub struct Start {
    /// The attempt.
    pub id: AttemptId,
    /// The spec.
    pub spec: Arc<TaskSpec>,
    /// The worker's name, as the task has it.
    pub worker: Arc<str>,
    /// Variables of this attempt only, over those of its spec and of the worker.
    pub env: Vec<(String, String)>,
}

/// An event of attempts. For each that was started there is one `Finished`, and nothing of
/// it after that, but for a `Started`, `Paused` or `Resumed` that crossed with it.
#[derive(Debug, Clone, PartialEq)]
// Nearly every event is the large one.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// The attempt has been running for a while. Short attempts finish without.
    Started {
        /// The attempt.
        id: AttemptId,
        /// Time since when, in Unix ms.
        at_ms: i64,
    },
    /// The attempt has ended.
    Finished(TaskOutcome),
    /// Pause: none of its processes runs until it is resumed.
    Paused(AttemptId),
    /// Resumption: its processes run again.
    Resumed(AttemptId),
    /// No task can be started here, and why, or, by `None`, they can again.
    Unfit(Option<String>),
    /// The keeper died, and why. What it ran is ended and reported; a new one takes its place.
    Died(String),
}

/// The receiver of events, which come in order, as many as there are at once.
pub type Tell = Box<dyn Fn(Vec<Event>) + Send + Sync>;

/// An attempt that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// Time since when it runs, in Unix ms; `None` if it waits for slots.
    pub started_at_ms: Option<i64>,
    /// The attempt is paused, or about to be.
    pub paused: bool,
}

/// The attempts that a former agent left. For each of `running` a `Finished` follows; each of `finished` is
/// kept until it is forgotten.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Attempts that wait or run.
    pub running: Vec<HeldAttempt>,
    /// Outcomes that no agent has forgotten.
    pub finished: Vec<TaskOutcome>,
    /// Processes of a former worker that nobody held, and that were killed.
    pub swept: usize,
    /// The reason why no task can be started here, if so.
    pub unfit: Option<String>,
}
