//! `/metrics`, in the Prometheus text format.

use outlast_core::coord::{Coordinator, Counters, WorkerState};
use outlast_store::Counts;
use std::fmt::Write;

/// What the core knows.
pub(crate) struct Sample {
    counters: Counters,
    in_memory: usize,
    waiting: usize,
    connected: usize,
    suspect: usize,
    away: usize,
}

impl Sample {
    pub fn of(core: &Coordinator) -> Sample {
        let (in_memory, waiting) = core.load();
        let (mut connected, mut suspect, mut away) = (0, 0, 0);
        for worker in core.workers() {
            match worker.state {
                WorkerState::Connected | WorkerState::Draining => connected += 1,
                WorkerState::Suspect => suspect += 1,
                WorkerState::Away => away += 1,
            }
        }
        let counters = core.counters().clone();
        Sample { counters, in_memory, waiting, connected, suspect, away }
    }
}

pub(crate) fn render(sample: &Sample, counts: Counts, writable: bool) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP outlast_{name} {help}\n# TYPE outlast_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "outlast_{name}{labels} {value}");
        }
    };
    let c = &sample.counters;
    metric(
        "tasks",
        "gauge",
        "Tasks by state.",
        &[
            ("{state=\"pending\"}", counts.pending),
            ("{state=\"assigned\"}", counts.assigned),
            ("{state=\"succeeded\"}", counts.succeeded),
            ("{state=\"failed\"}", counts.failed),
            ("{state=\"cancelled\"}", counts.cancelled),
        ],
    );
    metric(
        "workers",
        "gauge",
        "Workers by state.",
        &[
            ("{state=\"connected\"}", sample.connected as u64),
            ("{state=\"suspect\"}", sample.suspect as u64),
            ("{state=\"away\"}", sample.away as u64),
        ],
    );
    metric(
        "tasks_in_memory",
        "gauge",
        "Unfinished tasks held in memory.",
        &[("", sample.in_memory as u64)],
    );
    metric(
        "tasks_waiting",
        "gauge",
        "Tasks that wait for a worker.",
        &[("", sample.waiting as u64)],
    );
    metric("store_writable", "gauge", "1 while commits succeed.", &[("", writable.into())]);
    metric("submitted_total", "counter", "Tasks accepted.", &[("", c.submitted)]);
    metric("assigned_total", "counter", "Attempts given out.", &[("", c.assigned)]);
    metric(
        "ended_total",
        "counter",
        "Tasks ended.",
        &[
            ("{state=\"succeeded\"}", c.ended[0]),
            ("{state=\"failed\"}", c.ended[1]),
            ("{state=\"cancelled\"}", c.ended[2]),
        ],
    );
    metric("requeued_total", "counter", "Attempts given up and tried again.", &[("", c.requeued)]);
    metric("superseded_total", "counter", "Outcomes that did not count.", &[("", c.superseded)]);
    metric("repeated_total", "counter", "Records received again and skipped.", &[("", c.repeated)]);
    metric("outbox_gaps_total", "counter", "Times an outbox skipped sequences.", &[("", c.gaps)]);
    metric("welcomed_total", "counter", "Worker connections accepted.", &[("", c.welcomed)]);
    metric("silent_total", "counter", "Links closed for silence.", &[("", c.silent)]);
    metric("expired_total", "counter", "Attempts given up after their window.", &[("", c.expired)]);
    let refused: Vec<(String, u64)> =
        c.refused.iter().map(|(code, n)| (format!("{{code=\"{code}\"}}"), *n)).collect();
    let refused: Vec<(&str, u64)> = refused.iter().map(|(l, n)| (l.as_str(), *n)).collect();
    metric("refused_total", "counter", "Links refused, by code.", &refused);
    out
}
