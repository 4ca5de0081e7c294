//! Processes of one worker beside its newest one: former ones, and copies of its state folder.

use super::ids::ConnId;
use crate::Millis;
use std::collections::VecDeque;

/// Older processes of one worker that are remembered.
const FORMER: usize = 4;

/// Processes of a worker beside its newest one.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Older processes that were refused last: their nonces, and their connections then.
    pub former: VecDeque<(u64, u64)>,
    pub newcomer: Option<Newcomer>,
    /// The copy that was refused last.
    pub seen: Option<Copied>,
}

/// A newer process, while the former one still has a link.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub nonce: u64,
    pub since: Millis,
    /// The former process is asked with this heartbeat on this link.
    pub asked: (ConnId, u64),
    /// The former process has answered.
    pub rivalled: bool,
}

/// A copy of a worker's state folder that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Time of the last refusal in Unix milliseconds.
    pub at: i64,
    /// Number of refusals.
    pub times: u64,
    /// The machine that it said it runs on; empty when it did not say.
    pub host: String,
}

impl Rivals {
    /// Returns true if an older process reconnects after it was refused.
    pub fn dials_again(&mut self, nonce: u64, connection: u64) -> bool {
        let known = self.former.iter_mut().find(|(of, _)| *of == nonce);
        if let Some((_, before)) = known {
            return connection > std::mem::replace(before, connection);
        }
        if self.former.len() == FORMER {
            self.former.pop_front();
        }
        self.former.push_back((nonce, connection));
        false
    }
    /// A heartbeat was answered.
    pub fn answered(&mut self, conn: ConnId, seq: u64) {
        if let Some(newcomer) = &mut self.newcomer {
            let (on, asked) = newcomer.asked;
            newcomer.rivalled |= on == conn && seq >= asked;
        }
    }
    /// The copy that was refused last.
    pub fn seen(&self) -> Option<&Copied> {
        self.seen.as_ref()
    }
}
