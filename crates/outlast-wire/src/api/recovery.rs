//! What is done after failures, and what they have in common.

use crate::recovery::{PatternRules, Recovery, Rule};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

documents! {
    /// What is done after failures.
    pub struct RecoveryTable {
        /// By class of failure: what is tried, in this order. These come first.
        pub errors: BTreeMap<String, Vec<String>>,
        /// By class of hardware, after failures that are not among the former.
        pub hardware: BTreeMap<String, Vec<String>>,
        /// Seconds before the first delayed retry; the delay doubles each time.
        pub base_delay: f64,
        /// Seconds that no delay exceeds.
        pub max_delay: f64,
        /// Share of a delay by which it varies.
        pub jitter: f64,
        /// Whether tasks start with the knobs that worked before.
        pub remember: bool,
        /// The user's rules; the built-in ones come after them.
        pub rules: Vec<Rule>,
        /// What is different for tasks with a label, by `key=value`.
        pub labels: BTreeMap<String, Recovery>,
        /// What makes a pattern.
        pub patterns: PatternRules,
    }

    /// What failures have in common, and what was done about it.
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
        /// What they share: worker, hardware, task_type, type_on_hardware or task.
        pub kind: String,
        /// Which.
        pub subject: String,
        /// What happened each time.
        pub class: String,
        /// How often.
        pub count: usize,
        /// Of how many tasks.
        pub tasks: usize,
        /// On how many workers.
        pub workers: usize,
        /// When the first happened.
        pub first: String,
        /// When the last happened.
        pub last: String,
        /// What the last one rests on.
        pub evidence: String,
    }

    /// A worker that is given no work but probes.
    pub struct QuarantinedWorker {
        /// Its name.
        pub worker: String,
        /// `quarantined`, or `on probation`: given one task at a time.
        pub state: String,
        /// Since when.
        pub since: String,
        /// When it may be given a probe.
        pub until: String,
        /// Probes that failed.
        pub failed_probes: u32,
        /// Why.
        pub reason: String,
    }

    /// Knobs that worked.
    pub struct LearnedKnobs {
        /// For tasks of this type.
        pub task_type: String,
        /// On this hardware.
        pub hardware: String,
        /// Their values.
        pub knobs: BTreeMap<String, Value>,
        /// The task that showed it.
        pub task: String,
        /// When.
        pub at: String,
    }

    /// A failure that is looked back at.
    pub struct PastFailure {
        /// When.
        pub at: String,
        /// The task.
        pub task: String,
        /// The attempt.
        pub attempt: u64,
        /// The task's type.
        pub task_type: String,
        /// The worker.
        pub worker: String,
        /// What it used.
        pub hardware: String,
        /// What happened.
        pub class: String,
        /// The same as the replaced system called it.
        pub failure_type: String,
        /// What that rests on.
        pub evidence: String,
    }

    /// Which type of task is meant.
    pub struct OfType {
        /// The type; null: all.
        #[serde(default, rename = "type")]
        pub task_type: Option<String>,
    }
}
