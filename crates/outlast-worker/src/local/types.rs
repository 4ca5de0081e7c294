//! Messages on the socket, for both ends. Times are Unix milliseconds, sizes bytes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Environment variable: the socket's path.
pub const SOCKET_VARIABLE: &str = "OUTLAST_SOCKET";
/// Environment variable: the task's id.
pub const TASK_VARIABLE: &str = "OUTLAST_TASK_ID";
/// Environment variable: the attempt's number.
pub const ATTEMPT_VARIABLE: &str = "OUTLAST_ATTEMPT";
/// Environment variable: what shows that a request is this attempt's.
pub const TOKEN_VARIABLE: &str = "OUTLAST_TASK_TOKEN";

/// The longest `GET …/control?wait=`, in seconds.
pub const MAX_WAIT: u64 = 60;
/// The largest JSON document that is read, in bytes.
pub const MAX_JSON: usize = 1 << 20;
/// The longest name of a checkpoint or an artifact, in bytes.
pub const MAX_NAME: usize = 255;
/// The largest `meta` of a checkpoint, in bytes of JSON.
pub const MAX_META: usize = 16 << 10;

/// Identity of the client: an attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// The task's id.
    pub task: String,
    /// The attempt's number, from 1.
    #[serde(rename = "attempt")]
    pub epoch: u64,
}

/// Description of an attempt, for its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The task's id.
    pub task: String,
    /// The attempt's number.
    pub attempt: u64,
    /// The worker's name.
    pub worker: String,
    /// Time at which the attempt was started.
    pub started_at_ms: i64,
    /// Specification as submitted.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub spec: Value,
}

/// Type of a checkpoint's bytes, which decides how they are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file's content.
    File,
    /// A tar stream as [`super::pack`] makes it.
    Folder,
    /// A request's body.
    Raw,
}

/// Metadata of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// Type of the bytes.
    pub kind: Kind,
    /// A name for people; that of the file or folder unless the task chose one.
    pub name: String,
    /// Metadata from the task, such as the epoch of a training run.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub user: Map<String, Value>,
    /// Chosen by the asker: the same again is a repeat of the same request, whose answer got lost,
    /// and may be answered with the checkpoint that the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A checkpoint that is durable on this worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// The id; unique within the task.
    pub id: String,
    /// The attempt that made it.
    pub attempt: u64,
    /// The size before compression.
    pub bytes: u64,
    /// Time at which it was made.
    pub created_at_ms: i64,
    /// True if the coordinator has it, too.
    pub delivered: bool,
    /// Metadata of the checkpoint.
    #[serde(flatten)]
    pub meta: CheckpointMeta,
}

/// The answer to a new checkpoint or artifact: what was made, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made<T> {
    /// Created object.
    #[serde(flatten)]
    pub view: T,
    /// Notes about omitted files, such as a socket in a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A restored checkpoint and its destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Restored checkpoint.
    #[serde(flatten)]
    pub view: CheckpointView,
    /// The file or folder that now has it.
    pub path: PathBuf,
}

/// State that the task has reported.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StateView {
    /// Progress from 0 to 1, if reported.
    pub progress: Option<f64>,
    /// All updates merged.
    pub state: Map<String, Value>,
    /// Number of updates.
    pub updates: u64,
}

/// A file that belongs to the task's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// The name; a later artifact of the same name replaces it.
    pub name: String,
    /// The size before compression.
    pub bytes: u64,
    /// Time at which it was taken.
    pub created_at_ms: i64,
}

/// Requests to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// True if the task should end.
    pub cancel: bool,
    /// To do nothing until this is false again.
    pub pause: bool,
    /// Number of times that a checkpoint was asked for.
    pub checkpoint_request: u64,
}

/// `POST …/checkpoints` and `POST …/artifacts`, by path.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromPath {
    /// Absolute; a file or a folder.
    pub path: PathBuf,
    /// Instead of the file's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`CheckpointMeta::user`]; not for artifacts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
    /// See [`CheckpointMeta::request`]; not for artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// `POST …/restore`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToPath {
    /// Absolute; a file, or a folder that is empty or absent.
    pub path: PathBuf,
    /// The newest unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Replaces a folder that is not empty.
    #[serde(default)]
    pub force: bool,
}

/// `PUT …/progress`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Progress from 0 to 1.
    pub progress: f64,
    /// Merged into the state.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
    /// Becomes `message` in the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The word of the problem that says that a task has no checkpoint yet.
pub const NO_CHECKPOINT: &str = "no-checkpoint";
/// The word of the problem that says that a checkpoint's data is damaged, and gone elsewhere.
pub const DAMAGED: &str = "damaged";
/// The header of `GET …/data` that says which checkpoint it is.
pub const ID_HEADER: &str = "x-outlast-checkpoint";
