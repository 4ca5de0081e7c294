//! Times at which a worker does something by itself, and why.

use crate::{Millis, Now};

/// Thing that a worker does when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Opens a link: the delay since the last one has passed.
    Dial,
    /// Has the coordinator's address probed, between two dials.
    Probe,
    /// Ends a dial that has taken too long.
    DialTimeout,
    /// Sends a heartbeat.
    Heartbeat,
    /// Closes a link that has been silent for too long.
    Silence,
    /// Puts starts on record, of attempts that have run for a while.
    RecordStarts,
    /// Requests a checkpoint of a running attempt.
    Checkpoint,
    /// Pauses an attempt that has not made its checkpoint in time.
    Pause,
    /// Does to a running attempt what its task wants done once its reconnect window has passed.
    Lease,
    /// Sends states that waited for their share of a narrow link.
    States,
    /// Reports the store as faulty, since a commit has not returned.
    Commit,
    /// Waits for inputs only: no time is set.
    Never,
}

/// The earliest time at which there is something to do, and the timer that is due then.
pub type Wake = crate::Wake<Timer>;

impl Wake {
    /// No time is set.
    pub const NEVER: Wake = Wake { at: Millis::MAX, why: Timer::Never };

    /// Returns a timer, if it is set.
    pub(super) fn new(at: Option<Millis>, why: Timer) -> Wake {
        at.map_or(Wake::NEVER, |at| Wake { at, why })
    }

    /// Returns the earlier one; of two at once, this.
    pub(super) fn or(self, other: Wake) -> Wake {
        if other.at < self.at { other } else { self }
    }
}

/// Times of the inputs.
#[derive(Debug)]
pub(super) struct Clock {
    /// The time of the newest input, for those that bring none.
    newest: Millis,
    /// The time of the last tick.
    ticked: Millis,
}

impl Clock {
    pub fn new(now: Now) -> Clock {
        Clock { newest: now.mono, ticked: now.mono }
    }
    pub fn newest(&self) -> Millis {
        self.newest
    }
    pub fn ticked(&self) -> Millis {
        self.ticked
    }
    pub fn input(&mut self, now: Now) {
        self.newest = self.newest.max(now.mono);
    }
    pub fn tick(&mut self, now: Now) {
        self.ticked = now.mono;
        self.input(now);
    }
}
