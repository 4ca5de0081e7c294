//! Group commit: a queue between the thread that decides and the thread that writes.
//!
//! A sync costs the same for one record as for a thousand, and takes processor time from the tasks
//! on the same machine. So while several batches share a commit, commits begin some time apart;
//! one at a time waits for nobody. The writer sleeps until a commit is due: it is not woken for
//! each batch that comes meanwhile.

use outlast_core::records::Batch;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Batches in one transaction, at most.
const GROUP: usize = 4096;

/// Time that a batch may wait for others.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time per batch that shared the last commit, counted from when that began: with few batches none
    /// waits, and many are gathered.
    pub each: Duration,
    /// Longest time.
    pub most: Duration,
    /// Records that make a commit worth its sync: then nobody waits for more.
    pub worth: usize,
}

impl Pace {
    /// Pace if no caller waits and work is available.
    pub const BUSY: Pace =
        Pace { each: Duration::from_millis(5), most: Duration::from_millis(50), worth: 2048 };
    /// Pace if a caller may wait.
    pub const QUICK: Pace =
        Pace { each: Duration::from_millis(1), most: Duration::from_millis(10), worth: 256 };
    /// Pace for the last batches, which are written at once.
    pub const AT_ONCE: Pace = Pace { each: Duration::ZERO, most: Duration::ZERO, worth: 0 };
}

/// The side of who decides; the queue is closed when this is dropped.
#[derive(Debug)]
pub struct Decided<R>(Arc<Shared<R>>);

/// The writer's side.
#[derive(Debug)]
pub struct ToWrite<R> {
    shared: Arc<Shared<R>>,
    /// Records that one task causes in one go: a commit of no more was nobody else's.
    alone: usize,
    /// Time at which the last group was taken, and its number of batches.
    last: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Shared<R> {
    state: Mutex<State<R>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<R> {
    batches: Vec<Batch<R>>,
    records: usize,
    /// The quickest of those that wait.
    pace: Option<Pace>,
    closed: bool,
    /// True once the writer has stopped.
    given_up: bool,
}

/// A queue. `alone`: records that one task causes in one go.
pub fn group<R>(alone: usize) -> (Decided<R>, ToWrite<R>) {
    let state =
        State { batches: Vec::new(), records: 0, pace: None, closed: false, given_up: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
    (Decided(Arc::clone(&shared)), ToWrite { shared, alone, last: None })
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

impl<R> Decided<R> {
    /// Puts a batch into the next commit. Where nobody writes any more it is dropped.
    pub fn push(&self, batch: Batch<R>, pace: Pace) {
        let mut state = self.0.lock();
        if state.given_up {
            return;
        }
        state.records += batch.records.len();
        state.batches.push(batch);
        let quicker = state.pace.is_none_or(|waiting| pace.most < waiting.most);
        if quicker {
            state.pace = Some(pace);
        }
        // One that sleeps until a commit is due need not hear of what changes nothing about that;
        // one that sleeps until something comes does, since nothing waits then.
        if quicker || state.is_full() {
            self.0.wake.notify_one();
        }
    }

    /// Raises the urgency of batches in the queue, since a caller waits for them.
    pub fn hurry(&self, pace: Pace) {
        let mut state = self.0.lock();
        if state.pace.is_some_and(|waiting| pace.most < waiting.most) {
            state.pace = Some(pace);
            self.0.wake.notify_one();
        }
    }

    /// Closes the queue; batches in it are still written.
    pub fn close(&self) {
        self.0.close();
    }
}

impl<R> Drop for Decided<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<R> Drop for ToWrite<R> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.given_up = true;
        state.batches.clear();
    }
}

impl<R> State<R> {
    fn is_full(&self) -> bool {
        self.batches.len() >= GROUP || self.pace.is_some_and(|pace| self.records >= pace.worth)
    }
}

impl<R> ToWrite<R> {
    /// Waits for the next group, in order; `None` once the queue is closed and empty.
    pub fn take(&mut self) -> Option<Vec<Batch<R>>> {
        let mut state = self.shared.lock();
        loop {
            let wait = match state.pace {
                None if state.closed => return None,
                None => None,
                Some(_) if state.closed || state.is_full() => break,
                Some(pace) => match self.wait(pace) {
                    Duration::ZERO => break,
                    wait => Some(wait),
                },
            };
            state = match wait {
                None => self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let woken = self.shared.wake.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let fits = state.batches.len().min(GROUP);
        let rest = state.batches.split_off(fits);
        let group = std::mem::replace(&mut state.batches, rest);
        let records: usize = group.iter().map(|batch| batch.records.len()).sum();
        state.records -= records;
        if state.batches.is_empty() {
            state.pace = None;
        }
        let shared = if records > self.alone { records.div_ceil(self.alone) } else { 0 };
        self.last = Some((Instant::now(), shared as u32));
        Some(group)
    }

    /// Returns the remaining time that the waiting batches may wait.
    fn wait(&self, pace: Pace) -> Duration {
        let Some((began, shared)) = self.last else { return Duration::ZERO };
        let apart = pace.each.saturating_mul(shared).min(pace.most);
        (began + apart).saturating_duration_since(Instant::now())
    }

    /// Returns whether nothing more comes.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Pace =
        Pace { each: Duration::from_secs(30), most: Duration::from_secs(60), worth: 100 };
    const QUICK: Pace = Pace { most: Duration::from_millis(1), ..SLOW };

    fn batch(number: u64, records: usize) -> Batch<u8> {
        Batch { number, records: vec![0; records] }
    }

    fn numbers(group: Option<Vec<Batch<u8>>>) -> Vec<u64> {
        group.into_iter().flatten().map(|batch| batch.number).collect()
    }

    /// A queue whose last commit was shared.
    fn busy() -> (Decided<u8>, ToWrite<u8>) {
        let (decided, mut to_write) = group(1);
        decided.push(batch(1, 1), SLOW);
        decided.push(batch(2, 1), SLOW);
        assert_eq!(numbers(to_write.take()), [1, 2]);
        (decided, to_write)
    }

    /// The next group, which does not begin before this was done.
    fn waits_for(mut to_write: ToWrite<u8>, done: impl FnOnce()) -> (Vec<u64>, ToWrite<u8>) {
        let writer = std::thread::spawn(move || (numbers(to_write.take()), to_write));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!writer.is_finished());
        done();
        writer.join().unwrap()
    }

    #[test]
    fn one_at_a_time_waits_for_nobody() {
        let (decided, mut to_write) = group(4);
        for number in 1..4 {
            decided.push(batch(number, 4), SLOW);
            assert_eq!(numbers(to_write.take()), [number]);
        }
    }

    #[test]
    fn after_a_shared_commit_the_next_waits_until_it_is_worth_it() {
        let (decided, to_write) = busy();
        decided.push(batch(3, 99), SLOW);
        let (group, to_write) = waits_for(to_write, || decided.push(batch(4, 1), SLOW));
        assert_eq!(group, [3, 4]);
        // An urgent batch makes all of them urgent.
        decided.push(batch(5, 1), SLOW);
        let (group, to_write) = waits_for(to_write, || decided.push(batch(6, 1), QUICK));
        assert_eq!(group, [5, 6]);
        // Also one who adds nothing.
        decided.push(batch(7, 1), SLOW);
        assert_eq!(waits_for(to_write, || decided.hurry(QUICK)).0, [7]);
    }

    #[test]
    fn the_more_share_the_longer_the_next_waits() {
        let pace = Pace { each: Duration::from_secs(1), most: Duration::from_secs(5), worth: 100 };
        let (decided, mut to_write) = group(1);
        for (batches, least, most) in [(1, 0, 0), (2, 1, 2), (4, 3, 4), (9, 4, 5)] {
            (0..batches).for_each(|number| decided.push(batch(number, 1), pace));
            to_write.last = None;
            to_write.take();
            let wait = to_write.wait(pace);
            let range = Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(range.contains(&wait), "{batches}: {wait:?}");
        }
    }

    #[test]
    fn what_has_come_is_written_before_the_end() {
        let (decided, mut to_write) = busy();
        decided.push(batch(3, 1), SLOW);
        assert!(!to_write.is_closed());
        drop(decided);
        assert!(to_write.is_closed());
        assert_eq!(numbers(to_write.take()), [3]);
        assert!(to_write.take().is_none());
    }

    #[test]
    fn a_group_has_an_end() {
        let (decided, mut to_write) = group(1);
        for number in 1..=GROUP as u64 + 1 {
            decided.push(batch(number, 0), SLOW);
        }
        assert_eq!(to_write.take().unwrap().len(), GROUP);
        decided.close();
        assert_eq!(numbers(to_write.take()), [GROUP as u64 + 1]);
    }
}
