//! A task's knobs: where they stand, how a strategy moves them, and the spec that results.

use super::{HardwareClass, Strategy, TaskRecovery};
use outlast_model::spec::{Browser, Call};
use outlast_model::{Run, TaskSpec};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Requirements on a GPU, which are dropped when a task falls back to the processor.
const GPU_DEMANDS: [&str; 7] =
    ["gpu", "gpus", "gpu_memory_bytes", "hardware", "hardware_class", "webgpu", "webnn"];

type Ladder = BTreeMap<String, Vec<Value>>;

/// A knob that moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// Name of the knob.
    pub knob: String,
    /// New position among its values.
    pub place: usize,
    /// The value that it had.
    pub from: Value,
    /// The value that it gets.
    pub to: Value,
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} instead of {}", self.knob, text(&self.to), text(&self.from))
    }
}

/// A value as a command gets it.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn place(state: &TaskRecovery, name: &str, values: &[Value]) -> usize {
    state.knobs.get(name).copied().unwrap_or(0).min(values.len().saturating_sub(1))
}

/// The knobs' values.
pub fn values(knobs: &Ladder, state: &TaskRecovery) -> BTreeMap<String, Value> {
    let value = |(name, values): (&String, &Vec<Value>)| {
        Some((name.clone(), values.get(place(state, name, values))?.clone()))
    };
    knobs.iter().filter_map(value).collect()
}

/// The place of each knob that has such a value; those that have not stay where they are.
pub fn places(knobs: &Ladder, wanted: &BTreeMap<String, Value>) -> BTreeMap<String, usize> {
    let find = |(name, values): (&String, &Vec<Value>)| {
        let at = values.iter().position(|v| Some(v) == wanted.get(name))?;
        (at > 0).then(|| (name.clone(), at))
    };
    knobs.iter().filter_map(find).collect()
}

/// The steps that are left on all ladders together.
pub fn steps(knobs: &Ladder) -> u32 {
    let steps: usize = knobs.values().map(|v| v.len().saturating_sub(1)).sum();
    u32::try_from(steps).unwrap_or(u32::MAX)
}

fn next(knobs: &Ladder, state: &TaskRecovery, name: &str) -> Option<Move> {
    let values = knobs.get(name)?;
    let at = place(state, name, values);
    let (from, to) = (values[at].clone(), values.get(at + 1)?.clone());
    Some(Move { knob: name.to_owned(), place: at + 1, from, to })
}

/// Returns the strategy's move of a knob; none if there is no such knob, or if it is at its last value.
pub fn moved(knobs: &Ladder, state: &TaskRecovery, strategy: Strategy) -> Option<Move> {
    let first = |names: &[&str]| names.iter().find_map(|name| next(knobs, state, name));
    match strategy {
        Strategy::ReducedBatchSize => first(&["batch_size", "batch"]),
        Strategy::ReducedPrecision => first(&["precision", "dtype"]),
        Strategy::SimplifiedModel => first(&["model"]).or_else(|| other(knobs, state)),
        Strategy::FallbackCpu => {
            let values = knobs.get("device")?;
            let at = place(state, "device", values);
            let cpu = values.iter().position(|v| v == "cpu").filter(|cpu| *cpu > at)?;
            let (from, to) = (values[at].clone(), values[cpu].clone());
            Some(Move { knob: "device".into(), place: cpu, from, to })
        }
        _ => None,
    }
}

/// The next step of a knob that no strategy is named after.
fn other(knobs: &Ladder, state: &TaskRecovery) -> Option<Move> {
    let named = ["batch_size", "batch", "precision", "dtype", "device"];
    let mut names = knobs.keys().filter(|name| !named.contains(&name.as_str()));
    names.find_map(|name| next(knobs, state, name))
}

/// Returns the hardware of a task's attempt: by its knob `device`, else by its requirements.
pub fn hardware(spec: &TaskSpec, state: &TaskRecovery) -> HardwareClass {
    let device = spec.knobs.get("device").and_then(|v| v.get(place(state, "device", v)));
    if let Some(class) = device.and_then(Value::as_str).and_then(class_of) {
        return class;
    }
    let wanted =
        ["hardware_class", "hardware", "device"].iter().find_map(|k| spec.requires.get(*k));
    if let Some(class) = wanted.and_then(|words| {
        // The most special one: a machine that has it has a processor too.
        words.split([',', '|']).filter_map(class_of).max_by_key(|c| *c != HardwareClass::Cpu)
    }) {
        return class;
    }
    let has = |name: &str| spec.requires.contains_key(name);
    let gpu = spec.requires.keys().any(|k| k.starts_with("gpu"));
    let browser = has("browser") || has("browsers") || matches!(spec.run, Run::Browser(_));
    match (gpu, browser) {
        _ if has("webgpu") => HardwareClass::Webgpu,
        _ if has("webnn") => HardwareClass::Webnn,
        (_, true) if matches!(spec.run, Run::Browser(_)) => HardwareClass::Browser,
        (true, _) => HardwareClass::Gpu,
        (_, true) => HardwareClass::Browser,
        _ => HardwareClass::Cpu,
    }
}

/// The class of hardware that knobs with these values use, where they say.
pub fn used(knobs: &BTreeMap<String, Value>) -> Option<HardwareClass> {
    knobs.get("device").and_then(Value::as_str).and_then(class_of)
}

/// The class that a device's name means.
fn class_of(word: &str) -> Option<HardwareClass> {
    let word = word.trim().split(':').next().unwrap_or_default().to_ascii_lowercase();
    Some(match word.as_str() {
        "cuda" | "rocm" | "hip" | "mps" | "xpu" | "gpu" | "vulkan" => HardwareClass::Gpu,
        "chrome" | "chromium" | "firefox" | "safari" | "edge" | "browser" => HardwareClass::Browser,
        word => HardwareClass::parse(word)?,
    })
}

/// The spec that an attempt is given: knobs in its environment, arguments or call, what it
/// requires, and nothing that a worker need not know.
pub fn effective<'a>(spec: &'a TaskSpec, state: &TaskRecovery) -> Cow<'a, TaskSpec> {
    if spec.is_plain() && state.tried.is_empty() {
        return Cow::Borrowed(spec);
    }
    let mut made = spec.clone();
    made.knobs.clear();
    made.task_type.clear();
    (made.recovery, made.max_oom_retries) = (None, None);
    if let Some(last) = state.tried.last() {
        made.env.insert("OUTLAST_RECOVERY".into(), last.strategy.as_str().into());
    }
    let values = values(&spec.knobs, state);
    for (name, value) in &values {
        let name = format!("OUTLAST_KNOB_{}", name.to_ascii_uppercase());
        made.env.insert(name, text(value));
    }
    let fill = |argument: &mut String| {
        for (name, value) in &values {
            let mark = format!("{{knob.{name}}}");
            if argument.contains(&mark) {
                *argument = argument.replace(&mark, &text(value));
            }
        }
    };
    match &mut made.run {
        Run::Command(argv) => argv.iter_mut().for_each(fill),
        Run::Shell(line) => fill(line),
        Run::Call(Call { args, .. }) | Run::Browser(Browser { args, .. }) if !values.is_empty() => {
            let before = std::mem::take(args);
            let mut map = if let Value::Object(map) = before { map } else { Map::new() };
            map.extend(values);
            *args = Value::Object(map);
        }
        Run::Call(_) | Run::Browser(_) => {}
    }
    made.requires = requires(spec, state).into_owned();
    Cow::Owned(made)
}

/// Returns the current requirements on a worker.
pub fn requires<'a>(spec: &'a TaskSpec, state: &TaskRecovery) -> Cow<'a, BTreeMap<String, String>> {
    let mut wanted = Cow::Borrowed(&spec.requires);
    if fell_back(spec, state) {
        wanted.to_mut().retain(|key, _| !GPU_DEMANDS.contains(&key.as_str()));
    }
    // Whether it says so or not.
    if matches!(spec.run, Run::Browser(_)) && !wanted.contains_key("browser") {
        wanted.to_mut().insert("browser".into(), "*".into());
    }
    wanted
}

/// Returns true if the task was moved to the processor.
fn fell_back(spec: &TaskSpec, state: &TaskRecovery) -> bool {
    let Some(values) = spec.knobs.get("device") else { return false };
    let at = place(state, "device", values);
    at > 0 && values[at] == "cpu"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: Value) -> TaskSpec {
        TaskSpec::from_json(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn knobs_reach_commands_and_calls() {
        let knobs = json!({"batch_size": [64, 32], "device": ["cuda", "cpu"], "name": ["a b"]});
        let task = spec(json!({"command": ["t", "--b={knob.batch_size}", "{knob.device}", "{x}"],
            "knobs": knobs, "requires": {"gpu": "*", "os": "linux"}}));
        let mut state = TaskRecovery::default();
        assert_eq!(hardware(&task, &state), HardwareClass::Gpu);
        let made = effective(&task, &state);
        assert_eq!(made.run, Run::Command(["t", "--b=64", "cuda", "{x}"].map(Into::into).into()));
        assert_eq!(made.env["OUTLAST_KNOB_NAME"], "a b");
        assert!(made.requires.contains_key("gpu") && made.knobs.is_empty());
        state.knobs = [("batch_size".to_owned(), 1), ("device".to_owned(), 1)].into();
        let made = effective(&task, &state);
        assert_eq!(made.env["OUTLAST_KNOB_BATCH_SIZE"], "32");
        assert_eq!(made.requires.keys().collect::<Vec<_>>(), ["os"]);
        assert_eq!(hardware(&task, &state), HardwareClass::Cpu);
        let call = spec(json!({"call": {"function": "f", "args": {"n": 1}}, "knobs": knobs}));
        let made = effective(&call, &state);
        let Run::Call(call) = &made.run else { unreachable!() };
        assert_eq!(call.args, json!({"n": 1, "batch_size": 32, "device": "cpu", "name": "a b"}));
    }

    #[test]
    fn a_browser_task_needs_a_browser_and_gets_its_knobs() {
        let task = spec(json!({"browser": {"script": "1"}, "requires": {"webgpu": "*"},
            "knobs": {"device": ["webgpu", "cpu"]}}));
        let mut state = TaskRecovery::default();
        assert_eq!(requires(&task, &state).keys().collect::<Vec<_>>(), ["browser", "webgpu"]);
        assert_eq!(hardware(&task, &state), HardwareClass::Webgpu);
        state.knobs = [("device".to_owned(), 1)].into();
        assert_eq!(requires(&task, &state).keys().collect::<Vec<_>>(), ["browser"]);
        let made = effective(&task, &state);
        let Run::Browser(browser) = &made.run else { unreachable!() };
        assert_eq!(browser.args, json!({"device": "cpu"}));
        let plain = spec(json!({"browser": {"script": "1"}}));
        assert_eq!(hardware(&plain, &TaskRecovery::default()), HardwareClass::Browser);
        let named = spec(json!({"browser": {"script": "1"}, "requires": {"browser": "edge"}}));
        assert_eq!(requires(&named, &TaskRecovery::default())["browser"], "edge");
    }

    #[test]
    fn a_task_without_knobs_is_sent_as_it_is() {
        let task = spec(json!({"shell": "echo {knob.batch_size}"}));
        assert!(matches!(effective(&task, &TaskRecovery::default()), Cow::Borrowed(_)));
    }

    #[test]
    fn strategies_move_their_knobs_to_the_end() {
        let task = spec(json!({"shell": "x", "knobs": {"batch_size": [4, 2, 1], "len": [9, 8],
            "device": ["cuda:0", "mps", "cpu"], "precision": ["fp32"]}}));
        let mut state = TaskRecovery::default();
        let mut go = |strategy| {
            let made = moved(&task.knobs, &state, strategy)?;
            state.knobs.insert(made.knob.clone(), made.place);
            Some(made.to_string())
        };
        assert_eq!(go(Strategy::ReducedBatchSize).unwrap(), "batch_size 2 instead of 4");
        assert_eq!(go(Strategy::ReducedBatchSize).unwrap(), "batch_size 1 instead of 2");
        assert_eq!(go(Strategy::ReducedBatchSize), None);
        assert_eq!(go(Strategy::ReducedPrecision), None);
        assert_eq!(go(Strategy::FallbackCpu).unwrap(), "device cpu instead of cuda:0");
        assert_eq!(go(Strategy::FallbackCpu), None);
        assert_eq!(go(Strategy::SimplifiedModel).unwrap(), "len 8 instead of 9");
        assert_eq!(go(Strategy::SimplifiedModel), None);
        assert_eq!(steps(&task.knobs), 5);
        let worked =
            BTreeMap::from([("batch_size".to_owned(), json!(2)), ("len".into(), json!(7))]);
        assert_eq!(places(&task.knobs, &worked), BTreeMap::from([("batch_size".to_owned(), 1)]));
    }
}
