//! Counts since the start, for metrics. Nothing is decided by them.

use std::collections::BTreeMap;

/// Counts since the start, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks.
    pub tasks: TaskCounts,
    /// Attempts.
    pub attempts: AttemptCounts,
    /// Records of workers' outboxes.
    pub outbox: OutboxCounts,
    /// Links.
    pub links: LinkCounts,
    /// Texts of v1 workers that were no messages.
    pub v1_malformed: u64,
    /// Workers that were forgotten to make room for others.
    pub made_room: u64,
    /// Recovery actions by strategy.
    pub recoveries: BTreeMap<&'static str, u64>,
    /// Times that a worker was quarantined.
    pub quarantines: u64,
}

/// Counts of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Tasks accepted.
    pub submitted: u64,
    /// Tasks that succeeded, failed, and were cancelled.
    pub ended: [u64; 3],
    /// Tasks removed long after their end.
    pub removed: u64,
    /// Successes that came for tasks which had failed for loss, and were honoured.
    pub honoured: u64,
}

/// Counts of attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Attempts given out.
    pub assigned: u64,
    /// Attempts that were abandoned and retried.
    pub requeued: u64,
    /// Attempts that were abandoned because their worker stayed away.
    pub expired: u64,
    /// Outcomes that did not count.
    pub superseded: u64,
    /// Attempts that ended, by cause.
    pub causes: BTreeMap<&'static str, u64>,
}

/// Counts of the records that workers deliver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Outbox records that had been applied before.
    pub repeated: u64,
    /// Times that an outbox skipped sequences.
    pub gaps: u64,
    /// Checkpoints that took effect.
    pub checkpoints: u64,
    /// Times that a checkpoint came before its blob.
    pub blobs_missing: u64,
    /// Outcomes that were kept here since their worker could not write its store.
    pub unsaved: u64,
    /// Outcomes beyond those that are kept of one attempt.
    pub surplus: u64,
    /// Outbox records that nothing can be made of.
    pub unusable: u64,
    /// Records of attempts that were never given to the worker that sent them, or of tasks that
    /// are not known, by kind. They are not kept: anybody could fill the disk with them.
    pub foreign: BTreeMap<&'static str, u64>,
}

/// Counts of links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Hellos accepted.
    pub welcomed: u64,
    /// Links refused, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Links closed for silence.
    pub silent: u64,
    /// Workers that were given a later time of admission.
    pub postponed: u64,
    /// Links that ended, by cause.
    pub ended: BTreeMap<&'static str, u64>,
    /// Times that a process with a copy of a worker's state folder was refused.
    pub copies: u64,
}
