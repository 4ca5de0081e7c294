//! Changes of an attempt's state, which is a JSON object.

use serde_json::{Map, Value};

/// Change of an attempt's state, as its task reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatePatch {
    /// Members that replace those of the same name; null removes one.
    pub members: Map<String, Value>,
    /// Share that is done, from 0 to 1; none: as before.
    pub progress: Option<f64>,
}

impl StatePatch {
    /// Returns the state that this change makes of an earlier one, as JSON.
    pub fn apply(self, old: Option<&[u8]>) -> Vec<u8> {
        let mut state: Map<String, Value> =
            old.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        for (key, value) in self.members {
            match value {
                Value::Null => drop(state.shift_remove(&key)),
                value => drop(state.insert(key, value)),
            }
        }
        serde_json::to_vec(&state).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_replaced_and_null_removes_one() {
        let patch = |members: Value| StatePatch {
            members: members.as_object().cloned().unwrap_or_default(),
            progress: None,
        };
        let first = patch(json!({"a": 1, "b": null, "c": [2]})).apply(None);
        assert_eq!(first, br#"{"a":1,"c":[2]}"#);
        let next = patch(json!({"a": null, "d": {"e": null}, "c": 3})).apply(Some(&first));
        assert_eq!(next, br#"{"c":3,"d":{"e":null}}"#);
    }
}
