//! The probe of fitness: this machine is tried for real once a start failed by its fault, and again until it
//! works.

use super::descriptors::leaves_enough;
use super::engine::Engine;
use super::tree::Main;
use outlast_spawn::Program;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes that a probe writes: no block of a disk is larger.
const PROBE: usize = 4096;
/// Programs that do nothing, and succeed.
const TRIVIAL: [(&str, &[&str]); 3] =
    [("/bin/true", &["true"]), ("/usr/bin/true", &["true"]), ("/bin/sh", &["sh", "-c", ":"])];

impl Engine {
    /// Probes after a start that failed by the machine's fault. Returns why no other would do better, if so.
    pub(super) fn check_fitness(&self, failed: &str) -> Option<String> {
        let _checking = self.fitness.check();
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

    /// Starts the thread that probes until tasks can be started again.
    pub(super) fn start_prober(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let engine = Arc::clone(self);
        let prober = std::thread::Builder::new().name("outlast-probe".to_owned());
        prober.spawn(move || {
            while engine.fitness.wait() {
                let _checking = engine.fitness.check();
                match engine.probe() {
                    Ok(()) => engine.fitness.set(None),
                    Err(reason) => engine.fitness.still_unfit(reason),
                }
            }
        })
    }

    /// Tries what every task needs: files, descriptors, a thread, a process.
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
