//! The transfer of blobs to and from the coordinator: its errors, and answers as they are understood.

use bytes::Bytes;
use outlast_blob::{BlobError, Hash};
use outlast_net::{Answer, DialError};
use outlast_wire::blobframe::MAX_RAW;

/// The smallest limit on bodies that suffices, in bytes: a chunk with its head.
pub(super) const ONE_CHUNK: usize = MAX_RAW + 128;

/// The reason why a blob was not transferred.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// No connection; worth another try.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The coordinator said no.
    #[error("the coordinator answered {0}: {1}")]
    Refused(u16, String),
    /// A body is too large for the way there, and cannot be made smaller.
    #[error(
        "a request of {0} bytes is more than a proxy in the path lets through (it answered 413): \
         raise its limit on bodies to {ONE_CHUNK} bytes or more (nginx: client_max_body_size), \
         32 MiB if you can; it is tried again every minute"
    )]
    TooLarge(usize),
    /// The coordinator has no such blob.
    #[error("the coordinator does not have it any more")]
    Gone,
    /// The local copy is damaged, and the coordinator cannot replace it.
    #[error("it is damaged here, and the coordinator has no other copy: {0}")]
    Lost(String),
    /// An error of this worker's own store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An answer that does not fit the request.
    #[error("{0}")]
    Strange(String),
}

impl MoveError {
    /// Returns whether no try will ever succeed: the blob is damaged or gone here.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            MoveError::Blob(
                BlobError::Unknown(_)
                    | BlobError::ChunkDamaged { .. }
                    | BlobError::ManifestDamaged { .. }
                    | BlobError::Missing(_)
            )
        )
    }
}

/// The body of a successful answer.
pub(super) fn ok(answer: Answer) -> Result<Bytes, MoveError> {
    match answer.status {
        200..=299 => Ok(answer.body),
        404 => Err(MoveError::Gone),
        status => Err(MoveError::Refused(status, answer.problem().1)),
    }
}

/// Runs `work` on a blocking thread.
pub(super) async fn block<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, MoveError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| MoveError::Strange(e.to_string()))??)
}

/// A hash from its bytes.
pub(super) fn hash(bytes: &[u8]) -> Result<Hash, MoveError> {
    let bytes = bytes.try_into().map_err(|_| MoveError::Strange("no BLAKE3 hash".into()))?;
    Ok(Hash::from_bytes(bytes))
}
