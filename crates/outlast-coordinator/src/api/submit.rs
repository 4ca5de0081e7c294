//! `POST /api/v1/tasks`.

use super::views;
use crate::app::App;
use crate::extract::Submitter;
use crate::problem::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use outlast_core::TaskId;
use outlast_core::coord::Response as CoreResponse;
use outlast_core::coord::{Owner, Request, Submission};
use outlast_wire::SpecError;
use outlast_wire::api::{MAX_BATCH, MAX_BODY, Submitted, SubmittedTask, Task};
use outlast_wire::json::{Parts, short};
use outlast_wire::spec::{MAX_SPEC, SPEC, TaskSpec, check_task_id};
use outlast_wire::trace::{TraceParent, is_tracestate};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Bodies larger than this (bytes) are parsed away from the runtime's threads.
const LARGE: usize = 64 << 10;
/// The most memory that the tasks of a request take as values, in bytes, beside their JSON.
const MAX_WEIGHT: usize = 256 << 20;

/// Submits one task (a JSON object) or a batch of up to 10,000 (an array): all, or none.
/// With an `id` of your choice the request may be sent again without harm. A `traceparent` header
/// holds for all tasks that name no trace themselves.
#[utoipa::path(post, path = "/api/v1/tasks", tag = "tasks",
    request_body(content = TaskSpec, description = "A task, with an optional `id`; or an array of such."),
    responses(
        (status = 201, body = Task, description = "Accepted (one task)"),
        (status = 200, body = Submitted, description = "A batch; or one task that was there before"),
        (status = 409, body = outlast_wire::api::Problem, description = "An id is taken by another spec"),
        (status = 413, body = outlast_wire::api::Problem, description = "More than it will ever take at once: send smaller batches"),
        (status = 429, body = outlast_wire::api::Problem, description = "Too many unfinished tasks: come back later")))]
pub(crate) async fn submit(
    State(app): State<App>,
    Submitter(who): Submitter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = app.intake.read(&headers, body, MAX_BODY).await?;
    let trace = Trace::of(&headers);
    let (wanted, single) = if body.len() > LARGE {
        let parsed = tokio::task::spawn_blocking(move || parse(&body, trace.as_ref())).await;
        parsed.map_err(|e| Refusal::bad(&e.to_string()))??
    } else {
        parse(&body, trace.as_ref())?
    };
    let first = wanted.first().map(|task| task.id.clone());
    let owner = Owner { name: who.owner(), private: who.only().is_some() };
    match app.request(Request::Submit(wanted, owner)).await? {
        CoreResponse::Submitted(tasks) => match (single, first, tasks.first()) {
            (true, Some(id), Some(done)) => {
                let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
                let task = views::one(&app, &id).await?;
                Ok((status, Json(task)).into_response())
            }
            _ => {
                let view = |t: &outlast_core::coord::Submitted| SubmittedTask {
                    id: t.id.to_string(),
                    created: t.created,
                    state: t.state,
                };
                let tasks = tasks.iter().map(view).collect();
                Ok(Json(Submitted { tasks }).into_response())
            }
        },
        CoreResponse::Conflict(ids) => {
            let detail = "an id belongs to a task with another spec; nothing was submitted. \
                          Choose another id, or send the same spec";
            let mut refusal = Refusal::conflict("id-taken", "the id is taken", detail);
            refusal.problem.conflicts = ids.iter().map(ToString::to_string).collect();
            Err(refusal)
        }
        CoreResponse::Invalid(id, why) => Err(Refusal::bad(&format!("task {id}: {why}"))),
        CoreResponse::TooBig { fresh, limit } => Err(Refusal::too_big(fresh, limit)),
        CoreResponse::Full { limit } => Err(Refusal::full(limit)),
        other => Err(Refusal::bad(&format!("unexpected answer: {other:?}"))),
    }
}

/// The trace that the request belongs to.
struct Trace {
    parent: String,
    state: String,
}

impl Trace {
    /// Returns the headers' trace if it is well formed: the recommendation wants anything else to be
    /// ignored.
    fn of(headers: &HeaderMap) -> Option<Trace> {
        let mut parents = headers.get_all("traceparent").iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let parent = TraceParent::parse(parent.to_str().ok()?)?.to_string();
        let states = headers.get_all("tracestate").iter().map(|v| v.to_str().ok());
        let state = states.collect::<Option<Vec<_>>>().unwrap_or_default().join(",");
        let state = if is_tracestate(&state) { state } else { String::new() };
        Some(Trace { parent, state })
    }
}

/// Returns the number of tasks that a body submits.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn submitted(body: &[u8]) -> Result<usize, String> {
    parse(body, None).map(|(tasks, _)| tasks.len()).map_err(|e| e.problem.detail)
}

fn parse(body: &[u8], trace: Option<&Trace>) -> Result<(Vec<Submission>, bool), Refusal> {
    let start = body.iter().find(|b| !b.is_ascii_whitespace());
    if start != Some(&b'[') {
        return Ok((vec![one(body, trace).map_err(|e| Refusal::bad(&e))?], true));
    }
    let parts = Parts::of(body);
    let (count, weight) = (parts.outer, parts.weight());
    if weight > MAX_WEIGHT {
        let detail = format!(
            "the values of its tasks take {weight} bytes of memory, the limit is {MAX_WEIGHT}; send \
             smaller batches"
        );
        return Err(Refusal::bad(&detail));
    }
    if count > MAX_BATCH {
        let detail = format!("{count} tasks; {MAX_BATCH} is the limit of one request");
        return Err(Refusal::bad(&detail));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|e| Refusal::bad(&format!("not an array of tasks: {}", short(&e))))?;
    let task = |(n, item): (usize, &&RawValue)| {
        one(item.get().as_bytes(), trace)
            .map_err(|e| Refusal::bad(&format!("task {n} of the array: {e}")))
    };
    Ok((items.iter().enumerate().map(task).collect::<Result<_, _>>()?, false))
}

fn one(json: &[u8], trace: Option<&Trace>) -> Result<Submission, String> {
    if json.len() > MAX_SPEC {
        return Err(format!("{} bytes; {MAX_SPEC} is the limit of one task", json.len()));
    }
    SPEC.check(json).map_err(|e| format!("not a task: {e}"))?;
    let mut fields: Map<String, Value> =
        serde_json::from_slice(json).map_err(|e| format!("not a task: {}", short(&e)))?;
    let id = match fields.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err("id: must be a string".into()),
    };
    let mut spec: TaskSpec = serde_json::from_value(Value::Object(fields))
        .map_err(|e| SpecError::of(json, e).to_string())?;
    spec.check().and_then(|()| spec.check_size(json.len())).map_err(|e| e.to_string())?;
    if let Some(trace) = trace.filter(|_| spec.traceparent.is_empty()) {
        (spec.traceparent, spec.tracestate) = (trace.parent.clone(), trace.state.clone());
    }
    let chosen = id.is_some();
    let id: TaskId = match id {
        Some(id) => {
            check_task_id(&id).map_err(|e| e.to_string())?;
            id.into()
        }
        None => uuid::Uuid::now_v7().to_string().into(),
    };
    Ok(Submission { id, spec: Arc::new(spec), chosen })
}
