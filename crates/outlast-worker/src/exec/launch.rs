//! The launch of an attempt: its files, its command, its start, and what is tried again.
//!
//! A start that fails is the task's mistake (no such program), the machine's fault (no descriptor,
//! no process, no room), or will be right in a moment (a program that is still being written, a
//! folder that is about to be mounted). Which it is depends on the error and on the step.

use super::attempt::{Attempt, Phase};
use super::command::{self, Command, Identity};
use super::descriptors::leaves_enough;
use super::engine::Engine;
use super::fault::{Fault, NoStart};
use super::lock::lock;
use super::spares::Folder;
use super::tree::Main;
use super::{oom, user};
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_spawn::Process;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pauses before another try: the first, and the longest. Each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A program that is open for writing is tried again for so long.
const BUSY: Duration = Duration::from_secs(3);
/// Time to wait for a scarce resource of the machine, which may be free again when other tasks end.
const SCARCE: Duration = Duration::from_millis(800);
/// An attempt that has a process.
pub(super) struct Launched {
    pub main: Main,
    pub child: Process,
    pub folder: Option<Folder>,
    /// The orphans and the memory's victims before it.
    pub orphans: String,
    pub before: oom::Before,
    /// Unix ms.
    pub started: i64,
}

impl Attempt {
    /// Gives the attempt a process, or returns why it has none.
    pub fn launch(&self, engine: &Arc<Engine>) -> Result<Launched, Box<TaskOutcome>> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            if let Some(ended) = self.stopped_before_start() {
                return Err(Box::new(ended));
            }
            if let Some(reason) = engine.fitness.unfit() {
                let reason = format!("this worker cannot start tasks for now: {reason}");
                return Err(Box::new(self.no_process(
                    OutcomeKind::Returned,
                    reason,
                    Cause::Machine,
                )));
            }
            let no = match self.try_launch(engine) {
                Ok(launched) => return Ok(launched),
                Err(no) => no,
            };
            let limit = match &no.fault {
                Fault::Task => Duration::ZERO,
                Fault::Machine => Duration::ZERO,
                Fault::Busy => BUSY,
                Fault::Scarce => SCARCE,
                Fault::Absent(place) | Fault::Unreachable(place) if engine.in_vain.has(place) => {
                    Duration::ZERO
                }
                Fault::Absent(_) | Fault::Unreachable(_) => engine.config.wait_for_folders,
            };
            if no.fault == Fault::Scarce {
                engine.outputs.drop_spares();
            }
            if began.elapsed() >= limit {
                return Err(Box::new(self.judge_no_start(engine, no)));
            }
            self.wait_before_start(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Waits, unless it is to be stopped. It can be taken back meanwhile.
    fn wait_before_start(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = lock(&self.state);
        state.phase = Phase::Waiting;
        while state.stop.is_none() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn judge_no_start(&self, engine: &Arc<Engine>, no: NoStart) -> TaskOutcome {
        let NoStart { reason, cause, fault } = no;
        let is_machines = match fault {
            Fault::Task | Fault::Busy => false,
            Fault::Absent(place) => {
                engine.in_vain.add(place);
                false
            }
            Fault::Unreachable(place) => {
                engine.in_vain.add(place);
                true
            }
            Fault::Scarce | Fault::Machine => true,
        };
        if !is_machines {
            return self.no_process(OutcomeKind::Failed, reason, cause);
        }
        // Where nothing else could be started either, the task has lost nothing. Else it is as with
        // other losses: a limited number of them.
        let kind = match engine.check_fitness(&reason) {
            Some(_) => OutcomeKind::Returned,
            None => OutcomeKind::Interrupted,
        };
        self.no_process(kind, reason, Cause::Machine)
    }

    fn no_process(&self, kind: OutcomeKind, reason: String, cause: Cause) -> TaskOutcome {
        lock(&self.state).phase = Phase::Ended;
        self.outcome(kind, cause, reason)
    }

    fn try_launch(&self, engine: &Arc<Engine>) -> Result<Launched, NoStart> {
        let (command, folder) = self.prepare(engine)?;
        let orphans = engine.orphans.before();
        let before = engine.memory.before();
        let started = crate::clock::now().wall;
        match Main::start(|| self.start(engine, &command)) {
            Ok((main, child)) => Ok(Launched { main, child, folder, orphans, before, started }),
            Err(error) => {
                let no = command::why_not_started(&error, &command);
                self.clear_away(engine, folder, true);
                Err(no)
            }
        }
    }

    /// Creates what the attempt needs: its command, and the folder of its own if it gets one.
    fn prepare<'i>(
        &self,
        engine: &'i Arc<Engine>,
    ) -> Result<(Command<'i>, Option<Folder>), NoStart> {
        let folder = self.spec.cwd.is_none().then(|| lock(&engine.spares).folder());
        let cwd = match &folder {
            Some(folder) => folder.path.clone(),
            None => {
                let cwd = self.spec.cwd.as_deref().unwrap_or(".");
                std::path::absolute(cwd).map_err(|e| NoStart::task(format!("cwd {cwd:?}: {e}")))?
            }
        };
        let who = Identity {
            task: &self.task,
            epoch: self.epoch,
            worker: &self.worker,
            mark: &self.mark,
            result: self.is_browser().then_some(self.paths.result.as_path()),
            env: &self.env,
        };
        let ready = self.make_folders(engine, folder.as_ref());
        let ready = ready.and_then(|()| self.make_output(engine));
        let ready = ready.map_err(|error| command::why_no_files(&error, &engine.config.root));
        match ready.and_then(|()| command::build(&self.spec, engine, &cwd, &who)) {
            Ok(command) => Ok((command, folder)),
            Err(no) => {
                self.clear_away(engine, folder, true);
                Err(no)
            }
        }
    }

    fn make_folders(&self, engine: &Engine, folder: Option<&Folder>) -> io::Result<()> {
        let user = engine.config.user.as_ref();
        folder.map_or(Ok(()), |folder| folder.create(user))?;
        match (user, self.paths.result.parent()) {
            (Some(user), Some(folder)) if self.is_browser() => user::make_folder(folder, user),
            _ => Ok(()),
        }
    }

    fn make_output(&self, engine: &Engine) -> io::Result<()> {
        let stream = |path: &PathBuf| engine.outputs.stream(path.clone());
        let streams = [stream(&self.paths.stdout)?, stream(&self.paths.stderr)?];
        // The lowest free number is given, so a high one says how many are in use.
        let highest = streams[1].with_end(|end| Ok(end.as_raw_fd()))?;
        *lock(&self.output) = Some(streams);
        match leaves_enough(highest) {
            true => Ok(()),
            false => Err(rustix::io::Errno::MFILE.into()),
        }
    }

    fn start(&self, engine: &Engine, command: &Command) -> io::Result<Process> {
        let output = lock(&self.output);
        let [stdout, stderr] = output.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let null = engine.null.as_fd();
        let process = stdout
            .with_end(|out| stderr.with_end(|err| command.start([null, out, err], self.tag)))?;
        engine.outputs.watch([stdout, stderr]);
        Ok(process)
    }
}
