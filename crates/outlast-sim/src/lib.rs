//! The deterministic simulator: one coordinator, several workers and a client in one thread,
//! under a virtual clock, with seeded faults in network, disk, clock and process.
//!
//! The machines are the real ones of `outlast-core`; this crate plays everything around them,
//! and judges with `oracle`, which looks only at what went over the wire, what was synced and
//! what was executed. First faults, then everything heals and must converge.

#![warn(missing_docs)]

mod bugs;
mod chaos;
mod client;
pub mod compare;
mod copies;
mod failures;
mod kills;
mod oracle;
mod peers;
mod runs;
mod v1;
mod v1_client;
mod world;

pub use bugs::Bug;
pub use world::{Outcome, run};
