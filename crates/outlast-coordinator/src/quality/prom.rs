//! What is measured of links, as metrics. Of the fleet by default; of single
//! workers only while there are few, or as many as were asked for.

use super::{Fleet, Quality, Row};
use crate::families::{Family, Kind, Label, NONE, label};
use outlast_core::quality::Totals;
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
        let kind = if kind == "counter" { Kind::Counter } else { Kind::Gauge };
        out.push(Family { name, kind, help, values: values.to_vec() });
    };
    let ways = |up: u64, down: u64| {
        [(label("direction", "up"), up as f64), (label("direction", "down"), down as f64)]
    };
    let one = |value: f64| [(NONE, value)];
    let bytes = ways(sums.bytes_up + sums.bulk, sums.bytes_down);
    family("link_bytes_total", "counter", "Bytes from workers and to them.", &bytes);
    let messages = ways(sums.messages_up, sums.messages_down);
    family("link_messages_total", "counter", "Messages from workers and to them.", &messages);
    let help = "Messages that could not be understood.";
    family("link_errors_total", "counter", help, &one(sums.errors as f64));
    family(
        "reconnects_total",
        "counter",
        "Times that workers came back.",
        &one(sums.reconnects as f64),
    );
    let help = "Heartbeats that never arrived.";
    family("heartbeats_lost_total", "counter", help, &one(sums.lost as f64));
    let totals = &fleet.totals;
    let goodput = ways(totals.goodput_up as u64, totals.goodput_down as u64);
    let help = "Bytes per second from workers and to them.";
    family("goodput_bytes_per_second", "gauge", help, &goodput);
    family("slots", "gauge", "Slots of connected workers.", &one(totals.slots as f64));
    family("running", "gauge", "Tasks that run, as workers say.", &one(totals.running as f64));
    let help = "Connected workers whose newest round trip took no longer, in milliseconds.";
    family("workers_by_rtt", "gauge", help, &by_rtt(&fleet));
    let alerts = ["critical", "warning", "info"].map(|word| {
        let count = totals.alerts.get(word).copied().unwrap_or(0);
        (label("severity", word), count as f64)
    });
    let help = "Workers with an alert that stands, by the worst.";
    family("workers_with_alerts", "gauge", help, &alerts);
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
        family(name, "gauge", help, &rows.iter().filter_map(value).collect::<Vec<_>>());
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
