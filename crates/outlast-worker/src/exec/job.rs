//! One attempt, from its start to its outcome, on one pool thread.
//!
//! The main process stays a zombie until the supervisor is done with its tree: as long as it is
//! not reaped, its pid, which is the process group's id too, cannot become another's.

use super::attempt::{Attempt, Phase, seconds};
use super::engine::Engine;
use super::launch::Launched;
use super::lock::lock;
use super::stop::Why;
use super::{result, tree};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// An attempt to run, and the receiver of its outcome.
pub(super) struct Job {
    pub engine: Arc<Engine>,
    pub attempt: Arc<Attempt>,
    pub done: Box<dyn FnOnce(TaskOutcome) + Send>,
    /// Set if it must not be run.
    pub refused: Option<Refusal>,
}

/// The outcome of an attempt that must not run: kind, message and cause.
pub(crate) type Refusal = (OutcomeKind, String, Cause);

impl Job {
    /// Runs the attempt to its end and reports the outcome, whatever happens.
    pub fn run(self) {
        let Job { engine, attempt, done, refused } = self;
        let outcome = match refused {
            Some((kind, message, cause)) => {
                lock(&attempt.state).phase = Phase::Ended;
                attempt.outcome(kind, cause, message)
            }
            None => {
                catch_unwind(AssertUnwindSafe(|| attempt.execute(&engine))).unwrap_or_else(|_| {
                    attempt.abandon();
                    let kind = OutcomeKind::Interrupted;
                    attempt.outcome(kind, Cause::Stopped, "the worker failed inside")
                })
            }
        };
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!(task = attempt.task, "the receiver of the outcome panicked");
        }
        engine.forget(&attempt);
    }
}

impl Attempt {
    fn execute(&self, engine: &Arc<Engine>) -> TaskOutcome {
        let launched = match self.launch(engine) {
            Ok(launched) => launched,
            Err(ended) => return *ended,
        };
        let Launched { main, child, folder, orphans, before, started } = launched;
        self.started.store(started, Ordering::Relaxed);
        let pid = Pid::from_raw(child.id()).expect("a process has an id");
        self.enter_running(engine, pid);
        let waited = rustix::io::retry_on_intr(|| {
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        });
        let stop = self.leave_running(engine);
        if waited.is_ok() {
            // What it left in its group ends with it, as in CI runners; what left the group stays.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let used = child.wait();
        drop(main);
        let mut outcome = self.judge(engine, (pid.as_raw_pid(), before), used, stop);
        if self.is_browser() {
            result::take(&self.paths.result, engine.config.user.as_ref(), &mut outcome);
        }
        outcome.finished_at_ms = crate::clock::now().wall;
        let deserted = engine.orphans.none_since(&orphans);
        let [(stdout_bytes, stdout_tail), (stderr_bytes, stderr_tail)] =
            self.clear_away(engine, folder, deserted);
        outcome.stdout_bytes = stdout_bytes;
        outcome.stdout_tail = stdout_tail.into();
        outcome.stderr_bytes = stderr_bytes;
        outcome.stderr_tail = stderr_tail.into();
        outcome
    }

    fn enter_running(&self, engine: &Arc<Engine>, pid: Pid) {
        let mut state = lock(&self.state);
        state.phase = Phase::Running(pid);
        let now = Instant::now();
        state.began = Some(now);
        state.deadline = self.spec.timeout.map(|s| now + seconds(s));
        let (deadline, stop, pause) = (state.deadline, state.stop.is_some(), state.pause);
        drop(state);
        if let Some(deadline) = deadline {
            engine.wake_at(deadline);
        }
        if stop {
            engine.look_at_stops(Some(self.key));
        } else if pause {
            engine.look_at_pauses(self.key);
        }
    }

    /// The main process has ended: returns the stop if that is why, once nothing of it is left.
    fn leave_running(&self, engine: &Engine) -> Option<(Why, usize)> {
        let mut state = lock(&self.state);
        if !state.signalled {
            // It ended by itself, and that is final: a stop that comes now is too late.
            state.phase = Phase::Ended;
            return None;
        }
        if state.gone.is_none() {
            drop(state);
            engine.look_at_stops(None);
            state = lock(&self.state);
        }
        while state.gone.is_none() {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.phase = Phase::Ended;
        Some((state.stop.clone()?, state.gone?))
    }

    /// After a panic: nobody watches the process any more, so it must go.
    fn abandon(&self) {
        let mut state = lock(&self.state);
        if let Phase::Running(pid) = state.phase {
            let _ = kill_process_group(pid, Signal::KILL);
            tree::reap(pid.as_raw_pid());
        }
        state.phase = Phase::Ended;
    }
}
