//! The worker's end of its link to the coordinator: when it is dialled, how it goes on, how it ends, and for
//! how long there was none.

use super::config::{HeartbeatConfig, ReconnectConfig, WorkerConfig};
use super::output::{Output, WorkerJournal};
use super::probe::{Probe, SPREAD};
use super::timers::{Timer, Wake};
use crate::backoff::Backoff;
use crate::health::HeartbeatMonitor;
use crate::invariants::{Checked, must};
use crate::records::{LostLink, WorkerRecord};
use crate::stats::{ConnectionState, ConnectionStats};
use crate::{Millis, Now};
use outlast_model::LinkCause;
use outlast_model::message::{Cursor, LinkReport, ToCoordinator};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Stage of a link.
#[derive(Debug)]
enum Link {
    /// No link; the next one is dialled then.
    Waiting { until: Millis },
    /// The driver dials.
    Dialling { since: Millis },
    /// Hello and inventory are sent, and not answered.
    Hello { monitor: HeartbeatMonitor },
    /// The coordinator has accepted it.
    Up { monitor: HeartbeatMonitor, since: Millis },
    /// No further dial, unless somebody asks for it.
    Failed,
    /// The worker has ended.
    Shutdown,
}

/// Period without an accepted link.
#[derive(Debug)]
struct Outage {
    /// Start of the period; none while there is a link.
    since: Option<Millis>,
    /// For how long there was no link before this process began.
    before: Millis,
    /// True if the store has its start on record.
    recorded: bool,
}

/// The previous accepted link, for the next handshake.
#[derive(Debug)]
struct Former {
    /// Heartbeats sent over it.
    beats: u64,
    cause: LinkCause,
    reason: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Uplink {
    link: Link,
    /// Number of the last dial.
    connection: u64,
    backoff: Backoff,
    probe: Probe,
    stats: ConnectionStats,
    outage: Outage,
    former: Former,
    heartbeat: HeartbeatConfig,
    max_attempts: u32,
    rng: SmallRng,
}

impl Uplink {
    /// Creates one that is about to dial. `lost`: the loss of a link that is on record.
    pub fn new(config: &WorkerConfig, lost: Option<LostLink>, seed: u64, now: Now) -> Uplink {
        let ReconnectConfig { initial_delay, max_delay, jitter, max_attempts } = config.reconnect;
        Uplink {
            link: Link::Waiting { until: now.mono },
            connection: 0,
            backoff: Backoff::new(initial_delay, max_delay, jitter),
            probe: Probe::default(),
            stats: ConnectionStats::default(),
            outage: Outage {
                since: Some(now.mono),
                before: lost.map_or(0, |lost| lost.age(now)),
                recorded: lost.is_some(),
            },
            former: Former { beats: 0, cause: LinkCause::Unspecified, reason: String::new() },
            heartbeat: config.heartbeat,
            max_attempts,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub fn state(&self) -> ConnectionState {
        match self.link {
            Link::Waiting { .. } => ConnectionState::Disconnected,
            Link::Dialling { .. } | Link::Hello { .. } => ConnectionState::Connecting,
            Link::Up { .. } => ConnectionState::Connected,
            Link::Failed => ConnectionState::Failed,
            Link::Shutdown => ConnectionState::Shutdown,
        }
    }
    /// Returns true if the coordinator has accepted the link.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }
    /// Returns true if frames travel, accepted or not.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Hello { .. } | Link::Up { .. })
    }
    pub fn is_waiting(&self) -> bool {
        matches!(self.link, Link::Waiting { .. })
    }
    pub fn has_ended(&self) -> bool {
        matches!(self.link, Link::Shutdown)
    }
    pub fn connection(&self) -> u64 {
        self.connection
    }
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }
    pub fn stats_mut(&mut self) -> &mut ConnectionStats {
        &mut self.stats
    }
    /// Returns why the previous accepted link ended.
    pub fn lost_why(&self) -> (LinkCause, &str) {
        (self.former.cause, &self.former.reason)
    }
    /// Returns the number of dials in a row that failed.
    #[cfg(test)]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    fn monitor(&mut self) -> Option<&mut HeartbeatMonitor> {
        match &mut self.link {
            Link::Hello { monitor } | Link::Up { monitor, .. } => Some(monitor),
            _ => None,
        }
    }

    /// Returns the report on the links so far, for a handshake. `durable`: what could have been delivered.
    pub fn report(&self, now: Now, durable: Vec<Cursor>) -> LinkReport {
        let s = &self.stats;
        let (reconnects, reconnect_ms, reconnect_max_ms) = s.reconnects;
        LinkReport {
            attempts: s.connection_attempts,
            welcomes: s.successful_connections,
            failures: s.failed_connections,
            reconnects,
            reconnect_ms,
            reconnect_max_ms,
            outage_ms: s.outage(now),
            connected_ms: s.connected_time(now),
            disconnected_ms: s.disconnected_time(now),
            beats: self.former.beats,
            owed: durable,
        }
    }
}

/// Stages.
impl Uplink {
    /// Carries out what is due, and returns its timer; of an open link, at least that of heartbeats. After
    /// a sleep (`late`), silence says nothing yet: the coordinator is asked before it is judged.
    pub fn tick(&mut self, now: Now, late: bool, journal: &mut WorkerJournal) -> Timer {
        match &mut self.link {
            Link::Waiting { until } if now.mono >= *until => {
                self.link = Link::Dialling { since: now.mono };
                self.connection += 1;
                self.stats.connection_attempts += 1;
                journal.output(Output::Dial);
                journal.output(Output::State(ConnectionState::Connecting, String::new()));
                Timer::Dial
            }
            Link::Dialling { since } if now.mono >= *since + self.heartbeat.timeout => {
                Timer::DialTimeout
            }
            Link::Hello { monitor } | Link::Up { monitor, .. } => {
                if late {
                    monitor.heard(now.mono);
                    monitor.beat_soon();
                }
                if monitor.expired(now.mono) { Timer::Silence } else { Timer::Heartbeat }
            }
            _ => Timer::Never,
        }
    }

    /// Returns the time of the next thing that it does by itself.
    pub fn next_wake(&self) -> Wake {
        match &self.link {
            Link::Waiting { until } => {
                let probe = Wake::new(self.probe.next_wake(), Timer::Probe);
                Wake::new(Some(*until), Timer::Dial).or(probe)
            }
            Link::Dialling { since } => {
                Wake::new(Some(since + self.heartbeat.timeout), Timer::DialTimeout)
            }
            Link::Hello { monitor } | Link::Up { monitor, .. } => {
                let silence = Wake::new(Some(monitor.limit()), Timer::Silence);
                silence.or(Wake::new(Some(monitor.next_beat()), Timer::Heartbeat))
            }
            Link::Failed | Link::Shutdown => Wake::NEVER,
        }
    }

    /// The dial succeeded, with this heartbeat interval and timeout; false if there was none.
    pub fn connected(&mut self, now: Now, (interval, timeout): (Millis, Millis)) -> bool {
        let dialled = matches!(self.link, Link::Dialling { .. });
        if dialled {
            self.probe.end();
            self.link = Link::Hello { monitor: HeartbeatMonitor::new(interval, timeout, now.mono) };
        }
        dialled
    }

    /// The coordinator accepted the link; the milliseconds without one.
    pub fn accepted(&mut self, now: Now, journal: &mut WorkerJournal) -> Option<Millis> {
        let Link::Hello { monitor } = &self.link else { return None };
        self.link = Link::Up { monitor: monitor.clone(), since: now.mono };
        self.backoff.reset();
        self.probe.end();
        self.stats.connected(now, true);
        let since = self.outage.since.take().unwrap_or(now.mono);
        self.outage.before = 0;
        if std::mem::take(&mut self.outage.recorded) {
            journal.record(WorkerRecord::LinkLost { at: None });
        }
        Some(now.mono.saturating_sub(since))
    }

    /// The link ended, or the dial failed. `held`: there are attempts, so that the time counts.
    pub fn lost(
        &mut self,
        now: Now,
        cause: LinkCause,
        reason: &str,
        held: bool,
        journal: &mut WorkerJournal,
    ) {
        match &self.link {
            Link::Up { monitor, since } => {
                let lasted = now.mono.saturating_sub(*since);
                self.former = Former { beats: monitor.sent(), cause, reason: reason.to_owned() };
                self.stats.connected(now, false);
                self.outage.since = Some(now.mono);
                if held {
                    self.record_loss(now, journal);
                }
                // One that ends as soon as it is up must not be dialled in a circle.
                if lasted >= self.heartbeat.interval {
                    let until = now.mono + self.backoff.lost(&mut self.rng);
                    self.wait_to_dial(until, reason, journal);
                } else {
                    self.retry(now, reason, journal);
                }
            }
            Link::Hello { .. } | Link::Dialling { .. } => {
                self.stats.failed_connections += 1;
                self.retry(now, reason, journal);
            }
            _ => {}
        }
    }

    fn retry(&mut self, now: Now, reason: &str, journal: &mut WorkerJournal) {
        let until = now.mono + self.backoff.fail(&mut self.rng);
        self.wait_to_dial(until, reason, journal);
    }

    fn wait_to_dial(&mut self, until: Millis, reason: &str, journal: &mut WorkerJournal) {
        self.link = Link::Waiting { until };
        self.probe.end_requested();
        let limit = self.max_attempts;
        if limit > 0 && self.backoff.failures() >= limit {
            self.give_up(&format!("gave up after {limit} attempts: {reason}"), journal);
        } else {
            journal.output(Output::State(ConnectionState::Disconnected, reason.into()));
        }
    }

    /// No further dial.
    pub fn give_up(&mut self, reason: &str, journal: &mut WorkerJournal) {
        self.link = Link::Failed;
        journal.output(Output::State(ConnectionState::Failed, reason.into()));
    }

    /// Dials at this time, whatever the backoff says.
    pub fn dial_at(&mut self, at: Millis) {
        self.backoff.reset();
        self.link = Link::Waiting { until: at };
    }

    /// Does not dial before this time.
    pub fn dial_after(&mut self, at: Millis) {
        if let Link::Waiting { until } = &mut self.link {
            *until = (*until).max(at);
        }
    }

    /// The worker ends.
    pub fn end(&mut self, journal: &mut WorkerJournal) {
        if self.is_up() {
            journal.output(Output::Send(ToCoordinator::Bye("worker ends".into())));
            journal.output(Output::Close("worker ends".into()));
        }
        self.link = Link::Shutdown;
        journal.output(Output::State(ConnectionState::Shutdown, "worker ends".into()));
    }
}

/// Heartbeats.
impl Uplink {
    /// Notes that something arrived; returns the silence before it, if that is one to learn from.
    pub fn heard(&mut self, now: Millis) -> Option<Millis> {
        let monitor = self.monitor()?;
        let silence = monitor.heard(now);
        monitor.is_notable(silence).then_some(silence)
    }

    /// A heartbeat was answered; its round-trip time.
    pub fn answered(&mut self, seq: u64, now: Millis) -> Option<Millis> {
        let rtt = self.monitor()?.reply(seq, now)?;
        self.stats.add_latency_sample(rtt as f64);
        Some(rtt)
    }

    /// Interval and timeout from now on.
    pub fn set_heartbeat(&mut self, current: (Millis, Millis), now: Millis) {
        if let Some(monitor) = self.monitor() {
            monitor.set(current, now);
        }
    }

    /// Makes the next heartbeat due at once.
    pub fn beat_soon(&mut self) {
        if let Some(monitor) = self.monitor() {
            monitor.beat_soon();
        }
    }

    /// Returns the sequence and the interval of the heartbeat to send, if one is due on an accepted link.
    pub fn beat(&mut self, now: Millis) -> Option<(u64, Millis)> {
        let Link::Up { monitor, .. } = &mut self.link else { return None };
        let seq = monitor.beat(now)?;
        Some((seq, monitor.pace().0))
    }
}

/// Probes of the address between two dials.
impl Uplink {
    pub fn begin_probes(&mut self, now: Millis) {
        if self.is_waiting() {
            self.probe.begin(now, &mut self.rng);
        }
    }

    /// Returns true if the driver should probe the address now.
    pub fn take_probe(&mut self, now: Millis) -> bool {
        self.is_waiting() && self.probe.take(now)
    }

    /// The answer to a probe: whether a connection was accepted; false if no link is waited for.
    pub fn probed(&mut self, now: Millis, reached: bool) -> bool {
        let Link::Waiting { until } = &mut self.link else { return false };
        if reached {
            let soon = now + self.rng.random_range(0..=SPREAD);
            *until = (*until).min(soon);
            self.probe.end();
        } else {
            self.probe.begin(now, &mut self.rng);
        }
        true
    }
}

/// Outages.
impl Uplink {
    /// Puts the loss of the link on record: leases go on through a restart of this process.
    pub fn record_loss(&mut self, now: Now, journal: &mut WorkerJournal) {
        journal.record(WorkerRecord::LinkLost { at: Some(now) });
        self.outage.recorded = true;
    }

    /// Returns true if the store has the loss of the link on record.
    pub fn has_recorded_loss(&self) -> bool {
        self.outage.recorded
    }

    /// Returns since when there is no link, and for how long there was none before this process; none
    /// while there is one, and before the coordinator has answered the inventory: what that said must hold.
    pub fn outage(&self) -> Option<(Millis, Millis)> {
        if matches!(self.link, Link::Hello { .. }) {
            return None;
        }
        Some((self.outage.since?, self.outage.before))
    }

    /// Returns the first contradiction; `held`: there are attempts.
    pub fn invariants(&self, held: bool) -> Checked {
        let lost = self.outage.since.is_some();
        match self.link {
            Link::Up { .. } => {
                must(!lost, || "the link is up, and lost".into())?;
                must(!self.outage.recorded, || "the link is up, and lost on record".into())
            }
            Link::Waiting { .. } | Link::Dialling { .. } | Link::Hello { .. } => {
                must(lost, || "there is no link, and none was lost".into())?;
                must(self.outage.recorded || !held, || {
                    "attempts are held, and their lease is not on record".into()
                })
            }
            Link::Failed => must(lost, || "the link has failed, and none was lost".into()),
            Link::Shutdown => Ok(()),
        }
    }
}
