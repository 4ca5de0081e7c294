//! Messages to v1 workers that stand for messages of ours.

use crate::AttemptId;
use outlast_model::message::{self, ControlKind, StopReason};
use outlast_model::spec::Run as What;
use outlast_model::{Checkpoint, TaskSpec};
use outlast_wire::v1::{MAX_CHECKPOINT, Restore, ToWorker};
use serde_json::{Value, json};

/// The messages of the v1 dialect that stand for a message of ours.
pub(in crate::coord) fn translate(message: message::ToWorker) -> Vec<ToWorker> {
    use message::ToWorker as Ours;
    let each = |attempts: Vec<AttemptId>, make: fn(String) -> ToWorker| {
        attempts.into_iter().map(|a| make(a.task.to_string())).collect()
    };
    match message {
        // A v1 worker has no queue to return from.
        Ours::Stop(_, StopReason::Return) => Vec::new(),
        Ours::Stop(attempts, _) => each(attempts, |task_id| ToWorker::CancelTask { task_id }),
        Ours::Control(attempts, kind) => match kind {
            ControlKind::Pause => each(attempts, |task_id| ToWorker::PauseTask { task_id }),
            ControlKind::Resume => each(attempts, |task_id| ToWorker::ResumeTask { task_id }),
            ControlKind::Checkpoint => each(attempts, |task_id| ToWorker::CheckpointRequest {
                task_id,
                checkpoint_id: None,
            }),
        },
        Ours::Refused(refused) => {
            vec![ToWorker::Error { message: refused.reason, task_id: None }]
        }
        Ours::BlobMissing(_) => {
            let message = "the checkpoint's data was not kept; send it again".into();
            vec![ToWorker::Error { message, task_id: None }]
        }
        _ => Vec::new(),
    }
}

/// Returns a task for a v1 worker: the function, and its arguments. For workers that run commands, a
/// command is sent as it was submitted.
pub(super) fn config_of(spec: &TaskSpec) -> (String, Value) {
    match &spec.run {
        What::Call(call) => {
            let config = match &call.args {
                Value::Object(_) => call.args.clone(),
                Value::Null => json!({}),
                other => json!({ "args": other }),
            };
            (call.function.clone(), config)
        }
        _ => (String::new(), serde_json::from_slice(&spec.to_json()).unwrap_or_default()),
    }
}

/// A checkpoint that a v1 worker can go on from: JSON, and not too large.
pub(super) fn restore(checkpoint: &Checkpoint) -> Option<Restore> {
    let meta: Value = serde_json::from_slice(&checkpoint.meta_json).ok()?;
    if meta["user"]["codec"] != "json" || checkpoint.size > MAX_CHECKPOINT as u64 {
        return None;
    }
    let name = meta["user"]["checkpoint_id"].as_str().map(ToOwned::to_owned);
    let checkpoint_id = name.unwrap_or_else(|| checkpoint.id());
    Some(Restore { checkpoint_id, manifest: checkpoint.manifest.clone() })
}
