//! The metrics of the core, the store and the blobs.

use crate::blobs::service::Totals;
use crate::families::Family;
use crate::families::Kind::{Counter, Gauge};
use outlast_blob::Usage;
use outlast_core::coord::{Coordinator, Counters, WorkerState};
use outlast_store::Counts;

/// The counts of the core at a moment.
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
    /// Takes them from the core.
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

/// Returns all of these metrics. `writable`: commits to the store succeed.
pub(crate) fn families(
    sample: &Sample,
    counts: Counts,
    writable: bool,
    usage: Usage,
    collected: Totals,
) -> Vec<Family> {
    let mut all = tasks(sample, counts);
    all.push(Family::one(Gauge, "store_writable", "1 while commits succeed.", u64::from(writable)));
    all.extend(records(&sample.counters));
    all.extend(links(sample));
    all.extend(blobs(usage, collected));
    let c = &sample.counters;
    let causes = [
        ("refused_total", "code", "Links refused, by code.", &c.refused),
        ("links_ended_total", "cause", "Links of workers that ended, by cause.", &c.links),
        ("attempts_ended_total", "cause", "Attempts that ended, by cause.", &c.causes),
        ("recoveries_total", "strategy", "What was done after failures.", &c.recoveries),
    ];
    all.extend(causes.map(|(name, key, help, values)| {
        let word = |word: &&'static str| if word.is_empty() { "unknown" } else { *word };
        Family::by(key, Counter, name, help, values.iter().map(|(w, n)| (word(w), *n)))
    }));
    all
}

fn tasks(sample: &Sample, counts: Counts) -> Vec<Family> {
    let c = &sample.counters;
    let by_state = [
        ("pending", counts.pending),
        ("assigned", counts.assigned),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    let [succeeded, failed, cancelled] = c.ended;
    let ended = [("succeeded", succeeded), ("failed", failed), ("cancelled", cancelled)];
    let (in_memory, waiting) = (sample.in_memory as u64, sample.waiting as u64);
    let honoured = "Late successes accepted of tasks that had failed for loss.";
    vec![
        Family::by("state", Gauge, "tasks", "Tasks by state.", by_state),
        Family::one(Gauge, "tasks_in_memory", "Unfinished tasks held in memory.", in_memory),
        Family::one(Gauge, "tasks_waiting", "Tasks that wait for a worker.", waiting),
        Family::one(Counter, "submitted_total", "Tasks accepted.", c.submitted),
        Family::one(Counter, "assigned_total", "Attempts given out.", c.assigned),
        Family::by("state", Counter, "ended_total", "Tasks ended.", ended),
        Family::one(Counter, "requeued_total", "Attempts abandoned and tried again.", c.requeued),
        Family::one(Counter, "expired_total", "Attempts abandoned after their window.", c.expired),
        Family::one(Counter, "removed_total", "Tasks removed long after their end.", c.removed),
        Family::one(Counter, "honoured_total", honoured, c.honoured),
        Family::one(Counter, "checkpoints_total", "Checkpoints recorded.", c.checkpoints),
    ]
}

/// Returns the counts of records that the coordinator did not keep.
fn records(c: &Counters) -> Vec<Family> {
    let dropped = [("surplus", c.surplus), ("unusable", c.unusable)];
    let foreign = c.foreign.iter().map(|(what, n)| (*what, *n));
    let by_why = "Records of workers that were not kept, by why.";
    let of_others =
        "Records dropped: their attempts were never given to the worker that sent them.";
    vec![
        Family::one(Counter, "superseded_total", "Outcomes that did not count.", c.superseded),
        Family::by("why", Counter, "dropped_total", by_why, dropped),
        Family::one(Counter, "repeated_total", "Records received again and skipped.", c.repeated),
        Family::by("kind", Counter, "foreign_total", of_others, foreign),
        Family::one(Counter, "outbox_gaps_total", "Times an outbox skipped sequences.", c.gaps),
        Family::one(
            Counter,
            "v1_malformed_total",
            "Texts of v1 workers that were no messages.",
            c.v1_malformed,
        ),
        Family::one(
            Counter,
            "blobs_missing_total",
            "Checkpoints that came before their blob.",
            c.blobs_missing,
        ),
    ]
}

fn links(sample: &Sample) -> Vec<Family> {
    let c = &sample.counters;
    let workers = [
        ("connected", sample.connected as u64),
        ("suspect", sample.suspect as u64),
        ("away", sample.away as u64),
    ];
    let waiting = sample.postponed as u64;
    vec![
        Family::by("state", Gauge, "workers", "Workers by state.", workers),
        Family::one(
            Counter,
            "workers_forgotten_for_room_total",
            "Workers forgotten to make room for others.",
            c.made_room,
        ),
        Family::one(Counter, "quarantines_total", "Workers quarantined.", c.quarantines),
        Family::one(Counter, "welcomed_total", "Worker connections accepted.", c.welcomed),
        Family::one(Counter, "silent_total", "Links closed for silence.", c.silent),
        Family::one(Counter, "postponed_total", "Workers postponed until their turn.", c.postponed),
        Family::one(Gauge, "postponed", "Workers that wait for their turn.", waiting),
    ]
}

fn blobs(usage: Usage, collected: Totals) -> Vec<Family> {
    let runs = [("done", collected.runs), ("failed", collected.failed)];
    let removed = [
        ("manifests", collected.manifests),
        ("chunks", collected.chunks),
        ("bytes", collected.bytes),
    ];
    let budget = usage.budget.map(|budget| {
        Family::one(Gauge, "blob_budget_bytes", "Bytes that blobs may take.", budget)
    });
    let refused = ("blob_refused_total", "Uploads refused for want of room.");
    let collections = ("blob_collections_total", "Collections of unreferenced blobs.");
    let all = [
        Family::one(Gauge, "blob_bytes", "Bytes of blobs on disk.", usage.disk_bytes),
        Family::one(Gauge, "blob_chunks", "Chunks of blobs.", usage.chunk_count),
        Family::one(Gauge, "blob_manifests", "Blobs.", usage.manifest_count),
        Family::one(Gauge, "blob_damaged", "Damaged chunks.", usage.damaged),
        Family::one(Counter, refused.0, refused.1, usage.refused),
        Family::by("result", Counter, collections.0, collections.1, runs),
        Family::by("what", Counter, "blob_collected_total", "What collections removed.", removed),
    ];
    budget.into_iter().chain(all).collect()
}
