//! The thread that owns the core: takes inputs in bunches, carries out what the core decides.
//! Never waits for the disk or for a link.

use crate::blobs::BlobShelf;
use crate::clock;
use crate::link::{LinkTx, ToLink};
use crate::look::Look;
use crate::quality::Quality;
use crate::share::Held;
use crate::writer::{self, Health};
use outlast_core::TaskId;
use outlast_core::coord::{
    ConnId, Coordinator, Output, Principal, RecoveryRequest, Request, RequestId, Response,
    Submission,
};
use outlast_core::records::CoordRecord;
use outlast_store::group::Decided;
use outlast_store::{CoordReader, StoreError};
use outlast_wire::v1::{Action, FromWorker};
use outlast_wire::v2::LinkCause;
use outlast_wire::v2::body::Kind;
use outlast_wire::{Bytes, TaskSpec};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs that may wait; then links are read no further.
const INPUTS: usize = 16_384;
/// Inputs taken before what they led to is carried out.
const BUNCH: usize = 1024;

/// What happens to the core.
pub(crate) enum Input {
    /// With whose link it is.
    Open(ConnId, LinkTx, Principal),
    /// With its part of the link's share.
    Message(ConnId, Kind, Held),
    Malformed(ConnId, String),
    /// A link of the v1 dialect, with its worker's id; empty if its address does not have it.
    OpenV1(ConnId, LinkTx, String, Principal),
    /// With the blob of a checkpoint's data, and its part of the link's share.
    V1(ConnId, Box<FromWorker>, Option<Bytes>, Held),
    /// The worker said its id, on a link whose address does not have it.
    NameV1(ConnId, String),
    /// With the task whose checkpoint it was to be.
    MalformedV1(ConnId, String, Option<TaskId>),
    /// Too long to be read: the link ends.
    OversizedV1(ConnId, String),
    Pong(ConnId, u64),
    /// Part of a message arrived.
    Heard(ConnId),
    Close(ConnId, LinkCause, String),
    Ask(Ask, oneshot::Sender<Answer>),
    /// Sends something that the core need not know of.
    ToLink(ConnId, Kind),
    /// Looks at the core.
    Look(Box<dyn FnOnce(&Coordinator) + Send>),
}

/// What people ask for.
pub(crate) enum Ask {
    /// With whether the id was chosen by the client, so that it may be known; and whose they are.
    Submit(Vec<(TaskId, Arc<TaskSpec>, bool)>, Owner),
    Cancel(TaskId),
    Retry(TaskId),
    /// Pause it, or let it go on.
    Pause(TaskId, bool),
    Checkpoint(TaskId),
    /// To this worker, or away from where it is.
    Move(TaskId, Option<String>),
    /// Give it no new work, or new work again.
    Drain(String, bool),
    /// These tasks, if they are over; and outcomes of unknown ones heard before this.
    Remove(Vec<TaskId>, i64),
    /// Overrule what recovery decided.
    Recovery(RecoveryRequest),
    /// Something of its link or memory.
    Act(String, Action),
    /// By (attempt, number).
    Prune(TaskId, Vec<(u64, u64)>),
    Forget(String),
    /// Bind a worker to no key any more.
    Unbind(String),
}

/// Who submits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    /// Name of the key.
    pub name: Option<Arc<str>>,
    /// Other owners' tasks are none of its business.
    pub private: bool,
}

/// The core's response, or why the store could not be asked.
pub(crate) type Answer = Result<Response, String>;

/// What other threads report; never waits behind inputs.
pub(crate) enum Report {
    Persisted(u64),
    Stop,
}

/// A way to reach the driver.
#[derive(Clone)]
pub(crate) struct Driver {
    inputs: mpsc::Sender<Input>,
}

/// The driver has ended: the coordinator shuts down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended;

impl Driver {
    pub async fn put(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }
    /// Without waiting: it is dropped where too much waits.
    pub fn put_now(&self, input: Input) {
        let _ = self.inputs.try_send(input);
    }
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Ended> {
        let (tx, rx) = oneshot::channel();
        self.put(Input::Ask(ask, tx)).await?;
        rx.await.map_err(|_| Ended)
    }
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (tx, rx) = oneshot::channel();
        let look = move |core: &Coordinator| {
            // Nobody may be waiting any more.
            let _ = tx.send(look(core));
        };
        self.put(Input::Look(Box::new(look))).await?;
        rx.await.map_err(|_| Ended)
    }
}

/// What the driver reads beside the core.
pub(crate) struct Sources {
    pub reader: CoordReader,
    pub blobs: BlobShelf,
    pub health: Arc<watch::Sender<Health>>,
    pub quality: Arc<Quality>,
}

/// Starts the thread. It ends on `Report::Stop`, after everything decided was handed to the
/// writer; and when the store cannot be read, before anything that rests on it is.
pub(crate) fn start(
    core: Coordinator,
    sources: Sources,
    batches: Decided<CoordRecord>,
    reports: mpsc::UnboundedReceiver<Report>,
) -> std::io::Result<(Driver, std::thread::JoinHandle<()>)> {
    let (inputs, rx) = mpsc::channel(INPUTS);
    let runtime = tokio::runtime::Handle::current();
    let (links, asked) = (HashMap::new(), HashMap::new());
    let Sources { reader, blobs, health, quality } = sources;
    let look = Look::new(reader, blobs);
    let (slow, resting) = (Vec::new(), VecDeque::new());
    let state =
        State { core, look, health, quality, batches, links, asked, last: 0, slow, resting };
    let thread = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || runtime.block_on(state.run(rx, reports)))?;
    Ok((Driver { inputs }, thread))
}

struct State {
    core: Coordinator,
    look: Look,
    health: Arc<watch::Sender<Health>>,
    quality: Arc<Quality>,
    batches: Decided<CoordRecord>,
    links: HashMap<ConnId, LinkTx>,
    asked: HashMap<RequestId, oneshot::Sender<Answer>>,
    last: RequestId,
    /// Links that do not read what they are sent.
    slow: Vec<ConnId>,
    /// Parts of links' shares, each with the batch that what it was taken for goes into.
    resting: VecDeque<(u64, Held)>,
}

impl State {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut reports: mpsc::UnboundedReceiver<Report>,
    ) {
        self.perform();
        loop {
            let wait = self.core.next_wake().saturating_sub(clock::now().mono).min(60_000);
            tokio::select! {
                biased;
                report = reports.recv() => match report {
                    Some(Report::Persisted(batch)) => self.persisted(batch),
                    Some(Report::Stop) | None => return,
                },
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
            }
            for _ in 0..BUNCH {
                match inputs.try_recv() {
                    Ok(input) => self.take(input),
                    Err(_) => break,
                }
            }
            while let Ok(report) = reports.try_recv() {
                match report {
                    Report::Persisted(batch) => self.persisted(batch),
                    Report::Stop => return,
                }
            }
            if let Some(why) = self.look.failed() {
                tracing::error!("the store cannot be read, stopping: {why}");
                self.health.send_replace(Health::Broken(why));
                return;
            }
            let now = clock::now();
            if self.core.next_wake() <= now.mono {
                self.core.on_tick(now);
            }
            self.perform();
        }
    }

    fn persisted(&mut self, batch: u64) {
        self.core.on_persisted(batch);
        while self.resting.front().is_some_and(|(rests_on, _)| *rests_on <= batch) {
            self.resting.pop_front();
        }
    }

    /// What a message brought stays in memory until its batch is durable.
    fn rest(&mut self, held: Held) {
        if let Some(batch) = self.core.open_batch() {
            self.resting.push_back((batch, held));
        }
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Open(conn, link, principal) => {
                self.links.insert(conn, link);
                self.core.on_open(now, conn);
                self.core.on_principal(conn, principal);
            }
            Input::Message(conn, kind, held) => {
                self.core.on_message(now, conn, kind, &self.look);
                self.rest(held);
            }
            Input::Malformed(conn, error) => self.core.on_malformed(now, conn, &error),
            Input::OpenV1(conn, link, name, principal) => {
                self.links.insert(conn, link);
                self.core.on_open_v1(now, conn, &name);
                self.core.on_principal(conn, principal);
            }
            Input::NameV1(conn, name) => self.core.on_name_v1(now, conn, &name),
            Input::V1(conn, message, blob, held) => {
                self.core.on_v1(now, conn, *message, blob, &self.look);
                self.rest(held);
            }
            Input::MalformedV1(conn, error, task) => {
                self.core.on_malformed_v1(now, conn, &error);
                if let Some(task) = task {
                    self.core.on_checkpoint_refused_v1(now, conn, &task);
                }
            }
            Input::OversizedV1(conn, error) => self.core.on_oversized_v1(now, conn, &error),
            Input::Heard(conn) => self.core.on_heard(now, conn),
            Input::Pong(conn, seq) => self.core.on_pong(now, conn, seq),
            Input::Close(conn, cause, reason) => {
                self.links.remove(&conn);
                self.core.on_close(now, conn, cause, &reason);
            }
            Input::ToLink(conn, kind) => self.send(conn, ToLink::Frame(Box::new(kind))),
            Input::Look(look) => look(&self.core),
            Input::Ask(ask, tx) => match self.request(ask) {
                Ok(request) => {
                    self.last += 1;
                    self.asked.insert(self.last, tx);
                    self.core.on_request(now, self.last, request);
                }
                Err(error) => {
                    let _ = tx.send(Err(error.to_string()));
                }
            },
        }
    }

    /// Adds what the store has. Read here, so that nothing can change before the core decides.
    fn request(&self, ask: Ask) -> Result<Request, StoreError> {
        Ok(match ask {
            Ask::Submit(tasks, owner) => {
                let find = |(id, spec, chosen): (TaskId, Arc<TaskSpec>, bool)| {
                    let known = if chosen { self.look.task_row(&id)? } else { None };
                    let former = match chosen && known.is_none() {
                        true => self.look.former(&id)?,
                        false => 0,
                    };
                    let taken = match owner.name.as_deref().filter(|_| owner.private) {
                        Some(owner) if known.is_some() => !self.look.is_owned(&id, owner)?,
                        _ => false,
                    };
                    Ok(Submission { id, spec, known, former, owner: owner.name.clone(), taken })
                };
                Request::Submit(tasks.into_iter().map(find).collect::<Result<_, StoreError>>()?)
            }
            Ask::Cancel(task) => Request::Cancel { known: self.look.task_row(&task)?, task },
            Ask::Retry(task) => Request::Retry { known: self.look.task_row(&task)?, task },
            Ask::Pause(task, on) => Request::Pause { known: self.look.task_row(&task)?, task, on },
            Ask::Checkpoint(task) => {
                Request::Checkpoint { known: self.look.task_row(&task)?, task }
            }
            Ask::Move(task, to) => Request::Move { known: self.look.task_row(&task)?, task, to },
            Ask::Remove(tasks, before) => {
                let known = tasks.iter().map(|id| self.look.task_row(id));
                let known = known.collect::<Result<Vec<_>, _>>()?;
                Request::Remove { known: known.into_iter().flatten().collect(), before }
            }
            Ask::Prune(task, which) => Request::Prune { task, which },
            Ask::Act(worker, action) => Request::Act { worker, action },
            Ask::Drain(worker, on) => Request::Drain { worker, on },
            Ask::Recovery(what) => Request::Recovery(what),
            Ask::Forget(name) => Request::Forget(name),
            Ask::Unbind(name) => Request::Unbind(name),
        })
    }

    fn perform(&mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                match output {
                    Output::Send(conn, kind) => self.send(conn, ToLink::Frame(Box::new(kind))),
                    Output::SendV1(conn, message) => {
                        self.send(conn, ToLink::V1(Box::new(message)));
                    }
                    Output::Ping(conn, seq) => self.send(conn, ToLink::Ping(seq)),
                    Output::Patience(conn, ms) => self.send(conn, ToLink::Patience(ms)),
                    Output::Close(conn, reason) => {
                        self.send(conn, ToLink::Close(reason));
                        self.links.remove(&conn);
                    }
                    // The writer outlives this thread.
                    Output::Persist(batch) => {
                        let pace = writer::pace(&batch, &self.core);
                        self.batches.push(batch, pace);
                    }
                    Output::Reply(request, response) => {
                        if let Some(tx) = self.asked.remove(&request) {
                            let _ = tx.send(Ok(response));
                        }
                    }
                    Output::News(news) => self.quality.on_news(news),
                    Output::Warn(what) => tracing::warn!("SECURITY {what}"),
                }
            }
            // What is answered once it is durable may rest on what was decided before.
            if !self.asked.is_empty() {
                self.batches.hurry(writer::ASKED);
            }
            let Some(conn) = self.slow.pop() else { return };
            let reason = "it does not read what it is sent";
            self.core.on_close(clock::now(), conn, LinkCause::LinkSlow, reason);
        }
    }

    fn send(&mut self, conn: ConnId, what: ToLink) {
        let Some(link) = self.links.get(&conn) else { return };
        if link.try_send(what).is_err() {
            // Dropping the sender ends the link.
            self.links.remove(&conn);
            self.slow.push(conn);
        }
    }
}
