//! The counts of a proxy: connections, bytes, and what its faults did.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of a proxy since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections reset.
    pub resets: u64,
    /// Bytes from clients to the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream to clients.
    pub bytes_down: u64,
    /// Bytes swallowed by half-open connections.
    pub swallowed: u64,
    /// Chunks with a flipped bit.
    pub corrupted: u64,
}

/// The counters behind them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connections: AtomicU64,
    pub open: AtomicU64,
    pub refused: AtomicU64,
    pub resets: AtomicU64,
    pub bytes: [AtomicU64; 2],
    pub swallowed: AtomicU64,
    pub corrupted: AtomicU64,
}

impl Counters {
    /// The counts as they are now.
    pub fn stats(&self) -> Stats {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Stats {
            connections: get(&self.connections),
            open: get(&self.open),
            refused: get(&self.refused),
            resets: get(&self.resets),
            bytes_up: get(&self.bytes[0]),
            bytes_down: get(&self.bytes[1]),
            swallowed: get(&self.swallowed),
            corrupted: get(&self.corrupted),
        }
    }
}
