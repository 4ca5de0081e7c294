//! Puts the parts together: store, core, threads, listener.

use crate::api;
use crate::app::Shared;
use crate::auth::{self, Auth};
use crate::bind::bind;
use crate::blobs;
use crate::blobs::service::{self, BlobService};
use crate::clock::{self, Ages};
use crate::config::{BlobConfig, Config};
use crate::dash::pulse::{self, Pulse};
use crate::dash::session::Sessions;
use crate::driver::{self, Sources};
use crate::events::Feed;
use crate::gather;
use crate::health::Health;
use crate::input::{Driver, Report};
use crate::intake::Intake;
use crate::listen::{self, Accepted};
use crate::logs::Logs;
use crate::otel::{self, Otel};
use crate::quality::history::History;
use crate::quality::meters::{Former, Quality};
use crate::quality::sampler;
use crate::readers::Readers;
use crate::retention;
use crate::sessions::WorkerSessions;
use crate::writer;
use outlast_blob::{BlobError, Blobs};
use outlast_core::coord;
use outlast_driver::group;
use outlast_model::LinkCause;
use outlast_store::folder::{PRIVATE, close_folder};
use outlast_store::{CoordStore, Keys, StoreError, StoredWorker};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// Time that requests may go on while the coordinator ends.
const GRACE: Duration = Duration::from_secs(1);

/// Error of a coordinator's start.
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
    /// The packs of blobs are in another place.
    #[error("{error}; {}", elsewhere(error))]
    Elsewhere {
        /// The error, with both places.
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

/// Returns what to do about it.
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
    upkeep: tokio::task::JoinHandle<((), ())>,
    sampler: tokio::task::JoinHandle<()>,
    otel: Option<otel::Running>,
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
        let tls = config.tls.as_ref().map(|files| listen::tls(&files.cert, &files.key));
        let tls = tls.transpose().map_err(StartError::Tls)?;
        let file = Config::store_file(dir);
        let (store, snapshot) = CoordStore::open(&file)?;
        let auth = Arc::new(Auth::new(Keys::open(&file)?)?);
        // Before the core starts its clocks: a predecessor may take a while to go.
        let (listener, addr) = listener(&auth, config.listen).await?;
        let loopback_only = addr.ip().is_loopback() && !config.listen.ip().is_loopback();
        bound(addr);
        let readers = Readers::new(&store)?;
        let newest = readers.read(|r| r.newest_record()).await;
        // Where it cannot be read, nothing is old for now.
        let ages = Ages::since(newest.unwrap_or(Some(i64::MIN)));
        let blobs = open_blobs(&config).await?;
        let otel = config.watch.otel.as_ref().map(|otel| Otel::new(otel, &snapshot.coordinator_id));
        let backlog = otel.as_ref().and_then(|otel| otel.backlog.clone());
        let feed = Feed::new(snapshot.workers.iter().map(|(row, _)| row), backlog);
        let watchers = feed.watchers();
        let (quality, keeper) = measure(&config, &readers, &feed).await?;
        let core = coord::Coordinator::new(config.core.clone(), snapshot, clock::now());
        let coordinator_id = core.id().to_string();
        let Started { driver, reports, health, core, writer } =
            start_core(core, store, feed, (&blobs, &quality))?;
        let upkeep = upkeep(&config, (&blobs, &driver, &readers), ages);
        let sampler = tokio::spawn(sampler::run(quality.clone(), driver.clone()));
        let pulse = Arc::new(Pulse::default());
        tokio::spawn(pulse::beat(driver.clone(), pulse.clone()));
        tokio::spawn(auth::watch_keys(Arc::downgrade(&auth)));
        let shared = Arc::new(Shared {
            driver,
            readers,
            auth,
            intake: Intake::default(),
            logs: Arc::new(Logs::default()),
            blobs,
            quality: quality.clone(),
            watchers,
            health: health.clone(),
            conns: AtomicU64::new(0),
            sessions: Sessions::new(&coordinator_id, tls.is_some()),
            coordinator_id,
            version: config.core.version.clone(),
            started_at: clock::wall(),
            data_dir: dir.to_path_buf(),
            tls: tls.is_some(),
            ping: config.ping,
            worker_sessions: Arc::new(WorkerSessions::new()),
            pulse,
            otel,
            refused_links: Arc::default(),
        });
        let otel = export(&shared, &config).map_err(StartError::Otel)?;
        let (accepted, accepting) =
            Accepted::start(listener).map_err(|e| StartError::Listen(addr, e))?;
        let threads = [core, writer, accepting].into_iter().chain(keeper).collect();
        let (stop_http, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let app = api::router(shared);
        let http = tokio::spawn(listen::serve(accepted, tls, config.connections, app, stopped));
        Ok(Coordinator {
            addr,
            loopback_only,
            reports,
            stop_http: Some(stop_http),
            http,
            upkeep,
            sampler,
            otel,
            quality,
            threads,
            health,
        })
    }

    /// Returns the address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns whether it listens on loopback only, for want of a key.
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

    /// Ends the coordinator: answers open requests, closes the links, writes what was decided.
    pub async fn shutdown(mut self) {
        self.upkeep.abort();
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

/// Listens at this address, or on loopback for want of a key.
async fn listener(
    auth: &Auth,
    wanted: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let mut addr = wanted;
    if !auth.needed() && !wanted.ip().is_loopback() {
        addr.set_ip(match wanted.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
        tracing::warn!(
            "no API key is configured: listening on loopback only, not on {wanted}; make keys \
             with `outlast keys add` and start again"
        );
    }
    let failed = |e| StartError::Listen(addr, e);
    let listener = bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// The core's thread and the writer's, and how they are reached.
struct Started {
    driver: Driver,
    reports: mpsc::UnboundedSender<Report>,
    health: watch::Receiver<Health>,
    core: JoinHandle<()>,
    writer: JoinHandle<()>,
}

fn start_core(
    core: coord::Coordinator,
    store: CoordStore,
    feed: Feed,
    (blobs, quality): (&BlobService, &Arc<Quality>),
) -> Result<Started, StartError> {
    let reader = store.reader()?;
    let (reports, reported) = mpsc::unbounded_channel();
    let (batches, written) = group::group(writer::ALONE);
    let (health_tx, health) = watch::channel(Health::Good);
    let health_tx = Arc::new(health_tx);
    let writer = writer::start(store, written, reports.clone(), feed, health_tx.clone())
        .map_err(StartError::Thread)?;
    let (blobs, quality) = (blobs.clone(), quality.clone());
    let sources = Sources { reader, blobs, health: health_tx, quality };
    let (driver, core) =
        driver::start(core, sources, batches, reported).map_err(StartError::Thread)?;
    Ok(Started { driver, reports, health, core, writer })
}

async fn open_blobs(config: &Config) -> Result<BlobService, StartError> {
    let folder = Config::blob_folder(&config.data_dir);
    let BlobConfig { bucket, budget, grace, .. } = config.blobs.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let packs = bucket.as_deref().map(service::bucket).transpose()?;
        Blobs::open(folder, outlast_blob::Config { budget, packs, ..Default::default() })
    });
    let opened = opened.await.map_err(|e| StartError::Thread(io::Error::other(e)))??;
    Ok(BlobService::new(opened, grace))
}

/// Starts to measure; the thread that keeps the history, if it has a file.
async fn measure(
    config: &Config,
    readers: &Readers,
    feed: &Feed,
) -> Result<(Arc<Quality>, Option<JoinHandle<()>>), StartError> {
    let former = readers.read(|r| r.workers()).await.unwrap_or_default();
    let former = former.into_iter().map(|w| (w.row.store_id.clone(), former_end(w))).collect();
    let file = Config::history_file(&config.data_dir);
    let (history, keeper) = History::start(&file, config.watch.history_budget);
    let firing = history.firing().await;
    let interval = config.core.heartbeat_interval;
    let alerts = (&config.watch.alerts, firing);
    let quality = Quality::new(interval, history, former, alerts, feed.watchers());
    Ok((Arc::new(quality.map_err(StartError::Alerts)?), keeper))
}

/// Starts the removal of what is old.
fn upkeep(
    config: &Config,
    (blobs, driver, readers): (&BlobService, &Driver, &Readers),
    ages: Ages,
) -> tokio::task::JoinHandle<((), ())> {
    let collect = blobs::collect::run(
        blobs.clone(),
        driver.clone(),
        readers.clone(),
        ages,
        config.blobs.collect_every,
        config.blobs.keep_done,
    );
    let retention = retention::run(config.retention.clone(), ages, driver.clone(), readers.clone());
    tokio::spawn(async move { tokio::join!(collect, retention) })
}

/// Starts to export traces and metrics, if that is configured.
fn export(shared: &Arc<Shared>, config: &Config) -> Result<Option<otel::Running>, String> {
    let Some(otel) = &shared.otel else { return Ok(None) };
    let app = shared.clone();
    let sources = otel::Sources {
        coordinator_id: shared.coordinator_id.clone(),
        version: shared.version.clone(),
        started_at: shared.started_at,
        readers: shared.readers.clone(),
        quality: shared.quality.clone(),
        gather: move || {
            let app = app.clone();
            // Series of single workers are many, and are had at /metrics.
            async move { gather::families(&app, Some(0)).await }
        },
    };
    otel.start(sources, &Config::otlp_file(&config.data_dir)).map(Some)
}

/// Returns the end of a worker's link before this process began.
fn former_end(w: StoredWorker) -> Former {
    match w.gone_at {
        Some(at) => (Some(at), w.gone_cause, w.gone_reason),
        None => (None, LinkCause::Restarted, "the coordinator was restarted".into()),
    }
}
