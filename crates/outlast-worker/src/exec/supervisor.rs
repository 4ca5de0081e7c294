//! The one thread that ends attempts: on request, at their time limit, or for their output.
//!
//! It sleeps until the next thing is due. While attempts run it wakes a few times a second to look
//! at their output; a short task comes and goes without waking it.

use super::attempt::{Attempt, Phase, seconds};
use super::engine::Engine;
use super::lock::lock;
use super::note::Note;
use super::stop::Why;
use super::{limits, tree};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between two samples of the output of the running attempts.
pub(super) const SAMPLE: Duration = Duration::from_millis(250);
/// Time after which an attempt is noted as running.
const LONG: Duration = Duration::from_millis(200);
/// Number of samples from one measurement of memory to the next.
const MEMORY: u32 = 8;
/// Number of samples without attempts after which the thread sleeps.
const QUIET: u32 = 8;
/// Time between two searches for dead orphans.
const STRAYS: Duration = Duration::from_secs(5);
const ASLEEP: Duration = Duration::from_secs(30);
/// Time between two looks at trees that are being ended: short at first, then longer.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(200);
/// Killing what does not die (a process stuck in the kernel) is abandoned after this.
pub(super) const GIVE_UP: Duration = Duration::from_secs(10);

/// An attempt whose tree is being ended.
struct Stopping {
    attempt: Arc<Attempt>,
    pid: Pid,
    kill_at: Instant,
    /// Members so far, by identity.
    seen: HashSet<(i32, u64)>,
    signalled: bool,
    killing: Option<Instant>,
}

/// The supervisor and its next tasks.
pub(super) struct Supervisor {
    pub(super) engine: Arc<Engine>,
    stopping: HashMap<u64, Stopping>,
    next_look: Instant,
    pause: Duration,
    next_sample: Instant,
    samples: u32,
    quiet: u32,
    strays: HashSet<(i32, u64)>,
    next_strays: Instant,
}

/// The work that is due after a sleep.
struct Due {
    stops: Vec<Arc<Attempt>>,
    pauses: Vec<Arc<Attempt>>,
    /// All attempts, if their limits are to be looked at.
    attempts: Option<Vec<Arc<Attempt>>>,
    kill_by: Option<Instant>,
}

impl Supervisor {
    pub fn new(engine: Arc<Engine>) -> Self {
        let now = Instant::now();
        Supervisor {
            engine,
            stopping: HashMap::new(),
            next_look: now,
            pause: FIRST_LOOK,
            next_sample: now,
            samples: 0,
            quiet: 0,
            strays: HashSet::new(),
            next_strays: now + STRAYS,
        }
    }

    /// Works until the table says to exit.
    pub fn run(mut self) {
        while let Some(due) = self.sleep() {
            for attempt in due.stops {
                self.begin(attempt, None);
            }
            if !due.pauses.is_empty() {
                self.look_at_pauses(due.pauses);
            }
            if let Some(attempts) = due.attempts {
                self.look_at_limits(&attempts);
            }
            if !self.stopping.is_empty() && Instant::now() >= self.next_look {
                self.look_at_trees(due.kill_by);
            }
            if self.engine.adopts && Instant::now() >= self.next_strays {
                tree::reap_strays(&mut self.strays, false);
                self.next_strays = Instant::now() + STRAYS;
            }
        }
    }

    /// Sleeps until something is due; `None` is the end.
    fn sleep(&mut self) -> Option<Due> {
        let engine = Arc::clone(&self.engine);
        let mut table = lock(&engine.table);
        loop {
            let now = Instant::now();
            if table.exit {
                return None;
            }
            if std::mem::take(&mut table.look) {
                self.next_look = now;
            }
            if !table.running.is_empty() && self.quiet >= QUIET {
                self.quiet = 0;
                self.next_sample = now + SAMPLE;
            }
            let mut wakes = if self.quiet < QUIET { self.next_sample } else { now + ASLEEP };
            wakes = table.deadline.map_or(wakes, |deadline| wakes.min(deadline));
            if !self.stopping.is_empty() {
                wakes = wakes.min(self.next_look);
            }
            if now >= wakes || !table.stops.is_empty() || !table.pauses.is_empty() {
                let all = now >= self.next_sample || table.deadline.is_some_and(|d| d <= now);
                if all {
                    table.deadline = None;
                }
                let stops = std::mem::take(&mut table.stops);
                let pauses = std::mem::take(&mut table.pauses);
                let running = |key| table.running.get(key).cloned();
                return Some(Due {
                    stops: stops.iter().filter_map(running).collect(),
                    pauses: pauses.iter().filter_map(running).collect(),
                    attempts: all.then(|| table.running.values().cloned().collect()),
                    kill_by: table.kill_by,
                });
            }
            table.wakes = wakes;
            let wait = engine.wake.wait_timeout(table, wakes - now);
            table = wait.unwrap_or_else(|e| e.into_inner()).0;
            if Instant::now() >= wakes && self.quiet >= QUIET && table.running.is_empty() {
                let (stops, pauses) = (Vec::new(), Vec::new());
                return Some(Due { stops, pauses, attempts: None, kill_by: None });
            }
        }
    }

    /// Takes up an attempt that is to be stopped, unless there is nothing to stop.
    fn begin(&mut self, attempt: Arc<Attempt>, why: Option<Why>) {
        let mut state = lock(&attempt.state);
        if let Some(why) = why {
            state.stop.get_or_insert(why);
        }
        // Without a process as yet, the attempt's own thread looks at the stop.
        let (Phase::Running(pid), Some(why)) = (state.phase, &state.stop) else { return };
        let grace = match why {
            Why::OverDisk(_) => Duration::ZERO,
            _ => seconds(attempt.spec.kill_grace),
        };
        drop(state);
        self.stopping.entry(attempt.key).or_insert_with(|| Stopping {
            attempt,
            pid,
            kill_at: Instant::now() + grace,
            seen: HashSet::new(),
            signalled: false,
            killing: None,
        });
        self.pause = FIRST_LOOK;
        self.next_look = Instant::now();
    }

    fn look_at_limits(&mut self, attempts: &[Arc<Attempt>]) {
        let now = Instant::now();
        let mut earliest: Option<Instant> = None;
        for attempt in attempts {
            let state = lock(&attempt.state);
            let long = state.began.is_some_and(|began| now.duration_since(began) >= LONG);
            let deadline = state.deadline.filter(|_| state.stop.is_none());
            let running = matches!(state.phase, Phase::Running(_));
            drop(state);
            if long && running && !attempt.announced.swap(true, Ordering::Relaxed) {
                let started = attempt.started.load(Ordering::Relaxed);
                self.engine.note(attempt, Note::Started(started));
            }
            let Some(deadline) = deadline else { continue };
            if deadline <= now {
                self.begin(Arc::clone(attempt), Some(Why::TimedOut));
            } else {
                earliest = Some(earliest.map_or(deadline, |e| e.min(deadline)));
            }
        }
        if let Some(earliest) = earliest {
            self.engine.wake_at(earliest);
        }
        if now < self.next_sample {
            return;
        }
        self.next_sample = now + SAMPLE;
        self.quiet = if attempts.is_empty() { self.quiet + 1 } else { 0 };
        self.engine.terminated.look();
        let memory = self.samples.is_multiple_of(MEMORY);
        self.samples = self.samples.wrapping_add(1);
        if memory {
            self.engine.note_own_peak();
            self.engine.memory.look();
        }
        for (attempt, why) in limits::sample(&self.engine, attempts, memory) {
            tracing::warn!(task = attempt.task, ?why, "stopping a task");
            self.begin(attempt, Some(why));
        }
    }

    /// Scans the process table once for all trees that are being ended.
    fn look_at_trees(&mut self, kill_by: Option<Instant>) {
        let look = tree::Look::take(self.engine.adopts);
        let now = Instant::now();
        let mut killing = false;
        self.stopping.retain(|_, stop| {
            let pid = stop.pid.as_raw_pid();
            let left = look.left_of(pid, &stop.attempt, &stop.seen);
            stop.seen.extend(left.iter().map(tree::Process::identity));
            for p in look.dead() {
                if stop.seen.contains(&p.identity()) && !look.mains.contains(&p.pid) {
                    tree::reap(p.pid);
                }
            }
            if let Some(by) = kill_by {
                stop.kill_at = stop.kill_at.min(by);
            }
            let keep = stop.step(&left, now);
            killing |= stop.killing == Some(now);
            keep
        });
        self.pause = if killing { FIRST_LOOK } else { (self.pause * 2).min(LAST_LOOK) };
        let next_kill =
            self.stopping.values().filter(|s| s.killing.is_none()).map(|s| s.kill_at).min();
        let next = now + self.pause;
        self.next_look = next_kill.map_or(next, |kill| next.min(kill.max(now)));
    }
}

impl Stopping {
    /// Does what is next for one tree, of which `left` is alive. False: it is done with.
    fn step(&mut self, left: &[tree::Process], now: Instant) -> bool {
        let mut state = lock(&self.attempt.state);
        if state.phase != Phase::Running(self.pid) {
            return false;
        }
        if !self.signalled {
            // Under the lock: either its thread sees `signalled`, or this sees that it ended.
            if has_ended(self.pid) {
                return false;
            }
            state.signalled = true;
            self.signalled = true;
            if now < self.kill_at {
                self.signal(left, Signal::TERM);
                // What is stopped hears nothing until it goes on.
                self.signal(left, Signal::CONT);
                return true;
            }
        }
        let given_up = self.killing.is_some_and(|since| now - since > GIVE_UP);
        if given_up || (left.is_empty() && has_ended(self.pid)) {
            state.gone = Some(left.len());
            self.attempt.changed.notify_all();
            return false;
        }
        if now >= self.kill_at {
            self.killing.get_or_insert(now);
            self.signal(left, Signal::KILL);
        }
        true
    }

    fn signal(&self, left: &[tree::Process], signal: Signal) {
        // The group's id is the main process's, which is not reaped yet: it cannot be another's.
        let _ = kill_process_group(self.pid, signal);
        for process in left.iter().filter(|p| p.group != self.pid.as_raw_pid()) {
            tree::signal(process, signal);
        }
    }
}

/// Returns whether a child of this process has ended, without reaping it.
fn has_ended(pid: Pid) -> bool {
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), peek), Ok(None))
}
