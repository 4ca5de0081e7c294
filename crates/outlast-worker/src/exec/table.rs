//! The table of running attempts, and of what the supervisor is to do with them.

use super::attempt::Attempt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Running attempts, and requests to the supervisor; guarded by `Engine::table`.
pub(super) struct Table {
    pub running: HashMap<u64, Arc<Attempt>>,
    pub next_key: u64,
    /// No new attempts.
    pub closed: bool,
    /// Attempts with a new stop.
    pub stops: Vec<u64>,
    /// Attempts that are to be paused or resumed.
    pub pauses: Vec<u64>,
    /// A main process ended while its tree was being ended.
    pub look: bool,
    /// The earliest time limit of those that were registered since all were checked.
    pub deadline: Option<Instant>,
    /// Time by which everything that is being ended is killed.
    pub kill_by: Option<Instant>,
    /// The thread wakes then by itself.
    pub wakes: Instant,
    pub exit: bool,
}

impl Table {
    /// A table without attempts.
    pub fn new() -> Self {
        Table {
            running: HashMap::new(),
            next_key: 0,
            closed: false,
            stops: Vec::new(),
            pauses: Vec::new(),
            look: false,
            deadline: None,
            kill_by: None,
            wakes: Instant::now(),
            exit: false,
        }
    }
}
