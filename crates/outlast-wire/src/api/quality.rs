//! Quality of links and workers: measurements, their history, timelines and alerts.
//!
//! Series are columns of equal length, ready to be drawn; their times, and those of timelines,
//! are Unix milliseconds, since there are many.

use outlast_model::LinkCause;
use serde::{Deserialize, Serialize};

/// The most workers in one page of the fleet.
pub const MAX_FLEET: usize = 20_000;

documents! {
    /// Measurements of one worker, and their history. Counts of the link are the coordinator's, since it
    /// started or first saw the worker; values that only the worker knows are from its newest
    /// handshake. Null: not measured yet.
    pub struct WorkerMetrics {
        /// Id of the worker's store.
        pub id: String,
        /// Name of the worker.
        pub name: String,
        /// connected, draining, suspect or away.
        pub state: String,
        /// Time of the measurement.
        pub at: String,
        /// Dials, since the worker's process started, as it said.
        pub connection_attempts: u64,
        /// Accepted connections.
        pub successful_connections: u64,
        /// Mean time from the loss of a link to the next welcome, in seconds.
        #[serde(default)]
        pub avg_reconnect_time: Option<f64>,
        /// The longest of these, in seconds.
        #[serde(default)]
        pub max_reconnect_time: Option<f64>,
        /// Share of the time that the link was up since the worker's process first had one; 1
        /// before.
        pub connection_stability: f64,
        /// Messages to the worker.
        pub messages_sent: u64,
        /// Messages from the worker.
        pub messages_received: u64,
        /// Mean round-trip time of the newest 100 heartbeats, in milliseconds.
        #[serde(default)]
        pub avg_message_latency_ms: Option<f64>,
        /// Mean size of a message of either direction as it travelled, in bytes.
        #[serde(default)]
        pub avg_message_size_bytes: Option<f64>,
        /// Messages that could not be understood, and heartbeats that were lost.
        pub message_errors: u64,
        /// Attempts that ran to an end of their own: succeeded, failed or timed out.
        pub tasks_executed: u64,
        /// Share of these that succeeded.
        #[serde(default)]
        pub task_success_rate: Option<f64>,
        /// Mean duration of tasks by the worker's clock, in milliseconds.
        #[serde(default)]
        pub avg_task_execution_time_ms: Option<f64>,
        /// Checkpoints that took effect here.
        pub checkpoints_created: u64,
        /// Checkpoints that its tasks read back, since its process started.
        pub checkpoints_restored: u64,
        /// Bytes before compression of those after it, of the link's messages that are large
        /// enough to be compressed (over 1 KiB); of both directions.
        #[serde(default)]
        pub compression_ratio: Option<f64>,
        /// Time that compressing messages to it took, in milliseconds.
        pub compression_time_ms: f64,
        /// Time that decompressing messages from it took, in milliseconds.
        pub decompression_time_ms: f64,
        /// More of the link.
        pub link: LinkQuality,
        /// Settings that were adapted to the link, where they differ from the configured ones.
        #[serde(default)]
        pub adaptation: Vec<Adaptation>,
        /// The history that was asked for.
        pub series: MetricSeries,
    }

    /// A setting that one side adapted to the link.
    pub struct Adaptation {
        /// worker or coordinator.
        pub side: String,
        /// heartbeat, batch, compression, checkpoints or telemetry: what `--pin` takes.
        pub setting: String,
        /// Previous value, in words.
        pub from: String,
        /// New value, in words.
        pub to: String,
        /// Property of the link that caused the change.
        pub why: String,
        /// Time of the change.
        pub at: String,
    }

    /// Measurements of a link.
    pub struct LinkQuality {
        /// Round-trip times of heartbeats, measured at the coordinator; null before the first.
        #[serde(default)]
        pub rtt: Option<RttView>,
        /// The worker's own newest measurement, in milliseconds; 0 before the first.
        pub worker_rtt_ms: u32,
        /// Improbability of its silence (φ of the φ-accrual detector: 1 is one in ten, 3 one in a thousand);
        /// null without a link.
        #[serde(default)]
        pub suspicion: Option<f64>,
        /// Time since anything was received, in milliseconds; null without a link.
        #[serde(default)]
        pub silent_ms: Option<u64>,
        /// Times that it came back within the last minute.
        pub reconnects_per_minute: u32,
        /// Times that it came back, since the coordinator started.
        pub reconnects: u64,
        /// Dials that ended without a welcome, as the worker said.
        pub failed_connections: u64,
        /// Share of connection attempts that were accepted; 1 before the first.
        pub connection_success_rate: f64,
        /// Share of the newest heartbeats (those of about five minutes) that never arrived, found
        /// by gaps in their numbers; null before the first.
        #[serde(default)]
        pub loss: Option<f64>,
        /// Heartbeats that never arrived, of both directions.
        pub heartbeats_lost: u64,
        /// Bytes per second from the worker, over about ten seconds; checkpoints' data too.
        pub goodput_up: f64,
        /// Bytes per second to the worker.
        pub goodput_down: f64,
        /// Bytes from the worker.
        pub bytes_up: u64,
        /// Bytes to the worker.
        pub bytes_down: u64,
        /// Time from its newest handshake until all its unacknowledged records had been applied, in
        /// milliseconds; null until then.
        #[serde(default)]
        pub resync_ms: Option<u64>,
        /// End of its newest link that ended.
        #[serde(default)]
        pub last_disconnect: Option<Disconnect>,
        /// Links that ended, by cause: network, silent, worker_stopped, taken_over…
        #[serde(default)]
        pub disconnects: std::collections::BTreeMap<String, u64>,
    }

    /// Round-trip times in milliseconds, of the newest 100 heartbeats.
    pub struct RttView {
        /// Number of samples.
        pub samples: u32,
        /// Newest sample.
        pub last: f64,
        /// The shortest.
        pub min: f64,
        /// Half are not longer.
        pub median: f64,
        /// 95th percentile.
        pub p95: f64,
        /// Mean difference between one and the next.
        pub jitter: f64,
        /// Mean.
        pub mean: f64,
    }

    /// End of a link.
    pub struct Disconnect {
        /// Time of the link's end.
        pub at: String,
        /// Cause of the link's end.
        pub cause: LinkCause,
        /// The same for people.
        pub reason: String,
    }

    /// Measurements over time, a column each. Null where nothing was measured: the coordinator
    /// did not run, or there was no sample.
    pub struct MetricSeries {
        /// 1s, 1m or 1h.
        pub resolution: String,
        /// Milliseconds from one to the next.
        pub step_ms: u64,
        /// Beginnings of the intervals, Unix milliseconds, in order, without gaps.
        pub at: Vec<i64>,
        /// Share of the interval that the link was up.
        pub connected: Vec<Option<f64>>,
        /// Mean round-trip time in milliseconds.
        pub rtt_ms: Vec<Option<f64>>,
        /// The longest round-trip time in milliseconds.
        pub rtt_max_ms: Vec<Option<f64>>,
        /// The highest suspicion (φ).
        pub suspicion: Vec<Option<f64>>,
        /// Bytes per second from the worker.
        pub goodput_up: Vec<Option<f64>>,
        /// Bytes per second to the worker.
        pub goodput_down: Vec<Option<f64>>,
        /// Messages of both directions.
        pub messages: Vec<Option<u64>>,
        /// Times that it came back.
        pub reconnects: Vec<Option<u64>>,
        /// Heartbeats that never arrived.
        pub heartbeats_lost: Vec<Option<u64>>,
        /// Attempts that ran to an end of their own.
        pub tasks_executed: Vec<Option<u64>>,
        /// Tasks of these that did not succeed.
        pub tasks_failed: Vec<Option<u64>>,
        /// Checkpoints that took effect.
        pub checkpoints: Vec<Option<u64>>,
        /// Tasks that ran, at the end of the interval.
        pub running: Vec<Option<u64>>,
    }

    /// States of a worker's link, newest last.
    pub struct WorkerTimeline {
        /// The worker's identity (store id).
        pub id: String,
        /// Name of the worker.
        pub name: String,
        /// Beginning of what was asked for, Unix milliseconds.
        pub from: i64,
        /// End of the timeline.
        pub to: i64,
        /// Intervals in order, without overlap. The last one extends to the end while it continues.
        pub intervals: Vec<Interval>,
        /// True if there are earlier intervals.
        pub truncated: bool,
        /// Adaptations to the link in this period, newest last.
        #[serde(default)]
        pub notes: Vec<LinkNote>,
    }

    /// Adaptation to a link.
    pub struct LinkNote {
        /// Unix milliseconds.
        pub at: i64,
        /// For people: what changed, on which side, and why.
        pub text: String,
    }

    /// A time in which a worker was in one state.
    pub struct Interval {
        /// connected, resync (connected, and its unacknowledged records are being applied), suspect (away,
        /// and holding tasks), away, or unknown (the coordinator did not run).
        pub state: String,
        /// Unix milliseconds.
        pub from: i64,
        /// Unix milliseconds; null while it goes on.
        #[serde(default)]
        pub to: Option<i64>,
        /// Cause of a missing link: network, silent, worker_stopped…; empty otherwise.
        #[serde(default)]
        pub cause: LinkCause,
        /// The same for people; of `resync`, how long it took.
        #[serde(default)]
        pub reason: String,
    }

    /// All workers in short, a column each: the n-th entries of all columns are one worker.
    pub struct FleetPage {
        /// Time of the measurement.
        pub at: String,
        /// Number of the measurement; events `fleet` with a higher one are newer.
        pub tick: u64,
        /// Totals of the fleet.
        pub totals: FleetTotals,
        /// The workers of this page, by name.
        pub workers: FleetColumns,
        /// To be given as `cursor` for the next page; null on the last.
        #[serde(default)]
        pub next: Option<String>,
    }

    /// Workers in short, a column each.
    #[derive(Default)]
    pub struct FleetColumns {
        /// Identities (store ids).
        pub id: Vec<String>,
        /// Names.
        pub name: Vec<String>,
        /// connected, draining, suspect or away.
        pub state: Vec<String>,
        /// Tasks that run at once.
        pub slots: Vec<u32>,
        /// Tasks that run there.
        pub running: Vec<u32>,
        /// Attempts that it holds.
        pub held: Vec<u32>,
        /// Newest round-trip time in milliseconds; null before the first.
        pub rtt_ms: Vec<Option<f32>>,
        /// Suspicion (φ); null without a link.
        pub suspicion: Vec<Option<f32>>,
        /// Share of the time that the link was up.
        pub stability: Vec<f32>,
        /// Times that it came back within the last minute.
        pub reconnects_per_minute: Vec<u32>,
        /// Bytes per second of both directions.
        pub goodput: Vec<u32>,
        /// Most severe firing alert: critical, warning or info; empty: none.
        pub alert: Vec<String>,
        /// Start of the present state, Unix milliseconds; null: unknown.
        pub since: Vec<Option<i64>>,
        /// Cause of a missing link; empty while it has one.
        pub cause: Vec<LinkCause>,
    }

    /// Totals of the fleet.
    #[derive(Default)]
    pub struct FleetTotals {
        /// Workers.
        pub workers: u64,
        /// With a link, draining ones too.
        pub connected: u64,
        /// With a link, taking no new work.
        pub draining: u64,
        /// With a link, and not able to work, as they say themselves.
        #[serde(default)]
        pub unfit: u64,
        /// Workers without a link that hold tasks.
        pub suspect: u64,
        /// Workers without a link that hold none.
        pub away: u64,
        /// Slots of the connected workers.
        pub slots: u64,
        /// Tasks that run.
        pub running: u64,
        /// Bytes per second from workers.
        pub goodput_up: f64,
        /// Bytes per second to workers.
        pub goodput_down: f64,
        /// Median over the workers of their newest round-trip time, in milliseconds.
        #[serde(default)]
        pub rtt_median_ms: Option<f64>,
        /// 95th percentile of the workers' round-trip times.
        #[serde(default)]
        pub rtt_p95_ms: Option<f64>,
        /// Firing alerts by severity.
        #[serde(default)]
        pub alerts: std::collections::BTreeMap<String, u64>,
    }

    /// An event `fleet` of the event stream: what changed since the last one, at most once a
    /// second.
    pub struct FleetEvent {
        /// Time of the measurement.
        pub at: String,
        /// Number of the measurement.
        pub tick: u64,
        /// Totals of the fleet.
        pub totals: FleetTotals,
        /// The workers that changed or are new.
        pub workers: FleetColumns,
        /// Identities of those that were forgotten.
        #[serde(default)]
        pub gone: Vec<String>,
    }

    /// Alerts.
    pub struct AlertList {
        /// Firing alerts, newest first, then cleared ones.
        pub alerts: Vec<Alert>,
        /// The rules, as configured.
        pub rules: Vec<AlertRule>,
    }

    /// Condition that an operator should know of; also an event `alert` of the event stream.
    pub struct Alert {
        /// Increasing id; the same when the alert is reported as cleared.
        pub id: u64,
        /// Rule of the alert: reconnects, reconnect_failed, latency, task_success, compression or
        /// unfit.
        pub rule: String,
        /// critical, warning or info.
        pub severity: String,
        /// firing or cleared.
        pub state: String,
        /// Name of the worker.
        pub worker: String,
        /// Id of the worker's store.
        pub worker_id: String,
        /// Message in words.
        pub message: String,
        /// Value when the alert fired; once it is cleared, the worst value meanwhile.
        pub value: f64,
        /// The limit.
        pub threshold: f64,
        /// Start of the alert.
        pub since: String,
        /// Time at which it was cleared.
        #[serde(default)]
        pub cleared_at: Option<String>,
    }

    /// Condition of an alert.
    pub struct AlertRule {
        /// Name of the rule.
        pub name: String,
        /// Description of the value, with its unit.
        pub measures: String,
        /// Side of the threshold on which the rule applies: `above` or `below`.
        pub when: String,
        /// The limit.
        pub threshold: f64,
        /// The limit for being cleared.
        pub clear: f64,
        /// Time in seconds beyond the threshold before the alert fires.
        pub hold_s: f64,
        /// Time in seconds within the clear limit before it is cleared.
        pub clear_s: f64,
        /// Samples that are needed.
        pub min_samples: u32,
        /// critical, warning or info.
        pub severity: String,
        /// Receivers in addition to the API: log, webhook.
        pub to: Vec<String>,
        /// True if the rule is evaluated.
        pub enabled: bool,
    }
}
