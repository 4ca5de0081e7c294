//! The driver of the core: the lock under which its engine is fed, and the queues that its outputs go to. It
//! knows neither links nor tasks; those who carry outputs out are behind these queues, and behind [`Perform`].

use super::controls::Controls;
use super::outbound::ToLink;
use super::outlets::Outlets;
use super::room::Room;
use super::{now, pace};
use crate::local::HostError;
use outlast_core::records::{Batch, WorkerRecord};
use outlast_core::worker::{Answer, Output, Worker};
use outlast_driver::group::{Decided, Pace};
use outlast_driver::{Effects, Engine};
use outlast_model::TaskOutcome;
use outlast_net::pulse::PingConfig;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// The performer of what the core decides on attempts.
pub(super) trait Perform: Send + Sync {
    /// Starts and stops attempts. Returns the outcomes of those that ended at once.
    fn perform(&self, driver: &Arc<Driver>, todo: Vec<Output>) -> Vec<TaskOutcome>;
}

/// The core's engine, with the state that the agent's threads share.
pub(crate) struct Driver {
    engine: Mutex<Engine<Worker, Queues>>,
    /// The performer of starts and stops.
    performer: OnceLock<Arc<dyn Perform>>,
    pub(super) outlets: Arc<Outlets>,
    pub(super) name: String,
    /// The folder of the executor, where logs are.
    pub(super) tasks_root: PathBuf,
    pub(super) ping: PingConfig,
    pub(super) controls: Controls,
    pub(super) room: Room,
}

/// The settings that an agent's threads share.
pub(super) struct Settings {
    pub name: String,
    pub state_dir: PathBuf,
    pub tasks_root: PathBuf,
    pub ping: PingConfig,
}

/// Performer of the core's outputs: it fills queues while the core is locked.
struct Queues {
    outlets: Arc<Outlets>,
    /// Starts and stops to perform once the core is not locked.
    todo: Vec<Output>,
    /// A thread performs some.
    busy: bool,
}

impl Effects<Worker> for Queues {
    fn perform(&mut self, core: &Worker, output: Output) {
        self.todo.extend(self.outlets.queue(core, output));
    }

    fn pace(&self, core: &Worker, batch: &Batch<WorkerRecord>) -> Pace {
        pace::of(batch, core)
    }
}

/// The locked core, to be read.
pub(super) struct Core<'a>(MutexGuard<'a, Engine<Worker, Queues>>);

impl Deref for Core<'_> {
    type Target = Worker;
    fn deref(&self) -> &Worker {
        &self.0
    }
}

impl Driver {
    /// The state of an agent that has not begun.
    pub(super) fn new(
        core: Worker,
        decided: Decided<WorkerRecord>,
        link: mpsc::UnboundedSender<ToLink>,
        settings: Settings,
    ) -> Driver {
        let Settings { name, state_dir, tasks_root, ping } = settings;
        let outlets = Arc::new(Outlets::new(link, state_dir));
        let queues = Queues { outlets: outlets.clone(), todo: Vec::new(), busy: false };
        Driver {
            engine: Mutex::new(Engine::new(core, queues, decided)),
            performer: OnceLock::new(),
            outlets,
            name,
            tasks_root,
            ping,
            controls: Controls::default(),
            room: Room::default(),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine<Worker, Queues>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the core, to read it.
    pub(super) fn lock(&self) -> Core<'_> {
        Core(self.engine())
    }

    /// Feeds the core and carries out its outputs.
    pub(crate) fn feed(self: &Arc<Self>, input: impl FnOnce(&mut Worker)) {
        let mut engine = self.engine();
        engine.feed(|core, _| input(core));
        self.perform(engine);
    }

    /// Returns the time until the core is to be woken, at most `longest`.
    pub(super) fn sleep(&self, longest: Duration) -> Duration {
        self.engine().sleep(now(), longest)
    }

    /// Wakes the core if it is time.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut engine = self.engine();
        engine.wake(now());
        self.perform(engine);
    }

    /// Closes the queue of what is to be written.
    pub(super) fn close(&self) {
        self.engine().close();
    }

    /// Performs starts and stops in the order in which they were decided. While one thread does so, others
    /// leave theirs to it: else a stop could overtake its start.
    fn perform<'a>(self: &'a Arc<Self>, mut engine: MutexGuard<'a, Engine<Worker, Queues>>) {
        loop {
            let queues = engine.effects();
            if queues.busy || queues.todo.is_empty() {
                return;
            }
            queues.busy = true;
            let todo = std::mem::take(&mut queues.todo);
            drop(engine);
            let outcomes = self.performer.get().map(|p| p.perform(self, todo)).unwrap_or_default();
            engine = self.engine();
            // What ended at once (a call that was run right here) makes room for more.
            if !outcomes.is_empty() {
                let at = now();
                engine.feed(|core, _| outcomes.into_iter().for_each(|o| core.on_finished(at, o)));
            }
            engine.effects().busy = false;
        }
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
        let (number, answer) = self.outlets.questions.ask();
        self.feed(|core| ask(core, number));
        answer.await.map_err(|_| HostError::Unavailable("the worker ends".into()))
    }
}
