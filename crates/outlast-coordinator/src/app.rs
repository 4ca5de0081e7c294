//! The coordinator's state, which every request can reach. Knows no route.

use crate::auth::Auth;
use crate::blobs::service::BlobService;
use crate::dash::pulse::Pulse;
use crate::dash::session::Sessions;
use crate::events::FeedEvent;
use crate::health::Health;
use crate::input::Driver;
use crate::intake::Intake;
use crate::logs::Logs;
use crate::otel::Otel;
use crate::problem::Refusal;
use crate::quality::meters::Quality;
use crate::readers::Readers;
use crate::refused_links::RefusedLinks;
use crate::sessions::WorkerSessions;
use outlast_core::coord::Request;
use outlast_core::coord::{Coordinator, Response};
use outlast_net::pulse::PingConfig;
use outlast_store::{CoordReader, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{broadcast, watch};

/// The state that all handlers share.
pub(crate) struct Shared {
    pub driver: Driver,
    pub readers: Readers,
    pub auth: Arc<Auth>,
    pub intake: Intake,
    pub logs: Arc<Logs>,
    pub blobs: BlobService,
    pub quality: Arc<Quality>,
    pub watchers: broadcast::Sender<Arc<FeedEvent>>,
    pub health: watch::Receiver<Health>,
    pub conns: AtomicU64,
    pub coordinator_id: String,
    pub version: String,
    pub started_at: i64,
    pub data_dir: PathBuf,
    pub tls: bool,
    pub ping: PingConfig,
    pub sessions: Sessions,
    pub worker_sessions: Arc<WorkerSessions>,
    pub pulse: Arc<Pulse>,
    pub otel: Option<Otel>,
    pub refused_links: Arc<RefusedLinks>,
}

/// A handle of the state.
pub(crate) type App = Arc<Shared>;

impl Shared {
    /// Asks the core, unless nothing can be made durable just now.
    pub async fn request(&self, request: Request) -> Result<Response, Refusal> {
        self.health.borrow().check()?;
        let mut health = self.health.clone();
        tokio::select! {
            biased;
            answer = self.driver.request(request) => answer.map_err(|_| Refusal::ending()),
            // The request may still be carried out once there is room: repeating it does no harm.
            trouble = health.wait_for(|h| *h != Health::Good) => {
                trouble.map_err(|_| Refusal::ending())?.check()?;
                Err(Refusal::ending())
            }
        }
    }

    /// Reads the core's memory.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.driver.query(query).await.map_err(|_| Refusal::ending())
    }

    /// Reads the store.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&CoordReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.readers.read(read).await.map_err(|why| Refusal::store(&why))
    }
}
