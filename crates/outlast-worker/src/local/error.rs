//! The errors of requests of a task, which its author reads.

use std::io;

/// The reason for which a request is not granted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HostError {
    /// The attempt is not this worker's.
    #[error("this worker has no such attempt")]
    NoSuchAttempt,
    /// The task has no checkpoint of this id.
    #[error("there is no checkpoint {0:?}")]
    NoSuchCheckpoint(String),
    /// The data of a checkpoint is damaged here, and there is no other copy.
    #[error("{0}")]
    Damaged(String),
    /// A newer attempt has the task: this one should end.
    #[error("a newer attempt has this task: {0}")]
    Fenced(String),
    /// The attempt has ended.
    #[error("this attempt has ended: {0}")]
    Ended(String),
    /// No room until the coordinator has taken something over. With `retry_after` (seconds) it is
    /// worth asking again, and the client does so.
    #[error("no room: {used} of {budget} bytes are used; {detail}")]
    Full {
        /// The limit, in bytes.
        budget: u64,
        /// The use, in bytes.
        used: u64,
        /// The kind of room, and what to do.
        detail: String,
        /// Seconds after which to try again.
        retry_after: Option<u32>,
    },
    /// The caller is not that attempt.
    #[error("{0}")]
    Denied(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A body above the limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The kind of data.
        what: String,
        /// Bytes.
        limit: u64,
    },
    /// The object of the request is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The worker's fault.
    #[error("{0}")]
    Internal(String),
}

impl HostError {
    /// The error for a file of the *task's*; `what` says what was tried. If it was not the file but the data
    /// to be put there, that is in the error as a [`HostError`].
    pub fn of_file(what: &str, error: &io::Error) -> HostError {
        use io::ErrorKind as K;
        if let Some(own) = HostError::within(error) {
            return own;
        }
        let text = format!("{what}: {error}");
        match error.kind() {
            K::StorageFull | K::QuotaExceeded => HostError::Full {
                budget: 0,
                used: 0,
                detail: format!("the disk is full: {text}"),
                retry_after: None,
            },
            K::NotFound
            | K::PermissionDenied
            | K::NotADirectory
            | K::IsADirectory
            | K::InvalidInput
            | K::InvalidData
            | K::ReadOnlyFilesystem
            | K::InvalidFilename => HostError::Invalid(text),
            K::DirectoryNotEmpty | K::AlreadyExists | K::ResourceBusy => HostError::Conflict(text),
            _ => HostError::Internal(text),
        }
    }
    /// Finds an error of this type that others wrap.
    fn within(error: &io::Error) -> Option<HostError> {
        let mut at: &(dyn std::error::Error + 'static) = error.get_ref()?;
        loop {
            if let Some(own) = at.downcast_ref::<HostError>() {
                return Some(own.clone());
            }
            at = match at.downcast_ref::<io::Error>() {
                Some(inner) => inner.get_ref()?,
                None => at.source()?,
            };
        }
    }
}
