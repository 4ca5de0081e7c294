//! `/metrics`, in the Prometheus text format.

use crate::blobs::collect::Totals;
use outlast_blob::Usage;
use outlast_core::coord::{Coordinator, Counters, WorkerState};
use outlast_store::Counts;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the core knows.
pub(crate) struct Sample {
    counters: Counters,
    in_memory: usize,
    waiting: usize,
    postponed: usize,
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
        let postponed = core.postponed();
        Sample { counters, in_memory, waiting, postponed, connected, suspect, away }
    }
}

/// A metric of one value per label.
fn labelled(key: &str, values: &BTreeMap<&'static str, u64>) -> Vec<(String, u64)> {
    let of = |(word, n): (&&str, &u64)| {
        let word = if word.is_empty() { "unknown" } else { word };
        (format!("{{{key}=\"{word}\"}}"), *n)
    };
    values.iter().map(of).collect()
}

pub(crate) fn render(
    sample: &Sample,
    counts: Counts,
    writable: bool,
    usage: Usage,
    collected: Totals,
) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
        let _ = head(&mut out, name, kind, help);
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
    metric("quarantines_total", "counter", "Workers quarantined.", &[("", c.quarantines)]);
    let (help, bad) = ("Texts of v1 workers that were no messages.", c.v1_malformed);
    metric("v1_malformed_total", "counter", help, &[("", bad)]);
    metric("welcomed_total", "counter", "Worker connections accepted.", &[("", c.welcomed)]);
    metric("silent_total", "counter", "Links closed for silence.", &[("", c.silent)]);
    metric("expired_total", "counter", "Attempts given up after their window.", &[("", c.expired)]);
    metric(
        "postponed_total",
        "counter",
        "Workers told to come at their turn.",
        &[("", c.postponed)],
    );
    metric(
        "postponed",
        "gauge",
        "Workers that wait for their turn.",
        &[("", sample.postponed as u64)],
    );
    metric("checkpoints_total", "counter", "Checkpoints recorded.", &[("", c.checkpoints)]);
    metric(
        "blobs_missing_total",
        "counter",
        "Checkpoints that came before their blob.",
        &[("", c.blobs_missing)],
    );
    metric("removed_total", "counter", "Tasks removed long after their end.", &[("", c.removed)]);
    metric(
        "honoured_total",
        "counter",
        "Late successes accepted of tasks that had failed for loss.",
        &[("", c.honoured)],
    );
    metric("blob_bytes", "gauge", "Bytes of blobs on disk.", &[("", usage.disk_bytes)]);
    if let Some(budget) = usage.budget {
        metric("blob_budget_bytes", "gauge", "Bytes that blobs may take.", &[("", budget)]);
    }
    metric("blob_chunks", "gauge", "Chunks of blobs.", &[("", usage.chunk_count)]);
    metric("blob_manifests", "gauge", "Blobs.", &[("", usage.manifest_count)]);
    metric("blob_damaged", "gauge", "Damaged chunks.", &[("", usage.damaged)]);
    metric(
        "blob_refused_total",
        "counter",
        "Uploads refused for want of room.",
        &[("", usage.refused)],
    );
    metric(
        "blob_collections_total",
        "counter",
        "Collections of unreferenced blobs.",
        &[("{result=\"done\"}", collected.runs), ("{result=\"failed\"}", collected.failed)],
    );
    metric(
        "blob_collected_total",
        "counter",
        "What collections removed.",
        &[
            ("{what=\"manifests\"}", collected.manifests),
            ("{what=\"chunks\"}", collected.chunks),
            ("{what=\"bytes\"}", collected.bytes),
        ],
    );
    for (name, key, help, values) in [
        ("refused_total", "code", "Links refused, by code.", &c.refused),
        ("links_ended_total", "cause", "Links of workers that ended, by cause.", &c.links),
        ("attempts_ended_total", "cause", "Attempts that ended, by cause.", &c.causes),
        ("recoveries_total", "strategy", "What was done after failures.", &c.recoveries),
    ] {
        let values = labelled(key, values);
        let values: Vec<(&str, u64)> = values.iter().map(|(l, n)| (l.as_str(), *n)).collect();
        metric(name, "counter", help, &values);
    }
    out
}

/// Writing to a string cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP outlast_{name} {help}\n# TYPE outlast_{name} {kind}")
}
