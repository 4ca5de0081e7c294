//! The client of the replaced system: its reactions to messages, and its tasks.

use super::peer::{Run, V1Event};
use crate::world::World;
use outlast_core::TaskId;
use outlast_wire::v1::{Action, ToWorker};
use rand::Rng;
use serde_json::{Value, json};

impl World {
    /// A message reaches a worker.
    pub(super) fn v1_hears(&mut self, j: usize, message: ToWorker) {
        match message {
            ToWorker::TaskAssignment { task_id, attempt, .. } => {
                self.v1_assigned(j, task_id.into(), attempt);
            }
            ToWorker::ResultAck { task_id } => {
                self.v1.peers[j].results.remove(&*task_id);
            }
            ToWorker::CheckpointDataAck { task_id, checkpoint_id } => {
                let unkept = &mut self.v1.peers[j].unkept;
                if unkept.get(&*task_id).is_some_and(|d| d["checkpoint_id"] == *checkpoint_id) {
                    unkept.remove(&*task_id);
                }
            }
            ToWorker::CancelTask { task_id } => self.v1_cancels(j, &task_id),
            ToWorker::Heartbeat { actions, .. } => {
                for action in actions {
                    match action {
                        Action::CancelTasks(ids) => {
                            ids.iter().for_each(|id| self.v1_cancels(j, id));
                        }
                        Action::ResendTaskResults(ids) => {
                            for id in ids {
                                if let Some(result) = self.v1.peers[j].results.get(&*id).cloned() {
                                    self.v1_says(j, &result);
                                }
                            }
                        }
                        Action::SyncState | Action::ResetConnectionStats => {}
                    }
                }
            }
            ToWorker::CheckpointRequest { task_id, checkpoint_id } => {
                self.v1_answers(j, task_id, checkpoint_id);
            }
            ToWorker::PauseTask { task_id } => {
                self.v1_says(j, &json!({ "type": "task_paused", "task_id": task_id }));
            }
            ToWorker::ResumeTask { task_id } => {
                self.v1_says(j, &json!({ "type": "task_resumed", "task_id": task_id }));
            }
            _ => {}
        }
    }

    fn v1_assigned(&mut self, j: usize, task: TaskId, attempt: u64) {
        self.oracle.executed(&task, attempt);
        self.v1.numbers += 1;
        let number = self.v1.numbers;
        self.say(|| format!("v1 worker {j} runs {task}.{attempt} as run {number}"));
        let run = Run { number, epoch: attempt, checkpoints: 0 };
        if let Some(old) = self.v1.peers[j].active.insert(task.clone(), run) {
            // Two threads of one task.
            self.v1.peers[j].zombies.insert(old.number, (task.clone(), old.epoch));
        }
        let life = self.v1.peers[j].life;
        let short = self.v1.rng.random_bool(0.4);
        let took = self.v1.rng.random_range(0..if short { 500 } else { 30_000 });
        self.later(took, V1Event::Ends(j, life, number));
        let first = self.v1.rng.random_range(50..4_000);
        self.later(first, V1Event::Reports(j, life, number));
        if self.v1.peers[j].accepts {
            let runs = json!({ "status": "running" });
            let kind = "task_result";
            let answer = json!({ "type": kind, "task_id": &*task, "result": runs });
            self.v1.peers[j].results.insert(task, answer.clone());
            self.v1_says(j, &answer);
        }
    }

    fn v1_answers(&mut self, j: usize, task_id: String, checkpoint_id: Option<String>) {
        let saved = self.v1.peers[j].saved.get(&*task_id);
        let found = saved.and_then(|all| match &checkpoint_id {
            Some(id) => all.iter().rfind(|(name, ..)| name == id),
            None => all.last(),
        });
        let answer = match found {
            Some((id, run, attempt)) => json!({ "type": "checkpoint_data",
                "task_id": task_id, "checkpoint_id": id,
                "data": { "of": id, "run": run, "attempt": attempt } }),
            None => {
                json!({ "type": "checkpoint_error", "task_id": task_id, "error": "none" })
            }
        };
        if found.is_some() {
            self.v1.peers[j].unkept.insert(task_id.into(), answer.clone());
        }
        let times = if self.v1.rng.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..times {
            self.v1_says(j, &answer);
        }
    }

    /// The task is not its own any more; its thread goes on.
    fn v1_cancels(&mut self, j: usize, task: &str) {
        let Some((task, run)) = self.v1.peers[j].active.remove_entry(task) else { return };
        self.say(|| format!("v1 worker {j} cancels {task}.{}", run.epoch));
        self.oracle.v1_finished(&task, &self.v1.peers[j].store.clone());
        // Its answer that it runs is not kept for longer than it runs.
        let runs = |r: &Value| r["result"]["status"] == "running";
        if self.v1.peers[j].results.get(&task).is_some_and(runs) {
            self.v1.peers[j].results.remove(&task);
        }
        self.v1_says(j, &json!({ "type": "task_cancelled", "task_id": &*task }));
        self.v1.peers[j].zombies.insert(run.number, (task, run.epoch));
    }

    /// The run with this number ends.
    pub(super) fn v1_ends(&mut self, j: usize, number: u64) {
        let peer = &mut self.v1.peers[j];
        let active = peer.active.iter().find(|(_, r)| r.number == number);
        let found = active.map(|(task, run)| (task.clone(), run.epoch));
        let (task, epoch) = match found {
            Some(found) => {
                peer.active.remove(&found.0);
                found
            }
            // A thread that was cancelled still hands in its result, mostly.
            None => match peer.zombies.remove(&number) {
                Some(found) if self.v1.rng.random_bool(0.6) => found,
                _ => return,
            },
        };
        let mut result = json!({ "type": "task_result", "task_id": &*task, "result": {} });
        match self.v1.rng.random_range(0..10) {
            0 => result["error"] = json!({ "message": "always the same", "traceback": "" }),
            1 => result["error"] = json!({ "message": format!("run {number}"), "traceback": "" }),
            _ => result["result"] = json!({ "run": number }),
        }
        if self.v1.peers[j].echoes {
            result["attempt"] = epoch.into();
        }
        self.say(|| format!("v1 worker {j} has a result of {task}.{epoch}, run {number}"));
        self.oracle.v1_finished(&task, &self.v1.peers[j].store.clone());
        self.v1.peers[j].results.insert(task, result.clone());
        self.v1_says(j, &result);
    }

    /// A task makes a checkpoint, or reports a state.
    pub(super) fn v1_reports(&mut self, j: usize, number: u64) {
        let (life, peer) = (self.v1.peers[j].life, &mut self.v1.peers[j]);
        let Some((task, run)) = peer.active.iter_mut().find(|(_, r)| r.number == number) else {
            return;
        };
        let task = task.clone();
        run.checkpoints += 1;
        let (id, epoch) = (run.checkpoints.to_string(), run.epoch);
        if self.v1.rng.random_bool(0.5) {
            let saved = self.v1.peers[j].saved.entry(task.clone()).or_default();
            saved.retain(|(name, ..)| *name != id);
            saved.push((id.clone(), number, epoch));
            let report = json!({ "type": "checkpoint", "task_id": &*task, "checkpoint_id": id });
            self.v1_says(j, &report);
        } else {
            let state = json!({ "n": format!("{number}-{id}") });
            self.v1_says(j, &json!({ "type": "task_state", "task_id": &*task, "state": state }));
        }
        let next = self.v1.rng.random_range(500..10_000);
        self.later(next, V1Event::Reports(j, life, number));
    }
}
