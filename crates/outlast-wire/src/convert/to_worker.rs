//! Messages of the coordinator.

use super::{Unexpected, each, name, twins};
use crate::frame::BULK_TARGET;
use crate::v2::{self, body::Kind};
use outlast_model::message::{Assignment, Refused, RefusedCode, ToWorker, Welcome};
use outlast_model::{Bytes, Checkpoint, SpecError, TaskId, TaskSpec};
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
            ToWorker::Refused(refused) => Kind::Refused(refused.into()),
            ToWorker::Assign(tasks) => Kind::Assign(v2::Assign { tasks: each(tasks) }),
            ToWorker::Stop(attempts, reason) => {
                Kind::Stop(v2::Stop { attempts: each(attempts), reason: reason.into() })
            }
            ToWorker::Ack(cursors) => Kind::Ack(v2::Ack { cursors: each(cursors) }),
            ToWorker::Control(attempts, kind) => {
                Kind::Control(v2::Control { attempts: each(attempts), kind: kind.into() })
            }
            ToWorker::BlobMissing(manifest) => Kind::BlobMissing(v2::BlobMissing { manifest }),
            ToWorker::ResetStats => Kind::ResetStats(v2::ResetStats {}),
            ToWorker::Saved(attempts) => Kind::Saved(v2::Saved { attempts: each(attempts) }),
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
            Kind::Refused(refused) => ToWorker::Refused(refused.into()),
            Kind::Assign(assign) => ToWorker::Assign(each(assign.tasks)),
            Kind::Stop(stop) => ToWorker::Stop(each(stop.attempts), stop.reason.into()),
            Kind::Ack(ack) => ToWorker::Ack(each(ack.cursors)),
            Kind::Control(control) => {
                ToWorker::Control(each(control.attempts), control.kind.into())
            }
            Kind::BlobMissing(missing) => ToWorker::BlobMissing(missing.manifest),
            Kind::ResetStats(_) => ToWorker::ResetStats,
            Kind::Saved(saved) => ToWorker::Saved(each(saved.attempts)),
            Kind::Settled(_) => ToWorker::Settled,
            Kind::Heartbeat(beat) => ToWorker::Heartbeat(beat.into()),
            Kind::HeartbeatReply(reply) => ToWorker::HeartbeatReply(reply.seq),
            _ => return Err(Unexpected),
        })
    }
}

twins! { Welcome = Welcome {
    same: [
        protocol, coordinator_id, version, credit, max_message_bytes, heartbeat_interval_ms, now_ms, takes_unsaved,
        session,
    ],
    cursors => cursors: each, each;
} }

twins! { Refused = Refused {
    same: [reason, retry, retry_after_ms],
    code => code: i32::from, RefusedCode::from;
} }

twins! { Assignment = Assignment {
    same: [epoch, paused, after],
    task => task_id: name, TaskId::from;
    spec => spec_json: json, read;
    checkpoint => checkpoint: owned, shared;
} }

fn json(spec: Result<Arc<TaskSpec>, SpecError>) -> Bytes {
    spec.map(|spec| spec.to_json().into()).unwrap_or_default()
}

fn read(json: Bytes) -> Result<Arc<TaskSpec>, SpecError> {
    TaskSpec::from_json(&json).map(Arc::new)
}

fn owned(checkpoint: Option<Arc<Checkpoint>>) -> Option<v2::Checkpoint> {
    checkpoint.map(|c| Arc::unwrap_or_clone(c).into())
}

fn shared(checkpoint: Option<v2::Checkpoint>) -> Option<Arc<Checkpoint>> {
    checkpoint.map(|c| Arc::new(c.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::Run;
    use outlast_model::message::{ControlKind, StopReason};

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
