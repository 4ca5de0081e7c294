//! Helpers of the tests: a coordinator, HTTP by hand, and a worker that reports as it is asked to.

#![allow(dead_code)]

pub mod document;

use outlast_blob::{Blobs, Hash};
use outlast_coordinator::{BlobConfig, Config, Coordinator, RetentionConfig, WatchConfig};
use outlast_core::coord::CoordConfig;
use outlast_net::{Dialler, Receiver, Sender};
use outlast_wire::blobframe;
use outlast_wire::v2::{self, Lane, OutboxItem, body::Kind, outbox_item};
use serde_json::Value;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Lines logged since [`logged`] was called first, at info and above.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        LOGGED.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Begins to keep what is logged; the lines so far that contain this.
pub fn logged(part: &str) -> Vec<String> {
    // Another test may have begun.
    let _ = tracing::subscriber::set_global_default(Log);
    LOGGED.lock().unwrap().iter().filter(|l| l.contains(part)).cloned().collect()
}

pub fn config(dir: &Path) -> Config {
    let core = CoordConfig { max_unfinished: 50, ..Default::default() };
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.into(),
        tls: None,
        blobs: BlobConfig::default(),
        retention: RetentionConfig::default(),
        core,
        ping: Default::default(),
        watch: WatchConfig::default(),
        connections: Default::default(),
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")))
    }
    pub fn json(&self) -> Value {
        let text = || Value::String(String::from_utf8_lossy(&self.body).into());
        serde_json::from_slice(&self.body).unwrap_or_else(|_| text())
    }
}

pub async fn send(c: &Coordinator, method: &str, path: &str, key: &str, body: &[u8]) -> Answer {
    let auth =
        if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    send_with(c, method, path, &auth, body).await
}

/// With more lines for the head.
pub async fn send_with(
    c: &Coordinator,
    method: &str,
    path: &str,
    lines: &str,
    body: &[u8],
) -> Answer {
    send_to(c, method, path, "localhost", lines, body).await
}

/// The same, by a name that the client calls it.
pub async fn send_to(
    c: &Coordinator,
    method: &str,
    path: &str,
    host: &str,
    lines: &str,
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(c.local_addr()).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{lines}connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // It may be refused before all of it was read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = answer.split_off(at + 4);
    if head.contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    let answer = Answer { status, head, body };
    let kind = answer.header("content-type").unwrap_or_default();
    // Values that this parser refuses pass as their workers wrote them.
    if matches!(kind, "application/json" | "application/problem+json")
        && let Ok(body) = serde_json::from_slice(&answer.body)
    {
        document::check_answer(method, path, status, &body);
    }
    answer
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        if len == 0 {
            break;
        }
        all.extend_from_slice(&bytes[at + 2..at + 2 + len]);
        bytes = &bytes[at + 4 + len..];
    }
    all
}

/// Status, content type and body.
pub async fn ask(
    c: &Coordinator,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> (u16, String, Value) {
    let answer = send(c, method, path, key, body.as_bytes()).await;
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    (answer.status, kind, answer.json())
}

pub async fn get(c: &Coordinator, path: &str) -> (u16, Value) {
    let (status, _, body) = ask(c, "GET", path, "", "").await;
    (status, body)
}

/// Asks until the answer is as wanted.
pub async fn until(c: &Coordinator, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = get(c, path).await.1;
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never became so: {last:#}");
}

pub async fn post(c: &Coordinator, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, body) = ask(c, "POST", path, "", &body.to_string()).await;
    (status, body)
}

pub fn hello(name: &str, store: &str, connection: u64) -> v2::Hello {
    v2::Hello {
        protocol: outlast_wire::PROTOCOL,
        worker_id: name.into(),
        store_id: store.into(),
        incarnation: 1,
        connection,
        slots: 1,
        capabilities_json: "{}".into(),
        ..Default::default()
    }
}

pub async fn link(c: &Coordinator, name: &str) -> (Sender, Receiver) {
    let url = format!("http://{}", c.local_addr());
    Dialler::new(&url, name, None, None).unwrap().dial().await.unwrap()
}

pub async fn say(sender: &mut Sender, kind: Kind) {
    sender.feed(kind).await.unwrap();
    sender.flush().await.unwrap();
}

pub async fn next(receiver: &mut Receiver) -> Kind {
    tokio::time::timeout(Duration::from_secs(120), receiver.next()).await.unwrap().unwrap()
}

/// A worker that was accepted and has reported everything it holds.
pub struct FakeWorker {
    pub name: String,
    pub sender: Sender,
    pub receiver: Receiver,
    seqs: [u64; 5],
}

impl FakeWorker {
    pub async fn join(c: &Coordinator, hello: v2::Hello, holds: Vec<v2::Holding>) -> FakeWorker {
        let name = hello.worker_id.clone();
        let (mut sender, mut receiver) = link(c, &name).await;
        say(&mut sender, Kind::Hello(hello)).await;
        let Kind::Welcome(welcome) = next(&mut receiver).await else { panic!("not welcome") };
        let mut seqs = [0; 5];
        for cursor in welcome.cursors {
            seqs[cursor.lane as usize] = cursor.seq;
        }
        let inventory = v2::Inventory { holdings: holds, last: true };
        say(&mut sender, Kind::Inventory(inventory)).await;
        FakeWorker { name, sender, receiver, seqs }
    }

    /// A worker that has said nothing yet.
    pub fn on(name: &str, (sender, receiver): (Sender, Receiver)) -> FakeWorker {
        FakeWorker { name: name.into(), sender, receiver, seqs: [0; 5] }
    }

    pub async fn say(&mut self, kind: Kind) {
        say(&mut self.sender, kind).await;
    }

    /// The next message that is not of the link itself.
    pub async fn heard(&mut self) -> Kind {
        loop {
            match next(&mut self.receiver).await {
                Kind::Heartbeat(_) | Kind::HeartbeatReply(_) => {}
                other => return other,
            }
        }
    }

    pub async fn assigned(&mut self) -> Vec<v2::Assignment> {
        match self.heard().await {
            Kind::Assign(assign) => assign.tasks,
            other => panic!("no assignment: {other:?}"),
        }
    }

    /// Sends one record, and waits for its acknowledgement.
    pub async fn report(&mut self, lane: Lane, item: outbox_item::Kind) {
        self.offer(lane, item).await;
        match self.heard().await {
            Kind::Ack(ack) => assert_eq!(ack.cursors[0].seq, self.seqs[lane as usize]),
            other => panic!("not acknowledged: {other:?}"),
        }
    }

    pub async fn offer(&mut self, lane: Lane, item: outbox_item::Kind) {
        let before = self.seqs[lane as usize];
        self.seqs[lane as usize] += 1;
        let seqs = if lane == Lane::State { vec![before + 1] } else { Vec::new() };
        let items = vec![OutboxItem { kind: Some(item) }];
        let batch = v2::OutboxBatch {
            lane: lane.into(),
            first_seq: before + 1,
            items,
            seqs,
            prev_seq: before,
        };
        say(&mut self.sender, Kind::Outbox(batch)).await;
    }
}

pub fn outcome(task: &str, epoch: u64, kind: v2::OutcomeKind) -> outbox_item::Kind {
    outbox_item::Kind::Outcome(v2::TaskOutcome {
        task_id: task.into(),
        epoch,
        kind: kind.into(),
        started_at_ms: 1,
        finished_at_ms: 2,
        ..Default::default()
    })
}

/// Stores data locally and gives what an upload of it consists of: frames, and the manifest.
pub fn packed(data: &[u8]) -> (Vec<(Hash, Vec<u8>)>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), outlast_blob::Config::default()).unwrap();
    let put = blobs.put(data).unwrap();
    let manifest = blobs.manifest(&put.manifest).unwrap().unwrap();
    let frame = |(hash, _): &(Hash, u32)| {
        let p = blobs.load(hash).unwrap();
        let mut out = Vec::new();
        blobframe::encode(hash.as_bytes(), p.raw_len, p.compressed, &p.bytes, &mut out);
        (*hash, out)
    };
    (manifest.chunks().iter().map(frame).collect(), manifest.encode())
}

/// Uploads a blob; the hash of its manifest.
pub async fn upload(c: &Coordinator, data: &[u8]) -> Hash {
    let (frames, manifest) = packed(data);
    for part in frames.chunks(32) {
        let body: Vec<u8> = part.iter().flat_map(|(_, f)| f.clone()).collect();
        assert_eq!(send(c, "PUT", "/api/v2/blobs/chunks", "", &body).await.status, 200);
    }
    let sent = send(c, "PUT", "/api/v2/blobs/manifests", "", &manifest).await;
    assert_eq!(sent.status, 204, "{}", sent.json());
    Hash::of(&manifest)
}

/// Bytes that do not repeat.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| word()).take(len).collect()
}
