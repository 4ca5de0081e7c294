//! What would be done about a failure that a program reports itself, by the planner and for the
//! same reasons as the coordinator's. Nothing is recorded: whoever asks keeps what it answers.
//! JSON each way, for bindings.

use super::patterns::{History, MAX_TEXT};
use super::{
    Blame, Budget, Config, Evidence, Failure, FailureClass, Fleet, Situation, TaskRecovery,
    classify, knobs, plan,
};
use crate::requires::Requires;
use outlast_wire::recovery::{PatternRules, RecoveryFile};
use outlast_wire::spec::Rerun;
use outlast_wire::v2::Cause;
use outlast_wire::{Run, TaskSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A failure, and what is known around it.
#[derive(Deserialize)]
struct Report {
    /// As `GET /api/v1/recovery` shows it.
    table: Value,
    task: String,
    attempt: u64,
    spec: Value,
    /// What was tried for it.
    #[serde(default)]
    state: TaskRecovery,
    /// Retries that count toward `max_retries`.
    #[serde(default)]
    retries: u32,
    seen: Seen,
    /// Where it happened.
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
    /// From -1 to 1.
    jitter: f64,
}

#[derive(Deserialize, Default)]
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
    /// Whether it is connected and given work.
    there: bool,
    slots: u32,
    capabilities: Map<String, Value>,
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

/// The workers but for `here` that could take the task now, of those `there` or away.
fn fitting<'a>(
    workers: &'a [Member],
    wanted: &Requires,
    slots: u32,
    here: &str,
) -> Vec<&'a Member> {
    let fits = |m: &&Member| {
        let mut has = m.capabilities.clone();
        has.insert("worker".into(), m.name.clone().into());
        m.there && m.name != here && slots <= m.slots && wanted.unmet(&has, &m.labels).is_none()
    };
    workers.iter().filter(fits).collect()
}

/// What the planner says of a report. The answer has class, failure_type, evidence, hardware,
/// strategy, delay_ms, reason; `moved` (a knob), `knobs` (all of them now), `spec` (the task from
/// here on, if that is another), `requires`, `others` (workers that could take it, as given);
/// `retries`, `state` and `failure` are to be given back with the next report.
///
/// # Errors
/// What of the report is wrong.
pub fn decide(report: &str) -> Result<Value, String> {
    let r: Report = serde_json::from_str(report).map_err(|e| e.to_string())?;
    let (config, spec) = (config(r.table)?, spec(r.spec)?);
    let s = r.seen;
    let (cause, exit_code, signal) = (cause(&s.cause)?, s.exit_code, s.signal);
    let (message, stderr, stdout) = (s.message, s.stderr, s.stdout);
    let seen = Evidence { cause, exit_code, signal, message, stderr, stdout };
    let rules = config.rules_of(&spec);
    let found = classify::classify(&seen, rules.iter().map(AsRef::as_ref));

    let mut state = r.state;
    let hardware = match r.hardware {
        // The core knows what a device's name means.
        Some(word) => {
            let mut device = TaskSpec::new(Run::Shell(String::new()));
            device.requires.insert("hardware_class".into(), word);
            knobs::hardware(&device, &TaskRecovery::default())
        }
        None => knobs::hardware(&spec, &state),
    };
    let here = r.workers.iter().find(|m| m.name == r.worker);
    let has = here.and_then(|m| m.capabilities.get("hardware")?.as_str()).map(str::to_owned);

    let newest = Failure {
        number: r.failures.last().map_or(0, |f| f.number) + 1,
        at: r.now,
        task: r.task,
        epoch: r.attempt,
        task_type: spec.type_name().into(),
        worker: r.worker.clone(),
        worker_name: r.worker.clone(),
        hardware,
        class: found.class,
        text: found.text.chars().take(MAX_TEXT).collect(),
        weak: found.weak,
    };
    let counts = !matches!(found.class, FailureClass::WorkerLost | FailureClass::WorkerStopped);
    let mut history = History::new(r.failures);
    let mut blame = Blame::default();
    if counts {
        history.push(newest.clone(), &config.patterns);
        blame = history.blame(&newest, r.now, &config.patterns);
    }

    let mut wanted = requires(&spec, &state)?;
    let others = fitting(&r.workers, &wanted, spec.slots, &r.worker);
    if let Some(has) = &has {
        wanted.add_not("hardware", has);
    }
    let elsewhere = match has {
        Some(_) => fitting(&r.workers, &wanted, spec.slots, &r.worker),
        None => Vec::new(),
    };
    let away = r.workers.iter().filter(|m| !m.there && m.name != r.worker).count();
    let mut budget = Budget::of(&spec, &state, found.class, r.retries);
    if spec.rerun == Rerun::Never {
        // Only a person may have it run again.
        budget = Budget { name: "rerun is \"never\", so max_retries", limit: 0, ..budget };
    }
    let plan = plan(&Situation {
        ladders: &config.of(&spec),
        spec: &spec,
        state: &state,
        class: found.class,
        hardware,
        worker: Some(&r.worker).filter(|w| !w.is_empty()).map(String::as_str),
        budget,
        fleet: Fleet { others: others.len(), other_hardware: elsewhere.len(), away },
        blame,
        jitter: r.jitter,
    });
    let before = demands(&spec, &state);
    let of_memory = budget.of_memory();
    state.follow(&plan, found.class, &r.worker, has, of_memory, r.now);
    let demands = demands(&spec, &state);
    let changed = plan.moved.is_some() || demands != before;
    let next = if plan.avoid_hardware { elsewhere } else { others };
    Ok(json!({
        "class": found.class,
        "failure_type": found.class.failure_type(),
        "evidence": found.text,
        "hardware": hardware,
        "strategy": plan.strategy,
        "delay_ms": plan.delay,
        "reason": plan.reason,
        "moved": plan.moved.as_ref().map(|m| &m.knob),
        "knobs": knobs::values(&spec.knobs, &state),
        "retries": r.retries + u32::from(!of_memory && !plan.gives_up()),
        "others": next.iter().map(|m| &m.name).collect::<Vec<_>>(),
        "requires": demands,
        "spec": changed.then(|| changed_spec(&spec, &state)),
        "state": state,
        "failure": counts.then_some(newest),
    }))
}

/// What a worker must have for it now, as far as a task's `requires` can say it: one demand a key.
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

/// What `failures` have in common by `rules` at `now`; times are in Unix milliseconds.
///
/// # Errors
/// What is wrong with what is given.
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
mod tests {
    use super::*;

    fn report(seen: &Value, state: &Value, retries: &Value) -> String {
        let worker = |name: &str, there| json!({"name": name, "there": there, "slots": 1, "labels": {}, "capabilities": {}});
        let table = json!({"jitter": 0, "rules": [{"pattern": "flux", "class": "device"}]});
        let spec = json!({"shell": "x", "knobs": {"batch_size": [4, 2], "device": ["cuda", "cpu"]},
            "requires": {"gpu": "*"}, "max_oom_retries": 9});
        let workers = [("w1", true), ("w2", true), ("w3", false)].map(|(n, there)| {
            let mut made = worker(n, there);
            made["capabilities"]["gpu"] = "A100".into();
            made
        });
        json!({"table": table, "task": "t", "attempt": 1, "spec": spec, "state": state,
            "retries": retries, "seen": seen, "worker": "w1", "workers": workers, "now": 5,
            "jitter": 0.0})
        .to_string()
    }

    #[test]
    fn a_program_is_told_what_a_coordinator_would_do() {
        let oom = json!({"stderr": "MemoryError"});
        let mut last = json!({"state": {}, "retries": 0});
        let mut strategies = Vec::new();
        loop {
            last = decide(&report(&oom, &last["state"], &last["retries"])).unwrap();
            strategies.push(last["strategy"].as_str().unwrap().to_owned());
            assert_eq!((&last["class"], &last["retries"]), (&json!("out_of_memory"), &json!(0)));
            match strategies.len() {
                1 => assert_eq!(last["spec"]["knobs"]["batch_size"], json!([2])),
                2 => {
                    assert_eq!(last["others"], json!(["w2"]));
                    assert_eq!(last["requires"], json!({"gpu": "*", "worker": "!=w1"}));
                }
                3 => assert_eq!(last["spec"]["requires"], json!({"worker": "!=w1"})),
                _ => break,
            }
        }
        let expected = ["reduced_batch_size", "different_worker", "fallback_cpu", "escalation"];
        assert_eq!(strategies, expected);
        let own = decide(&report(&json!({"stderr": "flux"}), &json!({}), &json!(1))).unwrap();
        assert_eq!((&own["class"], &own["retries"]), (&json!("device"), &json!(2)));
        assert_eq!((&own["strategy"], &own["spec"]), (&json!("delayed_retry"), &Value::Null));
        let spent = decide(&report(&json!({"stderr": "flux"}), &json!({}), &json!(3))).unwrap();
        assert_eq!(spent["reason"], "given up, since max_retries is 3");
    }

    #[test]
    fn a_report_that_is_wrong_says_where() {
        let seen = json!({"cause": "tired"});
        let error = decide(&report(&seen, &json!({}), &json!(0))).unwrap_err();
        assert!(error.starts_with("cause: \"tired\""), "{error}");
        assert!(decide("{}").unwrap_err().contains("missing field"));
    }

    #[test]
    fn a_task_that_must_not_run_twice_is_given_up() {
        let seen = json!({"stderr": "flux"});
        let mut asked: Value = serde_json::from_str(&report(&seen, &json!({}), &json!(0))).unwrap();
        asked["spec"]["rerun"] = "never".into();
        let found = decide(&asked.to_string()).unwrap();
        assert_eq!(found["strategy"], "escalation");
        assert!(found["reason"].as_str().unwrap().contains("rerun is \"never\""), "{found}");
    }
}
