//! The dialler: TCP, TLS, the proof that the coordinator knows the key, and the WebSocket.

use crate::error::DialError;
use crate::io::Io;
use crate::limit::BodyLimit;
use crate::link::{Receiver, Sender};
use crate::pulse::Counted;
use crate::{prove, tls};
use futures_util::StreamExt;
use outlast_wire::Url;
use outlast_wire::api::Problem;
use outlast_wire::frame::{MAX_MESSAGE, Packing};
use outlast_wire::local::{self, Credential, Said};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};

/// Bytes held for reading and for writing by a link that is idle.
const BUFFER: usize = 16 << 10;
/// Time that a TCP connection may take: enough for three of its first packets. Where a network drops
/// them, the system would send them ever more seldom, for minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The same for a probe: time for two.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that may wait to be written beside the message that is being written: answers to pings of
/// a coordinator that reads none.
const WRITE_SLACK: usize = 1 << 20;

/// A dialler of one coordinator on behalf of one worker.
pub struct Dialler {
    pub(crate) url: Url,
    path: String,
    pub(crate) worker: String,
    /// The key that was given.
    key: Option<String>,
    tls: Option<TlsConnector>,
    /// The name that the coordinator gave this worker for its requests.
    session: Mutex<Option<HeaderValue>>,
    /// The file that notes that the coordinator proved to know a key, if any.
    note: Option<PathBuf>,
    /// The limit on bodies on the way there.
    pub limit: BodyLimit,
}

impl Dialler {
    /// A dialler. `url` is the coordinator's (`http`, `https`, `ws` or `wss`); `ca` a PEM file of
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

    /// Sets what requests name as their worker's session from now on; empty: nothing.
    pub fn set_session(&self, session: &str) {
        let value = HeaderValue::try_from(session).ok().filter(|_| !session.is_empty());
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    pub(crate) fn session(&self) -> Option<HeaderValue> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes in a file that a coordinator proved to know a key. From then on it has to: one that
    /// says that it is too old to is somebody else.
    pub fn noting(self, file: PathBuf) -> Dialler {
        Dialler { note: Some(file), ..self }
    }

    /// Returns whether keys go over a network where others may read them.
    pub fn is_exposed(&self) -> bool {
        self.key.is_some() && !self.url.tls && !local::is_local(&self.url.host)
    }

    /// Opens a connection; with the key to show on it. Where no TLS says who answers, whoever does
    /// has to prove that it knows the key first.
    pub(crate) async fn connect_with_key(
        &self,
    ) -> Result<(Box<dyn Io>, Option<HeaderValue>), DialError> {
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

    /// Returns whether something accepts TCP connections at the address. Costs neither TLS nor a request.
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

/// Returns whether the coordinator at this address has proved to know a key before.
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
