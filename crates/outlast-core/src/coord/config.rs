//! Settings of a coordinator.

use crate::Millis;
use std::sync::Arc;

/// A tick this much later than asked for means that the process was stopped or the machine
/// slept, in milliseconds.
pub(super) const LATE: Millis = 5_000;
/// Time in milliseconds that a moved task waits for another worker, and for the one that was named.
/// Then it may go to any worker with room.
pub(super) const MOVE_PATIENCE: (Millis, Millis) = (30_000, 600_000);
/// Configuration of a coordinator. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct CoordConfig {
    /// Version of the software.
    pub version: String,
    /// Time between heartbeats.
    pub heartbeat_interval: Millis,
    /// Silence after which a link is closed.
    pub heartbeat_timeout: Millis,
    /// Time limit for a new link's handshake and inventory.
    pub hello_timeout: Millis,
    /// Tasks that may be unfinished at a time.
    pub max_unfinished: usize,
    /// Outbox records that a worker may send without acknowledgement.
    pub credit: u32,
    /// Workers that are known, there or not, and the bytes of what they said of themselves. Room for
    /// others is made by forgetting who is gone and has nothing.
    pub max_workers: (usize, usize),
    /// Workers admitted per second when many connect at once; 0: no limit. The others are notified of
    /// their admission time.
    pub admit_per_second: u32,
    /// Workers admitted at once before that limit applies.
    pub admit_burst: u32,
    /// Rules of failure recovery.
    pub recovery: Arc<crate::recovery::Config>,
    /// Seed of random variations; a different one for each start.
    pub seed: u64,
    /// Settings that do not adapt to links.
    pub pins: crate::adapt::Pins,
}

impl Default for CoordConfig {
    fn default() -> Self {
        CoordConfig {
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat_interval: 5_000,
            heartbeat_timeout: 15_000,
            hello_timeout: 15_000,
            max_unfinished: 1_000_000,
            credit: 4096,
            max_workers: (50_000, 256 << 20),
            admit_per_second: 1000,
            admit_burst: 500,
            recovery: Arc::default(),
            seed: 0,
            pins: crate::adapt::Pins::NONE,
        }
    }
}
