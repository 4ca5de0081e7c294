//! The thread that commits: everything that waits goes into one transaction, and only once that
//! is synced is it reported. What cannot be written is kept and tried again.

use super::{Shared, now};
use outlast_core::records::{Batch, WorkerRecord};
use outlast_store::{StoreError, WorkerStore};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches in one transaction, at most.
const GROUP: usize = 4096;
/// While several results share a commit, commits begin at least this far apart, so that more
/// share the next: syncs take processor time from the tasks. One at a time waits for nobody.
const PACE: Duration = Duration::from_millis(25);
/// Records that make a commit worth its sync: then nobody waits for more.
const WORTH: usize = 1024;
/// Tries after the agent was told to end.
const LAST_TRIES: u32 = 3;

pub(super) enum ToWriter {
    Batch(Batch<WorkerRecord>),
    End,
}

pub(super) fn start(
    store: WorkerStore,
    batches: Receiver<ToWriter>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("outlast-writer".to_owned())
        .spawn(move || run(store, &batches, &shared))
}

fn run(mut store: WorkerStore, batches: &Receiver<ToWriter>, shared: &Arc<Shared>) {
    let (mut group, mut ending, mut next) = (Vec::new(), false, Instant::now());
    while !ending {
        let Ok(first) = batches.recv() else { break };
        let (mut records, mut message) = (0, Some(first));
        while let Some(arrived) = message {
            match arrived {
                ToWriter::Batch(batch) => {
                    records += batch.records.len();
                    group.push(batch);
                }
                ToWriter::End => ending = true,
            }
            let full = ending || records >= WORTH || group.len() >= GROUP;
            let wait = next.saturating_duration_since(Instant::now());
            message = if full { None } else { batches.recv_timeout(wait).ok() };
        }
        next = Instant::now() + if group.len() > 1 { PACE } else { Duration::ZERO };
        let Some(last) = group.last().map(|b| b.number) else { continue };
        if let Err(error) = commit(&mut store, &group, shared) {
            tracing::error!("the state folder cannot be written, stopping: {error}");
            return shared.end(true, &error.to_string());
        }
        group.clear();
        shared.feed(|core| core.on_persisted(now(), last));
    }
    // Whatever this process held was not what ended it.
    if let Err(error) = store.end_well() {
        tracing::warn!("the next start will take this end for a crash: {error}");
    }
}

fn commit(
    store: &mut WorkerStore,
    group: &[Batch<WorkerRecord>],
    shared: &Shared,
) -> Result<(), StoreError> {
    let (mut delay, mut told, mut tries) = (Duration::from_millis(100), false, 0);
    loop {
        match store.commit(group) {
            Ok(()) => {
                if told {
                    tracing::info!("the state folder can be written again");
                }
                return Ok(());
            }
            Err(error) if error.is_retryable() => {
                if !told {
                    tracing::error!("nothing starts or is sent until this is mended: {error}");
                    told = true;
                }
                // What fills the disk may be this worker's own, and needless.
                if matches!(error, StoreError::Full) {
                    shared.room.is_short();
                }
                tries += u32::from(shared.ended.borrow().is_some());
                if tries > LAST_TRIES {
                    return Err(error);
                }
                std::thread::sleep(delay);
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Err(error),
        }
    }
}
