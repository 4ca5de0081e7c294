//! OpenTelemetry: what tasks lived through as traces, and what is counted as metrics, sent by
//! OTLP (http/protobuf) to a collector. Off unless somebody says where to. Nothing in the
//! coordinator waits for it: what is to be exported is found in the store, so that a collector
//! that is away costs neither memory nor traces.

mod backlog;
mod config;
mod cursor;
mod export;
mod ids;
mod meter;
mod proto;
mod send;
mod spans;
#[cfg(test)]
mod tests;

use crate::api::App;
use crate::clock;
use crate::families::{Family, Kind, NONE, label};
pub(crate) use backlog::Backlog;
pub use config::OtelConfig;
use cursor::Cursor;
use export::{Exporter, Names};
pub(crate) use ids::{Tracer, tell};
use send::{Count, Sender};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is counted of exporting.
#[derive(Debug, Default)]
struct Counts {
    spans: Count,
    points: Count,
}

impl Counts {
    fn of(&self, what: &str) -> &Count {
        if what == TRACES { &self.spans } else { &self.points }
    }
}

const TRACES: &str = "traces";
const METRICS: &str = "metrics";

/// What the rest of the coordinator has of it.
#[derive(Debug)]
pub(crate) struct Otel {
    config: OtelConfig,
    /// None while no traces are exported.
    pub tracer: Option<Arc<Tracer>>,
    /// The same.
    pub backlog: Option<Arc<Backlog>>,
    counts: Arc<Counts>,
}

/// What runs of it.
#[derive(Debug)]
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Otel {
    pub fn new(config: OtelConfig, coordinator: &str) -> Otel {
        let on = config.traces.is_some();
        let tracer = on.then(|| Arc::new(Tracer::new(coordinator, config.sampler)));
        let backlog = on.then(Arc::default);
        Otel { config, tracer, backlog, counts: Arc::default() }
    }

    /// Begins to export. `file` says how far traces are out.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn start(&self, app: &App, file: &Path) -> Result<Running, String> {
        let (stop, stopped) = watch::channel(false);
        let resource = send::resource(&self.config, &app.coordinator_id, &app.version);
        let sender = |target: &config::Target, what| {
            let client = send::client(target.url.host_str())?;
            Ok::<_, String>(Sender::new(client, target.clone(), what, self.counts.clone()))
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
                sender: sender(target, TRACES)?,
                resource: resource.clone(),
                readers: app.readers.clone(),
                quality: app.quality.clone(),
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
            let run =
                meter::run(app.clone(), sender(target, METRICS)?, resource, self.config.interval);
            let mut stopped = stopped;
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = run => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            }));
        }
        tracing::info!("OTLP: {}", self.config.addresses());
        Ok(Running { stop, tasks })
    }

    /// What is counted of exporting.
    pub fn families(&self) -> Vec<Family> {
        let (spans, points) = (&self.counts.spans, &self.counts.points);
        let both = |name, help, of: fn(&Count) -> &std::sync::atomic::AtomicU64| {
            let value = |count| of(count).load(Ordering::Relaxed) as f64;
            let values = vec![
                (label("what", "spans"), value(spans)),
                (label("what", "points"), value(points)),
            ];
            Family { name, kind: Kind::Counter, help, values }
        };
        let waiting = self.backlog.as_ref().map_or(0, |b| b.len());
        let help = "Tasks that ended and whose trace waits; beyond 65536 they wait in the store.";
        vec![
            both("otlp_exported_total", "Spans and points that a collector took.", |c| &c.exported),
            both("otlp_dropped_total", "Spans and points that were lost.", |c| &c.dropped),
            both("otlp_failures_total", "Deliveries that failed.", |c| &c.failures),
            Family {
                name: "otlp_waiting",
                kind: Kind::Gauge,
                help,
                values: vec![(NONE, waiting as f64)],
            },
        ]
    }
}

impl Running {
    /// Ends it; what is not out is exported by the next process.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
