//! Incoming items of a worker's outbox: each lane in order, each item once.

use super::conn::Arrival;
use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::loads::{Facts, Query, Wants};
use crate::Now;
use crate::records::CoordRecord;
use crate::scheduler::WorkerKey;
use outlast_model::Lane;
use outlast_model::limits::trim;
use outlast_model::message::{Cursor, OutboxBatch, OutboxItem, RefusedCode, ToWorker};
use std::collections::VecDeque;

/// No number of a worker's reaches this: its store keeps them in fewer bits.
pub(super) const MAX_NUMBER: u64 = 1 << 56;

fn is_absurd(item: &OutboxItem) -> bool {
    let (epoch, number) = match item {
        OutboxItem::Outcome(o) => (o.epoch, 0),
        OutboxItem::Checkpoint(c) => (c.epoch, c.number),
        OutboxItem::State(s) => (s.epoch, s.version),
        OutboxItem::Nothing => (0, 0),
    };
    epoch >= MAX_NUMBER || number >= MAX_NUMBER
}

impl Coordinator {
    pub(super) fn on_outbox(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        mut batch: OutboxBatch,
        facts: &Facts,
    ) -> Option<(Arrival, Vec<Query>)> {
        let lane = batch.lane;
        let before = *self.fleet.get_mut(key).cursor(lane)?;
        let items = std::mem::take(&mut batch.items);
        let last = batch.first_seq.saturating_add(items.len() as u64);
        if last >= MAX_NUMBER
            || batch.seqs.iter().any(|seq| *seq >= MAX_NUMBER)
            || items.iter().any(is_absurd)
        {
            let reason = "a number in the outbox is larger than can be";
            self.refuse(now, conn, RefusedCode::Malformed, true, reason);
            return None;
        }
        if lane == Lane::State && batch.seqs.len() != items.len() {
            let reason = "states without their sequences";
            self.refuse(now, conn, RefusedCode::Malformed, true, reason);
            return None;
        }
        if self.has_gap(conn, before, &batch, items.len()) {
            self.counters.outbox.gaps += 1;
            let first = batch.first_seq;
            let reason = format!("the outbox went from {before} to {first}; send it again");
            self.refuse(now, conn, RefusedCode::Malformed, true, &reason);
            return None;
        }
        let blocked = self.conns.get(&conn).is_some_and(|c| c.lanes.blocked);
        if lane == Lane::Checkpoints && blocked && batch.first_seq > before + 1 {
            self.settle_resync(now, conn, key);
            return None;
        }
        let first = batch.first_seq;
        let seqs = batch.seqs.into_iter().map(Some).chain(std::iter::repeat(None));
        let numbered = items.into_iter().zip(seqs).zip(first..);
        let items = numbered.map(|((item, seq), nth)| (seq.unwrap_or(nth), item)).collect();
        self.on_items(now, conn, key, (lane, items), facts)
    }

    /// Applies the items of a batch in order, and acknowledges them; returns the rest that needs more facts.
    pub(super) fn on_items(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        (lane, mut items): (Lane, VecDeque<(u64, OutboxItem)>),
        facts: &Facts,
    ) -> Option<(Arrival, Vec<Query>)> {
        let before = *self.fleet.get_mut(key).cursor(lane)?;
        let mut cursor = before;
        let mut missing = Vec::new();
        while let Some((seq, item)) = items.pop_front() {
            if seq <= cursor {
                self.counters.outbox.repeated += 1;
                continue;
            }
            missing = self.missing_of(key, [&item].into_iter(), facts);
            if !missing.is_empty() {
                items.push_front((seq, item));
                break;
            }
            let done = self.on_item(now, conn, key, item, facts);
            if lane == Lane::Checkpoints
                && let Some(state) = self.conns.get_mut(&conn)
            {
                state.lanes.blocked = !done;
            }
            if !done {
                break;
            }
            cursor = seq;
        }
        let member = self.fleet.get_mut(key);
        if let Some(of) = member.cursor(lane) {
            *of = cursor;
        }
        let worker = member.row.store_id.clone();
        if cursor > before {
            self.journal.record(CoordRecord::Cursor { worker, lane, seq: cursor });
        }
        self.fleet.update_room(&mut self.scheduler, key);
        // Also when nothing was new: the former acknowledgement may be lost.
        if missing.is_empty() || cursor > before {
            self.send(conn, ToWorker::Ack(vec![Cursor { lane, seq: cursor }]));
        }
        self.settle_resync(now, conn, key);
        if missing.is_empty() {
            return None;
        }
        // All at once, so that a long batch waits once.
        let missing = self.missing_of(key, items.iter().map(|(_, item)| item), facts);
        Some((Arrival::Items(lane, items), missing))
    }

    fn missing_of<'a>(
        &self,
        key: WorkerKey,
        items: impl Iterator<Item = &'a OutboxItem>,
        facts: &Facts,
    ) -> Vec<Query> {
        let mut wants = Wants::new(facts);
        items.for_each(|item| self.wants_of_item(key, item, &mut wants));
        wants.missing()
    }

    /// Returns true if items were lost in transit. The first batch of a connection may begin later
    /// than the cursor: the worker may have been forgotten here.
    fn has_gap(&mut self, conn: ConnId, before: u64, batch: &OutboxBatch, items: usize) -> bool {
        let Some(state) = self.conns.get_mut(&conn) else { return false };
        let seen = &mut state.lanes.outbox[batch.lane as usize];
        let goes_on = std::mem::replace(seen, *seen || items > 0);
        match batch.lane {
            Lane::State => goes_on && batch.prev_seq > before,
            Lane::Checkpoints if state.lanes.blocked => false,
            _ => goes_on && batch.first_seq > before + 1,
        }
    }

    /// Returns true if it took effect, or never will; otherwise the rest of the lane must wait.
    fn on_item(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        mut item: OutboxItem,
        facts: &Facts,
    ) -> bool {
        if !trim(&mut item) {
            self.counters.outbox.unusable += 1;
            return true;
        }
        match item {
            OutboxItem::Outcome(outcome) => self.on_outcome(now, key, outcome, facts),
            OutboxItem::Checkpoint(checkpoint) => {
                return self.on_checkpoint(now, conn, key, checkpoint, facts);
            }
            OutboxItem::State(update) => self.on_state(now, key, update, facts),
            OutboxItem::Nothing => {}
        }
        true
    }
}
