//! Measurements of links and workers: metrics with their history, timelines, the fleet in short.

use crate::app::App;
use crate::clock::{self, text};
use crate::extract::{Params, Submitter};
use crate::problem::Refusal;
use crate::quality::fleet::{Fleet, Row};
use crate::quality::meters::Entry;
use crate::quality::timeline as line;
use axum::Json;
use axum::extract::{Path, State};
use outlast_core::coord::LinkSample;
use outlast_core::quality::{Meter, Point, Summary};
use outlast_store::{LinkEntryKind, Resolution};
use outlast_wire::api::{
    AlertList, Disconnect, FleetColumns, FleetPage, LinkNote, LinkQuality, MAX_FLEET, MetricSeries,
    Problem, RttView, WorkerMetrics, WorkerTimeline,
};
use serde::Deserialize;
use std::sync::Arc;

/// The most points in one series.
const MAX_POINTS: i64 = 5_000;
/// The most intervals in one timeline.
const MAX_INTERVALS: usize = 1_000;

#[derive(Deserialize)]
pub(crate) struct TimeRange {
    resolution: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// Unix milliseconds of a number or an RFC 3339 time.
fn time(name: &str, text: &str) -> Result<i64, Refusal> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let parsed = text.parse::<jiff::Timestamp>().map(|t| t.as_millisecond());
    parsed.map_err(|_| {
        Refusal::bad(&format!("{name}={text:?} is no time: write Unix milliseconds or RFC 3339"))
    })
}

/// Beginning and end, each aligned to the step. `usual` is how many points there are when nothing
/// is asked for.
fn range(span: &TimeRange, step: i64, usual: i64) -> Result<(i64, i64), Refusal> {
    let to = span.to.as_deref().map(|t| time("to", t)).transpose()?;
    let to = to.unwrap_or_else(clock::wall).clamp(0, i64::MAX / 4);
    let from = span.from.as_deref().map(|t| time("from", t)).transpose()?;
    let from = from.unwrap_or(to - usual * step).max(0);
    if from > to {
        return Err(Refusal::bad("from is later than to"));
    }
    if (to - from) / step > MAX_POINTS {
        let detail = format!(
            "that is more than {MAX_POINTS} points: ask for less time, or a coarser resolution"
        );
        return Err(Refusal::bad(&detail));
    }
    Ok((from.div_euclid(step) * step, (to + step - 1).div_euclid(step) * step))
}

async fn sample(app: &App, name: &str) -> Result<LinkSample, Refusal> {
    let wanted = name.to_owned();
    let found = app.query(move |core| core.sample(&wanted)).await;
    found?.ok_or_else(|| Refusal::no_worker(name))
}

/// Returns the metrics of one worker, by name or store id, and their history: `1s` for the newest five
/// minutes (of workers that are watched or busy), `1m` for a day, `1h` for 90 days.
#[utoipa::path(get, path = "/api/v1/workers/{name}/metrics", tag = "workers",
    params(("name" = String, Path), ("resolution" = Option<String>, Query, description = "1s, 1m (default) or 1h"),
        ("from" = Option<String>, Query, description = "Unix milliseconds or RFC 3339"), ("to" = Option<String>, Query)),
    responses((status = 200, body = WorkerMetrics), (status = 404, body = Problem)))]
pub(crate) async fn metrics(
    State(app): State<App>,
    _: Submitter,
    Path(name): Path<String>,
    Params(span): Params<TimeRange>,
) -> Result<Json<WorkerMetrics>, Refusal> {
    let (word, step, usual) = match span.resolution.as_deref() {
        Some("1s") => ("1s", 1_000, 300),
        None | Some("1m") => ("1m", 60_000, 180),
        Some("1h") => ("1h", 3_600_000, 168),
        Some(other) => {
            return Err(Refusal::bad(&format!("resolution={other:?}: there are 1s, 1m and 1h")));
        }
    };
    let (from, to) = range(&span, step, usual)?;
    let sample = sample(&app, &name).await?;
    let id = sample.row.store_id.clone();
    let entry = app.quality.entry(&id);
    if let Some(entry) = &entry {
        app.quality.watch(entry);
    }
    let points = match word {
        "1s" => entry.as_ref().map_or_else(Vec::new, |e| {
            e.meter().seconds().map(|(at, p)| (at * 1000, *p)).collect()
        }),
        _ => {
            let resolution = if word == "1m" { Resolution::Minutes } else { Resolution::Hours };
            let stored = app.quality.history.points(id.clone(), resolution, from, to).await;
            let mut stored = stored.map_err(|e| Refusal::busy(&e))?;
            if let Some(entry) = &entry {
                go_on(&mut stored, entry, step);
            }
            stored
        }
    };
    let series = series(word, step, from, to, &points);
    let now = clock::micros();
    let summary = match &entry {
        Some(entry) => {
            let mut meter = entry.meter();
            meter.count(sample.tally, sample.running);
            meter.reported(sample.rtt_ms, sample.restored);
            meter.summary(now)
        }
        None => Meter::new(now, 1).summary(now),
    };
    let mut view = view(&sample, &summary, series);
    if let Some(entry) = &entry {
        view.adaptation = entry.adapted().list();
    }
    if let (None, Some((at, cause, reason))) = (&view.link.last_disconnect, app.quality.former(&id))
    {
        let at = text(at.unwrap_or(app.started_at));
        view.link.last_disconnect = Some(Disconnect { at, cause, reason });
    }
    Ok(Json(view))
}

/// The minute that goes on belongs to the series too.
fn go_on(points: &mut Vec<(i64, Point)>, entry: &Entry, step: i64) {
    let (now, wall) = (clock::micros(), clock::wall());
    let open = entry.meter().this_minute(now);
    let at = wall.div_euclid(step) * step;
    match points.last_mut() {
        Some((last, point)) if *last == at => point.merge(&open),
        _ => points.push((at, open)),
    }
}

fn series(word: &str, step: i64, from: i64, to: i64, points: &[(i64, Point)]) -> MetricSeries {
    let count = ((to - from) / step).max(0) as usize;
    let mut slots: Vec<Option<&Point>> = vec![None; count];
    for (at, point) in points.iter().filter(|(_, p)| p.span_ms > 0) {
        if let Some(slot) =
            usize::try_from((at - from).div_euclid(step)).ok().and_then(|n| slots.get_mut(n))
        {
            *slot = Some(point);
        }
    }
    fn column<T>(slots: &[Option<&Point>], of: impl Fn(&Point) -> Option<T>) -> Vec<Option<T>> {
        slots.iter().map(|p| p.and_then(&of)).collect()
    }
    let ms = |us: f64| round(us / 1000.0, 3);
    let share = |p: &Point| f64::from(p.connected_ms.min(p.span_ms)) / f64::from(p.span_ms);
    let rate = |bytes: u64, p: &Point| round(bytes as f64 * 1000.0 / f64::from(p.span_ms), 1);
    MetricSeries {
        resolution: word.into(),
        step_ms: step as u64,
        at: (0..count as i64).map(|n| from + n * step).collect(),
        connected: column(&slots, |p| Some(round(share(p), 4))),
        rtt_ms: column(&slots, |p| p.rtt_ms().map(|ms| round(ms, 3))),
        rtt_max_ms: column(&slots, |p| (p.rtt.count > 0).then(|| ms(f64::from(p.rtt.max_us)))),
        suspicion: column(&slots, |p| {
            (p.connected_ms > 0).then(|| round(f64::from(p.suspicion), 2))
        }),
        goodput_up: column(&slots, |p| Some(rate(p.bytes.0, p))),
        goodput_down: column(&slots, |p| Some(rate(p.bytes.1, p))),
        messages: column(&slots, |p| Some(p.messages.into())),
        reconnects: column(&slots, |p| Some(p.reconnects.into())),
        heartbeats_lost: column(&slots, |p| Some(p.lost.into())),
        tasks_executed: column(&slots, |p| Some(p.tasks.executed.into())),
        tasks_failed: column(&slots, |p| Some(p.tasks.failed.into())),
        checkpoints: column(&slots, |p| Some(p.tasks.checkpoints.into())),
        running: column(&slots, |p| Some(p.tasks.running.into())),
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

fn view(sample: &LinkSample, s: &Summary, series: MetricSeries) -> WorkerMetrics {
    let (t, tally) = (&s.totals, &sample.tally);
    let (attempts, welcomes, failures) = s.returns.dials;
    let messages = t.messages.up + t.messages.down;
    let executed = tally.executed;
    let mean = |sum: f64, n: u64| (n > 0).then(|| round(sum / n as f64, 4));
    WorkerMetrics {
        id: sample.row.store_id.to_string(),
        name: sample.row.name.to_string(),
        state: sample.state.as_str().into(),
        at: text(clock::wall()),
        connection_attempts: attempts,
        successful_connections: welcomes,
        avg_reconnect_time: s.returns.took_ms.map(|(_, mean, _)| round(mean / 1000.0, 3)),
        max_reconnect_time: s.returns.took_ms.map(|(.., max)| max as f64 / 1000.0),
        connection_stability: round(s.returns.stability, 6),
        messages_sent: t.messages.down,
        messages_received: t.messages.up,
        avg_message_latency_ms: s.rtt.map(|r| round(r.mean, 3)),
        avg_message_size_bytes: mean((t.bytes.up + t.bytes.down) as f64, messages),
        message_errors: t.messages.errors + t.lost,
        tasks_executed: executed,
        task_success_rate: mean(tally.succeeded as f64, executed),
        avg_task_execution_time_ms: mean(tally.duration_ms as f64, executed),
        checkpoints_created: tally.checkpoints,
        checkpoints_restored: s.restored,
        compression_ratio: s.compression.0.map(|r| round(r, 3)),
        compression_time_ms: round(t.compression.nanos.0 as f64 / 1e6, 3),
        decompression_time_ms: round(t.compression.nanos.1 as f64 / 1e6, 3),
        link: LinkQuality {
            rtt: s.rtt.map(|r| RttView {
                samples: r.samples,
                last: round(r.last, 3),
                min: round(r.min, 3),
                median: round(r.median, 3),
                p95: round(r.p95, 3),
                jitter: round(r.jitter, 3),
                mean: round(r.mean, 3),
            }),
            worker_rtt_ms: s.worker_rtt_ms,
            suspicion: s.now.suspicion.map(|phi| round(phi, 2)),
            silent_ms: s.now.silent_ms,
            reconnects_per_minute: s.returns.per_minute,
            reconnects: t.reconnects,
            failed_connections: failures,
            connection_success_rate: if attempts == 0 {
                1.0
            } else {
                round(welcomes as f64 / attempts as f64, 4)
            },
            loss: s.returns.loss.map(|l| round(l, 4)),
            heartbeats_lost: t.lost,
            goodput_up: round(s.goodput.0, 1),
            goodput_down: round(s.goodput.1, 1),
            bytes_up: t.bytes.up + t.bytes.bulk,
            bytes_down: t.bytes.down,
            resync_ms: s.resync_ms,
            last_disconnect: s.ends.newest.as_ref().map(|(at, cause, reason)| Disconnect {
                at: text(*at),
                cause: *cause,
                reason: reason.to_string(),
            }),
            disconnects: s
                .ends
                .causes
                .iter()
                .map(|(c, n)| (c.word().into(), (*n).into()))
                .collect(),
        },
        series,
        adaptation: Vec::new(),
    }
}

/// Returns the states of a worker's link: connected, resync, suspect, away, unknown; with the cause. By
/// default the last day.
#[utoipa::path(get, path = "/api/v1/workers/{name}/timeline", tag = "workers",
    params(("name" = String, Path), ("from" = Option<String>, Query, description = "Unix milliseconds or RFC 3339"),
        ("to" = Option<String>, Query)),
    responses((status = 200, body = WorkerTimeline), (status = 404, body = Problem)))]
pub(crate) async fn timeline(
    State(app): State<App>,
    _: Submitter,
    Path(name): Path<String>,
    Params(span): Params<TimeRange>,
) -> Result<Json<WorkerTimeline>, Refusal> {
    let to = span.to.as_deref().map(|t| time("to", t)).transpose()?;
    let to = to.unwrap_or_else(clock::wall);
    let from = span.from.as_deref().map(|t| time("from", t)).transpose()?;
    let from = from.unwrap_or(to - 86_400_000);
    if from > to {
        return Err(Refusal::bad("from is later than to"));
    }
    let sample = sample(&app, &name).await?;
    let id = sample.row.store_id.clone();
    // Whatever is after it was not yet when it was asked for.
    let until = to.saturating_add(1);
    let asked = app
        .quality
        .history
        .ask(move |store| Ok((store.links(&id, until, 2 * MAX_INTERVALS)?, store.runs()?)));
    let (entries, runs) = asked.await.map_err(|e| Refusal::busy(&e))?.unwrap_or_default();
    let full = entries.len() >= 2 * MAX_INTERVALS && entries[0].at > from;
    let adapted = entries.iter().filter(|e| e.kind == LinkEntryKind::Adapted && e.at >= from);
    let notes = adapted.map(|e| LinkNote { at: e.at, text: e.reason.clone() }).collect();
    let mut intervals = line::intervals(&entries, &runs, from, to);
    let truncated = full || intervals.len() > MAX_INTERVALS;
    intervals.drain(..intervals.len().saturating_sub(MAX_INTERVALS));
    Ok(Json(WorkerTimeline {
        id: sample.row.store_id.to_string(),
        name: sample.row.name.to_string(),
        from,
        to,
        intervals,
        truncated,
        notes,
    }))
}

#[derive(Deserialize)]
pub(crate) struct AlertFilter {
    worker: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
}

/// Lists firing alerts, newest first, then the newest that were cleared (at most 1,000, since the
/// coordinator started); and the rules. An event `alert` reports each as it fires and is cleared.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "watch",
    params(("worker" = Option<String>, Query, description = "name or store id"),
        ("state" = Option<String>, Query, description = "firing or cleared"),
        ("limit" = Option<usize>, Query, description = "1000 by default, at most 10000")),
    responses((status = 200, body = AlertList)))]
pub(crate) async fn alerts(
    State(app): State<App>,
    _: Submitter,
    Params(q): Params<AlertFilter>,
) -> Result<Json<AlertList>, Refusal> {
    if let Some(state) = q.state.as_deref().filter(|s| !matches!(*s, "firing" | "cleared")) {
        return Err(Refusal::bad(&format!("state={state:?}: there are firing and cleared")));
    }
    let limit = q.limit.unwrap_or(1_000).clamp(1, 10_000);
    Ok(Json(app.quality.alert_list(q.worker.as_deref(), q.state.as_deref(), limit)))
}

#[derive(Deserialize)]
pub(crate) struct Page {
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Lists all workers in short, as columns; measured once a second. Events `fleet` report changes.
#[utoipa::path(get, path = "/api/v1/fleet", tag = "workers",
    params(("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<usize>, Query, description = "at most 20000, which is the default")),
    responses((status = 200, body = FleetPage)))]
pub(crate) async fn fleet(
    State(app): State<App>,
    _: Submitter,
    Params(page): Params<Page>,
) -> Result<Json<FleetPage>, Refusal> {
    let limit = page.limit.unwrap_or(MAX_FLEET).clamp(1, MAX_FLEET);
    let fleet = app.quality.fleet.borrow().clone();
    let first = match &page.cursor {
        Some(cursor) => fleet.rows.partition_point(|r| *r.name <= **cursor),
        None => 0,
    };
    let rows = &fleet.rows[first..(first + limit).min(fleet.rows.len())];
    let more = first + rows.len() < fleet.rows.len();
    Ok(Json(FleetPage {
        at: text(fleet.at),
        tick: fleet.tick,
        totals: fleet.totals.clone(),
        next: rows.last().filter(|_| more).map(|r| r.name.to_string()),
        workers: columns(rows.iter()),
    }))
}

pub(super) fn columns<'a>(rows: impl Iterator<Item = &'a Row>) -> FleetColumns {
    let mut all = FleetColumns::default();
    let fine = |x: f32| (x * 1000.0).round() / 1000.0;
    for r in rows {
        all.id.push(r.id.to_string());
        all.name.push(r.name.to_string());
        all.state.push(r.state.as_str().into());
        all.slots.push(r.slots);
        all.running.push(r.running);
        all.held.push(r.held);
        all.rtt_ms.push(r.rtt_ms.map(fine));
        all.suspicion.push(r.suspicion.map(|phi| (phi * 10.0).round() / 10.0));
        all.stability.push(fine(r.stability));
        all.reconnects_per_minute.push(r.reconnects);
        all.goodput.push((r.goodput.0 + r.goodput.1) as u32);
        all.alert.push(r.alert.into());
        all.since.push(r.since);
        all.cause.push(r.cause);
    }
    all
}

/// Returns the changes after measurement `since`, as an event.
pub(super) fn changes(fleet: &Arc<Fleet>, since: u64) -> outlast_wire::api::FleetEvent {
    let rows = fleet.rows.iter().filter(|r| r.tick > since);
    outlast_wire::api::FleetEvent {
        at: text(fleet.at),
        tick: fleet.tick,
        totals: fleet.totals.clone(),
        workers: columns(rows),
        gone: fleet.gone.iter().filter(|(t, _)| *t > since).map(|(_, id)| id.to_string()).collect(),
    }
}
