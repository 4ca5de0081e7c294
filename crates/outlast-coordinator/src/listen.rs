//! The listening socket: bound again briefly after a crash, with or without TLS.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use outlast_net::pulse::{Counted, Progress};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long an address that is in use is tried again: a crashed predecessor may be going away.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time.
const HANDSHAKES: usize = 256;

pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(addr).await {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
}

/// Reads certificate chain and key (PEM).
pub(crate) fn tls(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let name = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| name(cert, &e))?;
    if chain.is_empty() {
        return Err(name(cert, &"holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| name(key, &e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|e| name(key, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What arrives on the connection of a request.
#[derive(Debug, Clone)]
pub(crate) struct Arrived(pub Progress);

impl Connected<IncomingStream<'_, Plain>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, Plain>) -> Self {
        Arrived(stream.io().progress())
    }
}

impl Connected<IncomingStream<'_, Tls>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        Arrived(stream.io().progress())
    }
}

/// Plain connections, without the delay of small packets.
pub(crate) struct Plain(pub TcpListener);

impl Listener for Plain {
    type Io = Counted<TcpStream>;
    type Addr = SocketAddr;
    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, peer) = accept(&self.0).await;
        (Counted::new(stream), peer)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            // Out of descriptors, mostly: leave time for some to be closed.
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connections after their handshake; a slow one keeps nobody waiting.
pub(crate) struct Tls {
    ready: mpsc::Receiver<(Counted<TlsStream<TcpStream>>, SocketAddr)>,
    addr: SocketAddr,
}

impl Tls {
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Tls> {
        let addr = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(config);
        let (tx, ready) = mpsc::channel(16);
        let permits = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(permit) = permits.clone().acquire_owned().await {
                let (stream, peer) = tokio::select! {
                    accepted = accept(&listener) => accepted,
                    () = tx.closed() => return,
                };
                let (acceptor, tx) = (acceptor.clone(), tx.clone());
                tokio::spawn(async move {
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(tx.send((Counted::new(stream), peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
        });
        Ok(Tls { ready, addr })
    }
}

impl Listener for Tls {
    type Io = Counted<TlsStream<TcpStream>>;
    type Addr = SocketAddr;
    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}
