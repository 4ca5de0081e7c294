//! The listener: connections and their limits.

use super::host::Host;
use super::place::Places;
use super::problem::Problem;
use super::rights::Rights;
use super::routes::{self, App};
use super::socket::{self, identity, socket_path};
use super::spool::Spool;
use super::token::Tokens;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use outlast_spawn::User;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

/// Time for which a connection may take to say what it wants, also between two requests.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// Time for which a client may leave an answer untaken.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// The most headers.
const MAX_HEADERS: usize = 64;
/// Time for pending requests to finish while the worker ends.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks whether the socket is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Path of the socket, and limits.
#[derive(Debug, Clone)]
pub struct Config {
    /// The socket; see [`socket_path`].
    pub socket: PathBuf,
    /// Folder of bodies on their way to the host; made if absent. Best on the disk of the store.
    pub spool: PathBuf,
    /// The largest body of one upload, in bytes. Paths have no such limit here.
    pub max_upload: u64,
    /// Total bytes of all uploads in the spool.
    pub spool_budget: u64,
    /// The longest wait for the next piece of a body.
    pub body_patience: Duration,
    /// Connections at once; further ones are told to come back. Half of them may wait for control.
    pub max_connections: usize,
    /// Tokens of attempts; none: every client may act for every attempt.
    pub tokens: Option<Arc<Tokens>>,
    /// The user who may connect, and with whose rights files are read and written, if not this
    /// process's own.
    pub rights: Option<Arc<Rights>>,
}

impl Config {
    /// The defaults for a state folder: uploads of 16 GiB, 32 GiB in all, 1024 connections.
    pub fn new(state_dir: &Path) -> Config {
        Config {
            socket: socket_path(state_dir),
            spool: state_dir.join("tmp"),
            max_upload: 16 << 30,
            spool_budget: 32 << 30,
            body_patience: Duration::from_secs(30),
            max_connections: 1024,
            tokens: None,
            rights: None,
        }
    }
}

/// Identity of this server's socket file, until it belongs to another.
type Mine = Arc<Mutex<Option<(u64, u64)>>>;

/// A server that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct LocalServer {
    path: PathBuf,
    identity: Mine,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Listens and serves. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// `AddrInUse` if another worker listens there; otherwise what the file system says.
pub fn serve<H: Host>(config: Config, host: Arc<H>) -> io::Result<LocalServer> {
    let spool = Spool::new(&config.spool, config.max_upload, config.spool_budget)?;
    let owner = config.rights.as_ref().map(|rights| rights.user().clone());
    let listener = UnixListener::from_std(socket::bind(&config.socket, owner.as_ref())?)?;
    let app = App {
        host,
        spool,
        // Of the place, not of this process: the next one clears away what this one leaves.
        places: Arc::new(Places::new(socket::tag(&config.socket), config.rights.clone())),
        rights: config.rights,
        tokens: config.tokens,
        body_patience: config.body_patience,
        polls: Semaphore::new(config.max_connections.div_ceil(2)),
    };
    let router = routes::router(Arc::new(app));
    let (stop, stopped) = watch::channel(false);
    let mine: Mine = Arc::new(Mutex::new(identity(&config.socket)));
    let place = Place { path: config.socket.clone(), mine: Arc::clone(&mine), owner };
    let task = tokio::spawn(run(listener, place, router, config.max_connections, stopped));
    Ok(LocalServer { path: config.socket, identity: mine, stop, task })
}

impl LocalServer {
    /// The value of `OUTLAST_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers what was asked, for a moment, and ends.
    pub async fn shutdown(mut self) {
        self.unlink();
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }

    /// Unless a successor has the place already.
    fn unlink(&mut self) {
        let mine = self.identity.lock().unwrap_or_else(PoisonError::into_inner).take();
        if mine.is_some_and(|mine| identity(&self.path) == Some(mine)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.unlink();
        self.task.abort();
    }
}

/// Place where the server listens.
struct Place {
    path: PathBuf,
    mine: Mine,
    owner: Option<User>,
}

impl Place {
    /// Another listener, if somebody removed the socket: what tidies up folders of temporary files
    /// does so with what is old.
    fn restore(&self) -> Option<UnixListener> {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        // A successor's socket is left alone; and after the end there is nothing to restore.
        if mine.is_none() || identity(&self.path).is_some() {
            return None;
        }
        let path = self.path.display();
        match socket::bind(&self.path, self.owner.as_ref()).and_then(UnixListener::from_std) {
            Ok(listener) => {
                tracing::warn!("the tasks' socket {path} had been removed, and is there again");
                *mine = identity(&self.path);
                Some(listener)
            }
            Err(error) => {
                tracing::debug!("the tasks' socket {path} was removed: {error}");
                None
            }
        }
    }
}

async fn run(
    mut listener: UnixListener,
    place: Place,
    router: Router,
    max_connections: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = stopping(&mut stopped) => break,
            _ = look.tick() => if let Some(restored) = place.restore() {
                listener = restored;
            },
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= max_connections => refuse(&stream),
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), stopped.clone()));
                }
                // Out of descriptors, mostly: leave time for some to be closed.
                Err(error) => {
                    tracing::warn!("a task's connection could not be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(GRACE, all).await;
}

async fn connection(stream: UnixStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_PATIENCE));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let service = TowerToHyperService::new(router);
    let serve = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut serve = std::pin::pin!(serve);
    let result = tokio::select! {
        result = &mut serve => result,
        () = stopping(&mut stopped) => {
            serve.as_mut().graceful_shutdown();
            serve.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a task's connection broke off: {error}");
    }
}

async fn stopping(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Without reading or waiting: as much of the answer as fits at once, which is all of it.
fn refuse(stream: &UnixStream) {
    let problem = Problem::busy("too many connections to this worker; ask again in a moment");
    let json = serde_json::to_string(&problem).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let _ = stream.try_write(text.as_bytes());
}
