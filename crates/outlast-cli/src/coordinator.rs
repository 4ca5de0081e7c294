//! `outlast coordinator`.

use crate::args::{self, Size, Time};
use crate::config::{self, Origin};
use crate::context::Context;
use crate::exit::Usage;
use crate::link::Link;
use crate::{alerts, firstkey, process};
use outlast_coordinator::{
    BlobConfig, Config, ConnectionConfig, Coordinator, OtelConfig, RetentionConfig, TlsFiles,
    WatchConfig,
};
use outlast_core::coord::CoordConfig;
use outlast_core::recovery;
use outlast_wire::recovery::RecoveryFile;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Run the coordinator.
#[derive(clap::Args)]
#[command(
    after_help = "At its first start it makes a key for this user, which this user's commands and workers find by
themselves where they reach it on this machine. Without any key it listens on loopback only.
To serve other machines:
  outlast keys add --role operate admin && outlast keys add --role worker fleet
  outlast coordinator --listen 0.0.0.0:7117 --tls-cert cert.pem --tls-key key.pem
To keep checkpoints in a bucket (AWS_ENDPOINT_URL and the other usual variables are read):
  outlast coordinator --blob-store s3://BUCKET/PREFIX
To have tasks as traces and what is counted as metrics (OpenTelemetry's variables are read too):
  outlast coordinator --otlp-endpoint http://collector:4318"
)]
pub(crate) struct Args {
    /// Create no key at the first start: everyone who can connect may do everything. The coordinator
    /// then listens on loopback only, but every user of this machine can run commands as this one
    #[arg(long, env = "OUTLAST_NO_KEYS", value_parser = clap::builder::FalseyValueParser::new())]
    no_keys: bool,
    /// Address to listen on
    #[arg(long, env = "OUTLAST_LISTEN", value_name = "ADDRESS", value_parser = args::listen, default_value = "127.0.0.1:7117")]
    listen: SocketAddr,
    /// Data folder [default: ~/.local/share/outlast/coordinator]
    #[arg(long, env = "OUTLAST_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Serve TLS with this certificate chain (PEM)
    #[arg(long, env = "OUTLAST_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "OUTLAST_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    link: Link,
    /// Largest number of unfinished tasks
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>(0..=u64::MAX), default_value_t = CoordConfig::default().max_unfinished)]
    max_unfinished: usize,
    /// Store checkpoints in this bucket, s3://BUCKET/PREFIX, instead of the data folder
    #[arg(long, env = "OUTLAST_BLOB_STORE", value_name = "URL")]
    blob_store: Option<String>,
    /// Disk or bucket space for checkpoints, such as 50G [default: no limit]
    #[arg(long, env = "OUTLAST_BLOB_BUDGET", value_name = "SIZE")]
    blob_budget: Option<Size>,
    /// Time for which uploaded data is kept without a checkpoint that refers to it
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time(BlobConfig::default().grace))]
    blob_grace: Time,
    /// Time between removals of unreferenced data
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time(BlobConfig::default().collect_every))]
    gc_interval: Time,
    /// Time for which checkpoints are kept after their task succeeded or was cancelled
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time(BlobConfig::default().keep_done))]
    checkpoint_ttl: Time,
    /// Time for which ended tasks and absent workers are kept
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time(RetentionConfig::default().keep))]
    task_ttl: Time,
    /// Largest number of ended tasks to keep; the oldest are removed first
    #[arg(long, value_name = "N", value_parser = args::whole::<u64>(0..=u64::MAX), default_value_t = RetentionConfig::default().most)]
    max_ended: u64,
    /// Disk space for the history of links
    #[arg(long, value_name = "SIZE", default_value_t = Size(WatchConfig::default().history_budget))]
    history_budget: Size,
    /// Export traces of tasks and metrics to this OpenTelemetry collector (OTLP, http/protobuf)
    #[arg(long, env = "OUTLAST_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Workers admitted per second when many connect at once; 0 is no limit
    #[arg(long, value_name = "N", value_parser = args::whole::<u32>(0..=args::MAX_U32), default_value_t = CoordConfig::default().admit_per_second)]
    admit_per_second: u32,
    /// Largest number of connections per address other than loopback; 0 is no limit [default: half
    /// of all that the limit of open files allows]
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>(0..=args::MAX_U32))]
    max_connections_per_address: Option<usize>,
    /// Addresses of proxies, to which that limit does not apply
    #[arg(long, env = "OUTLAST_TRUSTED_PROXIES", value_delimiter = ',', value_parser = args::ip, value_name = "IP,…")]
    trusted_proxies: Vec<IpAddr>,
    /// Overrides of the recovery table (TOML); see `outlast recovery --help`
    #[arg(long, env = "OUTLAST_RECOVERY_TABLE", value_name = "FILE")]
    recovery: Option<PathBuf>,
}

/// The folder of the coordinator's store.
pub(crate) fn data_dir(context: &Context, flag: Option<PathBuf>) -> Result<PathBuf, Usage> {
    let file = || context.config.text("coordinator", "data_dir").map(PathBuf::from);
    let home =
        || Some(config::folder("XDG_DATA_HOME", ".local/share")?.join("outlast/coordinator"));
    flag.or_else(file).or_else(home).ok_or_else(|| Usage("give a folder with --data-dir".into()))
}

/// The recovery table: the built-in one with the overrides of the file.
fn table(file: Option<PathBuf>) -> Result<Arc<recovery::Config>, Usage> {
    let Some(path) = file else { return Ok(Arc::default()) };
    let file = RecoveryFile::from_value(crate::recovery::file(&path)?);
    let table = file.and_then(|file| recovery::Config::new(&file));
    table.map(Arc::new).map_err(|e| Usage(format!("{}: {e}", path.display())))
}

/// Destination of telemetry: the flag takes precedence over OpenTelemetry's variables, these over the file.
fn otel(flag: Option<&str>, file: Option<String>) -> Result<Option<OtelConfig>, Usage> {
    let flag = flag.filter(|url| !url.is_empty());
    let variable = |name: &str| {
        let set = std::env::var(name).ok().filter(|value| !value.is_empty());
        set.or_else(|| file.clone().filter(|_| name == "OTEL_EXPORTER_OTLP_ENDPOINT"))
    };
    OtelConfig::new(flag, &variable).map_err(Usage)
}

impl Args {
    fn tls(&mut self) -> Result<Option<TlsFiles>, Usage> {
        match (self.tls_cert.take(), self.tls_key.take()) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
            (None, None) => Ok(None),
            _ => Err(Usage("TLS needs both --tls-cert and --tls-key".into())),
        }
    }

    fn watch(&mut self, context: &Context) -> Result<WatchConfig, Usage> {
        let endpoint = self.otlp_endpoint.take();
        let (flag, file) = match context.origin("otlp_endpoint") {
            Origin::File => (None, endpoint),
            _ => (endpoint, None),
        };
        let alerts = alerts::configured(context.config.section("alerts")).map_err(Usage)?;
        let history_budget = self.history_budget.0;
        Ok(WatchConfig { history_budget, alerts, otel: otel(flag.as_deref(), file)? })
    }

    /// The coordinator's configuration.
    fn config(mut self, context: &Context, data_dir: PathBuf) -> Result<Config, Usage> {
        self.link.check()?;
        let given = ["heartbeat_interval", "heartbeat_timeout"];
        let given = given.iter().any(|key| context.origin(key) > Origin::Default);
        Ok(Config {
            listen: self.listen,
            data_dir,
            tls: self.tls()?,
            watch: self.watch(context)?,
            ping: self.link.ping(),
            core: CoordConfig {
                version: env!("CARGO_PKG_VERSION").into(),
                heartbeat_interval: self.link.heartbeat_interval.ms(),
                heartbeat_timeout: self.link.heartbeat_timeout.ms(),
                max_unfinished: self.max_unfinished,
                admit_per_second: self.admit_per_second,
                recovery: table(self.recovery)?,
                seed: uuid::Uuid::new_v4().as_u64_pair().0,
                pins: self.link.pins(given),
                ..CoordConfig::default()
            },
            blobs: BlobConfig {
                bucket: self.blob_store,
                budget: self.blob_budget.map(|Size(bytes)| bytes),
                grace: self.blob_grace.0,
                collect_every: self.gc_interval.0,
                keep_done: self.checkpoint_ttl.0,
            },
            retention: RetentionConfig {
                keep: self.task_ttl.0,
                most: self.max_ended,
                every: self.gc_interval.0,
            },
            connections: ConnectionConfig {
                per_address: self.max_connections_per_address,
                proxies: self.trusted_proxies,
            },
        })
    }
}

pub(crate) async fn run(context: &Context, mut args: Args) -> anyhow::Result<u8> {
    let data_dir = data_dir(context, args.data_dir.take())?;
    let no_keys = args.no_keys;
    let config = args.config(context, data_dir.clone())?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    // Before anything may have to be ended cleanly.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    process::settle()?;
    let key = firstkey::prepare(&data_dir, no_keys)?;
    // First the key: who comes first needs it.
    let mut left = Ok(None);
    let leave = |addr: SocketAddr| left = firstkey::leave(key.as_deref(), addr);
    let mut coordinator = tokio::select! {
        started = Coordinator::start_after(config, leave) => started?,
        // It may be waiting for its address. What it has begun is undone by the next start, as
        // after a crash.
        _ = term.recv() => return Ok(143),
        _ = int.recv() => return Ok(130),
    };
    let addr = coordinator.local_addr();
    tracing::info!("coordinator at {scheme}://{addr}, data in {}", data_dir.display());
    tracing::info!("dashboard at {scheme}://{addr}/dashboard");
    firstkey::announce(&data_dir, left, addr, scheme == "https")?;
    let broken = tokio::select! {
        _ = term.recv() => None,
        _ = int.recv() => None,
        why = coordinator.broken() => Some(why),
    };
    if broken.is_none() {
        tracing::info!("ending; workers go on and come back");
    }
    coordinator.shutdown().await;
    match broken {
        Some(why) => anyhow::bail!("the store cannot be used any more: {why}"),
        None => Ok(0),
    }
}
