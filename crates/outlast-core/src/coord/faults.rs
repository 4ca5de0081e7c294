//! Faults that a worker reports of its machine.

use crate::Millis;
use std::sync::Arc;

/// Faults that a worker reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// Fault and reason, after the worker's name: "cannot write its store: No space left on device".
    pub says: String,
    /// The parts that do not work, as words.
    pub sources: Vec<&'static str>,
    /// True if the worker gets no work.
    pub unfit: bool,
    /// Unix time in milliseconds of the first report.
    pub since: i64,
}

/// With what the core needs to judge them.
#[derive(Debug)]
pub(super) struct Unable {
    pub faults: Arc<Faults>,
    pub since: Millis,
    /// True if its store cannot be written.
    pub store: bool,
}
