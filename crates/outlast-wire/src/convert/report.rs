//! Outcomes, checkpoints, states, faults and heartbeats.

use crate::v2;
use outlast_model::message::Heartbeat;
use outlast_model::{Cause, Checkpoint, OutcomeKind, StateUpdate, TaskOutcome, Unfit, Unfitness};

impl From<TaskOutcome> for v2::TaskOutcome {
    fn from(o: TaskOutcome) -> v2::TaskOutcome {
        let (checkpoint_epoch, checkpoint_number) = o.checkpoint.unwrap_or_default();
        v2::TaskOutcome {
            task_id: o.task.to_string(),
            epoch: o.epoch,
            kind: o.kind.number(),
            exit_code: o.exit_code.unwrap_or_default(),
            has_exit_code: o.exit_code.is_some(),
            signal: o.signal.unwrap_or_default(),
            message: o.message,
            started_at_ms: o.started_at_ms,
            finished_at_ms: o.finished_at_ms,
            max_rss_bytes: o.max_rss_bytes,
            cpu_ms: o.cpu_ms,
            stdout_tail: o.stdout_tail,
            stderr_tail: o.stderr_tail,
            stdout_bytes: o.stdout_bytes,
            stderr_bytes: o.stderr_bytes,
            value_json: o.value_json,
            cause: o.cause.number(),
            checkpoint_epoch,
            checkpoint_number,
            beside: o.beside,
        }
    }
}

impl From<v2::TaskOutcome> for TaskOutcome {
    fn from(o: v2::TaskOutcome) -> TaskOutcome {
        let checkpoint = (o.checkpoint_epoch, o.checkpoint_number);
        TaskOutcome {
            task: o.task_id.into(),
            epoch: o.epoch,
            kind: OutcomeKind::of(o.kind.into()),
            exit_code: o.has_exit_code.then_some(o.exit_code),
            signal: (o.signal != 0).then_some(o.signal),
            message: o.message,
            started_at_ms: o.started_at_ms,
            finished_at_ms: o.finished_at_ms,
            max_rss_bytes: o.max_rss_bytes,
            cpu_ms: o.cpu_ms,
            stdout_tail: o.stdout_tail,
            stderr_tail: o.stderr_tail,
            stdout_bytes: o.stdout_bytes,
            stderr_bytes: o.stderr_bytes,
            value_json: o.value_json,
            cause: Cause::of(o.cause.into()),
            checkpoint: (checkpoint != (0, 0)).then_some(checkpoint),
            beside: o.beside,
        }
    }
}

impl From<Checkpoint> for v2::Checkpoint {
    fn from(c: Checkpoint) -> v2::Checkpoint {
        v2::Checkpoint {
            task_id: c.task.to_string(),
            epoch: c.epoch,
            number: c.number,
            manifest: c.manifest,
            size: c.size,
            created_at_ms: c.created_at_ms,
            meta_json: c.meta_json,
            dropped: c.dropped,
            artifact: c.artifact,
        }
    }
}

impl From<v2::Checkpoint> for Checkpoint {
    fn from(c: v2::Checkpoint) -> Checkpoint {
        Checkpoint {
            task: c.task_id.into(),
            epoch: c.epoch,
            number: c.number,
            manifest: c.manifest,
            size: c.size,
            created_at_ms: c.created_at_ms,
            meta_json: c.meta_json,
            dropped: c.dropped,
            artifact: c.artifact,
        }
    }
}

impl From<StateUpdate> for v2::StateUpdate {
    fn from(s: StateUpdate) -> v2::StateUpdate {
        v2::StateUpdate {
            task_id: s.task.to_string(),
            epoch: s.epoch,
            version: s.version,
            state_json: s.state_json,
            progress: s.progress.unwrap_or_default(),
            has_progress: s.progress.is_some(),
            at_ms: s.at_ms,
        }
    }
}

impl From<v2::StateUpdate> for StateUpdate {
    fn from(s: v2::StateUpdate) -> StateUpdate {
        StateUpdate {
            task: s.task_id.into(),
            epoch: s.epoch,
            version: s.version,
            state_json: s.state_json,
            progress: s.has_progress.then_some(s.progress),
            at_ms: s.at_ms,
        }
    }
}

impl From<Unfitness> for v2::Unfitness {
    fn from(u: Unfitness) -> v2::Unfitness {
        v2::Unfitness { source: u.source.number(), reason: u.reason }
    }
}

impl From<v2::Unfitness> for Unfitness {
    fn from(u: v2::Unfitness) -> Unfitness {
        Unfitness { source: Unfit::of(u.source.into()), reason: u.reason }
    }
}

impl From<Heartbeat> for v2::Heartbeat {
    fn from(h: Heartbeat) -> v2::Heartbeat {
        v2::Heartbeat {
            seq: h.seq,
            running: h.running,
            queued: h.queued,
            unacked: h.unacked,
            rtt_ms: h.rtt_ms,
            draining: h.draining,
            disk_used: h.disk_used,
            disk_budget: h.disk_budget,
            refused: h.refused,
            restored: h.restored,
            interval_ms: h.interval_ms,
            unfit: super::all(h.unfit, Into::into),
        }
    }
}

impl From<v2::Heartbeat> for Heartbeat {
    fn from(h: v2::Heartbeat) -> Heartbeat {
        Heartbeat {
            seq: h.seq,
            running: h.running,
            queued: h.queued,
            unacked: h.unacked,
            rtt_ms: h.rtt_ms,
            draining: h.draining,
            disk_used: h.disk_used,
            disk_budget: h.disk_budget,
            refused: h.refused,
            restored: h.restored,
            interval_ms: h.interval_ms,
            unfit: super::all(h.unfit, Into::into),
        }
    }
}
