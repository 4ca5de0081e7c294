//! The core's news of links: kept in the meters and the history, and logged.

use super::adapted::{Change, Side};
use super::meters::Quality;
use crate::clock;
use outlast_core::coord::{ConnId, LinkChange, LinkNews};
use outlast_model::LinkCause;
use outlast_model::message::LinkReport;
use outlast_store::{LinkEntry, LinkEntryKind};
use std::sync::Arc;

/// Links that are logged within a second, one by one.
const LOGGED: u32 = 20;

/// The worker that news are of: its store id, its name, and when they came in Unix milliseconds.
type Subject = (Arc<str>, Arc<str>, i64);

impl Quality {
    /// Takes news of a link. Called by the core's thread: does not wait.
    pub fn on_news(&self, news: LinkNews) {
        let LinkNews { worker, name, at, what } = news;
        let now = clock::micros();
        let subject = (worker, name, at);
        let (worker, name) = (&subject.0, &subject.1);
        match what {
            LinkChange::Connected(conn, report) => self.connected(&subject, conn, report),
            LinkChange::Switched(conn, new) => {
                self.entry_of(worker, name).meter().switched(now, conn, new);
                if new && self.may_log(at) {
                    tracing::info!("CONNECT worker {name} has one more link");
                }
            }
            LinkChange::Resynced(took) => {
                self.entry_of(worker, name).meter().resynced(took);
                if self.may_log(at) {
                    tracing::info!(
                        "SYNC worker {name} has delivered everything, {took} ms after its hello"
                    );
                }
                let none = LinkCause::Unspecified;
                self.record(&subject, LinkEntryKind::Resynced, none, format!("{took} ms"));
            }
            LinkChange::Lost(cause, reason, holds) => {
                self.entry_of(worker, name).meter().lost(now, at, cause, &reason);
                if self.may_log(at) {
                    let word = cause.word();
                    tracing::info!("CONNECT the link of worker {name} ended, {word}: {reason}");
                }
                let kind = if holds { LinkEntryKind::Suspect } else { LinkEntryKind::Away };
                self.record(&subject, kind, cause, reason);
            }
            LinkChange::Adapted(c) => {
                let setting = c.setting.word().to_owned();
                let change = Change { setting, from: c.from, to: c.to, why: c.why };
                self.adapt(&subject, Side::Coordinator, change, (c.configured, c.minor));
            }
            LinkChange::WorkerAdapted(c) => {
                let change = Change { setting: c.setting, from: c.from, to: c.to, why: c.why };
                self.adapt(&subject, Side::Worker, change, (c.configured, c.minor));
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
                if let Some(entry) = self.entry(worker) {
                    entry.meter().reset(now);
                }
            }
            LinkChange::Forgotten => self.forget(worker),
        }
    }

    fn connected(&self, subject: &Subject, conn: ConnId, report: Option<Box<LinkReport>>) {
        let (worker, name, at) = subject;
        let former = self.known().former.contains_key(worker);
        let entry = self.entry_of(worker, name);
        // A v1 worker does not report: it is back if it was here.
        let again = match &report {
            Some(report) => report.outage_ms > 0,
            None => former || entry.meter().was_here(),
        };
        if self.may_log(*at) {
            let (mark, what) =
                if again { ("RECONNECT", "is back") } else { ("CONNECT", "is here") };
            tracing::info!("{mark} worker {name} {what}");
        }
        entry.meter().connected(clock::micros(), conn, report);
        // It reports again what it adapted.
        entry.adapted().doubt(Side::Worker);
        let none = LinkCause::Unspecified;
        self.record(subject, LinkEntryKind::Connected, none, String::new());
    }

    fn forget(&self, worker: &Arc<str>) {
        let mut known = self.known();
        let entry = known.entries.remove(worker);
        known.former.remove(worker);
        known.names.retain(|_, e| e.id != *worker);
        drop(known);
        if let Some(entry) = entry {
            let mut sums = self.forgotten.lock();
            sums.add(entry.meter().totals());
        }
        self.history.forget(worker.clone());
    }

    /// Writes an entry into the history.
    fn record(&self, subject: &Subject, kind: LinkEntryKind, cause: LinkCause, reason: String) {
        let (worker, _, at) = subject.clone();
        self.history.link(LinkEntry { worker, at, kind, cause, reason });
    }

    /// Takes a setting that was adapted. What comes and goes with the work is not for the history.
    fn adapt(
        &self,
        subject: &Subject,
        side: Side,
        change: Change,
        (configured, minor): (bool, bool),
    ) {
        let (worker, name, at) = subject;
        let Some(entry) = self.entry(worker) else { return };
        let line = change.line(side);
        // Reported again after a reconnect, it is no news.
        let known = entry.adapted().has(side, &change);
        entry.adapted().put(side, *at, change, configured);
        if minor || known {
            return tracing::debug!("ADAPT worker {name}: {line}");
        }
        if self.may_log(*at) {
            tracing::info!("ADAPT worker {name}: {line}");
        }
        self.record(subject, LinkEntryKind::Adapted, LinkCause::Unspecified, line);
    }

    /// Returns whether one more line may be logged: ten thousand workers that come back are not ten
    /// thousand lines.
    fn may_log(&self, at: i64) -> bool {
        let mut logged = self.logged.lock();
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
