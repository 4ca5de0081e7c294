//! Functions that `call` tasks may name.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What a function is told.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The task.
    pub task_id: String,
    /// The attempt.
    pub epoch: u64,
    /// Its argument.
    pub args: Value,
}

type Body = dyn Fn(CallContext) -> Result<Value, String> + Send + Sync;

/// A function that tasks may call.
#[derive(Clone)]
pub struct Function {
    pub(super) body: Arc<Body>,
    pub(super) inline: bool,
}

impl Function {
    /// Runs on a thread of its own. An `Err` fails the task with that message, and so does a
    /// panic.
    pub fn new(
        body: impl Fn(CallContext) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Function { body: Arc::new(body), inline: false }
    }
    /// Runs on whatever thread starts it, among them the one that writes the store: only for
    /// what takes microseconds.
    pub fn inline(
        body: impl Fn(CallContext) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Function { body: Arc::new(body), inline: true }
    }
}

/// Functions by name.
pub type Functions = HashMap<String, Function>;
