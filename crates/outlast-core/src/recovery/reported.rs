//! Decisions about failures that a program reports itself, by the same planner as the coordinator's.
//! Nothing is recorded: the caller keeps the answer. JSON in both directions, for bindings.

use super::device::{self, Asked, Wanted};
use super::patterns::{History, MAX_TEXT};
use super::plan;
use super::{
    Blame, Budget, Classified, Config, Evidence, Failure, FailureClass, Fleet, HardwareClass,
    Situation, Strategy, TaskRecovery, classify, knobs,
};
use outlast_model::recovery::{PatternRules, RecoveryFile};
use outlast_model::requires::Requires;
use outlast_model::spec::Rerun;
use outlast_model::{Capabilities, Cause, Run, TaskSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A failure, and what is known around it.
#[derive(Deserialize)]
struct Report {
    /// As `GET /api/v1/recovery` shows it.
    table: Value,
    task: String,
    attempt: u64,
    spec: Value,
    /// Previous recovery actions for it.
    #[serde(default)]
    state: TaskRecovery,
    /// Retries that count toward `max_retries`.
    #[serde(default)]
    retries: u32,
    seen: Seen,
    /// The replaced system's type, where the program says it. It decides the classification.
    #[serde(default)]
    failure_type: Option<String>,
    /// Devices that the task asks for beside what its spec says.
    #[serde(default)]
    asked: Vec<Asked>,
    /// Strategy that an operator requested, instead of the planner's.
    #[serde(default)]
    strategy: Option<Strategy>,
    /// Worker of the failure.
    worker: String,
    /// On what, if it is not what the spec says.
    #[serde(default)]
    hardware: Option<String>,
    /// All workers, in the order of preference.
    #[serde(default)]
    workers: Vec<Member>,
    /// Other failures, oldest first.
    #[serde(default)]
    failures: Vec<Failure>,
    /// Unix milliseconds.
    now: i64,
    /// Random value from -1 to 1.
    jitter: f64,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Seen {
    cause: String,
    exit_code: Option<i32>,
    signal: i32,
    message: String,
    stderr: String,
    stdout: String,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    /// True if it is connected and gets work.
    there: bool,
    slots: u32,
    capabilities: Capabilities,
    labels: BTreeMap<String, String>,
}

fn cause(word: &str) -> Result<Cause, String> {
    let found = (0..64).map(Cause::of).find(|cause| cause.word() == word);
    found.ok_or_else(|| format!("cause: {word:?} is none that a task's history has"))
}

fn config(table: Value) -> Result<Config, String> {
    let file = RecoveryFile::from_value(table).map_err(|e| format!("the table: {e}"))?;
    Config::new(&file).map_err(|e| format!("the table: {e}"))
}

fn spec(value: Value) -> Result<TaskSpec, String> {
    TaskSpec::from_json(value.to_string().as_bytes()).map_err(|e| e.to_string())
}

/// The replaced system's types, and the class that each is where the evidence names none of that
/// type. Where no class is of a type, none is guessed.
const TYPES: [(&str, FailureClass); 12] = [
    ("HARDWARE_ERROR", FailureClass::Device),
    ("SOFTWARE_ERROR", FailureClass::Software),
    ("RESOURCE_EXHAUSTION", FailureClass::OutOfMemory),
    ("TIMEOUT", FailureClass::Timeout),
    ("COMMUNICATION_ERROR", FailureClass::Network),
    ("BROWSER_FAILURE", FailureClass::BrowserCrash),
    ("TRANSIENT_ERROR", FailureClass::Unknown),
    ("PERSISTENT_ERROR", FailureClass::NotStarted),
    ("WORKER_CRASH", FailureClass::WorkerCrash),
    ("WORKER_DISCONNECTION", FailureClass::WorkerLost),
    ("COORDINATOR_ERROR", FailureClass::Unknown),
    ("UNKNOWN", FailureClass::Unknown),
];

/// Classifies by a type that a program says. The evidence only chooses between the classes of
/// that type.
fn declared(word: &str, found: &Classified, message: &str) -> Result<Classified, String> {
    let Some((word, class)) = TYPES.iter().find(|(name, _)| *name == word) else {
        return Err(format!("failure_type: {word:?} is none"));
    };
    let class = if found.failure_type() == *word { found.class } else { *class };
    let text = match message.lines().rev().find(|l| !l.trim().is_empty()) {
        Some(line) => format!("reported as {word}: {}", classify::quote(line)),
        None => format!("reported as {word}"),
    };
    // A type says nothing of whose mistake it is that something did not start.
    let weak = class == FailureClass::NotStarted;
    Ok(Classified { failure_type: Some(word), weak, ..Classified::new(class, text) })
}

/// The most workers that are named in a text, and that a task is pinned to.
const NAMED: (usize, usize) = (3, 8);

/// The workers that could take the task now, and why others could not.
struct Candidates<'a> {
    fit: Vec<&'a Member>,
    /// There, but without a device that the task asks for.
    lacking: Vec<&'a str>,
    /// There, but what it requires is not, by the first demand.
    unmet: Vec<String>,
}

impl<'a> Candidates<'a> {
    /// Sorts the workers but for the one where it failed.
    fn of(r: &'a Report, spec: &TaskSpec, wanted: &Requires, devices: &[Wanted]) -> Candidates<'a> {
        let mut found = Candidates { fit: Vec::new(), lacking: Vec::new(), unmet: Vec::new() };
        for m in r.workers.iter().filter(|m| m.there && m.name != r.worker) {
            let mut has = m.capabilities.clone();
            has.set("worker", m.name.clone());
            match wanted.unmet(&has, &m.labels) {
                // It failed there before.
                Some(key) if key == "worker" && !spec.requires.contains_key("worker") => {}
                Some(key) => found.unmet.push(format!("{} does not meet {key}", m.name)),
                None if spec.slots > m.slots => {
                    found.unmet.push(format!("{} is too small", m.name))
                }
                None if !devices.iter().all(|d| d.is_at(&m.capabilities, &m.labels)) => {
                    found.lacking.push(&m.name);
                }
                None => found.fit.push(m),
            }
        }
        found
    }

    /// Returns why there is none, and what a person can do, where that is known.
    fn nobody(&self, spec: &TaskSpec, devices: &[Wanted]) -> Option<String> {
        if !self.fit.is_empty() {
            return None;
        }
        let listed = |names: &[String]| {
            let more = names.len().saturating_sub(NAMED.0);
            let shown = names[..names.len() - more].join(", ");
            if more > 0 { format!("{shown} and {more} more") } else { shown }
        };
        if devices.is_empty() || self.lacking.is_empty() && !self.unmet.is_empty() {
            let why = || {
                let unmet = listed(&self.unmet);
                format!(
                    "no other worker could take it ({unmet}); start one that has what it requires"
                )
            };
            return (!self.unmet.is_empty()).then(why);
        }
        let (name, from) = (device::names(devices), device::places(devices));
        let mut text = format!("no other connected worker has {name}, which {from} asks for");
        if !self.lacking.is_empty() {
            let names: Vec<_> = self.lacking.iter().map(|n| (*n).to_owned()).collect();
            text += &format!(" (not offered without it: {})", listed(&names));
        }
        let cpu = spec.knobs.get("device").is_some_and(|all| all.iter().any(|v| v == "cpu"));
        text += match cpu {
            true => "; start a worker that has it",
            false => {
                "; start a worker that has it, or give the task a knob device that ends with cpu"
            }
        };
        Some(text)
    }

    /// Returns their names, as a demand on `worker`; none unless `wanted`, or if there are none.
    fn pinned(&self, wanted: bool) -> Option<String> {
        let names = self.fit.iter().map(|m| m.name.as_str()).filter(|n| !n.contains('|'));
        let pinned = names.take(NAMED.1).collect::<Vec<_>>().join("|");
        (wanted && !pinned.is_empty()).then_some(pinned)
    }
}

/// Returns the planner's answer to a report. It has class, failure_type, evidence, hardware, strategy,
/// delay_ms, reason; `message` (all of these, with the words and the counts that it is based on);
/// `moved` (a knob), `knobs` (all current values), `spec` (the task from here on, if changed),
/// `requires`, `others` (workers that could run it, as given). `retries`, `state` and `failure` have to
/// be passed back with the next report. If a strategy was requested and does not apply, it has only
/// `why_not`.
///
/// # Errors
/// The problem with the report.
pub fn decide(report: &str) -> Result<Value, String> {
    let r: Report = serde_json::from_str(report).map_err(|e| e.to_string())?;
    let (config, spec) = (config(r.table.clone())?, spec(r.spec.clone())?);
    let found = happened(&r, &config, &spec)?;

    let mut state = r.state.clone();
    let hardware = hardware(&r, &spec, &state);
    let here = r.workers.iter().find(|m| m.name == r.worker);
    let has = here.and_then(|m| m.capabilities.text("hardware")).map(str::to_owned);
    let newest = newest(&r, &spec, &found, hardware);
    let counts = !matches!(found.class, FailureClass::WorkerLost | FailureClass::WorkerStopped);
    let (blame, counted) = match counts {
        true => weigh(&r, &newest, &config.patterns),
        false => (Blame::default(), None),
    };

    let devices = device::wanted(&spec, &state, &r.asked);
    let mut wanted = requires(&spec, &state)?;
    let others = Candidates::of(&r, &spec, &wanted, &devices);
    if let Some(has) = &has {
        wanted.add_not("hardware", has);
    }
    let mut elsewhere = Candidates::of(&r, &spec, &wanted, &[]);
    if has.is_none() {
        elsewhere.fit.clear();
    }
    let away = r.workers.iter().filter(|m| !m.there && m.name != r.worker).count();
    let budget = budget(&r, &spec, &state, found.class);
    let nobody = others.nobody(&spec, &devices);
    let situation = Situation {
        ladders: &config.of(&spec),
        spec: &spec,
        state: &state,
        class: found.class,
        hardware,
        worker: Some(&r.worker).filter(|w| !w.is_empty()).map(String::as_str),
        budget,
        fleet: Fleet { others: others.fit.len(), other_hardware: elsewhere.fit.len(), away },
        nobody: nobody.as_deref(),
        blame,
        jitter: r.jitter,
    };
    let plan = match r.strategy {
        Some(strategy) => match plan::forced(&situation, strategy) {
            Ok(plan) => plan,
            Err(why) => return Ok(json!({ "why_not": why })),
        },
        None => plan::plan(&situation),
    };
    let before = demands(&spec, &state);
    let of_memory = budget.of_memory();
    state.follow(&plan, found.class, &r.worker, has, of_memory, r.now);
    let mut demands = demands(&spec, &state);
    let changed = plan.moved.is_some() || demands != before;
    let pin = others.pinned(plan.avoid && !devices.is_empty());
    let made = changed.then(|| pinned_spec(&spec, &state, pin));
    // What a knob asks for is in the task's knobs.
    for device in device::wanted(&spec, &state, &r.asked).into_iter().filter(|d| !d.of_knob) {
        demands.entry("device".into()).or_insert(device.name);
    }
    let next = if plan.avoid_hardware { &elsewhere } else { &others };
    Ok(json!({
        "class": found.class,
        "failure_type": found.failure_type(),
        "evidence": found.text,
        "hardware": hardware,
        "strategy": plan.strategy,
        "delay_ms": plan.delay,
        "reason": plan.reason,
        "message": found.describe(&plan.reason, counted.as_deref()),
        "moved": plan.moved.as_ref().map(|m| &m.knob),
        "knobs": knobs::values(&spec.knobs, &state),
        "retries": r.retries + u32::from(!of_memory && !plan.gives_up()),
        "others": next.fit.iter().map(|m| &m.name).collect::<Vec<_>>(),
        "requires": demands,
        "spec": made,
        "state": state,
        "failure": counts.then_some(newest),
    }))
}

/// Returns the hardware that the report names, else that of the task's attempt.
fn hardware(r: &Report, spec: &TaskSpec, state: &TaskRecovery) -> HardwareClass {
    let Some(word) = &r.hardware else { return knobs::hardware(spec, state) };
    // The core knows what a device's name means.
    let mut device = TaskSpec::new(Run::Shell(String::new()));
    device.requires.insert("hardware_class".into(), word.clone());
    knobs::hardware(&device, &TaskRecovery::default())
}

/// The reported failure as the history has it.
fn newest(r: &Report, spec: &TaskSpec, found: &Classified, hardware: HardwareClass) -> Failure {
    Failure {
        number: r.failures.last().map_or(0, |f| f.number) + 1,
        at: r.now,
        task: r.task.clone(),
        epoch: r.attempt,
        task_type: spec.type_name().into(),
        worker: r.worker.clone(),
        worker_name: r.worker.clone(),
        hardware,
        class: found.class,
        text: found.text.chars().take(MAX_TEXT).collect(),
        weak: found.weak,
    }
}

/// Returns the budget that pays for another attempt.
fn budget(r: &Report, spec: &TaskSpec, state: &TaskRecovery, class: FailureClass) -> Budget {
    let budget = Budget::of(spec, state, class, r.retries);
    match spec.rerun {
        Rerun::Allowed => budget,
        // Only a person may have it run again.
        Rerun::Never => Budget { name: "rerun is \"never\", so max_retries", limit: 0, ..budget },
    }
}

/// Returns what a failure has in common with the reported ones before it: the blame, and its counts in words.
fn weigh(r: &Report, newest: &Failure, rules: &PatternRules) -> (Blame, Option<String>) {
    let mut history = History::new(r.failures.clone());
    history.push(newest.clone(), rules);
    (history.blame(newest, r.now, rules), history.counts(newest, r.now, rules))
}

/// Classifies by the type that the program says, else by the evidence.
fn happened(r: &Report, config: &Config, spec: &TaskSpec) -> Result<Classified, String> {
    let s = r.seen.clone();
    let (cause, exit_code, signal) = (cause(&s.cause)?, s.exit_code, s.signal);
    let (message, stderr, stdout) = (s.message, s.stderr, s.stdout);
    let seen = Evidence { cause, exit_code, signal, message, stderr, stdout };
    let rules = config.rules_of(spec);
    let found = classify::reported(&seen, rules.iter().map(AsRef::as_ref));
    match &r.failure_type {
        Some(word) => declared(word, &found, &seen.message),
        None => Ok(found),
    }
}

/// Returns the current requirements on a worker, in the form of a task's `requires`: one demand per
/// key.
fn demands(spec: &TaskSpec, state: &TaskRecovery) -> BTreeMap<String, String> {
    let mut demands = knobs::requires(spec, state).into_owned();
    if let Some(worker) = state.avoid.last() {
        demands.entry("worker".into()).or_insert_with(|| format!("!={worker}"));
    }
    if let Some(hardware) = &state.avoid_hardware {
        demands.entry("hardware".into()).or_insert_with(|| format!("!={hardware}"));
    }
    demands
}

fn requires(spec: &TaskSpec, state: &TaskRecovery) -> Result<Requires, String> {
    let mut wanted = Requires::parse(&knobs::requires(spec, state)).map_err(|e| e.to_string())?;
    for worker in &state.avoid {
        wanted.add_worker(worker, false);
    }
    if let Some(hardware) = &state.avoid_hardware {
        wanted.add_not("hardware", hardware);
    }
    Ok(wanted)
}

/// The spec that begins where the task stands now, for these workers: a task's `requires` has no words for what some only call by another name.
fn pinned_spec(spec: &TaskSpec, state: &TaskRecovery, pin: Option<String>) -> TaskSpec {
    let mut made = changed_spec(spec, state);
    made.requires.extend(pin.map(|names| ("worker".into(), names)));
    made
}

/// The spec that begins where the task stands now.
fn changed_spec(spec: &TaskSpec, state: &TaskRecovery) -> TaskSpec {
    let mut made = spec.clone();
    made.requires = demands(spec, state);
    for (name, values) in &mut made.knobs {
        let at = state.knobs.get(name).copied().unwrap_or(0);
        values.drain(..at.min(values.len().saturating_sub(1)));
    }
    made
}

#[derive(Deserialize)]
struct Lookback {
    failures: Vec<Failure>,
    rules: PatternRules,
    now: i64,
}

/// Returns the patterns in `failures` by `rules` at `now`; times are in Unix milliseconds.
///
/// # Errors
/// The problem with the input.
pub fn in_common(lookback: &str) -> Result<Value, String> {
    let l: Lookback = serde_json::from_str(lookback).map_err(|e| e.to_string())?;
    let found = History::new(l.failures).patterns(l.now, &l.rules);
    let shown = found.iter().map(|p| {
        json!({
            "kind": p.kind.as_str(), "subject": p.subject, "class": p.class, "count": p.count,
            "tasks": p.tasks, "workers": p.workers, "first": p.between.0, "last": p.between.1,
            "evidence": p.text,
        })
    });
    Ok(shown.collect())
}

/// A spec whose knobs begin at these values, with what it then requires.
pub fn from_here(spec: &TaskSpec, values: &BTreeMap<String, Value>) -> TaskSpec {
    let knobs = knobs::places(&spec.knobs, values);
    changed_spec(spec, &TaskRecovery { knobs, ..TaskRecovery::default() })
}

#[cfg(test)]
#[path = "reported_tests.rs"]
mod tests;
