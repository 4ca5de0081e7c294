//! The coordinator's writer: how soon what was decided is to be durable, and who hears of commits.

use crate::clock;
use crate::events::Feed;
use crate::health::Health;
use crate::input::Report;
use outlast_core::coord::Coordinator;
use outlast_core::records::{Batch, CoordRecord, TaskState};
use outlast_driver::group::{Pace, ToWrite};
use outlast_driver::writer::{self, Observer, Store};
use outlast_store::{CoordStore, StoreError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A request waits for its answer.
pub(crate) const ASKED: Pace =
    Pace { each: Duration::from_millis(3), most: Duration::from_millis(3), worth: 96 };
/// Records that one task causes in one go.
pub(crate) const ALONE: usize = 4;

/// Returns how soon a batch is to be durable if no request waits for it. A worker that has more than
/// its slots take does not wait for what is decided of the rest.
pub(crate) fn pace(batch: &Batch<CoordRecord>, core: &Coordinator) -> Pace {
    let amply = |worker: &str| core.has_work_ahead(worker);
    let nobody_waits = |record: &CoordRecord| match record {
        CoordRecord::Assigned { worker, .. } => amply(worker),
        CoordRecord::Ended { worker: Some(worker), state, .. } => {
            *state == TaskState::Succeeded && amply(worker)
        }
        CoordRecord::Started { .. } => true,
        _ => false,
    };
    if batch.records.iter().all(nobody_waits) { Pace::BUSY } else { Pace::QUICK }
}

/// A commit that takes longer is stuck, in milliseconds.
const STUCK: u64 = 10_000;

/// Starts the thread; it ends when all senders of batches are gone and everything is written.
pub(crate) fn start(
    store: CoordStore,
    batches: ToWrite<CoordRecord>,
    reports: mpsc::UnboundedSender<Report>,
    feed: Feed,
    health: Arc<watch::Sender<Health>>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let busy = Arc::new(AtomicU64::new(0));
    tokio::spawn(watch_commits(Arc::downgrade(&busy), health.clone()));
    let store = Watched { store, busy };
    writer::start("writer", store, batches, Commits { reports, feed, health })
}

/// The store, with the time that the present commit began.
struct Watched {
    store: CoordStore,
    /// By the clock of this machine, in milliseconds; 0: there is none.
    busy: Arc<AtomicU64>,
}

impl Store for Watched {
    type Record = CoordRecord;
    fn commit(&mut self, group: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        self.busy.store(clock::now().mono, Ordering::SeqCst);
        let done = self.store.commit(group);
        self.busy.store(0, Ordering::SeqCst);
        done
    }
}

/// Notices a commit that does not return: the thread that waits for it cannot say so.
async fn watch_commits(busy: Weak<AtomicU64>, health: Arc<watch::Sender<Health>>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(busy) = busy.upgrade() else { return };
        health.send_if_modified(|health| {
            // Looked at while nobody else can change it: a commit that has returned is none.
            let began = busy.load(Ordering::SeqCst);
            let long = clock::now().mono.saturating_sub(began);
            let stuck = began > 0 && long >= STUCK && *health == Health::Good;
            if stuck {
                let why = format!("a write to the store has not returned for {} s", long / 1000);
                tracing::error!("nothing is acknowledged until this is mended: {why}");
                *health = Health::Trouble(why);
            }
            stuck
        });
    }
}

/// Observer of commits.
struct Commits {
    reports: mpsc::UnboundedSender<Report>,
    feed: Feed,
    health: Arc<watch::Sender<Health>>,
}

impl Observer<Watched> for Commits {
    fn durable(&mut self, group: Vec<Batch<CoordRecord>>) {
        if *self.health.borrow() != Health::Good {
            tracing::info!("the store can be written again");
            self.health.send_replace(Health::Good);
        }
        let last = group.last().map_or(0, |b| b.number);
        let _ = self.reports.send(Report::Persisted(last));
        for batch in group {
            self.feed.publish(&batch);
        }
    }

    fn refused(&mut self, error: &StoreError, closed: bool) -> bool {
        let text = error.to_string();
        if *self.health.borrow() == Health::Good {
            tracing::error!("nothing is acknowledged until this is mended: {text}");
        }
        self.health.send_replace(Health::Trouble(text));
        // While shutting down nobody waits for the disk to have room.
        !(closed && self.reports.is_closed())
    }

    fn failed(&mut self, error: &StoreError) {
        let text = error.to_string();
        tracing::error!("the store cannot be written, stopping: {text}");
        self.health.send_replace(Health::Broken(text));
    }
}
