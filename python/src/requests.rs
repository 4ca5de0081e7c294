//! The requests of a task in a process of its own to its worker: JSON each way.

use crate::buffer::Foreign;
use crate::errors::class;
use outlast_worker::local::HostError;
use outlast_worker::shell::TaskContext;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request {
    /// A checkpoint of data in a file that the process keeps open.
    Checkpoint {
        path: PathBuf,
        meta: Map<String, Value>,
    },
    /// A checkpoint of data in its memory, (address, bytes) each; no answer if that cannot be read.
    CheckpointMemory {
        pid: u32,
        parts: Vec<(u64, u64)>,
        meta: Map<String, Value>,
    },
    CheckpointPath {
        path: PathBuf,
        meta: Map<String, Value>,
    },
    /// The newest checkpoint, into a file that the process keeps open.
    Restore {
        path: PathBuf,
    },
    State {
        patch: Map<String, Value>,
        progress: Option<f64>,
    },
    Artifact {
        name: String,
        path: PathBuf,
    },
    Control,
}

fn perform(context: &TaskContext, request: Request) -> Result<Value, HostError> {
    let made = match request {
        Request::Checkpoint { path, meta } => json!(context.checkpoint_from(&path, meta)?.id),
        Request::CheckpointMemory { pid, parts, meta } => match Foreign::of(pid, parts) {
            Ok(memory) => json!(context.checkpoint_memory(Arc::new(memory), meta)?.id),
            Err(_) => Value::Null,
        },
        Request::CheckpointPath { path, meta } => json!(context.checkpoint_path(&path, meta)?.id),
        Request::Restore { path } => {
            let Some(mut found) = context.latest_checkpoint()? else { return Ok(Value::Null) };
            let copy = |e: io::Error| HostError::Internal(format!("reading the checkpoint: {e}"));
            let mut file = OpenOptions::new().write(true).open(path).map_err(copy)?;
            let size = io::copy(&mut found.body, &mut file).map_err(copy)?;
            json!([found.view.id, found.view.meta.user, size])
        }
        Request::State { patch, progress } => {
            context.tell(patch, progress)?;
            Value::Null
        }
        Request::Artifact { name, path } => {
            context.artifact(&name, &path)?;
            Value::Null
        }
        Request::Control => Value::Null,
    };
    Ok(made)
}

/// The answer: `ok` or `error` (class and text), and what is asked of the task now.
pub fn answer(context: &TaskContext, request: &[u8]) -> Value {
    let done = match serde_json::from_slice(request) {
        Ok(request) => perform(context, request),
        Err(e) => Err(HostError::Invalid(e.to_string())),
    };
    let now = context.control();
    let control = json!([now.cancel, now.pause, now.checkpoint_request]);
    match done {
        Ok(value) => json!({ "ok": value, "control": control }),
        Err(e) => json!({ "error": [class(&e), e.to_string()], "control": control }),
    }
}

/// The answer to one who asks for a function.
pub fn definition(text: Result<Arc<str>, String>) -> Value {
    match text {
        Ok(text) => json!({ "ok": &*text }),
        Err(e) => json!({ "error": ["OutlastError", e] }),
    }
}
