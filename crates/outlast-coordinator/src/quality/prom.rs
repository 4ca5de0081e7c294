//! The metrics of links: of the fleet by default; of single workers only while there are few, or as many
//! as were asked for.

use super::fleet::{Fleet, Row};
use super::meters::Quality;
use crate::clock;
use crate::families::{Family, Kind, Label, NONE, label};
use outlast_core::quality::{Summary, Totals};

/// Workers with series of their own when nobody asks: none if there are more.
pub(crate) const FEW: usize = 50;
/// Workers with series of their own at most.
pub(crate) const MOST: usize = 1_000;
/// Milliseconds up to which workers are counted by their round-trip time.
const LIMITS: [f32; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// Returns all of these metrics; `asked` is the number of workers with series of their own.
pub(crate) fn families(quality: &Quality, asked: Option<usize>) -> Vec<Family> {
    let fleet = quality.fleet.borrow().clone();
    let sums = quality.sums();
    let few = fleet.rows.len() <= FEW;
    let count = asked.unwrap_or(if few { FEW } else { 0 }).min(MOST);
    let rows = &fleet.rows[..count.min(fleet.rows.len())];
    let mut all = links(&sums);
    all.extend(work(&sums));
    all.extend(totals(&fleet));
    all.extend(workers(quality, rows));
    all
}

fn family(name: &'static str, kind: Kind, help: &'static str, values: &[(Label, f64)]) -> Family {
    Family { name, kind, help, values: values.to_vec() }
}

fn one(value: f64) -> [(Label, f64); 1] {
    [(NONE, value)]
}

/// A sum and a count, as Prometheus' summaries have them.
fn timed(sum: f64, n: u64) -> [(Label, f64); 2] {
    [(NONE, sum), (NONE, n as f64)]
}

fn ways(up: u64, down: u64) -> [(&'static str, u64); 2] {
    [("up", up), ("down", down)]
}

/// Returns the traffic of links since the start, and their reconnects.
fn links(sums: &Totals) -> Vec<Family> {
    let bytes = ways(sums.bytes.up + sums.bytes.bulk, sums.bytes.down);
    let messages = ways(sums.messages.up, sums.messages.down);
    let (outages, sum, longest) = sums.outages;
    let away = timed(sum as f64 / 1e3, outages);
    let rtt = timed(sums.rtt.1 as f64 / 1e6, sums.rtt.0);
    let by_way = |name, values| Family::by("direction", Kind::Counter, name, values);
    let dials =
        "Dials of workers; of those that failed, what workers report with the next welcome.";
    let outage = "Times that workers were without a link until they were back.";
    let longest = one(longest as f64 / 1e3);
    let mut all = vec![
        by_way(("link_bytes_total", "Bytes from workers and to them."), bytes),
        by_way(("link_messages_total", "Messages from workers and to them."), messages),
        family("reconnect_seconds", Kind::Summary, outage, &away),
        family("reconnect_max_seconds", Kind::Gauge, "The longest of these times.", &longest),
        family("message_latency_seconds", Kind::Summary, "Round trips of heartbeats.", &rtt),
    ];
    let counts = [
        ("link_errors_total", "Messages that could not be understood.", sums.messages.errors),
        ("reconnects_total", "Times that workers came back.", sums.reconnects),
        ("heartbeats_lost_total", "Heartbeats that never arrived.", sums.lost),
        ("connection_attempts_total", dials, sums.dials.0),
    ];
    all.extend(Family::each(Kind::Counter, counts));
    all
}

/// Returns the counts of work, and the time that compression took.
fn work(sums: &Totals) -> Vec<Family> {
    let tally = &sums.tally;
    let executed = ("tasks_executed_total", "Attempts that ran to an end of their own.");
    let results = [("succeeded", tally.succeeded), ("failed", tally.failed())];
    let took = timed(tally.duration_ms as f64 / 1e3, tally.executed);
    let packed =
        ("compression_bytes_total", "Bytes of messages worth compressing, before and after it.");
    let (before, after) = sums.compression.bytes;
    let ratio = Some(before as f64 / after as f64).filter(|_| after > 0);
    let ratio: Vec<_> = ratio.into_iter().map(|ratio| (NONE, ratio)).collect();
    let seconds =
        |name, help, nanos: u64| family(name, Kind::Seconds, help, &one(nanos as f64 / 1e9));
    let took_help = "What these took, by workers' clocks.";
    let restored =
        [("checkpoints_restored_total", "Checkpoints that tasks read back.", sums.restored)];
    let mut all = vec![
        Family::by("result", Kind::Counter, executed, results),
        family("task_execution_seconds", Kind::Summary, took_help, &took),
        Family::by("when", Kind::Counter, packed, [("before", before), ("after", after)]),
        family("compression_ratio", Kind::Gauge, "The ratio of these, since the start.", &ratio),
        seconds(
            "compression_seconds_total",
            "Time that compressing took.",
            sums.compression.nanos.0,
        ),
        seconds(
            "decompression_seconds_total",
            "Time that decompressing took.",
            sums.compression.nanos.1,
        ),
    ];
    all.extend(Family::each(Kind::Counter, restored));
    all
}

/// Returns the metrics of the fleet as it is now.
fn totals(fleet: &Fleet) -> Vec<Family> {
    let totals = &fleet.totals;
    let goodput = ("goodput_bytes_per_second", "Bytes per second from workers and to them.");
    let rates = ways(totals.goodput_up as u64, totals.goodput_down as u64);
    let firing = ("workers_with_alerts", "Workers with a firing alert, by the worst.");
    let alerts = ["critical", "warning", "info"]
        .map(|word| (word, totals.alerts.get(word).copied().unwrap_or(0)));
    let rtt = "Connected workers whose newest round trip took no longer, in milliseconds.";
    let now = [
        ("slots", "Slots of connected workers.", totals.slots),
        ("running", "Tasks that run, as workers say.", totals.running),
    ];
    let mut all = vec![
        Family::by("direction", Kind::Gauge, goodput, rates),
        family("workers_by_rtt", Kind::Gauge, rtt, &by_rtt(fleet)),
        Family::by("severity", Kind::Gauge, firing, alerts),
    ];
    all.extend(Family::each(Kind::Gauge, now));
    all
}

/// Series of these workers.
fn workers(quality: &Quality, rows: &[Row]) -> Vec<Family> {
    if rows.is_empty() {
        return Vec::new();
    }
    type Of = fn(&Row) -> Option<f32>;
    let columns: [(&'static str, &'static str, Of); 5] = [
        ("worker_rtt_ms", "Newest round trip.", |r| r.rtt_ms),
        ("worker_suspicion", "Suspicion (φ) of a worker with a link.", |r| r.suspicion),
        ("worker_stability", "Share of the time with a link.", |r| Some(r.stability)),
        ("worker_reconnects_per_minute", "Returns within a minute.", |r| Some(r.reconnects as f32)),
        ("worker_running", "Tasks that run there.", |r| Some(r.running as f32)),
    ];
    let mut all = Vec::new();
    for (name, help, of) in columns {
        let value = |r: &Row| Some((label("worker", &r.name), f64::from(of(r)?)));
        let values = rows.iter().filter_map(value).collect();
        all.push(Family { name, kind: Kind::Gauge, help, values });
    }
    // Too dear to be in each row each second.
    let now = clock::micros();
    let summary =
        |r: &Row| Some((label("worker", &r.name), quality.entry(&r.id)?.meter().summary(now)));
    let summaries: Vec<_> = rows.iter().filter_map(summary).collect();
    type Is = fn(&Summary) -> Option<f64>;
    let columns: [(&'static str, &'static str, Is); 4] = [
        ("worker_loss_ratio", "Share of recent heartbeats that never arrived.", |s| s.returns.loss),
        ("worker_jitter_seconds", "Mean difference of a round trip and the next.", |s| {
            s.rtt.map(|r| r.jitter / 1e3)
        }),
        ("worker_goodput_up_bytes_per_second", "From the worker.", |s| Some(s.goodput.0)),
        ("worker_goodput_down_bytes_per_second", "To the worker.", |s| Some(s.goodput.1)),
    ];
    for (name, help, of) in columns.into_iter().filter(|_| !summaries.is_empty()) {
        let values = summaries.iter().filter_map(|(label, s)| Some((label.clone(), of(s)?)));
        all.push(Family { name, kind: Kind::Gauge, help, values: values.collect() });
    }
    all
}

fn by_rtt(fleet: &Fleet) -> Vec<(Label, f64)> {
    let rtts: Vec<f32> = fleet.rows.iter().filter_map(|r| r.rtt_ms).collect();
    let up_to = |limit: f32| rtts.iter().filter(|ms| **ms <= limit).count() as f64;
    let values = LIMITS.iter().map(|l| (label("le", &l.to_string()), up_to(*l)));
    values.chain([(label("le", "+Inf"), rtts.len() as f64)]).collect()
}

impl Quality {
    /// The sums of all workers, those that were forgotten too.
    fn sums(&self) -> Totals {
        let entries: Vec<_> = self.known().entries.values().cloned().collect();
        let mut sums = *self.forgotten.lock();
        for entry in entries {
            sums.add(entry.meter().totals());
        }
        sums
    }
}
