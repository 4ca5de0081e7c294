//! Ability of this machine to start tasks: tested with a real start after one failed by the machine's
//! fault, and again until it works. Meanwhile nothing is started.

use super::launch::RESERVE;
use super::tree::Main;
use super::{Inner, lock};
use outlast_spawn::Program;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pauses between two probes: the first, and the longest. Each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Time without a fault after which the pauses start again with the first one.
const SETTLED: Duration = Duration::from_secs(60);
/// Bytes that a probe writes: no block of a disk is larger.
const PROBE: usize = 4096;
/// Programs that do nothing, and succeed.
const TRIVIAL: [(&str, &[&str]); 3] =
    [("/bin/true", &["true"]), ("/usr/bin/true", &["true"]), ("/bin/sh", &["sh", "-c", ":"])];

/// Callback with the reason why nothing can be started, or `None` once it can again.
pub type FitnessWatch = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// State of the ability to start tasks.
pub(super) struct Fitness {
    /// True while unfit; set after the watcher was notified, so that no outcome arrives there before.
    unfit: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// Held during a test and its report.
    checking: Mutex<()>,
    watch: OnceLock<FitnessWatch>,
}

struct State {
    reason: Option<String>,
    pause: Duration,
    fit_since: Instant,
    closed: bool,
}

impl Fitness {
    pub fn new() -> Fitness {
        let (pause, fit_since) = (PAUSES.0, Instant::now());
        Fitness {
            unfit: AtomicBool::new(false),
            state: Mutex::new(State { reason: None, pause, fit_since, closed: false }),
            changed: Condvar::new(),
            checking: Mutex::new(()),
            watch: OnceLock::new(),
        }
    }

    pub fn set_watch(&self, watch: FitnessWatch) {
        let _ = self.watch.set(watch);
    }

    /// Returns why nothing can be started, if so; set before the watcher is notified.
    pub fn reason(&self) -> Option<String> {
        lock(&self.state).reason.clone()
    }

    /// Returns why nothing can be started, once the watcher was notified.
    pub fn unfit(&self) -> Option<String> {
        match self.unfit.load(Ordering::Acquire) {
            true => lock(&self.state).reason.clone(),
            false => None,
        }
    }

    /// Without a probe, since this thread must not wait: it is unfit.
    pub fn assume(&self, reason: &str) {
        if let Ok(_checking) = self.checking.try_lock()
            && self.unfit().is_none()
        {
            self.set(Some(reason));
        }
    }

    /// Sets the state. Requires `checking` to be held.
    fn set(&self, reason: Option<&str>) {
        let mut state = lock(&self.state);
        match reason {
            Some(_) if state.fit_since.elapsed() > SETTLED => state.pause = PAUSES.0,
            Some(_) => {}
            None => state.fit_since = Instant::now(),
        }
        state.reason = reason.map(ToOwned::to_owned);
        drop(state);
        match reason {
            Some(reason) => tracing::error!("no task can be started here: {reason}"),
            None => tracing::info!("tasks can be started again"),
        }
        if let Some(watch) = self.watch.get() {
            watch(reason);
        }
        self.unfit.store(reason.is_some(), Ordering::Release);
        self.changed.notify_all();
    }

    /// Lets the prober end.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Waits until it is time for the next probe; false at the end.
    fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while state.reason.is_none() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        let until = Instant::now() + state.pause;
        state.pause = (state.pause * 2).min(PAUSES.1);
        while !state.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return true };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        false
    }
}

impl Inner {
    /// After a start that failed by the machine's fault: why no other would do better, if so.
    pub(super) fn check_fitness(&self, failed: &str) -> Option<String> {
        let _checking = lock(&self.fitness.checking);
        if let Some(reason) = self.fitness.unfit() {
            return Some(reason);
        }
        match self.probe() {
            Ok(()) => {
                tracing::warn!("a task could not be started, and another could: {failed}");
                None
            }
            Err(reason) => {
                self.fitness.set(Some(&reason));
                Some(reason)
            }
        }
    }

    /// The thread that finds out when tasks can be started again.
    pub(super) fn start_prober(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let inner = Arc::clone(self);
        let prober = std::thread::Builder::new().name("outlast-probe".to_owned());
        prober.spawn(move || {
            while inner.fitness.wait() {
                let _checking = lock(&inner.fitness.checking);
                match inner.probe() {
                    Ok(()) => inner.fitness.set(None),
                    Err(reason) => lock(&inner.fitness.state).reason = Some(reason),
                }
            }
        })
    }

    /// Does what every task needs: files, descriptors, a thread, a process.
    fn probe(&self) -> Result<(), String> {
        self.outputs.drop_spares();
        let root = &self.config.root;
        let (file, folder) = (root.join("probe"), root.join("work").join("probe"));
        let files = fs::write(&file, [0; PROBE])
            .and_then(|()| fs::create_dir_all(&folder))
            .map_err(|error| format!("files cannot be created in {}: {error}", root.display()));
        let _ = (fs::remove_file(&file), fs::remove_dir(&folder));
        files?;
        let open =
            || File::open("/dev/null").map_err(|error| format!("no file can be opened: {error}"));
        let [one, other] = [open()?, open()?];
        if !leaves_enough(one.as_raw_fd().max(other.as_raw_fd())) {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or_default();
            return Err(format!("too many open files (the limit is {limit}: `ulimit -n`)"));
        }
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(|| ());
        let thread =
            thread.map_err(|error| format!("the system refuses another thread: {error}"))?;
        let _ = thread.join();
        let program = TRIVIAL.iter().find(|(path, _)| fs::metadata(path).is_ok());
        let Some((path, arguments)) = program else { return Ok(()) };
        let (Ok(path), Ok(arguments)) = (
            CString::new(*path),
            arguments.iter().map(|a| CString::new(*a)).collect::<Result<Vec<_>, _>>(),
        ) else {
            return Ok(());
        };
        let program = Program {
            path: &path,
            arguments: &arguments,
            environment: &[],
            folder: c"/",
            stdio: [self.null.as_fd(), one.as_fd(), other.as_fd()],
            user: self.config.user.as_ref(),
            tag: None,
        };
        let started = Main::start(|| program.start());
        let (_main, child) = started.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => "the system's limit of processes is reached".to_owned(),
            _ => format!("no process can be started: {error}"),
        })?;
        // It has started, which is all; and one that another process of its user stopped would not end.
        if let Some(pid) = Pid::from_raw(child.id()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = child.wait();
        Ok(())
    }
}

/// Returns true if a descriptor's number leaves enough of them for the executor itself.
pub(super) fn leaves_enough(descriptor: RawFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return true };
    let descriptor = u64::try_from(descriptor).unwrap_or_default();
    descriptor + RESERVE.min(limit / 4) < limit
}
