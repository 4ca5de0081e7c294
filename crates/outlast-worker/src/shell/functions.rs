//! Functions that `call` tasks may name.

use super::context::TaskContext;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The name of the function that answers to every name that no other one has.
pub const ANY: &str = "*";

/// The failure of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Explanation in one line.
    pub message: String,
    /// For programs, such as a traceback; it becomes the result's value. Null is nothing.
    pub details: Value,
    /// The cause of its end.
    pub by: FailedBy,
}

/// The cause that ended a function that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailedBy {
    /// The function itself.
    #[default]
    Itself,
    /// A signal killed the process that it ran in.
    Signal(i32),
    /// The kernel killed that process for want of memory.
    OutOfMemory,
    /// The time limit.
    Timeout,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure { message, details: Value::Null, by: FailedBy::Itself }
    }
}

type Body = dyn Fn(TaskContext) -> Result<Value, Failure> + Send + Sync;

/// A function that tasks may call.
#[derive(Clone)]
pub struct Function {
    pub(super) body: Arc<Body>,
    pub(super) inline: bool,
}

impl Function {
    /// A function on a thread of its own. An `Err` fails the task with that message, and so does a
    /// panic; after a stop it ends the task as stopped. It should check
    /// [`TaskContext::is_cancelled`]: nothing else can stop it.
    pub fn new(
        body: impl Fn(TaskContext) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Function { body: Arc::new(move |c| body(c).map_err(Failure::from)), inline: false }
    }
    /// A function on a thread of its own that says more about its failures.
    pub fn detailed(
        body: impl Fn(TaskContext) -> Result<Value, Failure> + Send + Sync + 'static,
    ) -> Self {
        Function { body: Arc::new(body), inline: false }
    }
    /// A function on whatever thread starts it, among them the one that writes the store: only for
    /// what takes microseconds.
    pub fn inline(
        body: impl Fn(TaskContext) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Function { body: Arc::new(move |c| body(c).map_err(Failure::from)), inline: true }
    }
}

/// Functions by name.
pub type Functions = HashMap<String, Function>;
