//! A task's story in plain sentences: why it waits, was moved, was run twice, is paused, failed.
//! Pure: from facts to words. `attempts` tells of each try, `present` how it stands, `words`
//! knows how times, sizes and causes are said.

mod attempts;
mod present;
#[cfg(test)]
mod tests;
mod words;

use outlast_core::coord::Faults;
use outlast_store::{EventKind, StoredCheckpoint, StoredEvent, StoredTask, TaskExtra};
use outlast_wire::api::Explanation;
use outlast_wire::v2::LinkCause;
use std::collections::HashMap;
use std::sync::Arc;
use words::Clock;

/// Remarks told of a task; further ones are counted.
const REMARKS: usize = 12;

/// Where a worker is.
#[derive(Debug, Clone)]
pub(crate) struct Whereabouts {
    pub name: Arc<str>,
    /// Its link is up.
    pub there: bool,
    /// An operator lets it have no new work.
    pub drained: bool,
    /// What does not work there, as it says itself.
    pub unfit: Option<Arc<Faults>>,
    /// When its link ended, in Unix milliseconds.
    pub gone_at: Option<i64>,
    pub gone_cause: LinkCause,
}

impl Whereabouts {
    /// Whether it takes no work because its machine is at fault.
    pub fn is_unfit(&self) -> bool {
        self.unfit.as_ref().is_some_and(|f| f.unfit)
    }
}

/// Everything that is known. Times are Unix milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub task: StoredTask,
    pub extra: TaskExtra,
    /// In the order in which they were recorded.
    pub events: Vec<StoredEvent>,
    /// By epoch and number.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// Why the scheduler has no worker for it.
    pub waiting_for: Option<String>,
    /// By store id.
    pub workers: HashMap<Arc<str>, Whereabouts>,
    pub now: i64,
}

impl Facts {
    fn name(&self, store: Option<&Arc<str>>) -> String {
        let Some(store) = store else { return "a worker".into() };
        let shown = self.task.worker.as_ref().filter(|w| *w == store);
        let known = self.workers.get(store).map(|w| &w.name);
        let name = known.or(shown.and(self.task.worker_name.as_ref()));
        name.map_or_else(|| format!("a worker that was removed ({store})"), ToString::to_string)
    }
}

/// Tells the story.
pub(crate) fn explain(facts: &Facts) -> Explanation {
    let clock = Clock::new(facts.task.submitted_at);
    let mut sentences = vec![format!("submitted on {}", clock.full(facts.task.submitted_at))];
    let mut told = attempts::Teller::new(facts, clock);
    let mut remarks = 0;
    for event in &facts.events {
        let at = clock.time(event.at);
        match event.kind {
            EventKind::Submitted => {}
            EventKind::Assigned => sentences.extend(told.assigned(event)),
            EventKind::Started => told.started(event),
            EventKind::Requeued
            | EventKind::Succeeded
            | EventKind::Failed
            | EventKind::Cancelled => sentences.push(told.ended(event)),
            EventKind::Superseded => sentences.push(told.superseded(event)),
            EventKind::CancelRequested => sentences.push(format!("at {at} somebody cancelled it")),
            EventKind::Retried => {
                sentences.push(format!("at {at} somebody asked to run it again"));
            }
            EventKind::PauseRequested => sentences.push(format!("at {at} somebody paused it")),
            EventKind::ResumeRequested => {
                sentences.push(format!("at {at} somebody let it go on"));
            }
            EventKind::Recovery => sentences.push(format!("at {at} {}", event.reason)),
            EventKind::Noted => {
                remarks += 1;
                if remarks <= REMARKS {
                    let attempt = match event.epoch {
                        0 => String::new(),
                        n => format!(" (attempt {n})"),
                    };
                    sentences.push(format!("at {at}{attempt}: {}", event.reason));
                }
            }
        }
    }
    if remarks > REMARKS {
        let more = remarks - REMARKS;
        sentences.push(format!("{more} more remarks are in its history"));
    }
    let (now, hint) = present::present(facts, clock);
    Explanation { id: facts.task.id.to_string(), sentences, now, hint }
}
