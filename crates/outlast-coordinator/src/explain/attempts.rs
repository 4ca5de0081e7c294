//! One sentence for each attempt: where it ran, for how long, what ended it, what it left.

use super::facts::Facts;
use super::words::{Clock, bytes, duration, until};
use outlast_model::Cause;
use outlast_store::{EventKind, StoredCheckpoint, StoredEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
struct Attempt {
    worker: Option<Arc<str>>,
    assigned_at: Option<i64>,
    started_at: Option<i64>,
}

/// Follows the events and makes a sentence of each attempt once it has ended.
pub(super) struct Attempts<'a> {
    facts: &'a Facts,
    clock: Clock,
    open: BTreeMap<u64, Attempt>,
    /// The attempts whose end is recorded.
    ends: BTreeSet<u64>,
}

impl<'a> Attempts<'a> {
    pub fn new(facts: &'a Facts, clock: Clock) -> Attempts<'a> {
        let end = |e: &&StoredEvent| {
            use EventKind as K;
            matches!(e.kind, K::Requeued | K::Succeeded | K::Failed | K::Cancelled | K::Superseded)
        };
        let ends = facts.events.iter().filter(end).map(|e| e.epoch).collect();
        Attempts { facts, clock, open: BTreeMap::new(), ends }
    }

    /// Makes sentences of attempts without a recorded end: there was a restore in between.
    pub fn assigned(&mut self, event: &StoredEvent) -> Vec<String> {
        let before = self.open.range(..event.epoch).filter(|(n, _)| !self.ends.contains(n));
        let sentences = before.map(|(n, attempt)| {
            let worker = self.facts.name(attempt.worker.as_ref());
            let since = attempt.started_at.or(attempt.assigned_at).unwrap_or(event.at);
            let time = self.clock.time(since);
            format!("attempt {n} was at {worker} since {time}; what became of it is not known")
        });
        let sentences: Vec<String> = sentences.collect();
        self.open.retain(|n, _| *n >= event.epoch || self.ends.contains(n));
        let (worker, assigned_at) = (event.worker.clone(), Some(event.at));
        self.open.insert(event.epoch, Attempt { worker, assigned_at, started_at: None });
        sentences
    }

    pub fn started(&mut self, event: &StoredEvent) {
        let attempt = self.open.entry(event.epoch).or_default();
        attempt.started_at = attempt.started_at.or(Some(event.at));
    }

    /// Makes a sentence of the end of an attempt, or of the task.
    pub fn ended(&mut self, event: &StoredEvent) -> String {
        let n = event.epoch;
        if n == 0 {
            let at = self.clock.time(event.at);
            let why = if event.reason.is_empty() { "" } else { ": " };
            return format!("at {at} it was {}{why}{}", event.kind.as_str(), event.reason);
        }
        let attempt = self.open.remove(&n).unwrap_or_default();
        let worker = self.facts.name(event.worker.as_ref().or(attempt.worker.as_ref()));
        let spec = &self.facts.task.spec;
        // Its lease expires only after its worker's window.
        let away = if event.cause == Cause::Network { spec.reconnect_window } else { 0.0 };
        let end = (event.at - (away * 1000.0) as i64)
            .max(attempt.started_at.or(attempt.assigned_at).unwrap_or(event.at));
        let how = match event.kind {
            EventKind::Succeeded if event.reason.is_empty() => " and succeeded".into(),
            EventKind::Succeeded => format!(" and succeeded ({})", event.reason),
            EventKind::Cancelled => " until it was cancelled".to_owned(),
            _ => {
                let why = until(event.cause, &worker, spec.reconnect_window, &event.reason);
                format!(" until {why}")
            }
        };
        let from = from(self.facts, n, attempt.assigned_at);
        let mut text = match (attempt.started_at, attempt.assigned_at) {
            (Some(start), _) => {
                let (time, long) = (self.clock.time(start), duration(end - start));
                format!("attempt {n} ran on {worker}{from} from {time} for {long}{how}")
            }
            // Its start was not reported before its end.
            (None, Some(at))
                if event.kind == EventKind::Succeeded || implies_a_run(event.cause) =>
            {
                let time = self.clock.time(at);
                format!("attempt {n}, given to {worker} at {time}, ran there{from}{how}")
            }
            (None, Some(at)) => {
                let (time, long) = (self.clock.time(at), duration(end - at));
                format!(
                    "attempt {n} was given to {worker} at {time}, and is not known to have \
                     started; it was there for {long}{how}"
                )
            }
            (None, None) => format!("attempt {n} was at {worker}{how}"),
        };
        if !matches!(event.kind, EventKind::Succeeded) {
            text += &self.left(n, end);
        }
        if event.kind == EventKind::Failed && !text.contains(&event.reason) {
            text += &format!("; the task failed: {}", event.reason);
        }
        text
    }

    pub fn superseded(&mut self, event: &StoredEvent) -> String {
        let worker = self.facts.name(event.worker.as_ref());
        let (n, at) = (event.epoch, self.clock.time(event.at));
        format!("at {at} attempt {n} of {worker} ended too, and did not count: {}", event.reason)
    }

    /// Names the last checkpoint of an attempt.
    fn left(&self, epoch: u64, end: i64) -> String {
        let own = |c: &&StoredCheckpoint| c.checkpoint.epoch == epoch && !c.checkpoint.dropped;
        match self.facts.checkpoints.iter().rfind(own) {
            Some(c) => {
                let (c, kept) = (&c.checkpoint, if c.kept { "" } else { " (not kept any more)" });
                let (size, before) = (bytes(c.size), duration(end - c.created_at_ms));
                let id = c.id();
                format!("; it had a checkpoint {id} of {size}{kept} taken {before} before")
            }
            None => String::new(),
        }
    }
}

/// Returns whether only an attempt that had begun can end so.
fn implies_a_run(cause: Cause) -> bool {
    use Cause::{Disk, Done, Exit, OutOfMemory, Signal, TimedOut};
    matches!(cause, Done | Exit | Signal | OutOfMemory | TimedOut | Disk)
}

/// The checkpoint that an attempt went on from, if there was one.
pub(super) fn from(facts: &Facts, epoch: u64, assigned_at: Option<i64>) -> String {
    let before = |c: &&StoredCheckpoint| {
        c.checkpoint.epoch < epoch
            && !c.checkpoint.dropped
            && assigned_at.is_none_or(|at| c.at <= at)
            && c.gone_at.is_none_or(|gone| assigned_at.is_some_and(|at| gone > at))
    };
    match facts.checkpoints.iter().rfind(before).map(|c| &c.checkpoint) {
        Some(c) => format!(", going on from checkpoint {},", c.id()),
        None => String::new(),
    }
}
