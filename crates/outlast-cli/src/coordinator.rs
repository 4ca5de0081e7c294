//! `outlast coordinator`.

use crate::{Context, Usage, alerts, args, config, firstkey, process};
use outlast_coordinator::{
    BlobConfig, Config, ConnectionConfig, Coordinator, OtelConfig, RetentionConfig, TlsFiles,
    WatchConfig,
};
use outlast_core::adapt::Pins;
use outlast_core::coord::CoordConfig;
use outlast_core::recovery;
use outlast_wire::recovery::RecoveryFile;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
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
    /// Make no key at the first start: whoever may connect may do everything. It listens on loopback
    /// only then, but every user of this machine can run commands as this one
    #[arg(long, env = "OUTLAST_NO_KEYS", value_parser = clap::builder::FalseyValueParser::new())]
    no_keys: bool,
    /// Where to listen [default: 127.0.0.1:7117]
    #[arg(long, env = "OUTLAST_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Folder of its store [default: ~/.local/share/outlast/coordinator]
    #[arg(long, env = "OUTLAST_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Certificate chain (PEM): speak TLS
    #[arg(long, env = "OUTLAST_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM)
    #[arg(long, env = "OUTLAST_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Time between heartbeats [default: 5s]
    #[arg(long, value_parser = args::interval, value_name = "TIME")]
    heartbeat_interval: Option<f64>,
    /// Silence after which a worker's link is closed [default: 15s]
    #[arg(long, value_parser = args::interval, value_name = "TIME")]
    heartbeat_timeout: Option<f64>,
    /// Pin the heartbeat: it does not adapt to links. One that is given is pinned [default: none]
    #[arg(long, env = "OUTLAST_PIN", value_name = "WHAT,…")]
    pin: Option<Pins>,
    /// Time between WebSocket pings to each worker; 0 sends none [default: 30s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    ws_ping_interval: Option<f64>,
    /// Silence after a ping after which a worker's link is closed [default: 10s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    ws_ping_timeout: Option<f64>,
    /// Unfinished tasks accepted at a time [default: 1000000]
    #[arg(long, value_name = "N")]
    max_unfinished: Option<usize>,
    /// Keep checkpoints in this bucket, s3://BUCKET/PREFIX, instead of in the data folder
    #[arg(long, env = "OUTLAST_BLOB_STORE", value_name = "URL")]
    blob_store: Option<String>,
    /// Disk (or bucket) that checkpoints may take, such as 50G [default: as much as there is]
    #[arg(long, env = "OUTLAST_BLOB_BUDGET", value_parser = args::bytes, value_name = "SIZE")]
    blob_budget: Option<u64>,
    /// How long uploaded data stays that no checkpoint refers to yet [default: 1h]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    blob_grace: Option<f64>,
    /// Time between removals of data that nothing refers to [default: 10m]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    gc_interval: Option<f64>,
    /// How long checkpoints stay after their task succeeded or was cancelled [default: 7d]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    checkpoint_ttl: Option<f64>,
    /// How long tasks, and workers that are gone, are remembered [default: 90d]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    task_ttl: Option<f64>,
    /// Ended tasks that are remembered at most; the oldest go first [default: 2000000]
    #[arg(long, value_name = "N")]
    max_ended: Option<u64>,
    /// Disk that the history of links may take [default: 256M]
    #[arg(long, value_parser = args::bytes, value_name = "SIZE")]
    history_budget: Option<u64>,
    /// Send traces of tasks, and metrics, to this OpenTelemetry collector (OTLP, http/protobuf)
    #[arg(long, env = "OUTLAST_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Workers let in per second when many come at once; 0 is no limit [default: 1000]
    #[arg(long, value_name = "N")]
    admit_per_second: Option<u32>,
    /// Connections of one address other than loopback at most; 0 is no limit [default: half of all
    /// that the limit of open files allows]
    #[arg(long, value_name = "N")]
    max_connections_per_address: Option<usize>,
    /// Addresses of proxies that many peers come through: that limit does not hold for them
    #[arg(long, env = "OUTLAST_TRUSTED_PROXIES", value_delimiter = ',', value_name = "IP,…")]
    trusted_proxies: Vec<IpAddr>,
    /// What is done after failures, where it differs (TOML); see `outlast recovery --help`
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

/// The table of recovery: the built-in one, with what the file overrides.
fn table(file: Option<PathBuf>) -> Result<Arc<recovery::Config>, Usage> {
    let Some(path) = file else { return Ok(Arc::default()) };
    let file = RecoveryFile::from_value(crate::recovery::file(&path)?);
    let table = file.and_then(|file| recovery::Config::new(&file));
    table.map(Arc::new).map_err(|e| Usage(format!("{}: {e}", path.display())))
}

/// Where telemetry goes: the file gives way to OpenTelemetry's variables, these to the flag.
fn otel(flag: Option<&str>, file: Option<String>) -> Result<Option<OtelConfig>, Usage> {
    let flag = flag.filter(|url| !url.is_empty());
    let variable = |name: &str| {
        let set = std::env::var(name).ok().filter(|value| !value.is_empty());
        set.or_else(|| file.clone().filter(|_| name == "OTEL_EXPORTER_OTLP_ENDPOINT"))
    };
    OtelConfig::new(flag, &variable).map_err(Usage)
}

/// Addresses, with commas between them.
pub(crate) fn proxies(text: &str) -> Result<Vec<IpAddr>, String> {
    let all = text.split(',').map(str::trim).filter(|ip| !ip.is_empty());
    all.map(|ip| ip.parse().map_err(|_| format!("trusted_proxies: {ip:?} is no IP address")))
        .collect()
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let file = &context.config;
    let path = |key| file.text("coordinator", key).map(PathBuf::from);
    let ms = |flag: Option<f64>, key| {
        flag.or(file.seconds("coordinator", key)).map(|s| (s * 1000.0) as u64)
    };
    let listen = match (args.listen, file.text("coordinator", "listen")) {
        (Some(addr), _) => addr,
        (None, Some(text)) => {
            let wrong = |_| Usage(format!("[coordinator] listen: {text:?} must be ADDRESS:PORT"));
            text.parse().map_err(wrong)?
        }
        (None, None) => SocketAddr::from(([127, 0, 0, 1], 7117)),
    };
    let cert = args.tls_cert.or_else(|| path("tls_cert"));
    let key = args.tls_key.or_else(|| path("tls_key"));
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        _ => return Err(Usage("TLS needs both --tls-cert and --tls-key".into()).into()),
    };
    let default = CoordConfig::default();
    let given = (args.heartbeat_interval, args.heartbeat_timeout);
    let pins = args::pins(file, "coordinator", args.pin, given)?;
    let core = CoordConfig {
        version: env!("CARGO_PKG_VERSION").into(),
        heartbeat_interval: ms(args.heartbeat_interval, "heartbeat_interval")
            .unwrap_or(default.heartbeat_interval),
        heartbeat_timeout: ms(args.heartbeat_timeout, "heartbeat_timeout")
            .unwrap_or(default.heartbeat_timeout),
        max_unfinished: args
            .max_unfinished
            .or(file.number("coordinator", "max_unfinished"))
            .unwrap_or(default.max_unfinished),
        admit_per_second: args
            .admit_per_second
            .or(file.number("coordinator", "admit_per_second"))
            .unwrap_or(default.admit_per_second),
        recovery: table(args.recovery.or_else(|| path("recovery")))?,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        pins,
        ..default
    };
    if core.heartbeat_timeout <= core.heartbeat_interval {
        return Err(Usage("the heartbeat timeout must be longer than the interval".into()).into());
    }
    let ping = args::pings(file, "coordinator", (args.ws_ping_interval, args.ws_ping_timeout))?;
    let time = |flag: Option<f64>, key, default: Duration| -> Result<Duration, Usage> {
        let seconds = flag.or(file.seconds("coordinator", key));
        let Some(seconds) = seconds else { return Ok(default) };
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|t| !t.is_zero());
        time.ok_or_else(|| Usage(format!("{key}: {seconds} is no such time")))
    };
    let default = BlobConfig::default();
    let blobs = BlobConfig {
        bucket: args.blob_store.or_else(|| file.text("coordinator", "blob_store")),
        budget: args.blob_budget.or(file.bytes("coordinator", "blob_budget")),
        grace: time(args.blob_grace, "blob_grace", default.grace)?,
        collect_every: time(args.gc_interval, "gc_interval", default.collect_every)?,
        keep_done: time(args.checkpoint_ttl, "checkpoint_ttl", default.keep_done)?,
    };
    let default = RetentionConfig::default();
    let retention = RetentionConfig {
        keep: time(args.task_ttl, "task_ttl", default.keep)?,
        most: args.max_ended.or(file.number("coordinator", "max_ended")).unwrap_or(default.most),
        every: blobs.collect_every,
    };
    let default = WatchConfig::default();
    let budget = args.history_budget.or(file.bytes("coordinator", "history_budget"));
    let history_budget = budget.unwrap_or(default.history_budget);
    let otel = otel(args.otlp_endpoint.as_deref(), file.text("coordinator", "otlp_endpoint"))?;
    let watch = WatchConfig { history_budget, alerts: alerts::configured(context)?, otel };
    let per_address = args.max_connections_per_address;
    let proxies = match file.text("coordinator", "trusted_proxies") {
        Some(text) if args.trusted_proxies.is_empty() => proxies(&text).map_err(Usage)?,
        _ => args.trusted_proxies,
    };
    let connections = ConnectionConfig {
        per_address: per_address.or(file.number("coordinator", "max_connections_per_address")),
        proxies,
    };
    let data_dir = data_dir(context, args.data_dir)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    // Before anything may have to be ended cleanly.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let data = data_dir.clone();
    process::settle()?;
    let config =
        Config { listen, data_dir: data, tls, blobs, retention, core, watch, ping, connections };
    let key = firstkey::prepare(&data_dir, args.no_keys)?;
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
