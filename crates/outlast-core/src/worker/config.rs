//! Settings of a worker.

use crate::Millis;
use crate::adapt::Pins;
use std::collections::BTreeMap;

/// Configuration of a worker. The defaults are those of the replaced system.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The name people see.
    pub name: String,
    /// Tasks that run at once.
    pub slots: u32,
    /// Further tasks that may wait here; 0 lets the coordinator choose.
    pub prefetch: u32,
    /// A flat JSON object.
    pub capabilities: String,
    /// Declared by the user.
    pub labels: BTreeMap<String, String>,
    /// Version of the software.
    pub version: String,
    /// Heartbeats, before they adapt to the link.
    pub heartbeat: HeartbeatConfig,
    /// Delays between dials.
    pub reconnect: ReconnectConfig,
    /// Attempts handed over ahead of their slots.
    pub stage: StageConfig,
    /// Settings that do not adapt to the link.
    pub pins: Pins,
    /// Random, of this start of the process, so that copies of its store are noticed; 0: none.
    pub nonce: u64,
}

/// Heartbeats of a link. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Time between heartbeats.
    pub interval: Millis,
    /// Silence after which the link is closed.
    pub timeout: Millis,
}

/// Delays between dials. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReconnectConfig {
    /// The delay before the first new dial.
    pub initial_delay: Millis,
    /// No delay is longer.
    pub max_delay: Millis,
    /// Share by which a delay varies.
    pub jitter: f64,
    /// Failed dials in a row before giving up; 0 is never.
    pub max_attempts: u32,
}

/// Attempts handed over ahead of their slots while tasks are short: the next one then starts without a
/// round trip. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageConfig {
    /// Number of such attempts, at most.
    pub limit: usize,
    /// Mean duration of tasks below which that is done.
    pub below: f64,
    /// Duration of work that is handed over ahead.
    pub work: f64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            name: "worker".into(),
            slots: 1,
            prefetch: 0,
            capabilities: "{}".into(),
            labels: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat: HeartbeatConfig::default(),
            reconnect: ReconnectConfig::default(),
            stage: StageConfig::default(),
            pins: Pins::NONE,
            nonce: 0,
        }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        HeartbeatConfig { interval: 5_000, timeout: 15_000 }
    }
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        ReconnectConfig { initial_delay: 1_000, max_delay: 60_000, jitter: 0.2, max_attempts: 0 }
    }
}

impl Default for StageConfig {
    fn default() -> Self {
        StageConfig { limit: 256, below: 50.0, work: 100.0 }
    }
}
