//! Starts and stops of attempts: commands by the runner, calls by their functions.

use super::context::{Link, TaskContext};
use super::driver::{Driver, Perform};
use super::functions::{ANY, FailedBy, Failure, Function, Functions};
use super::now;
use crate::exec::{Signal, StopKind as ExecStop};
use crate::local::{TOKEN_VARIABLE, Tokens};
use crate::runner::{Runner, Start};
use outlast_core::worker::{Output, StopKind};
use outlast_core::{AttemptId, TaskId};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_wire::spec::{Call, Run, TaskSpec};
use outlast_wire::trace::{TRACEPARENT, TRACESTATE};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The largest value that a function may return, in bytes of JSON.
const MAX_VALUE: usize = 1 << 20;
/// The number of SIGKILL.
const KILL: i32 = 9;
/// Longer than anything runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The attempts of an agent.
pub(super) struct Runs {
    runner: Runner,
    functions: Functions,
    worker: Arc<str>,
    /// The tokens of commands.
    tokens: Arc<Tokens>,
    /// The way back of functions.
    link: OnceLock<Link>,
}

/// The stop as the executor has it.
fn stop_of(kind: StopKind) -> ExecStop {
    match kind {
        StopKind::Cancel => ExecStop::Cancel,
        StopKind::Interrupt => ExecStop::Interrupt,
    }
}

impl Runs {
    pub fn new(runner: Runner, functions: Functions, worker: String, tokens: Arc<Tokens>) -> Runs {
        Runs { runner, functions, worker: worker.into(), tokens, link: OnceLock::new() }
    }
    pub fn runner(&self) -> &Runner {
        &self.runner
    }
    /// Sets the way back of functions.
    pub fn set_link(&self, link: Link) {
        let _ = self.link.set(link);
    }
    pub fn shutdown(&self, kind: ExecStop) {
        self.runner.shutdown(kind);
    }

    /// Requests a checkpoint: by the signal that the task declared, and for tasks that check requests.
    fn ask_checkpoint(&self, driver: &Driver, task: TaskId, epoch: u64) {
        let held = driver.lock().held_spec(&task, epoch);
        let signal = held.and_then(|(spec, _)| spec.checkpoint_signal.clone());
        driver.controls.set(&task, epoch, |c| c.checkpoint_request += 1);
        if let Some(signal) = signal.and_then(|name| Signal::parse(&name).ok()) {
            self.runner.signal(&AttemptId { task, epoch }, signal);
        }
    }

    fn call(
        &self,
        driver: &Arc<Driver>,
        task: &TaskId,
        epoch: u64,
        spec: &TaskSpec,
        call: &Call,
    ) -> Option<TaskOutcome> {
        let started = now().wall;
        // More than an `Instant` can bear is no limit.
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(FOREVER).min(FOREVER);
        let context = TaskContext {
            task_id: task.to_string(),
            epoch,
            function: call.function.clone(),
            args: call.args.clone(),
            kill_grace: seconds(spec.kill_grace),
            timeout: spec.timeout.map(seconds),
            traceparent: spec.env.get(TRACEPARENT).cloned(),
            tracestate: spec.env.get(TRACESTATE).cloned(),
            link: self.link.get().cloned(),
        };
        let named = self.functions.get(&call.function);
        let Some(function) = named.or_else(|| self.functions.get(ANY)) else {
            let mut known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
            known.sort_unstable();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let why = format!("this worker has no function {:?}; it has: {known}", call.function);
            return Some(outcome(context.task_id.into(), epoch, started, Err(why.into())));
        };
        if function.inline {
            return Some(run(function, context, started));
        }
        let (function, back) = (function.clone(), driver.clone());
        let (id, epoch) = (context.task_id.clone(), context.epoch);
        let spawned = std::thread::Builder::new().name("outlast-call".into()).spawn(move || {
            let mut outcome = run(&function, context, started);
            let stop = back.controls.stopped(&outcome.task, outcome.epoch);
            stopped(&mut outcome, stop);
            back.feed(|core| core.on_finished(now(), outcome));
        });
        // It counts as lost, not as returned: else it could come again at once, for ever.
        spawned.err().map(|e| TaskOutcome {
            kind: OutcomeKind::Interrupted,
            cause: Cause::Machine,
            started_at_ms: 0,
            ..outcome(
                id.into(),
                epoch,
                0,
                Err(format!("the system refuses another thread: {e}").into()),
            )
        })
    }
}

impl Perform for Runs {
    fn perform(&self, driver: &Arc<Driver>, todo: Vec<Output>) -> Vec<TaskOutcome> {
        let (mut ended, mut starts, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
        for output in todo {
            match output {
                Output::Run(task, epoch, spec) => match &spec.run {
                    Run::Call(call) => {
                        ended.extend(self.call(driver, &task, epoch, &spec, call));
                    }
                    Run::Command(_) | Run::Shell(_) | Run::Browser(_) => {
                        let env = vec![(TOKEN_VARIABLE.into(), self.tokens.of(&task, epoch))];
                        let (id, worker) = (AttemptId { task, epoch }, self.worker.clone());
                        starts.push(Start { id, spec, worker, env });
                    }
                },
                Output::StopRun(task, epoch, kind) => {
                    driver.controls.stop(&task, epoch, kind);
                    // What is to be stopped may be among those that are to be started.
                    self.runner.start(std::mem::take(&mut starts));
                    // An attempt that has ended, or is a call, which cannot be stopped, is not known.
                    self.runner.stop(&AttemptId { task, epoch }, stop_of(kind));
                }
                Output::Recall(task, epoch) => {
                    self.runner.start(std::mem::take(&mut starts));
                    self.runner.recall(&AttemptId { task, epoch });
                }
                Output::Pause(task, epoch, on) => {
                    self.runner.start(std::mem::take(&mut starts));
                    driver.controls.set(&task, epoch, |c| c.pause = on);
                    let id = AttemptId { task, epoch };
                    match on {
                        true => self.runner.pause(&id),
                        false => self.runner.resume(&id),
                    }
                }
                Output::AskCheckpoint(task, epoch) => self.ask_checkpoint(driver, task, epoch),
                Output::Forget(task, epoch) => {
                    driver.controls.forget(&task, epoch);
                    forgotten.push(AttemptId { task, epoch });
                }
                _ => {}
            }
        }
        if !forgotten.is_empty() {
            self.runner.forget(&forgotten);
        }
        if !starts.is_empty() {
            self.runner.start(starts);
        }
        ended
    }
}

/// Marks the outcome of a function that had to stop, and did not succeed, as stopped.
fn stopped(outcome: &mut TaskOutcome, stop: Option<StopKind>) {
    let Some(kind) = stop.filter(|_| outcome.kind != OutcomeKind::Succeeded) else {
        return;
    };
    let (kind, cause) = match kind {
        StopKind::Cancel => (OutcomeKind::Cancelled, Cause::Cancelled),
        StopKind::Interrupt => (OutcomeKind::Interrupted, Cause::Stopped),
    };
    (outcome.kind, outcome.cause) = (kind, cause);
}

fn run(function: &Function, context: TaskContext, started: i64) -> TaskOutcome {
    let (task_id, epoch) = (context.task_id.clone(), context.epoch);
    let result = catch_unwind(AssertUnwindSafe(|| (function.body)(context)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("the function panicked: {}", text.unwrap_or_default()).into())
    });
    outcome(task_id.into(), epoch, started, result)
}

fn outcome(
    task: TaskId,
    epoch: u64,
    started_at_ms: i64,
    result: Result<serde_json::Value, Failure>,
) -> TaskOutcome {
    let (mut cause, mut signal) = (Cause::Unspecified, None);
    let (kind, message, value) = match result {
        Ok(value) => (OutcomeKind::Succeeded, String::new(), value),
        Err(why) => {
            let mut kind = OutcomeKind::Failed;
            match why.by {
                FailedBy::Itself => {}
                FailedBy::Signal(number) => (cause, signal) = (Cause::Signal, Some(number)),
                FailedBy::OutOfMemory => (cause, signal) = (Cause::OutOfMemory, Some(KILL)),
                FailedBy::Timeout => (cause, kind) = (Cause::TimedOut, OutcomeKind::TimedOut),
            }
            (kind, why.message, why.details)
        }
    };
    let value = match value {
        serde_json::Value::Null => Vec::new(),
        value => serde_json::to_vec(&value).unwrap_or_default(),
    };
    // A record that no message can carry would stop all that come after it.
    let (kind, message, value) = match value.len() {
        0..=MAX_VALUE => (kind, message, value),
        n => {
            let what = "keep large data as a checkpoint or an artifact";
            let why = format!("the result is {n} bytes of JSON, more than {MAX_VALUE}: {what}");
            let message = if message.is_empty() { why } else { message };
            (OutcomeKind::Failed, message, Vec::new())
        }
    };
    TaskOutcome {
        task,
        epoch,
        kind,
        message,
        started_at_ms,
        finished_at_ms: now().wall.max(started_at_ms),
        value_json: value.into(),
        cause,
        signal,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn failures_carry_details_and_values_fit_in_a_message() {
        let failure = Failure {
            message: "no".into(),
            details: json!({"traceback": "line 1"}),
            by: FailedBy::Signal(11),
        };
        let ended = outcome("t".into(), 1, 0, Err(failure));
        assert_eq!((ended.kind, ended.message.as_str()), (OutcomeKind::Failed, "no"));
        assert_eq!((ended.cause, ended.signal), (Cause::Signal, Some(11)));
        let late = Failure { by: FailedBy::Timeout, ..String::new().into() };
        assert_eq!(outcome("t".into(), 1, 0, Err(late)).kind, OutcomeKind::TimedOut);
        assert_eq!(&ended.value_json[..], br#"{"traceback":"line 1"}"#);

        let largest = Value::String("x".repeat(MAX_VALUE - 2));
        assert_eq!(outcome("t".into(), 1, 0, Ok(largest)).kind, OutcomeKind::Succeeded);
        let larger = outcome("t".into(), 1, 0, Ok(Value::String("x".repeat(MAX_VALUE))));
        assert_eq!(larger.kind, OutcomeKind::Failed);
        assert!(larger.message.contains("more than 1048576") && larger.value_json.is_empty());
    }
}
