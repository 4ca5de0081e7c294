//! The task as a user writes it: one JSON document, used alike by HTTP, files and the wire.

use crate::json::{Limit, short};
use crate::program::{line_runs, program, script};
use crate::recovery::Recovery;
use crate::text::cut;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The longest task id, in bytes.
pub const MAX_TASK_ID: usize = 128;
/// The longest name of an artifact, in bytes.
pub const MAX_ARTIFACT: usize = 255;
/// The largest spec, in bytes of JSON.
pub const MAX_SPEC: usize = 256 << 10;
/// The most memory that a spec takes as values while it is read, in bytes, beside its JSON.
pub const MAX_SPEC_WEIGHT: usize = 16 << 20;
/// The most labels or `requires` entries of one task.
pub const MAX_LABELS: usize = 64;
/// The longest name or value of a label, in bytes.
pub const MAX_LABEL: usize = 1024;
/// The most variables of one task, and the most arguments of its command.
pub const MAX_WORDS: usize = 4096;
/// The largest capabilities of a worker, in bytes of JSON.
pub const MAX_CAPABILITIES: usize = 64 << 10;
/// The longest name of a type of tasks, in characters.
pub const MAX_TYPE_NAME: usize = 128;
/// The most knobs of one task, and the most values of one knob.
pub const MAX_KNOBS: (usize, usize) = (16, 64);

/// Limits of a specification before it is parsed.
pub const SPEC: Limit = Limit { bytes: MAX_SPEC, weight: MAX_SPEC_WEIGHT };

/// Specification of a task. Unset fields have the documented defaults.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Command, function or script to run.
    #[serde(flatten, deserialize_with = "run")]
    pub run: Run,
    /// Variables added to the worker's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory on the worker; default: a fresh folder of the attempt's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Seconds of running time after which the task is stopped; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Seconds between SIGTERM and SIGKILL when the task is stopped.
    #[serde(default = "five", skip_serializing_if = "is_five")]
    pub kill_grace: f64,
    /// Higher runs first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Slots of a worker that it takes; default 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// Requirements on the worker: `"gpu"`: `"*"` (present), `"cores"`: `">=8"`, `"os"`: `"linux"`,
    /// `"hardware_class"`: `"gpu"` (one of those that its `hardware` lists).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, String>,
    /// Labels, for display and filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Tasks of equal priority are served in turn by queue; default `"default"`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub queue: String,
    /// Number of retries after its worker was lost or interrupted, or the browser
    /// of a browser task crashed or lost its GPU context.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub max_retries: u32,
    /// True to also retry failures of the task itself (exit code, signal, timeout).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry_failures: bool,
    /// Seconds that a worker that went silent keeps the task for itself; default 600.
    #[serde(default = "ten_minutes", skip_serializing_if = "is_ten_minutes")]
    pub reconnect_window: f64,
    /// Treatment of a result of an attempt that was abandoned meanwhile.
    #[serde(default, skip_serializing_if = "is_default")]
    pub late_result: LateResult,
    /// Permission to run an interrupted attempt again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rerun: Rerun,
    /// Action of a worker on the running task once `reconnect_window` has passed
    /// without a link.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_lease_expired: OnLeaseExpired,
    /// Seconds after which the task is asked for a checkpoint, again and again; default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_interval: Option<f64>,
    /// The signal that asks a command for a checkpoint (`"USR1"`, `"USR2"`, `"HUP"`); default:
    /// none, and the task learns it from `outlast task control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_signal: Option<String>,
    /// Retention of checkpoints.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_checkpoints: KeepCheckpoints,
    /// Type that the task shares with similar ones: values that worked for one are used first for the next.
    /// Default: its label `type`, else its function or program.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub task_type: String,
    /// Settings that recovery may change, each with its values from the preferred one on:
    /// `{"batch_size": [64, 32, 16], "precision": ["fp32", "fp16"]}`. A command gets them as
    /// `OUTLAST_KNOB_BATCH_SIZE` and where it says `{knob.batch_size}`, a call or a browser task in
    /// its arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub knobs: BTreeMap<String, Vec<Value>>,
    /// Number of retries after it ran out of memory, in addition to `max_retries`; default: one for each
    /// step that its knobs have left, and one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_oom_retries: Option<u32>,
    /// Recovery rules of this task, where they differ from `outlast recovery show`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Box<Recovery>>,
    /// The trace that it belongs to and its parent there (W3C Trace Context); default: a trace of
    /// its own. Tasks that differ only in this are the same task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
    /// The `tracestate` of tracing systems.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tracestate: String,
}

/// Retention of a task's checkpoints; others are removed as newer ones arrive.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepCheckpoints {
    /// Number of newest checkpoints to keep; at least 1, default 3.
    #[serde(default = "keep_last")]
    pub last: u32,
    /// Beside these the first one in every so many seconds; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<f64>,
    /// Keep all that there are once the task has failed; default yes.
    #[serde(default = "yes")]
    pub failed: bool,
}

impl Default for KeepCheckpoints {
    fn default() -> Self {
        KeepCheckpoints { last: keep_last(), every: None, failed: true }
    }
}

/// Deserializes the variants of a task with a readable error, which serde's own is not.
fn run<'de, D: serde::Deserializer<'de>>(fields: D) -> Result<Run, D::Error> {
    Run::deserialize(fields).map_err(|e| match e.to_string() {
        text if text.starts_with("no variant of enum") => {
            serde::de::Error::custom("give one of command, shell, call or browser")
        }
        _ => e,
    })
}

fn keep_last() -> u32 {
    3
}
fn yes() -> bool {
    true
}

/// Action of a worker on a running task whose window has passed.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLeaseExpired {
    /// The task continues: its result may still count.
    #[default]
    Continue,
    /// The task is paused until the coordinator decides.
    Pause,
    /// The task is stopped.
    Stop,
}

/// Program of a task.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// A program and its arguments, no shell in between.
    Command(Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A function that the worker's program registered.
    Call(Call),
    /// JavaScript in a page of a browser; its worker must have one.
    Browser(Browser),
}

/// JavaScript in a page of a browser.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Browser {
    /// JavaScript, as in a console: its value is the result, or if that is a function
    /// (`async (task) => …`) what it returns for the task.
    pub script: String,
    /// `task.args`, any JSON value.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub args: serde_json::Value,
    /// The page it runs in: a URL, or HTML that begins with `<`; default: an empty page.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub page: String,
    /// Reaction to a lost WebGL, WebGPU or WebNN context.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_context_loss: OnContextLoss,
}

/// Reaction of a browser task to a lost GPU context.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnContextLoss {
    /// The attempt fails, unless the page has its WebGL context restored.
    #[default]
    Fail,
    /// Notes the loss in the task's output: the script handles it.
    Note,
}

/// A call of a registered function.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The name it was registered by.
    pub function: String,
    /// Argument, any JSON value.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub args: serde_json::Value,
}

/// Treatment of a result whose attempt was abandoned and whose task runs elsewhere.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateResult {
    /// The result counts, and the newer attempt is cancelled.
    #[default]
    Accept,
    /// The result is only recorded, as superseded.
    Fence,
}

/// Permission to run an interrupted attempt again.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rerun {
    /// Yes, up to `max_retries` times.
    #[default]
    Allowed,
    /// At most once: an interrupted attempt fails the task, and `retry_failures` is ignored.
    Never,
}

fn five() -> f64 {
    5.0
}
fn is_five(v: &f64) -> bool {
    *v == 5.0
}
fn one() -> u32 {
    1
}
fn is_one(v: &u32) -> bool {
    *v == 1
}
fn three() -> u32 {
    3
}
fn is_three(v: &u32) -> bool {
    *v == 3
}
fn ten_minutes() -> f64 {
    600.0
}
fn is_ten_minutes(v: &f64) -> bool {
    *v == 600.0
}
fn is_zero(v: &i32) -> bool {
    *v == 0
}
fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// Reason why a specification was refused. The text says what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Not JSON of this shape.
    #[error("not a task: {0}")]
    Json(String),
    /// A field has a value that cannot be used.
    #[error("{field}: {problem}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Problem of the field.
        problem: String,
    },
}

/// Fields that hold a number of seconds.
const SECONDS: [&str; 4] = ["timeout", "reconnect_window", "kill_grace", "checkpoint_interval"];

impl SpecError {
    /// The error of a document that was not parsed, with the name of the field that is to blame:
    /// the parser does not name those of a flattened structure.
    pub fn of(json: &[u8], error: serde_json::Error) -> SpecError {
        let text = short(&error);
        // The error may quote the whole document, as the next one may.
        drop(error);
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).unwrap_or_default();
        // Of these the parser says which.
        let named =
            ["unknown field", "missing field", "give one of"].iter().any(|w| text.starts_with(w));
        for (name, value) in fields.iter().filter(|_| !named) {
            let alone = match name.as_str() {
                "command" | "shell" | "call" | "browser" => serde_json::json!({ (name): value }),
                _ => serde_json::json!({ "shell": "true", (name): value }),
            };
            if let Err(e) = serde_json::from_value::<TaskSpec>(alone) {
                let seconds = value.is_string() && SECONDS.contains(&name.as_str());
                let hint = if seconds { "; write a number of seconds, such as 600" } else { "" };
                let name = cut(name, MAX_TASK_ID);
                return SpecError::Json(format!("{name}: {}{hint}", short(&e)));
            }
        }
        SpecError::Json(text)
    }
}

pub(crate) fn bad<T>(field: &'static str, problem: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError::Field { field, problem: problem.into() })
}

impl TaskSpec {
    /// A task that runs `run`, with every default.
    pub fn new(run: Run) -> Self {
        TaskSpec {
            run,
            env: BTreeMap::new(),
            cwd: None,
            timeout: None,
            kill_grace: 5.0,
            priority: 0,
            slots: 1,
            requires: BTreeMap::new(),
            labels: BTreeMap::new(),
            queue: String::new(),
            max_retries: 3,
            retry_failures: false,
            reconnect_window: 600.0,
            late_result: LateResult::Accept,
            rerun: Rerun::Allowed,
            on_lease_expired: OnLeaseExpired::Continue,
            checkpoint_interval: None,
            checkpoint_signal: None,
            keep_checkpoints: KeepCheckpoints::default(),
            task_type: String::new(),
            knobs: BTreeMap::new(),
            max_oom_retries: None,
            recovery: None,
            traceparent: String::new(),
            tracestate: String::new(),
        }
    }

    /// Returns true if both specify the same task, regardless of their trace: a request that is sent again
    /// comes from another span.
    pub fn is_same(&self, other: &TaskSpec) -> bool {
        let traced = |s: &TaskSpec| !s.traceparent.is_empty() || !s.tracestate.is_empty();
        if !traced(self) && !traced(other) {
            return self == other;
        }
        let plain = |s: &TaskSpec| {
            let (traceparent, tracestate) = (String::new(), String::new());
            TaskSpec { traceparent, tracestate, ..s.clone() }
        };
        plain(self) == plain(other)
    }

    /// Returns true if it has no fields for the coordinator only: then workers get it unchanged.
    pub fn is_plain(&self) -> bool {
        self.knobs.is_empty()
            && self.recovery.is_none()
            && self.max_oom_retries.is_none()
            && self.task_type.is_empty()
    }

    /// Returns the type: see `task_type`. At most [`MAX_TYPE_NAME`] characters.
    pub fn type_name(&self) -> &str {
        let name = self.full_type_name();
        name.char_indices().nth(MAX_TYPE_NAME).map_or(name, |(end, _)| &name[..end])
    }

    fn full_type_name(&self) -> &str {
        if !self.task_type.is_empty() {
            return &self.task_type;
        }
        if let Some(label) = self.labels.get("type") {
            return label;
        }
        match &self.run {
            Run::Command(argv) => {
                let words = || argv.iter().map(String::as_str);
                script(words()).map_or_else(|| program(words()), line_runs)
            }
            Run::Shell(line) => line_runs(line),
            Run::Call(call) => &call.function,
            Run::Browser(_) => "browser",
        }
    }

    /// Parses and checks a spec.
    ///
    /// # Errors
    /// [`SpecError`] with the field and what to change.
    pub fn from_json(json: &[u8]) -> Result<Self, SpecError> {
        if json.len() > MAX_SPEC {
            return bad("spec", format!("{} bytes, the limit is {MAX_SPEC}", json.len()));
        }
        if let Err(problem) = SPEC.check(json) {
            return bad("spec", problem);
        }
        let spec: TaskSpec = serde_json::from_slice(json).map_err(|e| SpecError::of(json, e))?;
        spec.check()?;
        spec.check_size(json.len())?;
        Ok(spec)
    }

    /// Checks that it stays within its limit where it is written again: numbers may be longer then.
    /// `len`: bytes that it came in.
    ///
    /// # Errors
    /// [`SpecError::Field`].
    pub fn check_size(&self, len: usize) -> Result<(), SpecError> {
        if len <= MAX_SPEC / 8 {
            return Ok(());
        }
        match self.to_json().len() {
            size if size > MAX_SPEC => bad(
                "spec",
                format!("{size} bytes once numbers are written out, the limit is {MAX_SPEC}"),
            ),
            _ => Ok(()),
        }
    }

    /// Returns its JSON without default values. Equal specs may give different bytes: members of
    /// arguments stay in the order that they came in, which equality leaves out of account.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a spec has only string keys")
    }
}

/// Checks a client-chosen task id: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
///
/// # Errors
/// [`SpecError::Field`] saying what is allowed.
pub fn check_task_id(id: &str) -> Result<(), SpecError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    // Addresses and paths would lead elsewhere with these two.
    let dots = id == "." || id == "..";
    if id.is_empty() || id.len() > MAX_TASK_ID || !id.chars().all(allowed) || dots {
        let what =
            format!("{id:?} must be 1 to {MAX_TASK_ID} of A-Z a-z 0-9 . _ : -, and not . or ..");
        return bad("id", what);
    }
    Ok(())
}

/// Checks the name of an artifact: it becomes the name of a file where somebody fetches it.
///
/// # Errors
/// What would be accepted.
pub fn check_artifact_name(name: &str) -> Result<(), SpecError> {
    let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || name.len() > MAX_ARTIFACT || name.chars().any(char::is_control) || !inside
    {
        let what = format!("{name:?} must be 1 to {MAX_ARTIFACT} bytes, and lead out of no folder");
        return bad("artifact", what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_json_gets_every_default() {
        let spec = TaskSpec::from_json(br#"{"command":["true"]}"#).unwrap();
        assert_eq!(spec, TaskSpec::new(Run::Command(vec!["true".into()])));
        assert_eq!(spec.to_json(), br#"{"command":["true"]}"#);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_field() {
        for (json, names) in [
            (r#"{"command":[]}"#, "command"),
            (r#"{"shell":"  "}"#, "shell"),
            (r#"{"shell":"a","timeout":0}"#, "timeout"),
            (r#"{"shell":"a","timeout":-1}"#, "timeout"),
            (r#"{"shell":"a","slots":0}"#, "slots"),
            (r#"{"shell":"a","env":{"A=B":"c"}}"#, "env"),
            (r#"{"shell":"a","prio":1}"#, "prio"),
            (r#"{"shell":"a","checkpoint_interval":0.1}"#, "checkpoint_interval"),
            (r#"{"shell":"a","checkpoint_signal":"KILL"}"#, "checkpoint_signal"),
            (r#"{"shell":"a","keep_checkpoints":{"last":0}}"#, "keep_checkpoints"),
            (r#"{}"#, "not a task: give one of command, shell, call or browser"),
            (r#"{"comand":["a"],"slots":2}"#, "give one of command, shell, call or browser"),
            (r#"{"command":"a"}"#, "expected a sequence"),
            (r#"{"shell":"a","knobs":{"B":[1]}}"#, "a-z"),
            (r#"{"shell":"a","knobs":{"b":[]}}"#, "values"),
            (r#"{"shell":"a","knobs":{"b":[[1]]}}"#, "no number"),
            (r#"{"shell":"a","knobs":{"b":[4,2,4]}}"#, "b has 4 twice"),
            (r#"{"shell":"a {knob.c}","knobs":{"b":[1]}}"#, "names none"),
            (r#"{"browser":{"script":" "}}"#, "script is empty"),
            (r#"{"browser":{"script":"1","page":"index.html"}}"#, "neither a URL"),
            (r#"{"browser":{"script":"1","args":[1]},"knobs":{"b":[1]}}"#, "object"),
            (r#"{"call":{"function":"f","args":[1]},"knobs":{"b":[1]}}"#, "object"),
            (r#"{"shell":"a","recovery":{"errors":{"device":["reboot"]}}}"#, "delayed_retry"),
            (r#"{"shell":"a","recovery":{"errors":{"device":[]}}}"#, "rungs"),
            (r#"{"shell":"a","recovery":{"jitter":2}}"#, "jitter"),
            (r#"{"shell":"a","recovery":{"base_delay":9,"max_delay":8}}"#, "base_delay is 9"),
        ] {
            let error = TaskSpec::from_json(json.as_bytes()).expect_err(json).to_string();
            assert!(error.contains(names), "{json}: {error}");
        }
    }

    #[test]
    fn a_trace_is_no_part_of_what_a_task_is() {
        let plain = TaskSpec::new(Run::Shell("a".into()));
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
        let traced = TaskSpec { traceparent, tracestate: "a=1".into(), ..plain.clone() };
        assert!(traced.is_same(&plain) && plain.is_same(&traced) && traced != plain);
        let other = TaskSpec { priority: 1, ..traced.clone() };
        assert!(!other.is_same(&traced) && !other.is_same(&plain));
        assert_eq!(TaskSpec::from_json(&traced.to_json()).unwrap(), traced);
        let wrong = TaskSpec { traceparent: "00-x".into(), ..plain.clone() };
        assert!(wrong.check().unwrap_err().to_string().starts_with("traceparent: "));
        let wrong = TaskSpec { tracestate: "é".into(), ..plain };
        assert!(wrong.check().unwrap_err().to_string().starts_with("tracestate: "));
    }

    #[test]
    fn arguments_keep_their_order_which_makes_no_other_task() {
        let json = r#"{"call":{"function":"f","args":{"z":{"y":1,"b":[{"d":1,"c":2}]},"a":2}}}"#;
        let spec = TaskSpec::from_json(json.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(spec.to_json()).unwrap(), json);
        // As stores have it that were written when members were sorted.
        let sorted = r#"{"call":{"function":"f","args":{"a":2,"z":{"b":[{"c":2,"d":1}],"y":1}}}}"#;
        assert!(spec.is_same(&TaskSpec::from_json(sorted.as_bytes()).unwrap()));
    }

    #[test]
    fn types_are_named() {
        let name =
            |json: &str| TaskSpec::from_json(json.as_bytes()).unwrap().type_name().to_owned();
        assert_eq!(name(r#"{"command":["/usr/bin/train","x"]}"#), "train");
        assert_eq!(name(r#"{"shell":"make all"}"#), "make");
        assert_eq!(name(r#"{"command":["python3.11","-u","/a/train.py","x"]}"#), "train.py");
        assert_eq!(name(r#"{"command":["python3","-m","pytest"]}"#), "pytest");
        assert_eq!(name(r#"{"shell":"A=1 env B=2 bash run.sh"}"#), "run.sh");
        assert_eq!(name(r#"{"command":["python3"]}"#), "python3");
        assert_eq!(name(r#"{"call":{"function":"f"},"labels":{"type":"t"}}"#), "t");
        assert_eq!(name(r#"{"shell":"make all","type":"build"}"#), "build");
        // Shells that are given a line, and what only prepares.
        assert_eq!(name(r#"{"command":["sh","-c","cd /a && python3 /b/train.py x"]}"#), "train.py");
        assert_eq!(name(r#"{"command":["/bin/bash","-e","-lc","make all; x"]}"#), "make");
        assert_eq!(name(r#"{"command":["bash","run.sh","-c","x"]}"#), "run.sh");
        assert_eq!(name(r#"{"shell":"cd /data && export A=1; set -e\n./train.sh"}"#), "train.sh");
        assert_eq!(name(r#"{"shell":"[ -f x ] || make all"}"#), "make");
        assert_eq!(name(r#"{"shell":"(cd x && exec python -u y.py)"}"#), "y.py");
        assert_eq!(name(r#"{"shell":"bash -c 'cd x && sh -c \"convert a b\"'"}"#), "convert");
        assert_eq!(name(r#"{"shell":"cd /data"}"#), "cd");
        assert_eq!(name(r#"{"command":["python3","-c","import a/b; run()"]}"#), "python3");
        assert_eq!(name(r#"{"command":["sh","-c"]}"#), "sh");
        // No name is long, whatever it is made of.
        let long = "é".repeat(1000);
        for spec in [
            format!(r#"{{"command":["{long}"]}}"#),
            format!(r#"{{"shell":"{long}"}}"#),
            format!(r#"{{"call":{{"function":"f"}},"labels":{{"type":"{}"}}}}"#, &long[..200]),
        ] {
            let name = name(&spec);
            assert_eq!(name, long.chars().take(name.chars().count()).collect::<String>());
            assert!(name.chars().count() <= MAX_TYPE_NAME);
        }
        // Shells in shells end somewhere.
        name(&format!(r#"{{"shell":"{}"}}"#, "sh -c ".repeat(30_000)));
    }

    #[test]
    fn an_error_names_its_field() {
        for (json, wanted) in [
            (
                r#"{"shell":"true","reconnect_window":"3s"}"#,
                "reconnect_window: invalid type: string",
            ),
            (r#"{"shell":"true","reconnect_window":"3s"}"#, "write a number of seconds"),
            (r#"{"shell":"true","slots":"many"}"#, "slots: "),
            (r#"{"shell":"true","rerun":"maybe"}"#, "rerun: unknown variant"),
            (r#"{"shell":"true","env":["A=1"]}"#, "env: "),
            (r#"{"command":"true"}"#, "command: "),
        ] {
            let error = TaskSpec::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{json}: {error}");
        }
    }

    #[test]
    fn task_ids() {
        assert!(check_task_id("a-B_0.9:x").is_ok());
        for id in ["", "a b", "a/b", "é"] {
            assert!(check_task_id(id).is_err());
        }
    }
}
