//! The attempts that run at workers: they end, make checkpoints, report states, are paused, and outlive
//! their worker's process when its keeper does.

use crate::event::Event;
use crate::peer::RunState;
use crate::world::World;
use outlast_core::worker::{Alive, Answer, StopKind};
use outlast_core::{AttemptId, TaskId};
use outlast_model::{OutcomeKind, StatePatch, TaskOutcome};
use outlast_wire::{Bytes, TaskSpec};
use rand::Rng;
use serde_json::{Map, Value};

impl World {
    /// A worker starts an attempt.
    pub fn run_starts(&mut self, i: usize, task: TaskId, epoch: u64, spec: &TaskSpec) {
        self.say(|| format!("worker {i} runs {task}.{epoch}"));
        self.oracle.executed(&task, epoch);
        let id = AttemptId { task, epoch };
        let core = self.workers[i].peer.machine.as_ref();
        let from = core.and_then(|core| core.reported(&id.task, id.epoch)?.0);
        self.oracle.begins_from(&id, from.map(|c| (c.epoch, c.number)));
        if self.workers[i].running.get(&id).is_some_and(|r| r.ended.is_none()) {
            let (task, epoch) = (&id.task, id.epoch);
            self.oracle.fail(format!("{task}.{epoch} was started while it runs"));
        }
        let keeper = self.workers[i].keeper_life;
        let started_at = self.workers[i].peer.now(self.now).wall;
        let (kind, says) = self.fate(i, &id, spec);
        let (stop, due, ended) = (None, None, None);
        let run = RunState { started_at, paused: false, stop, due, ended, says, n: 0 };
        self.workers[i].running.insert(id.clone(), run);
        let took = match self.rng.random_range(0..4) {
            0 => 0,
            1 => self.rng.random_range(0..1_000),
            _ => self.rng.random_range(0..40_000),
        };
        self.at(self.now + took, Event::TaskEnds(i, keeper, id.clone(), kind));
        let first = self.rng.random_range(0..8_000);
        self.at(self.now + first, Event::TaskReports(i, keeper, id));
    }

    /// An executor has to stop an attempt.
    pub fn run_stops(&mut self, i: usize, id: AttemptId, kind: StopKind) {
        let kind = match kind {
            StopKind::Cancel => OutcomeKind::Cancelled,
            StopKind::Interrupt => OutcomeKind::Interrupted,
        };
        let after = self.rng.random_range(0..5_000);
        let keeper = self.workers[i].keeper_life;
        if let Some(run) = self.workers[i].running.get_mut(&id) {
            run.stop = Some(kind);
            self.at(self.now + after, Event::TaskEnds(i, keeper, id, kind));
        }
    }

    /// A worker pauses an attempt, or resumes it.
    pub fn run_pauses(&mut self, i: usize, task: TaskId, epoch: u64, on: bool) {
        let id = AttemptId { task: task.clone(), epoch };
        let keeper = self.workers[i].keeper_life;
        let Some(run) = self.workers[i].running.get_mut(&id) else { return };
        run.paused = on;
        if !on && let Some(kind) = run.due.take() {
            self.at(self.now + 10, Event::TaskEnds(i, keeper, id, kind));
        }
        self.say(|| format!("worker {i} pauses {task}.{epoch}: {on}"));
        self.feed_worker(i, |core, now| core.on_paused(now, &task, epoch, on));
    }

    /// An attempt ends.
    pub fn on_task_end(&mut self, i: usize, id: AttemptId, kind: OutcomeKind) {
        let wall = self.workers[i].peer.now(self.now).wall;
        let alive = self.workers[i].peer.machine.is_some();
        let Some(run) = self.workers[i].running.get_mut(&id).filter(|r| r.ended.is_none()) else {
            return;
        };
        let by_itself = run.stop.is_none();
        if run.paused && by_itself {
            run.due = Some(kind);
            return;
        }
        let (task, epoch) = (id.task.clone(), id.epoch);
        let started_at_ms = run.started_at;
        let outcome = TaskOutcome {
            task: id.task.clone(),
            epoch,
            kind,
            started_at_ms,
            finished_at_ms: wall,
            stderr_tail: match kind {
                OutcomeKind::Failed => run.says.as_bytes().to_vec().into(),
                _ => Bytes::new(),
            },
            message: match kind {
                OutcomeKind::Failed => "exit code 1".into(),
                _ => String::new(),
            },
            ..Default::default()
        };
        // The keeper has it until it is durable at the worker.
        run.ended = Some(outcome.clone());
        self.say(|| format!("worker {i} ends {task}.{epoch} {}", kind.word()));
        if alive {
            self.feed_worker(i, |core, now| core.on_finished(now, outcome));
        }
    }

    /// A running task makes a checkpoint, or reports a state.
    pub fn on_task_reports(&mut self, i: usize, id: AttemptId) {
        let alive = self.workers[i].peer.machine.is_some() && !self.is_paused(i);
        let keeper = self.workers[i].keeper_life;
        let Some(run) = self.workers[i].running.get_mut(&id).filter(|r| r.ended.is_none()) else {
            return;
        };
        let next = self.rng.random_range(200..12_000);
        self.reports += 1;
        let question = self.reports;
        if alive && !run.paused {
            run.n += 1;
            let (task, epoch, n) = (id.task.clone(), id.epoch, run.n);
            if self.rng.random_bool(0.5) {
                let manifest = format!("{task}.{epoch}.{question}").into_bytes();
                self.say(|| format!("worker {i}: {task}.{epoch} makes checkpoint {question}"));
                self.workers[i].blobs.insert(manifest.clone());
                let manifest = Bytes::from(manifest);
                self.feed_worker(i, |core, now| {
                    let meta = b"{}".to_vec();
                    core.on_checkpoint(now, question, &task, epoch, manifest, 1, meta, "");
                });
            } else {
                let members = Map::from_iter([("n".to_owned(), Value::from(n))]);
                let patch = StatePatch { members, progress: Some(0.5) };
                self.feed_worker(i, |core, now| {
                    core.on_state(now, question, &task, epoch, patch);
                });
            }
        }
        self.at(self.now + next, Event::TaskReports(i, keeper, id));
    }

    /// A worker answers a task that reported.
    pub fn on_answer(&mut self, i: usize, answer: &Answer) {
        let store = self.workers[i].store_id.clone();
        match answer {
            Answer::Checkpoint(c) => {
                self.oracle.reported_durable(&store, (&c.task, c.epoch), c.number)
            }
            Answer::State(s) => {
                self.oracle.reported_durable(&store, (&s.task, s.epoch), s.version << 32)
            }
            Answer::Refused(_) => {}
        }
    }

    /// Runs of the keeper that continued while the worker's process was away.
    pub fn alive(&self, i: usize) -> Vec<Alive> {
        let alive = |(id, run): (&AttemptId, &RunState)| Alive {
            task: id.task.clone(),
            epoch: id.epoch,
            started_at: run.started_at,
            paused: run.paused,
        };
        self.workers[i].running.iter().map(alive).collect()
    }

    /// Settles runs after a start: what ended meanwhile is reported, and what is not held any more is stopped.
    pub fn after_start(&mut self, i: usize) {
        let runs: Vec<(AttemptId, Option<TaskOutcome>)> =
            self.workers[i].running.iter().map(|(id, r)| (id.clone(), r.ended.clone())).collect();
        for (id, ended) in runs {
            let core = self.workers[i].peer.machine.as_ref();
            let held = core.is_some_and(|c| c.reported(&id.task, id.epoch).is_some());
            match ended {
                Some(outcome) => {
                    self.feed_worker(i, |core, now| core.on_finished(now, outcome));
                }
                None if !held => drop(self.workers[i].running.remove(&id)),
                None => {}
            }
        }
    }
}
