//! The thread that owns the core's engine: it takes inputs in batches, and carries out what the core
//! decides. Never waits for the disk or for a link.

use crate::blobs::service::BlobService;
use crate::clock;
use crate::health::Health;
use crate::input::{Driver, Input, Report};
use crate::loader::{Loaded, Loader};
use crate::outbound::{LinkTx, ToLink};
use crate::quality::meters::Quality;
use crate::share::Held;
use crate::writer;
use outlast_core::coord::{ConnId, Coordinator, LoadId, Output, Query, RequestId, Response};
use outlast_core::records::{Batch, CoordRecord};
use outlast_driver::group::{Decided, Pace};
use outlast_driver::{Effects, Engine};
use outlast_model::LinkCause;
use outlast_store::CoordReader;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs taken before what they led to is carried out.
const BATCH: usize = 1024;
/// Longest sleep of the thread.
const LONGEST: Duration = Duration::from_secs(60);

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
    let Sources { reader, blobs, health, quality } = sources;
    let (loader, loaded) = Loader::start(reader, blobs)?;
    let performer = Performer {
        loader,
        health,
        quality,
        links: HashMap::new(),
        asked: HashMap::new(),
        last: 0,
        slow: Vec::new(),
        loads: Vec::new(),
        waiting: HashMap::new(),
        resting: VecDeque::new(),
    };
    let engine = Engine::new(core, performer, batches);
    let queues = Queues { inputs, reports, loaded };
    let thread = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || runtime.block_on(run(engine, queues)))?;
    Ok((driver, thread))
}

/// Queues that the thread reads.
struct Queues {
    inputs: mpsc::Receiver<Input>,
    reports: mpsc::UnboundedReceiver<Report>,
    loaded: mpsc::UnboundedReceiver<Loaded>,
}

/// The first of what came while the thread slept.
enum First {
    Report(Report),
    Loaded(Loaded),
    Input(Box<Input>),
    Nothing,
}

async fn run(mut engine: Engine<Coordinator, Performer>, mut queues: Queues) {
    engine.feed(|_, _| ());
    loop {
        let wait = engine.sleep(clock::now(), LONGEST);
        let Some(first) = queues.next(wait).await else { return };
        if !engine.feed(|core, performer| queues.take(core, performer, first)) {
            return;
        }
        engine.wake(clock::now());
    }
}

impl Queues {
    /// Waits for the first that comes, reports before the rest. None: the coordinator ends.
    async fn next(&mut self, wait: Duration) -> Option<First> {
        tokio::select! {
            biased;
            report = self.reports.recv() => report.map(First::Report),
            answer = self.loaded.recv() => answer.map(First::Loaded),
            () = tokio::time::sleep(wait) => Some(First::Nothing),
            input = self.inputs.recv() => input.map(|input| First::Input(Box::new(input))),
        }
    }

    /// Gives the core what has come. Returns false if the thread ends.
    fn take(&mut self, core: &mut Coordinator, performer: &mut Performer, first: First) -> bool {
        let (mut report, mut answer) = (None, None);
        match first {
            First::Report(first) => report = Some(first),
            First::Loaded(first) => answer = Some(first),
            First::Input(first) => performer.take(core, *first),
            First::Nothing => {}
        }
        for _ in 0..BATCH {
            match self.inputs.try_recv() {
                Ok(input) => performer.take(core, input),
                Err(_) => break,
            }
        }
        while let Some(next) = report.take().or_else(|| self.reports.try_recv().ok()) {
            match next {
                Report::Persisted(batch) => performer.persisted(core, batch),
                Report::Stop => return false,
            }
        }
        while let Some(next) = answer.take().or_else(|| self.loaded.try_recv().ok()) {
            if !performer.loaded(core, next) {
                return false;
            }
        }
        true
    }
}

/// Performer of what the core decides, with what it keeps for that.
struct Performer {
    loader: Loader,
    health: Arc<watch::Sender<Health>>,
    quality: Arc<Quality>,
    links: HashMap<ConnId, LinkTx>,
    asked: HashMap<RequestId, oneshot::Sender<Response>>,
    last: RequestId,
    /// Links that do not read what they are sent.
    slow: Vec<ConnId>,
    /// Loads that go to the loader together.
    loads: Vec<(LoadId, Vec<Query>)>,
    /// By link, the shares of the messages that wait in the core for facts, in order.
    waiting: HashMap<ConnId, VecDeque<Held>>,
    /// Parts of links' shares, each with the batch that what it was taken for goes into.
    resting: VecDeque<(u64, Held)>,
}

impl Performer {
    fn persisted(&mut self, core: &mut Coordinator, batch: u64) {
        core.on_persisted(batch);
        while self.resting.front().is_some_and(|(rests_on, _)| *rests_on <= batch) {
            self.resting.pop_front();
        }
    }

    /// Gives the core the facts of loads; returns false if the store cannot be read.
    fn loaded(&mut self, core: &mut Coordinator, answer: Loaded) -> bool {
        match answer {
            Ok(all) => {
                let now = clock::now();
                all.into_iter().for_each(|(load, facts)| core.on_loaded(now, load, facts));
                let links: Vec<ConnId> = self.waiting.keys().copied().collect();
                links.into_iter().for_each(|conn| self.rest(core, conn));
                true
            }
            Err(why) => {
                tracing::error!("the store cannot be read, stopping: {why}");
                self.health.send_replace(Health::Broken(why));
                false
            }
        }
    }

    /// Keeps a message's share of memory until the core has handled it and its batch is durable.
    fn hold(&mut self, core: &Coordinator, conn: ConnId, held: Held) {
        match core.waiting(conn) {
            // Without an open batch nothing was decided, and the share is free.
            0 => self.resting.extend(core.open_batch().zip(Some(held))),
            _ => self.waiting.entry(conn).or_default().push_back(held),
        }
    }

    /// Moves on the shares of the messages of a link that the core has handled.
    fn rest(&mut self, core: &Coordinator, conn: ConnId) {
        let batch = core.open_batch();
        let Some(waiting) = self.waiting.get_mut(&conn) else { return };
        while waiting.len() > core.waiting(conn) {
            self.resting.extend(batch.zip(waiting.pop_front()));
        }
        if waiting.is_empty() {
            self.waiting.remove(&conn);
        }
    }

    fn take(&mut self, core: &mut Coordinator, input: Input) {
        let now = clock::now();
        match input {
            Input::Open(conn, link, principal) => {
                self.links.insert(conn, link);
                core.on_open(now, conn);
                core.on_principal(conn, principal);
            }
            Input::Message(conn, kind, held) => {
                core.on_message(now, conn, kind);
                self.hold(core, conn, held);
            }
            Input::Malformed(conn, error) => core.on_malformed(now, conn, &error),
            Input::OpenV1(conn, link, name, principal) => {
                self.links.insert(conn, link);
                core.on_open_v1(now, conn, &name);
                core.on_principal(conn, principal);
            }
            Input::NameV1(conn, name) => core.on_name_v1(now, conn, &name),
            Input::V1(conn, message, blob, held) => {
                core.on_v1(now, conn, *message, blob);
                self.hold(core, conn, held);
            }
            Input::MalformedV1(conn, error, task) => {
                core.on_malformed_v1(now, conn, &error);
                if let Some(task) = task {
                    core.on_checkpoint_refused_v1(now, conn, &task);
                }
            }
            Input::OversizedV1(conn, error) => core.on_oversized_v1(now, conn, &error),
            Input::Heard(conn) => core.on_heard(now, conn),
            Input::Pong(conn, seq) => core.on_pong(now, conn, seq),
            Input::Close(conn, cause, reason) => {
                self.links.remove(&conn);
                core.on_close(now, conn, cause, &reason);
                self.rest(core, conn);
            }
            Input::Log(conn, request) => self.send(conn, ToLink::Log(Box::new(request))),
            Input::Query(query) => query(core),
            Input::Request(request, tx) => {
                self.last += 1;
                self.asked.insert(self.last, tx);
                core.on_request(now, self.last, request);
            }
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

impl Effects<Coordinator> for Performer {
    fn perform(&mut self, _: &Coordinator, output: Output) {
        match output {
            Output::Send(conn, message) => self.send(conn, ToLink::Frame(Box::new(message))),
            Output::SendV1(conn, message) => self.send(conn, ToLink::V1(Box::new(message))),
            Output::Ping(conn, seq) => self.send(conn, ToLink::Ping(seq)),
            Output::Timeout(conn, ms) => self.send(conn, ToLink::Timeout(ms)),
            Output::Close(conn, reason) => {
                self.send(conn, ToLink::Close(reason));
                self.links.remove(&conn);
            }
            Output::Load(load, queries) => self.loads.push((load, queries)),
            Output::Reply(request, response) => {
                if let Some(tx) = self.asked.remove(&request) {
                    let _ = tx.send(response);
                }
            }
            Output::News(news) => self.quality.on_news(news),
            Output::Warn(what) => tracing::warn!("SECURITY {what}"),
        }
    }

    fn pace(&self, core: &Coordinator, batch: &Batch<CoordRecord>) -> Pace {
        writer::pace(batch, core)
    }

    fn settled(&mut self, core: &mut Coordinator, decided: &Decided<CoordRecord>) -> bool {
        // An answer that waits for its records may rest on records that were decided before.
        if self.asked.len() > core.waiting_requests() {
            decided.hurry(writer::ASKED);
        }
        if let Some(conn) = self.slow.pop() {
            let reason = "it does not read what it is sent";
            core.on_close(clock::now(), conn, LinkCause::Slow, reason);
            return true;
        }
        if !self.loads.is_empty() {
            self.loader.load(std::mem::take(&mut self.loads));
        }
        false
    }
}
