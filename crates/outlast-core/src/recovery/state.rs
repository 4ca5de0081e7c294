//! Durable state of recovery: previous actions of each task, the reason of each decision, and knob
//! values that worked for each type of task.

use super::{FailureClass, HardwareClass, Strategy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most entries of [`TaskRecovery::tried`]; the oldest go first.
pub const MAX_TRIED: usize = 64;
/// The most workers that a task avoids; the oldest go first.
pub const MAX_AVOIDED: usize = 4;

/// Previous actions for a task, and settings of its next attempt. Stored as JSON; new fields have
/// defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskRecovery {
    /// The place of each knob on its ladder; those that are not here are at 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub knobs: BTreeMap<String, usize>,
    /// True once the initial positions of its knobs were decided.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// Actions after each failure, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// Retries after it ran out of memory that do not count toward `max_retries`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_retries: u32,
    /// Losses together with others that ran beside it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: u32,
    /// Earliest start of the next attempt, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_before: i64,
    /// Names of workers that are not to have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// The `hardware` of workers that are not to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid_hardware: Option<String>,
}

fn is_zero<T: Default + PartialEq>(n: &T) -> bool {
    *n == T::default()
}

/// Action after a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Class of the failure.
    pub class: FailureClass,
    /// Strategy of the action.
    pub strategy: Strategy,
    /// The worker where it had happened, by name.
    #[serde(default)]
    pub worker: String,
}

impl TaskRecovery {
    /// Returns true if there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if this strategy was used after a failure of this class.
    pub fn has_tried(&self, class: FailureClass, strategy: Strategy) -> bool {
        self.tried.iter().any(|t| t.class == class && t.strategy == strategy)
    }

    /// Describes the previous actions in words.
    pub fn describe_tried(&self) -> String {
        let mut counts: Vec<(Strategy, usize)> = Vec::new();
        for tried in &self.tried {
            match counts.iter_mut().find(|(s, _)| *s == tried.strategy) {
                Some((_, n)) => *n += 1,
                None => counts.push((tried.strategy, 1)),
            }
        }
        let word = |(strategy, n): &(Strategy, usize)| match n {
            1 => strategy.as_str().to_owned(),
            n => format!("{} ({n} times)", strategy.as_str()),
        };
        counts.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// A decision, as it stands in the task's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Class of the failure; none if nothing failed (initial knob positions).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Hardware of the attempt.
    pub hardware: HardwareClass,
    /// Strategy of the action; none if nothing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Delay in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// The knobs from here on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub knobs: BTreeMap<String, Value>,
    /// The same and why, for people.
    pub text: String,
}

/// The knobs that worked for tasks of a type on a kind of hardware.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The tasks' type.
    pub task_type: String,
    /// A class of hardware, and the model where there is one: `cpu`, `gpu NVIDIA A100`.
    pub hardware: String,
    /// Values that worked.
    pub knobs: BTreeMap<String, Value>,
    /// The task that showed it last.
    pub task: String,
    /// Time in Unix milliseconds.
    pub at: i64,
}
