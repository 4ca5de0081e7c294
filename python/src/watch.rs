//! End of tasks in processes of their own: times and means.

use crate::child::{Child, TICK};
use outlast_worker::shell::TaskContext;
use std::time::{Duration, Instant};

/// Level of urgency, as passed to `Pool::hurry`.
pub const INTERRUPT: u8 = 1;
pub const KILL: u8 = 2;

/// Reason for which a process has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Stop,
    Timeout,
}

/// Ends a task that was told to stop, or ran too long, and does not end by itself: it is
/// interrupted after the grace, and its process killed after twice that.
pub struct Watch {
    limit: Option<Instant>,
    grace: Duration,
    looked: Instant,
    asked: Option<Instant>,
    pub why: Option<Why>,
    pub interrupted: bool,
    killed: bool,
}

impl Watch {
    pub fn new(context: &TaskContext) -> Watch {
        let now = Instant::now();
        Watch {
            limit: context.timeout.and_then(|limit| now.checked_add(limit)),
            grace: context.kill_grace,
            looked: now,
            asked: None,
            why: None,
            interrupted: false,
            killed: false,
        }
    }

    pub fn look(&mut self, context: &TaskContext, child: &mut Child, hurry: u8) {
        let now = Instant::now();
        if now.duration_since(self.looked) < TICK / 2 {
            return;
        }
        self.looked = now;
        let late = self.limit.is_some_and(|limit| now >= limit);
        let why = match self.why {
            None if hurry > 0 || context.control().cancel => Some(Why::Stop),
            None if late => Some(Why::Timeout),
            known => known,
        };
        self.why = why;
        let Some(why) = why else { return };
        let asked = *self.asked.get_or_insert(now);
        let waited = now.duration_since(asked);
        // What ran too long has had its time.
        let (first, last) = match why {
            Why::Stop => (self.grace, self.grace * 2),
            Why::Timeout => (Duration::ZERO, self.grace),
        };
        if !self.interrupted && (hurry >= INTERRUPT || waited >= first) {
            self.interrupted = true;
            child.interrupt();
        } else if !self.killed && (hurry >= KILL || (self.interrupted && waited >= last)) {
            self.killed = true;
            child.kill();
        }
    }
}
