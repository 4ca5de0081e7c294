//! The sentences of a task's story, in the order of its events.

use super::attempts::Attempts;
use super::facts::Facts;
use super::present;
use super::words::Clock;
use outlast_store::EventKind;
use outlast_wire::api::Explanation;

/// Remarks shown of a task; further ones are counted.
const REMARKS: usize = 12;

/// Explains a task.
pub(crate) fn explain(facts: &Facts) -> Explanation {
    let clock = Clock::new(facts.task.submitted_at);
    let mut sentences = vec![format!("submitted on {}", clock.full(facts.task.submitted_at))];
    let mut attempts = Attempts::new(facts, clock);
    let mut remarks = 0;
    for event in &facts.events {
        let at = clock.time(event.at);
        match event.kind {
            EventKind::Submitted => {}
            EventKind::Assigned => sentences.extend(attempts.assigned(event)),
            EventKind::Started => attempts.started(event),
            EventKind::Requeued
            | EventKind::Succeeded
            | EventKind::Failed
            | EventKind::Cancelled => sentences.push(attempts.ended(event)),
            EventKind::Superseded => sentences.push(attempts.superseded(event)),
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
