//! The thread that owns the core: takes inputs in batches and carries out what the core decides.
//! Never waits for the disk or for a link.

use crate::blobs::service::BlobService;
use crate::clock;
use crate::health::Health;
use crate::input::{Answer, ApiRequest, Driver, Input, Report};
use crate::look::Look;
use crate::outbound::{LinkTx, ToLink};
use crate::quality::meters::Quality;
use crate::share::Held;
use crate::writer;
use outlast_core::TaskId;
use outlast_core::coord::{ConnId, Coordinator, Output, Request, RequestId, Submission};
use outlast_core::records::CoordRecord;
use outlast_model::LinkCause;
use outlast_store::group::Decided;
use outlast_store::{CoordReader, StoreError};
use outlast_wire::TaskSpec;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs taken before what they led to is carried out.
const BATCH: usize = 1024;

/// Parts that the core's thread uses beside the core.
pub(crate) struct Sources {
    pub reader: CoordReader,
    pub blobs: BlobService,
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
    let (driver, inputs) = Driver::channel();
    let runtime = tokio::runtime::Handle::current();
    let (links, asked) = (HashMap::new(), HashMap::new());
    let Sources { reader, blobs, health, quality } = sources;
    let look = Look::new(reader, blobs);
    let (slow, resting) = (Vec::new(), VecDeque::new());
    let state =
        State { core, look, health, quality, batches, links, asked, last: 0, slow, resting };
    let thread = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || runtime.block_on(state.run(inputs, reports)))?;
    Ok((driver, thread))
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
            for _ in 0..BATCH {
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

    /// Keeps a message's share of memory until its batch is durable.
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
            Input::Log(conn, request) => self.send(conn, ToLink::Log(Box::new(request))),
            Input::Query(query) => query(&self.core),
            Input::Request(request, tx) => match self.request(request) {
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
    fn request(&self, request: ApiRequest) -> Result<Request, StoreError> {
        Ok(match request {
            ApiRequest::Submit(tasks, owner) => {
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
            ApiRequest::Cancel(task) => Request::Cancel { known: self.look.task_row(&task)?, task },
            ApiRequest::Retry(task) => Request::Retry { known: self.look.task_row(&task)?, task },
            ApiRequest::Pause(task, on) => {
                Request::Pause { known: self.look.task_row(&task)?, task, on }
            }
            ApiRequest::Checkpoint(task) => {
                Request::Checkpoint { known: self.look.task_row(&task)?, task }
            }
            ApiRequest::Move(task, to) => {
                Request::Move { known: self.look.task_row(&task)?, task, to }
            }
            ApiRequest::Remove(tasks, before) => {
                let known = tasks.iter().map(|id| self.look.task_row(id));
                let known = known.collect::<Result<Vec<_>, _>>()?;
                Request::Remove { known: known.into_iter().flatten().collect(), before }
            }
            ApiRequest::Prune(task, which) => Request::Prune { task, which },
            ApiRequest::Act(worker, action) => Request::Act { worker, action },
            ApiRequest::Drain(worker, on) => Request::Drain { worker, on },
            ApiRequest::Recovery(what) => Request::Recovery(what),
            ApiRequest::Forget(name) => Request::Forget(name),
            ApiRequest::Unbind(name) => Request::Unbind(name),
        })
    }

    fn perform(&mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                match output {
                    Output::Send(conn, message) => {
                        self.send(conn, ToLink::Frame(Box::new(message)))
                    }
                    Output::SendV1(conn, message) => {
                        self.send(conn, ToLink::V1(Box::new(message)));
                    }
                    Output::Ping(conn, seq) => self.send(conn, ToLink::Ping(seq)),
                    Output::Patience(conn, ms) => self.send(conn, ToLink::Timeout(ms)),
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
            self.core.on_close(clock::now(), conn, LinkCause::Slow, reason);
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
