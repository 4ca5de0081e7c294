//! The deterministic simulator: one coordinator, several workers and a client in one thread,
//! under a virtual clock, with seeded faults in network, disk, clock and process.
//!
//! The machines are the real ones of `outlast-core`; this crate plays everything around them,
//! and judges with `oracle`, which sees only what went over the wire, what was synced and what
//! was executed. First faults, then everything heals and must converge.

mod amiss;
mod blobs;
mod bugs;
mod calm;
mod client;
pub mod compare;
mod coordinator;
mod copies;
mod event;
mod failures;
mod faults;
mod judge;
mod kills;
mod link;
mod lookup;
mod network;
mod oracle;
mod peer;
mod planted;
mod queue;
mod replay;
mod run;
mod runs;
mod v1;
mod worker;
mod world;

pub use bugs::Bug;
pub use run::{Outcome, run};
