//! The errors of a client, in words that say what to do.

use outlast_wire::api::{PROBLEM_PREFIX, Problem};
use reqwest::StatusCode;

/// The statuses that proxies answer by themselves: a request is too large, needs a login at the proxy, or
/// finds nobody behind it.
pub(crate) const PROXY: [u16; 5] = [407, 413, 502, 503, 504];

/// The reason why a request failed.
///
/// # Examples
/// ```
/// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
/// # common::with_worker(async |client| {
/// use outlast::Error;
///
/// match client.task("no-such-task").await {
///     Err(Error::Problem(problem)) => assert_eq!(problem.word(), "not-found"),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal by the coordinator.
    #[error("{}{}", .0.title, if .0.detail.is_empty() { String::new() } else { format!(": {}", .0.detail) })]
    Problem(Box<Problem>),
    /// The coordinator did not answer.
    #[error("the coordinator at {url} cannot be reached: {why}")]
    Unreachable {
        /// The address where it should be.
        url: String,
        /// The system's reason.
        why: String,
    },
    /// An answer that is not a coordinator's.
    #[error("{url} does not answer as an Outlast coordinator: {why}")]
    Strange {
        /// The address where it should be.
        url: String,
        /// The difference.
        why: String,
    },
    /// Settings of which no client can be made.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// Returns whether it is a problem of this kind.
    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Problem(problem) if problem.word() == word)
    }

    /// The HTTP status, when the coordinator answered.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let error = client.task("no-such-task").await.unwrap_err();
    /// assert_eq!(error.status(), Some(404));
    /// # Ok(())
    /// # });
    /// ```
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }
}

/// A refusal by a proxy.
pub(crate) fn by_proxy(base: &str, via: Option<&str>, status: StatusCode) -> Problem {
    let via = via.unwrap_or("a proxy");
    let code = status.as_u16();
    let detail = match code {
        413 => "the request is more than it lets through (nginx: client_max_body_size 32m)",
        407 => "it wants a name and a password; see HTTP_PROXY and NO_PROXY",
        _ => "it does not reach the coordinator",
    };
    Problem {
        kind: format!("{PROBLEM_PREFIX}proxy"),
        title: format!("{via} on the way to {base} answered {status}"),
        status: code,
        detail: detail.into(),
        conflicts: Vec::new(),
    }
}

/// An error with its causes: reqwest's own text leaves out what matters.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

/// Adds what to do about it, where TLS is the matter.
pub(crate) fn advised(why: String) -> String {
    let says = |word: &str| why.contains(word);
    // The latter two: another authority of the same name is trusted.
    let unknown = ["UnknownIssuer", "BadSignature", "UnsupportedSignature"];
    let hint = if unknown.into_iter().any(says) {
        "; its certificate's authority is not trusted here: give it with --ca"
    } else if says("not valid for name") {
        "; its certificate is for another name: use the name in the certificate"
    } else if says("corrupt message") {
        "; it may not speak TLS: try http://"
    } else if says("invalid HTTP version") {
        "; it may speak TLS: try https://"
    } else {
        ""
    };
    why + hint
}
