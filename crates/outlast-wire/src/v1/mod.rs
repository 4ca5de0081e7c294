//! The v1 JSON dialect: text messages of the replaced system's workers, read leniently and written
//! exactly. What they mean is `outlast-core`'s business.

mod parse;

pub use parse::{Malformed, is_placeholder, parse, worker_of};

use bytes::Bytes;
pub use outlast_model::message::Action;
use serde_json::{Map, Value, json};

/// The largest text message that is read, in bytes; a longer one ends the link.
pub const MAX_TEXT: usize = 24 << 20;
/// The largest `data` of a checkpoint, in bytes of JSON.
pub const MAX_CHECKPOINT: usize = 16 << 20;
/// The largest `result`, in bytes of JSON.
pub const MAX_RESULT: usize = 1 << 20;
/// The largest `state` in one message, in bytes of JSON.
pub const MAX_STATE: usize = 256 << 10;
/// The longest text that is kept of a `message` or `traceback`, in bytes.
pub const MAX_WORDS: usize = 64 << 10;
/// The longest `checkpoint_id`, in bytes.
pub const MAX_CHECKPOINT_ID: usize = 128;
/// In an address in place of a worker's id: the worker says that in its first message.
pub const UNNAMED: &str = "{worker_id}";
/// The most names in `active_tasks`.
pub const MAX_ACTIVE: usize = 10_000;

/// Message from a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// Capabilities. Nested objects were flattened: `{"gpu": {"name": "x"}}` yields `gpu` and `gpu.name`.
    Registration {
        /// A flat object.
        capabilities: Map<String, Value>,
    },
    /// Sign of life.
    Heartbeat {
        /// Sequence number, returned unchanged.
        sequence: Value,
        /// The ids of the tasks that it has; none if it does not say.
        active_tasks: Option<Vec<String>>,
    },
    /// End of a task.
    TaskResult {
        /// Id of the task.
        task_id: String,
        /// The attempt, from workers that give it back.
        attempt: Option<u64>,
        /// JSON text.
        result: Bytes,
        /// Set if it failed.
        error: Option<TaskError>,
    },
    /// News of a task.
    TaskState {
        /// Id of the task.
        task_id: String,
        /// To be merged into what is known.
        state: Map<String, Value>,
    },
    /// A checkpoint exists at the worker.
    Checkpoint {
        /// Id of the task.
        task_id: String,
        /// The worker's name for it.
        checkpoint_id: String,
    },
    /// A checkpoint itself.
    CheckpointData {
        /// Id of the task.
        task_id: String,
        /// The worker's name for it.
        checkpoint_id: String,
        /// JSON text.
        data: Bytes,
    },
    /// There is no such checkpoint.
    CheckpointError {
        /// Id of the task.
        task_id: String,
        /// Error text.
        error: String,
    },
    /// There is no such state.
    StateError {
        /// Id of the task.
        task_id: String,
        /// Error text.
        error: String,
    },
    /// Confirmation of a request to a task.
    Done {
        /// Id of the task.
        task_id: String,
        /// The confirmed request.
        what: Deed,
    },
}

/// Request that a worker carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `task_cancelled`
    Cancelled,
    /// `task_paused`
    Paused,
    /// `task_resumed`
    Resumed,
}

/// Failure of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// One line.
    pub message: String,
    /// Traceback; may be empty.
    pub traceback: String,
}

/// Message from the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// The first message.
    Welcome {
        /// The worker's id.
        worker_id: String,
    },
    /// Confirmation that the registration is durable.
    RegistrationAck {
        /// The worker's id.
        worker_id: String,
    },
    /// An answer to a heartbeat.
    Heartbeat {
        /// The heartbeat's `sequence`.
        response_to: Value,
        /// Requests to the worker.
        actions: Vec<Action>,
    },
    /// `task_result_ack`
    ResultAck {
        /// Id of the task.
        task_id: String,
    },
    /// `task_state_ack`
    StateAck {
        /// Id of the task.
        task_id: String,
    },
    /// Confirmation of a checkpoint's announcement; its data will be requested.
    CheckpointAck {
        /// Id of the task.
        task_id: String,
        /// Id of the checkpoint.
        checkpoint_id: String,
    },
    /// Confirmation that the checkpoint is stored.
    CheckpointDataAck {
        /// Id of the task.
        task_id: String,
        /// Id of the checkpoint.
        checkpoint_id: String,
    },
    /// `task_cancelled_ack` and the like.
    DoneAck {
        /// Id of the task.
        task_id: String,
        /// The confirmed request.
        what: Deed,
    },
    /// A task to run.
    TaskAssignment {
        /// Id of the task.
        task_id: String,
        /// Arguments of the call.
        config: Value,
        /// The attempt; a worker that gives it back with the result leaves nothing to be guessed.
        attempt: u64,
        /// The function that the task names; empty for a command.
        function: String,
        /// Checkpoint to resume from.
        checkpoint: Option<Restore>,
    },
    /// Wants a checkpoint's data.
    CheckpointRequest {
        /// Id of the task.
        task_id: String,
        /// Id of the checkpoint; none: the newest.
        checkpoint_id: Option<String>,
    },
    /// Wants states.
    StateRequest {
        /// Id of the task; none: all tasks.
        task_id: Option<String>,
    },
    /// Wants a task stopped.
    CancelTask {
        /// Id of the task.
        task_id: String,
    },
    /// Wants a task paused.
    PauseTask {
        /// Id of the task.
        task_id: String,
    },
    /// Wants a task to go on.
    ResumeTask {
        /// Id of the task.
        task_id: String,
    },
    /// Refusal of a message.
    Error {
        /// Reason, and what to do.
        message: String,
        /// Id of the task concerned, if there is one.
        task_id: Option<String>,
    },
}

/// A checkpoint that goes with an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The name that its worker gave it.
    pub checkpoint_id: String,
    /// The blob of its data, which is JSON text.
    pub manifest: Bytes,
}

fn action(action: &Action) -> Value {
    match action {
        Action::SyncState => json!({ "type": "sync_state" }),
        Action::ResendTaskResults(ids) => {
            json!({ "type": "resend_task_results", "task_ids": ids })
        }
        Action::CancelTasks(ids) => json!({ "type": "cancel_tasks", "task_ids": ids }),
        Action::ResetConnectionStats => json!({ "type": "reset_connection_stats" }),
    }
}

impl ToWorker {
    /// The type of an acknowledgement, which a worker may do without.
    pub fn ack(&self) -> Option<&'static str> {
        match self {
            Self::RegistrationAck { .. } => Some("registration_ack"),
            Self::ResultAck { .. } => Some("task_result_ack"),
            Self::StateAck { .. } => Some("task_state_ack"),
            Self::CheckpointAck { .. } => Some("checkpoint_ack"),
            Self::CheckpointDataAck { .. } => Some("checkpoint_data_ack"),
            Self::DoneAck { what, .. } => Some(match what {
                Deed::Cancelled => "task_cancelled_ack",
                Deed::Paused => "task_paused_ack",
                Deed::Resumed => "task_resumed_ack",
            }),
            _ => None,
        }
    }

    /// The text to send; `timestamp` is ISO 8601, `data` the checkpoint's JSON text where an
    /// assignment has one.
    pub fn encode(&self, timestamp: &str, data: Option<&str>) -> String {
        let mut object = self.object();
        object.insert("timestamp".into(), timestamp.into());
        let mut text = Value::Object(object).to_string();
        if let (ToWorker::TaskAssignment { checkpoint: Some(from), .. }, Some(data)) = (self, data)
        {
            let id = Value::from(from.checkpoint_id.as_str());
            text.pop();
            text += &format!(r#","checkpoint":{{"checkpoint_id":{id},"data":{data}}}}}"#);
        }
        text
    }

    fn object(&self) -> Map<String, Value> {
        let of = |value: Value| match value {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        let task = |kind: &str, task_id: &str| of(json!({ "type": kind, "task_id": task_id }));
        match self {
            Self::Welcome { worker_id } => of(json!({ "type": "welcome", "worker_id": worker_id })),
            Self::RegistrationAck { worker_id } => {
                of(json!({ "type": "registration_ack", "worker_id": worker_id }))
            }
            Self::Heartbeat { response_to, actions } => {
                let mut beat = of(json!({ "type": "heartbeat", "response_to": response_to }));
                if !actions.is_empty() {
                    let actions: Vec<Value> = actions.iter().map(action).collect();
                    beat.insert("actions".into(), actions.into());
                }
                beat
            }
            Self::ResultAck { task_id } => task("task_result_ack", task_id),
            Self::StateAck { task_id } => task("task_state_ack", task_id),
            Self::DoneAck { task_id, .. } => task(self.ack().unwrap_or_default(), task_id),
            Self::CheckpointAck { task_id, checkpoint_id } => {
                let kind = "checkpoint_ack";
                of(json!({ "type": kind, "task_id": task_id, "checkpoint_id": checkpoint_id }))
            }
            Self::CheckpointDataAck { task_id, checkpoint_id } => {
                let kind = "checkpoint_data_ack";
                of(json!({ "type": kind, "task_id": task_id, "checkpoint_id": checkpoint_id }))
            }
            Self::TaskAssignment { task_id, config, attempt, function, checkpoint: _ } => {
                let mut given = task("task_assignment", task_id);
                given.insert("config".into(), config.clone());
                given.insert("attempt".into(), (*attempt).into());
                if !function.is_empty() {
                    given.insert("function".into(), function.as_str().into());
                }
                given
            }
            Self::CheckpointRequest { task_id, checkpoint_id } => {
                let mut asked = task("checkpoint_request", task_id);
                if let Some(id) = checkpoint_id {
                    asked.insert("checkpoint_id".into(), id.as_str().into());
                }
                asked
            }
            Self::StateRequest { task_id: Some(task_id) } => task("state_request", task_id),
            Self::StateRequest { task_id: None } => of(json!({ "type": "state_request" })),
            Self::CancelTask { task_id } => task("cancel_task", task_id),
            Self::PauseTask { task_id } => task("pause_task", task_id),
            Self::ResumeTask { task_id } => task("resume_task", task_id),
            Self::Error { message, task_id } => {
                let mut error = of(json!({ "type": "error", "message": message }));
                if let Some(id) = task_id {
                    error.insert("task_id".into(), id.as_str().into());
                }
                error
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_type_and_timestamp() {
        let t = || "t".to_owned();
        let c = || "c".to_owned();
        let all = [
            (
                ToWorker::Welcome { worker_id: "w".into() },
                json!({"type": "welcome", "worker_id": "w"}),
            ),
            (
                ToWorker::Heartbeat {
                    response_to: 7.into(),
                    actions: vec![Action::SyncState, Action::CancelTasks(vec![t()])],
                },
                json!({"type": "heartbeat", "response_to": 7, "actions": [{"type": "sync_state"},
                    {"type": "cancel_tasks", "task_ids": ["t"]}]}),
            ),
            (
                ToWorker::ResultAck { task_id: t() },
                json!({"type": "task_result_ack", "task_id": "t"}),
            ),
            (
                ToWorker::CheckpointDataAck { task_id: t(), checkpoint_id: c() },
                json!({"type": "checkpoint_data_ack", "task_id": "t", "checkpoint_id": "c"}),
            ),
            (
                ToWorker::DoneAck { task_id: t(), what: Deed::Paused },
                json!({"type": "task_paused_ack", "task_id": "t"}),
            ),
            (ToWorker::StateRequest { task_id: None }, json!({"type": "state_request"})),
            (
                ToWorker::Error { message: "no".into(), task_id: None },
                json!({"type": "error", "message": "no"}),
            ),
        ];
        for (message, mut wanted) in all {
            wanted["timestamp"] = "2026-01-01T00:00:00Z".into();
            let text = message.encode("2026-01-01T00:00:00Z", None);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted);
        }
    }

    #[test]
    fn an_assignment_carries_the_checkpoint_as_it_was_written() {
        let checkpoint = Some(Restore { checkpoint_id: "a\"b".into(), manifest: Bytes::new() });
        let config = json!({"model": "m"});
        let given = ToWorker::TaskAssignment {
            task_id: "t".into(),
            config,
            attempt: 2,
            function: "f".into(),
            checkpoint,
        };
        let text = given.encode("now", Some(r#"{"step": 12345678901234567890123}"#));
        assert!(text.contains("12345678901234567890123"));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["checkpoint"]["checkpoint_id"], "a\"b");
        assert_eq!((&value["config"]["model"], &value["attempt"]), (&json!("m"), &json!(2)));
        // What could not be read is left out.
        let value: Value = serde_json::from_str(&given.encode("now", None)).unwrap();
        assert_eq!(value.get("checkpoint"), None);
    }
}
