//! The worker's half: the session with its coordinator, the attempts it holds, its outbox.
//!
//! Drive it as the crate's documentation says. A worker that is cut off goes on: attempts run,
//! their outcomes become durable, and wait in the outbox until the coordinator acknowledges.
//!
//! `machine` defines the worker of components that own their fields and do not know it: `uplink`,
//! `attempts`, `starts`, `lanes`, `adaptation`, `fitness`. The other modules take inputs through them.

mod adaptation;
mod assignments;
mod attempt;
mod attempts;
mod config;
mod control;
mod ending;
mod fitness;
mod handshake;
mod invariants;
mod lanes;
mod machine;
mod measurements;
mod outbox;
mod output;
mod probe;
mod reports;
mod session;
mod starts;
mod startup;
#[cfg(test)]
mod tests;
mod timers;
mod unfit;
mod uplink;

pub use config::{HeartbeatConfig, ReconnectConfig, StageConfig, WorkerConfig};
pub use machine::Worker;
pub use outlast_model::Unfit;
pub use output::{Answer, Output, Question, Refused, StopKind};
pub use reports::{MAX_META, MAX_STATE};
pub use startup::Alive;
pub use timers::{Timer, Wake};
