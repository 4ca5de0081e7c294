//! Runs command tasks: start, limits, stop, outcome, output.
//!
//! Each attempt has a thread of its own while it runs (`pool`, `attempt`); one supervisor thread
//! ends those that must end (`supervisor`, `tree`, `limits`); output goes straight to files
//! (`logs`). Everything lives below one root folder, which one executor at a time may use.
//!
//! What is left running when a main process ends by itself: its process group is killed, as CI
//! runners do; what left the group (a daemon) may outlive the task, but not the executor. If the
//! worker is killed, the next executor of the same root ends what it finds still running.

mod attempt;
mod command;
mod limits;
pub mod logs;
mod pool;
mod root;
mod spares;
mod supervisor;
mod tree;

use attempt::{Attempt, Job, Phase, State, Why, seconds};
use outlast_wire::TaskSpec;
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use pool::Pool;
use spares::{Orphans, Spares};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use supervisor::{GIVE_UP, SAMPLE, Supervisor, Table};

/// The kill grace that `Drop` allows at most: a clean exit calls `shutdown` and has more.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// How an executor runs tasks.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of all logs and working directories; created if absent.
    pub root: PathBuf,
    /// Bytes kept of each output stream; default 64 MiB.
    pub output_cap: u64,
    /// What happens to a stream that is longer; default: it is cut.
    pub on_output_limit: OnOutputLimit,
    /// Bytes of each stream that an outcome carries; default 4096.
    pub tail: u64,
    /// Disk that the logs of ended attempts may take together; default 2 GiB.
    pub keep_logs_bytes: u64,
    /// A task whose output leaves less of the disk free is killed; default 64 MiB.
    pub reserve_bytes: u64,
    /// Whether orphans of tasks become children of this process (Linux: child subreaper), so that
    /// they are found at once and reaped; default yes. A program that starts children of its own
    /// in process groups of their own, and waits for them only much later, should turn it off.
    pub adopt_orphans: bool,
}

/// What happens to an output stream that is longer than the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutputLimit {
    /// The first and the last half are kept; the task goes on. It is killed where the file system
    /// cannot free a part of a file.
    Cut,
    /// The task is killed.
    Kill,
}

impl Config {
    /// The defaults, below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            output_cap: 64 << 20,
            on_output_limit: OnOutputLimit::Cut,
            tail: 4096,
            keep_logs_bytes: 2 << 30,
            reserve_bytes: 64 << 20,
            adopt_orphans: true,
        }
    }
}

/// Why a running attempt is to stop. If the task ended by itself before the first signal, that
/// stays its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// It is not wanted any more: CANCELLED.
    Cancel,
    /// The worker cannot go on with it: INTERRUPTED, or RETURNED if it never started.
    Interrupt,
}

/// What the executor's threads share.
struct Inner {
    config: Config,
    root_id: String,
    environment: Vec<(OsString, OsString)>,
    /// Every task's standard input.
    null: File,
    /// Whether orphans of tasks become our children.
    adopts: bool,
    table: Mutex<Table>,
    /// Wakes the supervisor.
    wake: Condvar,
    /// An attempt left the table.
    left: Condvar,
    pool: Arc<Pool>,
    spares: Mutex<Spares>,
    orphans: Orphans,
    /// The most memory that this process ever had resident.
    own_peak: AtomicU64,
    /// Log bytes since the last pruning.
    kept: AtomicU64,
    pruning: AtomicBool,
}

/// Runs command tasks. See the module's text for what it promises.
pub struct Executor {
    inner: Arc<Inner>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
    killed: usize,
}

/// One attempt that was started. Dropping it changes nothing.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
    attempt: Arc<Attempt>,
}

impl Executor {
    /// Opens the root folder, and ends what a former worker left running in it.
    ///
    /// # Errors
    /// If the folder cannot be used, or another executor uses it (`WouldBlock`).
    pub fn new(mut config: Config) -> io::Result<Executor> {
        fs::create_dir_all(&config.root)?;
        config.root = config.root.canonicalize()?;
        let lock = root::take_lock(&config.root)?;
        let root_id = root::id(&config.root)?;
        logs::create_folders(&config.root)?;
        let killed = tree::sweep(&root_id);
        let spares = Spares::new(config.root.join("spare"), config.root.join("work"))?;
        let adopts = config.adopt_orphans && root::adopt_orphans();
        let inner = Arc::new(Inner {
            config,
            root_id,
            environment: command::scrubbed_environment(),
            adopts,
            table: Mutex::new(Table::new()),
            wake: Condvar::new(),
            left: Condvar::new(),
            pool: Arc::default(),
            spares: Mutex::new(spares),
            null: File::open("/dev/null")?,
            orphans: Orphans::new(adopts),
            own_peak: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            pruning: AtomicBool::new(false),
        });
        inner.note_own_peak();
        let supervisor = Supervisor::new(Arc::clone(&inner));
        let thread = std::thread::Builder::new()
            .name("outlast-super".to_owned())
            .spawn(move || supervisor.run())?;
        Ok(Executor {
            inner,
            supervisor: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
            killed,
        })
    }

    /// How many processes of a former worker [`Executor::new`] had to kill.
    pub fn killed_at_start(&self) -> usize {
        self.killed
    }

    /// The root folder, as [`logs::read`] wants it.
    pub fn root(&self) -> &Path {
        &self.inner.config.root
    }

    /// Starts an attempt and returns at once. It runs at once too: how many may is the caller's
    /// business, and so is that no attempt is started twice.
    ///
    /// `done` is called exactly once, on a thread of the executor; only if the system refuses that
    /// thread, on this one. It must not shut the executor down. It may start further attempts: the
    /// first of them runs on the same thread once `done` returns, which is the quickest way to keep
    /// a slot busy.
    pub fn start(
        &self,
        task_id: &str,
        epoch: u64,
        spec: Arc<TaskSpec>,
        worker_id: &str,
        done: impl FnOnce(TaskOutcome) + Send + 'static,
    ) -> Handle {
        let inner = &self.inner;
        let mut table = lock(&inner.table);
        let mut refused = match outlast_wire::spec::check_task_id(task_id) {
            Ok(()) => None,
            Err(error) => Some((OutcomeKind::OutcomeFailed, error.to_string())),
        };
        if table.closed {
            refused = Some((OutcomeKind::OutcomeReturned, "the worker is stopping".to_owned()));
        }
        table.next_key += 1;
        let attempt = Arc::new(Attempt {
            key: table.next_key,
            task: task_id.to_owned(),
            epoch,
            worker: worker_id.to_owned(),
            spec,
            mark: format!("{}:{task_id}.{epoch}", inner.root_id),
            paths: logs::Paths::of(&inner.config.root, task_id, epoch),
            output: Mutex::new(None),
            state: Mutex::new(State {
                phase: Phase::Waiting,
                stop: None,
                signalled: false,
                gone: None,
                deadline: None,
            }),
            changed: Condvar::new(),
            started: AtomicI64::new(0),
            peak: AtomicU64::new(0),
            disk: AtomicU64::new(0),
        });
        table.running.insert(attempt.key, Arc::clone(&attempt));
        // A supervisor that is fast asleep does not know that there is something to watch now.
        if table.wakes > Instant::now() + SAMPLE {
            inner.wake.notify_one();
        }
        drop(table);
        let job = Job {
            inner: Arc::clone(inner),
            attempt: Arc::clone(&attempt),
            done: Box::new(done),
            refused,
        };
        if let Err((error, mut job)) = inner.pool.run(job) {
            let reason = format!("the system refuses another thread: {error}");
            job.refused.get_or_insert((OutcomeKind::OutcomeFailed, reason));
            job.run();
        }
        Handle { inner: Arc::clone(inner), attempt }
    }

    /// Attempts that were started and whose outcome was not taken yet.
    pub fn running(&self) -> usize {
        lock(&self.inner.table).running.len()
    }

    /// Stops everything, waits until all outcomes are out, and ends daemons that tasks left.
    ///
    /// Takes as long as the longest kill grace. Attempts that are started from now on are
    /// RETURNED. Blocks: not for an async thread.
    pub fn shutdown(&self, kind: StopKind) {
        self.close(kind, None);
    }

    fn close(&self, kind: StopKind, grace: Option<Duration>) {
        let inner = &self.inner;
        let mut table = lock(&inner.table);
        table.closed = true;
        table.kill_by = grace.map(|grace| Instant::now() + grace);
        let attempts: Vec<_> = table.running.values().cloned().collect();
        drop(table);
        let longest = attempts.iter().map(|a| seconds(a.spec.kill_grace)).max();
        for attempt in attempts {
            inner.stop(&attempt, kind);
        }
        // Whatever cannot be killed must not keep the worker from ending.
        let limit = grace.or(longest).unwrap_or_default() + GIVE_UP + Duration::from_secs(2);
        let deadline = Instant::now() + limit;
        let mut table = lock(&inner.table);
        while !table.running.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            table = inner.left.wait_timeout(table, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        table.exit = true;
        inner.wake.notify_one();
        drop(table);
        inner.pool.close();
        lock(&inner.spares).clear();
        if let Some(thread) = lock(&self.supervisor).take() {
            let _ = thread.join();
            tree::sweep(&inner.root_id);
        }
        lock(&self.lock).take();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.close(StopKind::Interrupt, Some(DROP_GRACE));
    }
}

impl Handle {
    /// Stops the attempt: SIGTERM to its whole tree, SIGKILL after its grace. Returns at once;
    /// the first stop of an attempt counts.
    pub fn stop(&self, kind: StopKind) {
        self.inner.stop(&self.attempt, kind);
    }

    /// When its process was started, in Unix ms; `None` if it was not (yet).
    pub fn started_at_ms(&self) -> Option<i64> {
        Some(self.attempt.started.load(Ordering::Relaxed)).filter(|&ms| ms != 0)
    }
}

impl Inner {
    fn stop(&self, attempt: &Attempt, kind: StopKind) {
        let mut state = lock(&attempt.state);
        if state.phase == Phase::Ended {
            return;
        }
        state.stop.get_or_insert(match kind {
            StopKind::Cancel => Why::Cancelled,
            StopKind::Interrupt => Why::Interrupted,
        });
        drop(state);
        self.look_at_stops(Some(attempt.key));
    }

    /// An attempt's outcome is out.
    fn forget(&self, attempt: &Attempt) {
        let mut table = lock(&self.table);
        table.running.remove(&attempt.key);
        if table.closed {
            self.left.notify_all();
        }
    }

    /// Counts what an attempt left on disk, and prunes now and then.
    fn count_kept(self: &Arc<Self>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        // Even a byte takes a block.
        let kept = self.kept.fetch_add(bytes + 4096, Ordering::Relaxed);
        if kept < self.config.keep_logs_bytes / 8 || self.pruning.swap(true, Ordering::AcqRel) {
            return;
        }
        self.kept.store(0, Ordering::Relaxed);
        let inner = Arc::clone(self);
        let pruner = std::thread::Builder::new().name("outlast-prune".to_owned());
        let started = pruner.spawn(move || {
            let running =
                |stem: &str| lock(&inner.table).running.values().any(|a| a.stem() == stem);
            match logs::prune(&inner.config.root, inner.config.keep_logs_bytes, running) {
                Ok(freed) => tracing::debug!(freed, "pruned logs"),
                Err(error) => tracing::warn!(%error, "could not prune logs"),
            }
            inner.pruning.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.pruning.store(false, Ordering::Release);
        }
    }
}

/// Locks without minding that a thread panicked while it held the lock: outcomes must go out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
