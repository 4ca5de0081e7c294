//! Dials a coordinator: TCP, TLS, WebSocket, and messages over it. Knows nothing of tasks or
//! sessions, and decides nothing about when to dial.

#![warn(missing_docs)]

mod http;
mod limit;
mod prove;
pub mod pulse;
mod tls;

use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
pub use http::{Answer, Http};
pub use limit::{BodyLimit, Stopped};
pub use outlast_wire::Url;
use outlast_wire::frame::{MAX_MESSAGE, Packing, encode_sized};
use outlast_wire::local::{self, Credential, Said};
use outlast_wire::v2::body::Kind;
use outlast_wire::{api::Problem, decode};
use pulse::{Counted, Progress};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Bytes held for reading and for writing by a link that is idle.
const BUFFER: usize = 16 << 10;
/// Time limit of a TCP connection: enough for three of its first packets. Where a network drops
/// them, the system would retry ever less often, for minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The same for a probe: time for two.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that may wait to be written in addition to the message being written: answers to pings of a
/// coordinator that does not read them.
const WRITE_SLACK: usize = 1 << 20;

/// Reason why no link was established. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The address cannot be used.
    #[error("{0}")]
    Url(String),
    /// The TLS set-up cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A connection was accepted and ended before the link was established.
    #[error("cannot reach {at}: {why}")]
    Broken {
        /// Host and port.
        at: String,
        /// The system's error.
        why: String,
    },
    /// No connection was accepted at the address.
    #[error("cannot reach {at}: {why}")]
    Unreachable {
        /// Host and port.
        at: String,
        /// The system's error.
        why: String,
    },
    /// The answering process did not prove that it knows the key.
    #[error("{at}: {why}")]
    Unproven {
        /// Host and port.
        at: String,
        /// The problem, and what to do.
        why: String,
    },
    /// The connection broke in the middle of a request.
    #[error("the connection to {at} broke in the middle of a request: {why}")]
    Cut {
        /// Host and port.
        at: String,
        /// The system's error.
        why: String,
    },
    /// The answering process refused the link.
    #[error("{at} answered {status}: {why}")]
    Refused {
        /// Host and port.
        at: String,
        /// HTTP status.
        status: u16,
        /// The text of the answer.
        why: String,
    },
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
type Socket = WebSocketStream<Counted<Box<dyn Io>>>;

/// Dials one coordinator on behalf of one worker.
pub struct Dialler {
    url: Url,
    path: String,
    worker: String,
    /// The key that was given.
    key: Option<String>,
    tls: Option<TlsConnector>,
    /// Session that the coordinator gave this worker, to be named in requests.
    session: Mutex<Option<HeaderValue>>,
    /// File in which a coordinator's proof of knowing the key is recorded, if any.
    note: Option<PathBuf>,
    /// Size limit of bodies on the path to the coordinator.
    pub limit: BodyLimit,
}

impl Dialler {
    /// `url` is the coordinator's (`http`, `https`, `ws` or `wss`); `ca` a PEM file of
    /// authorities to trust instead of the system's.
    ///
    /// # Errors
    /// When the address, key or certificates cannot be used.
    pub fn new(
        url: &str,
        worker: &str,
        key: Option<&str>,
        ca: Option<&Path>,
    ) -> Result<Dialler, DialError> {
        let url = Url::parse(url).map_err(DialError::Url)?;
        let tls = if url.tls { Some(tls::connector(ca).map_err(DialError::Tls)?) } else { None };
        let key = key.map(|k| k.trim().to_owned());
        key.as_deref().map(bearer).transpose()?;
        let path = format!("{}/api/v2/worker/{worker}/ws", url.prefix);
        Ok(Dialler {
            url,
            path,
            worker: worker.into(),
            key,
            tls,
            session: Mutex::default(),
            note: None,
            limit: BodyLimit::default(),
        })
    }

    /// Sets the session that requests name as their worker's from now on; empty: none.
    pub fn set_session(&self, session: &str) {
        let value = HeaderValue::try_from(session).ok().filter(|_| !session.is_empty());
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn session(&self) -> Option<HeaderValue> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes in a file that a coordinator proved to know a key. From then on it has to: one that
    /// says that it is too old to is somebody else.
    pub fn noting(self, file: PathBuf) -> Dialler {
        Dialler { note: Some(file), ..self }
    }

    /// Returns true if keys are sent without TLS to another machine.
    pub fn is_exposed(&self) -> bool {
        self.key.is_some() && !self.url.tls && !local::is_local(&self.url.host)
    }

    /// Opens a connection; with the key to show on it. Where no TLS says who answers, whoever does
    /// has to prove that it knows the key first.
    async fn connect_with_key(&self) -> Result<(Box<dyn Io>, Option<HeaderValue>), DialError> {
        let mut stream = self.connect().await?;
        let Some(credential) = Credential::find(&self.url, self.key.as_deref()) else {
            return Ok((stream, None));
        };
        if self.url.tls {
            return Ok((stream, Some(bearer(&credential.token)?)));
        }
        let at = self.url.authority();
        let asked = prove::ask(&mut *stream, (&at, &self.url.prefix), &credential.token).await;
        let cut = |e: std::io::Error| DialError::Broken { at: at.clone(), why: e.to_string() };
        let (said, over) = asked.map_err(cut)?;
        let unproven = |why: String| DialError::Unproven { at: at.clone(), why };
        match (said, &self.note) {
            (Said::Proof, Some(file)) if !noted(file, &at) => {
                let _ = local::write(file, &at);
            }
            (Said::NoKeys | Said::Nothing, Some(file)) if noted(file, &at) => {
                let why = "whoever listens there does not know the API key, and the coordinator \
                           did; it was not sent. If that was replaced by one without keys, or by \
                           an older version, remove";
                return Err(unproven(format!("{why} {}", file.display())));
            }
            _ => {}
        }
        let key = credential.after(said, &at).map_err(unproven)?;
        let key = key.map(bearer).transpose()?;
        if over {
            stream = self.connect().await?;
        }
        Ok((stream, key))
    }

    /// Opens a TCP connection within this time.
    async fn reach(&self, limit: Duration) -> Result<TcpStream, String> {
        let connect = TcpStream::connect((self.url.host.as_str(), self.url.port));
        match tokio::time::timeout(limit, connect).await {
            Ok(stream) => stream.map_err(|e| e.to_string()),
            Err(_) => Err(format!("nothing answered within {} s", limit.as_secs())),
        }
    }

    /// Returns true if a TCP connection is accepted at the address. Uses neither TLS nor a request.
    pub async fn probe(&self) -> bool {
        self.reach(PROBE_LIMIT).await.is_ok()
    }

    /// Opens a connection: TCP, and TLS where it is asked for.
    async fn connect(&self) -> Result<Box<dyn Io>, DialError> {
        let at = self.url.authority();
        let unreachable = |why: String| DialError::Unreachable { at: at.clone(), why };
        let stream = self.reach(CONNECT_LIMIT).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        let Some(connector) = &self.tls else { return Ok(Box::new(stream)) };
        let name = tls::server_name(&self.url.host).map_err(DialError::Tls)?;
        let stream = connector.connect(name, stream).await;
        Ok(Box::new(stream.map_err(|e| DialError::Tls(tls::advice(&at, &e)))?))
    }

    /// Opens a link.
    ///
    /// # Errors
    /// [`DialError`]; the caller limits the time.
    pub async fn dial(&self) -> Result<(Sender, Receiver), DialError> {
        let at = self.url.authority();
        let (stream, key) = self.connect_with_key().await?;
        let stream = Counted::new(stream);
        let progress = stream.progress();
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let uri = format!("{scheme}://{at}{}", self.path);
        let mut request =
            uri.into_client_request().map_err(|e| DialError::Url(format!("{at}: {e}")))?;
        if let Some(key) = key {
            request.headers_mut().insert("authorization", key);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(MAX_MESSAGE + WRITE_SLACK)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => {
                let (sink, stream) = socket.split();
                let packing = Packing::default();
                Ok((Sender { sink, packing }, Receiver { stream, progress }))
            }
            Err(tungstenite::Error::Http(response)) => {
                let status = response.status().as_u16();
                let body = response.body().as_deref().unwrap_or_default();
                let why = match serde_json::from_slice::<Problem>(body) {
                    Ok(problem) => format!("{}: {}", problem.title, problem.detail),
                    Err(_) => plain(status).into(),
                };
                Err(DialError::Refused { at, status, why })
            }
            Err(error) => Err(DialError::Broken {
                at,
                why: format!("{error}; is it an Outlast coordinator?"),
            }),
        }
    }
}

/// Returns true if the coordinator at this address has proved before that it knows a key.
fn noted(file: &Path, at: &str) -> bool {
    local::read(file).is_some_and(|noted| noted == at)
}

fn bearer(token: &str) -> Result<HeaderValue, DialError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    value.map_err(|_| DialError::Url("the API key has characters it cannot".into()))
}

fn plain(status: u16) -> &'static str {
    match status {
        401 => "it does not accept this API key; set OUTLAST_API_KEY to a key of role worker",
        403 => "this API key does not allow a worker; make one of role worker",
        404 => "there is no Outlast coordinator at this address",
        426 | 400 => "a proxy in the path does not pass WebSockets",
        502..=504 => "the proxy in front of the coordinator does not reach it",
        _ => "it does not open a link",
    }
}

/// The half of a link that sends.
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    /// Compression of messages.
    pub packing: Packing,
}

impl Sender {
    /// Puts a message into the buffer.
    ///
    /// # Errors
    /// Why the link is broken.
    pub async fn feed(&mut self, kind: Kind) -> Result<(), String> {
        let (data, _) = encode_sized(kind, self.packing);
        self.sink.feed(Message::Binary(data)).await.map_err(|e| e.to_string())
    }
    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// Why the link is broken.
    pub async fn flush(&mut self) -> Result<(), String> {
        self.sink.flush().await.map_err(|e| e.to_string())
    }
    /// Sends a WebSocket ping, and what is in the buffer.
    ///
    /// # Errors
    /// Why the link is broken.
    pub async fn ping(&mut self) -> Result<(), String> {
        let ping = Message::Ping(bytes::Bytes::new());
        self.sink.send(ping).await.map_err(|e| e.to_string())
    }
    /// Says goodbye, for at most a second.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.sink.close()).await;
    }
}

/// The half of a link that receives.
pub struct Receiver {
    stream: SplitStream<Socket>,
    progress: Progress,
}

impl Receiver {
    /// Bytes that have arrived.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
    /// The next message.
    ///
    /// # Errors
    /// Why there is none any more.
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
