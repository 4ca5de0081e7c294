//! A task's durable history as a trace: a span for its whole life, below it one for each attempt,
//! with what happened to it and to its worker's link as events. Pure.

use super::ids::{Place, Tracer};
use super::proto::{self, Event, KeyValue, Span, SpanKind, Status, StatusCode, event};
use outlast_core::records::TaskState;
use outlast_model::{Cause, LinkCause};
use outlast_store::{EventKind, StoredCheckpoint, StoredEvent, StoredTask};
use outlast_wire::api::Interval;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Attempts of one task that get a span; older ones are left out.
const MAX_ATTEMPTS: usize = 256;
/// Events of one span; older ones are left out, and counted.
const MAX_EVENTS: usize = 128;
/// Flags of a span: its context says whether its parent is in another process, and that it is.
const KNOWN_PARENT: u32 = 0x100;
const REMOTE_PARENT: u32 = 0x300;
const SAMPLED: u32 = 1;

/// The history of a task that has ended.
pub(super) struct Life {
    pub task: StoredTask,
    pub cause: Cause,
    /// In the order in which they were recorded.
    pub events: Vec<StoredEvent>,
    pub checkpoints: Vec<StoredCheckpoint>,
}

/// A time in which a worker had no link. Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outage {
    pub from: i64,
    /// End of the outage; none: it goes on.
    pub to: Option<i64>,
    pub cause: LinkCause,
    pub reason: String,
}

/// Names and outages of workers, by store id.
#[derive(Default)]
pub(super) struct Workers {
    pub names: HashMap<Arc<str>, Arc<str>>,
    pub outages: HashMap<Arc<str>, Vec<Outage>>,
}

/// The times without a link in a worker's timeline.
pub(super) fn outages(timeline: &[Interval]) -> Vec<Outage> {
    let mut all: Vec<Outage> = Vec::new();
    for i in timeline {
        let there = matches!(i.state.as_str(), "connected" | "resync");
        match all.last_mut().filter(|o| o.to.is_none()) {
            Some(open) if there => open.to = Some(i.from),
            Some(_) => {}
            None if there => {}
            None => {
                let (cause, reason) = (i.cause, i.reason.clone());
                all.push(Outage { from: i.from, to: None, cause, reason });
            }
        }
    }
    all
}

struct Attempt {
    worker: Option<Arc<str>>,
    from: i64,
    end: Option<End>,
    events: Vec<Event>,
}

struct End {
    at: i64,
    word: &'static str,
    cause: Cause,
    reason: String,
}

/// Makes the spans of a task, its own first. Empty if it has not ended, or its trace is not kept.
pub(super) fn spans(life: &Life, tracer: &Tracer, workers: &Workers) -> Vec<Span> {
    let task = &life.task;
    let place = tracer.place(&task.id, &task.spec);
    let (Some(ended_at), true) = (task.ended_at, place.sampled) else { return Vec::new() };
    let (mut attempts, mut events) = walk(life);
    let left_out = attempts.len().saturating_sub(MAX_ATTEMPTS);
    for c in &life.checkpoints {
        let attributes = vec![
            proto::text("outlast.checkpoint.id", &c.checkpoint.id()),
            proto::number("outlast.checkpoint.bytes", c.checkpoint.size),
            proto::flag("outlast.checkpoint.dropped", c.checkpoint.dropped),
        ];
        let one = event(c.at, "checkpoint", attributes);
        match attempts.get_mut(&c.checkpoint.epoch) {
            Some(attempt) => attempt.events.push(one),
            None => events.push(one),
        }
    }
    let mut all = vec![whole(life, tracer, place, ended_at, (attempts.len() as u64, events))];
    // The end of one whose end nobody recorded: the next one's beginning, or the task's end.
    let begins: Vec<i64> = attempts.values().map(|a| a.from).collect();
    for (n, (epoch, attempt)) in attempts.into_iter().enumerate().skip(left_out) {
        let open = begins.get(n + 1).copied().unwrap_or(ended_at).min(ended_at);
        all.push(one(life, tracer, place, (epoch, attempt, open), workers));
    }
    all
}

/// The attempts by number, and what concerns none of them.
fn walk(life: &Life) -> (BTreeMap<u64, Attempt>, Vec<Event>) {
    use EventKind as K;
    let mut attempts: BTreeMap<u64, Attempt> = BTreeMap::new();
    let mut others = Vec::new();
    let begun = |e: &StoredEvent| {
        let (worker, from) = (e.worker.clone(), e.at);
        Attempt { worker, from, end: None, events: Vec::new() }
    };
    for e in &life.events {
        let why =
            |key| Some(e.reason.as_str()).filter(|r| !r.is_empty()).map(|r| proto::text(key, r));
        let mut attributes: Vec<KeyValue> = why("outlast.reason").into_iter().collect();
        if !e.cause.word().is_empty() {
            attributes.push(proto::text("outlast.cause", e.cause.word()));
        }
        let end = |word| End { at: e.at, word, cause: e.cause, reason: e.reason.clone() };
        let name = match e.kind {
            K::Submitted => continue,
            K::Assigned => {
                attempts.entry(e.epoch).or_insert_with(|| begun(e));
                continue;
            }
            // By the worker's clock, which may be behind.
            K::Started => {
                let attempt = attempts.entry(e.epoch).or_insert_with(|| begun(e));
                attempt.events.push(event(e.at.max(attempt.from), "started", Vec::new()));
                continue;
            }
            K::Requeued => {
                let attempt = attempts.entry(e.epoch).or_insert_with(|| begun(e));
                attempt.end = Some(end("requeued"));
                "requeued"
            }
            K::Succeeded | K::Failed | K::Cancelled => {
                if e.epoch > 0 {
                    let attempt = attempts.entry(e.epoch).or_insert_with(|| begun(e));
                    attempt.worker = e.worker.clone().or(attempt.worker.take());
                    attempt.end = Some(end(e.kind.as_str()));
                }
                continue;
            }
            K::Superseded => {
                attributes.push(proto::number("outlast.attempt", e.epoch));
                if let Some(attempt) = attempts.get_mut(&e.epoch) {
                    attempt.end.get_or_insert_with(|| end("superseded"));
                }
                "superseded"
            }
            K::Recovery => {
                if let Some(decision) = &e.decision {
                    attributes.extend(decided(decision));
                }
                "recovery"
            }
            K::CancelRequested => "cancel.requested",
            K::Retried => "retried",
            K::Noted => "note",
            K::PauseRequested => "paused",
            K::ResumeRequested => "resumed",
        };
        let at = event(e.at, name, attributes);
        let mine = matches!(e.kind, K::Requeued | K::Superseded | K::Recovery | K::Noted);
        let attempt = attempts.get_mut(&e.epoch).filter(|_| e.kind != K::Retried);
        match attempt.filter(|a| mine || a.end.is_none()) {
            Some(attempt) => attempt.events.push(at),
            None => others.push(at),
        }
    }
    (attempts, others)
}

fn decided(decision: &outlast_core::recovery::Decision) -> Vec<KeyValue> {
    let mut all = Vec::new();
    if let Some(class) = &decision.class {
        all.push(proto::text("outlast.recovery.class", class.as_str()));
    }
    if let Some(strategy) = &decision.strategy {
        all.push(proto::text("outlast.recovery.strategy", strategy.as_str()));
    }
    if decision.delay_ms > 0 {
        all.push(proto::number("outlast.recovery.delay_ms", decision.delay_ms));
    }
    all
}

/// The span of the task's life.
fn whole(
    life: &Life,
    tracer: &Tracer,
    place: Place,
    ended_at: i64,
    (attempts, events): (u64, Vec<Event>),
) -> Span {
    let task = &life.task;
    let spec = &task.spec;
    let mut attributes = vec![
        proto::text("outlast.task.id", &task.id),
        proto::number("outlast.task.number", task.number),
        proto::text("outlast.task.type", spec.type_name()),
        proto::text("outlast.task.state", task.state.as_str()),
        proto::number("outlast.task.attempts", attempts),
        proto::number("outlast.task.retries", task.retries.into()),
        proto::text(
            "outlast.task.queue",
            if spec.queue.is_empty() { "default" } else { &spec.queue },
        ),
        proto::integer("outlast.task.priority", spec.priority.into()),
    ];
    if !life.cause.word().is_empty() {
        attributes.push(proto::text("outlast.task.cause", life.cause.word()));
    }
    if !task.reason.is_empty() {
        attributes.push(proto::text("outlast.task.reason", &task.reason));
    }
    let label =
        |(key, value): (&String, &String)| proto::text(&format!("outlast.task.label.{key}"), value);
    attributes.extend(spec.labels.iter().map(label));
    let code = match task.state {
        TaskState::Succeeded => StatusCode::Ok,
        TaskState::Failed => StatusCode::Error,
        _ => StatusCode::Unset,
    };
    finish(Span {
        trace_id: place.trace_id.into(),
        span_id: tracer.task_span(&task.id, task.number).into(),
        parent_span_id: place.parent.map_or_else(Vec::new, Into::into),
        flags: SAMPLED | if place.parent.is_some() { REMOTE_PARENT } else { KNOWN_PARENT },
        trace_state: if place.parent.is_some() { spec.tracestate.clone() } else { String::new() },
        name: spec.type_name().to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: proto::nanos(task.submitted_at),
        end_time_unix_nano: proto::nanos(ended_at),
        attributes,
        events,
        status: Some(status(code, &task.reason, life.cause)),
        ..Default::default()
    })
}

/// The span of an attempt; `open` is when it ended if nobody recorded that.
fn one(
    life: &Life,
    tracer: &Tracer,
    place: Place,
    (epoch, attempt, open): (u64, Attempt, i64),
    workers: &Workers,
) -> Span {
    let task = &life.task;
    let Attempt { worker, from, end, mut events } = attempt;
    let unknown =
        || End { at: open, word: "unknown", cause: Cause::Unspecified, reason: String::new() };
    let end = end.unwrap_or_else(unknown);
    let mut attributes = vec![
        proto::text("outlast.task.id", &task.id),
        proto::number("outlast.attempt", epoch),
        proto::text("outlast.attempt.state", end.word),
    ];
    if !end.cause.word().is_empty() {
        attributes.push(proto::text("outlast.cause", end.cause.word()));
    }
    if !end.reason.is_empty() {
        attributes.push(proto::text("outlast.reason", &end.reason));
    }
    if let Some(id) = &worker {
        attributes.push(proto::text("outlast.worker.id", id));
        let shown = task.worker_name.as_ref().filter(|_| task.worker.as_ref() == Some(id));
        if let Some(name) = workers.names.get(id).or(shown) {
            attributes.push(proto::text("outlast.worker.name", name));
        }
        let within = |at: i64| from <= at && at <= end.at;
        for o in workers.outages.get(id).into_iter().flatten() {
            if within(o.from) {
                let why = vec![
                    proto::text("outlast.link.cause", o.cause.word()),
                    proto::text("outlast.reason", &o.reason),
                ];
                events.push(event(o.from, "link.lost", why));
            }
            if let Some(to) = o.to.filter(|to| within(*to)) {
                let took = proto::integer("outlast.link.outage_ms", to - o.from);
                events.push(event(to, "link.back", vec![took]));
            }
        }
    }
    use Cause as C;
    let code = match (end.word, end.cause) {
        ("succeeded", _) => StatusCode::Ok,
        ("failed", _) => StatusCode::Error,
        // On purpose, and nothing is wrong.
        (_, C::Drained | C::Moved | C::AskedBack | C::Superseded) => StatusCode::Unset,
        (_, C::Unspecified | C::Done | C::Cancelled) => StatusCode::Unset,
        _ => StatusCode::Error,
    };
    finish(Span {
        trace_id: place.trace_id.into(),
        span_id: tracer.attempt_span(&task.id, epoch).into(),
        parent_span_id: tracer.task_span(&task.id, task.number).into(),
        flags: SAMPLED | KNOWN_PARENT,
        name: format!("attempt {}", task.spec.type_name()),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: proto::nanos(from),
        end_time_unix_nano: proto::nanos(end.at),
        attributes,
        events,
        status: Some(status(code, &end.reason, end.cause)),
        ..Default::default()
    })
}

fn status(code: StatusCode, reason: &str, cause: Cause) -> Status {
    let why = if reason.is_empty() { cause.word() } else { reason };
    // Only an error has a message.
    let message = if code == StatusCode::Error { proto::short(why) } else { String::new() };
    Status { code: code.into(), message }
}

/// In order, within the limits; clocks may jump, and no span ends before it began.
fn finish(mut span: Span) -> Span {
    span.events.sort_by_key(|e| e.time_unix_nano);
    let more = span.events.len().saturating_sub(MAX_EVENTS);
    span.events.drain(..more);
    span.dropped_events_count = more as u32;
    span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    span
}
