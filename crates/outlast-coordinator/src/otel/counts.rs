//! Counts of what was exported, for `/metrics`.

use crate::families::{Family, Kind, NONE, label};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one kind of telemetry.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Spans or points that were taken.
    pub exported: AtomicU64,
    /// Spans or points that were refused, or could not be made.
    pub dropped: AtomicU64,
    /// Tries that failed.
    pub failures: AtomicU64,
}

/// Counts of both kinds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub spans: Arc<Count>,
    pub points: Arc<Count>,
}

impl Counts {
    /// The counts as metrics; `waiting` is how many tasks wait to be exported.
    pub fn families(&self, waiting: usize) -> Vec<Family> {
        let both = |name, help, of: fn(&Count) -> &AtomicU64| {
            let value = |count| of(count).load(Ordering::Relaxed) as f64;
            let values = vec![
                (label("what", "spans"), value(&self.spans)),
                (label("what", "points"), value(&self.points)),
            ];
            Family { name, kind: Kind::Counter, help, values }
        };
        let help = "Tasks that ended and whose trace waits; beyond 65536 they wait in the store.";
        vec![
            both("otlp_exported_total", "Spans and points that a collector took.", |c| &c.exported),
            both("otlp_dropped_total", "Spans and points that were lost.", |c| &c.dropped),
            both("otlp_failures_total", "Deliveries that failed.", |c| &c.failures),
            Family {
                name: "otlp_waiting",
                kind: Kind::Gauge,
                help,
                values: vec![(NONE, waiting as f64)],
            },
        ]
    }
}
