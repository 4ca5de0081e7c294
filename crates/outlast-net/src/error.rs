//! The errors of dialling.

/// The reason why there is no link. The text says what to do.
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
        /// The system's reason.
        why: String,
    },
    /// No connection was accepted at the address.
    #[error("cannot reach {at}: {why}")]
    Unreachable {
        /// Host and port.
        at: String,
        /// The system's reason.
        why: String,
    },
    /// The answering process did not prove that it knows the key.
    #[error("{at}: {why}")]
    Unproven {
        /// Host and port.
        at: String,
        /// The mistake, and what to do.
        why: String,
    },
    /// The connection broke in the middle of a request.
    #[error("the connection to {at} broke in the middle of a request: {why}")]
    Cut {
        /// Host and port.
        at: String,
        /// The system's reason.
        why: String,
    },
    /// The answering process refused the link.
    #[error("{at} answered {status}: {why}")]
    Refused {
        /// Host and port.
        at: String,
        /// The status of HTTP.
        status: u16,
        /// The text of the answer.
        why: String,
    },
}
