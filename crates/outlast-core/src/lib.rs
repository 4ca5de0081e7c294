//! The decisions of coordinator and worker, without their execution.
//!
//! Nothing here opens a socket or a file, starts a thread, reads a clock or draws from global
//! randomness. Both machines are driven the same way ([`Machine`]; `outlast-driver` is their driver):
//!
//! 1. feed one input (`on_…`), with the time as a [`Now`];
//! 2. drain [`Machine::poll`] until it returns `None`;
//! 3. wait for the next input, but no longer than `next_wake` says, then call `on_tick`.
//!
//! **Decide, commit, release.** An input makes [`records`] (facts), which change the state in
//! memory at once and leave as [`Step::Persist`]. Everything that others may see and that
//! rests on those facts is held back until the driver reports `on_persisted(batch)`. A driver
//! that cannot write keeps the batch and tries again; it never skips one.
//!
//! **Load, wait, decide.** The machines read nothing. The coordinator's `Load { … }` asks for facts of the store, which
//! come back with `on_loaded` at any later time; only what needs them waits.

pub mod adapt;
pub mod alerts;
pub mod backoff;
pub mod coord;
pub mod health;
mod invariants;
mod journal;
mod machine;
pub use outlast_model::ids;
pub mod quality;
pub mod records;
pub mod recovery;
pub mod retention;
pub mod scheduler;
pub mod stats;
pub mod steady;
pub mod worker;

pub use ids::{AttemptId, Epoch, Millis, Now, TaskId};
pub use machine::{Machine, Step, Wake};
