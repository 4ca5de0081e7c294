//! The thread that commits: everything that waits goes into one transaction, and only once that
//! is synced is it reported. What cannot be written is kept and tried again.

use crate::driver::Report;
use crate::events::Feed;
use outlast_core::records::{Batch, CoordRecord};
use outlast_store::CoordStore;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Batches in one transaction, at most.
const GROUP: usize = 4096;
/// While several tasks share a commit, commits begin at least this far apart, so that more share
/// the next: syncs take processor time from the tasks. One at a time waits for nobody.
const PACE: Pace = Pace { apart: Duration::from_millis(25), worth: 1024 };
/// The same while somebody waits for an answer.
const ASKED: Pace = Pace { apart: Duration::from_millis(3), worth: 96 };
/// Records that one task causes in one go; more means that several share the commit.
const ALONE: usize = 4;

struct Pace {
    apart: Duration,
    /// Records that make a commit worth its sync: then nobody waits for more.
    worth: usize,
}

impl Pace {
    fn of(batch: &Batch<CoordRecord>) -> Pace {
        let asked = |r: &CoordRecord| matches!(r, CoordRecord::Submitted { .. });
        if batch.records.iter().any(asked) { ASKED } else { PACE }
    }
    fn quicker(self, other: Pace) -> Pace {
        if other.apart < self.apart { other } else { self }
    }
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// It cannot be written for now.
    Trouble(String),
    /// It can never be written again by this process.
    Broken(String),
}

/// Starts the thread; it ends when all senders of batches are gone and everything is written.
pub(crate) fn start(
    store: CoordStore,
    batches: Receiver<Batch<CoordRecord>>,
    reports: mpsc::UnboundedSender<Report>,
    feed: Feed,
    health: Arc<watch::Sender<Health>>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let writer = Writer { store, reports, feed, health };
    std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(&batches))
}

struct Writer {
    store: CoordStore,
    reports: mpsc::UnboundedSender<Report>,
    feed: Feed,
    health: Arc<watch::Sender<Health>>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch<CoordRecord>>) {
        let mut group = Vec::new();
        let mut last = (Instant::now(), 0);
        while let Ok(first) = batches.recv() {
            let (mut records, mut pace) = (first.records.len(), Pace::of(&first));
            group.push(first);
            while group.len() < GROUP && records < pace.worth {
                let due = if last.1 > ALONE { last.0 + pace.apart } else { last.0 };
                let wait = due.saturating_duration_since(Instant::now());
                let Ok(more) = batches.recv_timeout(wait) else { break };
                records += more.records.len();
                pace = pace.quicker(Pace::of(&more));
                group.push(more);
            }
            group.extend(batches.try_iter().take(GROUP));
            last = (Instant::now(), records);
            if !self.commit(&group, batches) {
                return;
            }
            let last = group.last().map_or(0, |b| b.number);
            let _ = self.reports.send(Report::Persisted(last));
            for batch in group.drain(..) {
                self.feed.publish(&batch);
            }
        }
    }

    /// Whether it succeeded in the end.
    fn commit(
        &mut self,
        group: &[Batch<CoordRecord>],
        batches: &Receiver<Batch<CoordRecord>>,
    ) -> bool {
        let mut delay = Duration::from_millis(100);
        loop {
            let error = match self.store.commit(group) {
                Ok(()) => {
                    if *self.health.borrow() != Health::Good {
                        tracing::info!("the store can be written again");
                        self.health.send_replace(Health::Good);
                    }
                    return true;
                }
                Err(error) => error,
            };
            let text = error.to_string();
            if !error.is_retryable() {
                tracing::error!("the store cannot be written, stopping: {text}");
                self.health.send_replace(Health::Broken(text));
                return false;
            }
            if *self.health.borrow() == Health::Good {
                tracing::error!("nothing is acknowledged until this is mended: {text}");
            }
            self.health.send_replace(Health::Trouble(text));
            std::thread::sleep(delay);
            delay = (delay * 2).min(Duration::from_secs(2));
            // While shutting down nobody waits for the disk to have room.
            if self.reports.is_closed()
                && matches!(
                    batches.recv_timeout(Duration::ZERO),
                    Err(RecvTimeoutError::Disconnected)
                )
            {
                return false;
            }
        }
    }
}
