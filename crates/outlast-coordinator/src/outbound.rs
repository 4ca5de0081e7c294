//! The outbound side of a worker's link: its queue, the loop that writes it, and its end. Both dialects use
//! it; each encodes its own messages.

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use outlast_model::{LinkCause, message};
use outlast_wire::v1::ToWorker;
use outlast_wire::v2::LogRequest;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that may wait for a link that is slow; then it is closed.
const WAITING: usize = 8192;
/// Time that a refused link has to read why.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// One thing that the core sends to a link.
pub(crate) enum ToLink {
    /// A message. Boxed: each idle link holds room for 32 of these.
    Frame(Box<message::ToWorker>),
    /// A request for a part of a log.
    Log(Box<LogRequest>),
    /// A message of the v1 dialect.
    V1(Box<ToWorker>),
    /// A WebSocket ping with this number, of the v1 dialect.
    Ping(u64),
    /// The timeout of the link: nothing may arrive for so many milliseconds after a ping.
    Timeout(u64),
    /// The end of the link, after what was sent before, with its reason.
    Close(String),
}

/// The sending side of a link's queue; dropping it ends the link.
pub(crate) type LinkTx = mpsc::Sender<ToLink>;

/// Returns the two sides of a link's queue.
pub(crate) fn queue() -> (LinkTx, mpsc::Receiver<ToLink>) {
    mpsc::channel(WAITING)
}

/// The cause of a link's end, for programs and in words.
pub(crate) type Why = (LinkCause, String);

/// The end of a link whose connection failed.
pub(crate) fn broke(error: &axum::Error) -> Why {
    (LinkCause::Closed, format!("the link broke: {error}"))
}

/// The end of a link that its worker closed.
pub(crate) fn closed(frame: Option<CloseFrame>) -> Why {
    let reason = frame.map(|f| f.reason.to_string()).filter(|r| !r.is_empty());
    (LinkCause::Closed, reason.unwrap_or_else(|| "the worker closed the link".into()))
}

/// The end of all links when the coordinator ends.
pub(crate) fn ending() -> Why {
    (LinkCause::Restarted, "the coordinator ends".into())
}

/// One dialect's side of the loop that writes to a link.
pub(crate) trait Dialect: Sync {
    /// Waits until a WebSocket ping is to be sent.
    fn ping_due(&self) -> impl Future<Output = ()> + Send;
    /// Encodes what the core sends; empty if nothing is to be written for it.
    fn encode(&self, what: ToLink) -> impl Future<Output = Vec<Message>> + Send;
}

/// Writes a link's queue until the link ends.
pub(crate) async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: mpsc::Receiver<ToLink>,
    dialect: &impl Dialect,
) -> Why {
    loop {
        let next = tokio::select! {
            biased;
            () = dialect.ping_due() => match sink.send(Message::Ping(Bytes::new())).await {
                Ok(()) => continue,
                Err(error) => return broke(&error),
            },
            next = queue.recv() => next,
        };
        let Some(mut next) = next else {
            let _ = tokio::time::timeout(LINGER, sink.close()).await;
            // The core said why when it let the link go.
            return (LinkCause::Unspecified, "the link was dropped".into());
        };
        // Everything that waits goes out with one flush.
        loop {
            if let ToLink::Close(reason) = next {
                return part(&mut sink, reason).await;
            }
            for message in dialect.encode(next).await {
                if let Err(error) = sink.feed(message).await {
                    return broke(&error);
                }
            }
            match queue.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        if let Err(error) = sink.flush().await {
            return broke(&error);
        }
    }
}

/// Says why the link ends, and ends it.
async fn part(sink: &mut SplitSink<WebSocket, Message>, reason: String) -> Why {
    let short = reason.chars().take(100).collect::<String>();
    let frame = CloseFrame { code: 1000, reason: short.into() };
    let bye = async {
        sink.send(Message::Close(Some(frame))).await?;
        sink.close().await
    };
    let _ = tokio::time::timeout(LINGER, bye).await;
    (LinkCause::Unspecified, reason)
}
