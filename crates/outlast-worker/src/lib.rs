//! The worker: runs tasks and keeps their results until the coordinator has them.

pub mod capabilities;
pub mod exec;
