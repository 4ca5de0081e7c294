//! The driver of the core: the lock under which it is fed, and the queues that its outputs go to. It knows
//! neither links nor tasks; those who carry outputs out are behind these queues, and behind [`Perform`].

use super::controls::Controls;
use super::outbound::ToLink;
use super::questions::Questions;
use super::room::Room;
use super::status::{Ended, Status};
use super::{identity, now, pace};
use crate::local::HostError;
use bytes::Bytes;
use outlast_core::records::WorkerRecord;
use outlast_core::stats::ConnectionState;
use outlast_core::worker::{Answer, Output, Worker};
use outlast_model::TaskOutcome;
use outlast_net::pulse::PingConfig;
use outlast_store::group::Decided;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{mpsc, watch};

/// The performer of what the core decides on attempts.
pub(super) trait Perform: Send + Sync {
    /// Starts and stops attempts. Returns the outcomes of those that ended at once.
    fn perform(&self, driver: &Arc<Driver>, todo: Vec<Output>) -> Vec<TaskOutcome>;
}

/// The core, with the state of its driver.
pub(crate) struct Driver {
    pub(super) core: Mutex<Worker>,
    pub(super) writer: Decided<WorkerRecord>,
    pub(super) link: mpsc::UnboundedSender<ToLink>,
    /// The performer of starts and stops.
    performer: OnceLock<Arc<dyn Perform>>,
    pub(super) name: String,
    pub(super) state_dir: PathBuf,
    /// The folder of the executor, where logs are.
    pub(super) tasks_root: PathBuf,
    pub(super) ping: PingConfig,
    pub(super) controls: Controls,
    pub(super) questions: Questions,
    /// Starts and stops to perform; filled while the core is locked.
    todo: Mutex<Todo>,
    pub(super) room: Room,
    /// The blob that should be on its way to the coordinator.
    pub(super) uploads: watch::Sender<Option<Bytes>>,
    pub(super) status: watch::Sender<Status>,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

#[derive(Default)]
struct Todo {
    outputs: Vec<Output>,
    /// A thread performs them.
    busy: bool,
}

/// The settings that an agent's threads share.
pub(super) struct Settings {
    pub name: String,
    pub state_dir: PathBuf,
    pub tasks_root: PathBuf,
    pub ping: PingConfig,
}

impl Driver {
    /// The state of an agent that has not begun.
    pub(super) fn new(
        core: Worker,
        writer: Decided<WorkerRecord>,
        link: mpsc::UnboundedSender<ToLink>,
        settings: Settings,
    ) -> Driver {
        let Settings { name, state_dir, tasks_root, ping } = settings;
        Driver {
            core: Mutex::new(core),
            writer,
            link,
            performer: OnceLock::new(),
            name,
            state_dir,
            tasks_root,
            ping,
            controls: Controls::default(),
            questions: Questions::default(),
            todo: Mutex::default(),
            room: Room::default(),
            uploads: watch::Sender::new(None),
            status: watch::Sender::new((ConnectionState::Disconnected, String::new())),
            ended: watch::Sender::new(None),
        }
    }

    /// Locks the core.
    pub(super) fn lock(&self) -> MutexGuard<'_, Worker> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds the core and carries out its outputs.
    pub(crate) fn feed(self: &Arc<Self>, input: impl FnOnce(&mut Worker)) {
        let mut core = self.lock();
        input(&mut core);
        self.take(&mut core);
        drop(core);
        self.perform();
    }

    /// Performs starts and stops in the order in which they were decided. While one thread does so, others
    /// leave theirs to it: else a stop could overtake its start.
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
            let outcomes = self.performer.get().map(|p| p.perform(self, todo)).unwrap_or_default();
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

    /// Queues the outputs of the core, each where it goes, in order.
    fn take(&self, core: &mut Worker) {
        let mut todo = Vec::new();
        while let Some(output) = core.poll_output() {
            match output {
                // Both ends live as long as the agent does.
                Output::Persist(batch) => {
                    let pace = pace::of(&batch, core);
                    self.writer.push(batch, pace);
                }
                Output::Dial => drop(self.link.send(ToLink::Dial)),
                Output::Probe => drop(self.link.send(ToLink::Probe)),
                Output::Send(message) => drop(self.link.send(ToLink::Frame(message.into()))),
                Output::Close(reason) => {
                    tracing::debug!("closing the link: {reason}");
                    let _ = self.link.send(ToLink::Close);
                }
                Output::State(state, reason) => self.report_status(core, state, reason),
                Output::Upload(manifest) => drop(self.uploads.send_replace(manifest)),
                Output::Answer(question, answer) => self.questions.answer(question, answer),
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

    fn report_status(&self, core: &Worker, state: ConnectionState, reason: String) {
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

    /// Notes the end of the agent; the first one counts.
    pub(crate) fn end(&self, failed: bool, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(Ended { failed, reason: reason.into() });
            first
        });
    }

    /// Sets the performer of starts and stops, before the first input.
    pub(super) fn set_performer(&self, performer: Arc<dyn Perform>) {
        let _ = self.performer.set(performer);
    }

    /// Asks the core, and waits until its answer is durable.
    pub(super) async fn question(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut Worker, u64),
    ) -> Result<Answer, HostError> {
        let (number, answer) = self.questions.ask();
        self.feed(|core| ask(core, number));
        answer.await.map_err(|_| HostError::Unavailable("the worker ends".into()))
    }
}
