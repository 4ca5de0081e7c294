//! Models of both stores, in memory, for the simulator: the same meaning, other machinery.
//!
//! Each keeps two states: what has been written, and what has been synced. [`crash`] falls back
//! to the second. They share no code with the SQLite stores, so that each checks the other, and
//! they are deterministic.
//!
//! [`crash`]: SimCoordStore::crash

mod coord;
mod coord_model;
mod disk;
mod worker;

pub use coord::SimCoordStore;
pub use worker::SimWorkerStore;
