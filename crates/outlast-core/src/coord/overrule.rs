//! Operators' overrides of recovery, and their view of it.

use super::coordinator::Coordinator;
use super::isolate::WISH;
use super::request::{RecoveryRequest, Response};
use super::workers::Isolation;
use crate::Now;
use crate::records::CoordRecord;
use crate::recovery::{Config, Failure, Learned, Pattern, Quarantine};
use std::sync::Arc;

/// View of failures.
#[derive(Debug, Clone)]
pub struct RecoveryView {
    /// Patterns of the failures.
    pub patterns: Vec<Pattern>,
    /// Workers that are given no work but probes: store id, name, how, and why.
    pub quarantined: Vec<(Arc<str>, String, Isolation, Arc<Quarantine>)>,
    /// Knobs that worked.
    pub learned: Vec<Arc<Learned>>,
    /// Failures that are looked back at, newest first.
    pub failures: Vec<Failure>,
}

impl Coordinator {
    pub(super) fn overrule(&mut self, now: Now, what: RecoveryRequest) -> Response {
        match what {
            RecoveryRequest::Release(name) => match self.fleet.named(&name) {
                Some(key) => {
                    let store = self.fleet.get(key).row.store_id.clone();
                    self.release(key, store);
                    Response::Overruled
                }
                None => Response::NotFound,
            },
            RecoveryRequest::Quarantine(name) => match self.fleet.named(&name) {
                Some(key) => {
                    let store = self.fleet.get(key).row.store_id.clone();
                    self.recover.quarantine.remove(&store);
                    self.quarantine(now, key, store, WISH.into());
                    Response::Overruled
                }
                None => Response::NotFound,
            },
            RecoveryRequest::Allow(kind) => {
                if !self.recover.history.all().any(|f| f.task_type == kind) {
                    return Response::NotFound;
                }
                self.recover.history.forget(None, Some(&kind));
                let task_type = Some(kind);
                self.journal.record(CoordRecord::FailuresForgotten { worker: None, task_type });
                Response::Overruled
            }
            RecoveryRequest::Unlearn(task_type) => {
                let is = |kind: &String| task_type.as_ref().is_none_or(|t| t == kind);
                let before = self.recover.learned.len();
                self.recover.learned.retain(|(kind, _), _| !is(kind));
                if task_type.is_some() && self.recover.learned.len() == before {
                    return Response::NotFound;
                }
                let hardware = None;
                self.journal.record(CoordRecord::Unlearned { task_type, hardware });
                Response::Overruled
            }
        }
    }

    /// The table that is in force.
    pub fn recovery_config(&self) -> Arc<Config> {
        self.config.recovery.clone()
    }

    /// Returns the current view of failures.
    pub fn recovery(&self, now: Now) -> RecoveryView {
        let name = |store: &Arc<str>| {
            let member = self.fleet.by_store(store).and_then(|key| self.fleet.find(key));
            member.map(|m| (m.row.name.to_string(), m.isolation))
        };
        let quarantined = self.recover.quarantine.iter().map(|(store, q)| {
            let (name, how) = name(store).unwrap_or_else(|| (store.to_string(), Isolation::Out));
            (store.clone(), name, how, q.clone())
        });
        RecoveryView {
            patterns: self.recover.history.patterns(now.wall, self.rules()),
            quarantined: quarantined.collect(),
            learned: self.recover.learned.values().cloned().collect(),
            failures: self.recover.history.all().rev().cloned().collect(),
        }
    }
}
