//! The worker that runs tasks by a Python function.

use crate::errors::{error, system};
use crate::pool::Pool;
use crate::thread;
use crate::wait::{SLICE, wait};
use outlast_core::adapt::{Pins, Setting};
use outlast_core::stats::ConnectionState;
use outlast_core::worker::{HeartbeatConfig, ReconnectConfig, WorkerConfig};
use outlast_worker::shell::{self, ANY, AgentConfig, Ended, Function, StartError, Status};
use outlast_worker::{PingConfig, capabilities};
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

struct Running {
    agent: shell::Agent,
    runtime: Runtime,
    /// Processes that run functions, if these do not run in threads of this process.
    pool: Option<Arc<Pool>>,
}

/// A worker's agent with its threads. After `close` it has none.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Agent {
    running: Mutex<Option<Running>>,
    /// Threads do not survive a fork: in a child the agent is not touched.
    process: u32,
}

fn start_error(py: Python<'_>, e: &StartError) -> PyErr {
    let class = match e {
        StartError::Dial(_) | StartError::RunAs(..) => "ConfigurationError",
        StartError::Folder(..)
        | StartError::Store(_)
        | StartError::Blobs(_)
        | StartError::Copied(..) => "StateFolderError",
        StartError::Runner(_) | StartError::Local(_) | StartError::Thread(_) => "OutlastError",
    };
    error(py, class, e.to_string().as_str())
}

fn text(options: &Value, name: &str) -> Option<String> {
    options[name].as_str().map(ToOwned::to_owned)
}

fn millis(options: &Value, name: &str, default: u64) -> u64 {
    options[name].as_f64().map_or(default, |seconds| (seconds * 1000.0).round() as u64)
}

fn ping(options: &Value) -> PingConfig {
    let base = PingConfig::default();
    let time = |name: &str, default: Duration| {
        let seconds = options[name].as_f64();
        seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(default)
    };
    PingConfig {
        interval: time("ws_ping_interval", base.interval),
        timeout: time("ws_ping_timeout", base.timeout),
    }
}

fn config(options: &Value) -> AgentConfig {
    let base = WorkerConfig::default();
    let name = text(options, "name").unwrap_or(base.name.clone());
    let mut found = capabilities::detect();
    if let Value::Object(own) = &options["capabilities"] {
        found.extend(own.clone());
    }
    let labels = options["labels"].as_object().into_iter().flatten();
    let count = |name: &str, default: u32| {
        options[name].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let heartbeat = HeartbeatConfig {
        interval: millis(options, "heartbeat_interval", base.heartbeat.interval),
        timeout: millis(options, "heartbeat_timeout", base.heartbeat.timeout),
    };
    let pins: Pins = text(options, "pin").and_then(|p| p.parse().ok()).unwrap_or_default();
    // What somebody chose stays so.
    let chosen = heartbeat != base.heartbeat;
    let reconnect = base.reconnect;
    let core = WorkerConfig {
        name,
        pins: if chosen { pins.with(Setting::Heartbeat) } else { pins },
        slots: count("slots", base.slots).max(1),
        capabilities: Value::Object(found).to_string(),
        labels: labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.into()))).collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        heartbeat,
        reconnect: ReconnectConfig {
            initial_delay: millis(options, "initial_reconnect_delay", reconnect.initial_delay),
            max_delay: millis(options, "max_reconnect_delay", reconnect.max_delay),
            jitter: options["reconnect_jitter"].as_f64().unwrap_or(reconnect.jitter),
            max_attempts: count("max_reconnect_attempts", reconnect.max_attempts),
        },
        ..base
    };
    AgentConfig {
        coordinator: text(options, "coordinator").unwrap_or_default(),
        state_dir: text(options, "state_dir").unwrap_or_default().into(),
        api_key: text(options, "api_key"),
        ca_file: text(options, "ca").map(Into::into),
        core,
        exec: None,
        keeper: None,
        functions: shell::Functions::new(),
        blob_budget: options["blob_budget"].as_u64(),
        ping: ping(options),
        identity: Default::default(),
        run_as: None,
    }
}

/// The processes, if the options want any.
fn pool(
    options: &Value,
    slots: u32,
    define: Option<Py<PyAny>>,
) -> std::io::Result<Option<Arc<Pool>>> {
    let (Some(boot), Some(define)) = (text(options, "boot"), define) else { return Ok(None) };
    let command = options["command"].as_array().into_iter().flatten();
    let command = command.filter_map(|part| part.as_str().map(ToOwned::to_owned)).collect();
    Pool::start(command, boot, slots as usize, define).map(Some)
}

/// Tells Python of each change of the link.
async fn follow(mut status: watch::Receiver<Status>, told: Py<PyAny>) {
    let told = Arc::new(told);
    while status.changed().await.is_ok() {
        let (state, reason) = status.borrow_and_update().clone();
        let told = told.clone();
        let said = tokio::task::spawn_blocking(move || {
            Python::try_attach(|py| {
                if let Err(e) = told.call1(py, (state.as_str(), reason)) {
                    e.write_unraisable(py, None);
                }
            })
        });
        if said.await.is_err() {
            return;
        }
    }
}

impl Agent {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, py: Python<'_>, look: impl FnOnce(&Running) -> T + Send) -> PyResult<T>
    where
        T: Send,
    {
        if self.process != std::process::id() {
            let why = "this worker belongs to the process that this one was forked from";
            return Err(error(py, "StoppedError", why));
        }
        let looked = py.detach(|| self.lock().as_ref().map(look));
        looked.ok_or_else(|| error(py, "StoppedError", "the worker has been stopped"))
    }
}

#[pymethods]
impl Agent {
    /// Starts. `options` is a JSON object; `call(context)` runs a task and answers (went well,
    /// JSON, message, was stopped); `told(state, reason)` hears of the link. With the options `command` and
    /// `boot` tasks run in processes instead, which learn of a function by `define(name)`.
    #[new]
    #[pyo3(signature = (options, call, told, define=None))]
    fn new(
        py: Python<'_>,
        options: &str,
        call: Py<PyAny>,
        told: Py<PyAny>,
        define: Option<Py<PyAny>>,
    ) -> PyResult<Agent> {
        let options: Value = serde_json::from_str(options)
            .map_err(|e| error(py, "ConfigurationError", e.to_string().as_str()))?;
        let mut config = config(&options);
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("outlast").enable_all().build();
        let runtime = runtime.map_err(|e| start_error(py, &StartError::Thread(e)))?;
        let handle = runtime.handle().clone();
        let pool = pool(&options, config.core.slots, define)
            .map_err(|e| system("starting processes for tasks", &e))?;
        let body = match pool.clone() {
            Some(pool) => Function::detailed(move |context| pool.run(&context)),
            None => Function::detailed(move |context| thread::run(&call, context, &handle)),
        };
        config.functions.insert(ANY.into(), body);
        let started = py.detach(|| {
            let entered = runtime.enter();
            let agent = shell::Agent::start(config)?;
            drop(entered);
            runtime.spawn(follow(agent.status(), told));
            Ok(Running { agent, runtime, pool: pool.clone() })
        });
        if let (Err(_), Some(pool)) = (&started, pool) {
            py.detach(|| pool.close());
        }
        let running = started.map_err(|e| start_error(py, &e))?;
        Ok(Agent { running: Mutex::new(Some(running)), process: std::process::id() })
    }

    /// (state, why)
    fn status(&self, py: Python<'_>) -> PyResult<(&'static str, String)> {
        let (state, why) = self.with(py, |r| r.agent.status().borrow().clone())?;
        Ok((state.as_str(), why))
    }

    /// Statistics of the link as a JSON object; times in seconds, latencies in milliseconds.
    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.with(py, |r| r.agent.stats())?;
        let now = shell::now();
        let document = json!({
            "connected_time": stats.connected_time(now) as f64 / 1000.0,
            "disconnected_time": stats.disconnected_time(now) as f64 / 1000.0,
            "connection_attempts": stats.connection_attempts,
            "successful_connections": stats.successful_connections,
            "failed_connections": stats.failed_connections,
            "last_connected": stats.last_connected.map(|ms| ms as f64 / 1000.0),
            "last_disconnected": stats.last_disconnected.map(|ms| ms as f64 / 1000.0),
            "latency_samples": stats.latency_samples().collect::<Vec<_>>(),
        });
        Ok(document.to_string())
    }

    fn reset_stats(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |r| r.agent.reset_stats())
    }

    /// (running, waiting, records that the coordinator has not acknowledged)
    fn load(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        self.with(py, |r| r.agent.load())
    }

    /// Dials at once.
    fn force_reconnect(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |r| {
            let _entered = r.runtime.enter();
            r.agent.force_reconnect();
        })
    }

    /// Asks it to end: with `drain` it finishes what it has, else it stops what runs.
    fn ask_end(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        self.with(py, |r| {
            let _entered = r.runtime.enter();
            if drain { r.agent.drain() } else { r.agent.stop() }
        })
    }

    /// Interrupts (1) or kills (2) what still runs in processes.
    fn hurry(&self, py: Python<'_>, level: u8) -> PyResult<()> {
        self.with(py, |r| r.pool.as_ref().map(|pool| pool.hurry(level))).map(drop)
    }

    /// The processes that tasks run in.
    fn processes(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.with(py, |r| r.pool.as_ref().map(|pool| pool.pids()).unwrap_or_default())
    }

    /// A function has another body now.
    fn redefined(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.with(py, |r| r.pool.as_ref().map(|pool| pool.redefined(name))).map(drop)
    }

    /// Waits for the worker's end, up to `seconds`; returns (failed, reason).
    fn wait_ended(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<(bool, String)>> {
        let (handle, mut ended) =
            self.with(py, |r| (r.runtime.handle().clone(), r.agent.ended()))?;
        let until = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let waited = wait(py, || {
            let left = until.saturating_duration_since(Instant::now());
            let found = handle.block_on(async {
                let wait = ended.wait_for(Option::is_some);
                let found = tokio::time::timeout(left.min(SLICE), wait).await;
                found.ok().and_then(|r| r.ok().and_then(|e| e.clone()))
            });
            match found {
                Some(Ended { failed, reason }) => Some(Some((failed, reason))),
                None => (left.is_zero()).then_some(None),
            }
        })?;
        Ok(waited)
    }

    /// Gives everything back within so many seconds; whether that was possible. It should have
    /// ended before.
    fn close(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        if self.process != std::process::id() {
            return Ok(true);
        }
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let closed = py.detach(|| {
            let Some(running) = self.lock().take() else { return Ok(true) };
            let Running { agent, runtime, pool } = running;
            if let Some(pool) = pool {
                pool.close();
            }
            let (tx, rx) = std::sync::mpsc::sync_channel(1);
            // Waiting on a thread of the runtime lets this one keep to its limit.
            runtime.spawn(async move {
                let _ = tx.send(agent.wait().await);
            });
            if rx.recv_timeout(limit).is_ok() {
                runtime.shutdown_timeout(limit);
                return Ok(true);
            }
            // A task is stuck. When it ends, so does the rest, and its outcome is kept.
            let rest = move || {
                let _ = rx.recv();
                runtime.shutdown_timeout(SLICE);
            };
            std::thread::Builder::new().name("outlast-stuck".into()).spawn(rest)?;
            Ok::<_, std::io::Error>(false)
        });
        closed.map_err(|e| system("closing the worker", &e))
    }

    /// Returns true if the worker has been closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        self.process != std::process::id() || py.detach(|| self.lock().is_none())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        if self.process != std::process::id() {
            // Its threads are in the other process: nothing here may be waited for.
            std::mem::forget(running);
            return;
        }
        let connected = running.agent.status().borrow().0 == ConnectionState::Connected;
        tracing::debug!("a worker is dropped without stop(), connected: {connected}");
        if let Some(pool) = &running.pool {
            pool.close();
        }
        drop(running.agent);
        running.runtime.shutdown_background();
    }
}
