//! The keeper's process: the executor, its line, the outcomes, and one agent at a time.

use super::out::Out;
use super::outcomes::Outcomes;
use super::proto::{self, Ask, Frames, HeldMsg, Nothing, Say, ToAgent, ToKeeper, Unfit, Welcome};
use super::{KeeperError, folder, log, socket};
use crate::exec::{Config, Executor, Signal, StopKind, plain};
use crate::runner::events::{Event, Start};
use crate::runner::line::Line;
use outlast_core::AttemptId;
use outlast_model::{Cause, OutcomeKind};
use outlast_wire::TaskSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// A former keeper, or a former agent's executor, has this long to leave the folder.
const LOCKED: Duration = Duration::from_secs(15);
/// An agent has this long to say what it wants.
const GREETING: Duration = Duration::from_secs(5);
/// After everything is shut down the agent has this long to say what it has made durable.
const FAREWELL: Duration = Duration::from_secs(5);
/// The log is put aside when it is longer, and one old one is kept.
const LOG: u64 = 1 << 20;

/// Configuration of a keeper.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// Configuration of its executor.
    pub exec: Config,
    /// Without an agent, and with nothing that runs, it ends after this; default 60 s.
    pub linger: Duration,
}

impl KeeperConfig {
    /// The defaults, below `root`, which is an executor's.
    pub fn new(root: impl Into<PathBuf>) -> KeeperConfig {
        KeeperConfig { exec: Config::new(root), linger: Duration::from_secs(60) }
    }
}

/// Runs the keeper; returns when it has nothing left to do, or after a request to end.
///
/// Puts the process into its own session, so that no terminal's signals reach it. Its files are private
/// from here on, and other processes of the user cannot inspect it. SIGTERM is ignored while an
/// agent is connected, which decides; without one, or if the agent ends in the same second, the keeper
/// stops all tasks, keeps their outcomes on disk, and ends the process. SIGINT, SIGHUP, SIGUSR1 and
/// SIGUSR2 have no effect.
///
/// # Errors
/// If the folder cannot be used, or something else uses it for too long.
pub fn main(config: KeeperConfig) -> Result<(), KeeperError> {
    // It fails for who leads a group already, and has the same effect then.
    let _ = rustix::process::setsid();
    // It knows what lets each task report. Its tasks are as open as any.
    outlast_spawn::undumpable();
    outlast_spawn::private_files();
    let terminate = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGUSR1, SIGUSR2] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    let _ = signal_hook::flag::register(SIGTERM, Arc::clone(&terminate));
    let root = config.exec.root.clone();
    let place = folder(&root);
    let failed = |e| KeeperError::Folder(place.clone(), e);
    let executor = take(&config.exec).map_err(KeeperError::Executor)?;
    socket::make_folder(&root).map_err(failed)?;
    // It may be meant for the tasks too.
    let _ = signal_hook::flag::register(SIGTERM, executor.termination_flag());
    let swept = executor.killed_at_start() as u64;
    let out = Out::start().map_err(failed)?;
    let spool = place.join("spool");
    let outcomes = Arc::new(Outcomes::open(&spool, Arc::clone(&out)).map_err(failed)?);
    let told = Arc::clone(&outcomes);
    // Before any agent says how many slots there are, nothing is started.
    let line = Line::new(executor, 1, move |event, hurry| match event {
        Event::Finished(ended) => told.finished(ended, hurry),
        Event::Started { id, at_ms } => {
            let id = (&id).into();
            told.tell(Say::Started(HeldMsg { id, started_at_ms: at_ms, paused: false }));
        }
        Event::Paused(id) => told.tell(Say::Paused((&id).into())),
        Event::Resumed(id) => told.tell(Say::Resumed((&id).into())),
        Event::Unfit(reason) => told.tell(Say::Unfit(Unfit { reason })),
        Event::Died(_) => {}
    });
    let listener = socket::listen(&root).map_err(failed)?;
    tracing::info!("keeper {} of {}", std::process::id(), root.display());
    let instance = RandomState::new().hash_one(std::process::id());
    let host = Host { root, line, outcomes, out, swept, instance, linger: config.linger };
    let last = host.run(&listener, &terminate).map_err(failed);
    // First the socket: whoever comes now starts another keeper, which waits for the folder.
    socket::remove(&host.root);
    drop(listener);
    host.line.shutdown(StopKind::Interrupt);
    host.outcomes.tick();
    host.out.end();
    if !host.outcomes.are_safe() {
        tracing::error!("outcomes are lost: they could not be written");
    }
    tracing::info!("keeper {} ends", std::process::id());
    // An agent that waits for the end sees it now, when the folder is free.
    last.map(drop)
}

const SIGHUP: i32 = rustix::process::Signal::HUP.as_raw();
const SIGINT: i32 = rustix::process::Signal::INT.as_raw();
const SIGUSR1: i32 = rustix::process::Signal::USR1.as_raw();
const SIGUSR2: i32 = rustix::process::Signal::USR2.as_raw();
const SIGTERM: i32 = rustix::process::Signal::TERM.as_raw();

/// Opens the executor, once the folder is free.
fn take(config: &Config) -> io::Result<Executor> {
    let deadline = Instant::now() + LOCKED;
    loop {
        match Executor::new(config.clone()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

struct Host {
    root: PathBuf,
    line: Arc<Line>,
    outcomes: Arc<Outcomes>,
    out: Arc<Out>,
    swept: u64,
    instance: u64,
    linger: Duration,
}

/// Next step after an agent has disconnected.
enum After {
    /// The next one.
    Next,
    /// Ends the keeper; the connection is closed once everything is returned.
    End(UnixStream),
}

impl Host {
    /// Serves one agent after the other; returns the connection of one that waits for the end.
    fn run(
        &self,
        listener: &UnixListener,
        terminate: &AtomicBool,
    ) -> io::Result<Option<UnixStream>> {
        let mut alone = Instant::now();
        loop {
            if terminate.swap(false, Ordering::Relaxed) {
                tracing::info!("stopping all tasks: SIGTERM, and no agent is connected");
                return Ok(None);
            }
            if let Some(stream) = accept(listener)? {
                match self.serve(stream, terminate) {
                    Ok(After::Next) => {}
                    Ok(After::End(stream)) => return Ok(Some(stream)),
                    Err(error) => tracing::warn!("lost an agent: {error}"),
                }
                alone = Instant::now();
                continue;
            }
            self.tick();
            let idle = self.line.len() == 0 && self.outcomes.are_safe();
            if idle && alone.elapsed() >= self.linger {
                return Ok(None);
            }
        }
    }

    fn tick(&self) {
        self.outcomes.tick();
        let path = log(&self.root);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG) {
            // It is appended to, so it can be emptied under the writer.
            let _ = fs::copy(&path, path.with_extension("old"));
            let _ = File::options().write(true).open(path).and_then(|file| file.set_len(0));
        }
    }

    /// Serves one agent until it is gone.
    fn serve(&self, mut stream: UnixStream, terminate: &AtomicBool) -> io::Result<After> {
        let mut frames = Frames::new();
        stream.set_read_timeout(Some(GREETING))?;
        stream.set_write_timeout(Some(GREETING))?;
        let Some(Ask::Hello(hello)) = greeting(&mut frames, &mut stream)? else {
            return Ok(After::Next);
        };
        tracing::info!("an agent of version {} came", hello.software);
        let welcome = Welcome {
            version: proto::VERSION,
            oldest: proto::OLDEST,
            software: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            // One that ended would lose what it could not write down.
            busy: (self.line.len() + usize::from(!self.outcomes.are_safe())) as u64,
            instance: self.instance,
            swept: self.swept,
            user: self.line.executor().user().map(|user| user.uid),
        };
        let mut bytes = Vec::new();
        proto::frame(&ToAgent::from(Say::Welcome(welcome)), &mut bytes);
        stream.write_all(&bytes)?;
        let attach = match greeting(&mut frames, &mut stream)? {
            Some(Ask::Attach(attach)) => attach,
            Some(Ask::Retire(_)) if self.line.len() == 0 && self.outcomes.are_safe() => {
                return Ok(After::End(stream));
            }
            _ => return Ok(After::Next),
        };
        self.line.executor().set_extra_env(proto::pairs(attach.env));
        self.line.set_slots(attach.slots);
        stream.set_read_timeout(Some(TICK))?;
        let stream = Arc::new(stream);
        self.out.open(Arc::clone(&stream));
        self.outcomes.attach(self.line.held(), || self.line.executor().unfit());
        let shut_down = self.listen(&mut frames, &stream, terminate);
        self.outcomes.detach();
        if !matches!(shut_down, Ok(true)) {
            hang_up(&stream);
        }
        Ok(match shut_down? {
            true => After::End(Arc::try_unwrap(stream).or_else(|s| s.try_clone())?),
            false => After::Next,
        })
    }

    /// Does what the agent asks for, until it is gone (false) or told to shut down (true).
    fn listen(
        &self,
        frames: &mut Frames,
        stream: &UnixStream,
        terminate: &AtomicBool,
    ) -> io::Result<bool> {
        let mut ticked = Instant::now();
        let mut farewell = None;
        loop {
            let open = match frames.read(&mut &*stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => true,
                read => read?,
            };
            while let Some(ToKeeper { ask }) = frames.next()? {
                match ask {
                    Some(Ask::Shutdown(shutdown)) => {
                        self.line.shutdown(kind(shutdown.interrupt));
                        self.out.push(&ToAgent::from(Say::Goodbye(Nothing {})), true);
                        self.out.drain(FAREWELL);
                        farewell = Some(Instant::now() + FAREWELL);
                    }
                    Some(ask) => self.perform(ask),
                    None => {}
                }
            }
            if !open || farewell.is_some_and(|by| Instant::now() > by) {
                return Ok(farewell.is_some());
            }
            if ticked.elapsed() >= TICK {
                self.tick();
                // Unless the agent goes now: then it may be meant for both.
                terminate.store(false, Ordering::Relaxed);
                ticked = Instant::now();
            }
        }
    }

    fn perform(&self, ask: Ask) {
        let line = &self.line;
        match ask {
            Ask::Start(start) => {
                let id = AttemptId::from(&start.id);
                if line.holds(&id) || self.outcomes.tell_again(&id) {
                    return;
                }
                match TaskSpec::from_json(&start.spec) {
                    Ok(spec) => {
                        let (worker, env) = (start.worker.into(), proto::pairs(start.env));
                        line.start(Start { id, spec: Arc::new(spec), worker, env });
                    }
                    Err(error) => {
                        let (kind, text) = (OutcomeKind::Failed, error.to_string());
                        let outcome = plain(&id.task, id.epoch, kind, Cause::NotStarted, text);
                        self.outcomes.finished(outcome, true);
                    }
                }
            }
            Ask::Stop(stop) => line.stop(&(&stop.id).into(), kind(stop.interrupt)),
            Ask::Recall(id) => line.recall(&(&id).into()),
            Ask::Pause(id) => line.pause(&(&id).into(), true),
            Ask::Resume(id) => line.pause(&(&id).into(), false),
            Ask::Signal(asked) => match Signal::parse(&asked.name) {
                Ok(signal) => line.signal(&(&asked.id).into(), signal),
                Err(error) => tracing::warn!("{error}"),
            },
            Ask::Forget(forget) => self.outcomes.forget(&forget.ids),
            // Out of place here.
            Ask::Hello(_) | Ask::Attach(_) | Ask::Retire(_) | Ask::Shutdown(_) => {}
        }
    }
}

fn kind(interrupt: bool) -> StopKind {
    if interrupt { StopKind::Interrupt } else { StopKind::Cancel }
}

/// The next message, while there is a time limit; `None` if the agent has closed.
fn greeting(frames: &mut Frames, stream: &mut UnixStream) -> io::Result<Option<Ask>> {
    loop {
        if let Some(ToKeeper { ask }) = frames.next()? {
            return Ok(ask);
        }
        if !frames.read(stream)? {
            return Ok(None);
        }
    }
}

/// Waits a while for an agent.
fn accept(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    let second = Timespec { tv_sec: TICK.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&second)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        // No descriptors left, for one: it may get better.
        Err(error) => {
            tracing::error!("cannot take a connection: {error}");
            std::thread::sleep(TICK);
            Ok(None)
        }
    }
}

/// Closes a connection for both sides.
pub(super) fn hang_up(stream: &UnixStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Place where an agent lets the keeper write what it has to say: appended to, and put aside when long.
pub(super) fn open_log(root: &Path) -> io::Result<File> {
    let path = log(root);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG) {
        fs::rename(&path, path.with_extension("old"))?;
    }
    File::options().create(true).append(true).open(path)
}
