//! The words of recovery, and how a user overrides what is done: in the coordinator's file, per
//! label, or per task. What follows a failure is decided elsewhere.

use crate::json::short;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most rules of one override, and the longest pattern, in bytes.
pub const MAX_RULES: (usize, usize) = (64, 512);
/// The most rungs of one ladder.
pub const MAX_RUNGS: usize = 16;

macro_rules! words {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All variants.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The word that users read and write.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
            /// The reverse of [`Self::as_str`].
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|w| w.as_str() == word)
            }
        }
    )*};
}

words! {
    /// Class of a failure, according to its evidence.
    pub enum FailureClass {
        /// Memory of the machine, of a limit, or of a device ran out.
        OutOfMemory = "out_of_memory",
        /// A GPU or another device, its driver, or its library failed.
        Device = "device",
        /// The browser, or a page of it, died or did not start.
        BrowserCrash = "browser_crash",
        /// A WebGPU device or WebGL context was lost.
        ContextLost = "context_lost",
        /// No space, or a quota.
        Disk = "disk",
        /// A time limit, the task's or one within it.
        Timeout = "timeout",
        /// The task could not reach something over the network.
        Network = "network",
        /// The worker's process died, and the attempt with it.
        WorkerCrash = "worker_crash",
        /// The worker stayed away, was removed, or did not know the attempt any more.
        WorkerLost = "worker_lost",
        /// The worker was stopped or drained while it ran.
        WorkerStopped = "worker_stopped",
        /// The task could not be started.
        NotStarted = "not_started",
        /// The program says so itself: an exception, an assertion, a crash of its own.
        Software = "software",
        /// The evidence does not show the class.
        Unknown = "unknown",
    }

    /// The kind of hardware that an attempt used.
    pub enum HardwareClass {
        /// The processor only.
        Cpu = "cpu",
        /// A GPU.
        Gpu = "gpu",
        /// A TPU.
        Tpu = "tpu",
        /// An NPU.
        Npu = "npu",
        /// WebGPU in a browser.
        Webgpu = "webgpu",
        /// WebNN in a browser.
        Webnn = "webnn",
        /// A browser, nothing special in it.
        Browser = "browser",
    }

    /// Reaction to a failure: a step of a ladder.
    pub enum Strategy {
        /// At once, wherever there is room.
        ImmediateRetry = "immediate_retry",
        /// After a pause that grows.
        DelayedRetry = "delayed_retry",
        /// On another worker than those where it failed.
        DifferentWorker = "different_worker",
        /// On a worker with other hardware.
        DifferentHardwareClass = "different_hardware_class",
        /// Knob `precision` (or `dtype`) goes to its next value.
        ReducedPrecision = "reduced_precision",
        /// Knob `batch_size` (or `batch`) goes to its next value.
        ReducedBatchSize = "reduced_batch_size",
        /// Knob `model`, or another one, goes to its next value.
        SimplifiedModel = "simplified_model",
        /// Knob `device` goes to `cpu`, and what the task requires of a GPU is dropped.
        FallbackCpu = "fallback_cpu",
        /// Retry at once, on the same worker: the new attempt starts a new browser.
        BrowserRestart = "browser_restart",
        /// Give up and say why.
        Escalation = "escalation",
    }
}

impl FailureClass {
    /// The name of the replaced system's failure type.
    pub fn failure_type(self) -> &'static str {
        match self {
            Self::OutOfMemory | Self::Disk => "RESOURCE_EXHAUSTION",
            Self::Device => "HARDWARE_ERROR",
            Self::BrowserCrash | Self::ContextLost => "BROWSER_FAILURE",
            Self::Timeout => "TIMEOUT",
            Self::Network => "COMMUNICATION_ERROR",
            Self::WorkerCrash => "WORKER_CRASH",
            Self::WorkerLost => "WORKER_DISCONNECTION",
            Self::WorkerStopped => "TRANSIENT_ERROR",
            Self::NotStarted => "PERSISTENT_ERROR",
            Self::Software => "SOFTWARE_ERROR",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A user's own rule: an error text that matches the pattern is of this class.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A regular expression, tried on each line.
    pub pattern: String,
    /// Class of a matching failure.
    pub class: FailureClass,
}

/// Overrides by a user. Omitted fields stay unchanged.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Ladders by class of failure; they come before those by hardware.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<FailureClass, Vec<Strategy>>,
    /// Ladders by class of hardware.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hardware: BTreeMap<HardwareClass, Vec<Strategy>>,
    /// Seconds before the first delayed retry; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_delay: Option<f64>,
    /// Seconds that no delay exceeds; default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<f64>,
    /// Share of a delay by which it varies; default 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Rules that are tried before the built-in ones, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// True to start tasks with knob values that worked before, and to remember those that work; default
    /// true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remember: Option<bool>,
}

impl Recovery {
    /// Checks what the types cannot say; the patterns are compiled elsewhere.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        for (field, value, most) in [
            ("base_delay", self.base_delay, 86_400.0),
            ("max_delay", self.max_delay, 86_400.0),
            ("jitter", self.jitter, 1.0),
        ] {
            if let Some(value) = value
                && !(0.0..=most).contains(&value)
            {
                return Err(format!("{field} is {value}, and must be from 0 to {most}"));
            }
        }
        // What is left out is known only where the tables come together.
        if let (Some(base), Some(max)) = (self.base_delay, self.max_delay)
            && base > max
        {
            return Err(format!("base_delay is {base}, and must not be above max_delay, {max}"));
        }
        let ladders = self.errors.values().chain(self.hardware.values());
        if ladders.into_iter().any(|l| l.is_empty() || l.len() > MAX_RUNGS) {
            return Err(format!(
                "a ladder must have 1 to {MAX_RUNGS} rungs; [\"escalation\"] gives up at once"
            ));
        }
        let (most, longest) = MAX_RULES;
        if self.rules.len() > most || self.rules.iter().any(|r| r.pattern.len() > longest) {
            return Err(format!("more than {most} rules, or a pattern of over {longest} bytes"));
        }
        Ok(())
    }
}

/// The coordinator's own file: an override for all tasks, and more for those with a label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecoveryFile {
    /// Overrides for all tasks.
    pub all: Recovery,
    /// For tasks with a label, by `key=value`; over the former.
    pub labels: BTreeMap<String, Recovery>,
    /// Criteria of a pattern.
    pub patterns: PatternRules,
}

/// Criteria of a pattern of failures, and settings of a quarantine.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatternRules {
    /// Failures that are looked back at; default 100.
    pub history: usize,
    /// Like failures that make a pattern; default 3.
    pub count: usize,
    /// Seconds within which they do; default 3600.
    pub window: f64,
    /// Seconds before a quarantined worker is given a probe task; default 60. It doubles with
    /// each probe that fails, up to an hour.
    pub probation: f64,
}

impl Default for PatternRules {
    fn default() -> Self {
        PatternRules { history: 100, count: 3, window: 3600.0, probation: 60.0 }
    }
}

impl RecoveryFile {
    /// From what the file says, as JSON: the fields of [`Recovery`] at the top, `labels` and
    /// `patterns`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let Value::Object(mut map) = value else { return Err("is no table".into()) };
        let labels = map.remove("labels").unwrap_or_else(|| Value::Object(Map::new()));
        let patterns = map.remove("patterns").unwrap_or_else(|| Value::Object(Map::new()));
        let file = RecoveryFile {
            all: serde_json::from_value(Value::Object(map)).map_err(|e| short(&e))?,
            labels: serde_json::from_value(labels).map_err(|e| format!("labels: {}", short(&e)))?,
            patterns: serde_json::from_value(patterns)
                .map_err(|e| format!("patterns: {}", short(&e)))?,
        };
        file.all.check()?;
        for (label, recovery) in &file.labels {
            if !label.contains('=') {
                return Err(format!("labels: {label:?} must be \"KEY=VALUE\""));
            }
            recovery.check().map_err(|e| format!("labels.{label}: {e}"))?;
        }
        let p = &file.patterns;
        if !(1..=10_000).contains(&p.history) || !(2..=1000).contains(&p.count) {
            return Err("patterns: history must be 1 to 10000, count 2 to 1000".into());
        }
        if p.count > p.history {
            let (count, history) = (p.count, p.history);
            return Err(format!(
                "patterns: count is {count}, and must not be above history, {history}"
            ));
        }
        if !(1.0..=1e7).contains(&p.window) || !(0.1..=86_400.0).contains(&p.probation) {
            return Err("patterns: window must be 1 to 1e7 s, probation 0.1 to 86400 s".into());
        }
        Ok(file)
    }
}
