//! Liveness of the peer: numbered heartbeats, and silence.

use crate::Millis;
use std::collections::VecDeque;

/// Heartbeats of one side of one connection. Any frame received is a sign of life.
#[derive(Debug, Clone)]
pub struct HeartbeatMonitor {
    interval: Millis,
    timeout: Millis,
    heard: Millis,
    /// Time before which silence does not count, since the timeout was longer until recently.
    fair: Millis,
    beat: Millis,
    seq: u64,
    flying: VecDeque<(u64, Millis)>,
}

/// Unanswered heartbeats remembered for measuring.
const FLYING: usize = 16;

impl HeartbeatMonitor {
    /// Starts at `now`, as if a frame had just arrived; the first beat is due one interval later.
    pub fn new(interval: Millis, timeout: Millis, now: Millis) -> Self {
        let interval = interval.max(1);
        HeartbeatMonitor {
            interval,
            timeout,
            heard: now,
            fair: now,
            beat: now + interval,
            seq: 0,
            flying: VecDeque::new(),
        }
    }
    /// A frame arrived; the milliseconds of silence before it.
    pub fn heard(&mut self, now: Millis) -> Millis {
        let silence = now.saturating_sub(self.heard);
        self.heard = self.heard.max(now);
        silence
    }
    /// Interval and timeout from now on. A silence that was not too long a moment ago gets the
    /// whole of a shorter timeout.
    pub fn set(&mut self, (interval, timeout): (Millis, Millis), now: Millis) {
        let interval = interval.max(1);
        if (interval, timeout) == (self.interval, self.timeout) {
            return;
        }
        if timeout < self.timeout {
            self.fair = now + timeout;
        }
        self.beat = self.beat.min(now + interval);
        (self.interval, self.timeout) = (interval, timeout);
    }
    /// Interval and timeout in milliseconds.
    pub fn pace(&self) -> (Millis, Millis) {
        (self.interval, self.timeout)
    }
    /// Returns true if a silence of this length, which has just ended, is one to learn from.
    pub fn is_notable(&self, silence: Millis) -> bool {
        silence / 3 > self.interval / 2
    }
    /// Returns the time of the last received frame.
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
    /// Returns true if the silence has exceeded the timeout.
    pub fn expired(&self, now: Millis) -> bool {
        now >= self.fair && now.saturating_sub(self.heard) >= self.timeout
    }
    /// Returns the time of the next beat.
    pub fn next_beat(&self) -> Millis {
        self.beat
    }
    /// Returns the time at which a silence that goes on has exceeded the timeout.
    pub fn limit(&self) -> Millis {
        (self.heard + self.timeout).max(self.fair)
    }
    /// Returns the time of the next check.
    pub fn next_wake(&self) -> Millis {
        self.beat.min(self.limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_measures_and_expires() {
        let mut h = HeartbeatMonitor::new(5, 15, 100);
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

    #[test]
    fn a_shorter_patience_begins_now() {
        let mut h = HeartbeatMonitor::new(10, 30, 0);
        h.set((5, 12), 20);
        assert_eq!(h.next_wake(), 10);
        assert!(!h.expired(31) && h.expired(32), "silent since 0, and fair until 32");
        assert_eq!(h.heard(25), 25);
        assert!(h.is_notable(25) && !h.is_notable(7));
        assert!(!h.expired(36) && h.expired(37));
        h.set((5, 40), 36);
        assert!(!h.expired(64) && h.expired(65));
    }

    #[test]
    fn a_shorter_interval_begins_now_and_few_beats_are_remembered() {
        let mut h = HeartbeatMonitor::new(10, 30, 0);
        h.set((3, 30), 2);
        assert_eq!(h.next_wake(), 5);
        (0..100).for_each(|n| _ = h.beat(n * 3));
        assert_eq!(h.flying.len(), FLYING);
    }
}
