//! A point of a worker's history: what was measured within one interval, and how points of
//! shorter intervals make one of a longer.

use prost::Message;

/// Measurements of an interval. Its encoding is its stored form: zeros take no room, and newer
/// versions may add fields.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Point {
    /// Milliseconds of the interval that were measured.
    #[prost(uint32, tag = "1")]
    pub span_ms: u32,
    /// Milliseconds of these with a link.
    #[prost(uint32, tag = "2")]
    pub connected_ms: u32,
    /// Round-trip times.
    #[prost(uint32, tag = "3")]
    pub rtt_count: u32,
    /// Sum of the round-trip times in microseconds.
    #[prost(uint64, tag = "4")]
    pub rtt_us: u64,
    /// The longest in microseconds.
    #[prost(uint32, tag = "5")]
    pub rtt_max_us: u32,
    /// The highest suspicion.
    #[prost(float, tag = "6")]
    pub suspicion: f32,
    /// Bytes from the worker.
    #[prost(uint64, tag = "7")]
    pub bytes_up: u64,
    /// Bytes to the worker.
    #[prost(uint64, tag = "8")]
    pub bytes_down: u64,
    /// Messages in both directions.
    #[prost(uint32, tag = "9")]
    pub messages: u32,
    /// Times that it came back.
    #[prost(uint32, tag = "10")]
    pub reconnects: u32,
    /// Heartbeats that never arrived.
    #[prost(uint32, tag = "11")]
    pub lost: u32,
    /// Attempts that ran to an end of their own.
    #[prost(uint32, tag = "12")]
    pub executed: u32,
    /// Tasks of these that did not succeed.
    #[prost(uint32, tag = "13")]
    pub failed: u32,
    /// Checkpoints that took effect.
    #[prost(uint32, tag = "14")]
    pub checkpoints: u32,
    /// Tasks that ran at the end.
    #[prost(uint32, tag = "15")]
    pub running: u32,
}

impl Point {
    /// Returns true if there is nothing to store: the worker was away all the time.
    pub fn is_blank(&self) -> bool {
        *self == Point { span_ms: self.span_ms, ..Point::default() }
    }
    /// Adds the point of an interval that follows within the same longer one.
    pub fn merge(&mut self, later: &Point) {
        let sum = |a: &mut u32, b: u32| *a = a.saturating_add(b);
        sum(&mut self.span_ms, later.span_ms);
        sum(&mut self.connected_ms, later.connected_ms);
        sum(&mut self.rtt_count, later.rtt_count);
        sum(&mut self.messages, later.messages);
        sum(&mut self.reconnects, later.reconnects);
        sum(&mut self.lost, later.lost);
        sum(&mut self.executed, later.executed);
        sum(&mut self.failed, later.failed);
        sum(&mut self.checkpoints, later.checkpoints);
        self.rtt_us = self.rtt_us.saturating_add(later.rtt_us);
        self.bytes_up = self.bytes_up.saturating_add(later.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(later.bytes_down);
        self.rtt_max_us = self.rtt_max_us.max(later.rtt_max_us);
        self.suspicion = self.suspicion.max(later.suspicion);
        self.running = later.running;
    }
    /// Mean round-trip time in milliseconds.
    pub fn rtt_ms(&self) -> Option<f64> {
        (self.rtt_count > 0).then(|| self.rtt_us as f64 / f64::from(self.rtt_count) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up_and_survive_their_encoding() {
        let one = Point {
            span_ms: 60_000,
            connected_ms: 60_000,
            rtt_count: 12,
            rtt_us: 12_000,
            rtt_max_us: 3_000,
            suspicion: 0.5,
            bytes_up: 700,
            running: 3,
            ..Point::default()
        };
        let mut two = one;
        two.merge(&Point { rtt_max_us: 9_000, running: 1, lost: 2, ..one });
        assert_eq!((two.span_ms, two.rtt_count, two.rtt_max_us), (120_000, 24, 9_000));
        assert_eq!((two.bytes_up, two.running, two.lost), (1400, 1, 2));
        assert_eq!(two.rtt_ms(), Some(1.0));
        let bytes = two.encode_to_vec();
        assert!(bytes.len() < 48, "{}", bytes.len());
        assert_eq!(Point::decode(&bytes[..]).unwrap(), two);
        assert!(Point { span_ms: 9, ..Point::default() }.is_blank() && !one.is_blank());
    }
}
