//! Consistency of the lanes: their sequences and indexes, and their rows in a store.

use super::{Outbox, Payload, States};
use crate::invariants::{Checked, must};
use std::collections::BTreeSet;
use std::sync::Arc;

impl<T: Payload> Outbox<T> {
    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        let seqs: Vec<u64> = self.items.iter().map(|i| i.seq).collect();
        let gapless = seqs.windows(2).all(|w| w[1] == w[0] + 1);
        let last = seqs.last().is_none_or(|last| last + 1 == self.next_seq);
        must(gapless && last, || format!("sequences {seqs:?}, next is {}", self.next_seq))?;
        let held: BTreeSet<_> = self.items.iter().filter_map(|i| i.payload.attempt()).collect();
        must(held == self.held, || {
            format!("the lane has {held:?}, and its index {:?}", self.held)
        })?;
        let sent = self.items.iter().filter(|i| i.seq <= self.sent);
        let early = sent.filter(|i| i.batch > self.persisted).map(|i| i.seq).collect::<Vec<_>>();
        must(early.is_empty(), || format!("{early:?} were sent, and are not durable"))
    }

    /// Rows that a store has of the lane.
    pub fn rows(&self) -> Vec<(u64, Arc<T>)> {
        self.items.iter().map(|i| (i.seq, i.payload.clone())).collect()
    }
}

impl States {
    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        for (id, seq) in &self.of {
            let same = self.items.get(seq).is_some_and(|s| s.update.attempt() == *id);
            must(same, || format!("the newest state of {}.{} is not there", id.task, id.epoch))?;
        }
        let newest: BTreeSet<u64> = self.of.values().copied().collect();
        let replaced: BTreeSet<u64> = self.replaced.iter().map(|(_, seq)| *seq).collect();
        for seq in self.items.keys() {
            must(newest.contains(seq) != replaced.contains(seq), || {
                format!("state {seq} is never freed")
            })?;
        }
        let late = self.replaced.iter().all(|(batch, _)| *batch > self.persisted);
        must(late, || format!("states that are replaced stay: {:?}", self.replaced))
    }

    /// Rows that a store has of the lane: the states that are not replaced.
    pub fn rows(&self) -> Vec<(u64, Arc<outlast_model::StateUpdate>)> {
        let newest =
            self.of.values().filter_map(|seq| Some((*seq, self.items.get(seq)?.update.clone())));
        let mut rows: Vec<_> = newest.collect();
        rows.sort_by_key(|(seq, _)| *seq);
        rows
    }
}
