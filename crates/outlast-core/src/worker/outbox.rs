//! The results lane: outcomes in order, kept until acknowledged, sent once durable.

use crate::{AttemptId, TaskId};
use outlast_wire::{frame::BULK_TARGET, v2};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
struct Item {
    seq: u64,
    batch: u64,
    outcome: Arc<v2::TaskOutcome>,
}

fn attempt(outcome: &v2::TaskOutcome) -> AttemptId {
    AttemptId { task: outcome.task_id.as_str().into(), epoch: outcome.epoch }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    held: BTreeSet<AttemptId>,
    next_seq: u64,
    persisted: u64,
    /// The last sequence sent on this connection, and what may be unacknowledged.
    sent: u64,
    credit: u64,
}

impl Outbox {
    pub fn new(durable: Vec<(u64, Arc<v2::TaskOutcome>)>, next_seq: u64) -> Self {
        let held = durable.iter().map(|(_, o)| attempt(o)).collect();
        let items = durable.into_iter().map(|(seq, outcome)| Item { seq, batch: 0, outcome });
        Outbox {
            items: items.collect(),
            held,
            next_seq: next_seq.max(1),
            persisted: 0,
            sent: 0,
            credit: 0,
        }
    }
    pub fn len(&self) -> usize {
        self.items.len()
    }
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }
    /// Appends an outcome that becomes durable with `batch`; its sequence.
    pub fn push(&mut self, batch: u64, outcome: Arc<v2::TaskOutcome>) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.held.insert(attempt(&outcome));
        self.items.push_back(Item { seq, batch, outcome });
        seq
    }
    pub fn persisted(&mut self, batch: u64) {
        self.persisted = self.persisted.max(batch);
    }
    pub fn outcomes(&self) -> impl Iterator<Item = &v2::TaskOutcome> {
        self.items.iter().map(|i| &*i.outcome)
    }
    /// Whether the outcome of this attempt waits here.
    pub fn holds(&self, task: &TaskId, epoch: u64) -> bool {
        self.held.contains(&AttemptId { task: task.clone(), epoch })
    }
    /// A connection begins, from the coordinator's cursor.
    pub fn open(&mut self, cursor: u64, credit: u64) {
        (self.sent, self.credit) = (cursor, credit.max(1));
    }
    /// Drops what is acknowledged; whether that was anything.
    pub fn acked(&mut self, seq: u64) -> bool {
        let before = self.items.len();
        while self.items.front().is_some_and(|i| i.seq <= seq) {
            if let Some(item) = self.items.pop_front() {
                self.held.remove(&attempt(&item.outcome));
            }
        }
        before != self.items.len()
    }
    /// Gives every outcome a new sequence after `cursor`: this store was put back to an older
    /// copy, and the coordinator would take its sequences for ones it has seen.
    pub fn renumber(&mut self, cursor: u64, batch: u64) -> Vec<(u64, Arc<v2::TaskOutcome>)> {
        self.next_seq = cursor + 1;
        for item in &mut self.items {
            (item.seq, item.batch) = (self.next_seq, batch);
            self.next_seq += 1;
        }
        self.items.iter().map(|i| (i.seq, i.outcome.clone())).collect()
    }
    /// The next frame to send: durable, within the credit, of about `BULK_TARGET` bytes.
    pub fn next_frame(&mut self) -> Option<v2::OutboxBatch> {
        use prost::Message;
        let first = self.items.front()?.seq;
        let from = (self.sent + 1).max(first);
        let limit = first.saturating_add(self.credit);
        let (mut items, mut size) = (Vec::new(), 0);
        for item in self.items.iter().skip((from - first) as usize) {
            if item.batch > self.persisted || item.seq >= limit || size >= BULK_TARGET {
                break;
            }
            size += item.outcome.encoded_len();
            let kind = v2::outbox_item::Kind::Outcome((*item.outcome).clone());
            items.push(v2::OutboxItem { kind: Some(kind) });
        }
        if items.is_empty() {
            return None;
        }
        self.sent = from + items.len() as u64 - 1;
        Some(v2::OutboxBatch { lane: v2::Lane::Results.into(), first_seq: from, items })
    }
}
