//! The verdict on a process that has ended: the outcome of its attempt, and the cause.

use super::attempt::{Attempt, seconds};
use super::engine::Engine;
use super::stop::Why;
use super::{command, oom};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_spawn::Usage;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;

/// The exit code of a shell if its last command died of SIGKILL.
const SHELL_KILLED: i32 = 128 + 9;

impl Attempt {
    /// The outcome of a process that has ended, with the kills before it began; `stop` is why it was
    /// ended and how many of its processes are left, if that was us.
    pub fn judge(
        &self,
        engine: &Engine,
        (pid, before): (i32, oom::Before),
        used: io::Result<Usage>,
        stop: Option<(Why, usize)>,
    ) -> TaskOutcome {
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                let message = format!("its exit status was lost: {error}");
                return self.outcome(OutcomeKind::Interrupted, Cause::Unspecified, message);
            }
        };
        let status = used.status;
        let (kind, message, cause) = match stop {
            Some((why, left)) => {
                let (kind, mut message, cause) = self.stopped(why);
                if left > 0 {
                    message += &format!("; {left} of its processes could not be killed");
                }
                (kind, message, cause)
            }
            None if status.success() => (OutcomeKind::Succeeded, String::new(), Cause::Done),
            None => match died(engine, pid, before, &used) {
                (message, Cause::OutOfMemory) => (OutcomeKind::Failed, message, Cause::OutOfMemory),
                (message, _)
                    if engine.terminated.explains(status, seconds(self.spec.kill_grace)) =>
                {
                    let message = format!("the worker's processes were told to end: {message}");
                    (OutcomeKind::Interrupted, message, Cause::Stopped)
                }
                (message, cause) => (OutcomeKind::Failed, message, cause),
            },
        };
        let mut outcome = self.outcome(kind, cause, message);
        outcome.exit_code = status.code();
        outcome.signal = status.signal();
        outcome.cpu_ms = used.cpu.as_millis() as u64;
        // Linux counts what the worker had resident at the start as the task's own: a peak that is
        // no higher says nothing, and then only what was seen of the process itself does.
        let seen = self.peak.load(Ordering::Relaxed);
        let own = engine.own_peak.load(Ordering::Relaxed) + (1 << 20);
        let known = used.max_rss > own || cfg!(not(target_os = "linux"));
        outcome.max_rss_bytes = if known { used.max_rss.max(seen) } else { seen };
        outcome
    }

    fn stopped(&self, why: Why) -> (OutcomeKind, String, Cause) {
        match why {
            Why::Cancelled => (OutcomeKind::Cancelled, "cancelled".to_owned(), Cause::Cancelled),
            // One that had started is not taken back.
            Why::Interrupted | Why::Recalled => {
                let message = "the worker was stopped".to_owned();
                (OutcomeKind::Interrupted, message, Cause::Stopped)
            }
            Why::TimedOut => {
                let limit = self.spec.timeout.unwrap_or_default();
                let message = format!("timed out after {limit} s");
                (OutcomeKind::TimedOut, message, Cause::TimedOut)
            }
            Why::OverDisk(reason) => (OutcomeKind::Failed, reason, Cause::Disk),
        }
    }
}

/// The message and cause of a bad end that nobody requested.
fn died(engine: &Engine, pid: i32, before: oom::Before, used: &Usage) -> (String, Cause) {
    let status = used.status;
    match (status.code(), status.signal()) {
        (Some(code), _) => {
            if code == SHELL_KILLED
                && let Some(message) = engine.memory.killed_of(before, used.max_rss)
            {
                return (message, Cause::OutOfMemory);
            }
            (command::describe(status), Cause::Exit)
        }
        (None, Some(signal)) => {
            if signal == rustix::process::Signal::KILL.as_raw()
                && let Some(evidence) = engine.memory.killed(pid)
            {
                let message = format!("out of memory: it was killed by the kernel ({evidence})");
                return (message, Cause::OutOfMemory);
            }
            (command::describe(status), Cause::Signal)
        }
        (None, None) => (command::describe(status), Cause::Unspecified),
    }
}
