//! The coordinator's shell: everything that the sans-I/O core needs done. HTTP and WebSocket
//! (axum), TLS, keys, the durable store, clocks. It decides nothing about tasks.
//!
//! Threads: one drives the core, one commits to the store, the rest is tokio. Readers of the
//! store have connections of their own, so that no question waits for a commit.

mod api;
mod app;
mod auth;
mod backup;
mod bind;
mod blobs;
mod clock;
mod config;
mod dash;
mod driver;
mod events;
mod explain;
mod extract;
mod fair;
mod families;
#[doc(hidden)]
pub mod fuzz;
mod gather;
mod health;
mod input;
mod intake;
mod keepalive;
mod link;
mod link_v1;
mod listen;
mod loader;
mod logs;
mod metrics;
mod otel;
mod outbound;
mod outgoing;
mod peers;
mod problem;
mod quality;
mod readers;
mod refused_links;
mod retention;
mod server;
mod sessions;
mod share;
mod writer;

pub use api::document::openapi;
pub use backup::{BackupError, BackupInfo, backup, restore};
pub use config::{BlobConfig, Config, TlsFiles, WatchConfig};
pub use otel::config::OtelConfig;
pub use outlast_net::pulse::PingConfig;
pub use peers::ConnectionConfig;
pub use quality::alerts::AlertConfig;
pub use quality::webhook::WebhookConfig;
pub use retention::RetentionConfig;
pub use server::{Coordinator, StartError};
