//! The agent: a worker that runs. It gives the sans-I/O core its clock, link, store and executor.
//!
//! **Threads.** A thread that has an input for the core (the link's task, the timer's, the writer's
//! thread, an executor's thread when a task ends) locks it, feeds it, and takes what it decided.
//! What goes to the writer or to the link is put into their queues under the same lock, so that
//! it keeps its order; both queues are bounded by the core's own limits (credit, slots and
//! prefetch). Tasks are started and stopped after the lock is released, by the thread that fed
//! the core: an executor's thread that ends a task starts the next one itself, without a hop.

mod agent;
mod collection;
mod config;
mod context;
mod controls;
mod disk;
mod driver;
mod fetch;
mod functions;
mod host;
mod identity;
mod link;
mod logs;
mod outbound;
mod outlets;
mod pace;
mod questions;
mod refusals;
mod room;
mod run_as;
mod runs;
mod start_error;
mod state_folder;
mod status;
mod takeover;
mod timer;
mod transfer;
mod upload;
mod writer;

pub use crate::clock::now;
pub use agent::Agent;
pub use config::AgentConfig;
pub use context::{Checkpoint, TaskContext};
pub use functions::{ANY, FailedBy, Failure, Function, Functions};
pub use identity::Identity;
pub use start_error::StartError;
pub use status::{Ended, Status};
