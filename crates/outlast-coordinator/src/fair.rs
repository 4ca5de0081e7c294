//! Turns that are given out in rotation over those who wait, so that nobody waits behind the many
//! requests of one other.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Limits of turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Turns at a time.
    pub turns: usize,
    /// Turns of one key.
    pub each: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// Turns among keys.
pub(crate) struct Turns<K: Clone + Eq + Hash> {
    limits: Limits,
    state: Mutex<State<K>>,
}

struct State<K> {
    held: HashMap<K, usize>,
    taken: usize,
    queue: HashMap<K, VecDeque<oneshot::Sender<()>>>,
    /// The keys of `queue`; the first is served next.
    rotation: VecDeque<K>,
    waiting: usize,
}

/// A turn; dropping it ends it.
pub(crate) struct Turn<K: Clone + Eq + Hash> {
    turns: Arc<Turns<K>>,
    key: K,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    pub fn new(limits: Limits) -> Arc<Turns<K>> {
        let state = State {
            held: HashMap::new(),
            taken: 0,
            queue: HashMap::new(),
            rotation: VecDeque::new(),
            waiting: 0,
        };
        Arc::new(Turns { limits, state: Mutex::new(state) })
    }

    /// Waits for a turn; none if too many wait.
    pub async fn take(self: &Arc<Self>, key: K) -> Option<Turn<K>> {
        let wait = {
            let mut state = self.state.lock();
            // Who waits already goes first, unless its own share is what it waits for.
            if state.may(&self.limits, &key) && !state.queue.contains_key(&key) {
                state.give(key.clone());
                None
            } else {
                if state.waiting >= self.limits.waiting {
                    state.sweep();
                }
                if state.waiting >= self.limits.waiting {
                    return None;
                }
                let (tx, rx) = oneshot::channel();
                if !state.queue.contains_key(&key) {
                    state.rotation.push_back(key.clone());
                }
                state.queue.entry(key.clone()).or_default().push_back(tx);
                state.waiting += 1;
                Some(rx)
            }
        };
        let Some(rx) = wait else { return Some(Turn { turns: self.clone(), key }) };
        // What was given to a wait that is dropped right then is given back.
        let waits = Waits { turns: self, key: Some(key), rx };
        waits.given().await
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    fn over(&self, key: &K) {
        let mut state = self.state.lock();
        state.taken -= 1;
        if let Some(n) = state.held.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                state.held.remove(key);
            }
        }
        state.serve(&self.limits);
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn may(&self, limits: &Limits, key: &K) -> bool {
        self.taken < limits.turns && self.held.get(key).is_none_or(|n| *n < limits.each)
    }

    fn give(&mut self, key: K) {
        self.taken += 1;
        *self.held.entry(key).or_default() += 1;
    }

    /// Gives free turns to those who wait.
    fn serve(&mut self, limits: &Limits) {
        let mut passed = 0;
        while self.taken < limits.turns && passed < self.rotation.len() {
            let Some(key) = self.rotation.pop_front() else { return };
            if !self.may(limits, &key) {
                self.rotation.push_back(key);
                passed += 1;
                continue;
            }
            let queue = self.queue.entry(key.clone()).or_default();
            let mut given = false;
            while let Some(tx) = queue.pop_front() {
                self.waiting -= 1;
                // One that does not wait any more is passed over.
                if tx.send(()).is_ok() {
                    given = true;
                    break;
                }
            }
            if queue.is_empty() {
                self.queue.remove(&key);
            } else {
                self.rotation.push_back(key.clone());
            }
            if given {
                self.give(key);
                passed = 0;
            }
        }
    }

    /// Forgets those who do not wait any more.
    fn sweep(&mut self) {
        for queue in self.queue.values_mut() {
            queue.retain(|tx| !tx.is_closed());
        }
        self.queue.retain(|_, queue| !queue.is_empty());
        let queue = &self.queue;
        self.rotation.retain(|key| queue.contains_key(key));
        self.waiting = self.queue.values().map(VecDeque::len).sum();
    }
}

struct Waits<'a, K: Clone + Eq + Hash> {
    turns: &'a Arc<Turns<K>>,
    key: Option<K>,
    rx: oneshot::Receiver<()>,
}

impl<K: Clone + Eq + Hash> Waits<'_, K> {
    async fn given(mut self) -> Option<Turn<K>> {
        (&mut self.rx).await.ok()?;
        let key = self.key.take()?;
        Some(Turn { turns: self.turns.clone(), key })
    }
}

impl<K: Clone + Eq + Hash> Drop for Waits<'_, K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        self.rx.close();
        if self.rx.try_recv().is_ok() {
            self.turns.over(&key);
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        self.turns.over(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    type Wait<'a> = Pin<Box<dyn Future<Output = Option<Turn<u8>>> + 'a>>;

    fn poll(wait: &mut Wait<'_>) -> Option<Turn<u8>> {
        match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn.expect("not too many wait")),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_asks_for_much_lets_others_pass() {
        let turns = Turns::new(Limits { turns: 2, each: 2, waiting: 100 });
        let mut many: Vec<Wait> = (0..10).map(|_| Box::pin(turns.take(1)) as Wait).collect();
        let mut held: Vec<Turn<u8>> = many.iter_mut().filter_map(poll).collect();
        assert_eq!((held.len(), turns.waiting()), (2, 8));
        let mut other: Wait = Box::pin(turns.take(2));
        assert!(poll(&mut other).is_none());
        // The first that is free goes to the one who waited before, the next to the other.
        held.pop();
        let served = many[2..].iter_mut().filter_map(poll).count();
        assert_eq!(served, 1, "and is over at once");
        assert!(poll(&mut other).is_some());
    }

    #[test]
    fn nobody_holds_more_than_a_share() {
        let turns = Turns::new(Limits { turns: 4, each: 3, waiting: 2 });
        let mut waits: Vec<Wait> = (0..5).map(|_| Box::pin(turns.take(1)) as Wait).collect();
        let held: Vec<Turn<u8>> = waits.iter_mut().filter_map(poll).collect();
        assert_eq!((held.len(), turns.waiting()), (3, 2));
        let mut more: Wait = Box::pin(turns.take(1));
        let full = more.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(full, Poll::Ready(None)), "too many wait");
        // One that waits in vain keeps nobody from a turn that is free.
        let mut other: Wait = Box::pin(turns.take(2));
        let _turn = poll(&mut other).expect("there is one for another");
        // Those who left do not count.
        waits.clear();
        let mut more: Wait = Box::pin(turns.take(1));
        assert!(poll(&mut more).is_none());
        assert_eq!(turns.waiting(), 1);
        drop(held);
        assert!(poll(&mut more).is_some());
    }

    #[test]
    fn a_turn_given_to_a_wait_that_is_dropped_is_given_back() {
        let turns = Turns::new(Limits { turns: 1, each: 1, waiting: 10 });
        let mut first: Wait = Box::pin(turns.take(1));
        let held = poll(&mut first).unwrap();
        let mut second: Wait = Box::pin(turns.take(2));
        assert!(poll(&mut second).is_none());
        drop(held);
        drop(second);
        let mut third: Wait = Box::pin(turns.take(3));
        let _third = poll(&mut third).expect("it is free");
        let state = turns.state.lock();
        assert_eq!((state.taken, state.held.len(), state.queue.len()), (1, 1, 0));
    }
}
