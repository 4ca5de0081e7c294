//! Failure recovery: rules and patterns.

use crate::recovery::{PatternRules, Recovery, Rule, Strategy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

documents! {
    /// Rules of failure recovery.
    pub struct RecoveryTable {
        /// By class of failure: what is tried, in this order. These come first.
        pub errors: BTreeMap<String, Vec<Strategy>>,
        /// By class of hardware, after failures that are not among the former.
        pub hardware: BTreeMap<String, Vec<Strategy>>,
        /// Seconds before the first delayed retry; the delay doubles each time.
        pub base_delay: f64,
        /// Seconds that no delay exceeds.
        pub max_delay: f64,
        /// Share of a delay by which it varies.
        pub jitter: f64,
        /// True if tasks start with knob values that worked before.
        pub remember: bool,
        /// The user's rules; the built-in ones come after them.
        pub rules: Vec<Rule>,
        /// Overrides for tasks with a label, by `key=value`.
        pub labels: BTreeMap<String, Recovery>,
        /// Criteria of a pattern.
        pub patterns: PatternRules,
    }

    /// Repeated failures, and their consequences.
    pub struct RecoveryPatterns {
        /// The most frequent first.
        pub patterns: Vec<FailurePattern>,
        /// Workers that are given no work but probes.
        pub quarantined: Vec<QuarantinedWorker>,
        /// Knobs that worked; tasks of the type start with them.
        pub learned: Vec<LearnedKnobs>,
        /// The newest failures, newest first.
        pub failures: Vec<PastFailure>,
    }

    /// Like failures within the window.
    pub struct FailurePattern {
        /// Kind of the shared property: worker, hardware, task_type, type_on_hardware or task.
        pub kind: String,
        /// Value of the property.
        pub subject: String,
        /// Common class of the failures.
        pub class: String,
        /// Number of failures.
        pub count: usize,
        /// Number of tasks.
        pub tasks: usize,
        /// Number of workers.
        pub workers: usize,
        /// Time of the first failure.
        pub first: String,
        /// Time of the last failure.
        pub last: String,
        /// Evidence of the last failure.
        pub evidence: String,
    }

    /// A worker that is given no work but probes.
    pub struct QuarantinedWorker {
        /// Name of the worker.
        pub worker: String,
        /// `quarantined`, or `on probation`: given one task at a time.
        pub state: String,
        /// Start of the quarantine.
        pub since: String,
        /// Time of the next probe.
        pub until: String,
        /// Probes that failed.
        pub failed_probes: u32,
        /// Reason in words.
        pub reason: String,
    }

    /// Knobs that worked.
    pub struct LearnedKnobs {
        /// For tasks of this type.
        pub task_type: String,
        /// Hardware on which the values worked.
        pub hardware: String,
        /// Knob values.
        pub knobs: BTreeMap<String, Value>,
        /// The task that showed it.
        pub task: String,
        /// Time at which they worked.
        pub at: String,
    }

    /// A failure that is looked back at.
    pub struct PastFailure {
        /// Time of the failure.
        pub at: String,
        /// The task.
        pub task: String,
        /// The attempt.
        pub attempt: u64,
        /// The task's type.
        pub task_type: String,
        /// The worker.
        pub worker: String,
        /// Hardware of the attempt.
        pub hardware: String,
        /// Class of the failure.
        pub class: String,
        /// The same as the replaced system called it.
        pub failure_type: String,
        /// Evidence for the class.
        pub evidence: String,
    }

    /// Type of task.
    pub struct OfType {
        /// The type; null: all.
        #[serde(default, rename = "type")]
        pub task_type: Option<String>,
    }
}
