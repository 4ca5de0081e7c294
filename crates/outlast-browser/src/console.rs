//! Console messages of a page, as lines of text.

use serde_json::Value;

/// The longest text of one message, in bytes.
pub(crate) const LONGEST: usize = 64 << 10;

/// A console message's arguments in one line, as a browser shows them.
pub(crate) fn text(arguments: &Value) -> String {
    let words = arguments.as_array().map(|all| all.iter().map(argument).collect::<Vec<_>>());
    cut(words.unwrap_or_default().join(" "))
}

/// No longer than may be, and said to be cut.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        text.truncate(end);
        text += "… [cut]";
    }
    text
}

fn argument(given: &Value) -> String {
    let word = |name: &str| given[name].as_str();
    match (&given["value"], word("type")) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, Some("undefined")) => "undefined".into(),
        (Value::Null, Some("object")) if word("subtype") == Some("null") => "null".into(),
        (Value::Null, _) => {
            let shown =
                given.get("preview").map(preview).filter(|_| word("subtype") != Some("error"));
            let other = word("unserializableValue").or(word("description"));
            shown.unwrap_or_else(|| other.unwrap_or_default().to_owned())
        }
        (value, _) => value.to_string(),
    }
}

/// An object's first properties, as the browser chose them.
fn preview(preview: &Value) -> String {
    let list = preview["subtype"] == "array";
    let property = |p: &Value| {
        let value = p["value"].as_str().unwrap_or_default();
        let value = match p["type"].as_str() {
            Some("string") => format!("{value:?}"),
            _ => value.to_owned(),
        };
        match list {
            true => value,
            false => format!("{}: {value}", p["name"].as_str().unwrap_or_default()),
        }
    };
    let properties = preview["properties"].as_array();
    let mut all: Vec<String> = properties.into_iter().flatten().map(property).collect();
    if preview["overflow"] == true {
        all.push("…".into());
    }
    let inside = all.join(", ");
    let class = preview["description"].as_str().filter(|d| !list && *d != "Object");
    match (list, class) {
        (true, _) => format!("[{inside}]"),
        (_, Some(class)) => format!("{class} {{{inside}}}"),
        _ => format!("{{{inside}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_read_as_a_browser_shows_them() {
        let said = json!([
            {"type": "string", "value": "loss"}, {"type": "number", "value": 0.5},
            {"type": "number", "unserializableValue": "NaN"}, {"type": "undefined"},
            {"type": "object", "subtype": "null", "value": null},
            {"type": "object", "description": "Object", "preview": {"description": "Object",
                "overflow": true, "properties": [{"name": "a", "type": "string", "value": "x"}]}},
            {"type": "object", "subtype": "array", "preview": {"subtype": "array",
                "overflow": false, "properties": [{"name": "0", "type": "number", "value": "1"}]}},
            {"type": "object", "subtype": "error", "description": "Error: e\n  at x", "preview": {}},
        ]);
        assert_eq!(text(&said), "loss 0.5 NaN undefined null {a: \"x\", …} [1] Error: e\n  at x");
        let long = text(&json!([{"type": "string", "value": "é".repeat(LONGEST)}]));
        assert!(long.len() < LONGEST + 20 && long.ends_with("[cut]"));
    }
}
