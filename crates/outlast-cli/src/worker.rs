//! `outlast worker`.

use crate::drain::{self, Drain};
use crate::{Context, Usage, args, browser, config, process, run_as};
use outlast_core::adapt::Pins;
use outlast_core::worker::WorkerConfig;
use outlast_spawn::User;
use outlast_store::{StoreError, WorkerStore};
use outlast_wire::spec::check_task_id;
use outlast_worker::capabilities;
use outlast_worker::exec::Config as ExecConfig;
use outlast_worker::keeper::KeeperLaunch;
use outlast_worker::local::RunAs;
use outlast_worker::shell::{Agent, AgentConfig, Functions, Identity, StartError};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Run a worker.
#[derive(clap::Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM once: finish what runs, take nothing new. Twice: stop what runs.
Three times: end at once. Results are on disk before anything else, so none is lost either way.

Examples:
  outlast worker --slots 4
  outlast worker --coordinator https://hub:7117 --label zone=lab --capability gpu_memory=24
  sudo outlast worker --run-as tasks --state-dir /var/lib/outlast/worker"
)]
pub(crate) struct Args {
    /// Its name [default: this machine's]
    #[arg(long, env = "OUTLAST_WORKER_NAME")]
    name: Option<String>,
    /// Tasks at once [default: processor cores]
    #[arg(long, env = "OUTLAST_WORKER_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(args::MAX_SLOTS)))]
    slots: Option<u32>,
    /// Further tasks that may wait here [default: the coordinator chooses]
    #[arg(long, env = "OUTLAST_WORKER_PREFETCH", value_name = "N")]
    prefetch: Option<u32>,
    /// Folder of its store and logs [default: ~/.local/state/outlast/worker-NAME]
    #[arg(long, env = "OUTLAST_STATE_DIR", value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// User whom tasks run as: they cannot read the worker's state folder, keys and logs, nor signal
    /// it. The worker must be root, and its state folder where every user can go through to
    /// [default: the worker's own user]
    #[arg(long, env = "OUTLAST_RUN_AS", value_name = "USER")]
    run_as: Option<String>,
    /// A label
    #[arg(long = "label", value_parser = args::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Something that it has; the value is JSON, or else text
    #[arg(long = "capability", value_parser = args::pair, value_name = "KEY=VALUE")]
    capabilities: Vec<(String, String)>,
    /// Look for no browser, and run no browser tasks
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    which: browser::Which,
    /// Disk that checkpoints may take here, such as 20G [default: as much as there is]
    #[arg(long, value_parser = args::bytes, value_name = "SIZE")]
    blob_budget: Option<u64>,
    /// What SIGTERM and the first Ctrl-C do [default: drain]
    #[arg(long, value_parser = args::ON_TERM, value_name = "WHAT")]
    on_term: Option<String>,
    /// How long a drain waits for a coordinator that is away once nothing runs any more; what is not
    /// delivered stays in the state folder. 0 waits for ever [default: 60s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    drain_timeout: Option<f64>,
    /// Time between heartbeats [default: 5s]
    #[arg(long, value_parser = args::interval, value_name = "TIME")]
    heartbeat_interval: Option<f64>,
    /// Silence after which the link is dialled again [default: 15s]
    #[arg(long, value_parser = args::interval, value_name = "TIME")]
    heartbeat_timeout: Option<f64>,
    /// Settings that do not adapt to the link, of heartbeat, batch, compression, checkpoints,
    /// telemetry; or all. A heartbeat that is given is pinned [default: none]
    #[arg(long, env = "OUTLAST_PIN", value_name = "WHAT,…")]
    pin: Option<Pins>,
    /// Time between WebSocket pings; 0 sends none [default: 30s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    ws_ping_interval: Option<f64>,
    /// Silence after a ping after which the link is dialled again [default: 10s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    ws_ping_timeout: Option<f64>,
    /// First pause before dialling again [default: 1s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    initial_reconnect_delay: Option<f64>,
    /// Longest pause before dialling again [default: 60s]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    max_reconnect_delay: Option<f64>,
    /// Failed dials in a row before giving up; 0 is never [default: 0]
    #[arg(long, value_name = "N")]
    max_reconnect_attempts: Option<u32>,
    /// Start as a new worker: for a state folder that is a copy of another worker's. What it
    /// holds of that one is put aside
    #[arg(long, conflicts_with = "keep_identity")]
    new_identity: bool,
    /// Start though this state folder was found to be a copy: the other one is gone, and forgotten
    #[arg(long)]
    keep_identity: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let file = &context.config;
    let found = capabilities::detect();
    let run_as = args.run_as.or(file.text("worker", "run_as"));
    let user = run_as.map(|name| run_as::user(&name)).transpose()?;
    let by_default = args.name.is_none() && args.state_dir.is_none();
    let name = args
        .name
        .or(file.text("worker", "name"))
        .or_else(|| found.get("hostname").and_then(Value::as_str).map(ToOwned::to_owned));
    let name = name.unwrap_or_else(|| "worker".into());
    check_task_id(&name).map_err(|_| {
        Usage(format!("{name:?} is no worker name; use 1 to 128 of A-Z a-z 0-9 . _ : -"))
    })?;
    let state_dir = args.state_dir.or(file.text("worker", "state_dir").map(PathBuf::from));
    let state_dir = state_dir.or_else(|| {
        let home = config::folder("XDG_STATE_HOME", ".local/state")?;
        Some(home.join("outlast").join(format!("worker-{name}")))
    });
    let state_dir = state_dir.ok_or_else(|| Usage("give a folder with --state-dir".into()))?;
    let which = args.which.or(file.text("worker", "browser"));
    let mut found = found;
    if !args.no_browser {
        look_for_browser(&which, &mut found).await;
    }
    let default = WorkerConfig::default();
    let ms = |flag: Option<f64>, key, default: u64| {
        flag.or(file.seconds("worker", key)).map_or(default, |s| (s * 1000.0) as u64)
    };
    let cores = found.get("cores").and_then(Value::as_u64).unwrap_or(1);
    let given = (args.heartbeat_interval, args.heartbeat_timeout);
    let pins = args::pins(file, "worker", args.pin, given)?;
    let core = WorkerConfig {
        slots: args.slots.or(file.number("worker", "slots")).unwrap_or(cores as u32),
        prefetch: args.prefetch.or(file.number("worker", "prefetch")).unwrap_or(0),
        labels: labels(file, args.labels),
        capabilities: capabilities(found, file, args.capabilities)?,
        version: env!("CARGO_PKG_VERSION").into(),
        heartbeat_interval: ms(
            args.heartbeat_interval,
            "heartbeat_interval",
            default.heartbeat_interval,
        ),
        heartbeat_timeout: ms(
            args.heartbeat_timeout,
            "heartbeat_timeout",
            default.heartbeat_timeout,
        ),
        initial_reconnect_delay: ms(
            args.initial_reconnect_delay,
            "initial_reconnect_delay",
            default.initial_reconnect_delay,
        ),
        max_reconnect_delay: ms(
            args.max_reconnect_delay,
            "max_reconnect_delay",
            default.max_reconnect_delay,
        ),
        reconnect_jitter: file
            .number("worker", "reconnect_jitter")
            .unwrap_or(default.reconnect_jitter),
        max_reconnect_attempts: args
            .max_reconnect_attempts
            .or(file.number("worker", "max_reconnect_attempts"))
            .unwrap_or(0),
        stage: default.stage,
        stage_below: default.stage_below,
        stage_for: default.stage_for,
        pins,
        name: name.clone(),
        nonce: default.nonce,
    };
    if core.heartbeat_timeout <= core.heartbeat_interval {
        return Err(Usage("the heartbeat timeout must be longer than the interval".into()).into());
    }
    let ping = args::pings(file, "worker", (args.ws_ping_interval, args.ws_ping_timeout))?;
    let slots = core.slots;
    let mut exec = ExecConfig::new(state_dir.join("tasks"));
    exec.extra_env = which.env();
    let config = AgentConfig {
        coordinator: context.url(),
        state_dir: state_dir.clone(),
        api_key: context.api_key(),
        ca_file: context.ca(),
        core,
        exec: Some(exec),
        keeper: keeper(&state_dir, user.as_ref())?,
        blob_budget: args.blob_budget.or(file.bytes("worker", "blob_budget")),
        functions: Functions::new(),
        ping,
        identity: match (args.new_identity, args.keep_identity) {
            (true, _) => Identity::New,
            (_, true) => Identity::Keep,
            _ => Identity::Folder,
        },
        run_as: user.clone().map(files).transpose()?,
    };
    let stop_first = args.on_term.or(file.text("worker", "on_term")).as_deref() == Some("stop");
    let drain_timeout = args.drain_timeout.or(file.seconds("worker", "drain_timeout"));
    let drain_timeout = drain_timeout
        .map_or(drain::PATIENCE, |s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX));
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    process::settle()?;
    let agent = Agent::start(config).map_err(|e| in_use(e, &state_dir))?;
    let state = state_dir.display();
    tracing::info!("worker {name}, {slots} slots, for {}, state in {state}", context.url());
    if let Some(user) = &user {
        tracing::info!("tasks run as user {} ({})", user.name, user.uid);
    }
    if by_default {
        left_behind(&state_dir);
    }
    let mut left = None;
    let ended = {
        let mut times = u32::from(stop_first);
        let mut status = agent.ended();
        let mut drain: Option<Drain> = None;
        loop {
            tokio::select! {
                _ = status.wait_for(Option::is_some) => break,
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = tokio::time::sleep(drain::LOOK), if drain.is_some() => {
                    if let Some(waits) = drain.as_mut()
                        && waits.look(&agent)
                    {
                        left = Some(waits.leaves(&agent));
                        drain = None;
                        agent.stop();
                    }
                    continue;
                }
            }
            times += 1;
            match times {
                1 => {
                    let (running, _, unacked) = agent.load();
                    tracing::info!(
                        "draining: {running} tasks run on, {unacked} results are on the way; \
                         again to stop them"
                    );
                    drain = Some(Drain::new(drain_timeout, context.url(), &state_dir));
                    agent.drain();
                }
                2 => {
                    tracing::info!("stopping what runs; again to end at once");
                    drain = None;
                    agent.stop();
                }
                _ => return Ok(130),
            }
        }
        agent.wait().await
    };
    if ended.failed {
        // The other reasons are a broken store, and a coordinator that will not have it.
        if !ended.reason.starts_with("gave up after") {
            anyhow::bail!("{}", ended.reason);
        }
        eprintln!("outlast: {}", ended.reason);
        return Ok(5);
    }
    if let Some(left) = left {
        eprintln!("outlast: {left}");
        return Ok(5);
    }
    tracing::info!("ended: {}", ended.reason);
    Ok(0)
}

/// Adds what to do about a folder that another process has.
fn in_use(error: StartError, state_dir: &Path) -> anyhow::Error {
    let locked = matches!(error, StartError::Store(StoreError::Locked { .. }));
    let error = anyhow::Error::from(error);
    if !locked {
        return error;
    }
    anyhow::anyhow!(
        "{error}; the state folder {} serves one worker at a time. If that one drains, it waits for \
         what runs and for its coordinator: a second SIGTERM makes it leave, and its results stay \
         in the folder. To run another worker beside it, give that --name and --state-dir",
        state_dir.display()
    )
}

/// Says what workers of other names left undelivered beside this one's folder: a machine whose name
/// changes would else leave its results behind in silence.
fn left_behind(state_dir: &Path) {
    let Some(folders) = state_dir.parent().and_then(|all| std::fs::read_dir(all).ok()) else {
        return;
    };
    for folder in folders.flatten().map(|entry| entry.path()).filter(|path| path != state_dir) {
        let name = folder.file_name().and_then(|name| name.to_str()?.strip_prefix("worker-"));
        let Some(name) = name else { continue };
        // One that is in use delivers them itself.
        let undelivered = WorkerStore::undelivered(&folder.join("worker.db"));
        if let Ok(Some(results)) = undelivered
            && results > 0
        {
            tracing::warn!(
                "{results} results of worker {name} were never delivered, and nothing runs in its \
                 folder {}. Was this machine's name {name} before? `outlast worker --name {name}` \
                 goes on with them",
                folder.display()
            );
        }
    }
}

/// Says of itself what its browser can do. A worker without one is as good for all other tasks.
async fn look_for_browser(which: &browser::Which, found: &mut Map<String, Value>) {
    match which.probe().await {
        Ok(browser) => {
            let able = |name, who: Option<_>| who.map(|who| format!(", {name} in {who:?}"));
            let able = [able("WebGL", browser.webgl), able("WebGPU", browser.webgpu)];
            let able = able.into_iter().flatten().collect::<String>().to_lowercase();
            tracing::info!("browser: {} {}{able}", browser.name, browser.version);
            browser::capabilities(&browser, found);
        }
        Err(why) if which.named() => tracing::warn!("no browser tasks here: {why}"),
        Err(why) => tracing::info!("no browser tasks here: {why}"),
    }
}

/// Commands run under a process of their own, so that they outlive this one.
fn keeper(state_dir: &Path, user: Option<&User>) -> anyhow::Result<Option<KeeperLaunch>> {
    let root = std::path::absolute(state_dir.join("tasks"))?;
    let mut args = vec!["keeper".into(), "--root".into(), root.into_os_string()];
    if let Some(user) = user {
        args.extend(["--run-as".into(), OsString::from(&user.name)]);
    }
    Ok(Some(KeeperLaunch { program: std::env::current_exe()?, args, user: user.cloned() }))
}

/// Files that tasks of another user name are read and written by a process of that user's.
fn files(user: User) -> anyhow::Result<RunAs> {
    Ok(RunAs { user, program: std::env::current_exe()?, args: vec!["files".into()] })
}

fn labels(
    file: &config::File,
    flags: Vec<(String, String)>,
) -> std::collections::BTreeMap<String, String> {
    let mut labels = std::collections::BTreeMap::new();
    for (key, value) in file.table("worker", "labels").into_iter().flatten() {
        labels.insert(key.clone(), value.as_str().map_or(value.to_string(), ToOwned::to_owned));
    }
    labels.extend(flags);
    labels
}

fn capabilities(
    mut found: Map<String, Value>,
    file: &config::File,
    flags: Vec<(String, String)>,
) -> anyhow::Result<String> {
    for (key, value) in file.table("worker", "capabilities").into_iter().flatten() {
        found.insert(key.clone(), serde_json::to_value(value)?);
    }
    for (key, text) in flags {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        found.insert(key, value);
    }
    Ok(serde_json::to_string(&found)?)
}
