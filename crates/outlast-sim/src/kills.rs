//! Keepers that are killed under their agents, as by one of the tasks that they run: all that runs
//! there is lost together.

use crate::event::Event;
use crate::world::World;
use outlast_core::AttemptId;
use outlast_model::{Cause, OutcomeKind, TaskOutcome};

/// Time at which keepers are killed first, in virtual milliseconds.
const FIRST: u64 = 15_000;

impl World {
    /// Keepers are killed again and again in some seeds. No draw, so that others stay.
    pub fn plan_kills(&mut self) {
        if self.heal_seed % 8 == 5 {
            self.at(FIRST, Event::KeepersDie);
        }
    }

    pub fn keepers_die(&mut self) {
        if self.healed {
            return;
        }
        (0..self.workers.len()).for_each(|i| self.keeper_dies(i));
        let pause = 6_000 + self.now.wrapping_mul(7_919) % 20_000;
        self.at(self.now + pause, Event::KeepersDie);
    }

    fn keeper_dies(&mut self, i: usize) {
        // Where the agent is gone, its next start reports the losses.
        if self.workers[i].peer.machine.is_none() || self.is_paused(i) {
            return;
        }
        let finished_at_ms = self.workers[i].peer.now(self.now).wall;
        let worker = &mut self.workers[i];
        let lost: Vec<(AttemptId, i64)> = worker
            .running
            .iter()
            .filter(|(_, run)| run.ended.is_none())
            .map(|(id, run)| (id.clone(), run.started_at))
            .collect();
        worker.keeper_life += 1;
        worker.running.retain(|_, run| run.ended.is_some());
        if lost.is_empty() {
            return;
        }
        self.count("keeper killed", 1);
        let beside = lost.len() as u32 - 1;
        self.say(|| format!("FAULT the keeper of worker {i} is killed, with {} tasks", beside + 1));
        for (id, started_at_ms) in lost {
            let outcome = TaskOutcome {
                task: id.task.clone(),
                epoch: id.epoch,
                kind: OutcomeKind::Interrupted,
                cause: Cause::WorkerCrashed,
                message: "the keeper was killed".into(),
                started_at_ms,
                finished_at_ms,
                beside,
                ..Default::default()
            };
            self.feed_worker(i, |core, now| core.on_finished(now, outcome));
        }
    }
}
