//! Requirements of a task, matched against the capabilities and labels of a worker.

use crate::{Capabilities, Run};
use serde_json::Value;
use std::collections::BTreeMap;

/// A capability that no user can name: false where a worker can only call functions.
pub const COMMANDS: &str = "runs commands";

/// The parsed `requires` of a task; ordered, so that equal demands share a scheduling class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Requires(Vec<(String, Demand)>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    Present,
    OneOf(Vec<String>),
    Not(String),
    Compare(Ordering, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ordering {
    AtLeast,
    MoreThan,
    AtMost,
    LessThan,
}

/// A demand that cannot be understood.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "requires.{key}: {demand:?} is not understood; use \"*\" (present), a value, \"a|b\", \"!=a\", \
     or a comparison with a number such as \">=8\" or \">=16GiB\""
)]
pub struct RequiresError {
    key: String,
    demand: String,
}

impl Requires {
    /// Parses the `requires` of a task.
    ///
    /// # Errors
    /// Names the entry and what would be understood.
    pub fn parse(map: &BTreeMap<String, String>) -> Result<Self, RequiresError> {
        map.iter()
            .map(|(key, demand)| {
                let error = || RequiresError { key: key.clone(), demand: demand.clone() };
                let parsed = parse_demand(demand.trim()).ok_or_else(error)?;
                Ok((key.clone(), parsed))
            })
            .collect::<Result<_, _>>()
            .map(Requires)
    }

    /// Demands a worker that can run it.
    pub fn add_run(&mut self, run: &Run) {
        if !matches!(run, Run::Call(_)) {
            self.0.push((COMMANDS.into(), Demand::Not("false".into())));
        }
    }

    /// Demands this worker, or (not `there`) any other.
    pub fn add_worker(&mut self, name: &str, there: bool) {
        let demand = match there {
            true => Demand::OneOf(vec![name.into()]),
            false => Demand::Not(name.into()),
        };
        self.0.push(("worker".into(), demand));
    }

    /// Demands that this capability is not, and does not hold, this value.
    pub fn add_not(&mut self, key: &str, value: &str) {
        self.0.push((key.into(), Demand::Not(value.into())));
    }

    /// The first demand that the worker does not meet, for people; `None` when it meets all.
    /// Capabilities come before labels of the same name.
    pub fn unmet(
        &self,
        capabilities: &Capabilities,
        labels: &BTreeMap<String, String>,
    ) -> Option<String> {
        self.0.iter().find_map(|(key, demand)| {
            let label = labels.get(key).map(|l| Value::String(l.clone()));
            let value = capabilities.get(key).or(label.as_ref());
            (!demand.met(value)).then(|| key.clone())
        })
    }
}

fn parse_demand(text: &str) -> Option<Demand> {
    for (sign, ordering) in [
        (">=", Ordering::AtLeast),
        ("<=", Ordering::AtMost),
        (">", Ordering::MoreThan),
        ("<", Ordering::LessThan),
    ] {
        if let Some(number) = text.strip_prefix(sign) {
            return parse_number(number).map(|n| Demand::Compare(ordering, n.to_bits()));
        }
    }
    if let Some(rest) = text.strip_prefix("!=") {
        return (!rest.is_empty()).then(|| Demand::Not(rest.trim().into()));
    }
    match text.strip_prefix('=').unwrap_or(text) {
        "" => None,
        "*" => Some(Demand::Present),
        list => Some(Demand::OneOf(list.split('|').map(|v| v.trim().into()).collect())),
    }
}

/// A number with an optional unit: `8`, `1.5G` (powers of 1000), `16GiB` (powers of 1024).
fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: f64 = digits.trim().parse().ok()?;
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let (unit, base) = match unit.strip_suffix('i') {
        Some(unit) => (unit, 1024f64),
        None => (unit, 1000f64),
    };
    let power = match unit {
        "" => 0,
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return None,
    };
    number.is_finite().then(|| number * base.powi(power))
}

impl Demand {
    fn met(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return matches!(self, Demand::Not(_)) };
        if let Value::Array(items) = value {
            return match self {
                Demand::Not(_) => items.iter().all(|v| self.met(Some(v))),
                Demand::Present => !items.is_empty(),
                _ => items.iter().any(|v| self.met(Some(v))),
            };
        }
        match self {
            Demand::Present => {
                !matches!(value, Value::Null | Value::Bool(false)) && value != &Value::from(0)
            }
            Demand::OneOf(list) => list.iter().any(|wanted| equal(value, wanted)),
            Demand::Not(unwanted) => !equal(value, unwanted),
            Demand::Compare(ordering, bits) => {
                let number = match value {
                    Value::Number(n) => n.as_f64(),
                    Value::String(s) => parse_number(s),
                    _ => None,
                };
                let wanted = f64::from_bits(*bits);
                number.is_some_and(|n| match ordering {
                    Ordering::AtLeast => n >= wanted,
                    Ordering::MoreThan => n > wanted,
                    Ordering::AtMost => n <= wanted,
                    Ordering::LessThan => n < wanted,
                })
            }
        }
    }
}

fn equal(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(s) => s == wanted,
        Value::Bool(b) => wanted == if *b { "true" } else { "false" },
        Value::Number(n) => parse_number(wanted).is_some() && n.as_f64() == parse_number(wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn demands_are_matched() {
        let Value::Object(caps) = json!({"cores": 8, "os": "linux", "gpus": 0, "hardware": ["cpu", "webgpu"],
            "memory_bytes": 17_179_869_184u64, "ssd": true})
        else {
            unreachable!()
        };
        let labels = BTreeMap::from([("site".to_string(), "lab".to_string())]);
        let meets = |k: &str, v: &str| {
            let map = BTreeMap::from([(k.to_string(), v.to_string())]);
            Requires::parse(&map).unwrap().unmet(&caps.clone().into(), &labels).is_none()
        };
        for (k, v) in [
            ("cores", "*"),
            ("cores", ">=8"),
            ("cores", "8"),
            ("cores", "<9"),
            ("os", "linux|macos"),
            ("memory_bytes", ">=16GiB"),
            ("memory_bytes", ">17GB"),
            ("hardware", "webgpu"),
            ("ssd", "true"),
            ("site", "lab"),
            ("os", "!=windows"),
            ("absent", "!=x"),
            ("hardware", "!=gpu"),
        ] {
            assert!(meets(k, v), "{k} {v}");
        }
        for (k, v) in [
            ("cores", ">8"),
            ("os", "macos"),
            ("gpus", "*"),
            ("gpu", "*"),
            ("memory_bytes", ">=17GiB"),
            ("hardware", "gpu"),
            ("hardware", "!=cpu"),
            ("os", ">=3"),
            ("site", "home"),
        ] {
            assert!(!meets(k, v), "{k} {v}");
        }
        for v in ["", ">=", ">=x", "!=", ">=8Q"] {
            let map = BTreeMap::from([("k".to_string(), v.to_string())]);
            assert!(Requires::parse(&map).is_err(), "{v:?}");
        }
    }
}
