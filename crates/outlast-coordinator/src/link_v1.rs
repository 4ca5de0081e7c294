//! A worker's link of the v1 dialect: texts in and out, and checkpoints' data to and from the store
//! of blobs. Knows nothing of what they mean.

use crate::api::App;
use crate::blobs::BlobShelf;
use crate::blobs::uploads::Uploader;
use crate::clock;
use crate::driver::Input;
use crate::link::{LINGER, Pulse, ToLink, WAITING, Why, broke, closed, part};
use crate::quality::Tap;
use crate::share::{SHARE_V1, Share};
use axum::extract::ws::close_code::{AWAY, NORMAL};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use outlast_blob::Hash;
use outlast_core::coord::{ConnId, V1_PREFIX};
use outlast_core::quality::{Beat, Size};
use outlast_wire::Bytes;
use outlast_wire::v1::{FromWorker, MAX_CHECKPOINT, MAX_TEXT, Restore, ToWorker, parse, worker_of};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{LinkCause, LogData};
use std::io::Read;
use tokio::sync::mpsc;

/// Serves the link until it ends. `name` is empty if the address does not have the worker's id.
pub(crate) async fn serve(socket: WebSocket, conn: ConnId, name: String, app: App, pulse: Pulse) {
    let tap = Tap::new(app.quality.clone(), conn);
    if !name.is_empty() {
        tap.of(&format!("{V1_PREFIX}{name}"));
    }
    let (tx, rx) = mpsc::channel(WAITING);
    let principal = pulse.who().principal();
    if app.driver.put(Input::OpenV1(conn, tx, name.clone(), principal)).await.is_err() {
        return;
    }
    let (sink, stream) = socket.split();
    let (cause, reason) = tokio::select! {
        why = read(stream, conn, name, &app, (&pulse, &tap)) => why,
        why = write(sink, rx, conn, &app, (&pulse, &tap)) => why,
        why = pulse.dead() => why,
    };
    app.logs.link_ended(conn);
    let _ = app.driver.put(Input::Close(conn, cause, reason)).await;
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

async fn read(
    mut stream: SplitStream<WebSocket>,
    conn: ConnId,
    mut name: String,
    app: &App,
    (pulse, tap): (&Pulse, &Tap),
) -> Why {
    let share = Share::new(SHARE_V1);
    loop {
        let next = pulse.next(&mut stream, conn, &app.driver).await;
        if name.is_empty()
            && let Some(Ok(Message::Text(text))) = &next
            && let Some(said) = worker_of(text)
        {
            if let Err(refusal) = pulse.who().may_be(&said) {
                let what = format!("{}: {}", refusal.problem.title, refusal.problem.detail);
                app.missed.log(&said, &refusal);
                let _ = app.driver.put(Input::MalformedV1(conn, what.clone(), None)).await;
                tokio::time::sleep(LINGER).await;
                return (LinkCause::LinkRefused, what);
            }
            tap.of(&format!("{V1_PREFIX}{said}"));
            if app.driver.put(Input::NameV1(conn, said.clone())).await.is_err() {
                return (LinkCause::LinkRestarted, "the coordinator ends".into());
            }
            name = said;
        }
        let input = match next {
            Some(Ok(Message::Text(_))) if name.is_empty() => {
                tap.malformed();
                let what = "the address of this link has {worker_id} in place of an id: the first \
                            message must say \"worker_id\"";
                Input::MalformedV1(conn, what.into(), None)
            }
            Some(Ok(Message::Text(text))) => match parse(&text, &name) {
                Ok(message) => {
                    tap.arrived(plain(text.len()), beat(&message));
                    let blob = keep(&app.shelf, &name, &message).await;
                    let bytes = size_of::<FromWorker>() + text.len();
                    let held = share.take(bytes, pulse.to(conn, &app.driver)).await;
                    Input::V1(conn, Box::new(message), blob, held)
                }
                Err(error) => {
                    tap.malformed();
                    let task = error.checkpoint_of().map(Into::into);
                    Input::MalformedV1(conn, error.to_string(), task)
                }
            },
            Some(Ok(Message::Binary(_))) => {
                tap.malformed();
                let what = "a binary message; this link carries JSON in text messages";
                Input::MalformedV1(conn, what.into(), None)
            }
            Some(Ok(Message::Pong(data))) => match <[u8; 8]>::try_from(&data[..]) {
                Ok(seq) => {
                    let seq = u64::from_be_bytes(seq);
                    tap.arrived(plain(seq.to_be_bytes().len()), Beat::Reply(seq));
                    Input::Pong(conn, seq)
                }
                Err(_) => continue,
            },
            Some(Ok(Message::Ping(_))) => continue,
            Some(Ok(Message::Close(frame))) => return left(frame),
            Some(Err(error)) if error.to_string().contains("too long") => {
                tap.malformed();
                let what = format!(
                    "a message of more than {MAX_TEXT} bytes; the link ends. Keep results, states \
                     and checkpoints smaller"
                );
                let _ = app.driver.put(Input::OversizedV1(conn, what.clone())).await;
                tokio::time::sleep(LINGER).await;
                return (LinkCause::LinkRefused, what);
            }
            Some(Err(error)) => return broke(&error),
            None => return (LinkCause::LinkClosed, "the link ended".into()),
        };
        if app.driver.put(input).await.is_err() {
            return (LinkCause::LinkRestarted, "the coordinator ends".into());
        }
    }
}

/// The worker closed it. One that says that it goes (1000, 1001) stopped by itself: the dialect has
/// no other word for it.
fn left(frame: Option<CloseFrame>) -> Why {
    let stopped = frame.as_ref().is_some_and(|f| f.code == NORMAL || f.code == AWAY);
    let (cause, reason) = closed(frame);
    (if stopped { LinkCause::LinkStopped } else { cause }, reason)
}

/// Puts a checkpoint's data into the store of blobs; its manifest, once it is durable.
async fn keep(shelf: &BlobShelf, name: &str, message: &FromWorker) -> Option<Bytes> {
    let FromWorker::CheckpointData { data, task_id, .. } = message else { return None };
    if data.len() > MAX_CHECKPOINT {
        return None;
    }
    let who = Uploader { from: None, worker: format!("{V1_PREFIX}{name}") };
    let _turn = shelf.uploads.take(who).await?;
    let (blobs, data) = (shelf.blobs.clone(), data.clone());
    let put = tokio::task::spawn_blocking(move || blobs.put(&data[..])).await;
    match put.map_err(|e| e.to_string()).and_then(|put| put.map_err(|e| e.to_string())) {
        Ok(put) => {
            shelf.accepted(put.manifest, &format!("{V1_PREFIX}{name}"));
            Some(Bytes::copy_from_slice(put.manifest.as_bytes()))
        }
        Err(why) => {
            tracing::warn!("a checkpoint of task {task_id} was not kept: {why}");
            None
        }
    }
}

/// The data of a checkpoint that goes with an assignment; none if it is not here, and then the
/// task begins anew.
async fn load(shelf: &BlobShelf, from: &Restore) -> Option<String> {
    let manifest = Hash::from_bytes(<[u8; 32]>::try_from(&from.manifest[..]).ok()?);
    let blobs = shelf.blobs.clone();
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

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut rx: mpsc::Receiver<ToLink>,
    conn: ConnId,
    app: &App,
    (pulse, tap): (&Pulse, &Tap),
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
            return (LinkCause::LinkUnspecified, "the link was given up".into());
        };
        // Everything that waits goes out with one flush.
        loop {
            let message = match next {
                ToLink::V1(message) => {
                    let data = match &*message {
                        ToWorker::TaskAssignment { checkpoint: Some(from), .. } => {
                            load(&app.shelf, from).await
                        }
                        _ => None,
                    };
                    let at = clock::text(clock::wall());
                    let text = message.encode(&at, data.as_deref());
                    // From its registration on it is known.
                    let known = matches!(*message, ToWorker::RegistrationAck { .. });
                    tap.sent(plain(text.len()), Beat::None, known);
                    Some(Message::Text(text.into()))
                }
                ToLink::Ping(seq) => {
                    let data = seq.to_be_bytes().to_vec();
                    tap.sent(plain(data.len()), Beat::Beat(seq), false);
                    Some(Message::Ping(data.into()))
                }
                // Of the other dialect.
                ToLink::Patience(_) => None,
                ToLink::Frame(kind) => {
                    if let Kind::LogRequest(asked) = *kind {
                        let error = "workers of the v1 dialect keep no logs".into();
                        let request = asked.request;
                        let data = LogData { request, last: true, error, ..Default::default() };
                        app.logs.deliver(conn, data);
                    }
                    None
                }
                ToLink::Close(reason) => return part(&mut sink, reason).await,
            };
            if let Some(message) = message
                && let Err(error) = sink.feed(message).await
            {
                return broke(&error);
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
