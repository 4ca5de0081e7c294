//! A check of answers against the OpenAPI document.

use serde_json::{Map, Value};
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&outlast_coordinator::openapi()).unwrap());

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// The documented path that a request's path is an instance of.
pub fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (parts, wanted) = (path.split('/'), template.split('/'));
        parts.clone().count() == wanted.clone().count()
            && parts.zip(wanted).all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str);
    // `/recovery/patterns` fits `/recovery/{…}` too, if there should be one: the plainest counts.
    paths.filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
}

/// Panics unless an answer is one that the document has for its route.
pub fn check_answer(method: &str, path: &str, status: u16, body: &Value) {
    let Some(template) = template(path) else { return };
    let operation = &DOCUMENT["paths"][template][method.to_lowercase()];
    if !operation.is_object() {
        return;
    }
    let schema = match status {
        200..300 => {
            let answer = &operation["responses"][status.to_string()];
            assert!(answer.is_object(), "{method} {template} answers {status}, undocumented");
            &answer["content"]["application/json"]["schema"]
        }
        400.. => &DOCUMENT["components"]["schemas"]["Problem"],
        _ => return,
    };
    if schema.is_object() {
        check(schema, body).unwrap_or_else(|e| panic!("{method} {path}: {status}: {e}: {body:#}"));
    }
}

/// Panics unless a value is as the schema of this name says.
pub fn check_named(name: &str, value: &Value) {
    let schema = &DOCUMENT["components"]["schemas"][name];
    assert!(schema.is_object(), "no schema {name}");
    check(schema, value).unwrap_or_else(|e| panic!("{name}: {e}: {value:#}"));
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    check_part(schema, value, false)
}

/// Checks a value. Fields that the schema does not name are an error unless it is one part of
/// several (`open`).
fn check_part(schema: &Value, value: &Value, open: bool) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        let named = &DOCUMENT["components"]["schemas"][name];
        return check_part(named, value, open).map_err(|e| format!("{name}: {e}"));
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().try_for_each(|part| check_part(part, value, true));
    }
    if let Some(some) = schema["oneOf"].as_array() {
        let fits = |part: &Value| check_part(part, value, open);
        let errors: Vec<_> = some.iter().filter_map(|part| fits(part).err()).collect();
        return if errors.len() < some.len() { Ok(()) } else { Err(errors.join(" or ")) };
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    if !types.iter().any(|kind| is(kind, value)) {
        return Err(format!("{value} is not of type {types:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{value} is none of {words:?}"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check(&schema["items"], item)),
        Value::Object(fields) => check_fields(schema, fields, open),
        _ => Ok(()),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, open: bool) -> Result<(), String> {
    let mut required = schema["required"].as_array().into_iter().flatten();
    if let Some(missing) = required.find(|name| !fields.contains_key(name.as_str().unwrap())) {
        return Err(format!("{missing} is missing"));
    }
    for (name, value) in fields {
        let (known, others) = (&schema["properties"][name], &schema["additionalProperties"]);
        if known.is_object() || others.is_object() {
            let schema = if known.is_object() { known } else { others };
            check(schema, value).map_err(|e| format!("{name}: {e}"))?;
        } else if !open && schema["properties"].is_object() {
            return Err(format!("{name} is undocumented"));
        }
    }
    Ok(())
}
