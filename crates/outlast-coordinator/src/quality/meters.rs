//! The meters of all workers, and what is kept beside them.

use super::adapted::Adapted;
use super::alerts::{AlertConfig, Alerts};
use super::fleet::Fleet;
use super::history::History;
use crate::clock;
use crate::events::FeedEvent;
use outlast_core::coord::V1_PREFIX;
use outlast_core::quality::{Meter, Micros, Totals};
use outlast_model::LinkCause;
use outlast_wire::api::{Alert, AlertList};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, watch};

/// Workers whose seconds are kept, about 22 kB each: those that somebody looks at, and of those
/// that are busy some.
pub(super) const SECONDS: (usize, usize) = (256, 192);
/// Time that a worker counts as watched.
const WATCHED: Micros = 120_000_000;
/// A worker's measurements.
pub(crate) struct Entry {
    pub id: Arc<str>,
    meter: Mutex<Meter>,
    /// Time that somebody watched it last.
    watched: AtomicU64,
    /// Settings that were adapted to its link.
    adapted: Mutex<Adapted>,
}

impl Entry {
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock()
    }
    /// Settings that differ from the configured ones.
    pub fn adapted(&self) -> MutexGuard<'_, Adapted> {
        self.adapted.lock()
    }
    pub(super) fn is_watched(&self, now: Micros) -> bool {
        let at = self.watched.load(Ordering::Relaxed);
        at > 0 && now.saturating_sub(at) < WATCHED
    }
}

/// The end of a link before this process began: Unix milliseconds, cause and reason.
pub(crate) type Former = (Option<i64>, LinkCause, String);

#[derive(Default)]
pub(super) struct Known {
    pub entries: HashMap<Arc<str>, Arc<Entry>>,
    pub names: HashMap<Arc<str>, Arc<Entry>>,
    /// Ends of links of workers that have not come since this process began.
    pub former: HashMap<Arc<str>, Former>,
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
    pub(super) forgotten: Mutex<Totals>,
    pub(super) started_at: i64,
    pub(super) logged: Mutex<(i64, u32)>,
}

impl Quality {
    /// The meters of a new process. `interval` is the time between heartbeats in milliseconds;
    /// `firing` are alerts that were firing when the former process ended.
    ///
    /// # Errors
    /// When the alerts' configuration cannot be used.
    pub fn new(
        interval: u64,
        history: History,
        former: HashMap<Arc<str>, Former>,
        (config, firing): (&AlertConfig, Vec<Alert>),
        watchers: broadcast::Sender<Arc<FeedEvent>>,
    ) -> Result<Quality, String> {
        Ok(Quality {
            alerts: Mutex::new(Alerts::new(config, firing, watchers)?),
            known: Mutex::new(Known { former, ..Known::default() }),
            interval,
            history,
            fleet: watch::Sender::new(Arc::default()),
            started_at: clock::wall(),
            forgotten: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    pub(super) fn alerts(&self) -> MutexGuard<'_, Alerts> {
        self.alerts.lock()
    }

    /// Lists firing alerts, newest first, then those that were cleared.
    pub fn alert_list(&self, worker: Option<&str>, state: Option<&str>, limit: usize) -> AlertList {
        self.alerts().list(worker, state, limit)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Returns the measurements of a worker, by store id.
    pub fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        self.known().entries.get(id).cloned()
    }

    /// By the name of a worker that has come since this process began.
    pub fn named(&self, name: &str) -> Option<Arc<Entry>> {
        self.known().names.get(name).cloned()
    }

    /// Returns the end of a link before this process began, of a worker that has not come since.
    pub fn former(&self, id: &str) -> Option<Former> {
        self.known().former.get(id).cloned()
    }

    /// Marks this worker as watched: its seconds are kept for a while.
    pub fn watch(&self, entry: &Entry) {
        entry.watched.store(clock::micros(), Ordering::Relaxed);
    }

    pub(super) fn entry_of(&self, id: &Arc<str>, name: &Arc<str>) -> Arc<Entry> {
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
        let (watched, adapted) = (AtomicU64::new(0), Mutex::default());
        let entry = Arc::new(Entry { id: id.clone(), meter, watched, adapted });
        known.former.remove(id);
        known.names.insert(name.clone(), entry.clone());
        known.entries.insert(id.clone(), entry.clone());
        entry
    }

    /// Ends measuring: writes the measurements since the last minute, and notifies the webhook that nobody
    /// watches firing alerts any more.
    pub async fn end(&self) {
        let entries: Vec<_> = self.known().entries.values().cloned().map(Some).collect();
        let points = points(&entries, clock::micros());
        self.history.minute(minute_of(clock::wall()), points);
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
}

/// The points since the last minute, of workers that have any.
pub(super) fn points(
    entries: &[Option<Arc<Entry>>],
    now: Micros,
) -> Vec<(Arc<str>, outlast_core::quality::Point)> {
    let point = |e: &Arc<Entry>| (e.id.clone(), e.meter().on_minute(now));
    entries.iter().flatten().map(point).filter(|(_, p)| !p.is_blank()).collect()
}

pub(super) fn minute_of(wall: i64) -> i64 {
    wall.div_euclid(60_000) * 60_000
}
