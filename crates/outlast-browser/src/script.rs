//! Scripts as a host runs them: their source, their end, their requests and the host that answers these.

use serde_json::{Map, Value};
use std::future::Future;
use std::pin::Pin;

/// A script to run.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// JavaScript. Its value, or that of the function that it evaluates to, is the result.
    pub source: String,
    /// The page: a URL, or HTML if it begins with `<`; empty: an empty page.
    pub page: String,
    /// Becomes `task.args`.
    pub args: Value,
    /// Becomes `task.id`.
    pub task: String,
    /// Becomes `task.attempt`.
    pub attempt: u64,
    /// A lost GPU context is reported, and nothing more.
    pub bears_context_loss: bool,
}

/// The end of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The result, as JSON.
    Done(String),
    /// The script threw, or could not begin.
    Failed {
        /// The reason in a line.
        message: String,
        /// The reason with the places in the source.
        stack: String,
    },
    /// The browser, or the process of the page, is gone.
    Crashed {
        /// The process, and how it ended.
        message: String,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// The page needed more memory than it gets.
    OutOfMemory(String),
    /// A WebGL, WebGPU or WebNN context was lost.
    ContextLost(String),
}

/// The level of a console message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// Data that a script saves, or restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// A JSON text.
    Json(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Saved {
    /// The content.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Saved::Json(text) => text.as_bytes(),
            Saved::Bytes(bytes) => bytes,
        }
    }
}

/// A request of a script.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Keep this as a checkpoint; the answer is its id.
    Checkpoint {
        /// The data.
        data: Saved,
        /// A name for people.
        name: Option<String>,
        /// Metadata that is kept beside it.
        meta: Map<String, Value>,
    },
    /// The newest checkpoint, or null.
    Restore,
    /// The progress.
    Progress {
        /// Progress from 0 to 1.
        value: f64,
        /// The progress in words.
        message: Option<String>,
        /// Merged into the state.
        data: Map<String, Value>,
    },
    /// Changes of its state; null deletes.
    State(Map<String, Value>),
    /// Keep this for the result.
    Artifact {
        /// The name.
        name: String,
        /// The data.
        data: Saved,
    },
}

/// The answer to a request: the outer reason is for the script, which gets it as an exception.
pub type Answer = Pin<Box<dyn Future<Output = Result<Option<Saved>, String>> + Send>>;

/// The host of a script, outside of the page.
pub trait Host: Send + Sync + 'static {
    /// Carries out a request.
    fn grant(&self, wish: Wish) -> Answer;
    /// Returns each time that a checkpoint of the task is requested. Called only for scripts that listen.
    fn checkpoint_wanted(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// A line of the page's console.
    fn console(&self, level: Level, text: &str);
}
