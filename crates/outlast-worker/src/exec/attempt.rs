//! One attempt, from its files to its outcome. Runs on one pool thread from start to end.
//!
//! The main process stays a zombie until the supervisor is done with its tree: as long as it is
//! not reaped, its pid, which is the process group's id too, cannot become another's.

use super::launch::Launched;
use super::logs::Paths;
use super::output::Stream;
use super::remove::remove_folder;
use super::spares::Folder;
use super::tree;
use super::verdict::Ended;
use super::{Cause, Inner, lock, result};
use outlast_wire::v2::OutcomeKind;
use outlast_wire::{Run, TaskSpec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Reason for stopping an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    Cancelled,
    Interrupted,
    /// The attempt is returned to the coordinator; only possible before it has begun.
    Recalled,
    TimedOut,
    /// The attempt exceeds a disk limit; the text names the limit.
    Greedy(String),
}

/// Phase of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// No process yet, and nothing was done for one.
    Waiting,
    /// The process is being started.
    Starting,
    /// The main process was started and is not reaped.
    Running(Pid),
    /// The main process ended by itself, or there was none: nothing to signal any more.
    Ended,
}

#[derive(Debug)]
pub(super) struct State {
    pub phase: Phase,
    /// Requested stop; it takes effect once `signalled`.
    pub stop: Option<Why>,
    /// Signals were sent to a living main process: from here on the stop decides the outcome.
    pub signalled: bool,
    /// The supervisor found nothing alive of the tree, or gave up on this many processes.
    pub gone: Option<usize>,
    pub deadline: Option<Instant>,
    /// Start time of its process.
    pub began: Option<Instant>,
    /// Asked for: that its processes do not run.
    pub pause: bool,
    /// Set while its processes are paused: the rest of its time limit, if it has one.
    pub paused: Option<Option<Duration>>,
}

impl State {
    pub fn new() -> State {
        State {
            phase: Phase::Waiting,
            stop: None,
            signalled: false,
            gone: None,
            deadline: None,
            began: None,
            pause: false,
            paused: None,
        }
    }
}

/// One attempt, shared by its thread, its handle and the supervisor.
#[derive(Debug)]
pub(super) struct Attempt {
    pub key: u64,
    pub task: String,
    pub epoch: u64,
    pub worker: String,
    pub spec: Arc<TaskSpec>,
    /// Variables of its own, besides those of its spec.
    pub env: Vec<(String, String)>,
    /// Mark by which its processes are recognized, in their environment and elsewhere.
    pub mark: String,
    pub tag: u64,
    pub paths: Paths,
    /// Stdout and stderr, while it runs.
    pub output: Mutex<Option<[Arc<Stream>; 2]>>,
    pub state: Mutex<State>,
    pub changed: Condvar,
    /// Unix ms; 0 until it is started.
    pub started: AtomicI64,
    /// The largest resident size that was seen of the main process.
    pub peak: AtomicU64,
    /// Disk that its output took at the last look.
    pub disk: AtomicU64,
    /// True once its start was reported to the watcher.
    pub announced: AtomicBool,
}

/// An attempt to run and whom to tell.
pub(super) struct Job {
    pub inner: Arc<Inner>,
    pub attempt: Arc<Attempt>,
    pub done: Box<dyn FnOnce(Ended) + Send>,
    /// Set if it must not be run: the outcome's kind, message and cause.
    pub refused: Option<Refusal>,
}

pub(crate) type Refusal = (OutcomeKind, String, Cause);

impl Job {
    /// Runs the attempt to its end and reports the outcome, whatever happens.
    pub fn run(self) {
        let Job { inner, attempt, done, refused } = self;
        let outcome = match refused {
            Some((kind, message, cause)) => {
                lock(&attempt.state).phase = Phase::Ended;
                (attempt.outcome(kind, message), cause)
            }
            None => {
                catch_unwind(AssertUnwindSafe(|| attempt.execute(&inner))).unwrap_or_else(|_| {
                    attempt.abandon();
                    let kind = OutcomeKind::OutcomeInterrupted;
                    (attempt.outcome(kind, "the worker failed inside"), Cause::WorkerStopped)
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

    fn execute(&self, inner: &Arc<Inner>) -> Ended {
        let launched = match self.launch(inner) {
            Ok(launched) => launched,
            Err(ended) => return *ended,
        };
        let Launched { main, child, folder, orphans, before, started } = launched;
        self.started.store(started, Ordering::Relaxed);
        let pid = Pid::from_raw(child.id()).expect("a process has an id");
        self.enter_running(inner, pid);
        let waited = rustix::io::retry_on_intr(|| {
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        });
        let stop = self.leave_running(inner);
        if waited.is_ok() {
            // What it left in its group ends with it, as in CI runners; what left the group stays.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let used = child.wait();
        drop(main);
        let (mut outcome, cause) = self.judge(inner, (pid.as_raw_pid(), before), used, stop);
        if self.is_browser() {
            result::take(&self.paths.result, inner.config.user.as_ref(), &mut outcome, cause);
        }
        outcome.finished_at_ms = now_ms();
        let deserted = inner.orphans.none_since(&orphans);
        let [(stdout_bytes, stdout_tail), (stderr_bytes, stderr_tail)] =
            self.clear_away(inner, folder, deserted);
        outcome.stdout_bytes = stdout_bytes;
        outcome.stdout_tail = stdout_tail.into();
        outcome.stderr_bytes = stderr_bytes;
        outcome.stderr_tail = stderr_tail.into();
        (outcome, cause)
    }

    pub(super) fn is_browser(&self) -> bool {
        matches!(self.spec.run, Run::Browser(_))
    }

    /// From here on it is too late to take it back.
    pub(super) fn stopped_before_start(&self) -> Option<Ended> {
        let mut state = lock(&self.state);
        let Some(why) = &state.stop else {
            state.phase = Phase::Starting;
            return None;
        };
        let ended = self.not_begun(why);
        state.phase = Phase::Ended;
        Some(ended)
    }

    fn enter_running(&self, inner: &Arc<Inner>, pid: Pid) {
        let mut state = lock(&self.state);
        state.phase = Phase::Running(pid);
        let now = Instant::now();
        state.began = Some(now);
        state.deadline = self.spec.timeout.map(|s| now + seconds(s));
        let (deadline, stop, pause) = (state.deadline, state.stop.is_some(), state.pause);
        drop(state);
        if let Some(deadline) = deadline {
            inner.wake_at(deadline);
        }
        if stop {
            inner.look_at_stops(Some(self.key));
        } else if pause {
            inner.look_at_pauses(self.key);
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

    /// Ends the files of the attempt; an empty folder goes. Returns the bytes written to stdout and
    /// stderr, and the last of them.
    ///
    /// `deserted`: no process is left that could write there, so empty ones may be used again.
    pub(super) fn clear_away(
        &self,
        inner: &Arc<Inner>,
        folder: Option<Folder>,
        deserted: bool,
    ) -> [(u64, Vec<u8>); 2] {
        let mut kept = 0;
        let mut ends = [(0, Vec::new()), (0, Vec::new())];
        let streams = lock(&self.output).take();
        for (end, stream) in ends.iter_mut().zip(streams.into_iter().flatten()) {
            *end = inner.outputs.end(&stream, deserted);
            kept += end.0.min(inner.config.output_cap);
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
        if inner.config.user.is_some()
            && self.is_browser()
            && let Some(folder) = self.paths.result.parent()
        {
            let _ = remove_folder(folder);
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
}

/// A spec's seconds, within what a spec may say.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value > 0.0 { value.min(1e9) } else { 0.0 })
}

pub(super) fn now_ms() -> i64 {
    crate::clock::now().wall
}
