//! OpenTelemetry: what tasks lived through as traces, and what is counted as metrics, sent by
//! OTLP (http/protobuf) to a collector. Off unless somebody says where to. Nothing in the
//! coordinator waits for it: what is to be exported is found in the store, so that a collector
//! that is away costs neither memory nor traces.

pub(crate) mod backlog;
pub(crate) mod config;
mod counts;
mod cursor;
mod export;
pub(crate) mod ids;
mod meter;
mod proto;
mod send;
mod spans;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::families::Family;
use crate::outgoing;
use crate::problem::Refusal;
use crate::quality::meters::Quality;
use crate::readers::Readers;
use backlog::Backlog;
use config::OtelConfig;
use counts::{Count, Counts};
use cursor::Cursor;
use export::{Exporter, Names};
use ids::Tracer;
use send::Sender;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The export of telemetry, as the rest of the coordinator knows it.
#[derive(Debug)]
pub(crate) struct Otel {
    config: OtelConfig,
    /// The tracer; none while no traces are exported.
    pub tracer: Option<Arc<Tracer>>,
    /// Tasks to export; none while no traces are exported.
    pub backlog: Option<Arc<Backlog>>,
    counts: Arc<Counts>,
}

/// The sources of what is exported.
pub(crate) struct Sources<F> {
    pub coordinator_id: String,
    pub version: String,
    /// Time that the coordinator's counters began, in Unix milliseconds.
    pub started_at: i64,
    pub readers: Readers,
    pub quality: Arc<Quality>,
    /// Gathers the metrics.
    pub gather: F,
}

/// The running exports.
#[derive(Debug)]
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Otel {
    pub fn new(config: &OtelConfig, coordinator: &str) -> Otel {
        let on = config.traces.is_some();
        let tracer = on.then(|| Arc::new(Tracer::new(coordinator, config.sampler)));
        let backlog = on.then(Arc::default);
        Otel { config: config.clone(), tracer, backlog, counts: Arc::default() }
    }

    /// Begins to export what `sources` has. `file` says how far traces are out.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn start<F, R>(&self, sources: Sources<F>, file: &Path) -> Result<Running, String>
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<Family>, Refusal>> + Send,
    {
        let (stop, stopped) = watch::channel(false);
        let resource = send::resource(&self.config, &sources.coordinator_id, &sources.version);
        let sender = |target: &config::Target, what, count: &Arc<Count>| {
            let client = outgoing::client(target.url.host_str())?;
            Ok::<_, String>(Sender::new(client, target.clone(), what, count.clone()))
        };
        let mut tasks = Vec::new();
        if let (Some(target), Some(tracer), Some(backlog)) =
            (&self.config.traces, &self.tracer, &self.backlog)
        {
            let cursor = Cursor::open(file, clock::wall());
            let mut exporter = Exporter {
                tracer: tracer.clone(),
                backlog: backlog.clone(),
                cursor: cursor.map_err(|e| format!("{}: {e}", file.display()))?,
                sender: sender(target, "traces", &self.counts.spans)?,
                resource: resource.clone(),
                readers: sources.readers,
                quality: sources.quality,
                names: Names::default(),
            };
            let mut stopped = stopped.clone();
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = exporter.run() => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
                exporter.cursor.save().await;
            }));
        }
        if let Some(target) = &self.config.metrics {
            let sender = sender(target, "metrics", &self.counts.points)?;
            let (every, started_at) = (self.config.interval, sources.started_at);
            let gather = sources.gather;
            let mut stopped = stopped;
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = meter::run(gather, started_at, sender, resource, every) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            }));
        }
        tracing::info!("OTLP: {}", self.config.addresses());
        Ok(Running { stop, tasks })
    }

    /// The counts of exporting, as metrics.
    pub fn families(&self) -> Vec<Family> {
        self.counts.families(self.backlog.as_ref().map_or(0, |b| b.len()))
    }
}

impl Running {
    /// Ends the exports; the next process exports the rest.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
