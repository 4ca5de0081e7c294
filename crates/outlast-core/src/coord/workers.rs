//! The coordinator's record of each worker, connected or not: its store, its cursor, its attempts and
//! its load. Makes no decisions about tasks.

mod invariants;

use super::copies::{Copied, Rivals};
use super::unfit::{Faults, Unable};
use super::{ConnId, Tally, v1};
use crate::adapt::Patience;
use crate::records::WorkerRow;
use crate::requires::COMMANDS;
use crate::scheduler::{Scheduler, WorkerKey};
use crate::{AttemptId, Epoch, Millis, TaskId};
use outlast_model::message::Action;
use outlast_model::message::{Cursor, Heartbeat};
use outlast_model::{Lane, TaskOutcome};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most tasks that wait at one worker when the coordinator chooses.
const MAX_PREFETCH: u64 = 4096;
/// Work that should wait at a worker, so that it never idles for a round trip, in milliseconds.
const PREFETCH_MS: f64 = 500.0;

/// State of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// The link is up.
    Connected,
    /// The link is up, and the worker takes no new tasks.
    Draining,
    /// The link is up, and the worker reports that it cannot work.
    Unfit,
    /// The link is down, and the worker holds tasks.
    Suspect,
    /// The link is down, and the worker holds no tasks.
    Away,
}

impl WorkerState {
    /// Returns true if the link is up.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Connected | Self::Draining | Self::Unfit)
    }
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Draining => "draining",
            Self::Unfit => "unfit",
            Self::Suspect => "suspect",
            Self::Away => "away",
        }
    }
}

/// A worker as shown to people.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// Description that the worker sent.
    pub row: Arc<WorkerRow>,
    /// State of the worker.
    pub state: WorkerState,
    /// Current link.
    pub conn: Option<ConnId>,
    /// Attempts it was given and that are not settled.
    pub attempts: usize,
    /// Tasks that run there, as it said last.
    pub running: u32,
    /// Tasks that wait there, as it said last.
    pub queued: u32,
    /// Outcomes not yet acknowledged, as it said last.
    pub unacked: u64,
    /// Newest round-trip time in milliseconds.
    pub rtt_ms: u32,
    /// Bytes of blobs there, its budget (0: none), and how many were refused for want of room.
    pub disk: (u64, u64, u64),
    /// Isolation because of failures.
    pub isolation: Isolation,
    /// Faults that the worker reports.
    pub faults: Option<Arc<Faults>>,
    /// The copy of its state folder that was refused last.
    pub copied: Option<Copied>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub row: Arc<WorkerRow>,
    /// The last sequence that took effect, of each durable lane.
    cursors: [u64; 3],
    /// (incarnation, connection) on record: of the newest process that said what it holds. What
    /// is missing from another one's inventory may have run in the one that it was given to.
    pub settled: (u64, u64),
    pub conn: Option<ConnId>,
    /// True once its inventory was compared, and the difference sent.
    pub ready: bool,
    pub draining: bool,
    /// Time at which its link ended, or the coordinator started.
    pub gone: Millis,
    /// True if it had a link since the coordinator started.
    pub met: bool,
    pub beat: Heartbeat,
    /// Attempts that take its slots, whether they are current or not.
    pub attempts: BTreeMap<AttemptId, u32>,
    pub used: u64,
    /// Mean duration of its recent tasks in milliseconds.
    pub typical_ms: Option<f64>,
    pub isolation: Isolation,
    /// Session of a worker of the v1 dialect.
    pub v1: Option<Box<v1::Session>>,
    /// Operator requests that the worker was not yet notified of.
    pub actions: BTreeSet<Action>,
    /// Outcomes of its tasks.
    pub tally: Tally,
    /// Failure detector, from its first link on.
    pub patience: Option<Box<Patience>>,
    /// Faults reported on the open link, or on the last one.
    pub unable: Option<Unable>,
    pub rivals: Rivals,
}

/// Isolation of a worker because tasks fail there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// No isolation.
    #[default]
    Free,
    /// The worker gets no tasks.
    Out,
    /// The worker gets one task at a time, until one shows whether it is well.
    Probe,
}

impl Isolation {
    /// The word that users see; empty when it is free.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::Out => "quarantined",
            Self::Probe => "on probation",
        }
    }
}

/// The durable lanes, in the order of `Member::cursors`.
const LANES: [Lane; 3] = [Lane::Results, Lane::Checkpoints, Lane::State];

impl Member {
    /// The last sequence of this lane that took effect.
    pub fn cursor(&mut self, lane: Lane) -> Option<&mut u64> {
        let at = LANES.iter().position(|l| *l == lane)?;
        Some(&mut self.cursors[at])
    }
    pub fn cursors(&self) -> Vec<Cursor> {
        let pairs = LANES.iter().zip(self.cursors);
        pairs.map(|(lane, seq)| Cursor { lane: *lane, seq }).collect()
    }
    pub fn hold(&mut self, task: TaskId, epoch: Epoch, slots: u32) {
        if self.attempts.insert(AttemptId { task, epoch }, slots).is_none() {
            self.used += u64::from(slots);
        }
    }
    pub fn drop_attempt(&mut self, attempt: &AttemptId) {
        if let Some(slots) = self.attempts.remove(attempt) {
            self.used -= u64::from(slots);
        }
    }
    /// Returns true if it holds more tasks than its slots run at once.
    pub fn has_work_ahead(&self) -> bool {
        self.used > u64::from(self.row.slots)
    }
    /// Slots' worth of tasks that it may hold.
    fn limit(&self) -> u64 {
        if self.isolation == Isolation::Probe {
            return 1;
        }
        let slots = u64::from(self.row.slots);
        // What such a worker is given it starts at once.
        if self.v1.is_some() {
            return slots;
        }
        match self.row.prefetch {
            0 => {
                let fast = self.typical_ms.map_or(0.0, |ms| PREFETCH_MS / ms.max(0.05));
                let wanted = (slots as f64 * fast) as u64;
                slots + wanted.clamp(slots, MAX_PREFETCH.max(slots))
            }
            n => slots + u64::from(n),
        }
    }
    /// Returns whether no quarantine keeps it from work.
    pub fn takes_work(&self) -> bool {
        self.isolation != Isolation::Out
    }
    /// Returns the slots of the tasks that it holds, and of those that it may hold.
    pub fn load(&self) -> (u64, u64) {
        (self.used, self.limit())
    }
    pub fn state(&self) -> WorkerState {
        match (self.conn, self.draining || self.row.drained, self.attempts.is_empty()) {
            (Some(_), ..) if self.is_unfit() => WorkerState::Unfit,
            (Some(_), true, _) => WorkerState::Draining,
            (Some(_), false, _) => WorkerState::Connected,
            (None, _, false) => WorkerState::Suspect,
            (None, _, true) => WorkerState::Away,
        }
    }
    fn view(&self) -> WorkerView {
        WorkerView {
            row: self.row.clone(),
            state: self.state(),
            conn: self.conn,
            attempts: self.attempts.len(),
            running: self.beat.running,
            queued: self.beat.queued,
            unacked: self.beat.unacked,
            rtt_ms: self.beat.rtt_ms,
            disk: (self.beat.disk_used, self.beat.disk_budget, self.beat.refused),
            isolation: self.isolation,
            faults: self.unable.as_ref().map(|u| u.faults.clone()),
            copied: self.rivals.seen().cloned(),
        }
    }
    pub fn learn_duration(&mut self, outcome: &TaskOutcome) {
        self.tally.add(outcome);
        if outcome.started_at_ms > 0 {
            let ms = (outcome.finished_at_ms - outcome.started_at_ms).max(0) as f64;
            self.typical_ms = Some(self.typical_ms.map_or(ms, |old| old * 0.9 + ms * 0.1));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Fleet {
    members: BTreeMap<WorkerKey, Member>,
    stores: BTreeMap<Arc<str>, WorkerKey>,
    names: BTreeMap<Arc<str>, WorkerKey>,
    next: WorkerKey,
    /// Bytes of what all of them said of themselves.
    bytes: usize,
}

/// Bytes of what a worker said of itself.
fn bytes_of(row: &WorkerRow) -> usize {
    let labels: usize = row.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    row.capabilities.len() + labels + row.name.len() + row.store_id.len() + row.version.len()
}

impl Fleet {
    pub fn load(&mut self, row: WorkerRow, cursors: &[(Lane, u64)], gone: Millis) -> WorkerKey {
        let of = |lane: Lane| cursors.iter().find(|(l, _)| *l == lane).map_or(0, |(_, seq)| *seq);
        let cursors = LANES.map(of);
        let key = self.next;
        self.next += 1;
        self.stores.insert(row.store_id.clone(), key);
        self.names.insert(row.name.clone(), key);
        self.bytes += bytes_of(&row);
        let is_v1 = row.store_id.starts_with(v1::PREFIX);
        let member = Member {
            settled: (row.incarnation, row.connection),
            row: Arc::new(row),
            cursors,
            conn: None,
            ready: false,
            draining: false,
            gone,
            met: false,
            beat: Heartbeat::default(),
            attempts: BTreeMap::new(),
            used: 0,
            typical_ms: None,
            isolation: Isolation::Free,
            v1: is_v1.then(Box::default),
            actions: BTreeSet::new(),
            tally: Tally::default(),
            patience: None,
            unable: None,
            rivals: Rivals::default(),
        };
        self.members.insert(key, member);
        key
    }
    pub fn by_store(&self, store_id: &str) -> Option<WorkerKey> {
        self.stores.get(store_id).copied()
    }
    pub fn by_name(&self, name: &str) -> Option<WorkerKey> {
        self.names.get(name).copied()
    }
    pub fn find(&self, key: WorkerKey) -> Option<&Member> {
        self.members.get(&key)
    }
    /// Returns the worker of an existing key.
    pub fn get(&self, key: WorkerKey) -> &Member {
        &self.members[&key]
    }
    /// Returns the worker of an existing key.
    pub fn get_mut(&mut self, key: WorkerKey) -> &mut Member {
        self.members.get_mut(&key).expect("keys are removed with all that names them")
    }
    pub fn keys(&self) -> Vec<WorkerKey> {
        self.members.keys().copied().collect()
    }
    pub fn iter(&self) -> impl Iterator<Item = (WorkerKey, &Member)> {
        self.members.iter().map(|(k, m)| (*k, m))
    }
    /// Replaces the worker's description.
    pub fn replace(&mut self, key: WorkerKey, row: WorkerRow) {
        let member = self.members.get_mut(&key).expect("keys are removed with all that names them");
        if member.row.name != row.name {
            self.names.remove(&member.row.name);
            self.names.insert(row.name.clone(), key);
        }
        self.bytes = self.bytes + bytes_of(&row) - bytes_of(&member.row);
        member.row = Arc::new(row);
    }
    /// Returns true if no further worker may be added.
    pub fn is_full(&self, (members, bytes): (usize, usize)) -> bool {
        self.members.len() >= members || self.bytes >= bytes
    }
    /// Returns the best candidate for removal: an absent worker without tasks, preferably one that never
    /// delivered anything, then the one that is absent for the longest.
    pub fn most_forgettable(&self) -> Option<WorkerKey> {
        let gone = |m: &Member| m.conn.is_none() && m.attempts.is_empty() && !m.row.drained;
        let members = self.members.iter().filter(|(_, m)| gone(m));
        members.min_by_key(|(_, m)| (m.cursors != [0; 3], m.gone)).map(|(key, _)| *key)
    }
    pub fn forget(&mut self, key: WorkerKey) {
        if let Some(member) = self.members.remove(&key) {
            self.bytes -= bytes_of(&member.row);
            self.stores.remove(&member.row.store_id);
            if self.names.get(&member.row.name) == Some(&key) {
                self.names.remove(&member.row.name);
            }
        }
    }
    pub fn forgive(&mut self, gap: Millis) {
        for member in self.members.values_mut().filter(|m| m.conn.is_none()) {
            member.gone += gap;
        }
    }
    pub fn named(&self, name_or_store: &str) -> Option<WorkerKey> {
        self.by_name(name_or_store).or_else(|| self.by_store(name_or_store))
    }
    pub fn by_names(&self) -> impl Iterator<Item = &Member> {
        self.names.values().map(|k| &self.members[k])
    }
    pub fn views(&self) -> Vec<WorkerView> {
        self.by_names().map(Member::view).collect()
    }
    pub fn view(&self, name_or_store: &str) -> Option<WorkerView> {
        let key = self.named(name_or_store)?;
        self.members.get(&key).map(Member::view)
    }
    /// Tells the scheduler that the worker may be given tasks, or not.
    pub fn offer(&self, scheduler: &mut Scheduler, key: WorkerKey) {
        let Some(m) = self.members.get(&key) else { return };
        let out = m.isolation == Isolation::Out || m.is_unfit();
        if m.conn.is_none() || !m.ready || m.draining || m.row.drained || out {
            return scheduler.leave(key);
        }
        // It was checked at its hello.
        let mut capabilities: Map<String, Value> =
            serde_json::from_str(&m.row.capabilities).unwrap_or_default();
        // So that a task can name its worker.
        capabilities.insert("worker".into(), m.row.name.to_string().into());
        if let Some(Value::String(hardware)) = capabilities.get("hardware") {
            let each: Vec<Value> = hardware.split(',').map(|h| h.trim().into()).collect();
            capabilities.entry("hardware_class").or_insert(each.into());
        }
        if m.v1.is_some() {
            // Only one that says so is sent command lines.
            let runs = capabilities.get("commands") == Some(&Value::Bool(true));
            capabilities.insert(COMMANDS.into(), runs.into());
        }
        let load = (m.row.slots, m.used, m.limit());
        scheduler.join(key, capabilities, m.row.labels.clone(), load);
    }
    pub fn reload(&self, scheduler: &mut Scheduler, key: WorkerKey) {
        if let Some(m) = self.members.get(&key) {
            scheduler.load(key, m.used, m.limit());
        }
    }
}
