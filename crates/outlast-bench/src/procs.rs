//! The processes that are measured, and what the kernel says of them.

use anyhow::Context;
use outlast::Client;
use outlast_coordinator::{
    Config, Coordinator, OtelConfig, PingConfig, RetentionConfig, WatchConfig,
};
use outlast_core::coord::CoordConfig;
use outlast_core::worker::{ReconnectConfig, WorkerConfig};
use outlast_worker::keeper::{self, KeeperConfig, KeeperLaunch};
use outlast_worker::shell::{Agent, AgentConfig, Function, TaskContext};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) fn coordinator(addr: &str, dir: &str, otlp: Option<&str>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Long, since thousands of the benchmark's idle links answer no heartbeats.
        let core = CoordConfig { heartbeat_timeout: 300_000, ..Default::default() };
        let (listen, data_dir, blobs) = (addr.parse()?, dir.into(), Default::default());
        let otel = OtelConfig::new(otlp, &|_| None).map_err(anyhow::Error::msg)?;
        let watch = WatchConfig { otel, ..Default::default() };
        let retention = RetentionConfig::default();
        let ping = PingConfig { interval: Duration::ZERO, ..Default::default() };
        let connections = Default::default();
        let config = Config {
            listen,
            data_dir,
            tls: None,
            core,
            blobs,
            retention,
            watch,
            ping,
            connections,
        };
        let mut coordinator = Coordinator::start(config).await?;
        anyhow::bail!(coordinator.broken().await)
    })
}

pub(crate) fn worker(url: &str, dir: &str, slots: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let core = WorkerConfig {
            name: format!("bench-{slots}"),
            slots: slots.parse()?,
            reconnect: ReconnectConfig { initial_delay: 100, max_delay: 100, ..Default::default() },
            ..Default::default()
        };
        let noop = Function::inline(|_| Ok(serde_json::Value::Null));
        let config = AgentConfig {
            coordinator: url.into(),
            state_dir: dir.into(),
            api_key: None,
            ca_file: None,
            core,
            exec: None,
            // As the `outlast worker` command does.
            keeper: Some(KeeperLaunch {
                program: std::env::current_exe()?,
                args: vec!["keeper".into(), format!("{dir}/tasks").into()],
                user: None,
            }),
            blob_budget: None,
            ping: Default::default(),
            identity: Default::default(),
            run_as: None,
            functions: HashMap::from([
                ("noop".to_owned(), noop),
                ("checkpoint".to_owned(), Function::new(one_checkpoint)),
                ("checkpoints".to_owned(), Function::new(many_checkpoints)),
            ]),
        };
        let agent = Agent::start(config)?;
        let mut term = signal(SignalKind::terminate())?;
        let mut ended = agent.ended();
        tokio::select! {
            _ = term.recv() => agent.stop(),
            _ = ended.wait_for(Option::is_some) => {}
        }
        let ended = agent.wait().await;
        anyhow::ensure!(!ended.failed, ended.reason);
        Ok(())
    })
}

/// A checkpoint of the file `path`: how many seconds until it is durable here.
fn one_checkpoint(task: TaskContext) -> Result<Value, String> {
    let path = task.args["path"].as_str().ok_or("no path")?.to_owned();
    let start = Instant::now();
    task.checkpoint_path(path.as_ref(), Map::new()).map_err(|e| e.to_string())?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
}

/// `count` checkpoints of `size` fresh bytes each: the median time in milliseconds.
fn many_checkpoints(task: TaskContext) -> Result<Value, String> {
    let number = |name: &str| task.args[name].as_u64().unwrap_or(1) as usize;
    let (count, size) = (number("count"), number("size"));
    let mut random = std::fs::File::open("/dev/urandom").map_err(|e| e.to_string())?;
    let mut times = Vec::new();
    for _ in 0..count {
        let mut data = vec![0; size];
        random.read_exact(&mut data).map_err(|e| e.to_string())?;
        let start = Instant::now();
        task.checkpoint(data, Map::new()).map_err(|e| e.to_string())?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(json!({ "p50_ms": times[times.len() / 2] }))
}

pub(crate) fn keep(root: &str) -> anyhow::Result<()> {
    Ok(keeper::main(KeeperConfig::new(root))?)
}

/// A process that ends with the benchmark.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // A worker stops its keeper, when it is asked to.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// The number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
    fn spawn(args: &[&str]) -> anyhow::Result<Process> {
        let child =
            Command::new(std::env::current_exe()?).args(args).stdin(Stdio::null()).spawn()?;
        Ok(Process(child))
    }
    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }
    /// Resident memory in bytes.
    pub fn rss(&self) -> anyhow::Result<f64> {
        self.memory("VmRSS:")
    }
    /// Resident anonymous memory of the process in bytes.
    pub fn anonymous(&self) -> anyhow::Result<f64> {
        self.memory("RssAnon:")
    }
    fn memory(&self, which: &str) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|l| l.strip_prefix(which));
        let line = line.with_context(|| format!("no {which}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }
    /// Processor time so far in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let rest = stat.rsplit_once(')').context("odd stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // utime and stime, in ticks of 10 ms.
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }
}

/// A coordinator in a fresh folder.
pub(crate) struct Lab {
    pub coordinator: Process,
    pub client: Client,
    pub addr: String,
    dir: tempfile::TempDir,
}

impl Lab {
    pub async fn new() -> anyhow::Result<Lab> {
        Lab::with(&[]).await
    }
    /// A lab that exports traces and metrics to this address.
    pub async fn traced(url: &str) -> anyhow::Result<Lab> {
        Lab::with(&[url]).await
    }
    async fn with(more: &[&str]) -> anyhow::Result<Lab> {
        let addr = outlast_chaos::free_address()?.to_string();
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data").display().to_string();
        let coordinator = Process::spawn(&[&["coordinator", &addr, &data], more].concat())?;
        let client = Client::builder(&format!("http://{addr}")).build()?;
        client.info().await?;
        Ok(Lab { coordinator, client, addr, dir })
    }
    /// A file in the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Kills the coordinator with SIGKILL, and starts it again from its store.
    pub fn restart_coordinator(&mut self) -> anyhow::Result<()> {
        self.coordinator.0.kill()?;
        self.coordinator.0.wait()?;
        let data = self.path("data").display().to_string();
        self.coordinator = Process::spawn(&["coordinator", &self.addr, &data])?;
        Ok(())
    }
    /// A worker, connected; by way of another address if given.
    pub async fn worker(&self, slots: u32, via: Option<&str>) -> anyhow::Result<Process> {
        let url = format!("http://{}", via.unwrap_or(&self.addr));
        let dir = self.dir.path().join(format!("worker-{slots}")).display().to_string();
        let worker = Process::spawn(&["worker", &url, &dir, &slots.to_string()])?;
        self.connected(1).await?;
        Ok(worker)
    }
    /// Waits for so many connected workers.
    pub async fn connected(&self, count: usize) -> anyhow::Result<()> {
        loop {
            let all = self.client.workers().await?.workers;
            if all.iter().filter(|w| w.state == "connected").count() >= count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    /// Waits for so many tasks that ended well.
    pub async fn succeeded(&self, count: u64) -> anyhow::Result<()> {
        self.succeeded_by(count, Duration::from_millis(5)).await
    }
    /// The same, looking only so often, and seldom before the end comes near: who asks takes from
    /// the processors that the tasks are measured on.
    pub async fn succeeded_by(&self, count: u64, pause: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let counts = self.client.counts().await?;
            anyhow::ensure!(counts.failed == 0, "{} tasks failed", counts.failed);
            if counts.succeeded >= count {
                return Ok(());
            }
            let left = (count - counts.succeeded) as f64 / (counts.succeeded.max(1)) as f64;
            let half = start.elapsed().mul_f64(left.min(1.0) / 2.0);
            tokio::time::sleep(half.clamp(pause, Duration::from_secs(1).max(pause))).await;
        }
    }
}
