//! A worker inside a Rust program: its functions run tasks, and outlive the network.

pub use outlast_core::adapt::Setting;
use outlast_core::stats::ConnectionState;
pub use outlast_core::stats::ConnectionStats;
use outlast_core::worker::WorkerConfig;
use outlast_worker::PingConfig;
use outlast_worker::shell::{Agent, AgentConfig, Function, Functions};
use outlast_worker::{capabilities, shell};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

pub use outlast_worker::local::{ArtifactView, CheckpointView, Control, HostError, StateView};
pub use shell::{Checkpoint, Ended, StartError, TaskContext};

/// Builds a [`Worker`].
///
/// # Examples
/// ```
/// use outlast::worker::Worker;
///
/// let builder = Worker::builder("http://127.0.0.1:7117", "/var/lib/trainer")
///     .name("trainer")
///     .slots(4)
///     .function("double", |task| Ok((2 * task.args.as_i64().unwrap_or(0)).into()));
/// ```
pub struct WorkerBuilder {
    coordinator: String,
    state_dir: PathBuf,
    api_key: Option<String>,
    ca: Option<PathBuf>,
    core: WorkerConfig,
    capabilities: Map<String, Value>,
    functions: Functions,
    blob_budget: Option<u64>,
    ping: PingConfig,
}

/// A worker that runs, until it is stopped or dropped.
///
/// Commands that it runs end with this program; the `outlast worker` command has a keeper for
/// them.
///
/// # Examples
/// ```
/// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
/// # common::with_coordinator(async |url, folder| {
/// use outlast::worker::Worker;
///
/// let worker = Worker::builder(url, folder.join("state"))
///     .function("double", |task| Ok((2 * task.args.as_i64().unwrap_or(0)).into()))
///     .start()?;
/// println!("{}", worker.drain().await.reason);
/// # Ok(())
/// # });
/// ```
pub struct Worker {
    agent: Agent,
}

impl Worker {
    /// A worker for this coordinator (`http://host:7117`), with its store, logs and checkpoints
    /// in `state_dir`.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("http://127.0.0.1:7117", "/var/lib/trainer");
    /// ```
    pub fn builder(coordinator: &str, state_dir: impl Into<PathBuf>) -> WorkerBuilder {
        WorkerBuilder {
            coordinator: coordinator.into(),
            state_dir: state_dir.into(),
            api_key: None,
            ca: None,
            core: WorkerConfig { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() },
            capabilities: capabilities::detect(),
            functions: Functions::new(),
            blob_budget: None,
            ping: PingConfig::default(),
        }
    }

    /// Returns whether the coordinator has accepted it.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// while !worker.is_connected() {
    ///     tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    /// }
    /// # worker.stop().await;
    /// # Ok(())
    /// # });
    /// ```
    pub fn is_connected(&self) -> bool {
        self.agent.status().borrow().0 == ConnectionState::Connected
    }
    /// Statistics of its link.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// # common::until("it to connect", async || worker.is_connected()).await;
    /// assert_eq!(worker.stats().successful_connections, 1);
    /// # worker.stop().await;
    /// # Ok(())
    /// # });
    /// ```
    pub fn stats(&self) -> ConnectionStats {
        self.agent.stats()
    }
    /// Dials at once, whatever the backoff says.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// // As when the program has learnt that the network is back.
    /// worker.force_reconnect();
    /// # worker.stop().await;
    /// # Ok(())
    /// # });
    /// ```
    pub fn force_reconnect(&self) {
        self.agent.force_reconnect();
    }
    /// Takes no new work, finishes and delivers what it has, and ends.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// # common::until("it to connect", async || worker.is_connected()).await;
    /// let ended = worker.drain().await;
    /// assert!(!ended.failed, "{}", ended.reason);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn drain(self) -> Ended {
        self.agent.drain();
        self.agent.wait().await
    }
    /// Stops what runs, keeps every result on disk, and ends. The next start delivers them.
    /// Functions are waited for: they should look at [`TaskContext::is_cancelled`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// let ended = worker.stop().await;
    /// assert!(!ended.failed, "{}", ended.reason);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn stop(self) -> Ended {
        self.agent.stop();
        self.agent.wait().await
    }
    /// Waits until it ends by itself, as after `max_reconnect_attempts`.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let worker = Worker::builder(url, folder.join("state")).start()?;
    /// tokio::select! {
    ///     ended = worker.wait() => eprintln!("{}", ended.reason),
    ///     () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {} // or a signal
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub async fn wait(self) -> Ended {
        self.agent.wait().await
    }
}

impl WorkerBuilder {
    /// The name people see; default: this machine's.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").name("trainer");
    /// ```
    pub fn name(mut self, name: &str) -> Self {
        self.core.name = name.into();
        self
    }
    /// Tasks at once; default 1.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").slots(8);
    /// ```
    pub fn slots(mut self, slots: u32) -> Self {
        self.core.slots = slots.max(1);
        self
    }
    /// A key of role worker.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let key = std::env::var("OUTLAST_API_KEY").ok();
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").api_key(key);
    /// ```
    pub fn api_key(mut self, key: Option<String>) -> Self {
        self.api_key = key;
        self
    }
    /// PEM file of authorities to trust instead of the system's.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let ca = Some("/etc/outlast/ca.pem".into());
    /// let builder = Worker::builder("https://tasks.example.org", "/var/lib/trainer").ca(ca);
    /// ```
    pub fn ca(mut self, file: Option<PathBuf>) -> Self {
        self.ca = file;
        self
    }
    /// A capability beside those that are found.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// // Tasks can require `"licences": ">=2"`.
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").capability("licences", 4.into());
    /// ```
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.into(), value);
        self
    }
    /// A label.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").label("site", "berlin");
    /// ```
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.core.labels.insert(key.into(), value.into());
        self
    }
    /// Between heartbeats, and the silence after which the link is dialled again. They stay so, and
    /// do not adapt to the link.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer")
    ///     .heartbeat(Duration::from_secs(10), Duration::from_secs(45));
    /// ```
    pub fn heartbeat(mut self, interval: Duration, timeout: Duration) -> Self {
        self.core.heartbeat.interval = interval.as_millis() as u64;
        self.core.heartbeat.timeout = timeout.as_millis() as u64;
        self.core.pins = self.core.pins.with(Setting::Heartbeat);
        self
    }
    /// A setting that is not to adapt to the link.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::{Setting, Worker};
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").pin(Setting::Compression);
    /// ```
    pub fn pin(mut self, setting: Setting) -> Self {
        self.core.pins = self.core.pins.with(setting);
        self
    }
    /// Between WebSocket pings (0: none), and how long nothing may arrive after one before the link
    /// is dialled again.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer")
    ///     .ws_ping(Duration::from_secs(20), Duration::from_secs(20));
    /// ```
    pub fn ws_ping(mut self, interval: Duration, timeout: Duration) -> Self {
        self.ping = PingConfig { interval, timeout };
        self
    }
    /// The first and the longest pause before dialling again.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer")
    ///     .reconnect_delay(Duration::from_millis(500), Duration::from_secs(30));
    /// ```
    pub fn reconnect_delay(mut self, first: Duration, longest: Duration) -> Self {
        self.core.reconnect.initial_delay = first.as_millis() as u64;
        self.core.reconnect.max_delay = longest.as_millis() as u64;
        self
    }
    /// Bytes of disk that checkpoints may take here; default: as much as there is.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").blob_budget(20_000_000_000);
    /// ```
    pub fn blob_budget(mut self, bytes: u64) -> Self {
        self.blob_budget = Some(bytes);
        self
    }
    /// A function that `call` tasks may name; each call has a thread of its own. An `Err`, or a
    /// panic, fails the task.
    ///
    /// # Examples
    /// ```
    /// use outlast::worker::Worker;
    ///
    /// let builder = Worker::builder("localhost", "/var/lib/trainer").function("wait", |task| {
    ///     match task.wait_while_paused() {
    ///         true => Ok("it goes on".into()),
    ///         false => Err("stopped".into()),
    ///     }
    /// });
    /// ```
    pub fn function(
        mut self,
        name: &str,
        body: impl Fn(TaskContext) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.functions.insert(name.into(), Function::new(body));
        self
    }

    /// Opens the state folder and dials. Needs a tokio runtime, on which the worker lives.
    ///
    /// # Errors
    /// [`StartError`] says what to mend.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_coordinator(async |url, folder| {
    /// use outlast::worker::Worker;
    ///
    /// let state = folder.join("state");
    /// let worker = Worker::builder(url, &state).start()?;
    /// // A folder has one worker at a time.
    /// assert!(Worker::builder(url, &state).start().is_err());
    /// # worker.stop().await;
    /// # Ok(())
    /// # });
    /// ```
    pub fn start(mut self) -> Result<Worker, StartError> {
        if self.core.name == WorkerConfig::default().name
            && let Some(host) = self.capabilities.get("hostname").and_then(Value::as_str)
        {
            self.core.name = host.into();
        }
        self.core.capabilities = Value::Object(self.capabilities).to_string();
        let agent = Agent::start(AgentConfig {
            coordinator: self.coordinator,
            state_dir: self.state_dir,
            api_key: self.api_key,
            ca_file: self.ca,
            core: self.core,
            exec: None,
            keeper: None,
            functions: self.functions,
            blob_budget: self.blob_budget,
            ping: self.ping,
            identity: Default::default(),
            run_as: None,
        })?;
        Ok(Worker { agent })
    }
}
