//! The decisions of coordinator and worker, without their execution.
//!
//! Nothing here opens a socket or a file, starts a thread, reads a clock or draws from global
//! randomness. Both machines are driven the same way:
//!
//! 1. feed one input (`on_…`), with the time as a [`Now`];
//! 2. drain `poll_output` until it returns `None`;
//! 3. wait for the next input, but no longer than `next_wake` says, then call `on_tick`.
//!
//! **Decide, commit, release.** An input makes [`records`] (facts), which change the state in
//! memory at once and leave as `Persist { batch, … }`. Everything that others may see and that
//! rests on those facts is held back until the driver reports `on_persisted(batch)`. A driver
//! that cannot write keeps the batch and tries again; it never skips one.

pub mod adapt;
pub mod alerts;
pub mod backoff;
pub mod coord;
pub mod health;
mod invariants;
pub use outlast_model::ids;
pub mod quality;
pub mod records;
pub mod recovery;
pub mod requires;
pub mod retention;
pub mod scheduler;
pub mod stats;
pub mod steady;
pub mod worker;

pub use ids::{AttemptId, Epoch, Millis, Now, TaskId};
