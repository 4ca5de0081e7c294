//! Starts and stops attempts: commands by the executor, calls by their functions.

use super::functions::{CallContext, Function, Functions};
use super::{Shared, now};
use crate::exec::{Executor, Handle, StopKind as ExecStop};
use outlast_core::worker::{Output, StopKind};
use outlast_core::{AttemptId, TaskId};
use outlast_wire::TaskSpec;
use outlast_wire::spec::{Call, Run};
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An attempt that the executor has, or is about to have.
enum Slot {
    /// With how it is to be stopped as soon as it has started.
    Starting(Option<StopKind>),
    Running(Handle),
}

pub(super) struct Runs {
    executor: Executor,
    functions: Functions,
    worker: String,
    slots: Mutex<HashMap<AttemptId, Slot>>,
}

fn stop_of(kind: StopKind) -> ExecStop {
    match kind {
        StopKind::Cancel => ExecStop::Cancel,
        StopKind::Interrupt => ExecStop::Interrupt,
    }
}

impl Runs {
    pub fn new(executor: Executor, functions: Functions, worker: String) -> Runs {
        Runs { executor, functions, worker, slots: Mutex::new(HashMap::new()) }
    }
    pub fn root(&self) -> &Path {
        self.executor.root()
    }
    pub fn shutdown(&self, kind: ExecStop) {
        self.executor.shutdown(kind);
    }
    fn slots(&self) -> MutexGuard<'_, HashMap<AttemptId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts and stops; gives back what ended right away.
    pub fn perform(&self, shared: &Arc<Shared>, todo: Vec<Output>) -> Vec<TaskOutcome> {
        let mut ended = Vec::new();
        for output in todo {
            match output {
                Output::Run(task, epoch, spec) => match &spec.run {
                    Run::Call(call) => ended.extend(self.call(shared, &task, epoch, call)),
                    Run::Command(_) | Run::Shell(_) => self.start(shared, task, epoch, spec),
                },
                Output::StopRun(task, epoch, kind) => self.stop(AttemptId { task, epoch }, kind),
                _ => {}
            }
        }
        ended
    }

    fn start(&self, shared: &Arc<Shared>, task: TaskId, epoch: u64, spec: Arc<TaskSpec>) {
        let id = AttemptId { task: task.clone(), epoch };
        self.slots().insert(id.clone(), Slot::Starting(None));
        let (of, back) = (id.clone(), shared.clone());
        let handle = self.executor.start(&task, epoch, spec, &self.worker, move |outcome| {
            back.runs.slots().remove(&of);
            back.feed(|core| core.on_finished(now(), outcome));
        });
        let mut slots = self.slots();
        // It may be over by now.
        if let Some(slot) = slots.get_mut(&id) {
            let wanted = match slot {
                Slot::Starting(stop) => *stop,
                Slot::Running(_) => None,
            };
            *slot = Slot::Running(handle.clone());
            drop(slots);
            if let Some(kind) = wanted {
                handle.stop(stop_of(kind));
            }
        }
    }

    fn stop(&self, id: AttemptId, kind: StopKind) {
        let mut slots = self.slots();
        match slots.get_mut(&id) {
            Some(Slot::Running(handle)) => {
                let handle = handle.clone();
                drop(slots);
                handle.stop(stop_of(kind));
            }
            Some(Slot::Starting(stop)) => {
                stop.get_or_insert(kind);
            }
            // Over, or a call, which cannot be stopped from outside.
            None => {}
        }
    }

    fn call(
        &self,
        shared: &Arc<Shared>,
        task: &TaskId,
        epoch: u64,
        call: &Call,
    ) -> Option<TaskOutcome> {
        let started = now().wall;
        let context = CallContext { task_id: task.to_string(), epoch, args: call.args.clone() };
        let Some(function) = self.functions.get(&call.function) else {
            let mut known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
            known.sort_unstable();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let why = format!("this worker has no function {:?}; it has: {known}", call.function);
            return Some(outcome(context.task_id, epoch, started, Err(why)));
        };
        if function.inline {
            return Some(run(function, context, started));
        }
        let (function, back) = (function.clone(), shared.clone());
        let (id, epoch) = (context.task_id.clone(), context.epoch);
        let spawned = std::thread::Builder::new().name("outlast-call".into()).spawn(move || {
            let outcome = run(&function, context, started);
            back.feed(|core| core.on_finished(now(), outcome));
        });
        spawned.err().map(|e| {
            outcome(id, epoch, started, Err(format!("the system refuses another thread: {e}")))
        })
    }
}

fn run(function: &Function, context: CallContext, started: i64) -> TaskOutcome {
    let (task_id, epoch) = (context.task_id.clone(), context.epoch);
    let result = catch_unwind(AssertUnwindSafe(|| (function.body)(context)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("the function panicked: {}", text.unwrap_or_default()))
    });
    outcome(task_id, epoch, started, result)
}

fn outcome(
    task_id: String,
    epoch: u64,
    started_at_ms: i64,
    result: Result<serde_json::Value, String>,
) -> TaskOutcome {
    let (kind, message, value) = match result {
        Ok(serde_json::Value::Null) => (OutcomeKind::OutcomeSucceeded, String::new(), Vec::new()),
        Ok(value) => {
            let json = serde_json::to_vec(&value).unwrap_or_default();
            (OutcomeKind::OutcomeSucceeded, String::new(), json)
        }
        Err(message) => (OutcomeKind::OutcomeFailed, message, Vec::new()),
    };
    TaskOutcome {
        task_id,
        epoch,
        kind: kind.into(),
        message,
        started_at_ms,
        finished_at_ms: now().wall.max(started_at_ms),
        value_json: value.into(),
        ..Default::default()
    }
}
