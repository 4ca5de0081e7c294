//! Stops the processes of an attempt for a while, and lets them go on. Part of the supervisor, so
//! that no pause races with what ends an attempt.

use super::attempt::{Attempt, Phase};
use super::handle::Handle;
use super::lock::lock;
use super::note::Note;
use super::supervisor::Supervisor;
use super::tree;
use rustix::process::{Signal, kill_process_group};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks until all of a tree is stopped. A stopped process starts no other, so few are needed.
const LOOKS: u32 = 50;
/// From the second look on, what is stuck in the kernel is given this long.
const BETWEEN: Duration = Duration::from_millis(2);

impl Handle {
    /// Pauses all processes of the attempt (SIGSTOP) until [`Handle::resume`]; its time limit is
    /// suspended, too. Returns at once; the watcher is notified once it is done. Has no effect on an
    /// attempt that is being stopped.
    pub fn pause(&self) {
        self.want_pause(true);
    }

    /// Lets a paused attempt go on.
    pub fn resume(&self) {
        self.want_pause(false);
    }

    /// Returns whether it is paused, or about to be.
    pub fn is_paused(&self) -> bool {
        lock(&self.attempt.state).pause
    }

    fn want_pause(&self, pause: bool) {
        let mut state = lock(&self.attempt.state);
        if state.phase == Phase::Ended || state.pause == pause {
            return;
        }
        state.pause = pause;
        drop(state);
        self.engine.look_at_pauses(self.attempt.key);
    }
}

impl Supervisor {
    /// Pauses and resumes attempts as requested, with one scan of the process table for all of them.
    pub(super) fn look_at_pauses(&self, attempts: Vec<Arc<Attempt>>) {
        let mut pausing = Vec::new();
        for attempt in attempts {
            let mut state = lock(&attempt.state);
            let Phase::Running(pid) = state.phase else { continue };
            if state.stop.is_some() || state.pause == state.paused.is_some() {
                continue;
            }
            if state.pause {
                let left = state.deadline.take().map(|d| d - Instant::now().min(d));
                state.paused = Some(left);
                // The main process is not reaped under the lock: the group is its own.
                let _ = kill_process_group(pid, Signal::STOP);
                drop(state);
                pausing.push((attempt, pid.as_raw_pid()));
            } else {
                drop(state);
                self.resume(&attempt, pid.as_raw_pid());
            }
        }
        if pausing.is_empty() {
            return;
        }
        for look in 0..LOOKS {
            let trees = self.trees(pausing.iter().map(|(attempt, pid)| (&**attempt, *pid)));
            let mut settled = true;
            for process in trees.iter().flatten().filter(|p| !p.stopped) {
                tree::signal(process, Signal::STOP);
                settled = false;
            }
            if settled {
                break;
            }
            if look > 0 {
                std::thread::sleep(BETWEEN);
            }
        }
        for (attempt, _) in &pausing {
            self.engine.note(attempt, Note::Paused);
        }
    }

    fn resume(&self, attempt: &Arc<Attempt>, pid: i32) {
        for process in self.trees([(&**attempt, pid)]).iter().flatten() {
            tree::signal(process, Signal::CONT);
        }
        let mut state = lock(&attempt.state);
        let left = state.paused.take().flatten();
        state.deadline = left.map(|left| Instant::now() + left);
        let deadline = state.deadline;
        drop(state);
        if let Some(deadline) = deadline {
            self.engine.wake_at(deadline);
        }
        self.engine.note(attempt, Note::Resumed);
    }

    /// Returns the living processes of each attempt with its main process.
    fn trees<'a>(
        &self,
        attempts: impl IntoIterator<Item = (&'a Attempt, i32)>,
    ) -> Vec<Vec<tree::Process>> {
        let look = tree::Look::take(self.engine.adopts);
        let of_one = |(attempt, pid): (&Attempt, i32)| look.left_of(pid, attempt, &HashSet::new());
        attempts.into_iter().map(of_one).collect()
    }
}
