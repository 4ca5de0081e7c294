//! Measuring: a meter per worker, fed by its link (`tap`), by the core's news and by a look at
//! the core once a second (`sampler`); its history (`history`, `timeline`). Decides nothing about
//! workers or tasks, and nothing waits for it.

mod adapted;
mod alerts;
mod history;
pub(crate) mod prom;
mod sampler;
mod tap;
pub(crate) mod timeline;
mod webhook;

use crate::clock;
use crate::events::Happened;
use adapted::{Adapted, Side, Told};
use alerts::Alerts;
pub use alerts::{AlertConfig, WebhookConfig};
pub(crate) use history::History;
use outlast_core::coord::{LinkChange, LinkNews, V1_PREFIX};
use outlast_core::quality::{Meter, Micros, Totals};
use outlast_store::{LinkEntry, LinkEntryKind};
use outlast_wire::api::{Alert, AlertList};
use outlast_wire::v2::LinkCause;
pub(crate) use sampler::{Fleet, Row, run};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub(crate) use tap::Tap;
use tokio::sync::{broadcast, watch};
pub(crate) use webhook::unproxied;

/// Workers whose seconds are kept, about 22 kB each: those that somebody looks at, and of those
/// that are busy some.
const SECONDS: (usize, usize) = (256, 192);
/// How long a worker counts as looked at.
const LOOKED: Micros = 120_000_000;
/// Links that are told of in the log within a second, one by one.
const LOGGED: u32 = 20;

/// A worker's measurements.
pub(crate) struct Entry {
    pub id: Arc<str>,
    meter: Mutex<Meter>,
    /// When somebody looked at it last.
    looked: AtomicU64,
    /// What was adapted to its link.
    adapted: Mutex<Adapted>,
}

impl Entry {
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Settings that differ from the configured ones.
    pub fn adapted(&self) -> MutexGuard<'_, Adapted> {
        self.adapted.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn is_looked_at(&self, now: Micros) -> bool {
        let at = self.looked.load(Ordering::Relaxed);
        at > 0 && now.saturating_sub(at) < LOOKED
    }
}

/// How a link ended before this process began: Unix milliseconds, why, and in words.
pub(crate) type Former = (Option<i64>, LinkCause, String);

#[derive(Default)]
struct Known {
    entries: HashMap<Arc<str>, Arc<Entry>>,
    names: HashMap<Arc<str>, Arc<Entry>>,
    /// Of workers that have not come since this process began.
    former: HashMap<Arc<str>, Former>,
}

impl std::fmt::Debug for Quality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quality").finish_non_exhaustive()
    }
}

/// All measurements.
pub(crate) struct Quality {
    known: Mutex<Known>,
    interval: u64,
    pub history: History,
    pub fleet: watch::Sender<Arc<Fleet>>,
    alerts: Mutex<Alerts>,
    /// Counts of workers that were forgotten.
    forgotten: Mutex<Totals>,
    started_at: i64,
    logged: Mutex<(i64, u32)>,
}

impl Quality {
    /// `interval` is the time between heartbeats in milliseconds; `standing` are alerts that stood
    /// when the former process ended.
    ///
    /// # Errors
    /// When the alerts' configuration cannot be used.
    pub fn new(
        interval: u64,
        history: History,
        former: HashMap<Arc<str>, Former>,
        (config, standing): (&AlertConfig, Vec<Alert>),
        watchers: broadcast::Sender<Arc<Happened>>,
    ) -> Result<Quality, String> {
        Ok(Quality {
            alerts: Mutex::new(Alerts::new(config, standing, watchers)?),
            known: Mutex::new(Known { former, ..Known::default() }),
            interval,
            history,
            fleet: watch::Sender::new(Arc::default()),
            started_at: clock::wall(),
            forgotten: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    fn alerts(&self) -> MutexGuard<'_, Alerts> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alerts that stand, newest first, then those that were cleared.
    pub fn alert_list(&self, worker: Option<&str>, state: Option<&str>, limit: usize) -> AlertList {
        self.alerts().list(worker, state, limit)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By store id.
    pub fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        self.known().entries.get(id).cloned()
    }

    /// By the name of a worker that has come since this process began.
    pub fn named(&self, name: &str) -> Option<Arc<Entry>> {
        self.known().names.get(name).cloned()
    }

    /// How its link ended before this process began, of a worker that has not come since.
    pub fn former(&self, id: &str) -> Option<Former> {
        self.known().former.get(id).cloned()
    }

    /// Somebody looks at this worker: its seconds are kept for a while.
    pub fn look_at(&self, entry: &Entry) {
        entry.looked.store(clock::micros(), Ordering::Relaxed);
    }

    fn entry_of(&self, id: &Arc<str>, name: &Arc<str>) -> Arc<Entry> {
        let mut known = self.known();
        if let Some(entry) = known.entries.get(id) {
            let entry = entry.clone();
            if known.names.get(name).is_none_or(|e| e.id != *id) {
                known.names.retain(|_, e| e.id != *id);
                known.names.insert(name.clone(), entry.clone());
            }
            return entry;
        }
        let mut meter = Meter::new(clock::micros(), self.interval);
        if id.starts_with(V1_PREFIX) {
            meter = meter.numbers_go_on();
        }
        let meter = Mutex::new(meter);
        let (looked, adapted) = (AtomicU64::new(0), Mutex::default());
        let entry = Arc::new(Entry { id: id.clone(), meter, looked, adapted });
        known.former.remove(id);
        known.names.insert(name.clone(), entry.clone());
        known.entries.insert(id.clone(), entry.clone());
        entry
    }

    /// The core tells of a link. Called by its thread: does not wait.
    pub fn on_news(&self, news: LinkNews) {
        let LinkNews { worker, name, at, what } = news;
        let now = clock::micros();
        let tell = |kind, cause, reason: String| {
            let worker = worker.clone();
            self.history.link(LinkEntry { worker, at, kind, cause, reason });
        };
        let none = LinkCause::LinkUnspecified;
        match what {
            LinkChange::Connected(conn, report) => {
                let former = self.known().former.contains_key(&worker);
                let entry = self.entry_of(&worker, &name);
                // A v1 worker does not tell: it is back if it was here.
                let again = match &report {
                    Some(report) => report.outage_ms > 0,
                    None => former || entry.meter().was_here(),
                };
                if self.may_log(at) {
                    let (mark, what) =
                        if again { ("RECONNECT", "is back") } else { ("CONNECT", "is here") };
                    tracing::info!("{mark} worker {name} {what}");
                }
                entry.meter().connected(now, conn, report);
                // It tells anew what it adapted.
                entry.adapted().doubt(Side::Worker);
                tell(LinkEntryKind::Connected, none, String::new());
            }
            LinkChange::Switched(conn, new) => {
                let entry = self.entry_of(&worker, &name);
                entry.meter().switched(now, conn, new);
                if new && self.may_log(at) {
                    tracing::info!("CONNECT worker {name} has one more link");
                }
            }
            LinkChange::Resynced(took) => {
                let entry = self.entry_of(&worker, &name);
                entry.meter().resynced(took);
                if self.may_log(at) {
                    tracing::info!("SYNC worker {name} owes nothing, {took} ms after its hello");
                }
                tell(LinkEntryKind::Resynced, none, format!("{took} ms"));
            }
            LinkChange::Lost(cause, reason, holds) => {
                let entry = self.entry_of(&worker, &name);
                entry.meter().lost(now, at, cause, &reason);
                if self.may_log(at) {
                    let word = cause.word();
                    tracing::info!("CONNECT the link of worker {name} ended, {word}: {reason}");
                }
                let kind = if holds { LinkEntryKind::Suspect } else { LinkEntryKind::Away };
                tell(kind, cause, reason);
            }
            LinkChange::Adapted(c) => {
                let setting = c.setting.word().to_owned();
                let told = Told { setting, from: c.from, to: c.to, why: c.why };
                self.adapt((worker, name, at), Side::Coordinator, told, (c.configured, c.minor));
            }
            LinkChange::WorkerAdapted(c) => {
                let told = Told { setting: c.setting, from: c.from, to: c.to, why: c.why };
                self.adapt((worker, name, at), Side::Worker, told, (c.configured, c.minor));
            }
            LinkChange::Unfit(Some(faults)) => {
                if self.may_log(at) {
                    tracing::warn!("UNFIT worker {name} {}", faults.says);
                }
            }
            LinkChange::Unfit(None) => {
                if self.may_log(at) {
                    tracing::info!("UNFIT worker {name} can work again");
                }
            }
            LinkChange::Copied(why) => tracing::error!("SECURITY worker {name}: {why}"),
            LinkChange::Reset => {
                if let Some(entry) = self.entry(&worker) {
                    entry.meter().reset(now);
                }
            }
            LinkChange::Forgotten => {
                let mut known = self.known();
                let entry = known.entries.remove(&worker);
                known.former.remove(&worker);
                known.names.retain(|_, e| e.id != worker);
                drop(known);
                if let Some(entry) = entry {
                    let mut sums = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
                    sums.add(entry.meter().totals());
                }
                self.history.forget(worker);
            }
        }
    }

    /// A setting was adapted. What comes and goes with the work is not for the history.
    fn adapt(
        &self,
        (worker, name, at): (Arc<str>, Arc<str>, i64),
        side: Side,
        told: Told,
        (configured, minor): (bool, bool),
    ) {
        let Some(entry) = self.entry(&worker) else { return };
        let line = told.line(side);
        // Told again after a reconnect, it is no news.
        let known = entry.adapted().has(side, &told);
        entry.adapted().put(side, at, told, configured);
        if minor || known {
            return tracing::debug!("ADAPT worker {name}: {line}");
        }
        if self.may_log(at) {
            tracing::info!("ADAPT worker {name}: {line}");
        }
        let (kind, cause) = (LinkEntryKind::Adapted, LinkCause::LinkUnspecified);
        self.history.link(LinkEntry { worker, at, kind, cause, reason: line });
    }

    /// The coordinator ends: what was measured since the last minute is written, and who was told
    /// of alerts is told that nobody watches them any more.
    pub async fn end(&self) {
        let entries: Vec<_> = self.known().entries.values().cloned().map(Some).collect();
        let points = sampler::points(&entries, clock::micros());
        self.history.minute(sampler::minute_of(clock::wall()), points);
        let webhook = {
            let mut alerts = self.alerts();
            let webhook = alerts.end(clock::wall());
            self.history.alerts(alerts.changes());
            webhook
        };
        self.history.end();
        if let Some(webhook) = webhook {
            webhook.end().await;
        }
    }

    /// Ten thousand workers that come back are not ten thousand lines.
    fn may_log(&self, at: i64) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let second = at.div_euclid(1000);
        if logged.0 != second {
            if logged.1 > LOGGED {
                tracing::info!("CONNECT and of {} more links", logged.1 - LOGGED);
            }
            *logged = (second, 0);
        }
        logged.1 += 1;
        logged.1 <= LOGGED
    }
}
