//! Parts of the OpenAPI document that the types of `outlast_wire::api` cannot say: which words a field
//! may hold whose enum is no type of `outlast_model`, and which fields every answer has.

use outlast_core::alerts::{Measure, Severity};
use outlast_core::coord::{Isolation, WorkerState};
use outlast_core::recovery::{FailureClass, HardwareClass, PatternKind};
use outlast_model::OutcomeKind;
use outlast_store::{EventKind, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Documents of the event stream, which no route answers with.
const EVENTS: [&str; 4] = ["TaskEvent", "WorkerEvent", "FleetEvent", "Alert"];

/// Adds these parts to the document as the types give it.
pub(super) fn complete(document: &mut Value) {
    for vocabulary in [of_tasks(), of_workers(), of_alerts()].into_iter().flatten() {
        vocabulary.put_into(&mut document["components"]["schemas"]);
    }
    describe_submission(document);
    name_operations(&mut document["paths"]);
    require_answered(document);
}

/// The words of one concept, and the fields that hold one of them.
struct Vocabulary {
    /// Name of its schema.
    name: &'static str,
    description: &'static str,
    words: Vec<&'static str>,
    /// Schema and property.
    fields: &'static [(&'static str, &'static str)],
}

impl Vocabulary {
    fn put_into(self, schemas: &mut Value) {
        schemas[self.name] =
            json!({ "type": "string", "description": self.description, "enum": self.words });
        for (schema, property) in self.fields {
            let field = &mut schemas[schema]["properties"][property];
            debug_assert!(
                !field["type"].is_null(),
                "{schema}.{property} is no field of a document"
            );
            refer(field, self.name);
        }
    }
}

/// Replaces the string that a field holds, or each string of its list or map, by a reference.
fn refer(field: &mut Value, name: &str) {
    match field["type"].as_str() {
        Some("array") => return refer(&mut field["items"], name),
        Some("object") => return refer(&mut field["additionalProperties"], name),
        _ => {}
    }
    let word = json!({ "$ref": format!("#/components/schemas/{name}") });
    let nullable = field["type"].is_array();
    let mut new = if nullable { json!({ "oneOf": [{ "type": "null" }, word] }) } else { word };
    if let Some(description) = field.get("description") {
        new["description"] = description.clone();
    }
    *field = new;
}

fn vocabulary(
    name: &'static str,
    description: &'static str,
    words: &[&'static str],
    fields: &'static [(&'static str, &'static str)],
) -> Vocabulary {
    Vocabulary { name, description, words: words.into(), fields }
}

fn of_tasks() -> Vec<Vocabulary> {
    use PatternKind as P;
    let patterns = [P::Worker, P::Hardware, P::TaskType, P::TypeOnHardware, P::Task];
    let events = EventKind::ALL.map(EventKind::as_str);
    vec![
        vocabulary(
            "OutcomeKind",
            // Without the empty one: a field that is null stands for it.
            "Outcome of an attempt.",
            &OutcomeKind::ALL[1..].iter().map(|kind| kind.word()).collect::<Vec<_>>(),
            &[],
        ),
        vocabulary(
            "HistoryEventKind",
            "Kind of an entry in a task's history.",
            &events,
            &[("HistoryEvent", "event")],
        ),
        vocabulary(
            "TaskEventKind",
            "Kind of a task event of the event stream.",
            &[&events[..], &["checkpoint", "state"]].concat(),
            &[("TaskEvent", "event")],
        ),
        vocabulary(
            "PatternKind",
            "Common property of like failures.",
            &patterns.map(P::as_str),
            &[("FailurePattern", "kind")],
        ),
        vocabulary(
            "FailureClass",
            "Class of a failure.",
            &FailureClass::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            &[("FailurePattern", "class"), ("PastFailure", "class")],
        ),
        vocabulary(
            "HardwareClass",
            "Kind of hardware that an attempt used.",
            &HardwareClass::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            &[("PastFailure", "hardware")],
        ),
    ]
}

fn of_workers() -> Vec<Vocabulary> {
    use WorkerState as W;
    let states = [W::Connected, W::Draining, W::Unfit, W::Suspect, W::Away];
    vec![
        vocabulary(
            "WorkerState",
            "State of a worker.",
            &states.map(W::as_str),
            &[("Worker", "state"), ("WorkerMetrics", "state"), ("FleetColumns", "state")],
        ),
        vocabulary(
            "WorkerEventKind",
            "Kind of a worker event of the event stream.",
            &["connected", "disconnected", "drained", "undrained", "forgotten", "unbound"],
            &[("WorkerEvent", "event")],
        ),
        vocabulary(
            "LinkState",
            "State of a worker's link.",
            &["connected", "resync", "suspect", "away", "unknown"],
            &[("Interval", "state")],
        ),
        vocabulary(
            "Isolation",
            "Restriction of a worker on which tasks fail.",
            &[Isolation::Out, Isolation::Probe].map(Isolation::as_str),
            &[("Worker", "quarantine"), ("QuarantinedWorker", "state")],
        ),
        vocabulary(
            "Side",
            "Side of a link.",
            &["coordinator", "worker"],
            &[("Adaptation", "side")],
        ),
        vocabulary(
            "Resolution",
            "Length of a series' intervals.",
            &["1s", "1m", "1h"],
            &[("MetricSeries", "resolution")],
        ),
        vocabulary(
            "Role",
            "Role of an API key.",
            &[Role::Worker, Role::Submit, Role::Operate].map(Role::as_str),
            &[("Session", "role")],
        ),
    ]
}

fn of_alerts() -> Vec<Vocabulary> {
    let severities = [Severity::Info, Severity::Warning, Severity::Critical].map(Severity::as_str);
    vec![
        vocabulary(
            "Severity",
            "Severity of an alert.",
            &severities,
            &[("Alert", "severity"), ("AlertRule", "severity")],
        ),
        vocabulary(
            "WorstSeverity",
            "Severity of a worker's worst alert; empty when none is firing.",
            &[&severities[..], &[""]].concat(),
            &[("FleetColumns", "alert")],
        ),
        vocabulary(
            "AlertState",
            "State of an alert.",
            &["firing", "cleared"],
            &[("Alert", "state")],
        ),
        vocabulary(
            "AlertRuleName",
            "Name of an alert's rule.",
            &Measure::ALL.map(Measure::name),
            &[("Alert", "rule"), ("AlertRule", "name")],
        ),
        vocabulary(
            "AlertSide",
            "Side of its threshold on which a rule holds.",
            &["above", "below"],
            &[("AlertRule", "when")],
        ),
        vocabulary(
            "AlertTarget",
            "Destination of alerts beside the API.",
            &["log", "webhook"],
            &[("AlertRule", "to")],
        ),
    ]
}

/// All operations of the document's paths.
fn operations(paths: &mut Value) -> impl Iterator<Item = &mut Value> {
    let methods = paths.as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    methods.flat_map(|methods| methods.as_object_mut().into_iter().flat_map(|all| all.values_mut()))
}

/// Makes names of operations unique: handlers of several modules have the same.
fn name_operations(paths: &mut Value) {
    for operation in operations(paths) {
        let (tag, name) = (operation["tags"][0].as_str(), operation["operationId"].as_str());
        let name = format!("{}_{}", tag.unwrap_or_default(), name.unwrap_or_default());
        operation["operationId"] = name.into();
    }
}

/// Describes what a submission may be and how it is answered, which depends on whether it is one
/// task or many.
fn describe_submission(document: &mut Value) {
    let refer = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let id =
        json!({ "type": ["string", "null"], "description": "Id of the task; default: a new one." });
    document["components"]["schemas"]["Submission"] = json!({
        "description": "A task, and its id.",
        "allOf": [refer("TaskSpec"), { "type": "object", "properties": { "id": id } }],
    });
    let many = json!({ "type": "array", "items": refer("Submission") });
    let submit = &mut document["paths"]["/api/v1/tasks"]["post"];
    submit["requestBody"]["content"]["application/json"]["schema"] =
        json!({ "oneOf": [refer("Submission"), many] });
    submit["responses"]["200"]["content"]["application/json"]["schema"] =
        json!({ "oneOf": [refer("Submitted"), refer("Task")] });
}

/// Fields that answers leave out when they have nothing to say.
const LEFT_OUT: &[(&str, &[&str])] = &[
    ("Task", &["progress", "waiting_for", "owner"]),
    ("HistoryEvent", &["recovery"]),
    ("Worker", &["quarantine", "unfit", "unfit_since", "copied", "bound_to"]),
    ("Checkpoint", &["artifact"]),
    ("Problem", &["conflicts"]),
];

/// Marks the fields that every answer has as required. Without this they are optional where
/// clients can do without them, as answers of older coordinators lack them. Documents that requests
/// use, too, stay as they are.
fn require_answered(document: &mut Value) {
    let (mut asked, mut answered) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations(&mut document["paths"].clone()) {
        reach(document, &operation["requestBody"], &mut asked);
        reach(document, &operation["responses"], &mut answered);
    }
    for event in EVENTS {
        let event = json!({ "$ref": format!("#/components/schemas/{event}") });
        reach(document, &event, &mut answered);
    }
    for name in answered.difference(&asked) {
        let left_out = LEFT_OUT.iter().find(|(schema, _)| schema == name).map_or(&[][..], |l| l.1);
        let schema = &mut document["components"]["schemas"][name];
        let Some(properties) = schema["properties"].as_object() else { continue };
        let always = properties.keys().filter(|key| !left_out.contains(&key.as_str()));
        schema["required"] = always.cloned().collect();
        for name in left_out {
            forbid_null(&mut schema["properties"][name]);
        }
    }
}

/// A field that is left out is never null.
fn forbid_null(field: &mut Value) {
    for of in ["type", "oneOf"] {
        let Some(kinds) = field.get_mut(of).and_then(Value::as_array_mut) else { continue };
        kinds.retain(|kind| kind != "null" && kind["type"] != "null");
        if let [only] = &kinds[..] {
            let only = only.clone();
            match (of, &only) {
                ("type", _) => field["type"] = only,
                _ => *field = only,
            }
        }
    }
}

/// Collects the schemas that a part of the document refers to, directly or not.
fn reach(document: &Value, part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = value.as_str().and_then(|at| at.strip_prefix("#/components/schemas/"));
                match name.filter(|_| key == "$ref") {
                    Some(name) if found.insert(name.into()) => {
                        reach(document, &document["components"]["schemas"][name], found);
                    }
                    Some(_) => {}
                    None => reach(document, value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| reach(document, item, found)),
        _ => {}
    }
}
