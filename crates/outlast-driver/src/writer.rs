//! The thread that commits: everything that waits goes into one transaction, and only once that is synced
//! is it reported. What cannot be written is kept and tried again; no batch is ever skipped.

use crate::group::ToWrite;
use outlast_core::records::{Batch, CoordRecord, WorkerRecord};
use outlast_store::{CoordStore, StoreError, WorkerStore};
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// Time before the second try of a commit, and the longest time between two.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A store that batches are committed to.
pub trait Store: Send + 'static {
    /// A fact.
    type Record: Send;

    /// Makes batches durable, all or none.
    ///
    /// # Errors
    /// Those of the store. Nothing was applied, and the same batches may be committed again if the error is
    /// [retryable](StoreError::is_retryable).
    fn commit(&mut self, group: &[Batch<Self::Record>]) -> Result<(), StoreError>;
}

impl Store for CoordStore {
    type Record = CoordRecord;
    fn commit(&mut self, group: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        CoordStore::commit(self, group)
    }
}

impl Store for WorkerStore {
    type Record = WorkerRecord;
    fn commit(&mut self, group: &[Batch<WorkerRecord>]) -> Result<(), StoreError> {
        WorkerStore::commit(self, group)
    }
}

/// The observer of a writer, called on its thread.
pub trait Observer<S: Store>: Send + 'static {
    /// Called when these batches are durable, and all before them.
    fn durable(&mut self, group: Vec<Batch<S::Record>>);

    /// Called when the store cannot be written at present. `closed`: no batch follows. Returns true if it is
    /// to be tried again, and false to end the writer.
    fn refused(&mut self, error: &StoreError, closed: bool) -> bool;

    /// Called when the store cannot be written any more; the writer ends.
    fn failed(&mut self, error: &StoreError);

    /// Called at the end, when everything is written and no batch follows.
    fn ended(&mut self, _store: S) {}
}

/// Starts the thread. It ends when the queue is closed and everything is written, or the store fails.
///
/// # Errors
/// No thread can be started.
pub fn start<S: Store>(
    name: &str,
    mut store: S,
    mut batches: ToWrite<S::Record>,
    mut observer: impl Observer<S>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while let Some(group) = batches.take() {
            if !commit(&mut store, &group, &batches, &mut observer) {
                return;
            }
            observer.durable(group);
        }
        observer.ended(store);
    })
}

/// Commits a group, as often as it takes. Returns whether it succeeded in the end.
fn commit<S: Store>(
    store: &mut S,
    group: &[Batch<S::Record>],
    batches: &ToWrite<S::Record>,
    observer: &mut impl Observer<S>,
) -> bool {
    let (mut delay, longest) = RETRY;
    loop {
        match store.commit(group) {
            Ok(()) => return true,
            Err(error) if !error.is_retryable() => {
                observer.failed(&error);
                return false;
            }
            Err(error) if !observer.refused(&error, batches.is_closed()) => return false,
            Err(_) => {}
        }
        std::thread::sleep(delay);
        delay = (delay * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Pace, group};
    use std::sync::mpsc;

    /// Refuses as often as it was given, then fails or writes.
    struct Disk {
        refusals: u32,
        broken: bool,
    }

    impl Store for Disk {
        type Record = u8;
        fn commit(&mut self, _: &[Batch<u8>]) -> Result<(), StoreError> {
            match self.refusals.checked_sub(1) {
                Some(left) => {
                    self.refusals = left;
                    Err(StoreError::Full)
                }
                None if self.broken => Err(StoreError::Damaged { detail: "a page".into() }),
                None => Ok(()),
            }
        }
    }

    /// Reports each call; ends the writer after so many refusals.
    struct Reporter(mpsc::Sender<String>, u32);

    impl Observer<Disk> for Reporter {
        fn durable(&mut self, group: Vec<Batch<u8>>) {
            self.0.send(format!("durable {}", group.last().unwrap().number)).unwrap();
        }
        fn refused(&mut self, _: &StoreError, closed: bool) -> bool {
            self.1 -= 1;
            self.0.send(format!("refused {closed}")).unwrap();
            self.1 > 0
        }
        fn failed(&mut self, _: &StoreError) {
            self.0.send("failed".into()).unwrap();
        }
        fn ended(&mut self, _: Disk) {
            self.0.send("ended".into()).unwrap();
        }
    }

    fn reported(disk: Disk, tries: u32) -> Vec<String> {
        let (decided, written) = group(1);
        let (reports, heard) = mpsc::channel();
        (1..3).for_each(|number| {
            decided.push(Batch { number, records: vec![0] }, Pace::AT_ONCE);
        });
        decided.close();
        let thread = start("test", disk, written, Reporter(reports, tries)).unwrap();
        thread.join().unwrap();
        heard.iter().collect()
    }

    #[test]
    fn it_tries_until_it_is_written_or_nobody_wants_it() {
        let all = reported(Disk { refusals: 2, broken: false }, 5);
        assert_eq!(all, ["refused true", "refused true", "durable 2", "ended"]);
        let all = reported(Disk { refusals: 9, broken: false }, 1);
        assert_eq!(all, ["refused true"]);
    }

    #[test]
    fn a_damaged_store_ends_it() {
        assert_eq!(reported(Disk { refusals: 1, broken: true }, 5), ["refused true", "failed"]);
    }
}
