//! The client: it submits, cancels, retries, and repeats requests.

use crate::world::World;
use outlast_core::TaskId;
use outlast_core::coord::{Owner, RecoveryRequest, Request, Response, Submission};
use outlast_wire::spec::{Call, LateResult, OnLeaseExpired, Rerun};
use outlast_wire::{Run, TaskSpec};
use rand::Rng;
use std::sync::Arc;

impl World {
    /// Sends a request as a user does.
    pub fn client_acts(&mut self) {
        match self.rng.random_range(0..10) {
            0 => {
                let Some(task) = self.some_task() else { return };
                self.say(|| format!("client cancels {task}"));
                self.request(Request::Cancel(task));
            }
            1 => {
                let Some(task) = self.some_task() else { return };
                self.say(|| format!("client retries {task}"));
                self.request(Request::Retry(task));
            }
            2 => {
                // The same again, as after a lost answer.
                let Some(id) = self.some_task() else { return };
                let spec = self.specs[&id].clone();
                self.submit(vec![(id, spec)]);
            }
            3 => {
                let Some(task) = self.some_task() else { return };
                let on = self.rng.random_bool(0.4);
                self.say(|| format!("client pauses {task}: {on}"));
                self.request(Request::Pause(task, on));
            }
            4 => {
                let Some(task) = self.some_task() else { return };
                if self.rng.random_bool(0.5) {
                    self.say(|| format!("client asks {task} for a checkpoint"));
                    return self.request(Request::Checkpoint(task));
                }
                let other = self.rng.random_range(0..self.workers.len());
                let to = self.rng.random_bool(0.3).then(|| self.workers[other].name.clone());
                self.say(|| format!("client moves {task} to {to:?}"));
                self.oracle.delays.end(&task);
                self.request(Request::Move(task, to));
            }
            6 if self.rng.random_bool(0.5) => {
                let tasks: Vec<TaskId> = (0..3).filter_map(|_| self.some_task()).collect();
                self.say(|| format!("{tasks:?} are removed if they have ended"));
                self.request(Request::Remove(tasks.clone(), i64::MIN));
                if self.rng.random_bool(0.5) {
                    let again = |id: TaskId| (id.clone(), self.specs[&id].clone());
                    let again = tasks.into_iter().map(again).collect();
                    self.submit(again);
                }
            }
            5 if self.rng.random_bool(0.1) => {
                let i = self.rng.random_range(0..self.workers.len());
                let name = self.workers[i].name.clone();
                let what = match self.rng.random_range(0..4) {
                    0 => RecoveryRequest::Quarantine(name),
                    1 => RecoveryRequest::Release(name),
                    2 => RecoveryRequest::Allow("work".into()),
                    _ => RecoveryRequest::Unlearn(None),
                };
                self.say(|| format!("client overrules: {what:?}"));
                self.request(Request::Recovery(what));
            }
            5 if self.rng.random_bool(0.3) => {
                let i = self.rng.random_range(0..self.workers.len());
                let on = self.rng.random_bool(0.3);
                let worker = self.workers[i].name.clone();
                self.say(|| format!("client drains {worker}: {on}"));
                self.request(Request::Drain(worker, on));
            }
            _ => {
                let count =
                    if self.rng.random_bool(0.2) { self.rng.random_range(2..12) } else { 1 };
                let tasks = (0..count).map(|_| self.new_task()).collect();
                self.submit(tasks);
            }
        }
    }

    fn some_task(&mut self) -> Option<TaskId> {
        let count = self.specs.len();
        if count == 0 {
            return None;
        }
        let n = self.rng.random_range(0..count);
        self.specs.keys().nth(n).cloned()
    }

    fn new_task(&mut self) -> (TaskId, Arc<TaskSpec>) {
        let rng = &mut self.rng;
        let mut spec = TaskSpec::new(Run::Shell("work".into()));
        spec.reconnect_window = [5.0, 30.0, 120.0][rng.random_range(0..3)];
        spec.max_retries = rng.random_range(0..5);
        spec.checkpoint_interval = rng.random_bool(0.3).then_some(3.0);
        spec.keep_checkpoints.last = rng.random_range(1..4);
        spec.on_lease_expired =
            [OnLeaseExpired::Continue, OnLeaseExpired::Pause, OnLeaseExpired::Stop]
                [rng.random_range(0..3)];
        spec.retry_failures = rng.random_bool(0.3);
        spec.priority = rng.random_range(0..3);
        spec.slots = if rng.random_bool(0.1) { 2 } else { 1 };
        if rng.random_bool(0.3) {
            spec.rerun = Rerun::Never;
        }
        if rng.random_bool(0.4) {
            spec.late_result = LateResult::Fence;
        }
        // Only these can go to workers of the v1 dialect.
        if !self.v1.peers.is_empty() && self.v1.rng.random_bool(0.6) {
            spec.run = Run::Call(Call { function: "work".into(), args: serde_json::Value::Null });
        }
        if rng.random_bool(0.1) {
            spec.requires.insert("gpu".into(), "*".into());
        }
        self.may_fail(&mut spec);
        let id: TaskId = format!("t{}", self.specs.len()).into();
        let spec = Arc::new(spec);
        self.specs.insert(id.clone(), spec.clone());
        (id, spec)
    }

    fn submit(&mut self, tasks: Vec<(TaskId, Arc<TaskSpec>)>) {
        let ids: Vec<TaskId> = tasks.iter().map(|(id, _)| id.clone()).collect();
        self.say(|| format!("client submits {ids:?}"));
        let submission =
            |(id, spec): (TaskId, Arc<TaskSpec>)| Submission { id, spec, chosen: true };
        let tasks = tasks.into_iter().map(submission).collect();
        let request = Request::Submit(tasks, Owner::default());
        self.request(request);
    }

    /// Requests that nothing stays paused or drained.
    pub fn resume_everything(&mut self) {
        for row in self.coord.store.snapshot().tasks {
            self.request(Request::Pause(row.id, false));
        }
        for i in 0..self.workers.len() {
            let worker = self.workers[i].name.clone();
            self.request(Request::Drain(worker, false));
        }
    }

    fn request(&mut self, request: Request) {
        self.requests += 1;
        let number = self.requests;
        self.unanswered.insert(number);
        self.feed_coord(|core, now| core.on_request(now, number, request));
    }

    /// The coordinator answers a request.
    pub fn on_reply(&mut self, request: u64, response: Response) {
        if self.unanswered.remove(&request)
            && let Response::Submitted(tasks) = response
        {
            tasks.iter().for_each(|task| self.oracle.accepted(&task.id));
        }
    }
}
