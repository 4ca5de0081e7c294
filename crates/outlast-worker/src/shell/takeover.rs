//! The events of the runner, and the attempts that a former process left with its keeper.

use super::driver::Driver;
use super::now;
use super::runs::Runs;
use crate::exec::StopKind;
use crate::runner::{Event, Held};
use outlast_core::worker::{Alive, Unfit};
use std::sync::Arc;

impl Driver {
    /// Passes events of the runner to the core.
    pub(super) fn on_events(self: &Arc<Self>, events: Vec<Event>) {
        self.feed(|core| {
            let at = now();
            for event in events {
                match event {
                    Event::Finished(outcome) => core.on_finished(at, outcome),
                    Event::Paused(id) => core.on_paused(at, &id.task, id.epoch, true),
                    Event::Resumed(id) => core.on_paused(at, &id.task, id.epoch, false),
                    Event::Started { .. } => {}
                    Event::Unfit(reason) => core.set_unfit(at, Unfit::Machine, reason),
                    Event::Died(reason) => {
                        tracing::error!("the keeper of the tasks died, and they with it: {reason}");
                    }
                }
            }
        });
    }

    /// Takes over from a former process: the core gets the outcomes, and attempts that it does not hold are
    /// stopped.
    pub(super) fn take_over(self: &Arc<Self>, runs: &Runs, held: Held) {
        let ours = |task: &str, epoch| self.lock().reported(task, epoch).is_some();
        for one in &held.running {
            if !ours(&one.id.task, one.id.epoch) {
                runs.runner().stop(&one.id, StopKind::Cancel);
            }
        }
        if held.unfit.is_some() {
            self.feed(|core| core.set_unfit(now(), Unfit::Machine, held.unfit));
        }
        if !held.running.is_empty() {
            tracing::info!("took over {} running tasks", held.running.len());
        }
        let finished: Vec<_> = held.finished.into_iter().map(Event::Finished).collect();
        if !finished.is_empty() {
            tracing::info!("{} tasks ended while this worker was away", finished.len());
            self.on_events(finished);
        }
    }
}

/// The attempts that a keeper ran while this worker's process was away.
pub(super) fn alive(held: &Held) -> Vec<Alive> {
    let running = held.running.iter().map(|one| Alive {
        task: one.id.task.clone(),
        epoch: one.id.epoch,
        started_at: one.started_at_ms.unwrap_or_else(|| now().wall),
        paused: one.paused,
    });
    let finished = held.finished.iter().map(|outcome| Alive {
        task: outcome.task.clone(),
        epoch: outcome.epoch,
        started_at: outcome.started_at_ms,
        paused: false,
    });
    running.chain(finished).collect()
}
