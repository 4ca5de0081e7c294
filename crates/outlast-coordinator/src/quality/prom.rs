//! What is measured of links, as metrics. Of the fleet by default; of single
//! workers only while there are few, or as many as were asked for.

use super::fleet::{Fleet, Row};
use super::meters::Quality;
use crate::clock;
use crate::families::{Family, Kind, Label, NONE, label};
use outlast_core::quality::{Summary, Totals};
use std::sync::PoisonError;

/// Workers with series of their own when nobody asks: none if there are more.
pub(crate) const FEW: usize = 50;
/// Workers with series of their own at most.
pub(crate) const MOST: usize = 1_000;
/// Milliseconds up to which workers are counted by their round-trip time.
const LIMITS: [f32; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// `asked` is how many workers are to have series of their own.
pub(crate) fn families(quality: &Quality, asked: Option<usize>) -> Vec<Family> {
    let fleet = quality.fleet.borrow().clone();
    let mut out = Vec::new();
    let sums = quality.sums();
    let mut family = |name, kind, help, values: &[(Label, f64)]| {
        out.push(Family { name, kind, help, values: values.to_vec() });
    };
    let ways = |up: u64, down: u64| {
        [(label("direction", "up"), up as f64), (label("direction", "down"), down as f64)]
    };
    let one = |value: f64| [(NONE, value)];
    let bytes = ways(sums.bytes_up + sums.bulk, sums.bytes_down);
    family("link_bytes_total", Kind::Counter, "Bytes from workers and to them.", &bytes);
    let messages = ways(sums.messages_up, sums.messages_down);
    family("link_messages_total", Kind::Counter, "Messages from workers and to them.", &messages);
    let help = "Messages that could not be understood.";
    family("link_errors_total", Kind::Counter, help, &one(sums.errors as f64));
    family(
        "reconnects_total",
        Kind::Counter,
        "Times that workers came back.",
        &one(sums.reconnects as f64),
    );
    let help = "Heartbeats that never arrived.";
    family("heartbeats_lost_total", Kind::Counter, help, &one(sums.lost as f64));
    let help = "Dials of workers; of those that failed, what workers tell with the next welcome.";
    family("connection_attempts_total", Kind::Counter, help, &one(sums.dials.0 as f64));
    // A sum and a count, as Prometheus' summaries have them.
    let timed = |sum: f64, n: u64| [(NONE, sum), (NONE, n as f64)];
    let (outages, sum, longest) = sums.outages;
    let help = "Times that workers were without a link until they were back.";
    family("reconnect_seconds", Kind::Summary, help, &timed(sum as f64 / 1e3, outages));
    let help = "The longest of these times.";
    family("reconnect_max_seconds", Kind::Gauge, help, &one(longest as f64 / 1e3));
    let help = "Round trips of heartbeats.";
    family(
        "message_latency_seconds",
        Kind::Summary,
        help,
        &timed(sums.rtt.1 as f64 / 1e6, sums.rtt.0),
    );
    let tally = &sums.tally;
    let executed = [("succeeded", tally.succeeded), ("failed", tally.failed())];
    let executed = executed.map(|(word, n)| (label("result", word), n as f64));
    let help = "Attempts that ran to an end of their own.";
    family("tasks_executed_total", Kind::Counter, help, &executed);
    let took = timed(tally.duration_ms as f64 / 1e3, tally.executed);
    family("task_execution_seconds", Kind::Summary, "What these took, by workers' clocks.", &took);
    let help = "Checkpoints that tasks read back.";
    family("checkpoints_restored_total", Kind::Counter, help, &one(sums.restored as f64));
    let (before, after) = (sums.packed.0 as f64, sums.packed.1 as f64);
    let packed = [(label("when", "before"), before), (label("when", "after"), after)];
    let help = "Bytes of messages worth compressing, before and after it.";
    family("compression_bytes_total", Kind::Counter, help, &packed);
    let ratio: Vec<_> = one(before / after).into_iter().filter(|_| after > 0.0).collect();
    family("compression_ratio", Kind::Gauge, "The ratio of these, since the start.", &ratio);
    let nanos = |n: u64| one(n as f64 / 1e9);
    let help = "Time that compressing took.";
    family("compression_seconds_total", Kind::Seconds, help, &nanos(sums.packing.0));
    let help = "Time that decompressing took.";
    family("decompression_seconds_total", Kind::Seconds, help, &nanos(sums.packing.1));
    let totals = &fleet.totals;
    let goodput = ways(totals.goodput_up as u64, totals.goodput_down as u64);
    let help = "Bytes per second from workers and to them.";
    family("goodput_bytes_per_second", Kind::Gauge, help, &goodput);
    family("slots", Kind::Gauge, "Slots of connected workers.", &one(totals.slots as f64));
    family("running", Kind::Gauge, "Tasks that run, as workers say.", &one(totals.running as f64));
    let help = "Connected workers whose newest round trip took no longer, in milliseconds.";
    family("workers_by_rtt", Kind::Gauge, help, &by_rtt(&fleet));
    let alerts = ["critical", "warning", "info"].map(|word| {
        let count = totals.alerts.get(word).copied().unwrap_or(0);
        (label("severity", word), count as f64)
    });
    let help = "Workers with an alert that stands, by the worst.";
    family("workers_with_alerts", Kind::Gauge, help, &alerts);
    let few = fleet.rows.len() <= FEW;
    let count = asked.unwrap_or(if few { FEW } else { 0 }).min(MOST);
    let rows = &fleet.rows[..count.min(fleet.rows.len())];
    type Of = fn(&Row) -> Option<f32>;
    let columns: [(&'static str, &'static str, Of); 5] = [
        ("worker_rtt_ms", "Newest round trip.", |r| r.rtt_ms),
        ("worker_suspicion", "Suspicion (φ) of a worker with a link.", |r| r.suspicion),
        ("worker_stability", "Share of the time with a link.", |r| Some(r.stability)),
        ("worker_reconnects_per_minute", "Returns within a minute.", |r| Some(r.reconnects as f32)),
        ("worker_running", "Tasks that run there.", |r| Some(r.running as f32)),
    ];
    for (name, help, of) in columns.iter().filter(|_| !rows.is_empty()) {
        let value = |r: &Row| Some((label("worker", &r.name), f64::from(of(r)?)));
        family(name, Kind::Gauge, help, &rows.iter().filter_map(value).collect::<Vec<_>>());
    }
    // Too dear to be in each row each second.
    let now = clock::micros();
    let summary =
        |r: &Row| Some((label("worker", &r.name), quality.entry(&r.id)?.meter().summary(now)));
    let summaries: Vec<_> = rows.iter().filter_map(summary).collect();
    type Is = fn(&Summary) -> Option<f64>;
    let columns: [(&'static str, &'static str, Is); 4] = [
        ("worker_loss_ratio", "Share of recent heartbeats that never arrived.", |s| s.loss),
        ("worker_jitter_seconds", "Mean difference of a round trip and the next.", |s| {
            s.rtt.map(|r| r.jitter / 1e3)
        }),
        ("worker_goodput_up_bytes_per_second", "From the worker.", |s| Some(s.goodput_up)),
        ("worker_goodput_down_bytes_per_second", "To the worker.", |s| Some(s.goodput_down)),
    ];
    for (name, help, of) in columns.iter().filter(|_| !summaries.is_empty()) {
        let values = summaries.iter().filter_map(|(label, s)| Some((label.clone(), of(s)?)));
        family(name, Kind::Gauge, help, &values.collect::<Vec<_>>());
    }
    out
}

fn by_rtt(fleet: &Fleet) -> Vec<(Label, f64)> {
    let rtts: Vec<f32> = fleet.rows.iter().filter_map(|r| r.rtt_ms).collect();
    let up_to = |limit: f32| rtts.iter().filter(|ms| **ms <= limit).count() as f64;
    let values = LIMITS.iter().map(|l| (label("le", &l.to_string()), up_to(*l)));
    values.chain([(label("le", "+Inf"), rtts.len() as f64)]).collect()
}

impl Quality {
    /// Of all workers, those that were forgotten too.
    fn sums(&self) -> Totals {
        let entries: Vec<_> = self.known().entries.values().cloned().collect();
        let mut sums = *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            sums.add(entry.meter().totals());
        }
        sums
    }
}
