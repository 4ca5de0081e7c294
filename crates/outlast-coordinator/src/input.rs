//! Inputs of the core's thread: events of links, requests of people, and queries; and the handle by which
//! the rest of the coordinator sends them.

use crate::outbound::LinkTx;
use crate::share::Held;
use outlast_core::TaskId;
use outlast_core::coord::{ConnId, Coordinator, Principal, Request, Response};
use outlast_model::LinkCause;
use outlast_model::message::ToCoordinator;
use outlast_wire::Bytes;
use outlast_wire::v1::FromWorker;
use outlast_wire::v2::LogRequest;
use tokio::sync::{mpsc, oneshot};

/// Inputs that may wait; then links are read no further.
const INPUTS: usize = 16_384;

/// One event, request or query for the core's thread.
pub(crate) enum Input {
    /// A link opened, with the principal of its key.
    Open(ConnId, LinkTx, Principal),
    /// A message, with its part of the link's share of memory.
    Message(ConnId, ToCoordinator, Held),
    /// A message that cannot be decoded, with the error.
    Malformed(ConnId, String),
    /// A link of the v1 dialect, with its worker's id; empty if its address does not have it.
    OpenV1(ConnId, LinkTx, String, Principal),
    /// A message of the v1 dialect, with the blob of a checkpoint's data and its part of the share.
    V1(ConnId, Box<FromWorker>, Option<Bytes>, Held),
    /// The worker's id, said on a link whose address does not have it.
    NameV1(ConnId, String),
    /// A message that cannot be decoded, with the task whose checkpoint it was to be.
    MalformedV1(ConnId, String, Option<TaskId>),
    /// A message that is too long to be read: the link ends.
    OversizedV1(ConnId, String),
    /// The answer to a ping of this number.
    Pong(ConnId, u64),
    /// A sign of life: part of a message arrived.
    Heard(ConnId),
    /// The link ended.
    Close(ConnId, LinkCause, String),
    /// A request, and where its answer goes.
    Request(Request, oneshot::Sender<Response>),
    /// A request for a part of a log, which the core need not know of.
    Log(ConnId, LogRequest),
    /// A query of the core's memory.
    Query(Box<dyn FnOnce(&Coordinator) + Send>),
}

/// A report of another thread; it never waits behind inputs.
pub(crate) enum Report {
    /// The batch of this number, and all before it, are durable.
    Persisted(u64),
    /// The coordinator ends.
    Stop,
}

/// The handle of the core's thread.
#[derive(Clone)]
pub(crate) struct Driver {
    inputs: mpsc::Sender<Input>,
}

/// The error after the core's thread has ended: the coordinator shuts down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended;

impl Driver {
    /// Returns the handle and the queue that the core's thread reads.
    pub fn channel() -> (Driver, mpsc::Receiver<Input>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        (Driver { inputs }, queue)
    }

    /// Sends an input, once there is room for it.
    pub async fn put(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }

    /// Sends an input without waiting; it is dropped where too many wait.
    pub fn put_now(&self, input: Input) {
        let _ = self.inputs.try_send(input);
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&self, request: Request) -> Result<Response, Ended> {
        let (tx, rx) = oneshot::channel();
        self.put(Input::Request(request, tx)).await?;
        rx.await.map_err(|_| Ended)
    }

    /// Reads the core's memory.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (tx, rx) = oneshot::channel();
        let query = move |core: &Coordinator| {
            // Nobody may be waiting any more.
            let _ = tx.send(query(core));
        };
        self.put(Input::Query(Box::new(query))).await?;
        rx.await.map_err(|_| Ended)
    }
}
