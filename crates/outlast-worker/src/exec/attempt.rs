//! One attempt, from its files to its outcome. Runs on one pool thread from start to end.
//!
//! The main process stays a zombie until the supervisor is done with its tree: as long as it is
//! not reaped, its pid, which is the process group's id too, cannot become another's.

use super::command::{self, Identity};
use super::logs::{self, Paths};
use super::spares::{Folder, Log};
use super::tree::{self, Main};
use super::{Inner, lock};
use outlast_wire::TaskSpec;
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};
use wait4::{ResUse, Wait4};

/// Why an attempt is stopped.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    Cancelled,
    Interrupted,
    TimedOut,
    /// It takes too much of the disk; the text says of what.
    Greedy(String),
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// No process yet.
    Waiting,
    /// The main process was started and is not reaped.
    Running(Pid),
    /// The main process ended by itself, or there was none: nothing to signal any more.
    Ended,
}

#[derive(Debug)]
pub(super) struct State {
    pub phase: Phase,
    /// Asked for; it takes effect once `signalled`.
    pub stop: Option<Why>,
    /// Signals were sent to a living main process: from here on the stop decides the outcome.
    pub signalled: bool,
    /// The supervisor found nothing alive of the tree, or gave up on this many processes.
    pub gone: Option<usize>,
    pub deadline: Option<Instant>,
}

/// One attempt, shared by its thread, its handle and the supervisor.
#[derive(Debug)]
pub(super) struct Attempt {
    pub key: u64,
    pub task: String,
    pub epoch: u64,
    pub worker: String,
    pub spec: Arc<TaskSpec>,
    pub mark: String,
    pub paths: Paths,
    /// The logs of stdout and stderr, while it runs.
    pub output: Mutex<Option<[Log; 2]>>,
    pub state: Mutex<State>,
    pub changed: Condvar,
    /// Unix ms; 0 until it is started.
    pub started: AtomicI64,
    /// The largest resident size that was seen of the main process.
    pub peak: AtomicU64,
    /// Disk that its output took at the last look.
    pub disk: AtomicU64,
}

/// An attempt to run and whom to tell.
pub(super) struct Job {
    pub inner: Arc<Inner>,
    pub attempt: Arc<Attempt>,
    pub done: Box<dyn FnOnce(TaskOutcome) + Send>,
    /// Set if it must not be run: the outcome's kind and message.
    pub refused: Option<(OutcomeKind, String)>,
}

impl Job {
    /// Runs the attempt to its end and reports the outcome, whatever happens.
    pub fn run(self) {
        let Job { inner, attempt, done, refused } = self;
        let outcome = match refused {
            Some((kind, message)) => attempt.outcome(kind, message),
            None => {
                catch_unwind(AssertUnwindSafe(|| attempt.execute(&inner))).unwrap_or_else(|_| {
                    attempt.abandon();
                    attempt.outcome(OutcomeKind::OutcomeInterrupted, "the worker failed inside")
                })
            }
        };
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!(task = attempt.task, "whoever waited for the outcome panicked");
        }
        inner.forget(&attempt);
    }
}

impl Attempt {
    /// `<task>.<epoch>`, the name of its files.
    pub fn stem(&self) -> String {
        format!("{}.{}", self.task, self.epoch)
    }

    fn execute(&self, inner: &Arc<Inner>) -> TaskOutcome {
        if let Some(outcome) = self.stopped_before_start() {
            return outcome;
        }
        let (mut command, folder) = match self.prepare(inner) {
            Ok(ready) => ready,
            Err(reason) => return self.outcome(OutcomeKind::OutcomeFailed, reason),
        };
        let orphans = inner.orphans.before();
        let started = now_ms();
        let (main, mut child) = match Main::spawn(&mut command) {
            Ok(started) => started,
            Err(error) => {
                let reason = command::why_not_started(&error, &command);
                self.clear_away(inner, folder, true);
                return self.outcome(OutcomeKind::OutcomeFailed, reason);
            }
        };
        drop(command); // and with it our descriptors of the output
        self.started.store(started, Ordering::Relaxed);
        let pid = Pid::from_child(&child);
        self.enter_running(inner, pid);
        let waited = rustix::io::retry_on_intr(|| {
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        });
        let stop = self.leave_running(inner);
        if waited.is_ok() {
            // What it left in its group ends with it, as in CI runners; what left the group stays.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let used = reap(&mut child);
        drop(main);
        let mut outcome = self.judge(inner, used, stop);
        outcome.finished_at_ms = now_ms();
        let deserted = inner.orphans.none_since(&orphans);
        let [(stdout_bytes, stdout_tail), (stderr_bytes, stderr_tail)] =
            self.clear_away(inner, folder, deserted);
        outcome.stdout_bytes = stdout_bytes;
        outcome.stdout_tail = stdout_tail.into();
        outcome.stderr_bytes = stderr_bytes;
        outcome.stderr_tail = stderr_tail.into();
        outcome
    }

    fn stopped_before_start(&self) -> Option<TaskOutcome> {
        let mut state = lock(&self.state);
        let kind = match state.stop.as_ref()? {
            Why::Cancelled => (OutcomeKind::OutcomeCancelled, "cancelled before it started"),
            _ => (OutcomeKind::OutcomeReturned, "the worker stopped before it started"),
        };
        state.phase = Phase::Ended;
        Some(self.outcome(kind.0, kind.1))
    }

    /// Creates what the attempt needs: its command, and the folder of its own if it gets one.
    fn prepare(&self, inner: &Arc<Inner>) -> Result<(Command, Option<Folder>), String> {
        let folder = self.spec.cwd.is_none().then(|| lock(&inner.spares).folder());
        let cwd = match &folder {
            Some(folder) => folder.path.clone(),
            None => {
                let cwd = self.spec.cwd.as_deref().unwrap_or(".");
                std::path::absolute(cwd).map_err(|e| format!("cwd {cwd:?}: {e}"))?
            }
        };
        let who = Identity {
            task: &self.task,
            epoch: self.epoch,
            worker: &self.worker,
            mark: &self.mark,
        };
        let ready = command::build(&self.spec, inner, &cwd, &who).and_then(|mut command| {
            let made = folder.as_ref().map_or(Ok(()), Folder::create);
            made.and_then(|()| self.attach_output(inner, &mut command))
                .map_err(|error| command::why_no_files(&error, &inner.config.root))?;
            Ok(command)
        });
        match ready {
            Ok(command) => Ok((command, folder)),
            Err(reason) => {
                self.clear_away(inner, folder, true);
                Err(reason)
            }
        }
    }

    fn attach_output(&self, inner: &Inner, command: &mut Command) -> io::Result<()> {
        let mut spares = lock(&inner.spares);
        let logs = [spares.log()?, spares.log()?];
        drop(spares);
        command.stdout(logs[0].for_task()?).stderr(logs[1].for_task()?);
        *lock(&self.output) = Some(logs);
        Ok(())
    }

    fn enter_running(&self, inner: &Arc<Inner>, pid: Pid) {
        let mut state = lock(&self.state);
        state.phase = Phase::Running(pid);
        state.deadline = self.spec.timeout.map(|s| Instant::now() + seconds(s));
        let (deadline, stop) = (state.deadline, state.stop.is_some());
        drop(state);
        if let Some(deadline) = deadline {
            inner.wake_at(deadline);
        }
        if stop {
            inner.look_at_stops(Some(self.key));
        }
    }

    /// The main process has ended: returns the stop if that is why, once nothing of it is left.
    fn leave_running(&self, inner: &Inner) -> Option<(Why, usize)> {
        let mut state = lock(&self.state);
        if !state.signalled {
            // It ended by itself, and that is final: a stop that comes now is too late.
            state.phase = Phase::Ended;
            return None;
        }
        if state.gone.is_none() {
            drop(state);
            inner.look_at_stops(None);
            state = lock(&self.state);
        }
        while state.gone.is_none() {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.phase = Phase::Ended;
        Some((state.stop.clone()?, state.gone?))
    }

    fn judge(
        &self,
        inner: &Inner,
        used: io::Result<ResUse>,
        stop: Option<(Why, usize)>,
    ) -> TaskOutcome {
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                let message = format!("its exit status was lost: {error}");
                return self.outcome(OutcomeKind::OutcomeInterrupted, message);
            }
        };
        let status = used.status;
        let (kind, message) = match stop {
            Some((why, left)) => {
                let (kind, mut message) = match why {
                    Why::Cancelled => (OutcomeKind::OutcomeCancelled, "cancelled".to_owned()),
                    Why::Interrupted => {
                        (OutcomeKind::OutcomeInterrupted, "the worker was stopped".to_owned())
                    }
                    Why::TimedOut => {
                        let limit = self.spec.timeout.unwrap_or_default();
                        (OutcomeKind::OutcomeTimedOut, format!("timed out after {limit} s"))
                    }
                    Why::Greedy(reason) => (OutcomeKind::OutcomeFailed, reason),
                };
                if left > 0 {
                    message += &format!("; {left} of its processes could not be killed");
                }
                (kind, message)
            }
            None if status.success() => (OutcomeKind::OutcomeSucceeded, String::new()),
            None => (OutcomeKind::OutcomeFailed, describe(status)),
        };
        let mut outcome = self.outcome(kind, message);
        outcome.has_exit_code = status.code().is_some();
        outcome.exit_code = status.code().unwrap_or_default();
        outcome.signal = status.signal().unwrap_or_default();
        outcome.cpu_ms = (used.rusage.utime + used.rusage.stime).as_millis() as u64;
        // Linux counts what the worker had resident at the start as the task's own: a peak that is
        // no higher says nothing, and then only what was seen of the process itself does.
        let seen = self.peak.load(Ordering::Relaxed);
        let own = inner.own_peak.load(Ordering::Relaxed) + (1 << 20);
        let known = used.rusage.maxrss > own || cfg!(not(target_os = "linux"));
        outcome.max_rss_bytes = if known { used.rusage.maxrss.max(seen) } else { seen };
        outcome
    }

    /// Ends the files of the attempt: what is empty goes, what is too long is cut. Returns the
    /// bytes written and the tail of stdout and stderr.
    ///
    /// `deserted`: no process is left that could write there, so empty ones may be used again.
    fn clear_away(
        &self,
        inner: &Arc<Inner>,
        folder: Option<Folder>,
        deserted: bool,
    ) -> [(u64, Vec<u8>); 2] {
        let mut kept = 0;
        let mut ends = [(0, Vec::new()), (0, Vec::new())];
        let logs = lock(&self.output).take();
        for (i, mut log) in logs.into_iter().flatten().enumerate() {
            let path = [&self.paths.stdout, &self.paths.stderr][i];
            let len = log.size().map_or(0, |(len, _)| len);
            if len == 0 && deserted {
                lock(&inner.spares).give_log(log);
            } else if len == 0 {
                log.remove(path);
            } else {
                kept += len.min(inner.config.output_cap);
                ends[i] = (len, inner.end_of(&mut log, path, len));
            }
        }
        let folder = match folder {
            Some(folder) if deserted => lock(&inner.spares).give_folder(folder).err(),
            folder => folder,
        };
        if let Some(folder) = folder
            && fs::remove_dir(&folder.path).is_err_and(|e| e.kind() != io::ErrorKind::NotFound)
            && let Some(name) = folder.path.file_name()
            && symlink(name, &self.paths.work).is_ok()
        {
            kept += 64 << 10; // a guess: it is not worth a walk
        }
        inner.count_kept(kept);
        ends
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

    fn outcome(&self, kind: OutcomeKind, message: impl Into<String>) -> TaskOutcome {
        TaskOutcome {
            task_id: self.task.clone(),
            epoch: self.epoch,
            kind: kind as i32,
            message: message.into(),
            started_at_ms: self.started.load(Ordering::Relaxed),
            finished_at_ms: now_ms(),
            ..TaskOutcome::default()
        }
    }
}

impl Inner {
    /// Names a log that has output, cuts it to size, and returns its tail.
    fn end_of(&self, log: &mut Log, path: &Path, len: u64) -> Vec<u8> {
        let cap = self.config.output_cap;
        let named = log.name(path).and_then(|()| match len > cap {
            true => logs::punch(path, len, cap),
            false => Ok(()),
        });
        if let Err(error) = named {
            tracing::warn!(path = %path.display(), %error, "could not keep the output as it should be");
        }
        logs::tail(path, self.config.tail).unwrap_or_default()
    }
}

fn reap(child: &mut Child) -> io::Result<ResUse> {
    loop {
        match child.wait4() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn describe(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match command::signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// A spec's seconds, within what a spec may say.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value > 0.0 { value.min(1e9) } else { 0.0 })
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}
