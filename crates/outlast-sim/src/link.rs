//! The state of a link between a worker and the coordinator.

/// A link, as the network knows it.
pub(crate) struct Link {
    pub worker: usize,
    /// The life of the coordinator's process that it was opened to.
    pub life: u32,
    /// The coordinator knows it.
    pub open: bool,
    /// Messages to the coordinator vanish.
    pub mute_up: bool,
    /// Messages to the worker vanish.
    pub mute_down: bool,
    /// Time at which the last message to the coordinator arrives.
    pub last_up: u64,
    /// Time at which the last message to the worker arrives.
    pub last_down: u64,
}

impl Link {
    /// A new link to this life of the coordinator.
    pub fn new(worker: usize, life: u32, now: u64) -> Link {
        let (last_up, last_down) = (now, now);
        Link { worker, life, open: false, mute_up: false, mute_down: false, last_up, last_down }
    }
}
