//! The executor: it opens the root folder, starts attempts, and ends.

use super::attempt::{Attempt, State, seconds};
use super::config::Config;
use super::engine::Engine;
use super::environment::Inherited;
use super::fitness::{Fitness, FitnessWatch};
use super::handle::Handle;
use super::in_vain::InVain;
use super::job::{Job, Refusal};
use super::lock::lock;
use super::note::Watch;
use super::oom::Memory;
use super::output::Outputs;
use super::pool::Pool;
use super::spares::{Orphans, Spares};
use super::stop::StopKind;
use super::supervisor::{GIVE_UP, SAMPLE, Supervisor};
use super::table::Table;
use super::terminated::Terminated;
use super::{logs, root, tree, user};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_spawn::User;
use outlast_wire::TaskSpec;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest kill grace that `Drop` allows: a clean exit calls `shutdown` and has more.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// The executor of command tasks. See the module's text for its promises.
pub struct Executor {
    engine: Arc<Engine>,
    pool: Arc<Pool>,
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
        let engine = Arc::new(Engine {
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
            outputs,
            spares: Mutex::new(spares),
            null: File::open("/dev/null")?,
            orphans: Orphans::new(adopts),
            own_peak: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            pruning: AtomicBool::new(false),
        });
        engine.note_own_peak();
        let supervisor = Supervisor::new(Arc::clone(&engine));
        let thread = std::thread::Builder::new()
            .name("outlast-super".to_owned())
            .spawn(move || supervisor.run())?;
        let prober = engine.start_prober()?;
        Ok(Executor {
            engine,
            pool: Arc::default(),
            supervisor: Mutex::new(Some(thread)),
            prober: Mutex::new(Some(prober)),
            lock: Mutex::new(Some(lock)),
            killed,
        })
    }

    /// Number of processes of a former worker that [`Executor::new`] had to kill.
    pub fn killed_at_start(&self) -> usize {
        self.killed
    }

    /// The root folder, as [`logs::read`] wants it.
    pub fn root(&self) -> &Path {
        &self.engine.config.root
    }

    /// The user as whom tasks run, if not this process's own.
    pub fn user(&self) -> Option<&User> {
        self.engine.config.user.as_ref()
    }

    /// Sets the watcher of notes; the first one stays.
    pub fn set_watch(&self, watch: Watch) {
        let _ = self.engine.watch.set(watch);
    }

    /// Sets the watcher of fitness; the first one stays. It is called on threads of the executor, and
    /// before the outcomes of what was not started.
    pub fn set_fitness_watch(&self, watch: FitnessWatch) {
        self.engine.fitness.set_watch(watch);
    }

    /// The reason why nothing can be started here for now, if so.
    pub fn unfit(&self) -> Option<String> {
        self.engine.fitness.reason()
    }

    /// The flag to set when this process gets a signal to end (SIGTERM), which may have been meant
    /// for all processes: then what ends badly at about that time was interrupted.
    pub fn termination_flag(&self) -> Arc<AtomicBool> {
        self.engine.terminated.flag()
    }

    /// Replaces [`Config::extra_env`] for attempts that start from now on.
    pub fn set_extra_env(&self, env: Vec<(String, String)>) {
        *lock(&self.engine.extra_env) = env.into();
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
        self.launch(&handle, refused, Box::new(done));
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
        let engine = &self.engine;
        let mut table = lock(&engine.table);
        let mut refused = match outlast_wire::spec::check_task_id(task_id) {
            Ok(()) => None,
            Err(error) => Some((OutcomeKind::Failed, error.to_string(), Cause::NotStarted)),
        };
        if table.closed {
            let message = "the worker is stopping".to_owned();
            refused = Some((OutcomeKind::Returned, message, Cause::Stopped));
        }
        table.next_key += 1;
        let attempt = Arc::new(Attempt {
            key: table.next_key,
            task: task_id.to_owned(),
            epoch,
            worker: worker_id.to_owned(),
            spec,
            env,
            mark: format!("{}:{task_id}.{epoch}", engine.root_id),
            tag: tree::tag(&engine.root_id, table.next_key),
            paths: engine.paths(task_id, epoch),
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
            engine.wake.notify_one();
        }
        drop(table);
        (Handle { engine: Arc::clone(engine), attempt }, refused)
    }

    /// The second half of a start, once, with what the first returned.
    pub(crate) fn launch(
        &self,
        handle: &Handle,
        refused: Option<Refusal>,
        done: Box<dyn FnOnce(TaskOutcome) + Send>,
    ) {
        let engine = Arc::clone(&self.engine);
        let job = Job { engine, attempt: Arc::clone(&handle.attempt), done, refused };
        if let Err((error, mut job)) = self.pool.run(job) {
            let reason = format!("the system refuses another thread: {error}");
            self.engine.fitness.assume(&reason);
            let refusal = (OutcomeKind::Returned, reason, Cause::Machine);
            job.refused.get_or_insert(refusal);
            job.run();
        }
    }

    /// Attempts that were started and whose outcome was not taken yet.
    pub fn running(&self) -> usize {
        lock(&self.engine.table).running.len()
    }

    /// Stops everything, waits until all outcomes are out, and ends daemons that tasks left.
    ///
    /// Takes as long as the longest kill grace. Attempts that are started from now on are
    /// RETURNED. Blocks: not for an async thread.
    pub fn shutdown(&self, kind: StopKind) {
        self.close(kind, None);
    }

    fn close(&self, kind: StopKind, grace: Option<Duration>) {
        let engine = &self.engine;
        let mut table = lock(&engine.table);
        table.closed = true;
        table.kill_by = grace.map(|grace| Instant::now() + grace);
        let attempts: Vec<_> = table.running.values().cloned().collect();
        drop(table);
        let longest = attempts.iter().map(|a| seconds(a.spec.kill_grace)).max();
        for attempt in attempts {
            engine.stop(&attempt, kind);
        }
        // Whatever cannot be killed must not keep the worker from ending.
        let limit = grace.or(longest).unwrap_or_default() + GIVE_UP + Duration::from_secs(2);
        let deadline = Instant::now() + limit;
        let mut table = lock(&engine.table);
        while !table.running.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            table = engine.left.wait_timeout(table, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        table.exit = true;
        engine.wake.notify_one();
        drop(table);
        self.pool.close();
        engine.fitness.close();
        if let Some(thread) = lock(&self.prober).take() {
            let _ = thread.join();
        }
        lock(&engine.spares).clear();
        if let Some(thread) = lock(&self.supervisor).take() {
            let _ = thread.join();
            tree::sweep(&engine.root_id);
        }
        engine.outputs.close();
        lock(&self.lock).take();
    }
}

impl Executor {
    /// Stops everything as a drop does.
    pub(crate) fn abandon(&self) {
        self.close(StopKind::Interrupt, Some(DROP_GRACE));
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.abandon();
    }
}
