//! What arrives of a worker's outbox: each lane in order, each item once.

use super::{ConnId, Coordinator, Lookup};
use crate::Now;
use crate::records::CoordRecord;
use crate::scheduler::WorkerKey;
use outlast_wire::limits::trim;
use outlast_wire::v2::{self, Lane, OutboxItem, RefusedCode, outbox_item};
use v2::body::Kind;

/// No number of a worker's reaches this: its store keeps them in fewer bits.
pub(super) const MAX_NUMBER: u64 = 1 << 56;

fn is_absurd(item: &OutboxItem) -> bool {
    let (epoch, number) = match &item.kind {
        Some(outbox_item::Kind::Outcome(o)) => (o.epoch, 0),
        Some(outbox_item::Kind::Checkpoint(c)) => (c.epoch, c.number),
        Some(outbox_item::Kind::State(s)) => (s.epoch, s.version),
        None => (0, 0),
    };
    epoch >= MAX_NUMBER || number >= MAX_NUMBER
}

impl Coordinator {
    pub(super) fn on_outbox(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        mut batch: v2::OutboxBatch,
        look: &dyn Lookup,
    ) {
        let lane = batch.lane();
        let Some(&mut before) = self.fleet.get_mut(key).cursor(lane) else { return };
        if batch.lane != i32::from(lane) {
            return;
        }
        let items = std::mem::take(&mut batch.items);
        let last = batch.first_seq.saturating_add(items.len() as u64);
        if last >= MAX_NUMBER
            || batch.seqs.iter().any(|seq| *seq >= MAX_NUMBER)
            || items.iter().any(is_absurd)
        {
            let reason = "a number in the outbox is larger than can be";
            return self.refuse(now, conn, RefusedCode::RefusedMalformed, true, reason);
        }
        if lane == Lane::State && batch.seqs.len() != items.len() {
            let reason = "states without their sequences";
            return self.refuse(now, conn, RefusedCode::RefusedMalformed, true, reason);
        }
        if self.has_gap(conn, before, &batch, items.len()) {
            self.counters.gaps += 1;
            let first = batch.first_seq;
            let reason = format!("the outbox went from {before} to {first}; send it again");
            return self.refuse(now, conn, RefusedCode::RefusedMalformed, true, &reason);
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
            let lane = batch.lane;
            self.records.push(CoordRecord::Cursor { worker, lane, seq: cursor });
        }
        self.fleet.reload(&mut self.scheduler, key);
        // Also when nothing was new: the former acknowledgement may be lost.
        let cursors = vec![v2::Cursor { lane: batch.lane, seq: cursor }];
        self.send(conn, Kind::Ack(v2::Ack { cursors }));
    }

    /// Whether something was lost on the way. The first batch of a connection may begin later
    /// than the cursor: the worker may have been forgotten here.
    fn has_gap(
        &mut self,
        conn: ConnId,
        before: u64,
        batch: &v2::OutboxBatch,
        items: usize,
    ) -> bool {
        let Some(state) = self.conns.get_mut(&conn) else { return false };
        let seen = &mut state.outbox[batch.lane as usize];
        let goes_on = std::mem::replace(seen, *seen || items > 0);
        match batch.lane() {
            Lane::State => goes_on && batch.prev_seq > before,
            Lane::Checkpoints if state.blocked => false,
            _ => goes_on && batch.first_seq > before + 1,
        }
    }

    /// Whether it took effect, or never will; if not, what follows in the lane must wait.
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
        match item.kind {
            Some(outbox_item::Kind::Outcome(outcome)) => self.on_outcome(now, key, outcome, look),
            Some(outbox_item::Kind::Checkpoint(checkpoint)) => {
                return self.on_checkpoint(now, conn, key, checkpoint, look);
            }
            Some(outbox_item::Kind::State(update)) => self.on_state(now, key, update, look),
            None => {}
        }
        true
    }
}
