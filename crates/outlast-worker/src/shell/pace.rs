//! Commit batching: how soon a batch is to be durable.

use outlast_core::records::{Batch, WorkerRecord};
use outlast_core::worker::Worker;
use outlast_driver::group::Pace;
use outlast_model::OutcomeKind;

/// The commit delay of a batch that was decided now. While work waits for slots nobody waits for a result in order
/// to assign more.
pub(super) fn of(batch: &Batch<WorkerRecord>, core: &Worker) -> Pace {
    match core.backlog() {
        None => Pace::AT_ONCE,
        Some(true) if batch.records.iter().all(nobody_waits_for) => Pace::BUSY,
        Some(_) => Pace::QUICK,
    }
}

/// Returns whether nobody waits for this record. Tasks wait for their reports to be durable, some starts for
/// their record, and people for failures.
fn nobody_waits_for(record: &WorkerRecord) -> bool {
    match record {
        WorkerRecord::Accepted { .. } | WorkerRecord::Acked { .. } => true,
        WorkerRecord::Finished { outcome, .. } => outcome.kind == OutcomeKind::Succeeded,
        _ => false,
    }
}
