//! The agent's side of a keeper: hands it attempts, tells its events, and replaces it if it dies.

use super::connect::Wish;
use super::host::hang_up;
use super::out::Out;
use super::proto::{
    self, Ask, Forget, Frames, Say, SignalMsg, StartMsg, StopMsg, ToAgent, ToKeeper,
};
use super::{KeeperError, KeeperLaunch, folder, outcomes};
use crate::exec::{self, Signal, StopKind};
use crate::runner::events::{Event, Held, Start, Tell};
use outlast_core::AttemptId;
use outlast_model::TaskOutcome;
use outlast_wire::spec::Rerun;
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A keeper that is told to shut down has at least this long, and so much longer than the longest
/// kill grace of what it was given. One that takes longer is left to itself.
const SHUTDOWN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(30));

/// A keeper, as its agent has it. Dropping this leaves the keeper and its tasks running.
pub struct Keeper {
    client: Arc<Client>,
}

pub(super) struct Client {
    pub(super) root: PathBuf,
    pub(super) launch: KeeperLaunch,
    pub(super) slots: u32,
    pub(super) env: Vec<(String, String)>,
    pub(super) out: Arc<Out>,
    state: Mutex<State>,
    over: Condvar,
    tell: OnceLock<Tell>,
    /// This agent wants no keeper any more.
    pub(super) leaving: AtomicBool,
}

pub(super) struct State {
    pub(super) ours: HashMap<AttemptId, Ours>,
    /// Attempts that the keeper was given.
    given: u64,
    /// The number of the connection.
    pub(super) connection: u64,
    pub(super) instance: u64,
    pub(super) pid: u32,
    pub(super) stream: Option<Arc<UnixStream>>,
    /// The longest kill grace of what was given.
    grace: Duration,
    /// Incoming frames, until events are listened to.
    frames: Option<Frames>,
    pub(super) child: Option<Child>,
    /// The keeper was told to shut down.
    pub(super) shut_down: bool,
    /// True once the keeper has reported everything.
    pub(super) goodbye: bool,
    /// True once no thread reads from the keeper any more.
    over: bool,
}

/// State of an attempt that was passed to the keeper.
pub(super) enum Ours {
    /// Passed over this connection; with the start time, if it was reported, and the place in the
    /// keeper's line, if known.
    Given { connection: u64, started_at_ms: i64, place: Option<Place> },
    /// The outcome was reported, and not yet forgotten.
    Told,
}

/// A place in the keeper's line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Position; smaller numbers come first.
    pub(super) number: u64,
    pub(super) slots: u64,
    /// True if the attempt must not run twice, so that its execution is never assumed.
    pub(super) once: bool,
}

impl Keeper {
    /// Takes the keeper of a root, or starts one. One that has nothing to do is replaced by a new
    /// one. Blocks until it answers.
    ///
    /// # Errors
    /// If there is no keeper then; see [`KeeperError`].
    pub fn connect(
        root: &Path,
        launch: KeeperLaunch,
        slots: u32,
        env: Vec<(String, String)>,
    ) -> Result<(Keeper, Held), KeeperError> {
        let failed = |e| KeeperError::Folder(folder(root), e);
        exec::make_root(root, launch.user.as_ref()).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let out = Out::start().map_err(failed)?;
        let wish = Wish { root: &root, launch: &launch, slots, env: &env, fresh: true };
        let taken = wish.take().inspect_err(|_| out.end())?;
        let running = taken.held.running.iter();
        let mut ours: HashMap<_, _> = running
            .map(|one| {
                let started_at_ms = one.started_at_ms.unwrap_or_default();
                (one.id.clone(), Ours::Given { connection: 1, started_at_ms, place: None })
            })
            .collect();
        ours.extend(taken.held.finished.iter().map(|ended| (id_of(ended), Ours::Told)));
        let stream = Arc::new(taken.stream);
        out.open(Arc::clone(&stream));
        let state = State {
            ours,
            given: 0,
            connection: 1,
            instance: taken.welcome.instance,
            pid: taken.welcome.pid,
            stream: Some(stream),
            grace: Duration::ZERO,
            frames: Some(taken.frames),
            child: taken.child,
            shut_down: false,
            goodbye: false,
            over: false,
        };
        let client = Client {
            root,
            launch,
            slots,
            env,
            out,
            state: Mutex::new(state),
            over: Condvar::new(),
            tell: OnceLock::new(),
            leaving: AtomicBool::new(false),
        };
        Ok((Keeper { client: Arc::new(client) }, taken.held))
    }

    /// Sets the callback for events, called on a thread of this keeper; once.
    pub fn listen(&self, tell: Tell) {
        if self.client.tell.set(tell).is_err() {
            return;
        }
        let client = Arc::clone(&self.client);
        let thread = std::thread::Builder::new().name("outlast-keeper".into());
        if let Err(error) = thread.spawn(move || client.read()) {
            tracing::error!("nothing is heard of the keeper: no thread: {error}");
        }
    }

    /// The executor's folder.
    pub fn root(&self) -> &Path {
        &self.client.root
    }

    /// The keeper's process id.
    pub fn pid(&self) -> u32 {
        self.client.lock().pid
    }

    /// See [`crate::runner::Runner::start`].
    pub fn start(&self, starts: Vec<Start>) {
        let client = &self.client;
        // Encoded before the lock is taken.
        let mut bytes = Vec::new();
        for start in &starts {
            let message = StartMsg {
                id: (&start.id).into(),
                spec: start.spec.to_json(),
                worker: start.worker.to_string(),
                env: proto::variables(&start.env),
            };
            proto::frame(&ToKeeper::from(Ask::Start(message)), &mut bytes);
        }
        let mut state = client.lock();
        let connection = state.connection;
        for start in starts {
            let grace = Duration::try_from_secs_f64(start.spec.kill_grace).unwrap_or_default();
            state.grace = state.grace.max(grace);
            state.given += 1;
            let place = Some(Place {
                number: state.given,
                slots: u64::from(start.spec.slots),
                once: start.spec.rerun == Rerun::Never,
            });
            state.ours.insert(start.id, Ours::Given { connection, started_at_ms: 0, place });
        }
        // Under the lock, so that it goes over the connection that was noted.
        client.out.put(true, |buffer| buffer.append(&mut bytes));
    }

    /// See [`crate::runner::Runner::stop`].
    pub fn stop(&self, id: &AttemptId, kind: StopKind) {
        let interrupt = kind == StopKind::Interrupt;
        self.ask(Ask::Stop(StopMsg { id: id.into(), interrupt }));
    }

    /// See [`crate::runner::Runner::recall`].
    pub fn recall(&self, id: &AttemptId) {
        self.ask(Ask::Recall(id.into()));
    }

    /// See [`crate::runner::Runner::pause`].
    pub fn pause(&self, id: &AttemptId) {
        self.ask(Ask::Pause(id.into()));
    }

    /// See [`crate::runner::Runner::resume`].
    pub fn resume(&self, id: &AttemptId) {
        self.ask(Ask::Resume(id.into()));
    }

    /// See [`crate::runner::Runner::signal`].
    pub fn signal(&self, id: &AttemptId, signal: Signal) {
        let name = signal.name().to_owned();
        self.ask(Ask::Signal(SignalMsg { id: id.into(), name }));
    }

    /// See [`crate::runner::Runner::forget`].
    pub fn forget(&self, ids: &[AttemptId]) {
        if ids.is_empty() {
            return;
        }
        let mut state = self.client.lock();
        for id in ids {
            // One that was started again meanwhile is not over.
            if matches!(state.ours.get(id), Some(Ours::Told)) {
                state.ours.remove(id);
            }
        }
        drop(state);
        self.ask(Ask::Forget(Forget { ids: ids.iter().map(Into::into).collect() }));
    }

    /// See [`crate::runner::Runner::shutdown`]. Outcomes that are not forgotten by the time that
    /// it returns stay on disk.
    pub fn shutdown(&self, kind: StopKind) {
        let client = &self.client;
        client.lock().shut_down = true;
        client.leaving.store(true, Ordering::Relaxed);
        let interrupt = kind == StopKind::Interrupt;
        self.ask(Ask::Shutdown(proto::Shutdown { interrupt }));
        let limit = client.lock().grace.max(SHUTDOWN.0) + SHUTDOWN.1;
        let deadline = Instant::now() + limit;
        let mut state = client.wait(deadline, |state| state.goodbye);
        if let Some(stream) = &state.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
        drop(state);
        state = client.wait(deadline, |_| false);
        if state.over
            && let Some(mut child) = state.child.take()
        {
            drop(state);
            let _ = child.wait();
        }
    }

    fn ask(&self, ask: Ask) {
        self.client.out.push(&ToKeeper::from(ask), true);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.client.leaving.store(true, Ordering::Relaxed);
        let mut state = self.client.lock();
        if let Some(stream) = state.stream.take() {
            // What was asked for last gets there still.
            self.client.out.drain(Duration::from_secs(1));
            hang_up(&stream);
        }
        self.client.out.end();
    }
}

impl Client {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads from the keeper any more, or for something else.
    fn wait(&self, deadline: Instant, enough: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        // Before anybody listens nobody would notice.
        while !state.over && !enough(&state) && self.tell.get().is_some() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            let woken = self.over.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    pub(super) fn tell(&self, events: Vec<Event>) {
        if let Some(tell) = self.tell.get()
            && !events.is_empty()
        {
            tell(events);
        }
    }

    /// Reads until this agent leaves the keeper.
    fn read(&self) {
        let mut frames = self.lock().frames.take().unwrap_or_else(Frames::new);
        loop {
            let stream = self.lock().stream.clone();
            let Some(stream) = stream else { break };
            let error = self.read_one(&mut frames, &stream);
            hang_up(&stream);
            if self.leaving.load(Ordering::Relaxed) {
                self.tell_lost();
                break;
            }
            match self.replace(error) {
                Some(next) => frames = next,
                None => break,
            }
        }
        self.lock().over = true;
        self.over.notify_all();
    }

    /// Reports the events of one connection, until it ends.
    fn read_one(&self, frames: &mut Frames, stream: &UnixStream) -> io::Error {
        loop {
            let mut events = Vec::new();
            loop {
                match frames.next::<ToAgent>() {
                    Ok(Some(ToAgent { say: Some(say) })) => events.extend(self.understand(say)),
                    Ok(Some(ToAgent { say: None })) => {}
                    Ok(None) => break,
                    Err(error) => {
                        self.tell(events);
                        return error;
                    }
                }
            }
            self.tell(events);
            match frames.read(&mut &*stream) {
                Ok(true) => {}
                Ok(false) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
        }
    }

    fn understand(&self, say: Say) -> Option<Event> {
        match say {
            Say::Finished(one) => {
                let outcome = outcomes::outcome(one);
                let before = self.lock().ours.insert(id_of(&outcome), Ours::Told);
                matches!(before, Some(Ours::Given { .. })).then_some(Event::Finished(outcome))
            }
            Say::Started(one) => {
                let (id, at_ms) = (AttemptId::from(&one.id), one.started_at_ms);
                match self.lock().ours.get_mut(&id) {
                    Some(Ours::Given { started_at_ms, .. }) => *started_at_ms = at_ms,
                    _ => return None,
                }
                Some(Event::Started { id, at_ms })
            }
            Say::Paused(id) => Some(Event::Paused((&id).into())),
            Say::Resumed(id) => Some(Event::Resumed((&id).into())),
            Say::Unfit(unfit) => Some(Event::Unfit(unfit.reason)),
            Say::Goodbye(_) => {
                self.lock().goodbye = true;
                self.over.notify_all();
                None
            }
            Say::Welcome(_) | Say::Held(_) | Say::Ready(_) => None,
        }
    }
}

pub(super) fn id_of(outcome: &TaskOutcome) -> AttemptId {
    AttemptId { task: outcome.task.clone(), epoch: outcome.epoch }
}
