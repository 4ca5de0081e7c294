//! Questions to the core whose answers must be durable first.

use outlast_core::worker::Answer;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The questions that have no answer yet.
#[derive(Default)]
pub(super) struct Questions(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Questions {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new question: its number, and the way on which its answer comes.
    pub fn ask(&self) -> (u64, oneshot::Receiver<Answer>) {
        let (tx, rx) = oneshot::channel();
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        open.waiting.insert(number, tx);
        (number, rx)
    }

    /// Answers a question.
    pub fn answer(&self, number: u64, answer: Answer) {
        if let Some(tx) = self.open().waiting.remove(&number) {
            let _ = tx.send(answer);
        }
    }
}
