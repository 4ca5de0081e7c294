//! What tasks told of themselves, and what is asked of them while they run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a person may ask of a worker beside its tasks. Only the reset of statistics concerns
/// workers of protocol 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkerAction {
    /// Send results and states again.
    SyncState,
    /// Send the results of these tasks again.
    ResendTaskResults {
        /// Their ids.
        task_ids: Vec<String>,
    },
    /// Stop these tasks.
    CancelTasks {
        /// Their ids.
        task_ids: Vec<String>,
    },
    /// Begin the statistics of the link anew.
    ResetConnectionStats,
}

documents! {
    /// A checkpoint of a task, also one that is not kept any more.
    pub struct Checkpoint {
        /// Attempt and number, such as `2-14`.
        pub id: String,
        /// The attempt that made it.
        pub attempt: u64,
        /// Its number within the attempt.
        pub number: u64,
        /// Name of a file that belongs to the task's result; none for a checkpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub artifact: Option<String>,
        /// Whether its data can be had.
        pub kept: bool,
        /// It never came here: newer ones made it needless, or its worker had no room.
        #[serde(default)]
        pub dropped: bool,
        /// In bytes.
        pub size: u64,
        /// Hash of the manifest of its data, in hexadecimal.
        #[serde(default)]
        pub manifest: String,
        /// When it was made, by the worker's clock.
        pub created_at: String,
        /// When it was recorded here.
        pub recorded_at: String,
        /// When it was removed.
        #[serde(default)]
        pub gone_at: Option<String>,
        /// Name of the worker that made it.
        #[serde(default)]
        pub worker: Option<String>,
        /// What the task said of it.
        #[serde(default)]
        pub meta: Value,
    }

    /// The checkpoints of a task.
    pub struct CheckpointList {
        /// By attempt and number.
        pub checkpoints: Vec<Checkpoint>,
    }

    /// The files that a task kept for its result.
    pub struct ArtifactList {
        /// By attempt and number; of one name the last is the newest.
        pub artifacts: Vec<Checkpoint>,
    }

    /// What a task told of itself last.
    pub struct TaskStateView {
        /// The task.
        pub id: String,
        /// The attempt that told it; 0 when none did.
        pub attempt: u64,
        /// Grows with each update of that attempt.
        pub version: u64,
        /// How far it is, from 0 to 1.
        #[serde(default)]
        pub progress: Option<f64>,
        /// What it said, an object.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub state: Value,
        /// When, by the worker's clock.
        #[serde(default)]
        pub at: Option<String>,
    }

    /// A task's story in sentences.
    pub struct Explanation {
        /// The task.
        pub id: String,
        /// What happened, in order.
        pub sentences: Vec<String>,
        /// How it stands.
        pub now: String,
        /// What can be done, when there is something.
        #[serde(default)]
        pub hint: Option<String>,
    }

    /// Where a task is to go.
    pub struct MoveTo {
        /// Name of the worker; without it any but the one that has it.
        #[serde(default)]
        pub to: Option<String>,
    }

    /// What blobs take at a worker.
    pub struct Disk {
        /// Bytes.
        pub used: u64,
        /// Bytes allowed; 0: no limit.
        pub budget: u64,
        /// Checkpoints refused for want of room since the worker's start.
        pub refused: u64,
    }
}
