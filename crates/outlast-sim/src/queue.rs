//! The queue of events that wait for their virtual time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events by their time; those of one time leave in the order in which they came.
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Due<E>>,
    /// Events that came in so far.
    pub count: u64,
}

struct Due<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// A queue without events.
    pub fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), count: 0 }
    }

    /// Adds an event that occurs at this time.
    pub fn push(&mut self, at: u64, event: E) {
        self.count += 1;
        self.heap.push(Due { at, number: self.count, event });
    }

    /// Takes the next event, with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|due| (due.at, due.event))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl<E> Eq for Due<E> {}
impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Due<E> {
    /// The earliest is the greatest: a heap gives that one first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
