//! Incoming items of a worker's outbox: each lane in order, each item once.

use super::{ConnId, Coordinator, Lookup};
use crate::Now;
use crate::records::CoordRecord;
use crate::scheduler::WorkerKey;
use outlast_model::Lane;
use outlast_model::limits::trim;
use outlast_model::message::{Cursor, OutboxBatch, OutboxItem, RefusedCode, ToWorker};

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
        look: &dyn Lookup,
    ) {
        let lane = batch.lane;
        let Some(&mut before) = self.fleet.get_mut(key).cursor(lane) else { return };
        let items = std::mem::take(&mut batch.items);
        let last = batch.first_seq.saturating_add(items.len() as u64);
        if last >= MAX_NUMBER
            || batch.seqs.iter().any(|seq| *seq >= MAX_NUMBER)
            || items.iter().any(is_absurd)
        {
            let reason = "a number in the outbox is larger than can be";
            return self.refuse(now, conn, RefusedCode::Malformed, true, reason);
        }
        if lane == Lane::State && batch.seqs.len() != items.len() {
            let reason = "states without their sequences";
            return self.refuse(now, conn, RefusedCode::Malformed, true, reason);
        }
        if self.has_gap(conn, before, &batch, items.len()) {
            self.counters.gaps += 1;
            let first = batch.first_seq;
            let reason = format!("the outbox went from {before} to {first}; send it again");
            return self.refuse(now, conn, RefusedCode::Malformed, true, &reason);
        }
        let blocked = self.conns.get(&conn).is_some_and(|c| c.blocked);
        if lane == Lane::Checkpoints && blocked && batch.first_seq > before + 1 {
            return;
        }
        let mut cursor = before;
        for (n, item) in items.into_iter().enumerate() {
            let seq = batch.seqs.get(n).copied().unwrap_or(batch.first_seq + n as u64);
            if seq <= cursor {
                self.counters.repeated += 1;
                continue;
            }
            let done = self.on_item(now, conn, key, item, look);
            if lane == Lane::Checkpoints
                && let Some(state) = self.conns.get_mut(&conn)
            {
                state.blocked = !done;
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
            self.records.push(CoordRecord::Cursor { worker, lane, seq: cursor });
        }
        self.fleet.reload(&mut self.scheduler, key);
        // Also when nothing was new: the former acknowledgement may be lost.
        let cursors = vec![Cursor { lane: batch.lane, seq: cursor }];
        self.send(conn, ToWorker::Ack(cursors));
    }

    /// Returns true if items were lost in transit. The first batch of a connection may begin later
    /// than the cursor: the worker may have been forgotten here.
    fn has_gap(&mut self, conn: ConnId, before: u64, batch: &OutboxBatch, items: usize) -> bool {
        let Some(state) = self.conns.get_mut(&conn) else { return false };
        let seen = &mut state.outbox[batch.lane as usize];
        let goes_on = std::mem::replace(seen, *seen || items > 0);
        match batch.lane {
            Lane::State => goes_on && batch.prev_seq > before,
            Lane::Checkpoints if state.blocked => false,
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
        look: &dyn Lookup,
    ) -> bool {
        if !trim(&mut item) {
            self.counters.unusable += 1;
            return true;
        }
        match item {
            OutboxItem::Outcome(outcome) => self.on_outcome(now, key, outcome, look),
            OutboxItem::Checkpoint(checkpoint) => {
                return self.on_checkpoint(now, conn, key, checkpoint, look);
            }
            OutboxItem::State(update) => self.on_state(now, key, update, look),
            OutboxItem::Nothing => {}
        }
        true
    }
}
