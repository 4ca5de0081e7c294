//! The reasons for which attempts are stopped.

/// The reason for which a caller stops a running attempt. If the task ended by itself before the first signal, that
/// stays its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// A cancellation: CANCELLED.
    Cancel,
    /// The worker cannot go on with it: INTERRUPTED, or RETURNED if it never started.
    Interrupt,
}

/// The reason for which an attempt is stopped, as its outcome has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    Cancelled,
    Interrupted,
    /// Recalled; only what has not begun is.
    Recalled,
    TimedOut,
    /// Disk use beyond the limit; the text says of what.
    OverDisk(String),
}
