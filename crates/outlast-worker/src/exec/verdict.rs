//! From an ended process to the attempt's outcome, and to why.

use super::attempt::{Attempt, Why, now_ms, seconds};
use super::{Cause, Inner, command, oom};
use outlast_spawn::Usage;
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;

/// Exit code of a shell whose last command died of SIGKILL.
const SHELL_KILLED: i32 = 128 + 9;

/// An outcome and its cause.
pub type Ended = (TaskOutcome, Cause);

impl Attempt {
    /// The outcome of a process that has ended, with the kills before it began; `stop` is why it was
    /// ended and how many of its processes are left, if that was us.
    pub fn judge(
        &self,
        inner: &Inner,
        (pid, before): (i32, oom::Before),
        used: io::Result<Usage>,
        stop: Option<(Why, usize)>,
    ) -> Ended {
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                let message = format!("its exit status was lost: {error}");
                let outcome = self.outcome(OutcomeKind::OutcomeInterrupted, message);
                return (outcome, Cause::Unknown);
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
            None if status.success() => (OutcomeKind::OutcomeSucceeded, String::new(), Cause::Exit),
            None => match died(inner, pid, before, &used) {
                (message, Cause::OutOfMemory) => {
                    (OutcomeKind::OutcomeFailed, message, Cause::OutOfMemory)
                }
                (message, _)
                    if inner.terminated.explains(status, seconds(self.spec.kill_grace)) =>
                {
                    let message = format!("the worker's processes were told to end: {message}");
                    (OutcomeKind::OutcomeInterrupted, message, Cause::WorkerStopped)
                }
                (message, cause) => (OutcomeKind::OutcomeFailed, message, cause),
            },
        };
        let mut outcome = self.outcome(kind, message);
        outcome.has_exit_code = status.code().is_some();
        outcome.exit_code = status.code().unwrap_or_default();
        outcome.signal = status.signal().unwrap_or_default();
        outcome.cpu_ms = used.cpu.as_millis() as u64;
        // Linux counts what the worker had resident at the start as the task's own: a peak that is
        // no higher says nothing, and then only what was seen of the process itself does.
        let seen = self.peak.load(Ordering::Relaxed);
        let own = inner.own_peak.load(Ordering::Relaxed) + (1 << 20);
        let known = used.max_rss > own || cfg!(not(target_os = "linux"));
        outcome.max_rss_bytes = if known { used.max_rss.max(seen) } else { seen };
        (outcome, cause)
    }

    fn stopped(&self, why: Why) -> (OutcomeKind, String, Cause) {
        match why {
            Why::Cancelled => {
                (OutcomeKind::OutcomeCancelled, "cancelled".to_owned(), Cause::Cancelled)
            }
            // One that had started is not taken back.
            Why::Interrupted | Why::Recalled => {
                let message = "the worker was stopped".to_owned();
                (OutcomeKind::OutcomeInterrupted, message, Cause::WorkerStopped)
            }
            Why::TimedOut => {
                let limit = self.spec.timeout.unwrap_or_default();
                let message = format!("timed out after {limit} s");
                (OutcomeKind::OutcomeTimedOut, message, Cause::TimedOut)
            }
            Why::Greedy(reason) => (OutcomeKind::OutcomeFailed, reason, Cause::Disk),
        }
    }

    /// The outcome of an attempt that was stopped before it had a process.
    pub fn not_begun(&self, why: &Why) -> Ended {
        let (kind, message, cause) = not_begun(match why {
            Why::Cancelled => Unbegun::Cancelled,
            Why::Recalled => Unbegun::Recalled,
            _ => Unbegun::Stopped,
        });
        (self.outcome(kind, message), cause)
    }

    /// An outcome with no more in it than this.
    pub fn outcome(&self, kind: OutcomeKind, message: impl Into<String>) -> TaskOutcome {
        TaskOutcome {
            started_at_ms: self.started.load(Ordering::Relaxed),
            ..plain(&self.task, self.epoch, kind, message)
        }
    }
}

/// Reason why an attempt never had a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbegun {
    Cancelled,
    Recalled,
    Stopped,
}

fn not_begun(why: Unbegun) -> (OutcomeKind, &'static str, Cause) {
    let returned = OutcomeKind::OutcomeReturned;
    match why {
        Unbegun::Cancelled => {
            (OutcomeKind::OutcomeCancelled, "cancelled before it started", Cause::Cancelled)
        }
        Unbegun::Recalled => (returned, "taken back before it started", Cause::NotStarted),
        Unbegun::Stopped => {
            (returned, "the worker stopped before it started", Cause::WorkerStopped)
        }
    }
}

/// The outcome of an attempt that no executor was given yet.
pub(crate) fn never_begun(task: &str, epoch: u64, why: Unbegun) -> Ended {
    let (kind, message, cause) = not_begun(why);
    (plain(task, epoch, kind, message), cause)
}

pub(crate) fn plain(
    task: &str,
    epoch: u64,
    kind: OutcomeKind,
    message: impl Into<String>,
) -> TaskOutcome {
    TaskOutcome {
        task_id: task.to_owned(),
        epoch,
        kind: kind as i32,
        message: message.into(),
        finished_at_ms: now_ms(),
        ..TaskOutcome::default()
    }
}

/// Explains the failure of a process that this worker did not stop.
fn died(inner: &Inner, pid: i32, before: oom::Before, used: &Usage) -> (String, Cause) {
    let status = used.status;
    match (status.code(), status.signal()) {
        (Some(code), _) => {
            if code == SHELL_KILLED
                && let Some(message) = inner.memory.killed_of(before, used.max_rss)
            {
                return (message, Cause::OutOfMemory);
            }
            (command::describe(status), Cause::Exit)
        }
        (None, Some(signal)) => {
            if signal == rustix::process::Signal::KILL.as_raw()
                && let Some(evidence) = inner.memory.killed(pid)
            {
                let message = format!("out of memory: it was killed by the kernel ({evidence})");
                return (message, Cause::OutOfMemory);
            }
            (command::describe(status), Cause::Signal)
        }
        (None, None) => (command::describe(status), Cause::Unknown),
    }
}
