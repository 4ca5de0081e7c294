//! The messages of page.js, and the requests in them.

use crate::script::{Saved, Wish};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The largest message of a script, in bytes; page.js knows it too.
pub const MAX_MESSAGE: usize = 32 << 20;
/// A message of page.js.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub id: u64,
    pub op: String,
    #[serde(default)]
    json: Option<String>,
    #[serde(default)]
    bytes: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    meta: Option<Map<String, Value>>,
    #[serde(default)]
    value: Option<f64>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(default)]
    changes: Option<Map<String, Value>>,
    #[serde(default)]
    pub api: String,
    #[serde(default)]
    pub detail: String,
}

impl Message {
    /// The request in it.
    pub fn wish(self) -> Result<Wish, String> {
        let op = self.op.as_str();
        let data = match (self.bytes, self.json) {
            (Some(text), _) => {
                let bytes = BASE64_STANDARD.decode(text);
                Some(Saved::Bytes(bytes.map_err(|e| format!("{op}: no base64: {e}"))?))
            }
            (None, text) => text.map(Saved::Json),
        };
        let lacks = |what| format!("{op} needs {what}");
        Ok(match op {
            "checkpoint" => Wish::Checkpoint {
                data: data.ok_or_else(|| lacks("a value"))?,
                name: self.name,
                meta: self.meta.unwrap_or_default(),
            },
            "restore" => Wish::Restore,
            "progress" => Wish::Progress {
                value: self.value.ok_or_else(|| lacks("a number from 0 to 1"))?,
                message: self.message,
                data: self.data.unwrap_or_default(),
            },
            "state" => Wish::State(self.changes.ok_or_else(|| lacks("an object"))?),
            "artifact" => Wish::Artifact {
                name: self.name.ok_or_else(|| lacks("a name"))?,
                data: data.ok_or_else(|| lacks("a value"))?,
            },
            other => return Err(format!("{other:?} is nothing that can be asked for")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_or_refused_with_a_reason() {
        let read = |text: &str| serde_json::from_str::<Message>(text).unwrap().wish();
        let wish = read(r#"{"id":1,"op":"checkpoint","bytes":"AQI=","name":"n"}"#).unwrap();
        let data = Saved::Bytes(vec![1, 2]);
        let name = Some("n".to_owned());
        assert_eq!(wish, Wish::Checkpoint { data, name, meta: Map::new() });
        assert_eq!(read(r#"{"id":1,"op":"restore"}"#), Ok(Wish::Restore));
        for (text, names) in [
            (r#"{"id":1,"op":"checkpoint","bytes":"?"}"#, "base64"),
            (r#"{"id":1,"op":"progress","value":null}"#, "number"),
            (r#"{"id":1,"op":"artifact","json":"1"}"#, "name"),
            (r#"{"id":1,"op":"format"}"#, "format"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
