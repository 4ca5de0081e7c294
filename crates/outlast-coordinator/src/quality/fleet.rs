//! The fleet at a moment, in short: what `sampler` makes once a second and those who watch read.

use outlast_core::coord::WorkerState;
use outlast_model::LinkCause;
use outlast_wire::api::FleetTotals;
use std::collections::VecDeque;
use std::sync::Arc;

/// A worker in short.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub state: WorkerState,
    pub slots: u32,
    pub running: u32,
    pub held: u32,
    pub rtt_ms: Option<f32>,
    pub suspicion: Option<f32>,
    pub stability: f32,
    pub reconnects: u32,
    pub goodput: (f32, f32),
    pub alert: &'static str,
    pub since: Option<i64>,
    pub cause: LinkCause,
    /// The measurement at which it changed last.
    pub tick: u64,
}

/// The fleet at a moment.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub tick: u64,
    /// Unix milliseconds.
    pub at: i64,
    pub totals: FleetTotals,
    /// Workers by name.
    pub rows: Vec<Row>,
    /// Workers that were forgotten, and at which measurement.
    pub gone: VecDeque<(u64, Arc<str>)>,
}

impl Row {
    /// Returns whether a reader would see the difference: measurements always move a little.
    pub fn differs(&self, old: &Row) -> bool {
        let words = |r: &Row| (r.state, r.slots, r.running, r.held, r.alert, r.cause, r.reconnects);
        let moved = |a: Option<f32>, b: Option<f32>, least: f32| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() > least.max(b.abs() * 0.2),
            (a, b) => a.is_some() != b.is_some(),
        };
        words(self) != words(old)
            || self.name != old.name
            || moved(self.rtt_ms, old.rtt_ms, 2.0)
            || moved(self.suspicion, old.suspicion, 1.5)
            || (self.stability - old.stability).abs() >= 0.005
            || moved(Some(self.goodput.0), Some(old.goodput.0), 500.0)
            || moved(Some(self.goodput.1), Some(old.goodput.1), 500.0)
    }
}
