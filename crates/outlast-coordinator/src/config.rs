//! The configuration of a coordinator, and the places of its files.

use crate::otel::config::OtelConfig;
use crate::peers::ConnectionConfig;
use crate::quality::alerts::AlertConfig;
use crate::retention::RetentionConfig;
use outlast_core::coord::CoordConfig;
use outlast_net::pulse::PingConfig;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The configuration of a coordinator.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on. Without an API key it is a loopback address, whatever this says.
    pub listen: SocketAddr,
    /// The folder of its store; made when it is not there.
    pub data_dir: PathBuf,
    /// TLS; none: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The store of blobs.
    pub blobs: BlobConfig,
    /// Retention of finished tasks.
    pub retention: RetentionConfig,
    /// The core.
    pub core: CoordConfig,
    /// WebSocket pings on workers' links, beside heartbeats.
    pub ping: PingConfig,
    /// Measurements and alerts.
    pub watch: WatchConfig,
    /// Limits of connections.
    pub connections: ConnectionConfig,
}

/// The configuration of measurements and alerts.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Bytes of disk that the history of links may take; 256 MB.
    pub history_budget: u64,
    /// Rules of alerts, and the address that they are sent to.
    pub alerts: AlertConfig,
    /// The collector of traces and metrics, if any.
    pub otel: Option<OtelConfig>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig { history_budget: 256_000_000, alerts: AlertConfig::default(), otel: None }
    }
}

/// The configuration of the blob store, which has the data of checkpoints.
#[derive(Debug, Clone)]
pub struct BlobConfig {
    /// The place of packs, if not the data folder: `s3://BUCKET/PREFIX`.
    pub bucket: Option<String>,
    /// Bytes of disk that blobs may take; none: no limit but the disk.
    pub budget: Option<u64>,
    /// Time that an upload stays without a checkpoint that refers to it; 1 h.
    pub grace: Duration,
    /// Time between collections of what nothing refers to; 10 min.
    pub collect_every: Duration,
    /// Time that checkpoints stay after their task succeeded or was cancelled; 7 days.
    pub keep_done: Duration,
}

impl Default for BlobConfig {
    fn default() -> Self {
        let (hour, ten_minutes) = (Duration::from_secs(3600), Duration::from_secs(600));
        let keep_done = hour * 24 * 7;
        BlobConfig {
            bucket: None,
            budget: None,
            grace: hour,
            collect_every: ten_minutes,
            keep_done,
        }
    }
}

impl Config {
    /// The folder of the blobs in a data folder.
    pub fn blob_folder(data_dir: &Path) -> PathBuf {
        data_dir.join("blobs")
    }
    /// The file of the history of links in a data folder.
    pub fn history_file(data_dir: &Path) -> PathBuf {
        data_dir.join("links.db")
    }
    /// The file of the position up to which traces are exported, in a data folder.
    pub fn otlp_file(data_dir: &Path) -> PathBuf {
        data_dir.join("otlp-cursor")
    }
    /// The file of the store in a data folder.
    pub fn store_file(data_dir: &Path) -> PathBuf {
        data_dir.join("coordinator.db")
    }
}
