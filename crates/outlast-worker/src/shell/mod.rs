//! The agent: a worker that runs. Gives the sans-I/O core its clock, link, store and executor.
//!
//! **Threads.** Whoever has an input for the core (the link's task, the timer's, the writer's
//! thread, an executor's thread when a task ends) locks it, feeds it, and takes what it decided.
//! What goes to the writer or to the link is put into their queues under the same lock, so that
//! it keeps its order; both queues are bounded by the core's own limits (credit, slots and
//! prefetch). Tasks are started and stopped after the lock is released, by the thread that fed
//! the core: an executor's thread that ends a task starts the next one itself, without a hop.

mod blobs;
mod causes;
mod controls;
mod disk;
mod fetch;
mod functions;
mod host;
mod identity;
mod link;
mod logs;
mod room;
mod run_as;
mod runs;
mod writer;

pub use crate::clock::now;
pub use functions::{ANY, Checkpoint, FailedBy, Failure, Function, Functions, TaskContext};
pub use identity::Identity;

use crate::exec::{Config as ExecConfig, StopKind as ExecStop};
use crate::keeper::KeeperLaunch;
use crate::local::{self, LocalServer, Rights, RunAs, Tokens};
use crate::runner::{Event, Held, Runner, RunnerError};
use bytes::Bytes;
use controls::Controls;
use host::Questions;
use link::ToLink;
use outlast_blob::{BlobError, Blobs};
use outlast_core::records::WorkerRecord;
use outlast_core::stats::{ConnectionState, ConnectionStats};
use outlast_core::worker::{Alive, Output, Unfit, Worker, WorkerConfig};
use outlast_net::pulse::PingConfig;
use outlast_net::{DialError, Dialler};
use outlast_store::StoreError;
use outlast_store::group::{self, Decided};
use runs::Runs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The timer looks at least this often: what is due earlier than thought is not late by more.
const LOOK: Duration = Duration::from_millis(250);

/// The file that notes that the coordinator proved to know a key, in the state folder.
const PROVED: &str = "coordinator-proved";

/// Configuration of an agent.
#[derive(Clone)]
pub struct AgentConfig {
    /// The coordinator's address.
    pub coordinator: String,
    /// The folder of this worker's store, logs and working directories; made if absent.
    pub state_dir: PathBuf,
    /// API key of role worker.
    pub api_key: Option<String>,
    /// PEM file of authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Configuration of the core.
    pub core: WorkerConfig,
    /// Configuration of the executor; its root is `state_dir/tasks` by default.
    pub exec: Option<ExecConfig>,
    /// Command that starts a keeper, so that commands outlive this process; without it they end with it.
    pub keeper: Option<KeeperLaunch>,
    /// Functions that `call` tasks may name.
    pub functions: Functions,
    /// Bytes of disk that checkpoints may take here; none: as much as there is.
    pub blob_budget: Option<u64>,
    /// WebSocket pings on the link, beside heartbeats.
    pub ping: PingConfig,
    /// Identity with which it starts.
    pub identity: Identity,
    /// The user whom commands run as, if not this process's own. Needs root, and a keeper that runs
    /// tasks as that user, if there is one.
    pub run_as: Option<RunAs>,
}

/// Reason why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder cannot be used.
    #[error("state folder {0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// Another process uses a copy of the state folder.
    #[error("{0}: {1}")]
    Copied(PathBuf, String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nobody to run commands.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The coordinator's address or the TLS set-up cannot be used.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The folder of checkpoints cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The socket of the tasks' own interface cannot be used.
    #[error("the socket for tasks: {0}")]
    Local(std::io::Error),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Tasks cannot run as the user whom they should run as.
    #[error("tasks cannot run as user {0}: {1}")]
    RunAs(String, String),
}

/// End of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// True if it ended because of an error.
    pub failed: bool,
    /// Reason of the end.
    pub reason: String,
}

/// A link state and why.
pub type Status = (ConnectionState, String);

/// A worker that runs.
pub struct Agent {
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    local: Option<LocalServer>,
}

pub(crate) struct Shared {
    core: Mutex<Worker>,
    writer: Decided<WorkerRecord>,
    link: mpsc::UnboundedSender<ToLink>,
    runs: Runs,
    name: String,
    state_dir: PathBuf,
    ping: PingConfig,
    controls: Controls,
    questions: Mutex<Questions>,
    /// Pending starts and stops; filled while the core is locked.
    todo: Mutex<Todo>,
    room: room::Room,
    /// For functions of this process.
    host: OnceLock<functions::Link>,
    /// The blob that should be on its way to the coordinator.
    uploads: watch::Sender<Option<Bytes>>,
    status: watch::Sender<Status>,
    ended: watch::Sender<Option<Ended>>,
}

#[derive(Default)]
struct Todo {
    outputs: Vec<Output>,
    /// True while a thread carries them out.
    busy: bool,
}

impl Agent {
    /// Opens the state folder, goes on from what it holds, and dials. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] says what to mend.
    pub fn start(config: AgentConfig) -> Result<Agent, StartError> {
        let folder = |e| StartError::Folder(config.state_dir.clone(), e);
        let name = &config.core.name;
        let (key, ca) = (config.api_key.as_deref(), config.ca_file.as_deref());
        let dialler = Dialler::new(&config.coordinator, name, key, ca)?;
        let dialler = dialler.noting(config.state_dir.join(PROVED));
        if dialler.is_exposed() {
            tracing::warn!(
                "the API key goes to {} unencrypted, and whoever is on the way can read it: give \
                 the coordinator a certificate, and use https://",
                config.coordinator
            );
        }
        let rights = config.run_as.clone().map(|run_as| Arc::new(Rights::new(run_as)));
        run_as::open_folder(&config)?;
        identity::settle(&config.state_dir, config.identity)?;
        // The store first: it says clearly when another process has the folder.
        let (store, snapshot, short) = room::open_store(&config.state_dir)?;
        let exec = config.exec.clone();
        let mut exec = exec.unwrap_or_else(|| ExecConfig::new(config.state_dir.join("tasks")));
        let mut socket = local::Config::new(&config.state_dir);
        let place = std::path::absolute(&socket.socket).map_err(folder)?;
        exec.extra_env.push((local::SOCKET_VARIABLE.into(), place.display().to_string()));
        if let Some(rights) = &rights {
            exec.user = Some(rights.user().clone());
            run_as::check(rights, &exec.root, &place)?;
        }
        socket.rights = rights;
        let budget = outlast_blob::Config { budget: config.blob_budget, ..Default::default() };
        let blobs = Blobs::open(config.state_dir.join(room::BLOBS), budget)?;
        let (runner, held) = Runner::open(exec, config.core.slots, config.keeper.clone())?;
        if socket.rights.is_none() {
            run_as::close_folder_of(&config.state_dir)?;
        }
        if held.swept > 0 {
            tracing::warn!("ended {} processes of a former worker", held.swept);
        }
        let key = config.state_dir.join(local::KEY_FILE);
        let running = held
            .running
            .iter()
            .map(|one| local::Attempt { task: one.id.task.to_string(), epoch: one.id.epoch });
        let tokens = Arc::new(Tokens::open(&key, running).map_err(StartError::Local)?);
        socket.tokens = Some(tokens.clone());
        let seed = now().wall as u64 ^ u64::from(std::process::id()) << 32;
        let core = WorkerConfig { nonce: identity::nonce(), ..config.core.clone() };
        let core = Worker::new(core, snapshot, alive(&held), seed, now());
        let (writer, written) = group::group(writer::ALONE);
        let (link, linked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            writer,
            link,
            runs: Runs::new(runner, config.functions, name.clone(), tokens),
            name: name.clone(),
            state_dir: config.state_dir.clone(),
            ping: config.ping,
            controls: Controls::default(),
            questions: Mutex::default(),
            todo: Mutex::default(),
            room: room::Room::default(),
            host: OnceLock::new(),
            uploads: watch::Sender::new(None),
            status: watch::Sender::new((ConnectionState::Disconnected, String::new())),
            ended: watch::Sender::new(None),
        });
        let told = Arc::downgrade(&shared);
        shared.runs.runner().listen(Box::new(move |events| {
            let Some(shared) = told.upgrade() else { return };
            shared.on_events(events);
        }));
        let folder = config.state_dir.clone();
        let thread = writer::start(store, written, shared.clone(), folder);
        let thread = thread.map_err(StartError::Thread)?;
        let dialler = Arc::new(dialler);
        let wanted = shared.uploads.subscribe();
        let tasks = vec![
            tokio::spawn(link::run(dialler.clone(), linked, shared.clone())),
            tokio::spawn(timer(shared.clone())),
            tokio::spawn(blobs::upload(dialler.clone(), blobs.clone(), wanted, shared.clone())),
            tokio::spawn(room::keep(blobs.clone(), shared.clone())),
            tokio::spawn(disk::watch(config.state_dir.clone(), blobs.clone(), shared.clone())),
        ];
        let host = Arc::new(host::TaskHost::new(shared.clone(), blobs.clone(), dialler.clone()));
        let runtime = tokio::runtime::Handle::current();
        let _ = shared.host.set(functions::Link { host: Arc::downgrade(&host), runtime });
        let local = local::serve(socket, host).map_err(StartError::Local)?;
        shared.take_over(held);
        shared.feed(|_| ());
        if short {
            shared.room.is_short();
        }
        Ok(Agent { shared, writer: Some(thread), tasks, local: Some(local) })
    }

    /// Takes no new work, finishes and delivers what it has, ends.
    pub fn drain(&self) {
        self.shared.feed(|core| core.drain(now()));
    }
    /// Stops what runs, keeps every result on disk, ends. The next start delivers them.
    pub fn stop(&self) {
        self.shared.feed(|core| core.stop(now()));
    }
    /// Reconnects at once. An agent that had stopped reconnecting continues.
    pub fn force_reconnect(&self) {
        if self.status().borrow().0 == ConnectionState::Failed {
            self.shared.ended.send_replace(None);
        }
        self.shared.feed(|core| core.force_reconnect(now()));
    }
    /// Returns the state of the link with its reason; follows changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }
    /// Returns the end of the agent, once it has ended; follows changes.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.shared.ended.subscribe()
    }
    /// Statistics of the link.
    pub fn stats(&self) -> ConnectionStats {
        self.shared.lock().stats().clone()
    }
    /// Resets the statistics of the link.
    pub fn reset_stats(&self) {
        self.shared.lock().reset_stats(now());
    }
    /// (running, waiting, results not yet acknowledged)
    pub fn load(&self) -> (usize, usize, usize) {
        self.shared.lock().load()
    }

    /// Waits until it has ended, and gives back what it used.
    pub async fn wait(mut self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        let result = ended.wait_for(Option::is_some).await.map(|e| e.clone());
        let ended = result.ok().flatten();
        if let Some(local) = self.local.take() {
            local.shutdown().await;
        }
        // The link has a moment to say goodbye.
        let _ = self.shared.link.send(ToLink::End);
        let last = self.tasks.swap_remove(0);
        let _ = tokio::time::timeout(Duration::from_secs(2), last).await;
        for task in &self.tasks {
            task.abort();
        }
        self.shared.writer.close();
        let (shared, writer) = (self.shared.clone(), self.writer.take());
        let _ = tokio::task::spawn_blocking(move || {
            shared.runs.shutdown(ExecStop::Interrupt);
            writer.map(std::thread::JoinHandle::join)
        })
        .await;
        ended.unwrap_or(Ended { failed: true, reason: "the agent was dropped".into() })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runner tells what happened to attempts.
    fn on_events(self: &Arc<Self>, events: Vec<Event>) {
        self.feed(|core| {
            let at = now();
            for event in events {
                match event {
                    Event::Finished(ended) => core.on_finished(at, causes::outcome(ended)),
                    Event::Paused(id) => core.on_paused(at, &id.task, id.epoch, true),
                    Event::Resumed(id) => core.on_paused(at, &id.task, id.epoch, false),
                    Event::Started { .. } => {}
                    Event::Unfit(reason) => core.set_unfit(at, Unfit::Machine, reason),
                    Event::Died(reason) => {
                        tracing::error!("the keeper of the tasks died, and they with it: {reason}");
                    }
                }
            }
        });
    }

    /// Takes over attempts that a previous process left with its keeper: reports ended ones to the core,
    /// and stops those that the core does not hold.
    fn take_over(self: &Arc<Self>, held: Held) {
        let ours = |task: &str, epoch| self.lock().told(task, epoch).is_some();
        for one in &held.running {
            if !ours(&one.id.task, one.id.epoch) {
                self.runs.runner().stop(&one.id, ExecStop::Cancel);
            }
        }
        if held.unfit.is_some() {
            self.feed(|core| core.set_unfit(now(), Unfit::Machine, held.unfit));
        }
        if !held.running.is_empty() {
            tracing::info!("took over {} running tasks", held.running.len());
        }
        let finished: Vec<_> = held.finished.into_iter().map(Event::Finished).collect();
        if !finished.is_empty() {
            tracing::info!("{} tasks ended while this worker was away", finished.len());
            self.on_events(finished);
        }
    }

    /// Feeds the core and carries out what it decides.
    pub(crate) fn feed(self: &Arc<Self>, input: impl FnOnce(&mut Worker)) {
        let mut core = self.lock();
        input(&mut core);
        self.take(&mut core);
        drop(core);
        self.perform();
    }

    /// Starts and stops what was decided, in the order in which it was: whoever finds that
    /// somebody is at it leaves it to them. Else a stop could overtake its start.
    fn perform(self: &Arc<Self>) {
        loop {
            let todo = {
                let mut todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
                if todo.busy || todo.outputs.is_empty() {
                    return;
                }
                todo.busy = true;
                std::mem::take(&mut todo.outputs)
            };
            let outcomes = self.runs.perform(self, todo);
            // What ended at once (a call that was run right here) makes room for more.
            if !outcomes.is_empty() {
                let mut core = self.lock();
                let at = now();
                for outcome in outcomes {
                    core.on_finished(at, outcome);
                }
                self.take(&mut core);
            }
            self.todo.lock().unwrap_or_else(PoisonError::into_inner).busy = false;
        }
    }

    /// Queues what was decided, each where it goes, in order.
    fn take(&self, core: &mut Worker) {
        let mut todo = Vec::new();
        while let Some(output) = core.poll_output() {
            match output {
                // Both ends live as long as the agent does.
                Output::Persist(batch) => {
                    let pace = writer::pace(&batch, core);
                    self.writer.push(batch, pace);
                }
                Output::Dial => drop(self.link.send(ToLink::Dial)),
                Output::Probe => drop(self.link.send(ToLink::Probe)),
                Output::Send(kind) => drop(self.link.send(ToLink::Frame(kind))),
                Output::Close(reason) => {
                    tracing::debug!("closing the link: {reason}");
                    let _ = self.link.send(ToLink::Close);
                }
                Output::State(state, reason) => self.tell(core, state, reason),
                Output::Upload(manifest) => drop(self.uploads.send_replace(manifest)),
                Output::Answer(question, answer) => self.answer(question, answer),
                Output::Packing(packing) => drop(self.link.send(ToLink::Packing(packing))),
                Output::Adapted(c) if c.minor => {
                    tracing::debug!("ADAPT {}: {} → {}: {}", c.setting.word(), c.from, c.to, c.why);
                }
                Output::Adapted(c) => {
                    tracing::info!("ADAPT {}: {} → {}: {}", c.setting.word(), c.from, c.to, c.why);
                }
                Output::Exit => match core.copied() {
                    Some(why) => self.end(true, why),
                    None => self.end(false, "it was asked to end"),
                },
                run => todo.push(run),
            }
        }
        if !todo.is_empty() {
            let mut queue = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
            queue.outputs.extend(todo);
        }
    }

    fn tell(&self, core: &Worker, state: ConnectionState, reason: String) {
        match state {
            ConnectionState::Connecting => tracing::debug!("connecting"),
            ConnectionState::Connected => {
                let (stats, at) = (core.stats(), now());
                tracing::info!(
                    "connected: {} of {} dials succeeded, {:.0}% of the time up",
                    stats.successful_connections,
                    stats.connection_attempts,
                    stats.connection_stability(at) * 100.0
                );
            }
            ConnectionState::Disconnected => tracing::warn!("disconnected: {reason}"),
            ConnectionState::Failed => {
                tracing::error!("no link: {reason}");
                if let Some(why) = core.copied() {
                    identity::mark(&self.state_dir, why);
                }
            }
            ConnectionState::Shutdown => tracing::debug!("link closed for good"),
        }
        self.status.send_replace((state, reason));
    }

    pub(crate) fn end(&self, failed: bool, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(Ended { failed, reason: reason.into() });
            first
        });
    }

    /// Ends the agent if it has stopped reconnecting and has nothing left to finish.
    fn end_if_hopeless(&self) {
        let core = self.lock();
        let (running, waiting, unacked) = core.load();
        if core.connection_state() == ConnectionState::Failed && running + waiting == 0 {
            drop(core);
            let mut reason = self.status.borrow().1.clone();
            if unacked > 0 {
                reason += &format!("; {unacked} results are kept in the state folder");
            }
            self.end(true, &reason);
        }
    }
}

/// Returns attempts that continued to run while this worker's process was away.
fn alive(held: &Held) -> Vec<Alive> {
    let running = held.running.iter().map(|one| Alive {
        task: one.id.task.clone(),
        epoch: one.id.epoch,
        started_at: one.started_at_ms.unwrap_or_else(|| now().wall),
        paused: one.paused,
    });
    let finished = held.finished.iter().map(|(outcome, _)| Alive {
        task: outcome.task_id.as_str().into(),
        epoch: outcome.epoch,
        started_at: outcome.started_at_ms,
        paused: false,
    });
    running.chain(finished).collect()
}

async fn timer(shared: Arc<Shared>) {
    loop {
        let due = shared.lock().next_wake().saturating_sub(now().mono);
        tokio::time::sleep(Duration::from_millis(due.max(1)).min(LOOK)).await;
        if shared.lock().next_wake() <= now().mono {
            shared.feed(|core| core.on_tick(now()));
        }
        if shared.status.borrow().0 == ConnectionState::Failed {
            shared.end_if_hopeless();
        }
    }
}
