//! A worker's link of the v1 dialect: texts in and out, and checkpoints' data to and from the store
//! of blobs. Knows nothing of what they mean.

use crate::blobs::service::BlobService;
use crate::blobs::uploads::Uploader;
use crate::clock;
use crate::input::Input;
use crate::keepalive::Keepalive;
use crate::logs::Logs;
use crate::outbound::{self, Dialect, LINGER, ToLink, Why, broke, closed, ending};
use crate::quality::tap::Tap;
use crate::refused_links::RefusedLinks;
use crate::share::{SHARE_V1, Share};
use axum::extract::ws::close_code::{AWAY, NORMAL};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{StreamExt, stream::SplitStream};
use outlast_blob::Hash;
use outlast_core::coord::V1_PREFIX;
use outlast_core::quality::{Beat, Size};
use outlast_model::LinkCause;
use outlast_wire::Bytes;
use outlast_wire::v1::{FromWorker, MAX_CHECKPOINT, MAX_TEXT, Restore, ToWorker, parse, worker_of};
use outlast_wire::v2::LogData;
use std::io::Read;
use std::sync::Arc;

/// One worker's link of the v1 dialect, before its WebSocket is open.
pub(crate) struct LinkV1 {
    pub keepalive: Keepalive,
    pub logs: Arc<Logs>,
    pub tap: Tap,
    pub blobs: BlobService,
    pub refused: Arc<RefusedLinks>,
}

impl LinkV1 {
    /// Serves the link until it ends. `name` is empty if the address does not have the worker's id.
    pub async fn serve(self, socket: WebSocket, name: String) {
        let (conn, driver) = (self.keepalive.conn, &self.keepalive.driver);
        if !name.is_empty() {
            self.tap.of(&format!("{V1_PREFIX}{name}"));
        }
        let (tx, queue) = outbound::queue();
        let principal = self.keepalive.who().principal();
        if driver.put(Input::OpenV1(conn, tx, name.clone(), principal)).await.is_err() {
            return;
        }
        let (sink, stream) = socket.split();
        let (cause, reason) = tokio::select! {
            why = self.read(stream, name) => why,
            why = outbound::write(sink, queue, &self) => why,
            why = self.keepalive.dead() => why,
        };
        self.logs.link_ended(conn);
        let _ = driver.put(Input::Close(conn, cause, reason)).await;
    }

    async fn read(&self, mut stream: SplitStream<WebSocket>, mut name: String) -> Why {
        let share = Share::new(SHARE_V1);
        loop {
            let next = self.keepalive.next(&mut stream).await;
            if name.is_empty()
                && let Some(Ok(Message::Text(text))) = &next
                && let Some(said) = worker_of(text)
            {
                match self.named(&said).await {
                    Ok(()) => name = said,
                    Err(why) => return why,
                }
            }
            let input = match next {
                Some(Ok(message)) => match self.input(message, &name, &share).await {
                    Ok(Some(input)) => input,
                    Ok(None) => continue,
                    Err(why) => return why,
                },
                Some(Err(error)) if error.to_string().contains("too long") => {
                    return self.oversized().await;
                }
                Some(Err(error)) => return broke(&error),
                None => return (LinkCause::Closed, "the link ended".into()),
            };
            if self.keepalive.driver.put(input).await.is_err() {
                return ending();
            }
        }
    }

    /// Takes the id that a worker says on a link whose address does not have it.
    async fn named(&self, name: &str) -> Result<(), Why> {
        let (conn, driver) = (self.keepalive.conn, &self.keepalive.driver);
        if let Err(refusal) = self.keepalive.who().may_be(name) {
            let what = format!("{}: {}", refusal.problem.title, refusal.problem.detail);
            self.refused.log(name, &refusal);
            let _ = driver.put(Input::MalformedV1(conn, what.clone(), None)).await;
            tokio::time::sleep(LINGER).await;
            return Err((LinkCause::Refused, what));
        }
        self.tap.of(&format!("{V1_PREFIX}{name}"));
        driver.put(Input::NameV1(conn, name.to_owned())).await.map_err(|_| ending())
    }

    /// The input that a message makes, if any; or why the link ends with it.
    async fn input(
        &self,
        message: Message,
        name: &str,
        share: &Share,
    ) -> Result<Option<Input>, Why> {
        let conn = self.keepalive.conn;
        let malformed = |what: String, task| {
            self.tap.malformed();
            Ok(Some(Input::MalformedV1(conn, what, task)))
        };
        match message {
            Message::Text(_) if name.is_empty() => {
                let what = "the address of this link has {worker_id} in place of an id: the first \
                            message must say \"worker_id\"";
                malformed(what.into(), None)
            }
            Message::Text(text) => match parse(&text, name) {
                Ok(message) => {
                    self.tap.arrived(plain(text.len()), beat(&message));
                    let blob = keep(&self.blobs, name, &message).await;
                    let bytes = size_of::<FromWorker>() + text.len();
                    let held = self.keepalive.room(share, bytes).await;
                    Ok(Some(Input::V1(conn, Box::new(message), blob, held)))
                }
                Err(error) => malformed(error.to_string(), error.checkpoint_of().map(Into::into)),
            },
            Message::Binary(_) => {
                let what = "a binary message; this link carries JSON in text messages";
                malformed(what.into(), None)
            }
            Message::Pong(data) => {
                let Ok(seq) = <[u8; 8]>::try_from(&data[..]) else { return Ok(None) };
                let number = u64::from_be_bytes(seq);
                self.tap.arrived(plain(seq.len()), Beat::Reply(number));
                Ok(Some(Input::Pong(conn, number)))
            }
            Message::Ping(_) => Ok(None),
            Message::Close(frame) => Err(left(frame)),
        }
    }

    async fn oversized(&self) -> Why {
        self.tap.malformed();
        let what = format!(
            "a message of more than {MAX_TEXT} bytes; the link ends. Keep results, states and \
             checkpoints smaller"
        );
        let input = Input::OversizedV1(self.keepalive.conn, what.clone());
        let _ = self.keepalive.driver.put(input).await;
        tokio::time::sleep(LINGER).await;
        (LinkCause::Refused, what)
    }
}

impl Dialect for LinkV1 {
    async fn ping_due(&self) {
        self.keepalive.ping_due().await;
    }

    async fn encode(&self, what: ToLink) -> Vec<Message> {
        match what {
            ToLink::V1(message) => {
                let data = match &*message {
                    ToWorker::TaskAssignment { checkpoint: Some(from), .. } => {
                        load(&self.blobs, from).await
                    }
                    _ => None,
                };
                let at = clock::text(clock::wall());
                let text = message.encode(&at, data.as_deref());
                // From its registration on it is known.
                let known = matches!(*message, ToWorker::RegistrationAck { .. });
                self.tap.sent(plain(text.len()), Beat::None, known);
                vec![Message::Text(text.into())]
            }
            ToLink::Ping(seq) => {
                let data = seq.to_be_bytes().to_vec();
                self.tap.sent(plain(data.len()), Beat::Beat(seq), false);
                vec![Message::Ping(data.into())]
            }
            ToLink::Log(asked) => {
                let error = "workers of the v1 dialect keep no logs".into();
                let request = asked.request;
                let data = LogData { request, last: true, error, ..Default::default() };
                self.logs.deliver(self.keepalive.conn, data);
                Vec::new()
            }
            // Of the other dialect; the writer ends the link itself.
            ToLink::Frame(_) | ToLink::Timeout(_) | ToLink::Close(_) => Vec::new(),
        }
    }
}

/// A message that is sent as it is.
fn plain(bytes: usize) -> Size {
    Size { bytes, raw: None, nanos: 0 }
}

fn beat(message: &FromWorker) -> Beat {
    match message {
        FromWorker::Heartbeat { sequence, .. } => sequence.as_u64().map_or(Beat::None, Beat::Beat),
        _ => Beat::None,
    }
}

/// The worker closed it. One that says that it goes (1000, 1001) stopped by itself: the dialect has
/// no other word for it.
fn left(frame: Option<CloseFrame>) -> Why {
    let stopped = frame.as_ref().is_some_and(|f| f.code == NORMAL || f.code == AWAY);
    let (cause, reason) = closed(frame);
    (if stopped { LinkCause::Stopped } else { cause }, reason)
}

/// Puts a checkpoint's data into the store of blobs; its manifest, once it is durable.
async fn keep(service: &BlobService, name: &str, message: &FromWorker) -> Option<Bytes> {
    let FromWorker::CheckpointData { data, task_id, .. } = message else { return None };
    if data.len() > MAX_CHECKPOINT {
        return None;
    }
    let who = Uploader { from: None, worker: format!("{V1_PREFIX}{name}") };
    let _turn = service.uploads.take(who).await?;
    let (blobs, data) = (service.blobs.clone(), data.clone());
    let put = tokio::task::spawn_blocking(move || blobs.put(&data[..])).await;
    match put.map_err(|e| e.to_string()).and_then(|put| put.map_err(|e| e.to_string())) {
        Ok(put) => {
            service.accepted(put.manifest, &format!("{V1_PREFIX}{name}"));
            Some(Bytes::copy_from_slice(put.manifest.as_bytes()))
        }
        Err(why) => {
            tracing::warn!("a checkpoint of task {task_id} was not kept: {why}");
            None
        }
    }
}

/// The data of a checkpoint that goes with an assignment; none if it is not here, and then the
/// task starts again from its beginning.
async fn load(service: &BlobService, from: &Restore) -> Option<String> {
    let manifest = Hash::from_bytes(<[u8; 32]>::try_from(&from.manifest[..]).ok()?);
    let blobs = service.blobs.clone();
    let read = move || {
        let reader = blobs.reader(&manifest).map_err(|e| e.to_string())?;
        let mut data = String::new();
        // What its worker said of its size need not be so.
        let most = MAX_CHECKPOINT as u64;
        reader.take(most + 1).read_to_string(&mut data).map_err(|e| e.to_string())?;
        if data.len() as u64 > most {
            return Err(format!("it has more than {most} bytes"));
        }
        Ok::<_, String>(data)
    };
    let read = tokio::task::spawn_blocking(read).await;
    match read.map_err(|e| e.to_string()).and_then(|data| data) {
        Ok(data) => Some(data),
        Err(why) => {
            let id = &from.checkpoint_id;
            tracing::warn!("checkpoint {id} could not be read for an assignment: {why}");
            None
        }
    }
}
