//! A link: messages over a WebSocket, in both directions.

use crate::io::Io;
use crate::pulse::{Counted, Progress};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use outlast_wire::decode;
use outlast_wire::frame::{Packing, encode_sized};
use outlast_wire::v2::body::Kind;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub(crate) type Socket = WebSocketStream<Counted<Box<dyn Io>>>;

/// The half of a link that sends.
pub struct Sender {
    pub(crate) sink: SplitSink<Socket, Message>,
    /// The compression of messages.
    pub packing: Packing,
}

impl Sender {
    /// Puts a message into the buffer.
    ///
    /// # Errors
    /// The reason why the link is broken.
    pub async fn feed(&mut self, kind: Kind) -> Result<(), String> {
        let (data, _) = encode_sized(kind, self.packing);
        self.sink.feed(Message::Binary(data)).await.map_err(|e| e.to_string())
    }
    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// The reason why the link is broken.
    pub async fn flush(&mut self) -> Result<(), String> {
        self.sink.flush().await.map_err(|e| e.to_string())
    }
    /// Sends a WebSocket ping, and what is in the buffer.
    ///
    /// # Errors
    /// The reason why the link is broken.
    pub async fn ping(&mut self) -> Result<(), String> {
        let ping = Message::Ping(bytes::Bytes::new());
        self.sink.send(ping).await.map_err(|e| e.to_string())
    }
    /// Closes the link, for at most a second.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.sink.close()).await;
    }
}

/// The half of a link that receives.
pub struct Receiver {
    pub(crate) stream: SplitStream<Socket>,
    pub(crate) progress: Progress,
}

impl Receiver {
    /// The count of bytes that have arrived.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
    /// The next message.
    ///
    /// # Errors
    /// The reason why there is none any more.
    pub async fn next(&mut self) -> Result<Kind, String> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(data))) => {
                    return decode(data).map_err(|e| format!("the coordinator sent nonsense: {e}"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|f| f.reason.to_string()).filter(|r| !r.is_empty());
                    let reason = reason.unwrap_or_else(|| "no reason given".into());
                    return Err(format!("the coordinator closed the link: {reason}"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(format!("the link broke: {error}")),
                None => return Err("the link ended".into()),
            }
        }
    }
}
