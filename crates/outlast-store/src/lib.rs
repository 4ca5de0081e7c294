//! Durable records: the SQLite stores of coordinator and worker, API keys, and models of both
//! stores for the simulator.
//!
//! A store is dumb on purpose. It applies the records that `outlast-core` decided on, whole
//! batches at a time, and gives back what is needed to go on after a restart. It decides
//! nothing, knows no sockets and no tasks at work, and reads the clock only to date API keys.
//!
//! An `Ok` from `commit` means synced. An `Err` means that nothing was applied, and the same
//! batches may be tried again when [`StoreError::is_retryable`] says so.

mod coord;
mod db;
mod error;
mod keys;
mod links;
pub mod sim;
mod storage;
mod types;
mod worker;

pub use coord::{AgedTask, CoordReader, CoordStore, TaskExtra};
pub use error::StoreError;
pub use keys::{KeyInfo, KeyLimits, Keys, NewKey, Role};
pub use links::{AlertEntry, LinkEntry, LinkEntryKind, LinkStore, Resolution};
pub use outlast_sqlite::{folder, holder};
pub use storage::{CoordStorage, WorkerStorage};
pub use types::{
    Counts, EventKind, PastOutcome, StoredCheckpoint, StoredEvent, StoredTask, StoredWorker,
    TaskFilter, TaskPage,
};
pub use worker::WorkerStore;
