//! Capabilities of a worker: a flat JSON object, as the worker reports it, that tasks' `requires` are matched
//! against.

use crate::json::Limit;
use crate::spec::MAX_CAPABILITIES;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Limits of the JSON: bytes, and memory of its values.
const LIMIT: Limit = Limit { bytes: MAX_CAPABILITIES, weight: 1 << 20 };

/// Properties of a worker by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(Map<String, Value>);

impl Capabilities {
    /// Checks the capabilities that a worker reports.
    ///
    /// # Errors
    /// The limit that they exceed, or that they are not a flat object.
    pub fn check(json: &str) -> Result<(), String> {
        LIMIT.check(json.as_bytes()).map_err(|why| format!("its capabilities: {why}"))?;
        let flat: Result<Map<String, Value>, _> = serde_json::from_str(json);
        match flat.is_ok_and(|map| map.values().all(|v| !v.is_object())) {
            true => Ok(()),
            false => Err("capabilities are not a flat JSON object".into()),
        }
    }

    /// Reads capabilities that were checked; text that is no object has none.
    pub fn of(json: &str) -> Capabilities {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Returns the value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns the text of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Returns true if the value of this name is `false` or `true`, as asked for.
    pub fn is(&self, name: &str, flag: bool) -> bool {
        self.0.get(name) == Some(&Value::Bool(flag))
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds `hardware_class`, a list, from the names in `hardware`, unless the worker reports one.
    pub fn add_hardware_classes(&mut self) {
        if let Some(hardware) = self.text("hardware") {
            let each: Vec<Value> = hardware.split(',').map(|h| h.trim().into()).collect();
            self.0.entry("hardware_class").or_insert(each.into());
        }
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

impl From<Map<String, Value>> for Capabilities {
    fn from(map: Map<String, Value>) -> Capabilities {
        Capabilities(map)
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn capabilities_are_a_flat_object_and_have_a_limit() {
        assert_eq!(Capabilities::check(r#"{"gpu":"A100","n":[1,2]}"#), Ok(()));
        for (json, why) in [
            ("[]", "flat"),
            (r#"{"a":{}}"#, "flat"),
            ("{", "flat"),
            (&format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20)), "its capabilities"),
        ] {
            let error = Capabilities::check(json).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn classes_come_from_the_hardware_unless_they_are_reported() {
        let mut all = Capabilities::of(r#"{"hardware":"gpu, cpu"}"#);
        all.add_hardware_classes();
        assert_eq!(all.get("hardware_class"), Some(&serde_json::json!(["gpu", "cpu"])));
        let mut own = Capabilities::of(r#"{"hardware":"gpu","hardware_class":"npu"}"#);
        own.add_hardware_classes();
        assert_eq!(own.text("hardware_class"), Some("npu"));
    }
}
