//! Puts the parts together: store, core, threads, listener.

use crate::api::{self, Shared};
use crate::auth::{self, Auth};
use crate::bind::bind;
use crate::blobs::{self, BlobShelf};
use crate::clock;
use crate::clock::Ages;
use crate::dash;
use crate::driver::{self, Driver, Report, Sources};
use crate::events::Feed;
use crate::intake::Intake;
use crate::listen::{self, Accepted};
use crate::logs::Logs;
use crate::otel::{Otel, OtelConfig, Running};
use crate::peers::ConnectionConfig;
use crate::quality::{self, AlertConfig, Former, History, Quality};
use crate::readers::Readers;
use crate::retention::{self, RetentionConfig};
use crate::sessions::WorkerSessions;
use crate::writer::{self, Health};
use outlast_blob::{BlobError, Blobs};
use outlast_core::coord::{self, CoordConfig};
use outlast_net::pulse::PingConfig;
use outlast_store::folder::{PRIVATE, close_folder};
use outlast_store::{CoordStore, Keys, StoreError, StoredWorker, group};
use outlast_wire::v2::LinkCause;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long requests may go on while the coordinator ends.
const GRACE: Duration = Duration::from_secs(1);

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What a coordinator is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Without an API key it is loopback only, whatever this says.
    pub listen: SocketAddr,
    /// The folder of its store; made when it is not there.
    pub data_dir: PathBuf,
    /// Speak TLS.
    pub tls: Option<TlsFiles>,
    /// Of the store of blobs.
    pub blobs: BlobConfig,
    /// How long what is over stays.
    pub retention: RetentionConfig,
    /// Of the core.
    pub core: CoordConfig,
    /// WebSocket pings on workers' links, beside heartbeats.
    pub ping: PingConfig,
    /// Of measuring.
    pub watch: WatchConfig,
    /// How many connections there may be.
    pub connections: ConnectionConfig,
}

/// How the coordinator measures and warns.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Bytes of disk that the history of links may take; 256 MB.
    pub history_budget: u64,
    /// When people are warned, and where.
    pub alerts: AlertConfig,
    /// Where traces and metrics go; none: nowhere.
    pub otel: Option<OtelConfig>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig { history_budget: 256_000_000, alerts: AlertConfig::default(), otel: None }
    }
}

/// How the coordinator keeps blobs, which are the data of checkpoints.
#[derive(Debug, Clone)]
pub struct BlobConfig {
    /// Where their packs lie instead of in the data folder: `s3://BUCKET/PREFIX`.
    pub bucket: Option<String>,
    /// Bytes that they may take on disk; none: what the disk has.
    pub budget: Option<u64>,
    /// How long what was uploaded stays though no checkpoint refers to it yet; 1 h.
    pub grace: Duration,
    /// Between collections of what nothing refers to; 10 min.
    pub collect_every: Duration,
    /// How long checkpoints stay after their task succeeded or was cancelled; 7 days.
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

/// How a worker's link had ended when this process began.
fn former_end(w: StoredWorker) -> Former {
    match w.gone_at {
        Some(at) => (Some(at), w.gone_cause, w.gone_reason),
        None => (None, LinkCause::LinkRestarted, "the coordinator was restarted".into()),
    }
}

impl Config {
    /// The folder of the blobs in a data folder.
    pub fn blob_folder(data_dir: &std::path::Path) -> PathBuf {
        data_dir.join("blobs")
    }
    /// The file of the history of links in a data folder.
    pub fn history_file(data_dir: &std::path::Path) -> PathBuf {
        data_dir.join("links.db")
    }
    /// The file that says how far traces are exported, in a data folder.
    pub fn otlp_file(data_dir: &std::path::Path) -> PathBuf {
        data_dir.join("otlp-cursor")
    }
    /// The file of the store in a data folder.
    pub fn store_file(data_dir: &std::path::Path) -> PathBuf {
        data_dir.join("coordinator.db")
    }
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("data folder {0}: {1}")]
    Folder(PathBuf, io::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of blobs cannot be opened.
    #[error(transparent)]
    Blobs(BlobError),
    /// They lie elsewhere.
    #[error("{error}; {}", elsewhere(error))]
    Elsewhere {
        /// Where they lie, and where they were looked for.
        error: BlobError,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, io::Error),
    /// The TLS files cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The alerts cannot be configured so.
    #[error("alerts: {0}")]
    Alerts(String),
    /// Telemetry cannot be exported.
    #[error("OTLP: {0}")]
    Otel(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What to do about it.
fn elsewhere(error: &BlobError) -> String {
    match error {
        BlobError::Elsewhere { at, .. } if at.contains("://") => {
            format!("start it with --blob-store {at}")
        }
        _ => "start it without --blob-store; to move them there, make a backup and restore it \
              with --blob-store"
            .into(),
    }
}

impl From<BlobError> for StartError {
    fn from(error: BlobError) -> StartError {
        match error {
            BlobError::Elsewhere { .. } => StartError::Elsewhere { error },
            other => StartError::Blobs(other),
        }
    }
}

/// A coordinator that runs.
#[derive(Debug)]
pub struct Coordinator {
    addr: SocketAddr,
    loopback_only: bool,
    reports: mpsc::UnboundedSender<Report>,
    stop_http: Option<oneshot::Sender<()>>,
    http: tokio::task::JoinHandle<()>,
    collect: tokio::task::JoinHandle<((), ())>,
    sampler: tokio::task::JoinHandle<()>,
    otel: Option<Running>,
    quality: Arc<Quality>,
    threads: Vec<JoinHandle<()>>,
    health: watch::Receiver<Health>,
}

impl Coordinator {
    /// Opens the store, goes on from what it holds, and listens. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] says what to mend.
    pub async fn start(config: Config) -> Result<Coordinator, StartError> {
        Coordinator::start_after(config, |_| ()).await
    }

    /// As [`Coordinator::start`]. `bound` is called with the address once that is this
    /// coordinator's, before any request is answered.
    ///
    /// # Errors
    /// As there.
    pub async fn start_after(
        config: Config,
        bound: impl FnOnce(SocketAddr),
    ) -> Result<Coordinator, StartError> {
        let dir = &config.data_dir;
        close_folder(dir, PRIVATE, |dir| Config::store_file(dir).exists())
            .map_err(|e| StartError::Folder(dir.clone(), e))?;
        let tls = match &config.tls {
            Some(files) => Some(listen::tls(&files.cert, &files.key).map_err(StartError::Tls)?),
            None => None,
        };
        let file = Config::store_file(dir);
        let (store, snapshot) = CoordStore::open(&file)?;
        let auth = Auth::new(Keys::open(&file)?)?;
        let (addr, loopback_only) = match (auth.needed(), config.listen) {
            (false, wanted) if !wanted.ip().is_loopback() => {
                let ip = match wanted.ip() {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
                };
                tracing::warn!(
                    "no API key is configured: listening on loopback only, not on {wanted}; \
                     make keys with `outlast keys add` and start again"
                );
                (SocketAddr::new(ip, wanted.port()), true)
            }
            (_, wanted) => (wanted, false),
        };
        // Before the core starts its clocks: a predecessor may take a while to go.
        let listener = bind(addr).await.map_err(|e| StartError::Listen(addr, e))?;
        let addr = listener.local_addr().map_err(|e| StartError::Listen(addr, e))?;
        bound(addr);
        let readers = Readers::new(&store)?;
        let newest = readers.read(|r| r.newest_record()).await;
        // Where it cannot be read, nothing is old for now.
        let ages = Ages::since(newest.unwrap_or(Some(i64::MIN)));
        let reader = store.reader()?;
        let folder = Config::blob_folder(dir);
        let BlobConfig { bucket, budget, .. } = config.blobs.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let packs = bucket.as_deref().map(blobs::bucket).transpose()?;
            Blobs::open(folder, outlast_blob::Config { budget, packs, ..Default::default() })
        });
        let opened = opened.await.map_err(|e| StartError::Thread(io::Error::other(e)))??;
        let shelf = BlobShelf::new(opened, config.blobs.grace);
        let otel = config.watch.otel.clone();
        let otel = otel.map(|config| Otel::new(config, &snapshot.coordinator_id));
        let backlog = otel.as_ref().and_then(|otel| otel.backlog.clone());
        let feed = Feed::new(snapshot.workers.iter().map(|(row, _)| row), backlog);
        let watchers = feed.watchers();
        let former = readers.read(|r| r.workers()).await.unwrap_or_default();
        let former = former.into_iter().map(|w| (w.row.store_id.clone(), former_end(w))).collect();
        let (history, keeper) =
            History::start(&Config::history_file(dir), config.watch.history_budget);
        let standing = history.standing().await;
        let quality = Quality::new(
            config.core.heartbeat_interval,
            history,
            former,
            (&config.watch.alerts, standing),
            watchers.clone(),
        );
        let quality = Arc::new(quality.map_err(StartError::Alerts)?);
        let core = coord::Coordinator::new(config.core.clone(), snapshot, clock::now());
        let coordinator_id = core.id().to_string();
        let (reports, reported) = mpsc::unbounded_channel();
        let (batches, written) = group::group(writer::ALONE);
        let (health_tx, health) = watch::channel(Health::Good);
        let health_tx = Arc::new(health_tx);
        let writer = writer::start(store, written, reports.clone(), feed, health_tx.clone())
            .map_err(StartError::Thread)?;
        let blobs = shelf.clone();
        let sources = Sources { reader, blobs, health: health_tx, quality: quality.clone() };
        let (driver, core): (Driver, _) =
            driver::start(core, sources, batches, reported).map_err(StartError::Thread)?;
        let collect = blobs::collect::run(
            shelf.clone(),
            driver.clone(),
            readers.clone(),
            ages,
            config.blobs.collect_every,
            config.blobs.keep_done,
        );
        let (keep, its) = (config.retention.clone(), driver.clone());
        let retention = retention::run(keep, ages, its, readers.clone());
        let collect = tokio::spawn(async move { tokio::join!(collect, retention) });
        let sampler = tokio::spawn(quality::run(quality.clone(), driver.clone()));
        let pulse = Arc::new(dash::Pulse::default());
        tokio::spawn(dash::beat(driver.clone(), pulse.clone()));
        let sessions = dash::Sessions::new(&coordinator_id, tls.is_some());
        let shared = Arc::new(Shared {
            driver,
            readers,
            auth,
            intake: Intake::default(),
            logs: Arc::new(Logs::default()),
            shelf,
            quality: quality.clone(),
            watchers,
            health: health.clone(),
            conns: AtomicU64::new(0),
            coordinator_id,
            version: config.core.version.clone(),
            started_at: clock::wall(),
            data_dir: dir.to_path_buf(),
            tls: tls.is_some(),
            ping: config.ping,
            sessions,
            worker_sessions: Arc::new(WorkerSessions::new()),
            pulse,
            otel,
            missed: Default::default(),
        });
        tokio::spawn(auth::watch_keys(Arc::downgrade(&shared)));
        let otel = shared.otel.as_ref().map(|otel| otel.start(&shared, &Config::otlp_file(dir)));
        let otel = otel.transpose().map_err(StartError::Otel)?;
        let app = api::router(shared);
        let (stop_http, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let (accepted, accepting) =
            Accepted::start(listener).map_err(|e| StartError::Listen(addr, e))?;
        let http = tokio::spawn(listen::serve(accepted, tls, config.connections, app, stopped));
        let stop_http = Some(stop_http);
        let threads = [core, writer, accepting].into_iter().chain(keeper).collect();
        Ok(Coordinator {
            addr,
            loopback_only,
            reports,
            stop_http,
            http,
            collect,
            sampler,
            otel,
            quality,
            threads,
            health,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it listens on loopback though it was asked for more, for want of a key.
    pub fn loopback_only(&self) -> bool {
        self.loopback_only
    }

    /// Waits until the store can never be written again; why.
    pub async fn broken(&mut self) -> String {
        let broken = self.health.wait_for(|h| matches!(h, Health::Broken(_))).await;
        match broken.as_deref() {
            Ok(Health::Broken(why)) => why.clone(),
            _ => "the writer ended".into(),
        }
    }

    /// Ends: answers what was asked, closes the links, writes what was decided.
    pub async fn shutdown(mut self) {
        self.collect.abort();
        self.sampler.abort();
        if let Some(otel) = self.otel.take() {
            otel.end().await;
        }
        self.quality.end().await;
        if let Some(stop) = self.stop_http.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(GRACE, &mut self.http).await.is_err() {
            self.http.abort();
        }
        let _ = self.reports.send(Report::Stop);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}
