//! Quarantines: workers where tasks fail get no work, then one task at a time, until one shows whether they
//! are well.

use super::coordinator::Coordinator;
use super::workers::{Isolation, Member};
use crate::Now;
use crate::records::CoordRecord;
use crate::recovery::patterns::{MAX_TEXT, blames_worker};
use crate::recovery::plan::Blame;
use crate::recovery::{Classified, Quarantine};
use crate::scheduler::WorkerKey;
use std::sync::Arc;

/// Reason of an operator's quarantine.
pub(super) const WISH: &str = "an operator requested it";

impl Coordinator {
    /// Adds quarantined workers, which the scheduler does not know, to its explanation why a task waits.
    pub(super) fn with_quarantine(&self, why: String) -> String {
        let out = |m: &Member| m.link.conn.is_some() && m.isolation == Isolation::Out;
        match self.fleet.iter().filter(|(_, m)| out(m)).count() {
            0 => why,
            n if self.scheduler.is_empty() => {
                let are =
                    if n == 1 { "worker that is connected is" } else { "connected workers are" };
                format!("the {n} {are} in quarantine: see `outlast recovery patterns`")
            }
            n => format!("{why}; {n} in quarantine: see `outlast recovery patterns`"),
        }
    }

    /// Quarantines a worker that is to blame, or whose probe failed.
    pub(super) fn suspect(&mut self, now: Now, key: WorkerKey, found: &Classified, blame: Blame) {
        let member = self.fleet.get(key);
        let store = member.row.store_id.clone();
        let minutes = (self.rules().window / 60.0).ceil();
        let reason = match member.isolation {
            Isolation::Free if blame.worker > 0 && blame.task_type == 0 => format!(
                "{} failures of several tasks within {minutes} min: {} ({})",
                blame.worker,
                found.class.as_str(),
                found.text
            ),
            Isolation::Probe if blames_worker(found.class) && !found.weak => {
                format!("a probe failed: {} ({})", found.class.as_str(), found.text)
            }
            _ => return,
        };
        // The last one that works is better than none; of probes, one at a time is better.
        let free = |(k, m): (WorkerKey, &Member)| {
            k != key && m.isolation == Isolation::Free && takes_tasks(m)
        };
        if !self.fleet.iter().any(free) {
            return;
        }
        self.quarantine(now, key, store, reason);
    }

    pub(super) fn quarantine(&mut self, now: Now, key: WorkerKey, store: Arc<str>, reason: String) {
        let before = self.recover.quarantine.get(&store).cloned();
        let reason: String = reason.chars().take(2 * MAX_TEXT).collect();
        let next = Quarantine::next(before.as_deref(), now.wall, self.rules(), reason);
        let (worker, next) = (store.clone(), Arc::new(next));
        let quarantine = Some(next.clone());
        self.journal.record(CoordRecord::Quarantined { worker, quarantine });
        self.counters.quarantines += 1;
        self.isolate(now, store, next);
        self.fleet.offer(&mut self.scheduler, key);
        self.take_back(key);
    }

    pub(super) fn isolate(&mut self, now: Now, store: Arc<str>, quarantine: Arc<Quarantine>) {
        if let Some(key) = self.fleet.by_store(&store) {
            self.fleet.get_mut(key).isolation = Isolation::Out;
        }
        let at = now.mono + quarantine.left(now.wall);
        self.recover.probation.retain(|(_, s)| *s != store);
        self.recover.probation.insert((at, store.clone()));
        self.recover.quarantine.insert(store, quarantine);
    }

    /// Workers whose probation begins are offered one task at a time.
    pub(super) fn end_probation(&mut self, now: Now) {
        while let Some((at, store)) = self.recover.probation.first().cloned()
            && at <= now.mono
        {
            self.recover.probation.pop_first();
            if !self.recover.quarantine.contains_key(&store) {
                continue;
            }
            let Some(key) = self.fleet.by_store(&store) else { continue };
            self.probe(key);
        }
        self.probe_for_want_of_others(now);
    }

    fn probe(&mut self, key: WorkerKey) {
        if self.fleet.get(key).isolation == Isolation::Out {
            self.fleet.get_mut(key).isolation = Isolation::Probe;
            self.fleet.offer(&mut self.scheduler, key);
        }
    }

    /// Probes the next quarantined worker at once if no other worker is left. Workers that an operator
    /// quarantined wait.
    fn probe_for_want_of_others(&mut self, now: Now) {
        if self.recover.quarantine.is_empty() {
            return;
        }
        let takes = |(_, m): (WorkerKey, &Member)| m.isolation != Isolation::Out && takes_tasks(m);
        if self.fleet.iter().any(takes) {
            return;
        }
        let there = |(key, m): (WorkerKey, &Member)| {
            let quarantine = self.recover.quarantine.get(&m.row.store_id)?;
            let may = takes_tasks(m) && quarantine.reason != WISH;
            may.then(|| (quarantine.left(now.wall), key))
        };
        if let Some((_, key)) = self.fleet.iter().filter_map(there).min() {
            self.probe(key);
        }
    }

    /// A task succeeded there: a worker on probation is well again.
    pub(super) fn proved(&mut self, key: WorkerKey) {
        let member = self.fleet.get(key);
        if member.isolation == Isolation::Probe {
            let store = member.row.store_id.clone();
            self.release(key, store);
        }
    }

    pub(super) fn release(&mut self, key: WorkerKey, store: Arc<str>) {
        self.recover.quarantine.remove(&store);
        self.recover.probation.retain(|(_, s)| *s != store);
        self.recover.history.forget(Some(&store), None);
        let worker = Some(store.clone());
        self.journal.record(CoordRecord::FailuresForgotten { worker, task_type: None });
        self.journal.record(CoordRecord::Quarantined { worker: store, quarantine: None });
        self.fleet.get_mut(key).isolation = Isolation::Free;
        self.fleet.offer(&mut self.scheduler, key);
    }

    /// A person removed a worker.
    pub(super) fn forget_quarantine(&mut self, store: &Arc<str>) {
        if self.recover.quarantine.remove(store).is_some() {
            self.recover.probation.retain(|(_, s)| s != store);
            let worker = store.clone();
            self.journal.record(CoordRecord::Quarantined { worker, quarantine: None });
        }
    }
}

/// Returns true if a worker is connected and may get tasks, apart from a quarantine.
fn takes_tasks(member: &Member) -> bool {
    let willing = !member.link.draining && !member.row.drained && !member.is_unfit();
    member.link.conn.is_some() && member.link.ready && willing
}
