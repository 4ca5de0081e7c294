//! Devices that a task asks for in its own words (`device: cuda` in its arguments), beside what it
//! requires, and which workers have them. Workers describe devices in several ways, too.

use super::{TaskRecovery, knobs};
use outlast_model::Capabilities;
use outlast_model::TaskSpec;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Capabilities and labels whose values name devices.
const NAMING: [&str; 16] = [
    "hardware",
    "hardware_class",
    "hardware_classes",
    "hardware_type",
    "hardware_types",
    "supported_hardware",
    "device",
    "devices",
    "device_type",
    "device_types",
    "accelerator",
    "accelerators",
    "backend",
    "backends",
    "browser",
    "browsers",
];
/// Capabilities that count GPUs.
const COUNTS: [&str; 4] = ["gpus", "gpu_count", "num_gpus", "cuda_devices"];
/// Capabilities that name the model of a GPU.
const MODELS: [&str; 4] = ["gpu", "gpu_name", "gpu_model", "cuda_device_name"];
/// Ways to program a GPU. A worker that names one of them has no other unless it says so.
const GPU_KINDS: [&str; 5] = ["cuda", "rocm", "mps", "xpu", "vulkan"];
const OTHERS: [&str; 12] = [
    "cpu", "gpu", "tpu", "npu", "webgpu", "webnn", "browser", "chromium", "firefox", "safari",
    "edge", "webkit",
];
/// Models of GPUs, by a part of their names, and the way to program them.
const VENDORS: [(&str, &str); 16] = [
    ("nvidia", "cuda"),
    ("geforce", "cuda"),
    ("tesla", "cuda"),
    ("quadro", "cuda"),
    ("rtx", "cuda"),
    ("gtx", "cuda"),
    ("amd", "rocm"),
    ("radeon", "rocm"),
    ("instinct", "rocm"),
    ("gfx9", "rocm"),
    ("mi2", "rocm"),
    ("mi3", "rocm"),
    ("intel", "xpu"),
    ("arc a", "xpu"),
    ("apple", "mps"),
    ("adreno", "vulkan"),
];

/// A place in a task, or in what is reported of it, that names a device.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// `cuda`, `cuda:1`, or several with `|` between them, of which one is enough.
    device: String,
    /// Place of the name, in words.
    from: String,
    /// True if it can only be a demand on a worker, whatever it names. Elsewhere only names of devices
    /// are demands.
    #[serde(default)]
    must: bool,
}

/// A device that a worker must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Alternatives, one of which is enough.
    any: Vec<(String, Option<u64>)>,
    /// Name as requested.
    pub name: String,
    from: String,
    /// The task's knob `device` asks for it.
    pub of_knob: bool,
}

impl Wanted {
    fn parse(asked: &Asked) -> Option<Wanted> {
        let words = asked.device.split(['|', ',']);
        let any: Vec<_> = words.map(word).filter(|(w, _)| !w.is_empty()).collect();
        let open = ["auto", "any", "default", "none", "*", "true", "false", "cpu"];
        if any.is_empty() || any.iter().any(|(w, _)| open.contains(&w.as_str())) {
            return None;
        }
        let known = |(w, _): &(String, _)| is_known(w);
        (asked.must || any.iter().all(known)).then(|| Wanted {
            any,
            name: asked.device.trim().to_owned(),
            from: asked.from.clone(),
            of_knob: false,
        })
    }

    /// Returns true for a device that computes, and is no browser or thing of the task's own.
    fn computes(&self) -> bool {
        let computes = |w: &str| {
            GPU_KINDS.contains(&w) || ["gpu", "tpu", "npu", "webgpu", "webnn"].contains(&w)
        };
        self.any.iter().any(|(w, _)| computes(w))
    }

    /// Returns true if a worker with these capabilities and labels has it.
    pub(super) fn is_at(
        &self,
        capabilities: &Capabilities,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let profile = Profile::of(capabilities, labels);
        self.any.iter().any(|(word, index)| profile.has(word, *index))
    }
}

/// Returns the devices that a task wants: by its knob `device` as it stands now, which settles what computes it, and
/// by what was `asked`.
pub(super) fn wanted(spec: &TaskSpec, state: &TaskRecovery, asked: &[Asked]) -> Vec<Wanted> {
    let now = knobs::values(&spec.knobs, state);
    let knob = now.get("device").map(|value| Asked {
        device: knobs::text(value),
        from: "knob device".into(),
        must: false,
    });
    let of_knob = knob.iter().filter_map(Wanted::parse);
    let mut found: Vec<Wanted> = of_knob.map(|w| Wanted { of_knob: true, ..w }).collect();
    for asked in asked {
        let Some(wanted) = Wanted::parse(asked) else { continue };
        let settled = knob.is_some() && wanted.computes();
        if !settled && !found.iter().any(|w| w.any == wanted.any) {
            found.push(wanted);
        }
    }
    found
}

/// Returns their names, for people.
pub(super) fn names(wanted: &[Wanted]) -> String {
    wanted.iter().map(|w| w.name.as_str()).collect::<Vec<_>>().join(" and ")
}

/// Returns the places where they are asked for, for people.
pub(super) fn places(wanted: &[Wanted]) -> String {
    let all: BTreeSet<&str> = wanted.iter().map(|w| w.from.as_str()).collect();
    all.into_iter().collect::<Vec<_>>().join(" and ")
}

/// Returns a device's name in its usual form, and its number if several are meant.
fn word(text: &str) -> (String, Option<u64>) {
    let text = text.trim().to_ascii_lowercase();
    let (name, index) = match text.split_once(':') {
        Some((name, index)) => (name, index.trim().parse().ok()),
        None => (text.as_str(), None),
    };
    let name = match name.trim() {
        "hip" | "amd" => "rocm",
        "nvidia" => "cuda",
        "metal" => "mps",
        "chrome" | "google chrome" | "google-chrome" => "chromium",
        "msedge" | "microsoft edge" => "edge",
        other => other,
    };
    (name.to_owned(), index)
}

fn is_known(word: &str) -> bool {
    GPU_KINDS.contains(&word) || OTHERS.contains(&word)
}

/// Returns true for what Python takes for true, but for words that say no.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !["", "0", "no", "none", "false"].contains(&s.trim()),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// The devices of a worker.
#[derive(Default)]
struct Profile {
    /// Devices that the worker names, or for which it has a capability or label.
    words: BTreeSet<String>,
    /// Devices that the worker reports not to have.
    without: BTreeSet<String>,
    gpus: Option<u64>,
    /// Programming interface of its GPU, derived from the model.
    vendor: Option<&'static str>,
    os: Option<String>,
}

impl Profile {
    fn of(capabilities: &Capabilities, labels: &BTreeMap<String, String>) -> Profile {
        let mut made = Profile::default();
        for (key, value) in capabilities.iter() {
            made.add(key, value);
        }
        for (key, value) in labels {
            made.add(key, &Value::String(value.clone()));
        }
        made
    }

    fn add(&mut self, key: &str, value: &Value) {
        let key = key.to_ascii_lowercase();
        // `hardware.cuda`: nested ones are flattened on their way, at the last dot.
        let (around, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if NAMING.contains(&name) {
            self.named(value);
        }
        if around.split('.').any(|part| NAMING.contains(&part)) {
            self.flag(name, value);
        }
        let plain = name.trim_start_matches("has_").trim_end_matches("_available");
        let plain = plain.trim_end_matches("_version").trim_end_matches("_memory_bytes");
        if is_known(&word(plain).0) || around.is_empty() && value == &Value::Bool(true) {
            self.flag(plain, value);
        }
        if COUNTS.contains(&name) {
            let count = value.as_u64().or_else(|| value.as_array().map(|a| a.len() as u64));
            self.gpus = self.gpus.max(count);
        }
        if MODELS.contains(&name)
            && let Some(model) = value.as_str().map(str::to_ascii_lowercase)
        {
            let vendor = VENDORS.iter().find(|(part, _)| model.contains(part));
            self.vendor = vendor.map(|(_, kind)| *kind).or(self.vendor);
        }
        if name == "os" || name == "platform" {
            self.os = value.as_str().map(str::to_ascii_lowercase);
        }
    }

    fn flag(&mut self, name: &str, value: &Value) {
        let (word, _) = word(name);
        match is_set(value) {
            true => self.words.insert(word),
            false => self.without.insert(word),
        };
    }

    fn named(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                let all = text.split([',', '|', ';', '+']).map(word).map(|(w, _)| w);
                self.words.extend(all.filter(|w| !w.is_empty()));
            }
            Value::Array(items) => items.iter().for_each(|v| self.named(v)),
            Value::Object(map) => {
                for (key, value) in map {
                    match key.as_str() {
                        "type" | "name" | "kind" | "class" => self.named(value),
                        key => self.flag(key, value),
                    }
                }
            }
            _ => {}
        }
    }

    fn says(&self, word: &str) -> bool {
        self.words.contains(word) && !self.without.contains(word)
    }

    /// A GPU of whatever make.
    fn has_gpu(&self) -> bool {
        let counted = self.gpus.is_some_and(|n| n > 0);
        self.says("gpu") || counted || GPU_KINDS.iter().any(|kind| self.says(kind))
    }

    fn has(&self, word: &str, index: Option<u64>) -> bool {
        let there = match word {
            "cpu" => true,
            "gpu" => self.has_gpu(),
            "browser" => {
                let browsers = ["browser", "chromium", "firefox", "safari", "edge", "webkit"];
                browsers.iter().any(|b| self.says(b))
            }
            kind if GPU_KINDS.contains(&kind) => self.says(kind) || self.may_be(kind),
            other => self.says(other),
        };
        let enough = index.is_none_or(|n| self.gpus.is_none_or(|count| count == 0 || n < count));
        there && enough
    }

    /// Returns true if its GPU may be of this kind, where it does not say how that is programmed.
    fn may_be(&self, kind: &str) -> bool {
        let named = || GPU_KINDS.iter().any(|other| self.says(other));
        let elsewhere = kind == "mps" && self.os.as_deref().is_some_and(|os| os == "linux");
        let of_vendor = self.vendor.map_or_else(|| !named(), |vendor| vendor == kind);
        self.has_gpu() && of_vendor && !elsewhere && !self.without.contains(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::Run;
    use serde_json::json;

    fn at(device: &str, capabilities: Value) -> bool {
        let asked = Asked { device: device.into(), from: "x".into(), must: true };
        let Value::Object(has) = capabilities else { unreachable!() };
        Wanted::parse(&asked).unwrap().is_at(&has.into(), &BTreeMap::new())
    }

    #[test]
    fn a_worker_has_what_it_says_in_any_of_the_usual_ways() {
        for (device, has) in [
            ("cuda", json!({"hardware": ["cpu", "cuda"]})),
            ("cuda:0", json!({"hardware": "cpu,cuda"})),
            ("CUDA", json!({"hardware": {"cuda": true, "cpu": true}})),
            ("cuda", json!({"hardware": true, "hardware.cuda": true})),
            ("cuda", json!({"hardware": true, "hardware.cuda": true, "hardware.cuda.memory": 8})),
            ("cuda", json!({"cuda": true})),
            ("cuda", json!({"cuda_version": "12.4"})),
            ("cuda", json!({"devices": [{"type": "cuda", "memory_gb": 24}]})),
            // As this program finds them.
            ("cuda", json!({"hardware": "cpu,gpu", "gpus": 1, "gpu": "NVIDIA A100"})),
            ("cuda:1", json!({"hardware": "cpu,gpu", "gpus": 2, "gpu": "Tesla T4"})),
            ("rocm", json!({"hardware": "cpu,gpu", "gpus": 1, "gpu": "AMD Instinct MI250"})),
            ("gpu", json!({"hardware": "cpu,gpu", "gpus": 1, "gpu": "AMD Instinct MI250"})),
            ("cuda|rocm", json!({"hardware": "cpu,gpu", "gpu": "Radeon"})),
            ("cuda", json!({"gpu": "A100"})),
            ("webgpu", json!({"webgpu": "software", "hardware": "cpu"})),
            ("webnn", json!({"hardware_class": ["cpu", "browser", "webnn"]})),
            ("chrome", json!({"browser": "chromium"})),
            ("browser", json!({"browsers": ["firefox"]})),
            ("tpu", json!({"accelerators": ["TPU"]})),
            ("fpga", json!({"fpga": true})),
        ] {
            assert!(at(device, has.clone()), "{device} {has}");
        }
        for (device, has) in [
            ("cuda", json!({"hardware": "cpu", "gpus": 0, "cores": 8})),
            ("cuda", json!({"hardware": ["cpu"]})),
            ("cuda", json!({})),
            ("cuda", json!({"cuda": false, "gpu": "NVIDIA A100"})),
            ("cuda", json!({"hardware": {"cuda": false}})),
            ("cuda", json!({"hardware": ["cpu", "rocm"]})),
            ("cuda", json!({"hardware": "cpu,gpu", "gpus": 1, "gpu": "AMD Radeon PRO"})),
            ("cuda:2", json!({"hardware": "cpu,cuda", "gpus": 2})),
            ("gpu", json!({"webgpu": "software", "hardware": "cpu", "gpus": 0})),
            ("mps", json!({"hardware": "cpu,gpu", "gpu": "thing", "os": "linux"})),
            ("webgpu", json!({"hardware": "cpu,gpu", "browser": "chromium"})),
            ("firefox", json!({"browser": "chromium"})),
            ("fpga", json!({"hardware": "cpu", "note": "no fpga"})),
        ] {
            assert!(!at(device, has.clone()), "{device} {has}");
        }
        let asked = Asked { device: "cuda".into(), from: "x".into(), must: false };
        let labels = BTreeMap::from([("device".to_owned(), "cuda".to_owned())]);
        assert!(Wanted::parse(&asked).unwrap().is_at(&Capabilities::default(), &labels));
    }

    #[test]
    fn a_knob_settles_the_device_and_only_names_of_devices_are_asked_for() {
        let asked = |device: &str, must| Asked { device: device.into(), from: "a".into(), must };
        let mut spec = TaskSpec::new(Run::Shell("x".into()));
        let mut state = TaskRecovery::default();
        let all = ["cuda", "CPU", "auto", "/dev/sda1", "cuda", "browser"].map(|d| asked(d, false));
        let found = wanted(&spec, &state, &all);
        assert_eq!((names(&found), places(&found)), ("cuda and browser".into(), "a".into()));
        assert_eq!(names(&wanted(&spec, &state, &[asked("fpga", true)])), "fpga");
        spec.knobs.insert("device".into(), vec![json!("mps"), json!("cpu")]);
        assert_eq!(names(&wanted(&spec, &state, &all)), "mps and browser");
        state.knobs.insert("device".into(), 1);
        assert_eq!(names(&wanted(&spec, &state, &all)), "browser");
    }
}
