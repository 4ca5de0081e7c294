//! A worker of the v1 dialect, written from its contract: what the replaced system's client does.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub struct Link {
    socket: WebSocketStream<TcpStream>,
    name: String,
}

pub async fn dial(addr: SocketAddr, name: &str, key: &str) -> Result<Link, Error> {
    dial_at(addr, &format!("/api/v1/worker/{name}/ws"), name, key).await
}

/// At this path of the address.
pub async fn dial_at(addr: SocketAddr, path: &str, name: &str, key: &str) -> Result<Link, Error> {
    let stream = TcpStream::connect(addr).await.map_err(Error::Io)?;
    let mut request = format!("ws://{addr}{path}").into_client_request()?;
    if !key.is_empty() {
        let value = format!("Bearer {key}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    let (socket, _) = client_async(request, stream).await?;
    Ok(Link { socket, name: name.into() })
}

impl Link {
    /// With what every message of a worker has.
    pub async fn say(&mut self, mut message: Value) -> Result<(), Error> {
        message["worker_id"] = self.name.as_str().into();
        message["timestamp"] = "2026-01-01T00:00:00.000000".into();
        self.text(message.to_string()).await
    }
    pub async fn text(&mut self, text: String) -> Result<(), Error> {
        self.socket.send(Message::Text(text.into())).await
    }
    pub async fn bytes(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        self.socket.send(Message::Binary(bytes.into())).await
    }
    /// The next message; none when the link is over.
    pub async fn hear(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    assert!(message["type"].is_string(), "{message}");
                    let at = message["timestamp"].as_str().expect("a timestamp");
                    assert!(at.contains('T') && at.ends_with('Z'), "{at} is no ISO 8601");
                    return Some(message);
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
    /// The next message, which has this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(120), self.hear()).await;
        let message = next.unwrap_or_else(|_| panic!("no {kind} came")).expect("a message");
        assert_eq!(message["type"], kind, "{message}");
        message
    }
    /// The next message of this type, whatever comes before it.
    pub async fn expect_among(&mut self, kind: &str) -> Value {
        let found = async {
            loop {
                let message = self.hear().await.expect("a message");
                if message["type"] == kind {
                    return message;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(120), found).await;
        found.unwrap_or_else(|_| panic!("no {kind} came"))
    }
    /// Ends it as a program does that stops.
    pub async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).await.expect("sent");
        self.closed().await;
    }
    pub async fn closed(&mut self) {
        let rest = async { while self.hear().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(120), rest).await.expect("the link ends");
    }
    pub async fn beat(&mut self, sequence: u64, active: &[&str]) -> Value {
        let beat = json!({ "type": "heartbeat", "sequence": sequence, "active_tasks": active });
        self.say(beat).await.expect("sent");
        let answer = self.expect("heartbeat").await;
        assert_eq!(answer["response_to"], sequence);
        answer
    }
}

/// Joins as a worker that holds nothing, and registers.
pub async fn join(addr: SocketAddr, name: &str, capabilities: Value) -> Link {
    let mut link = dial(addr, name, "").await.expect("a link");
    assert_eq!(link.expect("welcome").await["worker_id"], name);
    link.say(json!({ "type": "registration", "capabilities": capabilities })).await.expect("sent");
    assert_eq!(link.expect("registration_ack").await["worker_id"], name);
    link
}

/// Memory of a process of the replaced system's worker between links.
#[derive(Default)]
pub struct Memory {
    pub active: BTreeMap<String, Value>,
    /// Results that were not acknowledged.
    pub results: BTreeMap<String, Value>,
    pub ran: BTreeMap<String, u32>,
    pub acked: BTreeSet<String>,
    /// Results sent, and acknowledgements heard.
    pub sent: u64,
    pub sequence: u64,
}

impl Memory {
    /// Sends the first messages of a new link, as the replaced client does.
    pub async fn resume(&mut self, link: &mut Link) -> Result<(), Error> {
        link.say(json!({ "type": "registration", "capabilities": { "slots": 4 } })).await?;
        for (task, result) in self.results.clone() {
            self.send(link, &task, &result).await?;
        }
        self.beat(link).await
    }
    pub async fn beat(&mut self, link: &mut Link) -> Result<(), Error> {
        self.sequence += 1;
        let active: Vec<&String> = self.active.keys().collect();
        let (kind, sequence) = ("heartbeat", self.sequence);
        link.say(json!({ "type": kind, "sequence": sequence, "active_tasks": active })).await
    }
    async fn send(&mut self, link: &mut Link, task: &str, result: &Value) -> Result<(), Error> {
        self.sent += 1;
        link.say(json!({ "type": "task_result", "task_id": task, "result": result })).await
    }
    /// Finishes what runs: the result is kept until it is acknowledged.
    pub async fn finish(&mut self, link: &mut Link) -> Result<(), Error> {
        for (task, config) in std::mem::take(&mut self.active) {
            let result = json!({ "square": config["n"].as_i64().unwrap_or(0).pow(2) });
            self.results.insert(task.clone(), result.clone());
            self.send(link, &task, &result).await?;
        }
        Ok(())
    }
    pub fn hear(&mut self, message: &Value) {
        let task = || message["task_id"].as_str().expect("a task").to_owned();
        match message["type"].as_str() {
            Some("task_assignment") => {
                *self.ran.entry(task()).or_default() += 1;
                self.active.insert(task(), message["config"].clone());
            }
            Some("task_result_ack") => {
                self.results.remove(&task());
                self.acked.insert(task());
            }
            Some("error") => panic!("{message}"),
            _ => {}
        }
    }
}
