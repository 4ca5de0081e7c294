//! Parser of messages. A message that cannot be parsed is answered with the problem.

use super::{
    Deed, FromWorker, MAX_ACTIVE, MAX_CHECKPOINT_ID, MAX_STATE, MAX_TEXT, MAX_WORDS, TaskError,
};
use crate::spec::{MAX_CAPABILITIES, MAX_TASK_ID};
use bytes::Bytes;
use outlast_model::json::{Limit, Parts, short};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Levels of nesting that capabilities are flattened over; deeper ones are text.
const DEPTH: usize = 4;
/// The most fields of a message.
const MAX_FIELDS: usize = 256;
/// The most capabilities once they are flattened, and the longest name of one, in bytes.
const MAX_FLAT: (usize, usize) = (2048, 256);
/// The longest text that is given back of what was wrong, in characters.
const MAX_PROBLEM: usize = 500;

/// The most memory that the values of a field take, in bytes.
const FIELD: Limit = Limit { bytes: MAX_TEXT, weight: 4 << 20 };
const CAPABILITIES: Limit = Limit { bytes: MAX_CAPABILITIES, weight: 1 << 20 };
const STATE: Limit = Limit { bytes: MAX_STATE, ..FIELD };
/// Each an object, at worst.
const ACTIVE: Limit = Limit { bytes: 4 << 20, weight: 16 << 20 };

/// A message that cannot be used. The text says why, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message is not a JSON object.
    #[error("not a JSON object: {0}")]
    NotJson(String),
    /// No `type`.
    #[error("the message has no \"type\"; see the v1 dialect's documentation")]
    NoType,
    /// A `type` that is not known.
    #[error("unknown message type {0:?}; known are {known}", known = KNOWN.join(", "))]
    UnknownType(String),
    /// The message names another worker.
    #[error("the message says worker_id {said:?}, and this link belongs to {here:?}")]
    OtherWorker {
        /// Worker named in the message.
        said: String,
        /// Worker of the link.
        here: String,
    },
    /// A field that is missing, or of another kind.
    #[error("{kind}: {field}: {problem}")]
    Field {
        /// The message's type.
        kind: String,
        /// Name of the field.
        field: &'static str,
        /// Problem of the field.
        problem: String,
        /// The task that the message names.
        task_id: Option<String>,
    },
}

impl Malformed {
    /// The task of whose checkpoint this was to be the data, or the lack of it.
    pub fn checkpoint_of(&self) -> Option<&str> {
        match self {
            Malformed::Field { kind, task_id, .. }
                if ["checkpoint_data", "checkpoint_error"].contains(&&**kind) =>
            {
                task_id.as_deref()
            }
            _ => None,
        }
    }
}

const KNOWN: [&str; 11] = [
    "registration",
    "heartbeat",
    "task_result",
    "task_state",
    "checkpoint",
    "checkpoint_data",
    "checkpoint_error",
    "state_error",
    "task_cancelled",
    "task_paused",
    "task_resumed",
];

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The longest answer that is looked at for being no result, in bytes.
const MAX_PLACEHOLDER: usize = 4096;
/// Values of `status` that say that a task runs.
const RUNS: [&str; 2] = ["running", "in_progress"];
/// Other fields allowed in an answer that is not a result.
const BESIDE: [&str; 7] =
    ["task_id", "worker_id", "attempt", "message", "progress", "started_at", "timestamp"];

/// Returns true if a `result` only reports that the task runs, as some workers answer an assignment: an
/// object with such a `status` and no further field that a result would have.
pub fn is_placeholder(result: &[u8]) -> bool {
    if result.len() > MAX_PLACEHOLDER {
        return false;
    }
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(result) else { return false };
    let runs = object.get("status").and_then(Value::as_str).is_some_and(|s| RUNS.contains(&s));
    runs && object.keys().all(|key| key == "status" || BESIDE.contains(&key.as_str()))
}

/// The `worker_id` that a message says, where the address of its link does not have it.
pub fn worker_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        worker_id: String,
    }
    let said = serde_json::from_str::<Said>(text).ok()?;
    // One that is too long is refused, and need not be kept for that.
    Some(said.worker_id.chars().take(MAX_TASK_ID + 1).collect())
}

/// Reads a message of the worker `here`.
///
/// # Errors
/// [`Malformed`], to be reported to the worker.
pub fn parse(text: &str, here: &str) -> Result<FromWorker, Malformed> {
    match message(text, here) {
        // Python writes numbers that JSON does not have.
        Err(Malformed::NotJson(why)) => match without_nan(text) {
            Some(mended) => message(&mended, here),
            None => Err(Malformed::NotJson(why)),
        },
        done => done,
    }
}

fn message(text: &str, here: &str) -> Result<FromWorker, Malformed> {
    if Parts::of(text.as_bytes()).outer > MAX_FIELDS {
        return Err(Malformed::NotJson(format!("more than {MAX_FIELDS} fields")));
    }
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|e| Malformed::NotJson(short(&e)))?;
    let Some(kind) = fields.get("type") else { return Err(Malformed::NoType) };
    let Ok(kind) = serde_json::from_str::<String>(kind.get()) else {
        return Err(Malformed::NoType);
    };
    if !KNOWN.contains(&kind.as_str()) {
        return Err(Malformed::UnknownType(kind.chars().take(60).collect()));
    }
    let m = Message { fields, kind };
    if let Some(said) = m.optional::<String>("worker_id")?
        && said != here
    {
        let said = said.chars().take(200).collect();
        return Err(Malformed::OtherWorker { said, here: here.into() });
    }
    m.read()
}

struct Message<'a> {
    fields: Fields<'a>,
    kind: String,
}

impl Message<'_> {
    fn read(&self) -> Result<FromWorker, Malformed> {
        let done = |what| Ok(FromWorker::Done { task_id: self.task_id()?, what });
        match self.kind.as_str() {
            "registration" => Ok(FromWorker::Registration { capabilities: self.capabilities()? }),
            "heartbeat" => self.heartbeat(),
            "task_result" => Ok(FromWorker::TaskResult {
                task_id: self.task_id()?,
                attempt: self.optional("attempt")?,
                result: self.raw("result").unwrap_or_default(),
                error: self.error()?,
            }),
            "task_state" => {
                let Some(state) = self.within("state", STATE)? else {
                    return self.bad("state", "is missing");
                };
                Ok(FromWorker::TaskState { task_id: self.task_id()?, state })
            }
            "checkpoint" => Ok(FromWorker::Checkpoint {
                task_id: self.task_id()?,
                checkpoint_id: self.checkpoint_id()?,
            }),
            "checkpoint_data" => {
                let Some(data) = self.raw("data") else { return self.bad("data", "is missing") };
                let (task_id, checkpoint_id) = (self.task_id()?, self.checkpoint_id()?);
                Ok(FromWorker::CheckpointData { task_id, checkpoint_id, data })
            }
            "checkpoint_error" => {
                Ok(FromWorker::CheckpointError { task_id: self.task_id()?, error: self.why()? })
            }
            "state_error" => {
                Ok(FromWorker::StateError { task_id: self.task_id()?, error: self.why()? })
            }
            "task_cancelled" => done(Deed::Cancelled),
            "task_paused" => done(Deed::Paused),
            _ => done(Deed::Resumed),
        }
    }

    fn bad<T>(&self, field: &'static str, problem: impl Into<String>) -> Result<T, Malformed> {
        let task_id = self.fields.get("task_id").and_then(|t| serde_json::from_str(t.get()).ok());
        // What a parser says may quote all that it was given.
        let problem = problem.into().chars().take(MAX_PROBLEM).collect();
        let kind = self.kind.clone();
        Err(Malformed::Field { kind, field, problem, task_id })
    }

    /// Null is the same as nothing.
    fn optional<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>, Malformed> {
        self.within(field, FIELD)
    }

    fn within<T: DeserializeOwned>(
        &self,
        field: &'static str,
        limit: Limit,
    ) -> Result<Option<T>, Malformed> {
        match self.fields.get(field) {
            None => Ok(None),
            Some(raw) => limit.read(raw.get().as_bytes()).or_else(|why| self.bad(field, why)),
        }
    }

    fn required<T: DeserializeOwned>(&self, field: &'static str) -> Result<T, Malformed> {
        match self.optional(field)? {
            Some(value) => Ok(value),
            None => self.bad(field, "is missing"),
        }
    }

    fn raw(&self, field: &str) -> Option<Bytes> {
        let raw = self.fields.get(field)?.get();
        (raw != "null").then(|| Bytes::copy_from_slice(raw.as_bytes()))
    }

    fn short(&self, field: &'static str, limit: usize) -> Result<String, Malformed> {
        let id: String = self.required(field)?;
        if id.is_empty() || id.len() > limit {
            return self.bad(field, format!("must be 1 to {limit} bytes of text"));
        }
        Ok(id)
    }

    fn task_id(&self) -> Result<String, Malformed> {
        self.short("task_id", MAX_TASK_ID)
    }

    fn checkpoint_id(&self) -> Result<String, Malformed> {
        self.short("checkpoint_id", MAX_CHECKPOINT_ID)
    }

    fn heartbeat(&self) -> Result<FromWorker, Malformed> {
        let sequence: Value = self.optional("sequence")?.unwrap_or(Value::Null);
        if sequence.is_array() || sequence.is_object() || sequence.to_string().len() > 64 {
            return self.bad("sequence", "must be a number");
        }
        let given = self.fields.get("active_tasks").map_or("", |raw| raw.get());
        if Parts::of(given.as_bytes()).outer > MAX_ACTIVE {
            return self.bad("active_tasks", format!("more than {MAX_ACTIVE}"));
        }
        let Some(active) = self.within::<Vec<Active>>("active_tasks", ACTIVE)? else {
            return Ok(FromWorker::Heartbeat { sequence, active_tasks: None });
        };
        let names = active.into_iter().map(Active::name).collect();
        Ok(FromWorker::Heartbeat { sequence, active_tasks: Some(names) })
    }

    fn capabilities(&self) -> Result<Map<String, Value>, Malformed> {
        let mut flat = Map::new();
        match self.within::<Value>("capabilities", CAPABILITIES)? {
            None => {}
            Some(Value::Object(given)) => {
                if let Err(problem) = flatten("", given, DEPTH, &mut flat) {
                    return self.bad("capabilities", problem);
                }
            }
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                flat.extend(names.map(|n| (n.to_owned(), Value::Bool(true))));
            }
            Some(_) => return self.bad("capabilities", "must be an object"),
        }
        Ok(flat)
    }

    /// Returns the error; values that are false in Python count as none.
    fn error(&self) -> Result<Option<TaskError>, Malformed> {
        let text = |v: Option<&Value>| match v {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => cut(text),
            Some(other) => cut(&other.to_string()),
        };
        let told = match self.optional::<Value>("error")? {
            None => return Ok(None),
            Some(told) if is_false(&told) => return Ok(None),
            Some(Value::Object(object)) => TaskError {
                message: text(object.get("message")),
                traceback: text(object.get("traceback")),
            },
            Some(other) => TaskError { message: text(Some(&other)), traceback: String::new() },
        };
        let message = match told.message.is_empty() {
            true => "the task failed, and its worker did not say why".into(),
            false => told.message,
        };
        Ok(Some(TaskError { message, ..told }))
    }

    fn why(&self) -> Result<String, Malformed> {
        Ok(self.error()?.map_or_else(|| "it did not say why".into(), |e| e.message))
    }
}

/// A task in a heartbeat: its id, or an object that has one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Active {
    Id(String),
    Object { task_id: String },
}

impl Active {
    fn name(self) -> String {
        match self {
            Active::Id(id) | Active::Object { task_id: id } => id,
        }
    }
}

/// Returns true if a value is false in Python.
fn is_false(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
    }
}

/// Up to a limit, at a boundary of characters.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn flatten(
    prefix: &str,
    given: Map<String, Value>,
    depth: usize,
    into: &mut Map<String, Value>,
) -> Result<(), String> {
    let (most, longest) = MAX_FLAT;
    for (key, value) in given {
        // Each name has those of all objects around it.
        if prefix.len() + key.len() > longest {
            return Err(format!("a name of more than {longest} bytes, with those around it"));
        }
        if into.len() >= most {
            return Err(format!("more than {most}, counted over all levels"));
        }
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(inner) if depth > 0 => {
                into.insert(name.clone(), Value::Bool(!inner.is_empty()));
                flatten(&format!("{name}."), inner, depth - 1, into)?;
            }
            Value::Object(inner) => {
                into.insert(name, Value::Object(inner).to_string().into());
            }
            plain => {
                into.insert(name, plain);
            }
        }
    }
    Ok(())
}

/// With null for `NaN`, `Infinity` and `-Infinity`, which Python's `json` writes; none if there is
/// nothing of the kind.
fn without_nan(text: &str) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            let end = end_of_string(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|w| rest.starts_with(w));
        let taken = word.map_or(1, str::len);
        out.push_str(if word.is_some() { "null" } else { &rest[..1] });
        found |= word.is_some();
        rest = &rest[taken..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The length of the string that `text` begins with, quotes included.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
