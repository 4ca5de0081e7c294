//! Documents of the HTTP API as JSON, for server and clients.
//!
//! Times are RFC 3339 in UTC with milliseconds. Unknown fields are ignored when reading, so that
//! either side may be newer.

use crate::spec::TaskSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most tasks in one submission.
pub const MAX_BATCH: usize = 10_000;
/// The most tasks in one page of a list.
pub const MAX_PAGE: usize = 1000;
/// The most bytes in one part of a log.
pub const MAX_LOG_PART: u32 = 1 << 20;
/// The longest wait for a result in one request, in seconds.
pub const MAX_WAIT: u64 = 60;
/// The largest body of a request, in bytes.
pub const MAX_BODY: usize = 32 << 20;

macro_rules! documents {
    ($($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name { $($body)* }
    )*};
}

mod json_text;
mod page;
mod quality;
mod recovery;
mod told;

pub use json_text::JsonText;
pub use outlast_model::recovery::{
    FailureClass, HardwareClass, PatternRules, Recovery, Rule, Strategy,
};
pub use outlast_model::{Cause, LinkCause, OutcomeKind, TaskState};
pub use page::*;
pub use quality::*;
pub use recovery::*;
pub use told::*;

documents! {
    /// A task.
    pub struct Task {
        /// Id of the task.
        pub id: String,
        /// Position in the order of submission.
        pub number: u64,
        /// State of the task.
        pub state: TaskState,
        /// Specification of the task.
        pub spec: TaskSpec,
        /// Number of the newest attempt; 0 before the first.
        pub attempt: u64,
        /// Losses that count toward `max_retries`.
        pub retries: u32,
        /// A cancel was asked for and is not settled.
        pub cancelling: bool,
        /// Name of the worker that has it, or had it last.
        #[serde(default)]
        pub worker: Option<String>,
        /// Time at which the task was accepted.
        pub submitted_at: String,
        /// Time at which the newest attempt was assigned.
        #[serde(default)]
        pub assigned_at: Option<String>,
        /// Start of the newest attempt, by the worker's clock.
        #[serde(default)]
        pub started_at: Option<String>,
        /// Time at which the task ended.
        #[serde(default)]
        pub ended_at: Option<String>,
        /// Reason of the end in words; empty on plain success.
        #[serde(default)]
        pub reason: String,
        /// True if `/result` has a result.
        pub has_result: bool,
        /// Cause of the end: exit, signal, out_of_memory, timed_out, network…; empty before the end.
        #[serde(default)]
        pub cause: Cause,
        /// True if the task is paused.
        #[serde(default)]
        pub paused: bool,
        /// Last reported progress, from 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub progress: Option<f64>,
        /// Explanation why the task waits, while it does; only if a single task is requested.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub waiting_for: Option<String>,
        /// Name of the API key that it was submitted with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub owner: Option<String>,
    }

    /// A page of tasks.
    pub struct TaskList {
        /// In the order asked for.
        pub tasks: Vec<Task>,
        /// To be given as `cursor` for the next page; null on the last.
        pub next: Option<String>,
    }

    /// Answer to the submission of a batch.
    pub struct Submitted {
        /// In the order of the request.
        pub tasks: Vec<SubmittedTask>,
    }

    /// Answer to the submission of one task.
    pub struct SubmittedTask {
        /// Id of the task.
        pub id: String,
        /// False when a task with this id and spec was there before.
        pub created: bool,
        /// State of the task.
        pub state: TaskState,
    }

    /// Result of a task.
    pub struct TaskResult {
        /// The task.
        pub id: String,
        /// The attempt that decided it.
        pub attempt: u64,
        /// State that the task ended in.
        pub state: TaskState,
        /// Outcome of that attempt; null when no attempt decided it.
        #[serde(default)]
        pub outcome: Option<OutcomeKind>,
        /// Exit code of the process.
        #[serde(default)]
        pub exit_code: Option<i32>,
        /// Signal that ended the process.
        #[serde(default)]
        pub signal: Option<i32>,
        /// Explanation in words; empty on success.
        #[serde(default)]
        pub message: String,
        /// Name of the worker that delivered it.
        #[serde(default)]
        pub worker: Option<String>,
        /// Start, by the worker's clock.
        #[serde(default)]
        pub started_at: Option<String>,
        /// End, by the worker's clock.
        #[serde(default)]
        pub finished_at: Option<String>,
        /// Milliseconds between the two.
        #[serde(default)]
        pub duration_ms: Option<i64>,
        /// Peak memory in bytes; 0 when unknown.
        #[serde(default)]
        pub max_rss_bytes: u64,
        /// Processor time in milliseconds.
        #[serde(default)]
        pub cpu_ms: u64,
        /// The end of what it wrote.
        #[serde(default)]
        pub stdout: String,
        /// The end of what it wrote to stderr.
        #[serde(default)]
        pub stderr: String,
        /// Total bytes written to stdout.
        #[serde(default)]
        pub stdout_bytes: u64,
        /// Total bytes written to stderr.
        #[serde(default)]
        pub stderr_bytes: u64,
        /// True if `stdout` is only the end.
        #[serde(default)]
        pub stdout_truncated: bool,
        /// True if `stderr` is only the end.
        #[serde(default)]
        pub stderr_truncated: bool,
        /// Value that a called function returned, as written by its worker. The last field, so that clients
        /// that cannot parse it can cut it out.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Value))]
        pub value: JsonText,
    }

    /// Tasks whose ends are requested.
    pub struct WhichEnded {
        /// Ids of up to 1,000 tasks.
        pub ids: Vec<String>,
        /// Seconds to wait for the first that ends, at most 60.
        #[serde(default)]
        pub wait: u64,
    }

    /// Ended tasks among those requested, in no order.
    pub struct EndedTasks {
        /// Results of the ended tasks.
        pub results: Vec<TaskResult>,
        /// Ids of tasks that do not exist.
        #[serde(default)]
        pub unknown: Vec<String>,
    }

    /// History of a task.
    pub struct History {
        /// Events in order.
        pub events: Vec<HistoryEvent>,
    }

    /// Event of a task.
    pub struct HistoryEvent {
        /// Time of the event; a start carries the worker's clock.
        pub at: String,
        /// submitted, assigned, started, requeued, succeeded, failed, cancelled, superseded,
        /// cancel_requested, retried, noted, pause_requested, resume_requested or recovery.
        pub event: String,
        /// Number of the attempt; 0: none.
        pub attempt: u64,
        /// Name of the worker concerned.
        #[serde(default)]
        pub worker: Option<String>,
        /// Reason in words.
        #[serde(default)]
        pub reason: String,
        /// Cause of an attempt's end; empty for other events.
        #[serde(default)]
        pub cause: Cause,
        /// Decision of a recovery: class, hardware, strategy, delay_ms, knobs and text.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        pub recovery: Value,
    }

    /// Number of tasks in each state.
    pub struct CountsView {
        /// Waiting.
        pub pending: u64,
        /// Given to a worker: they run there, or wait for their turn.
        pub assigned: u64,
        /// Assigned tasks that have started; 0 from older coordinators.
        #[serde(default)]
        pub running: u64,
        /// Ended well.
        pub succeeded: u64,
        /// Ended badly.
        pub failed: u64,
        /// Ended on request.
        pub cancelled: u64,
        /// Paused: of the waiting and given ones, which keep their states.
        #[serde(default)]
        pub paused: u64,
        /// Number of all tasks.
        pub total: u64,
        /// Only those that were asked for were counted; older coordinators count all.
        #[serde(default)]
        pub filtered: bool,
    }

    /// A worker.
    pub struct Worker {
        /// Name of the worker.
        pub name: String,
        /// Id of the worker's store.
        pub store_id: String,
        /// connected, draining, unfit (connected, and it cannot work), suspect (away, and holding
        /// tasks) or away.
        pub state: String,
        /// Number of times that its store was opened.
        pub incarnation: u64,
        /// Number of connections of that incarnation.
        pub connection: u64,
        /// Tasks that run at once.
        pub slots: u32,
        /// Attempts that it holds.
        pub held: u64,
        /// Tasks that run there, as it said last.
        pub running: u32,
        /// Tasks that wait there, as it said last.
        pub queued: u32,
        /// Results not yet acknowledged, as it said last.
        pub unacked: u64,
        /// Newest round-trip time in milliseconds.
        pub rtt_ms: u32,
        /// Capabilities of the worker.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub capabilities: Value,
        /// As declared.
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        /// Version of its software.
        pub version: String,
        /// Time of its last handshake.
        #[serde(default)]
        pub seen_at: Option<String>,
        /// Time of its link's end.
        #[serde(default)]
        pub gone_at: Option<String>,
        /// Reason of its link's end.
        #[serde(default)]
        pub gone_reason: String,
        /// The same as a word: network, silent, worker_stopped, slow, slept…
        #[serde(default)]
        pub gone_cause: LinkCause,
        /// An operator lets it have no new work.
        #[serde(default)]
        pub drained: bool,
        /// Last reported disk use of blobs.
        #[serde(default)]
        pub disk: Option<Disk>,
        /// `quarantined` or `on probation`, because tasks fail there; empty otherwise.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub quarantine: String,
        /// Fault that the worker reports about itself: `cannot write its store: No space left on
        /// device`; empty otherwise. A worker whose state is not `unfit` accepts tasks nonetheless.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub unfit: String,
        /// Time since which it reports this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unfit_since: Option<String>,
        /// A process with a copy of its state folder that was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub copied: Option<Copied>,
        /// Name of the API key that it is bound to; empty: none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub bound_to: String,
    }

    /// A process with a copy of a worker's state folder that was refused.
    pub struct Copied {
        /// Time of the last refusal.
        pub at: String,
        /// Number of refusals.
        pub times: u64,
        /// The machine that it said it runs on.
        #[serde(default)]
        pub host: String,
    }

    /// All workers.
    pub struct WorkerList {
        /// Workers in the order of their names.
        pub workers: Vec<Worker>,
    }

    /// A task event of the event stream.
    pub struct TaskEvent {
        /// The task.
        pub id: String,
        /// Kind of event, as in a history; also checkpoint and state.
        pub event: String,
        /// Number of the attempt; 0: none.
        pub attempt: u64,
        /// Name of the worker concerned.
        #[serde(default)]
        pub worker: Option<String>,
        /// Time of the record.
        pub at: String,
        /// Reason in words.
        #[serde(default)]
        pub reason: String,
        /// The state that it led to, when it changed.
        #[serde(default)]
        pub state: Option<TaskState>,
    }

    /// A worker event of the event stream.
    pub struct WorkerEvent {
        /// The worker.
        pub name: String,
        /// connected, disconnected, drained, undrained or forgotten.
        pub event: String,
        /// Time of the record.
        pub at: String,
        /// Reason in words.
        #[serde(default)]
        pub reason: String,
    }

    /// Description of this coordinator.
    pub struct Info {
        /// UUID of its store.
        pub coordinator_id: String,
        /// Version of the software.
        pub version: String,
        /// Version of the worker protocol.
        pub protocol: u32,
        /// Current time of its clock.
        pub now: String,
        /// Start time of this process.
        pub started_at: String,
        /// True if a key is required.
        pub auth: bool,
        /// True if it serves TLS itself.
        pub tls: bool,
        /// True if its system's clock has jumped within the last hour: nothing is removed by age.
        #[serde(default)]
        pub clock_jumped: bool,
    }

    /// An error (RFC 9457).
    pub struct Problem {
        /// `urn:outlast:problem:` and a word that stays the same.
        #[serde(rename = "type")]
        pub kind: String,
        /// The same in words.
        pub title: String,
        /// The HTTP status.
        pub status: u16,
        /// Explanation of this problem, and what to do.
        #[serde(default)]
        pub detail: String,
        /// Ids that are taken by tasks with another spec.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub conflicts: Vec<String>,
    }
}

/// Prefix of every problem's type.
pub const PROBLEM_PREFIX: &str = "urn:outlast:problem:";

impl Problem {
    /// The word that tells this kind of problem from others, such as `not-found`.
    pub fn word(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_PREFIX).unwrap_or(&self.kind)
    }
}
