//! The status of an agent: its link, and its end.

use outlast_core::stats::ConnectionState;

/// The end of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// True if an error ended it.
    pub failed: bool,
    /// The reason of the end.
    pub reason: String,
}

/// The state of the link, and the reason.
pub type Status = (ConnectionState, String);
