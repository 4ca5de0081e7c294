//! What is counted: gathered for `/metrics`, and to be sent to a collector.

use crate::blobs::service::Totals;
use crate::families::{Family, Kind, Label, NONE, label};
use outlast_blob::Usage;
use outlast_core::coord::{Coordinator, Counters, WorkerState};
use outlast_store::Counts;
use std::collections::BTreeMap;

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
                state if state.is_there() => connected += 1,
                WorkerState::Suspect => suspect += 1,
                _ => away += 1,
            }
        }
        let counters = core.counters().clone();
        let postponed = core.postponed();
        Sample { counters, in_memory, waiting, postponed, connected, suspect, away }
    }
}

/// A metric of one value per label.
fn labelled(key: &'static str, values: &BTreeMap<&'static str, u64>) -> Vec<(Label, u64)> {
    let of = |(word, n): (&&str, &u64)| {
        let word = if word.is_empty() { "unknown" } else { word };
        (label(key, word), *n)
    };
    values.iter().map(of).collect()
}

pub(crate) fn families(
    sample: &Sample,
    counts: Counts,
    writable: bool,
    usage: Usage,
    collected: Totals,
) -> Vec<Family> {
    let mut out = Vec::new();
    let mut metric = |name, kind, help, values: &[(Label, u64)]| {
        let kind = if kind == "counter" { Kind::Counter } else { Kind::Gauge };
        let values = values.iter().map(|(label, n)| (label.clone(), *n as f64)).collect();
        out.push(Family { name, kind, help, values });
    };
    let c = &sample.counters;
    metric(
        "tasks",
        "gauge",
        "Tasks by state.",
        &[
            (label("state", "pending"), counts.pending),
            (label("state", "assigned"), counts.assigned),
            (label("state", "succeeded"), counts.succeeded),
            (label("state", "failed"), counts.failed),
            (label("state", "cancelled"), counts.cancelled),
        ],
    );
    metric(
        "workers",
        "gauge",
        "Workers by state.",
        &[
            (label("state", "connected"), sample.connected as u64),
            (label("state", "suspect"), sample.suspect as u64),
            (label("state", "away"), sample.away as u64),
        ],
    );
    metric(
        "tasks_in_memory",
        "gauge",
        "Unfinished tasks held in memory.",
        &[(NONE, sample.in_memory as u64)],
    );
    metric(
        "tasks_waiting",
        "gauge",
        "Tasks that wait for a worker.",
        &[(NONE, sample.waiting as u64)],
    );
    metric("store_writable", "gauge", "1 while commits succeed.", &[(NONE, writable.into())]);
    metric("submitted_total", "counter", "Tasks accepted.", &[(NONE, c.submitted)]);
    metric("assigned_total", "counter", "Attempts given out.", &[(NONE, c.assigned)]);
    metric(
        "ended_total",
        "counter",
        "Tasks ended.",
        &[
            (label("state", "succeeded"), c.ended[0]),
            (label("state", "failed"), c.ended[1]),
            (label("state", "cancelled"), c.ended[2]),
        ],
    );
    metric(
        "requeued_total",
        "counter",
        "Attempts given up and tried again.",
        &[(NONE, c.requeued)],
    );
    metric("superseded_total", "counter", "Outcomes that did not count.", &[(NONE, c.superseded)]);
    metric(
        "dropped_total",
        "counter",
        "Records of workers that were not kept, by why.",
        &[(label("why", "surplus"), c.surplus), (label("why", "unusable"), c.unusable)],
    );
    let (help, made) = ("Workers forgotten to make room for others.", c.made_room);
    metric("workers_forgotten_for_room_total", "counter", help, &[(NONE, made)]);
    metric(
        "repeated_total",
        "counter",
        "Records received again and skipped.",
        &[(NONE, c.repeated)],
    );
    let foreign: Vec<_> = c.foreign.iter().map(|(what, n)| (label("kind", what), *n)).collect();
    metric(
        "foreign_total",
        "counter",
        "Records dropped: their attempts were never given to the worker that sent them.",
        &foreign,
    );
    metric("outbox_gaps_total", "counter", "Times an outbox skipped sequences.", &[(NONE, c.gaps)]);
    metric("quarantines_total", "counter", "Workers quarantined.", &[(NONE, c.quarantines)]);
    let (help, bad) = ("Texts of v1 workers that were no messages.", c.v1_malformed);
    metric("v1_malformed_total", "counter", help, &[(NONE, bad)]);
    metric("welcomed_total", "counter", "Worker connections accepted.", &[(NONE, c.welcomed)]);
    metric("silent_total", "counter", "Links closed for silence.", &[(NONE, c.silent)]);
    metric(
        "expired_total",
        "counter",
        "Attempts given up after their window.",
        &[(NONE, c.expired)],
    );
    metric(
        "postponed_total",
        "counter",
        "Workers told to come at their turn.",
        &[(NONE, c.postponed)],
    );
    metric(
        "postponed",
        "gauge",
        "Workers that wait for their turn.",
        &[(NONE, sample.postponed as u64)],
    );
    metric("checkpoints_total", "counter", "Checkpoints recorded.", &[(NONE, c.checkpoints)]);
    metric(
        "blobs_missing_total",
        "counter",
        "Checkpoints that came before their blob.",
        &[(NONE, c.blobs_missing)],
    );
    metric("removed_total", "counter", "Tasks removed long after their end.", &[(NONE, c.removed)]);
    metric(
        "honoured_total",
        "counter",
        "Late successes accepted of tasks that had failed for loss.",
        &[(NONE, c.honoured)],
    );
    metric("blob_bytes", "gauge", "Bytes of blobs on disk.", &[(NONE, usage.disk_bytes)]);
    if let Some(budget) = usage.budget {
        metric("blob_budget_bytes", "gauge", "Bytes that blobs may take.", &[(NONE, budget)]);
    }
    metric("blob_chunks", "gauge", "Chunks of blobs.", &[(NONE, usage.chunk_count)]);
    metric("blob_manifests", "gauge", "Blobs.", &[(NONE, usage.manifest_count)]);
    metric("blob_damaged", "gauge", "Damaged chunks.", &[(NONE, usage.damaged)]);
    metric(
        "blob_refused_total",
        "counter",
        "Uploads refused for want of room.",
        &[(NONE, usage.refused)],
    );
    metric(
        "blob_collections_total",
        "counter",
        "Collections of unreferenced blobs.",
        &[(label("result", "done"), collected.runs), (label("result", "failed"), collected.failed)],
    );
    metric(
        "blob_collected_total",
        "counter",
        "What collections removed.",
        &[
            (label("what", "manifests"), collected.manifests),
            (label("what", "chunks"), collected.chunks),
            (label("what", "bytes"), collected.bytes),
        ],
    );
    for (name, key, help, values) in [
        ("refused_total", "code", "Links refused, by code.", &c.refused),
        ("links_ended_total", "cause", "Links of workers that ended, by cause.", &c.links),
        ("attempts_ended_total", "cause", "Attempts that ended, by cause.", &c.causes),
        ("recoveries_total", "strategy", "What was done after failures.", &c.recoveries),
    ] {
        metric(name, "counter", help, &labelled(key, values));
    }
    out
}
