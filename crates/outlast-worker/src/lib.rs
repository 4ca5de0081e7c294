//! The worker's shell: executors, what the machine has, and the agent that drives the core.

pub mod capabilities;
pub mod exec;
pub mod local;
pub mod shell;
