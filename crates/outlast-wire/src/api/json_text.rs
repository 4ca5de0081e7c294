//! JSON that is handed on as somebody wrote it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// A JSON value as its text. Workers may write what a parser refuses or rounds: half a surrogate
/// pair, `1e400`, an integer of 400 digits, 200 levels of nesting. It passes unchanged.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Value that a worker delivered; null if empty. Bytes that are not JSON become a string.
    pub fn of(bytes: &[u8]) -> JsonText {
        if bytes.is_empty() {
            return JsonText::default();
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        let raw = RawValue::from_string(text)
            .or_else(|_| serde_json::value::to_raw_value(&String::from_utf8_lossy(bytes)));
        raw.map_or_else(|_| JsonText::default(), JsonText)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Returns true if the value is `null`.
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is something else, or JSON that this parser refuses.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

impl Default for JsonText {
    fn default() -> Self {
        JsonText(RawValue::NULL.to_owned())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{EndedTasks, TaskResult};

    #[test]
    fn what_parsers_refuse_or_round_passes_unchanged() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let digits = "7".repeat(401);
        for text in [r#"{"x":"\ud800"}"#, r#"{"x":1e400}"#, &digits, &deep, r#"{ "a" : 1.0 }"#] {
            let result = r#"{"id":"t","attempt":1,"state":"succeeded","value":null}"#;
            let mut result: TaskResult = serde_json::from_str(result).unwrap();
            result.value = JsonText::of(text.as_bytes());
            let all = EndedTasks { results: vec![result], unknown: Vec::new() };
            let written = serde_json::to_string(&all).unwrap();
            // Others cut it out of a result: it is the last field, and the only one of its name.
            let (head, value) = written.split_once(r#","value":"#).unwrap();
            assert!(!head.contains(r#""value""#) && value.starts_with(&format!("{text}}}")));
            let read: EndedTasks = serde_json::from_str(&written).unwrap();
            assert_eq!(read.results[0].value.get(), text);
        }
    }

    #[test]
    fn nothing_is_null_and_only_nothing() {
        assert!(JsonText::of(b"").is_null() && JsonText::of(b"null").is_null());
        assert_eq!(JsonText::of(b"{\"a\":").get(), r#""{\"a\":""#);
        assert_eq!(JsonText::of(b"\"\xff\"").get(), "\"\u{fffd}\"");
        assert_eq!(JsonText::of(b"[1]").parse::<Vec<u8>>().unwrap(), [1]);
    }
}
