//! Whether the other side lives: heartbeats with sequence numbers, and silence.

use crate::Millis;
use std::collections::VecDeque;

/// Heartbeats of one side of one connection. Any frame received is a sign of life.
#[derive(Debug, Clone)]
pub struct Heart {
    interval: Millis,
    timeout: Millis,
    heard: Millis,
    beat: Millis,
    seq: u64,
    flying: VecDeque<(u64, Millis)>,
}

/// Unanswered heartbeats remembered for measuring.
const FLYING: usize = 16;

impl Heart {
    /// Starts at `now`, as if a frame had just arrived; the first beat is due one interval later.
    pub fn new(interval: Millis, timeout: Millis, now: Millis) -> Self {
        let interval = interval.max(1);
        Heart {
            interval,
            timeout,
            heard: now,
            beat: now + interval,
            seq: 0,
            flying: VecDeque::new(),
        }
    }
    /// A frame arrived.
    pub fn heard(&mut self, now: Millis) {
        self.heard = self.heard.max(now);
    }
    /// When a frame last arrived.
    pub fn last_heard(&self) -> Millis {
        self.heard
    }
    /// The sequence of the heartbeat to send now, if one is due.
    pub fn beat(&mut self, now: Millis) -> Option<u64> {
        if now < self.beat {
            return None;
        }
        self.beat = now + self.interval;
        self.seq += 1;
        if self.flying.len() == FLYING {
            self.flying.pop_front();
        }
        self.flying.push_back((self.seq, now));
        Some(self.seq)
    }
    /// Heartbeats sent so far.
    pub fn sent(&self) -> u64 {
        self.seq
    }
    /// Makes the next beat due at once.
    pub fn beat_soon(&mut self) {
        self.beat = 0;
    }
    /// An answer arrived: the round-trip time in milliseconds, if the question is remembered.
    pub fn reply(&mut self, seq: u64, now: Millis) -> Option<Millis> {
        let at = self.flying.iter().position(|(s, _)| *s == seq)?;
        let sent = self.flying[at].1;
        self.flying.drain(..=at);
        Some(now.saturating_sub(sent))
    }
    /// Whether the silence has lasted too long.
    pub fn expired(&self, now: Millis) -> bool {
        now.saturating_sub(self.heard) >= self.timeout
    }
    /// When to look again.
    pub fn next_wake(&self) -> Millis {
        self.beat.min(self.heard + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_measures_and_expires() {
        let mut h = Heart::new(5, 15, 100);
        assert_eq!(h.beat(104), None);
        assert_eq!(h.beat(105), Some(1));
        assert_eq!(h.reply(1, 109), Some(4));
        assert_eq!(h.reply(1, 110), None);
        assert!(!h.expired(114));
        assert!(h.expired(115));
        h.heard(112);
        assert!(!h.expired(126) && h.expired(127));
        assert_eq!(h.next_wake(), 110);
    }
}
