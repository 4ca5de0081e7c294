//! The coordinator's record of each worker, connected or not: its store, its cursor, its attempts and
//! its load. Makes no decisions about tasks.

mod invariants;

use super::admission::Admission;
use super::faults::{Faults, Unable};
use super::ids::ConnId;
use super::rivals::{Copied, Rivals};
use super::tally::Tally;
use super::v1;
use crate::adapt::FailureDetector;
use crate::records::WorkerRow;
use crate::scheduler::{Scheduler, WorkerKey};
use crate::{AttemptId, Epoch, Millis, TaskId};
use outlast_model::message::{Action, Cursor, Heartbeat};
use outlast_model::requires::COMMANDS;
use outlast_model::{Capabilities, Lane, TaskOutcome};
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

/// Returns true if this store id is made here, for a worker of the v1 dialect: no hello may name it.
pub(super) fn is_reserved(store_id: &str) -> bool {
    store_id.starts_with(v1::PREFIX)
}

#[derive(Debug)]
pub(super) struct Member {
    pub row: Arc<WorkerRow>,
    /// The last sequence that took effect, of each durable lane.
    cursors: [u64; 3],
    /// (incarnation, connection) on record: of the newest process that said what it holds. What
    /// is missing from another one's inventory may have run in the one that it was given to.
    pub settled: (u64, u64),
    pub link: Presence,
    pub held: Held,
    pub isolation: Isolation,
    /// Session of a worker of the v1 dialect.
    pub v1: Option<Box<v1::Session>>,
    /// Operator requests that the worker was not yet notified of.
    pub actions: BTreeSet<Action>,
    /// Faults reported on the open link, or on the last one.
    pub unable: Option<Unable>,
    pub rivals: Rivals,
}

/// A worker's link, or its absence.
#[derive(Debug)]
pub(super) struct Presence {
    pub conn: Option<ConnId>,
    /// True once its inventory was compared, and the difference sent.
    pub ready: bool,
    pub draining: bool,
    /// Time at which its link ended, or the coordinator started.
    pub gone: Millis,
    /// True if it had a link since the coordinator started.
    pub met: bool,
    pub beat: Heartbeat,
    /// Failure detector, from its first link on.
    pub detector: Option<Box<FailureDetector>>,
}

/// Attempts that a worker has, and those that it had.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Attempts that take its slots, whether they are current or not.
    pub attempts: BTreeMap<AttemptId, u32>,
    pub used: u64,
    /// Mean duration of its recent tasks in milliseconds.
    pub typical_ms: Option<f64>,
    /// Outcomes of its tasks.
    pub tally: Tally,
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

#[derive(Debug)]
pub(super) struct Fleet {
    members: BTreeMap<WorkerKey, Member>,
    stores: BTreeMap<Arc<str>, WorkerKey>,
    names: BTreeMap<Arc<str>, WorkerKey>,
    next: WorkerKey,
    /// Bytes of what all of them said of themselves.
    bytes: usize,
    /// Admission control of those that connect.
    pub admission: Admission,
}

/// Bytes of what a worker said of itself.
fn bytes_of(row: &WorkerRow) -> usize {
    let labels: usize = row.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    row.capabilities.len() + labels + row.name.len() + row.store_id.len() + row.version.len()
}

impl Fleet {
    /// No workers, of which so many are admitted per second, and so many at once.
    pub fn admitting(per_second: u32, burst: u32) -> Fleet {
        Fleet {
            members: BTreeMap::new(),
            stores: BTreeMap::new(),
            names: BTreeMap::new(),
            next: 0,
            bytes: 0,
            admission: Admission::new(per_second, burst),
        }
    }

    pub fn insert(&mut self, row: WorkerRow, cursors: &[(Lane, u64)], gone: Millis) -> WorkerKey {
        let of = |lane: Lane| cursors.iter().find(|(l, _)| *l == lane).map_or(0, |(_, seq)| *seq);
        let cursors = LANES.map(of);
        let key = self.next;
        self.next += 1;
        self.stores.insert(row.store_id.clone(), key);
        self.names.insert(row.name.clone(), key);
        self.bytes += bytes_of(&row);
        let is_v1 = is_reserved(&row.store_id);
        let member = Member {
            settled: (row.incarnation, row.connection),
            row: Arc::new(row),
            cursors,
            link: Presence {
                conn: None,
                ready: false,
                draining: false,
                gone,
                met: false,
                beat: Heartbeat::default(),
                detector: None,
            },
            held: Held::default(),
            isolation: Isolation::Free,
            v1: is_v1.then(Box::default),
            actions: BTreeSet::new(),
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
        let gone =
            |m: &Member| m.link.conn.is_none() && m.held.attempts.is_empty() && !m.row.drained;
        let members = self.members.iter().filter(|(_, m)| gone(m));
        members.min_by_key(|(_, m)| (m.cursors != [0; 3], m.link.gone)).map(|(key, _)| *key)
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
        for member in self.members.values_mut().filter(|m| m.link.conn.is_none()) {
            member.link.gone += gap;
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
        if m.link.conn.is_none() || !m.link.ready || m.link.draining || m.row.drained || out {
            return scheduler.leave(key);
        }
        // It was checked at its hello.
        let mut capabilities = Capabilities::of(&m.row.capabilities);
        // So that a task can name its worker.
        capabilities.set("worker", m.row.name.to_string());
        capabilities.add_hardware_classes();
        if !m.has_outbox() {
            // Only one that says so is sent command lines.
            let runs = capabilities.is("commands", true);
            capabilities.set(COMMANDS, runs);
        }
        let load = (m.row.slots, m.held.used, m.limit());
        scheduler.join(key, capabilities, m.row.labels.clone(), load);
    }
    pub fn update_room(&self, scheduler: &mut Scheduler, key: WorkerKey) {
        if let Some(m) = self.members.get(&key) {
            scheduler.set_used(key, m.held.used, m.limit());
        }
    }
}

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
        // An attempt that is named before its task is known is held already, with a guess of its slots.
        let before = self.held.attempts.insert(AttemptId { task, epoch }, slots);
        self.held.used += u64::from(slots);
        self.held.used -= before.map_or(0, u64::from);
    }
    pub fn drop_attempt(&mut self, attempt: &AttemptId) {
        if let Some(slots) = self.held.attempts.remove(attempt) {
            self.held.used -= u64::from(slots);
        }
    }
    /// Returns true if it holds more tasks than its slots run at once.
    pub fn has_work_ahead(&self) -> bool {
        self.held.used > u64::from(self.row.slots)
    }
    /// Slots' worth of tasks that it may hold.
    fn limit(&self) -> u64 {
        if self.isolation == Isolation::Probe {
            return 1;
        }
        let slots = u64::from(self.row.slots);
        // A worker without an outbox starts at once what it is given.
        if !self.has_outbox() {
            return slots;
        }
        match self.row.prefetch {
            0 => {
                let fast = self.held.typical_ms.map_or(0.0, |ms| PREFETCH_MS / ms.max(0.05));
                let wanted = (slots as f64 * fast) as u64;
                slots + wanted.clamp(slots, MAX_PREFETCH.max(slots))
            }
            n => slots + u64::from(n),
        }
    }
    /// Returns true if it keeps an outbox: what it reports has a number, and is on its disk until it is
    /// acknowledged. Workers of the v1 dialect have none.
    pub fn has_outbox(&self) -> bool {
        self.v1.is_none()
    }
    /// Returns true if this is one of its links.
    pub fn has_link(&self, conn: ConnId) -> bool {
        let others = self.v1.as_ref().map_or(&[][..], |session| &session.links);
        self.link.conn == Some(conn) || others.contains(&conn)
    }
    /// Returns the number of attempts of which more is remembered than that it holds them.
    pub fn remembered(&self) -> usize {
        self.v1.as_ref().map_or(0, |session| session.runs.len())
    }
    /// A checkpoint of this attempt is requested for an operator.
    pub fn expect_checkpoint(&mut self, task: &TaskId, epoch: Epoch) {
        if let Some(session) = &mut self.v1 {
            session.wants_checkpoint(task, epoch);
        }
    }
    /// Returns whether no quarantine keeps it from work.
    pub fn takes_work(&self) -> bool {
        self.isolation != Isolation::Out
    }
    /// Returns the slots of the tasks that it holds, and of those that it may hold.
    pub fn room(&self) -> (u64, u64) {
        (self.held.used, self.limit())
    }
    pub fn state(&self) -> WorkerState {
        match (
            self.link.conn,
            self.link.draining || self.row.drained,
            self.held.attempts.is_empty(),
        ) {
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
            conn: self.link.conn,
            attempts: self.held.attempts.len(),
            running: self.link.beat.running,
            queued: self.link.beat.queued,
            unacked: self.link.beat.unacked,
            rtt_ms: self.link.beat.rtt_ms,
            disk: (self.link.beat.disk_used, self.link.beat.disk_budget, self.link.beat.refused),
            isolation: self.isolation,
            faults: self.unable.as_ref().map(|u| u.faults.clone()),
            copied: self.rivals.seen().cloned(),
        }
    }
    pub fn learn_duration(&mut self, outcome: &TaskOutcome) {
        self.held.tally.add(outcome);
        if outcome.started_at_ms > 0 {
            let ms = (outcome.finished_at_ms - outcome.started_at_ms).max(0) as f64;
            self.held.typical_ms =
                Some(self.held.typical_ms.map_or(ms, |old| old * 0.9 + ms * 0.1));
        }
    }

    /// Returns true if it reported that it cannot work.
    pub fn is_unfit(&self) -> bool {
        self.unable.as_ref().is_some_and(|u| u.faults.unfit)
    }
}
