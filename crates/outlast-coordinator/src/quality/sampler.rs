//! The sampler: once a second a query of the core, a row for each worker, points of the seconds and minutes
//! that have passed.

use super::alerts::Samples;
use super::fleet::{Fleet, Row};
use super::meters::{Entry, Quality, SECONDS, minute_of, points};
use crate::clock;
use crate::input::Driver;
use outlast_core::coord::{LinkSample, WorkerState};
use outlast_core::quality::Micros;
use outlast_model::LinkCause;
use outlast_store::{LinkEntry, LinkEntryKind};
use outlast_wire::api::FleetTotals;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Workers that are remembered after they were forgotten, for those who watch.
const GONE: usize = 1_000;
/// A worker that moves more bytes per second is busy.
const BUSY: f64 = 2_000.0;

/// Measures until the coordinator ends.
pub(crate) async fn run(quality: Arc<Quality>, driver: Driver) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sampler = Sampler::new();
    loop {
        every.tick().await;
        let Ok(samples) = driver.query(|core| core.samples()).await else { return };
        let quality = quality.clone();
        // A large fleet takes some milliseconds.
        let work = tokio::task::spawn_blocking(move || {
            sampler.second(&quality, &samples);
            sampler
        });
        match work.await {
            Ok(back) => sampler = back,
            Err(_) => return,
        }
    }
}

struct Sampler {
    /// The beginning of the minute that goes on, Unix milliseconds.
    minute: i64,
    first: bool,
}

impl Sampler {
    fn new() -> Sampler {
        Sampler { minute: minute_of(clock::wall()), first: true }
    }

    fn second(&mut self, quality: &Quality, samples: &[LinkSample]) {
        let (now, wall) = (clock::micros(), clock::wall());
        let old = quality.fleet.borrow().clone();
        let tick = old.tick + 1;
        let before: HashMap<&Arc<str>, &Row> = old.rows.iter().map(|r| (&r.id, r)).collect();
        let mut rows = Vec::with_capacity(samples.len());
        let (mut kept, mut still_here) = (Kept::default(), 0);
        let mut entries = Vec::with_capacity(samples.len());
        {
            let known = quality.known();
            for sample in samples {
                entries.push(known.entries.get(&sample.row.store_id).cloned());
            }
        }
        let mut alerts = quality.alerts();
        alerts.begin();
        for (sample, entry) in samples.iter().zip(&entries) {
            let (mut row, mut values) = measure(sample, entry.as_deref(), now, wall, &mut kept);
            if entry.is_none()
                && let Some((at, cause, _)) = quality.former(&row.id)
            {
                row.cause = cause;
                // It was there when the former process ended.
                let away = wall.saturating_sub(quality.started_at).max(0) as f64 / 1000.0;
                values[1] = at.is_none().then_some((away, 1));
            }
            let why = sample.faults.as_ref().map_or("", |f| &f.says);
            let who = (&row.id, &row.name, why);
            row.alert = alerts.judge(who, &values, now / 1000, wall);
            if self.first {
                after_restart(quality, &row);
            }
            match before.get(&row.id) {
                Some(old) => {
                    still_here += 1;
                    row.since = if old.state == row.state { old.since } else { Some(wall) };
                    if old.state == WorkerState::Suspect && row.state == WorkerState::Away {
                        gave_up(quality, &row, wall);
                    }
                    row.tick = old.tick;
                    if row.differs(old) {
                        row.tick = tick;
                    } else {
                        // What is shown stays what was reported.
                        (row.rtt_ms, row.suspicion) = (old.rtt_ms, old.suspicion);
                        (row.stability, row.goodput) = (old.stability, old.goodput);
                    }
                }
                None => row.tick = tick,
            }
            rows.push(row);
        }
        if self.first {
            alerts.settle(&rows.iter().map(|r| &r.id).collect(), wall);
        }
        drop(alerts);
        self.minutes(quality, &entries, now, wall);
        let mut gone = old.gone.clone();
        if still_here < old.rows.len() {
            let here: HashSet<&Arc<str>> = rows.iter().map(|r| &r.id).collect();
            for row in old.rows.iter().filter(|r| !here.contains(&r.id)) {
                quality.alerts().forget(&row.id, &row.name, wall);
                gone.push_back((tick, row.id.clone()));
            }
            gone.drain(..gone.len().saturating_sub(GONE));
        }
        self.first = false;
        let mut alerts = quality.alerts();
        quality.history.alerts(alerts.changes());
        drop(alerts);
        let totals = totals(&rows);
        quality.fleet.send_replace(Arc::new(Fleet { tick, at: wall, totals, rows, gone }));
    }

    /// Writes the points of the last minute, if it has ended.
    fn minutes(
        &mut self,
        quality: &Quality,
        entries: &[Option<Arc<Entry>>],
        now: Micros,
        wall: i64,
    ) {
        let minute = minute_of(wall);
        if minute == self.minute {
            return;
        }
        let at = std::mem::replace(&mut self.minute, minute);
        quality.history.minute(at, points(entries, now));
    }
}

/// Workers whose seconds are kept so far.
#[derive(Default)]
struct Kept {
    all: usize,
    busy: usize,
}

fn measure(
    sample: &LinkSample,
    entry: Option<&Entry>,
    now: Micros,
    wall: i64,
    kept: &mut Kept,
) -> (Row, Samples) {
    let mut row = Row {
        id: sample.row.store_id.clone(),
        name: sample.row.name.clone(),
        state: sample.state,
        slots: sample.row.slots,
        running: sample.running,
        held: sample.held,
        rtt_ms: None,
        suspicion: None,
        stability: 1.0,
        reconnects: 0,
        goodput: (0.0, 0.0),
        alert: "",
        since: None,
        cause: LinkCause::Unspecified,
        tick: 0,
    };
    let Some(entry) = entry else { return (row, Samples::default()) };
    let mut meter = entry.meter();
    meter.count(sample.tally, sample.running);
    if sample.state.is_there() {
        meter.reported(sample.rtt_ms, sample.restored);
        row.since = Some(wall);
    } else {
        row.cause = meter.end().map_or(LinkCause::Unspecified, |e| e.1);
    }
    let goodput = meter.goodput(now);
    let watched = entry.is_watched(now);
    let busy = sample.running > 0 || goodput.0 + goodput.1 > BUSY;
    let keep = kept.all < SECONDS.0 && (watched || (busy && kept.busy < SECONDS.1));
    kept.all += usize::from(keep);
    kept.busy += usize::from(keep && !watched);
    let second = wall.div_euclid(1000);
    row.suspicion = meter.on_second(now, second).map(|phi| phi as f32);
    meter.keep_seconds(now, second, keep);
    row.rtt_ms = meter.last_rtt().filter(|_| row.suspicion.is_some());
    row.stability = meter.stability(now) as f32;
    row.reconnects = meter.reconnects_per_minute(now);
    row.goodput = (goodput.0 as f32, goodput.1 as f32);
    // In the order of `Measure::ALL`. A worker that is away has no latency.
    let values = [
        Some((f64::from(row.reconnects), 1)),
        Some((meter.cut_off_ms(now).map_or(0.0, |ms| ms as f64 / 1000.0), 1)),
        row.suspicion.map(|_| meter.recent_rtt()),
        Some(sample.tally.recent()),
        Some(meter.compression(now)),
        unfit(sample, wall),
        Some((copies(sample.copied, wall), 1)),
    ];
    (row, values)
}

/// For how many seconds something does not work there; away it does not say.
fn unfit(sample: &LinkSample, wall: i64) -> Option<(f64, u32)> {
    let ill = sample.faults.as_ref().map(|f| wall.saturating_sub(f.since).max(1));
    match ill {
        None => Some((0.0, 1)),
        Some(ms) => sample.state.is_there().then_some((ms as f64 / 1000.0, 1)),
    }
}

/// Time that a refused copy is worth an alert after it was seen last, in milliseconds.
const COPY_SEEN: i64 = 3_600_000;

/// Refusals of a copy, while the last one is not long ago.
fn copies(copied: Option<(i64, u64)>, wall: i64) -> f64 {
    let lately = copied.filter(|(at, _)| wall - at < COPY_SEEN);
    lately.map_or(0.0, |(_, times)| times as f64)
}

/// A worker that was there when the coordinator's former process ended, and is not now.
fn after_restart(quality: &Quality, row: &Row) {
    let kind = match row.state {
        WorkerState::Suspect => LinkEntryKind::Suspect,
        WorkerState::Away => LinkEntryKind::Away,
        WorkerState::Connected | WorkerState::Draining | WorkerState::Unfit => return,
    };
    let Some((None, cause, reason)) = quality.former(&row.id) else { return };
    let (worker, at) = (row.id.clone(), quality.started_at);
    quality.history.link(LinkEntry { worker, at, kind, cause, reason });
}

fn gave_up(quality: &Quality, row: &Row, at: i64) {
    let (worker, kind, cause) = (row.id.clone(), LinkEntryKind::Away, row.cause);
    let reason = "it holds no tasks any more: their leases expired".into();
    quality.history.link(LinkEntry { worker, at, kind, cause, reason });
}

fn totals(rows: &[Row]) -> FleetTotals {
    let mut totals = FleetTotals { workers: rows.len() as u64, ..FleetTotals::default() };
    let mut rtts: Vec<f32> = Vec::new();
    for row in rows {
        match row.state {
            WorkerState::Connected => totals.connected += 1,
            WorkerState::Draining => {
                (totals.connected, totals.draining) = (totals.connected + 1, totals.draining + 1);
            }
            WorkerState::Unfit => {
                (totals.connected, totals.unfit) = (totals.connected + 1, totals.unfit + 1);
            }
            WorkerState::Suspect => totals.suspect += 1,
            WorkerState::Away => totals.away += 1,
        }
        if row.state.is_there() {
            totals.slots += u64::from(row.slots);
            rtts.extend(row.rtt_ms);
        }
        totals.running += u64::from(row.running);
        totals.goodput_up += f64::from(row.goodput.0);
        totals.goodput_down += f64::from(row.goodput.1);
        if !row.alert.is_empty() {
            *totals.alerts.entry(row.alert.into()).or_default() += 1;
        }
    }
    (totals.goodput_up, totals.goodput_down) =
        (totals.goodput_up.round(), totals.goodput_down.round());
    rtts.sort_by(f32::total_cmp);
    let fine = |ms: &f32| (f64::from(*ms) * 1000.0).round() / 1000.0;
    let rank = |q: f64| rtts.get((rtts.len() as f64 * q) as usize).map(fine);
    (totals.rtt_median_ms, totals.rtt_p95_ms) = (rank(0.5), rank(0.95));
    totals
}
