//! One worker's WebSocket: frames in and out, in one task. Knows nothing of what they mean,
//! except that log data goes to its reader.

use crate::auth::Who;
use crate::input::Input;
use crate::keepalive::Keepalive;
use crate::logs::Logs;
use crate::otel::ids::{self, Tracer};
use crate::outbound::{self, Dialect, LINGER, ToLink, Why, broke, closed, ending};
use crate::quality::tap::Tap;
use crate::sessions::WorkerSessions;
use crate::share::{Held, SHARE, Share};
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use futures_util::{StreamExt, stream::SplitStream};
use outlast_core::coord::ConnId;
use outlast_core::quality::Size;
use outlast_model::LinkCause;
use outlast_model::message::{Hello, ToCoordinator, ToWorker};
use outlast_wire::frame::{FrameError, Packing, encode_sized, open};
use outlast_wire::frames;
use outlast_wire::v2::body::Kind;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// One worker's link, before its WebSocket is open.
pub(crate) struct Link {
    /// The worker's name, by the address that it dialled.
    pub name: String,
    pub keepalive: Keepalive,
    pub logs: Arc<Logs>,
    pub tap: Tap,
    pub session: Session,
    /// The tracer; none while no traces are exported.
    pub tracer: Option<Arc<Tracer>>,
}

impl Link {
    /// Serves the link until it ends.
    pub async fn serve(self, socket: WebSocket) {
        let (conn, driver) = (self.keepalive.conn, &self.keepalive.driver);
        let (tx, queue) = outbound::queue();
        let principal = self.keepalive.who().principal();
        if driver.put(Input::Open(conn, tx, principal)).await.is_err() {
            return;
        }
        let (sink, stream) = socket.split();
        let (cause, reason) = tokio::select! {
            why = self.read(stream) => why,
            why = outbound::write(sink, queue, &self) => why,
            why = self.keepalive.dead() => why,
        };
        self.logs.link_ended(conn);
        let _ = driver.put(Input::Close(conn, cause, reason)).await;
    }

    async fn read(&self, mut stream: SplitStream<WebSocket>) -> Why {
        let (conn, share) = (self.keepalive.conn, Share::new(SHARE));
        loop {
            let input = match self.keepalive.next(&mut stream).await {
                Some(Ok(Message::Binary(data))) => {
                    match self.measured(data, &share).await {
                        Ok((Kind::LogData(data), _)) => {
                            self.logs.deliver(conn, data);
                            // A sign of life all the same.
                            Input::Heard(conn)
                        }
                        Ok((kind, held)) => self.message(kind, held),
                        Err(error) => Input::Malformed(conn, error.to_string()),
                    }
                }
                Some(Ok(Message::Text(_))) => {
                    Input::Malformed(conn, "a text message; this link carries binary ones".into())
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => return closed(frame),
                Some(Err(error)) => return broke(&error),
                None => return (LinkCause::Closed, "the link ended".into()),
            };
            let malformed = matches!(input, Input::Malformed(..));
            if malformed {
                self.tap.malformed();
            }
            if self.keepalive.driver.put(input).await.is_err() {
                return ending();
            }
            if malformed {
                // The writer sends why, and ends the link.
                tokio::time::sleep(LINGER).await;
                return (LinkCause::Refused, "a message could not be understood".into());
            }
        }
    }

    /// The input for a message that is not of a log.
    fn message(&self, kind: Kind, held: Held) -> Input {
        let conn = self.keepalive.conn;
        match ToCoordinator::try_from(kind) {
            Ok(ToCoordinator::Hello(hello)) if hello.worker_id != self.name => {
                let (said, name) = (hello.worker_id, &self.name);
                Input::Malformed(conn, format!("hello of {said:?} at the address of {name:?}"))
            }
            Ok(message) => {
                if let ToCoordinator::Hello(hello) = &message {
                    self.session.said(hello);
                }
                Input::Message(conn, message, held)
            }
            Err(error) => Input::Malformed(conn, error.to_string()),
        }
    }

    /// Decodes a message, once there is room for it.
    async fn measured(&self, data: Bytes, share: &Share) -> Result<(Kind, Held), FrameError> {
        let (bytes, began) = (data.len(), Instant::now());
        let opened = open(data)?;
        let unpacked = began.elapsed();
        let held = self.keepalive.room(share, opened.weight()).await;
        let (raw, began) = (opened.raw, Instant::now());
        let kind = opened.decode()?;
        // What came as it is was not decompressed, though it counts for the ratio.
        let packed = raw.is_some_and(|raw| raw > bytes);
        let nanos = if packed { (unpacked + began.elapsed()).as_nanos() as u64 } else { 0 };
        self.tap.received(&kind, Size { bytes, raw, nanos });
        Ok((kind, held))
    }
}

impl Dialect for Link {
    async fn ping_due(&self) {
        self.keepalive.ping_due().await;
    }

    async fn encode(&self, what: ToLink) -> Vec<Message> {
        let mut message = match what {
            ToLink::Frame(message) => *message,
            ToLink::Log(request) => return vec![self.pack(Kind::LogRequest(*request))],
            ToLink::Timeout(ms) => {
                self.keepalive.set_timeout(ms);
                return Vec::new();
            }
            // Of the other dialect; the writer ends the link itself.
            ToLink::V1(_) | ToLink::Ping(_) | ToLink::Close(_) => return Vec::new(),
        };
        match &mut message {
            ToWorker::Assign(tasks) => ids::set_spans(tasks, self.tracer.as_deref()),
            ToWorker::Welcome(w) => w.session = self.session.begin(self.keepalive.who()),
            _ => {}
        }
        frames(message).into_iter().map(|kind| self.pack(kind)).collect()
    }
}

impl Link {
    /// Encodes and measures a frame.
    fn pack(&self, kind: Kind) -> Message {
        let (beat, welcome) = (Tap::beat(&kind), matches!(kind, Kind::Welcome(_)));
        let began = Instant::now();
        let (data, raw) = encode_sized(kind, Packing::default());
        let nanos = if raw.is_some() { began.elapsed().as_nanos() as u64 } else { 0 };
        self.tap.sent(Size { bytes: data.len(), raw, nanos }, beat, welcome);
        Message::Binary(data)
    }
}

/// The session of one link's worker, for its requests for blobs.
pub(crate) struct Session {
    all: Arc<WorkerSessions>,
    conn: ConnId,
    /// The worker's store id, and whether it is of a version that knows no sessions.
    hello: OnceLock<(String, bool)>,
}

impl Session {
    /// The session of a link whose worker has not said its hello.
    pub fn new(all: Arc<WorkerSessions>, conn: ConnId) -> Session {
        Session { all, conn, hello: OnceLock::new() }
    }
    fn said(&self, hello: &Hello) {
        let _ = self.hello.set((hello.store_id.clone(), hello.nonce == 0));
    }
    /// Begins the session once the worker is accepted; returns its token, empty for old versions.
    fn begin(&self, who: &Who) -> String {
        let Some((store, old)) = self.hello.get() else { return String::new() };
        if *old {
            self.all.old(self.conn, store, who);
            return String::new();
        }
        self.all.issue(store, who)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.all.ended(self.conn);
    }
}
