//! Runs command tasks: start, limits, stop, outcome, output.
//!
//! Each attempt has a thread of its own while it runs (`pool`, `attempt`); one supervisor thread
//! ends those that must end (`supervisor`, `tree`, `limits`); output goes through pipes (`output`) to
//! files (`segments`, `logs`). Everything lives below one root folder, which one executor at a time may use.
//!
//! What is left running when a main process ends by itself: its process group is killed, as CI
//! runners do; what left the group (a daemon) may outlive the task, but not the executor. If the
//! worker is killed, the next executor of the same root ends what it finds still running.

mod attempt;
mod cause;
mod command;
mod config;
mod fault;
mod fitness;
mod handle;
mod init;
mod launch;
mod limits;
pub mod logs;
mod oom;
mod output;
mod pause;
mod pool;
mod remove;
mod result;
mod root;
mod segments;
mod signals;
mod spares;
mod supervisor;
mod terminated;
mod tree;
mod user;
mod verdict;

pub(crate) use attempt::Refusal;
pub use cause::Cause;
pub(crate) use command::describe;
pub use config::{Config, OnOutputLimit};
pub use fitness::FitnessWatch;
pub use handle::Handle;
pub use init::serve_as_init;
pub use oom::Memory;
pub use result::{MAX_VALUE, Report};
pub(crate) use root::{make as make_root, sweep};
pub use signals::{NoSignal, Signal};
pub(crate) use user::WORK;
pub use verdict::Ended;
pub(crate) use verdict::{Unbegun, never_begun, plain};

use attempt::{Attempt, Job, Phase, State, Why, seconds};
use command::Inherited;
use fitness::Fitness;
use launch::InVain;
use outlast_spawn::User;
use outlast_wire::TaskSpec;
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use output::Outputs;
use pool::Pool;
use spares::{Orphans, Spares};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use supervisor::{GIVE_UP, SAMPLE, Supervisor, Table};
use terminated::Terminated;

/// The kill grace that `Drop` allows at most: a clean exit calls `shutdown` and has more.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// Bytes that ended attempts must have left behind before a scan of all of them is worthwhile when
/// room is short.
const WORTH_PRUNING: u64 = 256 << 10;

/// Reason for stopping a running attempt. If the task ended by itself before the first signal, that
/// remains its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// The task was cancelled: CANCELLED.
    Cancel,
    /// The worker cannot go on with it: INTERRUPTED, or RETURNED if it never started.
    Interrupt,
}

/// Report of an executor to its watcher about a running attempt. It may cross with the outcome: a
/// report about an attempt that has ended has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The attempt has been running for a while, since this Unix time in ms. Short attempts end without.
    Started(i64),
    /// The processes of the attempt are paused.
    Paused,
    /// The processes of the attempt run again.
    Resumed,
}

/// Callback with reports on attempts (task, epoch), on the supervisor's thread: it must be quick.
pub type Watch = Box<dyn Fn(&str, u64, Note) + Send + Sync>;

/// State shared by the executor's threads.
struct Inner {
    config: Config,
    root_id: String,
    inherited: Inherited,
    extra_env: Mutex<Arc<Vec<(String, String)>>>,
    watch: OnceLock<Watch>,
    fitness: Fitness,
    in_vain: InVain,
    terminated: Terminated,
    memory: Memory,
    /// Every task's standard input.
    null: File,
    /// True if orphans of tasks become children of this process.
    adopts: bool,
    table: Mutex<Table>,
    /// Wakes the supervisor.
    wake: Condvar,
    /// An attempt left the table.
    left: Condvar,
    pool: Arc<Pool>,
    outputs: Outputs,
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
    prober: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
    killed: usize,
}

impl Executor {
    /// Opens the root folder, and ends what a former worker left running in it.
    ///
    /// # Errors
    /// If the folder cannot be used, or another executor uses it (`WouldBlock`).
    pub fn new(mut config: Config) -> io::Result<Executor> {
        outlast_spawn::heed_children();
        root::make(&config.root, config.user.as_ref())?;
        config.root = config.root.canonicalize()?;
        let lock = root::take_lock(&config.root)?;
        if config.user.is_none() {
            root::close(&config.root)?;
        }
        let root_id = root::id(&config.root)?;
        logs::create_folders(&config.root)?;
        if let Some(user) = &config.user {
            // This process's mask may let others read what is new.
            user::share(&config.root, user)?;
        }
        let killed = tree::sweep(&root_id);
        user::clear(&config.root);
        let spares = Spares::new(config.root.join(user::WORK))?;
        // Of versions that kept empty logs there.
        let _ = std::fs::remove_dir_all(config.root.join("spare"));
        let outputs = Outputs::start(config.output_cap, config.tail, config.user.clone())?;
        let adopts = config.adopt_orphans && root::adopt_orphans();
        let extra_env = std::mem::take(&mut config.extra_env);
        let inherited = Inherited::take(config.user.as_ref());
        let inner = Arc::new(Inner {
            config,
            root_id,
            inherited,
            extra_env: Mutex::new(extra_env.into()),
            watch: OnceLock::new(),
            fitness: Fitness::new(),
            in_vain: InVain::default(),
            terminated: Terminated::default(),
            memory: Memory::new(),
            adopts,
            table: Mutex::new(Table::new()),
            wake: Condvar::new(),
            left: Condvar::new(),
            pool: Arc::default(),
            outputs,
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
        let prober = inner.start_prober()?;
        Ok(Executor {
            inner,
            supervisor: Mutex::new(Some(thread)),
            prober: Mutex::new(Some(prober)),
            lock: Mutex::new(Some(lock)),
            killed,
        })
    }

    /// Returns the number of processes of a previous worker that [`Executor::new`] had to kill.
    pub fn killed_at_start(&self) -> usize {
        self.killed
    }

    /// The root folder, as [`logs::read`] wants it.
    pub fn root(&self) -> &Path {
        &self.inner.config.root
    }

    /// The user whom tasks run as, if not this process's own.
    pub fn user(&self) -> Option<&User> {
        self.inner.config.user.as_ref()
    }

    /// Sets the watcher for starts, pauses and resumes of attempts; the first watcher stays.
    pub fn set_watch(&self, watch: Watch) {
        let _ = self.inner.watch.set(watch);
    }

    /// Sets the watcher for the ability to start tasks; the first watcher stays. It is called on threads
    /// of the executor, and before the outcomes of attempts that were not started.
    pub fn set_fitness_watch(&self, watch: FitnessWatch) {
        self.inner.fitness.set_watch(watch);
    }

    /// Returns why nothing can be started for now, if so.
    pub fn unfit(&self) -> Option<String> {
        self.inner.fitness.reason()
    }

    /// To be set when this process is told to end by a signal (SIGTERM), which may have been meant
    /// for all processes: then what ends badly at about that time was interrupted.
    pub fn termination_flag(&self) -> Arc<AtomicBool> {
        self.inner.terminated.flag()
    }

    /// Replaces [`Config::extra_env`] for attempts that start from now on.
    pub fn set_extra_env(&self, env: Vec<(String, String)>) {
        *lock(&self.inner.extra_env) = env.into();
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
        let (handle, refused) = self.enter(task_id, epoch, spec, worker_id, Vec::new());
        self.launch(&handle, refused, Box::new(move |(outcome, _)| done(outcome)));
        handle
    }

    /// The first half of a start: from here on the attempt can be stopped, paused and taken back,
    /// but does not run before it is launched, which must follow.
    pub(crate) fn enter(
        &self,
        task_id: &str,
        epoch: u64,
        spec: Arc<TaskSpec>,
        worker_id: &str,
        env: Vec<(String, String)>,
    ) -> (Handle, Option<Refusal>) {
        let inner = &self.inner;
        let mut table = lock(&inner.table);
        let mut refused = match outlast_wire::spec::check_task_id(task_id) {
            Ok(()) => None,
            Err(error) => Some((OutcomeKind::OutcomeFailed, error.to_string(), Cause::NotStarted)),
        };
        if table.closed {
            let message = "the worker is stopping".to_owned();
            refused = Some((OutcomeKind::OutcomeReturned, message, Cause::WorkerStopped));
        }
        table.next_key += 1;
        let attempt = Arc::new(Attempt {
            key: table.next_key,
            task: task_id.to_owned(),
            epoch,
            worker: worker_id.to_owned(),
            spec,
            env,
            mark: format!("{}:{task_id}.{epoch}", inner.root_id),
            tag: tree::tag(&inner.root_id, table.next_key),
            paths: inner.paths(task_id, epoch),
            output: Mutex::new(None),
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            started: AtomicI64::new(0),
            peak: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            announced: AtomicBool::new(false),
        });
        table.running.insert(attempt.key, Arc::clone(&attempt));
        // A supervisor that is fast asleep does not know that there is something to watch now.
        if table.wakes > Instant::now() + SAMPLE {
            inner.wake.notify_one();
        }
        drop(table);
        (Handle { inner: Arc::clone(inner), attempt }, refused)
    }

    /// The second half of a start, once, with what the first returned.
    pub(crate) fn launch(
        &self,
        handle: &Handle,
        refused: Option<Refusal>,
        done: Box<dyn FnOnce(Ended) + Send>,
    ) {
        let inner = Arc::clone(&self.inner);
        let job = Job { inner, attempt: Arc::clone(&handle.attempt), done, refused };
        if let Err((error, mut job)) = self.inner.pool.run(job) {
            let reason = format!("the system refuses another thread: {error}");
            self.inner.fitness.assume(&reason);
            let refusal = (OutcomeKind::OutcomeReturned, reason, Cause::Machine);
            job.refused.get_or_insert(refusal);
            job.run();
        }
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
        inner.fitness.close();
        if let Some(thread) = lock(&self.prober).take() {
            let _ = thread.join();
        }
        lock(&inner.spares).clear();
        if let Some(thread) = lock(&self.supervisor).take() {
            let _ = thread.join();
            tree::sweep(&inner.root_id);
        }
        inner.outputs.close();
        lock(&self.lock).take();
    }
}

impl Executor {
    /// Stops everything, as on drop.
    pub(crate) fn abandon(&self) {
        self.close(StopKind::Interrupt, Some(DROP_GRACE));
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Inner {
    fn paths(&self, task: &str, epoch: u64) -> logs::Paths {
        let (root, mut paths) =
            (&self.config.root, logs::Paths::of(&self.config.root, task, epoch));
        if self.config.user.is_some() {
            // Its program has no way to the logs.
            paths.result = user::result_of(root, &format!("{task}.{epoch}"));
        }
        paths
    }

    fn extra_env(&self) -> Arc<Vec<(String, String)>> {
        Arc::clone(&lock(&self.extra_env))
    }

    fn note(&self, attempt: &Attempt, note: Note) {
        if let Some(watch) = self.watch.get() {
            watch(&attempt.task, attempt.epoch, note);
        }
    }

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
        attempt.changed.notify_all();
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
        // Where room is short, results and checkpoints need it more than what has ended.
        let short = limits::too_little_left(self).map(|free| self.config.reserve_bytes - free);
        let worth = if short.is_some() { WORTH_PRUNING } else { self.config.keep_logs_bytes / 8 };
        if kept < worth || self.pruning.swap(true, Ordering::AcqRel) {
            return;
        }
        self.kept.store(0, Ordering::Relaxed);
        let inner = Arc::clone(self);
        let pruner = std::thread::Builder::new().name("outlast-prune".to_owned());
        let started = pruner.spawn(move || {
            let running = |stem: &str| {
                let runs = lock(&inner.table).running.values().any(|a| a.stem() == stem);
                runs || inner.outputs.lingers(stem)
            };
            let keep = inner.config.keep_logs_bytes;
            match logs::prune(&inner.config.root, keep, short.unwrap_or(0), running) {
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
