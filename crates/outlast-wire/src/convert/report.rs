//! Outcomes, checkpoints, states, faults and heartbeats.

use super::{each, name, twins};
use crate::v2;
use outlast_model::message::Heartbeat;
use outlast_model::{Checkpoint, StateUpdate, TaskId, TaskOutcome, Unfit, Unfitness};

impl From<TaskOutcome> for v2::TaskOutcome {
    fn from(o: TaskOutcome) -> v2::TaskOutcome {
        let (checkpoint_epoch, checkpoint_number) = o.checkpoint.unwrap_or_default();
        v2::TaskOutcome {
            task_id: o.task.to_string(),
            epoch: o.epoch,
            kind: o.kind.into(),
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
            cause: o.cause.into(),
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
            kind: o.kind.into(),
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
            cause: o.cause.into(),
            checkpoint: (o.checkpoint_number > 0).then_some(checkpoint),
            beside: o.beside,
        }
    }
}

twins! { Checkpoint = Checkpoint {
    same: [epoch, number, manifest, size, created_at_ms, meta_json, dropped, artifact],
    task => task_id: name, TaskId::from;
} }

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

twins! { Unfitness = Unfitness {
    same: [reason],
    source => source: i32::from, Unfit::from;
} }

twins! { Heartbeat = Heartbeat {
    same: [
        seq, running, queued, unacked, rtt_ms, draining, disk_used, disk_budget, refused, restored, interval_ms,
    ],
    unfit => unfit: each, each;
} }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kept;
    use outlast_model::{Cause, OutcomeKind};

    /// Numbers and fields of both sides are the same, so that nothing is lost in a store or on a link.
    #[test]
    fn the_numbers_of_terms_are_those_of_the_protocol() {
        for n in 0..200 {
            let known = v2::Cause::try_from(n).unwrap_or_default();
            assert_eq!(Cause::of(n.into()).number(), known as i32);
            let known = v2::LinkCause::try_from(n).unwrap_or_default();
            assert_eq!(outlast_model::LinkCause::of(n.into()).number(), known as i32);
            let known = v2::OutcomeKind::try_from(n).unwrap_or_default();
            assert_eq!(OutcomeKind::of(n.into()).number(), known as i32);
            let known = v2::Unfit::try_from(n).unwrap_or_default();
            assert_eq!(Unfit::of(n.into()).number(), known as i32);
            let known = v2::Lane::try_from(n).unwrap_or_default();
            assert_eq!(outlast_model::Lane::of(n.into()).number(), known as i32);
            use outlast_model::message as m;
            let known = v2::StopReason::try_from(n).unwrap_or_default();
            assert_eq!(m::StopReason::of(n.into()).number(), known as i32);
            let known = v2::ControlKind::try_from(n).unwrap_or_default();
            assert_eq!(m::ControlKind::of(n.into()).number(), known as i32);
            let known = v2::HoldingState::try_from(n).unwrap_or_default();
            assert_eq!(m::HoldingState::of(n.into()).number(), known as i32);
            let known = v2::HappenedKind::try_from(n).unwrap_or_default();
            assert_eq!(m::HappenedKind::of(n.into()).number(), known as i32);
            let known = v2::RefusedCode::try_from(n).unwrap_or_default();
            let code = m::RefusedCode::of(n.into());
            assert_eq!((code.number(), code.word()), (known as i32, known.as_str_name()));
        }
    }

    #[test]
    fn reports_survive_their_bytes() {
        let outcome = TaskOutcome {
            task: "t".into(),
            epoch: 2,
            kind: OutcomeKind::Failed,
            exit_code: Some(0),
            signal: Some(9),
            cause: Cause::Machine,
            checkpoint: Some((1, 2)),
            beside: 3,
            stdout_tail: "out".into(),
            ..TaskOutcome::default()
        };
        assert_eq!(TaskOutcome::from_bytes(&outcome.to_bytes()).unwrap(), outcome);
        let none = TaskOutcome { exit_code: None, signal: None, checkpoint: None, ..outcome };
        assert_eq!(TaskOutcome::from_bytes(&none.to_bytes()).unwrap(), none);
        for progress in [None, Some(0.0), Some(0.5)] {
            let state = StateUpdate { progress, version: 4, ..StateUpdate::default() };
            assert_eq!(StateUpdate::from_bytes(&state.to_bytes()).unwrap(), state);
        }
    }
}
