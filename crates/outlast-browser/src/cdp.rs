//! The DevTools protocol over two pipes: JSON, each message ended by a NUL.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

/// The largest message that a browser may send, in bytes.
const MAX_INCOMING: usize = 128 << 20;
/// Messages that may wait to be written, and events to be looked at.
const QUEUE: usize = 256;

/// Reason why a command of the protocol failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdpError {
    /// The browser is gone.
    #[error("the browser is gone")]
    Closed,
    /// The browser sent what is too large to take.
    #[error("the browser sent a message of more than {MAX_INCOMING} bytes")]
    TooLarge,
    /// The browser refused the command; the text is its own.
    #[error("{method}: {message}")]
    Refused {
        /// The command.
        method: String,
        /// The browser's message.
        message: String,
    },
}

/// Event from the browser.
#[derive(Debug)]
pub(crate) struct Event {
    /// Session of the event; none: the browser itself.
    pub session: Option<String>,
    pub method: String,
    pub params: Value,
}

type Waiting = HashMap<u64, (String, oneshot::Sender<Result<Value, CdpError>>)>;

struct Shared {
    /// Pending commands; an error with the reason once the browser is gone.
    waiting: Mutex<Result<(u64, Waiting), CdpError>>,
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Cdp {
    out: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

impl Cdp {
    /// Speaks over `input` (what the browser reads) and `output`. Needs a tokio runtime.
    pub fn new(
        input: impl AsyncWrite + Unpin + Send + 'static,
        output: impl AsyncRead + Unpin + Send + 'static,
    ) -> (Cdp, mpsc::Receiver<Event>) {
        let (out, messages) = mpsc::channel(QUEUE);
        let (events, happened) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared { waiting: Mutex::new(Ok((0, HashMap::new()))) });
        tokio::spawn(write(input, messages));
        tokio::spawn(read(output, shared.clone(), events));
        (Cdp { out, shared }, happened)
    }

    /// Sends a command, and waits for its answer for as long as the browser lives.
    pub async fn call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, CdpError> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let (last, all) = waiting.as_mut().map_err(|e| e.clone())?;
            *last += 1;
            all.insert(*last, (method.to_owned(), answer));
            *last
        };
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let sent = self.out.send(bytes).await;
        if sent.is_err() {
            return Err(self.why_closed());
        }
        answered.await.unwrap_or_else(|_| Err(self.why_closed()))
    }

    fn why_closed(&self) -> CdpError {
        let waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_ref().err().cloned().unwrap_or(CdpError::Closed)
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        if to.write_all(&message).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

async fn read(from: impl AsyncRead + Unpin, shared: Arc<Shared>, events: mpsc::Sender<Event>) {
    let why = take_all(from, &shared, events).await;
    let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    // Dropping their senders tells those that wait.
    *waiting = Err(why);
}

async fn take_all(
    from: impl AsyncRead + Unpin,
    shared: &Shared,
    events: mpsc::Sender<Event>,
) -> CdpError {
    let mut from = BufReader::with_capacity(64 << 10, from);
    let mut message = Vec::new();
    loop {
        message.clear();
        // One more than may be, to notice what is larger.
        let read = (&mut from).take(MAX_INCOMING as u64 + 1).read_until(0, &mut message).await;
        match read {
            Ok(0) | Err(_) => return CdpError::Closed,
            Ok(_) if message.pop() == Some(0) => {}
            Ok(n) if n > MAX_INCOMING => return CdpError::TooLarge,
            Ok(_) => return CdpError::Closed,
        }
        if message.capacity() > 4 << 20 {
            message.shrink_to(message.len());
        }
        let Ok(Value::Object(mut said)) = serde_json::from_slice(&message) else {
            tracing::debug!("the browser sent what is no JSON object");
            continue;
        };
        let mut take = |name: &str| said.remove(name).unwrap_or_default();
        if let Some(id) = take("id").as_u64() {
            let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let found = waiting.as_mut().ok().and_then(|(_, all)| all.remove(&id));
            let Some((method, answer)) = found else { continue };
            let error = take("error");
            let result = match error["message"].as_str() {
                Some(text) => Err(CdpError::Refused { method, message: text.to_owned() }),
                None => Ok(take("result")),
            };
            let _ = answer.send(result);
        } else if let Value::String(method) = take("method") {
            let session = take("sessionId").as_str().map(ToOwned::to_owned);
            // Whoever looks at events does nothing else, so this waits for no answer of ours.
            let _ = events.send(Event { session, method, params: take("params") }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_find_who_asked_and_the_end_tells_all() {
        let (input, browser_in) = tokio::io::duplex(4096);
        let (mut browser_out, output) = tokio::io::duplex(4096);
        let (cdp, mut events) = Cdp::new(input, output);
        let other = cdp.clone();
        let first = tokio::spawn(async move { other.call(Some("s"), "A.a", json!({})).await });
        let mut asked = BufReader::new(browser_in);
        let mut message = Vec::new();
        asked.read_until(0, &mut message).await.unwrap();
        let said: Value = serde_json::from_slice(&message[..message.len() - 1]).unwrap();
        assert_eq!((&said["method"], &said["sessionId"]), (&json!("A.a"), &json!("s")));
        browser_out.write_all(b"{\"method\":\"B.b\",\"params\":1}\0").await.unwrap();
        browser_out.write_all(b"no json\0{\"id\":77}\0").await.unwrap();
        browser_out.write_all(b"{\"id\":1,\"result\":{\"x\":2}}\0").await.unwrap();
        assert_eq!(first.await.unwrap(), Ok(json!({"x": 2})));
        assert_eq!(events.recv().await.unwrap().method, "B.b");
        let second = tokio::spawn(async move { cdp.call(None, "A.b", json!({})).await });
        message.clear();
        asked.read_until(0, &mut message).await.unwrap();
        browser_out.write_all(b"{\"id\":2,\"error\":{\"message\":\"no\"}}\0").await.unwrap();
        let refused = second.await.unwrap().unwrap_err();
        assert_eq!(refused.to_string(), "A.b: no");
    }

    #[tokio::test]
    async fn a_browser_that_goes_leaves_nobody_waiting() {
        let (input, _browser_in) = tokio::io::duplex(4096);
        let (browser_out, output) = tokio::io::duplex(4096);
        let (cdp, _events) = Cdp::new(input, output);
        let other = cdp.clone();
        let waits = tokio::spawn(async move { other.call(None, "A.a", json!({})).await });
        tokio::task::yield_now().await;
        drop(browser_out);
        assert_eq!(waits.await.unwrap(), Err(CdpError::Closed));
        assert_eq!(cdp.call(None, "A.b", json!({})).await, Err(CdpError::Closed));
    }
}
