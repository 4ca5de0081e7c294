//! Reports of tasks, and requests to running tasks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Operator request to a worker. Only the reset of statistics concerns workers of protocol 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkerAction {
    /// Send results and states again.
    SyncState,
    /// Send the results of these tasks again.
    ResendTaskResults {
        /// Ids of the tasks.
        task_ids: Vec<String>,
    },
    /// Stop these tasks.
    CancelTasks {
        /// Ids of the tasks.
        task_ids: Vec<String>,
    },
    /// Reset the statistics of the link.
    ResetConnectionStats,
}

documents! {
    /// A checkpoint of a task, also one that is not kept any more.
    pub struct Checkpoint {
        /// Attempt and number, such as `2-14`.
        pub id: String,
        /// The attempt that made it.
        pub attempt: u64,
        /// Number within the attempt.
        pub number: u64,
        /// Name of a file that belongs to the task's result; none for a checkpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub artifact: Option<String>,
        /// True if its data is available.
        pub kept: bool,
        /// True if it was never uploaded: newer ones replaced it, or its worker had no room.
        #[serde(default)]
        pub dropped: bool,
        /// Size in bytes.
        pub size: u64,
        /// Hash of the manifest of its data, in hexadecimal.
        #[serde(default)]
        pub manifest: String,
        /// Creation time, by the worker's clock.
        pub created_at: String,
        /// Time of the coordinator's record.
        pub recorded_at: String,
        /// Time of the removal.
        #[serde(default)]
        pub gone_at: Option<String>,
        /// Name of the worker that made it.
        #[serde(default)]
        pub worker: Option<String>,
        /// Metadata from the task.
        #[serde(default)]
        pub meta: Value,
    }

    /// The checkpoints of a task.
    pub struct CheckpointList {
        /// Checkpoints in the order of attempt and number.
        pub checkpoints: Vec<Checkpoint>,
    }

    /// The files that a task kept for its result.
    pub struct ArtifactList {
        /// Artifacts in the order of attempt and number; of the same name the last is the newest.
        pub artifacts: Vec<Checkpoint>,
    }

    /// Last reported state of a task.
    pub struct TaskStateView {
        /// The task.
        pub id: String,
        /// Attempt that reported it; 0: none.
        pub attempt: u64,
        /// Grows with each update of that attempt.
        pub version: u64,
        /// Progress from 0 to 1.
        #[serde(default)]
        pub progress: Option<f64>,
        /// Reported state, an object.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub state: Value,
        /// Time of the report, by the worker's clock.
        #[serde(default)]
        pub at: Option<String>,
    }

    /// A task's story in sentences.
    pub struct Explanation {
        /// The task.
        pub id: String,
        /// History in sentences, in order.
        pub sentences: Vec<String>,
        /// Present state in words.
        pub now: String,
        /// Possible action, if there is one.
        #[serde(default)]
        pub hint: Option<String>,
    }

    /// Target of a move.
    pub struct MoveTo {
        /// Name of the worker; without it any but the one that has it.
        #[serde(default)]
        pub to: Option<String>,
    }

    /// Disk use of blobs at a worker.
    pub struct Disk {
        /// Bytes.
        pub used: u64,
        /// Bytes allowed; 0: no limit.
        pub budget: u64,
        /// Checkpoints refused for want of room since the worker's start.
        pub refused: u64,
    }
}
