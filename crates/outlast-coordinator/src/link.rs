//! One worker's WebSocket: frames in and out, in one task. Knows nothing of what they mean,
//! except that log data goes to whoever asked for it.

use crate::auth::{Pass, Who};
use crate::driver::{Driver, Input};
use crate::listen::Arrived;
use crate::logs::Logs;
use crate::otel::{self, Tracer};
use crate::quality::{Quality, Tap};
use crate::sessions::WorkerSessions;
use crate::share::{Held, SHARE, Share};
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use outlast_core::coord::ConnId;
use outlast_core::quality::Size;
use outlast_net::pulse::{self, PingConfig, Progress};
use outlast_wire::frame::{FrameError, Packing, encode_sized, open};
use outlast_wire::v1::ToWorker;
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{self, LinkCause};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Frames that may wait for a link that is slow; then it is closed.
pub(crate) const WAITING: usize = 8192;
/// How long a refused link may take to read why.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What the driver wants of a link.
pub(crate) enum ToLink {
    /// Boxed: each idle link holds room for 32 of these.
    Frame(Box<Kind>),
    /// On links of the v1 dialect.
    V1(Box<ToWorker>),
    /// The same: a WebSocket ping with this number.
    Ping(u64),
    /// Nothing may arrive for so many milliseconds after a ping.
    Patience(u64),
    /// After what was sent.
    Close(String),
}
pub(crate) type LinkTx = mpsc::Sender<ToLink>;

/// Serves the link until it ends.
pub(crate) async fn serve(
    socket: WebSocket,
    conn: ConnId,
    name: String,
    driver: Driver,
    logs: Arc<Logs>,
    (pulse, quality, sessions): (Pulse, Arc<Quality>, Arc<WorkerSessions>),
    tracer: Option<Arc<Tracer>>,
) {
    let tap = Tap::new(quality, conn);
    let (tx, rx) = mpsc::channel(WAITING);
    let principal = pulse.pass.who().principal();
    if driver.put(Input::Open(conn, tx, principal)).await.is_err() {
        return;
    }
    let (sink, stream) = socket.split();
    let session = Session { all: sessions, conn, hello: OnceLock::new() };
    let (cause, reason) = tokio::select! {
        why = read(stream, conn, &name, &driver, &logs, (&pulse, &tap, &session)) => why,
        why = write(sink, rx, &pulse, (&tap, &session), tracer.as_deref()) => why,
        why = pulse.dead() => why,
    };
    logs.link_ended(conn);
    let _ = driver.put(Input::Close(conn, cause, reason)).await;
}

/// The session of one link's worker, for its requests for blobs.
struct Session {
    all: Arc<WorkerSessions>,
    conn: ConnId,
    /// Its store id, and whether it is of a version that knows no sessions.
    hello: OnceLock<(String, bool)>,
}

impl Session {
    fn said(&self, hello: &v2::Hello) {
        let _ = self.hello.set((hello.store_id.clone(), hello.nonce == 0));
    }
    /// The worker is let in.
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

/// WebSocket pings of one link, and what arrives on it; and whether it may stay.
pub(crate) struct Pulse {
    pass: Pass,
    config: PingConfig,
    progress: Progress,
    pings: Notify,
    /// Milliseconds that this link may be silent after a ping; 0: what is configured holds.
    patience: AtomicU64,
}

impl Pulse {
    pub fn new(pass: Pass, config: PingConfig, arrived: Arrived) -> Pulse {
        let patience = AtomicU64::new(0);
        Pulse { pass, config, progress: arrived.progress, pings: Notify::new(), patience }
    }
    /// For whoever makes the link wait.
    pub fn to<'a>(
        &'a self,
        conn: ConnId,
        driver: &'a Driver,
    ) -> (ConnId, &'a Driver, &'a Progress) {
        (conn, driver, &self.progress)
    }
    /// Whose key let the link in.
    pub fn who(&self) -> &Who {
        self.pass.who()
    }
    /// Waits until a ping is to be sent.
    pub async fn due(&self) {
        self.pings.notified().await;
    }
    /// Waits until nothing arrives any more, or its key is not valid any more.
    pub async fn dead(&self) -> Why {
        let ping = || self.pings.notify_one();
        let patience = || Duration::from_millis(self.patience.load(Ordering::Relaxed));
        tokio::select! {
            why = pulse::watch(self.config, self.progress.clone(), patience, ping) => {
                (LinkCause::LinkSilent, why)
            }
            why = self.pass.ended() => (LinkCause::LinkRefused, why),
        }
    }
    /// The next message. One that is long in coming is a sign of life before it is there.
    pub async fn next(
        &self,
        stream: &mut SplitStream<WebSocket>,
        conn: ConnId,
        driver: &Driver,
    ) -> Option<Result<Message, axum::Error>> {
        let mut next = stream.next();
        loop {
            match pulse::attend(&self.progress, Pin::new(&mut next)).await {
                Some(next) => return next,
                None => drop(driver.put(Input::Heard(conn)).await),
            }
        }
    }
}

/// Why a link ended, for programs and for people.
pub(crate) type Why = (LinkCause, String);

pub(crate) fn broke(error: &axum::Error) -> Why {
    (LinkCause::LinkClosed, format!("the link broke: {error}"))
}

/// The worker closed it.
pub(crate) fn closed(frame: Option<CloseFrame>) -> Why {
    let reason = frame.map(|f| f.reason.to_string()).filter(|r| !r.is_empty());
    (LinkCause::LinkClosed, reason.unwrap_or_else(|| "the worker closed the link".into()))
}

/// Says why the link ends, and ends it.
pub(crate) async fn part(sink: &mut SplitSink<WebSocket, Message>, reason: String) -> Why {
    let short = reason.chars().take(100).collect::<String>();
    let frame = CloseFrame { code: 1000, reason: short.into() };
    let bye = async {
        sink.send(Message::Close(Some(frame))).await?;
        sink.close().await
    };
    let _ = tokio::time::timeout(LINGER, bye).await;
    (LinkCause::LinkUnspecified, reason)
}

async fn read(
    mut stream: SplitStream<WebSocket>,
    conn: ConnId,
    name: &str,
    driver: &Driver,
    logs: &Logs,
    (pulse, tap, session): (&Pulse, &Tap, &Session),
) -> Why {
    let share = Share::new(SHARE);
    loop {
        let input = match pulse.next(&mut stream, conn, driver).await {
            Some(Ok(Message::Binary(data))) => {
                match measured(data, tap, &share, pulse.to(conn, driver)).await {
                    Ok((Kind::LogData(data), _)) => {
                        logs.deliver(conn, data);
                        // A sign of life all the same.
                        Input::Message(conn, Kind::LogData(Default::default()), Held::NONE)
                    }
                    Ok((Kind::Hello(hello), _)) if hello.worker_id != name => {
                        let what =
                            format!("hello of {:?} at the address of {name:?}", hello.worker_id);
                        Input::Malformed(conn, what)
                    }
                    Ok((kind, held)) => {
                        if let Kind::Hello(hello) = &kind {
                            session.said(hello);
                        }
                        Input::Message(conn, kind, held)
                    }
                    Err(error) => Input::Malformed(conn, error.to_string()),
                }
            }
            Some(Ok(Message::Text(_))) => {
                Input::Malformed(conn, "a text message; this link carries binary ones".into())
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(frame))) => return closed(frame),
            Some(Err(error)) => return broke(&error),
            None => return (LinkCause::LinkClosed, "the link ended".into()),
        };
        let malformed = matches!(input, Input::Malformed(..));
        if malformed {
            tap.malformed();
        }
        if driver.put(input).await.is_err() {
            return (LinkCause::LinkRestarted, "the coordinator ends".into());
        }
        if malformed {
            // The writer sends why, and ends the link.
            tokio::time::sleep(LINGER).await;
            return (LinkCause::LinkRefused, "a message could not be understood".into());
        }
    }
}

/// A message, once there is room for it.
async fn measured(
    data: Bytes,
    tap: &Tap,
    share: &Share,
    link: (ConnId, &Driver, &Progress),
) -> Result<(Kind, Held), FrameError> {
    let (bytes, began) = (data.len(), Instant::now());
    let opened = open(data)?;
    let unpacked = began.elapsed();
    let held = share.take(opened.weight(), link).await;
    let (raw, began) = (opened.raw, Instant::now());
    let kind = opened.decode()?;
    // What came as it is was not decompressed, though it counts for the ratio.
    let packed = raw.is_some_and(|raw| raw > bytes);
    let nanos = if packed { (unpacked + began.elapsed()).as_nanos() as u64 } else { 0 };
    tap.received(&kind, Size { bytes, raw, nanos });
    Ok((kind, held))
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut rx: mpsc::Receiver<ToLink>,
    pulse: &Pulse,
    (tap, session): (&Tap, &Session),
    tracer: Option<&Tracer>,
) -> Why {
    loop {
        let next = tokio::select! {
            biased;
            () = pulse.due() => match sink.send(Message::Ping(Bytes::new())).await {
                Ok(()) => continue,
                Err(error) => return broke(&error),
            },
            next = rx.recv() => next,
        };
        let Some(mut next) = next else {
            let _ = tokio::time::timeout(LINGER, sink.close()).await;
            // The core said why when it let the link go.
            return (LinkCause::LinkUnspecified, "the link was given up".into());
        };
        // Everything that waits goes out with one flush.
        loop {
            match next {
                ToLink::Frame(mut kind) => {
                    match &mut *kind {
                        Kind::Assign(assign) => otel::tell(&mut assign.tasks, tracer),
                        Kind::Welcome(w) => w.session = session.begin(pulse.pass.who()),
                        _ => {}
                    }
                    let (beat, welcome) = (Tap::beat(&kind), matches!(*kind, Kind::Welcome(_)));
                    let began = Instant::now();
                    let (data, raw) = encode_sized(*kind, Packing::default());
                    let nanos = if raw.is_some() { began.elapsed().as_nanos() as u64 } else { 0 };
                    tap.sent(Size { bytes: data.len(), raw, nanos }, beat, welcome);
                    if let Err(error) = sink.feed(Message::Binary(data)).await {
                        return broke(&error);
                    }
                }
                ToLink::Patience(ms) => pulse.patience.store(ms, Ordering::Relaxed),
                // Of the other dialect.
                ToLink::V1(_) | ToLink::Ping(_) => {}
                ToLink::Close(reason) => return part(&mut sink, reason).await,
            }
            match rx.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        if let Err(error) = sink.flush().await {
            return broke(&error);
        }
    }
}
