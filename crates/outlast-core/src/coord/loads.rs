//! Queries of the store: tasks that have ended, earlier attempts, blobs, keys. The core reads nothing itself: a
//! [`Query`] leaves with `Output::Load`, and its [`Fact`] comes back with `on_loaded`, at any later time. Until then
//! the message or request that needs it waits.
//!
//! A fact is as old as the load. What was decided meanwhile is in memory, and is kept there while any load
//! that may have missed it is open: see [`Loads::settled`].

use super::ids::RequestId;
use super::request::Request;
use crate::records::TaskRow;
use crate::{Epoch, TaskId};
use outlast_model::{Bytes, Checkpoint, StateUpdate, TaskOutcome};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A load, as the core numbers it. Never used twice.
pub type LoadId = u64;

/// One question to the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// The row of a task: [`Fact::Task`].
    Task(TaskId),
    /// The newest attempt of a former task of this id, which was removed; 0 when there was none:
    /// [`Fact::Epoch`].
    Former(TaskId),
    /// Ownership of a task: true if it was submitted with the key of this name: [`Fact::Is`].
    Owned(TaskId, Arc<str>),
    /// Presence of a blob: true if it is complete and durable here, and was uploaded by the worker with
    /// this store id (or its uploader is not known any more); it is then kept long enough to be
    /// referred to: [`Fact::Is`].
    Blob(Bytes, Arc<str>),
    /// The attempts of a task that the worker with this store id was given, by number: [`Fact::Attempts`].
    Attempts(TaskId, Arc<str>),
    /// The assignment of an attempt: [`Fact::Given`].
    Given(TaskId, Epoch),
    /// Validity of a key: true if one of this name exists and is not revoked: [`Fact::Is`].
    Key(Arc<str>),
    /// The newest state of a task: [`Fact::State`].
    State(TaskId),
    /// All reported checkpoints of a task, including those that are not kept: [`Fact::Checkpoints`].
    Checkpoints(TaskId),
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A task's row, if it is known.
    Task(Option<Box<TaskRow>>),
    /// The number of an attempt.
    Epoch(Epoch),
    /// True or false.
    Is(bool),
    /// Attempts by number.
    Attempts(Vec<PastAttempt>),
    /// An assignment.
    Given(Given),
    /// A state, if one was reported.
    State(Option<Arc<StateUpdate>>),
    /// Checkpoints by attempt and number.
    Checkpoints(Vec<Arc<Checkpoint>>),
}

/// An attempt that a worker was given, by record.
#[derive(Debug, Clone, PartialEq)]
pub struct PastAttempt {
    /// Number of the attempt; 0 collects the outcomes that belong to no attempt of this worker.
    pub epoch: Epoch,
    /// The outcomes that were recorded of it, oldest first; none while it has not ended.
    pub outcomes: Vec<Arc<TaskOutcome>>,
}

/// Recorded assignment of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The worker with this store id.
    To(Arc<str>),
    /// No known worker, but the records may be lost: the store was restored from a backup, and the
    /// attempt may have been assigned after that was made.
    Unrecorded,
    /// The attempt was not assigned; or the task is not known.
    Never,
}

impl Query {
    /// The answer of a store that has nothing, in which every key is valid.
    pub fn unknown(&self) -> Fact {
        match self {
            Query::Task(_) => Fact::Task(None),
            Query::Former(_) => Fact::Epoch(0),
            Query::Owned(..) | Query::Blob(..) => Fact::Is(false),
            Query::Key(_) => Fact::Is(true),
            Query::Attempts(..) => Fact::Attempts(Vec::new()),
            Query::Given(..) => Fact::Given(Given::Never),
            Query::State(_) => Fact::State(None),
            Query::Checkpoints(_) => Fact::Checkpoints(Vec::new()),
        }
    }
}

/// The facts that were loaded for one message or request.
#[derive(Debug, Default)]
pub(super) struct Facts {
    known: BTreeMap<Query, Fact>,
    /// True if a fact that is not here is one that the store does not have.
    complete: bool,
    /// Facts that a decision needed and that nobody had asked for.
    missed: Cell<u64>,
}

impl Facts {
    /// Facts for a decision about current attempts, which are in memory.
    pub fn none() -> Facts {
        Facts { complete: true, ..Facts::default() }
    }
    pub fn has(&self, query: &Query) -> bool {
        self.known.contains_key(query)
    }
    fn get(&self, query: &Query) -> Fact {
        if let Some(fact) = self.known.get(query) {
            return fact.clone();
        }
        if !self.complete {
            self.missed.set(self.missed.get() + 1);
        }
        query.unknown()
    }
    fn is(&self, query: &Query) -> bool {
        self.get(query) == Fact::Is(true)
    }
    pub fn task(&self, id: &TaskId) -> Option<TaskRow> {
        match self.get(&Query::Task(id.clone())) {
            Fact::Task(row) => row.map(|row| *row),
            _ => None,
        }
    }
    pub fn former(&self, id: &TaskId) -> Epoch {
        match self.get(&Query::Former(id.clone())) {
            Fact::Epoch(epoch) => epoch,
            _ => 0,
        }
    }
    pub fn is_owned(&self, id: &TaskId, owner: &Arc<str>) -> bool {
        self.is(&Query::Owned(id.clone(), owner.clone()))
    }
    pub fn has_blob(&self, manifest: &Bytes, store_id: &Arc<str>) -> bool {
        self.is(&Query::Blob(manifest.clone(), store_id.clone()))
    }
    pub fn attempts(&self, id: &TaskId, store_id: &Arc<str>) -> Vec<PastAttempt> {
        match self.get(&Query::Attempts(id.clone(), store_id.clone())) {
            Fact::Attempts(past) => past,
            _ => Vec::new(),
        }
    }
    /// Returns true if the attempt is known to be one of this worker's without a query of its own.
    pub fn lists(&self, id: &TaskId, epoch: Epoch, store_id: &Arc<str>) -> bool {
        match self.known.get(&Query::Attempts(id.clone(), store_id.clone())) {
            Some(Fact::Attempts(past)) => epoch > 0 && past.iter().any(|a| a.epoch == epoch),
            _ => false,
        }
    }
    pub fn given(&self, id: &TaskId, epoch: Epoch) -> Given {
        match self.get(&Query::Given(id.clone(), epoch)) {
            Fact::Given(given) => given,
            _ => Given::Never,
        }
    }
    pub fn key_is_valid(&self, name: &Arc<str>) -> bool {
        self.is(&Query::Key(name.clone()))
    }
    pub fn state(&self, id: &TaskId) -> Option<Arc<StateUpdate>> {
        match self.get(&Query::State(id.clone())) {
            Fact::State(state) => state,
            _ => None,
        }
    }
    pub fn checkpoints(&self, id: &TaskId) -> Vec<Arc<Checkpoint>> {
        match self.get(&Query::Checkpoints(id.clone())) {
            Fact::Checkpoints(all) => all,
            _ => Vec::new(),
        }
    }
}

/// The queries that a message or request still needs the facts of.
#[derive(Debug)]
pub(super) struct Wants<'a> {
    facts: &'a Facts,
    missing: Vec<Query>,
}

impl<'a> Wants<'a> {
    pub fn new(facts: &'a Facts) -> Wants<'a> {
        Wants { facts, missing: Vec::new() }
    }
    pub fn add(&mut self, query: Query) {
        if !self.facts.has(&query) {
            self.missing.push(query);
        }
    }
    /// Returns the missing ones, each once.
    pub fn missing(mut self) -> Vec<Query> {
        self.missing.sort();
        self.missing.dedup();
        self.missing
    }
}

/// A message or request that waits for facts.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The first of the messages that wait on this link.
    Link(u64),
    Request(RequestId, Box<Request>),
}

/// A load that the driver has not answered.
#[derive(Debug)]
pub(super) struct Load {
    /// The newest batch that was durable when the first load of this waiter left.
    pub since: u64,
    pub waiter: Waiter,
    queries: Vec<Query>,
    /// Facts of the same waiter's earlier loads.
    facts: Facts,
}

/// The loads that the driver has not answered.
#[derive(Debug, Default)]
pub(super) struct Loads {
    last: LoadId,
    open: BTreeMap<LoadId, Load>,
    /// Open ones that a request waits for.
    requests: usize,
    missed: u64,
}

impl Loads {
    /// Begins a load; the driver answers it with the facts in the order of the queries.
    pub fn begin(
        &mut self,
        since: u64,
        waiter: Waiter,
        queries: Vec<Query>,
        facts: Facts,
    ) -> (LoadId, Vec<Query>) {
        self.last += 1;
        self.requests += usize::from(matches!(waiter, Waiter::Request(..)));
        self.open.insert(self.last, Load { since, waiter, queries: queries.clone(), facts });
        (self.last, queries)
    }

    /// Ends a load; returns who waits for it, since when, and the facts that were loaded for it.
    pub fn end(&mut self, load: LoadId, answers: Vec<Fact>) -> Option<(Waiter, u64, Facts)> {
        let Load { since, waiter, queries, mut facts } = self.open.remove(&load)?;
        self.requests -= usize::from(matches!(waiter, Waiter::Request(..)));
        facts.known.extend(queries.into_iter().zip(answers));
        Some((waiter, since, facts))
    }

    /// Counts what a decision missed in its facts.
    pub fn used(&mut self, facts: &Facts) {
        self.missed += facts.missed.get();
    }

    /// The newest batch that every open load, and any later one, finds in the store. Of newer ones memory must
    /// keep what a load may need.
    pub fn settled(&self, durable: u64) -> u64 {
        self.open.values().map(|load| load.since).fold(durable, u64::min)
    }

    /// The blobs that an open load asks for: a worker that learns that one is there may refer to it.
    pub fn blobs<'a>(&'a self) -> impl Iterator<Item = &'a Bytes> {
        let blob = |query: &'a Query| match query {
            Query::Blob(manifest, _) => Some(manifest),
            _ => None,
        };
        self.open.values().flat_map(move |load| load.queries.iter().filter_map(blob))
    }

    /// Returns the number of loads that are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns the number of requests that wait for facts.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Returns the loads that something on this link waits for.
    pub fn of_link(&self, conn: u64) -> usize {
        let is = |load: &&Load| matches!(load.waiter, Waiter::Link(of) if of == conn);
        self.open.values().filter(is).count()
    }

    /// Returns the load that is open for the longest, with its queries.
    #[cfg(test)]
    pub fn oldest(&self) -> Option<(LoadId, Vec<Query>)> {
        self.open.first_key_value().map(|(load, l)| (*load, l.queries.clone()))
    }

    /// Returns the number of facts that decisions needed and that were not loaded: a mistake of the core's.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
