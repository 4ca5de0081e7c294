//! A connection, with or without TLS.

use tokio::io::{AsyncRead, AsyncWrite};

/// The bytes of a connection, both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
