//! What runs at workers: tasks that end, make checkpoints and tell their state, are paused, and
//! outlive their worker's process when its keeper does. And blobs: local, uploaded, collected.

use crate::Bug;
use crate::peers::RunState;
use crate::world::{Event, World};
use outlast_core::coord::{Given, Lookup, PastAttempt};
use outlast_core::records::TaskRow;
use outlast_core::worker::{Alive, Answer, StopKind};
use outlast_core::{AttemptId, TaskId};
use outlast_store::sim::SimCoordStore;
use outlast_wire::v2::{Checkpoint, OutcomeKind, StateUpdate, TaskOutcome};
use outlast_wire::{Bytes, TaskSpec};
use rand::Rng;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a blob that nothing refers to stays at the coordinator, in virtual milliseconds.
const GRACE: u64 = 60_000;

/// The coordinator's blobs: when each was stored, or asked for last. They outlive crashes.
pub(crate) type Blobs = BTreeMap<Vec<u8>, u64>;

/// What a driver looks up for the coordinator.
pub(crate) struct Look<'a> {
    pub store: &'a SimCoordStore,
    pub blobs: RefCell<&'a mut Blobs>,
    pub now: u64,
    /// A planted bug: outcomes are not found.
    pub forgets: bool,
}

impl Lookup for Look<'_> {
    fn task(&self, id: &str) -> Option<TaskRow> {
        self.store.committed_row(id)
    }
    fn has_blob(&self, manifest: &[u8], _: &str) -> bool {
        let mut blobs = self.blobs.borrow_mut();
        let Some(pinned) = blobs.get_mut(manifest) else { return false };
        *pinned = self.now;
        true
    }
    fn attempts(&self, task: &str, worker: &str) -> Vec<PastAttempt> {
        let mut past = self.store.attempts(task, worker);
        if self.forgets {
            past.iter_mut().for_each(|a| a.outcomes.clear());
        }
        past
    }
    fn given(&self, task: &str, epoch: u64) -> Given {
        self.store.given(task, epoch)
    }
    fn key_is_valid(&self, _: &str) -> bool {
        true
    }
    fn state(&self, task: &str) -> Option<StateUpdate> {
        self.store.committed_told(task).0.map(|s| (*s).clone())
    }
    fn checkpoints(&self, task: &str) -> Vec<Arc<Checkpoint>> {
        self.store.committed_told(task).1
    }
}

impl World {
    pub fn run_starts(&mut self, i: usize, task: TaskId, epoch: u64, spec: &TaskSpec) {
        self.say(|| format!("worker {i} runs {task}.{epoch}"));
        self.oracle.executed(&task, epoch);
        let id = AttemptId { task, epoch };
        let core = self.workers[i].peer.machine.as_ref();
        let from = core.and_then(|core| core.told(&id.task, id.epoch)?.0);
        self.oracle.begins_from(&id, from.map(|c| (c.epoch, c.number)));
        if self.workers[i].running.get(&id).is_some_and(|r| r.ended.is_none()) {
            let (task, epoch) = (&id.task, id.epoch);
            self.oracle.wrong.get_or_insert(format!("{task}.{epoch} was started while it runs"));
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
        self.at(self.now + first, Event::TaskTells(i, keeper, id));
    }

    /// An executor was told to stop an attempt.
    pub fn run_stops(&mut self, i: usize, id: AttemptId, kind: StopKind) {
        let kind = match kind {
            StopKind::Cancel => OutcomeKind::OutcomeCancelled,
            StopKind::Interrupt => OutcomeKind::OutcomeInterrupted,
        };
        let after = self.rng.random_range(0..5_000);
        let keeper = self.workers[i].keeper_life;
        if let Some(run) = self.workers[i].running.get_mut(&id) {
            run.stop = Some(kind);
            self.at(self.now + after, Event::TaskEnds(i, keeper, id, kind));
        }
    }

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
            task_id: id.task.to_string(),
            epoch,
            kind: kind.into(),
            started_at_ms,
            finished_at_ms: wall,
            stderr_tail: match kind {
                OutcomeKind::OutcomeFailed => run.says.as_bytes().to_vec().into(),
                _ => Bytes::new(),
            },
            message: match kind {
                OutcomeKind::OutcomeFailed => "exit code 1".into(),
                _ => String::new(),
            },
            ..Default::default()
        };
        // The keeper has it until the worker says that it is durable there.
        run.ended = Some(outcome.clone());
        self.say(|| format!("worker {i} ends {task}.{epoch} {}", kind.as_str_name()));
        if alive {
            self.feed_worker(i, |core, now| core.on_finished(now, outcome));
        }
    }

    /// A running task makes a checkpoint, or tells its state.
    pub fn on_task_tells(&mut self, i: usize, id: AttemptId) {
        let alive = self.workers[i].peer.machine.is_some() && !self.is_paused(i);
        let keeper = self.workers[i].keeper_life;
        let Some(run) = self.workers[i].running.get_mut(&id).filter(|r| r.ended.is_none()) else {
            return;
        };
        let next = self.rng.random_range(200..12_000);
        self.events_told += 1;
        let question = self.events_told;
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
                let patch = Map::from_iter([("n".to_owned(), Value::from(n))]);
                self.feed_worker(i, |core, now| {
                    core.on_state(now, question, &task, epoch, patch, Some(0.5));
                });
            }
        }
        self.at(self.now + next, Event::TaskTells(i, keeper, id));
    }

    pub fn on_answer(&mut self, i: usize, answer: &Answer) {
        let store = self.workers[i].store_id.clone();
        match answer {
            Answer::Checkpoint(c) => {
                self.oracle.told_durable(&store, (&c.task_id, c.epoch), c.number)
            }
            Answer::State(s) => {
                self.oracle.told_durable(&store, (&s.task_id, s.epoch), s.version << 32)
            }
            Answer::Refused(_) => {}
        }
    }

    /// The driver begins an upload, or stops it.
    pub fn on_upload(&mut self, i: usize, manifest: Option<Bytes>) {
        let name = manifest.as_ref().map(|m| String::from_utf8_lossy(m).into_owned());
        self.say(|| format!("worker {i} uploads {name:?}"));
        self.workers[i].upload += 1;
        let (life, upload) = (self.workers[i].peer.life, self.workers[i].upload);
        if let Some(manifest) = manifest {
            let took = self.rng.random_range(1..5_000);
            self.at(self.now + took, Event::Uploaded(i, life, upload, manifest.to_vec()));
        }
    }

    pub fn on_uploaded(&mut self, i: usize, upload: u64, manifest: Vec<u8>) {
        if self.workers[i].upload != upload {
            return;
        }
        // An upload needs the coordinator as the link does.
        let up = self.coord.machine.is_some() && self.refused_until[i] <= self.now;
        if !up {
            let life = self.workers[i].peer.life;
            return self.at(self.now + 1_000, Event::Uploaded(i, life, upload, manifest));
        }
        if !self.workers[i].blobs.contains(&manifest) {
            let name = String::from_utf8_lossy(&manifest).into_owned();
            self.oracle.wrong.get_or_insert(format!("I4: worker {i} lost the blob {name}"));
        }
        self.blobs.insert(manifest.clone(), self.now);
        self.feed_worker(i, |core, _| core.on_uploaded(&manifest, Ok(())));
    }

    /// Both sides collect blobs that nothing refers to.
    pub fn collect(&mut self) {
        let mut referenced = self.coord.store.referenced();
        let core = self.coord.machine.as_ref();
        referenced.extend(core.into_iter().flat_map(|c| c.unsynced_blobs()).map(|b| b.to_vec()));
        let now = self.now;
        let blind = self.bug == Some(Bug::CollectsReferenced);
        let before: BTreeSet<Vec<u8>> = self.blobs.keys().cloned().collect();
        self.blobs.retain(|m, at| (referenced.contains(m) && !blind) || *at + GRACE > now);
        let gone: Vec<_> = before.into_iter().filter(|m| !self.blobs.contains_key(m)).collect();
        for m in &gone {
            let name = String::from_utf8_lossy(m).into_owned();
            self.say(|| format!("the coordinator's blob {name} is collected"));
        }
        for w in &mut self.workers {
            if let Some(core) = &w.peer.machine {
                let wanted: BTreeSet<Vec<u8>> =
                    core.wanted_blobs().iter().map(|b| b.to_vec()).collect();
                w.blobs.retain(|m| wanted.contains(m));
            }
        }
    }

    /// What the keeper ran on while the worker's process was away.
    pub fn alive(&self, i: usize) -> Vec<Alive> {
        let alive = |(id, run): (&AttemptId, &RunState)| Alive {
            task: id.task.clone(),
            epoch: id.epoch,
            started_at: run.started_at,
            paused: run.paused,
        };
        self.workers[i].running.iter().map(alive).collect()
    }

    /// After a start: what ended meanwhile is told, and what is not held any more is stopped.
    pub fn after_start(&mut self, i: usize) {
        let runs: Vec<(AttemptId, Option<TaskOutcome>)> =
            self.workers[i].running.iter().map(|(id, r)| (id.clone(), r.ended.clone())).collect();
        for (id, ended) in runs {
            let core = self.workers[i].peer.machine.as_ref();
            let held = core.is_some_and(|c| c.told(&id.task, id.epoch).is_some());
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
