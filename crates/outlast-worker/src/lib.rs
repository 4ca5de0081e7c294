//! The worker's shell: executors, their keeper, what the machine has, and the agent that drives the
//! core.

pub mod capabilities;
mod clock;
pub mod exec;
#[doc(hidden)]
pub mod fuzz;
pub mod keeper;
pub mod local;
pub mod runner;
pub mod shell;

pub use outlast_net::pulse::PingConfig;
