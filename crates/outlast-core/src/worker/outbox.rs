//! Lanes of the outbox: what the coordinator must learn, in order, kept until acknowledged and
//! sent once durable. `Outbox` keeps every item; `States` lets a newer state replace an older one.

mod invariants;

use crate::AttemptId;
use outlast_model::message::{OutboxBatch, OutboxItem};
use outlast_model::{Checkpoint, Lane, StateUpdate, TaskOutcome};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Item of a lane.
pub(super) trait Payload: Clone {
    const LANE: Lane;
    /// The attempt whose only item this is; of checkpoints there are many.
    fn attempt(&self) -> Option<AttemptId>;
    fn size(&self) -> usize;
    /// Returns true if only the disk delays its sending.
    fn is_ready(&self) -> bool;
    fn item(self: Arc<Self>) -> OutboxItem;
}

impl Payload for TaskOutcome {
    const LANE: Lane = Lane::Results;
    fn attempt(&self) -> Option<AttemptId> {
        Some(self.attempt())
    }
    fn size(&self) -> usize {
        self.message_size()
    }
    fn is_ready(&self) -> bool {
        true
    }
    fn item(self: Arc<Self>) -> OutboxItem {
        OutboxItem::Outcome(self)
    }
}

impl Payload for Checkpoint {
    const LANE: Lane = Lane::Checkpoints;
    fn attempt(&self) -> Option<AttemptId> {
        None
    }
    fn size(&self) -> usize {
        self.message_size()
    }
    /// Returns false while its blob has to be uploaded first.
    fn is_ready(&self) -> bool {
        self.dropped
    }
    fn item(self: Arc<Self>) -> OutboxItem {
        OutboxItem::Checkpoint(self)
    }
}

#[derive(Debug)]
struct Item<T> {
    seq: u64,
    batch: u64,
    /// True if only the disk delays its sending.
    ready: bool,
    beside: Beside,
    payload: Arc<T>,
}

/// Way of an item outside of its lane, while it is not durable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// No way: it was not sent on this connection.
    No,
    /// Sent on this connection.
    Offered,
    /// Durable at the coordinator: in the lane only the sequence is needed.
    Saved,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    items: VecDeque<Item<T>>,
    held: BTreeSet<AttemptId>,
    next_seq: u64,
    persisted: u64,
    /// The last sequence sent on this connection, and what may be unacknowledged.
    sent: u64,
    credit: u64,
}

impl<T: Payload> Outbox<T> {
    pub fn new(durable: Vec<(u64, Arc<T>)>, next_seq: u64) -> Self {
        let held = durable.iter().filter_map(|(_, p)| p.attempt()).collect();
        let item = |(seq, payload): (u64, Arc<T>)| {
            let ready = payload.is_ready();
            Item { seq, batch: 0, ready, beside: Beside::No, payload }
        };
        Outbox {
            items: durable.into_iter().map(item).collect(),
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
    /// The newest sequence that is durable, with all before it.
    pub fn durable_seq(&self) -> u64 {
        let waits = self.items.iter().find(|i| i.batch > self.persisted);
        waits.map_or(self.last_seq(), |i| i.seq - 1)
    }
    /// Appends what becomes durable with `batch`; its sequence.
    pub fn push(&mut self, batch: u64, payload: Arc<T>) -> u64 {
        let (seq, ready) = (self.next_seq, payload.is_ready());
        self.next_seq += 1;
        self.held.extend(payload.attempt());
        self.items.push_back(Item { seq, batch, ready, beside: Beside::No, payload });
        seq
    }
    pub fn persisted(&mut self, batch: u64) {
        self.persisted = self.persisted.max(batch);
    }
    pub fn shared(&self) -> impl Iterator<Item = &Arc<T>> {
        self.items.iter().map(|i| &i.payload)
    }
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|i| &*i.payload)
    }
    /// A connection begins, from the coordinator's cursor.
    pub fn open(&mut self, cursor: u64, credit: u64) {
        (self.sent, self.credit) = (cursor, credit.max(1));
        for item in self.items.iter_mut().filter(|i| i.beside == Beside::Offered) {
            item.beside = Beside::No;
        }
    }
    /// Drops what is acknowledged; whether that was anything.
    pub fn acked(&mut self, seq: u64) -> bool {
        let before = self.items.len();
        while self.items.front().is_some_and(|i| i.seq <= seq) {
            if let Some(attempt) = self.items.pop_front().and_then(|i| i.payload.attempt()) {
                self.held.remove(&attempt);
            }
        }
        before != self.items.len()
    }
    /// Gives every item a new sequence after `cursor`: this store was put back to an older copy,
    /// and the coordinator would take its sequences for ones it has seen.
    pub fn renumber(&mut self, cursor: u64, batch: u64) -> Vec<(u64, Arc<T>)> {
        self.next_seq = cursor + 1;
        for item in &mut self.items {
            (item.seq, item.batch) = (self.next_seq, batch);
            self.next_seq += 1;
        }
        self.items.iter().map(|i| (i.seq, i.payload.clone())).collect()
    }
    /// The next frame to send: durable, ready, within the credit, of about `target` bytes; with
    /// its last sequence and its size.
    pub fn next_frame(&mut self, target: usize) -> Option<(OutboxBatch, u64, usize)> {
        let first = self.items.front()?.seq;
        let from = (self.sent + 1).max(first);
        let limit = first.saturating_add(self.credit);
        let (mut items, mut size) = (Vec::new(), 0);
        for item in self.items.iter().skip((from - first) as usize) {
            let sendable = item.batch <= self.persisted && item.ready && item.seq < limit;
            if !sendable || size >= target {
                break;
            }
            if item.beside == Beside::Saved {
                items.push(OutboxItem::Nothing);
                continue;
            }
            size += item.payload.size();
            items.push(item.payload.clone().item());
        }
        if items.is_empty() {
            return None;
        }
        self.sent = from + items.len() as u64 - 1;
        let lane = T::LANE;
        let batch = OutboxBatch { lane, first_seq: from, items, ..Default::default() };
        Some((batch, self.sent, size))
    }
}

impl Outbox<TaskOutcome> {
    /// Returns true if the outcome of this attempt waits here.
    pub fn holds(&self, id: &AttemptId) -> bool {
        self.held.contains(id)
    }
    /// The next outcomes, of about `target` bytes, that are not durable here and were not sent
    /// beside the lane on this connection.
    pub fn next_unsaved(&mut self, target: usize) -> Option<Vec<TaskOutcome>> {
        // What is not durable lies at the end.
        let first = self.items.partition_point(|i| i.batch <= self.persisted);
        let (mut chosen, mut size) = (Vec::new(), 0);
        for item in self.items.range_mut(first..).filter(|i| i.beside == Beside::No) {
            if size >= target {
                break;
            }
            size += item.payload.size();
            item.beside = Beside::Offered;
            chosen.push((*item.payload).clone());
        }
        (!chosen.is_empty()).then_some(chosen)
    }
    /// Changes outcomes that are not durable here and were not sent.
    pub fn change_unsaved(&mut self, change: impl Fn(&TaskOutcome) -> TaskOutcome) {
        let first = self.items.partition_point(|i| i.batch <= self.persisted);
        for item in self.items.range_mut(first..).filter(|i| i.beside == Beside::No) {
            item.payload = Arc::new(change(&item.payload));
        }
    }
    /// Returns the number of items that are not known to be durable at the coordinator.
    pub fn unacknowledged(&self) -> usize {
        self.items.iter().filter(|i| i.beside != Beside::Saved).count()
    }
    /// The coordinator has made the outcome of this attempt durable, beside the lane.
    pub fn saved(&mut self, id: &AttemptId) {
        let is = |i: &&mut Item<TaskOutcome>| {
            i.beside == Beside::Offered && i.payload.epoch == id.epoch && i.payload.task == id.task
        };
        if let Some(item) = self.items.iter_mut().find(is) {
            item.beside = Beside::Saved;
        }
    }
    /// Returns true if everything is durable, here or at the coordinator.
    pub fn is_saved(&self) -> bool {
        self.items.iter().all(|i| i.beside == Beside::Saved || i.batch <= self.persisted)
    }
}

impl Outbox<Checkpoint> {
    /// The blob that must be uploaded next, so that its checkpoint can be sent.
    pub fn to_upload(&self) -> Option<outlast_model::Bytes> {
        let wanted = |i: &&Item<Checkpoint>| !i.ready && i.batch <= self.persisted;
        self.items.iter().find(wanted).map(|i| i.payload.manifest.clone())
    }
    /// The blobs that are needed for what is here. A drop counts only once it is durable: a
    /// crash may undo it.
    pub fn blobs(&self) -> impl Iterator<Item = outlast_model::Bytes> {
        let needed = |i: &&Item<Checkpoint>| !i.payload.dropped || i.batch > self.persisted;
        self.items.iter().filter(needed).map(|i| i.payload.manifest.clone())
    }
    /// The newest checkpoint of a task, up to this one, that a crash would leave; `None`: none. One
    /// that is not here has arrived.
    pub fn durable(&self, task: &str, named: (u64, u64)) -> Option<(u64, u64)> {
        let own = |i: &&Item<Checkpoint>| *i.payload.task == *task && i.payload.artifact.is_empty();
        let place = |i: &Item<Checkpoint>| (i.payload.epoch, i.payload.number);
        match self.items.iter().filter(own).find(|i| place(i) == named) {
            Some(item) if item.batch > self.persisted => {
                let kept = |i: &&Item<Checkpoint>| {
                    i.batch <= self.persisted && !i.payload.dropped && place(i) < named
                };
                let older = self.items.iter().filter(own).filter(kept);
                older.map(place).max()
            }
            _ => Some(named),
        }
    }
    /// The upload is complete.
    pub fn uploaded(&mut self, manifest: &[u8]) {
        for item in self.items.iter_mut().filter(|i| i.payload.manifest == manifest) {
            item.ready = true;
        }
    }
    /// The coordinator does not have the blob: what rests on it is sent again after an upload.
    pub fn missing(&mut self, manifest: &[u8]) {
        for item in self.items.iter_mut().filter(|i| i.payload.manifest == manifest) {
            if !item.payload.dropped {
                item.ready = false;
                self.sent = self.sent.min(item.seq - 1);
            }
        }
    }
    /// The coordinator has no room for this blob: what waits behind it goes first. What is in
    /// another place now, with its sequence; nothing of that was sent.
    pub fn postpone(&mut self, manifest: &[u8], batch: u64) -> Vec<(u64, Arc<Checkpoint>)> {
        let is = |i: &Item<Checkpoint>| !i.ready && i.payload.manifest == manifest;
        let Some(from) = self.items.iter().position(is) else { return Vec::new() };
        if self.items[from].seq <= self.sent || self.items.iter().skip(from).all(is) {
            return Vec::new();
        }
        let seqs = self.items[from].seq..;
        let (last, first): (Vec<_>, Vec<_>) = self.items.drain(from..).partition(is);
        let mut moved = Vec::new();
        for (seq, item) in seqs.zip(first.into_iter().chain(last)) {
            moved.push((seq, item.payload.clone()));
            // Sent only once this order is durable: else a crash could give a sequence twice.
            self.items.push_back(Item { seq, batch, ..item });
        }
        moved
    }
    /// Returns the checkpoints of an attempt that wait for their upload, oldest first, without artifacts.
    pub fn waiting(&self, task: &str, epoch: u64) -> Vec<Arc<Checkpoint>> {
        let of = |i: &&Item<Checkpoint>| {
            let p = &i.payload;
            !i.ready && *p.task == *task && p.epoch == epoch && p.artifact.is_empty()
        };
        let mut all: Vec<_> = self.items.iter().filter(of).map(|i| i.payload.clone()).collect();
        all.sort_by_key(|c| c.number);
        all
    }
    /// Gives up the uploads of these.
    pub fn give_up(
        &mut self,
        which: impl Fn(&Checkpoint) -> bool,
        batch: u64,
    ) -> Vec<(u64, Arc<Checkpoint>)> {
        let waiting = self.items.iter_mut().filter(|i| !i.ready && which(&i.payload));
        let drop = |item: &mut Item<Checkpoint>| {
            let dropped = Checkpoint { dropped: true, ..(*item.payload).clone() };
            (item.payload, item.ready, item.batch) = (Arc::new(dropped), true, batch);
            (item.seq, item.payload.clone())
        };
        waiting.map(drop).collect()
    }
}

/// The lane of states: of each attempt only the newest waits.
///
/// One that a newer one replaces stays until that one is durable: else a crash could bring it
/// back with a sequence that the coordinator has passed.
#[derive(Debug)]
pub(super) struct States {
    items: BTreeMap<u64, State>,
    of: BTreeMap<AttemptId, u64>,
    /// By the batch that makes them needless.
    replaced: VecDeque<(u64, u64)>,
    next_seq: u64,
    persisted: u64,
    sent: u64,
    credit: u64,
}

#[derive(Debug)]
struct State {
    batch: u64,
    update: Arc<StateUpdate>,
}

impl States {
    pub fn new(durable: Vec<(u64, Arc<StateUpdate>)>, next_seq: u64) -> Self {
        let of = durable.iter().map(|(seq, u)| (u.attempt(), *seq)).collect();
        let item = |(seq, update)| (seq, State { batch: 0, update });
        States {
            items: durable.into_iter().map(item).collect(),
            of,
            replaced: VecDeque::new(),
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
    /// The newest sequence that is durable, with all before it.
    pub fn durable_seq(&self) -> u64 {
        let waits = self.items.iter().find(|(_, s)| s.batch > self.persisted);
        waits.map_or(self.last_seq(), |(seq, _)| seq - 1)
    }
    /// Appends an update; its sequence, and that of the update that it replaces.
    pub fn push(&mut self, batch: u64, update: Arc<StateUpdate>) -> (u64, Option<u64>) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let replaces = self.of.insert(update.attempt(), seq);
        if let Some(old) = replaces {
            self.replaced.push_back((batch, old));
        }
        self.items.insert(seq, State { batch, update });
        (seq, replaces)
    }
    pub fn persisted(&mut self, batch: u64) {
        self.persisted = self.persisted.max(batch);
        while self.replaced.front().is_some_and(|(b, _)| *b <= self.persisted) {
            let (_, seq) = self.replaced.pop_front().expect("just looked");
            self.items.remove(&seq);
        }
    }
    pub fn open(&mut self, cursor: u64, credit: u64) {
        (self.sent, self.credit) = (cursor, credit.max(1));
    }
    pub fn acked(&mut self, seq: u64) -> bool {
        let rest = self.items.split_off(&(seq + 1));
        let gone = std::mem::replace(&mut self.items, rest);
        for (seq, state) in &gone {
            if self.of.get(&state.update.attempt()) == Some(seq) {
                self.of.remove(&state.update.attempt());
            }
        }
        !gone.is_empty()
    }
    pub fn renumber(&mut self, cursor: u64, batch: u64) -> Vec<(u64, Arc<StateUpdate>)> {
        self.next_seq = cursor + 1;
        let old = std::mem::take(&mut self.items);
        self.of.clear();
        self.replaced.clear();
        let mut newest: BTreeMap<AttemptId, Arc<StateUpdate>> = BTreeMap::new();
        for state in old.into_values() {
            newest.insert(state.update.attempt(), state.update);
        }
        newest.into_values().map(|u| (self.push(batch, u.clone()).0, u)).collect()
    }
    /// The next frame, like that of `Lane`.
    pub fn next_frame(&mut self, target: usize) -> Option<(OutboxBatch, u64, usize)> {
        let prev_seq = self.sent;
        let (mut items, mut seqs, mut size) = (Vec::new(), Vec::new(), 0);
        let room = self.credit as usize;
        for (seq, state) in self.items.range(self.sent + 1..).take(room) {
            // In order: a later one that is durable already must not let this one be skipped.
            if state.batch > self.persisted || size >= target {
                break;
            }
            size += state.update.message_size();
            items.push(OutboxItem::State(state.update.clone()));
            seqs.push(*seq);
        }
        self.sent = *seqs.last()?;
        let (lane, first_seq) = (Lane::State, seqs[0]);
        let batch = OutboxBatch { lane, first_seq, items, seqs, prev_seq };
        Some((batch, self.sent, size))
    }
    /// Returns true if an item waits that was not sent on this connection.
    pub fn has_unsent(&self) -> bool {
        self.items.range(self.sent + 1..).next().is_some()
    }
}
