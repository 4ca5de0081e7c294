//! `outlast worker`.

use crate::args::{self, Size, Time};
use crate::config::{self, Origin};
use crate::context::Context;
use crate::drain::{self, Drain};
use crate::exit::Usage;
use crate::link::Link;
use crate::{browser, process, run_as};
use outlast_core::worker::{HeartbeatConfig, ReconnectConfig, WorkerConfig};
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
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    /// Name of the worker [default: this machine's]
    #[arg(long, env = "OUTLAST_WORKER_NAME")]
    name: Option<String>,
    /// Number of simultaneous tasks [default: processor cores]
    #[arg(long, env = "OUTLAST_WORKER_SLOTS", value_name = "N", value_parser = args::whole::<u32>(1..=args::MAX_SLOTS))]
    slots: Option<u32>,
    /// Number of further tasks that may wait here [default: chosen by the coordinator]
    #[arg(long, env = "OUTLAST_WORKER_PREFETCH", value_name = "N", value_parser = args::whole::<u32>(0..=args::MAX_U32))]
    prefetch: Option<u32>,
    /// State folder, with the store and logs [default: ~/.local/state/outlast/worker-NAME]
    #[arg(long, env = "OUTLAST_STATE_DIR", value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// User that tasks run as, without access to the worker's state folder, keys and logs. The worker
    /// must be root, and every user must be able to traverse the path to its state folder
    /// [default: the worker's own user]
    #[arg(long, env = "OUTLAST_RUN_AS", value_name = "USER")]
    run_as: Option<String>,
    /// Add a label
    #[arg(long = "label", value_parser = args::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Capability of the worker; the value is JSON, or else text
    #[arg(long = "capability", value_parser = args::pair, value_name = "KEY=VALUE")]
    capabilities: Vec<(String, String)>,
    /// Do not look for a browser, and run no browser tasks
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    which: browser::Which,
    /// Disk space for checkpoints, such as 20G [default: no limit]
    #[arg(long, value_name = "SIZE")]
    blob_budget: Option<Size>,
    /// Reaction to SIGTERM and the first Ctrl-C
    #[arg(long, value_parser = ["drain", "stop"], value_name = "WHAT", default_value = "drain")]
    on_term: String,
    /// Time that a drain waits for a coordinator that is away once nothing runs any more; results that
    /// are not delivered stay in the state folder. 0 waits without a limit
    #[arg(long, value_name = "TIME", default_value_t = Time(drain::PATIENCE))]
    drain_timeout: Time,
    #[command(flatten)]
    link: Link,
    /// First pause before a reconnect
    #[arg(long, value_name = "TIME", default_value_t = Time::from_ms(ReconnectConfig::default().initial_delay))]
    initial_reconnect_delay: Time,
    /// Longest pause before a reconnect
    #[arg(long, value_name = "TIME", default_value_t = Time::from_ms(ReconnectConfig::default().max_delay))]
    max_reconnect_delay: Time,
    /// Random variation of a pause, as a share of it
    #[arg(long, value_parser = args::share, value_name = "SHARE", default_value_t = ReconnectConfig::default().jitter)]
    reconnect_jitter: f64,
    /// Consecutive failed connection attempts after which the worker ends; 0 is no limit
    #[arg(long, value_name = "N", value_parser = args::whole::<u32>(0..=args::MAX_U32), default_value_t = 0)]
    max_reconnect_attempts: u32,
    /// Start as a new worker, for a state folder that is a copy of another worker's. The previous
    /// content of the folder is set aside
    #[arg(long, conflicts_with = "keep_identity")]
    new_identity: bool,
    /// Start although this state folder was found to be a copy: the other worker has ended, and was
    /// forgotten
    #[arg(long)]
    keep_identity: bool,
}

impl Args {
    /// The worker's name: the configured one, or the machine's.
    fn name(&mut self, found: &Map<String, Value>) -> Result<String, Usage> {
        let host = || found.get("hostname").and_then(Value::as_str).map(ToOwned::to_owned);
        let name = self.name.take().or_else(host).unwrap_or_else(|| "worker".into());
        check_task_id(&name).map_err(|_| {
            Usage(format!("{name:?} is not a worker name; use 1 to 128 of A-Z a-z 0-9 . _ : -"))
        })?;
        Ok(name)
    }

    fn state_dir(&mut self, name: &str) -> Result<PathBuf, Usage> {
        let home = || {
            let home = config::folder("XDG_STATE_HOME", ".local/state")?;
            Some(home.join("outlast").join(format!("worker-{name}")))
        };
        let state_dir = self.state_dir.take().or_else(home);
        state_dir.ok_or_else(|| Usage("give a folder with --state-dir".into()))
    }

    /// The core's configuration.
    fn core(
        &mut self,
        context: &Context,
        name: &str,
        found: Map<String, Value>,
    ) -> anyhow::Result<WorkerConfig> {
        self.link.check()?;
        let given = ["heartbeat_interval", "heartbeat_timeout"];
        let given = given.iter().any(|key| context.origin(key) > Origin::Default);
        let cores = found.get("cores").and_then(Value::as_u64).unwrap_or(1);
        let file = &context.config;
        Ok(WorkerConfig {
            name: name.to_owned(),
            slots: self.slots.unwrap_or(cores as u32),
            prefetch: self.prefetch.unwrap_or(0),
            labels: labels(file, std::mem::take(&mut self.labels)),
            capabilities: capabilities(found, file, std::mem::take(&mut self.capabilities))?,
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat: HeartbeatConfig {
                interval: self.link.heartbeat_interval.ms(),
                timeout: self.link.heartbeat_timeout.ms(),
            },
            reconnect: ReconnectConfig {
                initial_delay: self.initial_reconnect_delay.ms(),
                max_delay: self.max_reconnect_delay.ms(),
                jitter: self.reconnect_jitter,
                max_attempts: self.max_reconnect_attempts,
            },
            pins: self.link.pins(given),
            ..WorkerConfig::default()
        })
    }
}

pub(crate) async fn run(context: &Context, mut args: Args) -> anyhow::Result<u8> {
    let mut found = capabilities::detect();
    let user = args.run_as.take().map(|name| run_as::user(&name)).transpose()?;
    let by_default = ["name", "state_dir"].iter().all(|key| context.origin(key) <= Origin::File);
    let name = args.name(&found)?;
    let state_dir = args.state_dir(&name)?;
    if !args.no_browser {
        look_for_browser(&args.which, &mut found).await;
    }
    let core = args.core(context, &name, found)?;
    let slots = core.slots;
    let mut exec = ExecConfig::new(state_dir.join("tasks"));
    exec.extra_env = args.which.env();
    let config = AgentConfig {
        coordinator: context.url(),
        state_dir: state_dir.clone(),
        api_key: context.api_key(),
        ca_file: context.ca(),
        core,
        exec: Some(exec),
        keeper: keeper(&state_dir, user.as_ref())?,
        blob_budget: args.blob_budget.map(|Size(bytes)| bytes),
        functions: Functions::new(),
        ping: args.link.ping(),
        identity: match (args.new_identity, args.keep_identity) {
            (true, _) => Identity::New,
            (_, true) => Identity::Keep,
            _ => Identity::Folder,
        },
        run_as: user.clone().map(files).transpose()?,
    };
    let term = signal(SignalKind::terminate())?;
    let int = signal(SignalKind::interrupt())?;
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
    let stops = u32::from(args.on_term == "stop");
    let drain = || Drain::new(args.drain_timeout.0, context.url(), &state_dir);
    let Some(left) = until_ended(&agent, [term, int], stops, drain).await else { return Ok(130) };
    let ended = agent.wait().await;
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

/// Waits until the agent has ended. The first signal drains it, the second stops it (`stops` were
/// counted before), the third returns `None` at once. Otherwise the text of what a drain left
/// undelivered, if anything.
async fn until_ended<'a>(
    agent: &Agent,
    [mut term, mut int]: [Signal; 2],
    mut stops: u32,
    begin: impl Fn() -> Drain<'a>,
) -> Option<Option<String>> {
    let mut left = None;
    let mut status = agent.ended();
    let mut drain: Option<Drain<'_>> = None;
    loop {
        tokio::select! {
            _ = status.wait_for(Option::is_some) => return Some(left),
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = tokio::time::sleep(drain::LOOK), if drain.is_some() => {
                if let Some(waits) = drain.as_mut()
                    && waits.look(agent)
                {
                    left = Some(waits.leaves(agent));
                    drain = None;
                    agent.stop();
                }
                continue;
            }
        }
        stops += 1;
        match stops {
            1 => {
                let (running, _, unacked) = agent.load();
                tracing::info!(
                    "draining: {running} tasks run on, {unacked} results are on the way; \
                     again to stop them"
                );
                drain = Some(begin());
                agent.drain();
            }
            2 => {
                tracing::info!("stopping what runs; again to end at once");
                drain = None;
                agent.stop();
            }
            _ => return None,
        }
    }
}

/// Adds advice to the error about a folder that another process uses.
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

/// Warns about undelivered results of workers of other names next to this one's folder, which a machine
/// would otherwise silently leave behind when its name changes.
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

/// Adds the capabilities of the browser. A worker without one runs all other tasks.
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

/// Command that starts the keeper, under which commands outlive this process.
fn keeper(state_dir: &Path, user: Option<&User>) -> anyhow::Result<Option<KeeperLaunch>> {
    let root = std::path::absolute(state_dir.join("tasks"))?;
    let mut args = vec!["keeper".into(), "--root".into(), root.into_os_string()];
    if let Some(user) = user {
        args.extend(["--run-as".into(), OsString::from(&user.name)]);
    }
    Ok(Some(KeeperLaunch { program: std::env::current_exe()?, args, user: user.cloned() }))
}

/// Command that starts a process which accesses files for tasks of another user, as that user.
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
