//! Messages of the coordinator.

use super::{Unexpected, all, attempt, attempt_id, cursor, cursor_of};
use crate::frame::BULK_TARGET;
use crate::v2::{self, body::Kind};
use outlast_model::TaskSpec;
use outlast_model::message::{
    Assignment, ControlKind, Refused, RefusedCode, StopReason, ToWorker, Welcome,
};
use std::sync::Arc;

/// Returns the frames of a message. An assignment of many tasks is split, so that each frame stays
/// near [`BULK_TARGET`].
pub fn frames(message: ToWorker) -> Vec<Kind> {
    let assignments = match message {
        ToWorker::Assign(assignments) => assignments,
        other => return vec![other.into()],
    };
    let mut frames = Vec::with_capacity(1);
    let (mut tasks, mut size) = (Vec::new(), 0);
    for assignment in assignments {
        let task = v2::Assignment::from(assignment);
        size += task.spec_json.len() + task.task_id.len() + 16;
        tasks.push(task);
        if size >= BULK_TARGET {
            size = 0;
            frames.push(Kind::Assign(v2::Assign { tasks: std::mem::take(&mut tasks) }));
        }
    }
    if !tasks.is_empty() {
        frames.push(Kind::Assign(v2::Assign { tasks }));
    }
    frames
}

impl From<ToWorker> for Kind {
    fn from(message: ToWorker) -> Kind {
        match message {
            ToWorker::Welcome(welcome) => Kind::Welcome(welcome.into()),
            ToWorker::Refused(refused) => Kind::Refused(v2::Refused {
                code: refused.code.number(),
                reason: refused.reason,
                retry: refused.retry,
                retry_after_ms: refused.retry_after_ms,
            }),
            ToWorker::Assign(tasks) => Kind::Assign(v2::Assign { tasks: all(tasks, Into::into) }),
            ToWorker::Stop(attempts, reason) => {
                Kind::Stop(v2::Stop { attempts: all(attempts, attempt), reason: reason.number() })
            }
            ToWorker::Ack(cursors) => Kind::Ack(v2::Ack { cursors: all(cursors, cursor) }),
            ToWorker::Control(attempts, kind) => {
                Kind::Control(v2::Control { attempts: all(attempts, attempt), kind: kind.number() })
            }
            ToWorker::BlobMissing(manifest) => Kind::BlobMissing(v2::BlobMissing { manifest }),
            ToWorker::ResetStats => Kind::ResetStats(v2::ResetStats {}),
            ToWorker::Saved(attempts) => {
                Kind::Saved(v2::Saved { attempts: all(attempts, attempt) })
            }
            ToWorker::Settled => Kind::Settled(v2::Settled {}),
            ToWorker::Heartbeat(beat) => Kind::Heartbeat(beat.into()),
            ToWorker::HeartbeatReply(seq) => Kind::HeartbeatReply(v2::HeartbeatReply { seq }),
        }
    }
}

impl TryFrom<Kind> for ToWorker {
    type Error = Unexpected;

    fn try_from(kind: Kind) -> Result<ToWorker, Unexpected> {
        Ok(match kind {
            Kind::Welcome(welcome) => ToWorker::Welcome(welcome.into()),
            Kind::Refused(refused) => ToWorker::Refused(Refused {
                code: RefusedCode::of(refused.code.into()),
                reason: refused.reason,
                retry: refused.retry,
                retry_after_ms: refused.retry_after_ms,
            }),
            Kind::Assign(assign) => ToWorker::Assign(all(assign.tasks, Into::into)),
            Kind::Stop(stop) => {
                let reason = StopReason::of(stop.reason.into());
                ToWorker::Stop(all(stop.attempts, attempt_id), reason)
            }
            Kind::Ack(ack) => ToWorker::Ack(all(ack.cursors, cursor_of)),
            Kind::Control(control) => {
                let kind = ControlKind::of(control.kind.into());
                ToWorker::Control(all(control.attempts, attempt_id), kind)
            }
            Kind::BlobMissing(missing) => ToWorker::BlobMissing(missing.manifest),
            Kind::ResetStats(_) => ToWorker::ResetStats,
            Kind::Saved(saved) => ToWorker::Saved(all(saved.attempts, attempt_id)),
            Kind::Settled(_) => ToWorker::Settled,
            Kind::Heartbeat(beat) => ToWorker::Heartbeat(beat.into()),
            Kind::HeartbeatReply(reply) => ToWorker::HeartbeatReply(reply.seq),
            _ => return Err(Unexpected),
        })
    }
}

impl From<Welcome> for v2::Welcome {
    fn from(w: Welcome) -> v2::Welcome {
        v2::Welcome {
            protocol: w.protocol,
            coordinator_id: w.coordinator_id,
            version: w.version,
            cursors: all(w.cursors, cursor),
            credit: w.credit,
            max_message_bytes: w.max_message_bytes,
            heartbeat_interval_ms: w.heartbeat_interval_ms,
            now_ms: w.now_ms,
            takes_unsaved: w.takes_unsaved,
            session: w.session,
        }
    }
}

impl From<v2::Welcome> for Welcome {
    fn from(w: v2::Welcome) -> Welcome {
        Welcome {
            protocol: w.protocol,
            coordinator_id: w.coordinator_id,
            version: w.version,
            cursors: all(w.cursors, cursor_of),
            credit: w.credit,
            max_message_bytes: w.max_message_bytes,
            heartbeat_interval_ms: w.heartbeat_interval_ms,
            now_ms: w.now_ms,
            takes_unsaved: w.takes_unsaved,
            session: w.session,
        }
    }
}

impl From<Assignment> for v2::Assignment {
    fn from(a: Assignment) -> v2::Assignment {
        v2::Assignment {
            task_id: a.task.to_string(),
            epoch: a.epoch,
            spec_json: a.spec.map(|spec| spec.to_json().into()).unwrap_or_default(),
            checkpoint: a.checkpoint.map(|c| Arc::unwrap_or_clone(c).into()),
            paused: a.paused,
            after: a.after,
        }
    }
}

impl From<v2::Assignment> for Assignment {
    fn from(a: v2::Assignment) -> Assignment {
        Assignment {
            task: a.task_id.into(),
            epoch: a.epoch,
            spec: TaskSpec::from_json(&a.spec_json).map(Arc::new),
            checkpoint: a.checkpoint.map(|c| Arc::new(c.into())),
            paused: a.paused,
            after: a.after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::Run;

    #[test]
    fn an_assignment_of_many_tasks_is_split_and_none_is_lost() {
        let spec = Arc::new(TaskSpec::new(Run::Shell("x".repeat(30_000))));
        let name = |n: usize| format!("t{n}").into();
        let tasks = (0..10).map(|n| Assignment::new(name(n), 1, spec.clone())).collect();
        let frames = frames(ToWorker::Assign(tasks));
        assert!(frames.len() >= 3, "{}", frames.len());
        let sizes = frames.iter().map(|kind| v2::Body::from(kind.clone()));
        assert!(sizes.map(|body| prost::Message::encoded_len(&body)).all(|n| n < 2 * BULK_TARGET));
        let given: Vec<Assignment> = frames
            .into_iter()
            .flat_map(|kind| match ToWorker::try_from(kind) {
                Ok(ToWorker::Assign(tasks)) => tasks,
                other => panic!("{other:?}"),
            })
            .collect();
        let names: Vec<&str> = given.iter().map(|a| &*a.task).collect();
        assert_eq!(names, (0..10).map(|n| format!("t{n}")).collect::<Vec<_>>());
        assert!(given.iter().all(|a| a.spec == Ok(spec.clone())));
    }

    #[test]
    fn every_message_survives_the_conversion() {
        let id = outlast_model::AttemptId { task: "t".into(), epoch: 3 };
        let cursor = outlast_model::message::Cursor { lane: outlast_model::Lane::State, seq: 9 };
        let unfit =
            outlast_model::Unfitness { source: outlast_model::Unfit::Disk, reason: "full".into() };
        let all = [
            ToWorker::Welcome(Welcome { credit: 4, cursors: vec![cursor], ..Welcome::default() }),
            ToWorker::Refused(Refused {
                code: RefusedCode::Copy,
                retry: true,
                ..Refused::default()
            }),
            ToWorker::Stop(vec![id.clone()], StopReason::Move),
            ToWorker::Ack(vec![cursor]),
            ToWorker::Control(vec![id.clone()], ControlKind::Checkpoint),
            ToWorker::BlobMissing(vec![1; 32].into()),
            ToWorker::ResetStats,
            ToWorker::Saved(vec![id]),
            ToWorker::Settled,
            ToWorker::Heartbeat(outlast_model::message::Heartbeat {
                seq: 7,
                unfit: vec![unfit],
                ..Default::default()
            }),
            ToWorker::HeartbeatReply(8),
        ];
        for message in all {
            let kind = Kind::from(message.clone());
            assert!(
                outlast_model::message::ToCoordinator::try_from(kind.clone()).is_err()
                    || matches!(kind, Kind::Heartbeat(_) | Kind::HeartbeatReply(_))
            );
            let frame = crate::encode(kind);
            assert_eq!(ToWorker::try_from(crate::decode(frame).unwrap()).unwrap(), message);
        }
    }
}
