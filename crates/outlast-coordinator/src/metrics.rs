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
        let (in_memory, waiting) = core.task_counts();
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
    all.extend(Family::each(
        Gauge,
        [("store_writable", "1 while commits succeed.", u64::from(writable))],
    ));
    all.extend(records(&sample.counters));
    all.extend(links(sample));
    all.extend(blobs(usage, collected));
    let c = &sample.counters;
    let causes = [
        ("code", ("refused_total", "Links refused, by code."), &c.links.refused),
        ("cause", ("links_ended_total", "Links of workers that ended, by cause."), &c.links.ended),
        ("cause", ("attempts_ended_total", "Attempts that ended, by cause."), &c.attempts.causes),
        ("strategy", ("recoveries_total", "What was done after failures."), &c.recoveries),
    ];
    all.extend(causes.map(|(key, name, values)| {
        let word = |word: &&'static str| if word.is_empty() { "unknown" } else { *word };
        Family::by(key, Counter, name, values.iter().map(|(w, n)| (word(w), *n)))
    }));
    all
}

fn tasks(sample: &Sample, counts: Counts) -> Vec<Family> {
    let c = &sample.counters;
    let [succeeded, failed, cancelled] = c.tasks.ended;
    let ended = [("succeeded", succeeded), ("failed", failed), ("cancelled", cancelled)];
    let by_state = [
        ("pending", counts.pending),
        ("assigned", counts.assigned),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    let now = [
        ("tasks_in_memory", "Unfinished tasks held in memory.", sample.in_memory as u64),
        ("tasks_waiting", "Tasks that wait for a worker.", sample.waiting as u64),
    ];
    let so_far = [
        ("submitted_total", "Tasks accepted.", c.tasks.submitted),
        ("assigned_total", "Attempts given out.", c.attempts.assigned),
        ("requeued_total", "Attempts abandoned and tried again.", c.attempts.requeued),
        ("expired_total", "Attempts abandoned after their window.", c.attempts.expired),
        ("removed_total", "Tasks removed long after their end.", c.tasks.removed),
        (
            "honoured_total",
            "Late successes accepted of tasks that had failed for loss.",
            c.tasks.honoured,
        ),
        ("checkpoints_total", "Checkpoints recorded.", c.outbox.checkpoints),
    ];
    let mut all = vec![
        Family::by("state", Gauge, ("tasks", "Tasks by state."), by_state),
        Family::by("state", Counter, ("ended_total", "Tasks ended."), ended),
    ];
    all.extend(Family::each(Gauge, now));
    all.extend(Family::each(Counter, so_far));
    all
}

/// Returns the counts of records that the coordinator did not keep.
fn records(c: &Counters) -> Vec<Family> {
    let why = ("dropped_total", "Records of workers that were not kept, by why.");
    let dropped = [("surplus", c.outbox.surplus), ("unusable", c.outbox.unusable)];
    let kind = (
        "foreign_total",
        "Records dropped: their attempts were never given to the worker that sent them.",
    );
    let foreign = c.outbox.foreign.iter().map(|(what, n)| (*what, *n));
    let mut all =
        vec![Family::by("why", Counter, why, dropped), Family::by("kind", Counter, kind, foreign)];
    let counts = [
        ("superseded_total", "Outcomes that did not count.", c.attempts.superseded),
        ("repeated_total", "Records received again and skipped.", c.outbox.repeated),
        ("outbox_gaps_total", "Times an outbox skipped sequences.", c.outbox.gaps),
        ("v1_malformed_total", "Texts of v1 workers that were no messages.", c.v1_malformed),
        ("blobs_missing_total", "Checkpoints that came before their blob.", c.outbox.blobs_missing),
    ];
    all.extend(Family::each(Counter, counts));
    all
}

fn links(sample: &Sample) -> Vec<Family> {
    let c = &sample.counters;
    let workers = [
        ("connected", sample.connected as u64),
        ("suspect", sample.suspect as u64),
        ("away", sample.away as u64),
    ];
    let counts = [
        (
            "workers_forgotten_for_room_total",
            "Workers forgotten to make room for others.",
            c.made_room,
        ),
        ("quarantines_total", "Workers quarantined.", c.quarantines),
        ("welcomed_total", "Worker connections accepted.", c.links.welcomed),
        ("silent_total", "Links closed for silence.", c.links.silent),
        ("postponed_total", "Workers postponed until their turn.", c.links.postponed),
    ];
    let now = [("postponed", "Workers that wait for their turn.", sample.postponed as u64)];
    let mut all = vec![Family::by("state", Gauge, ("workers", "Workers by state."), workers)];
    all.extend(Family::each(Counter, counts));
    all.extend(Family::each(Gauge, now));
    all
}

fn blobs(usage: Usage, collected: Totals) -> Vec<Family> {
    let budget = usage.budget.map(|n| ("blob_budget_bytes", "Bytes that blobs may take.", n));
    let now = [
        ("blob_bytes", "Bytes of blobs on disk.", usage.disk_bytes),
        ("blob_chunks", "Chunks of blobs.", usage.chunk_count),
        ("blob_manifests", "Blobs.", usage.manifest_count),
        ("blob_damaged", "Damaged chunks.", usage.damaged),
    ];
    let refused = [("blob_refused_total", "Uploads refused for want of room.", usage.refused)];
    let collections = ("blob_collections_total", "Collections of unreferenced blobs.");
    let runs = [("done", collected.runs), ("failed", collected.failed)];
    let removed = [
        ("manifests", collected.manifests),
        ("chunks", collected.chunks),
        ("bytes", collected.bytes),
    ];
    let removals = ("blob_collected_total", "What collections removed.");
    let mut all = vec![
        Family::by("result", Counter, collections, runs),
        Family::by("what", Counter, removals, removed),
    ];
    all.extend(budget.into_iter().flat_map(|budget| Family::each(Gauge, [budget])));
    all.extend(Family::each(Gauge, now));
    all.extend(Family::each(Counter, refused));
    all
}
