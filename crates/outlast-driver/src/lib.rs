//! The driver of a machine of `outlast-core`, the same for the coordinator and the worker.
//!
//! [`Engine`] feeds a machine and hands out what it puts out, [`group`] is the queue of its batches, and
//! [`writer`] the thread that makes them durable. Who has a clock, a lock or a channel keeps it: the
//! coordinator's engine is owned by one thread, the worker's is behind a lock.

mod engine;
pub mod group;
pub mod writer;

pub use engine::{Effects, Engine};
