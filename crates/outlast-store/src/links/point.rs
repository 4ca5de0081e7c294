//! The stored form of a history's point: zeros take no room, and newer versions may add fields.

use outlast_core::quality::{Point, RttSum, TaskSum};
use prost::Message;

/// A twin of [`Point`].
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct StoredPoint {
    #[prost(uint32, tag = "1")]
    span_ms: u32,
    #[prost(uint32, tag = "2")]
    connected_ms: u32,
    #[prost(uint32, tag = "3")]
    rtt_count: u32,
    #[prost(uint64, tag = "4")]
    rtt_us: u64,
    #[prost(uint32, tag = "5")]
    rtt_max_us: u32,
    #[prost(float, tag = "6")]
    suspicion: f32,
    #[prost(uint64, tag = "7")]
    bytes_up: u64,
    #[prost(uint64, tag = "8")]
    bytes_down: u64,
    #[prost(uint32, tag = "9")]
    messages: u32,
    #[prost(uint32, tag = "10")]
    reconnects: u32,
    #[prost(uint32, tag = "11")]
    lost: u32,
    #[prost(uint32, tag = "12")]
    executed: u32,
    #[prost(uint32, tag = "13")]
    failed: u32,
    #[prost(uint32, tag = "14")]
    checkpoints: u32,
    #[prost(uint32, tag = "15")]
    running: u32,
}

impl From<&Point> for StoredPoint {
    fn from(p: &Point) -> StoredPoint {
        StoredPoint {
            span_ms: p.span_ms,
            connected_ms: p.connected_ms,
            rtt_count: p.rtt.count,
            rtt_us: p.rtt.us,
            rtt_max_us: p.rtt.max_us,
            suspicion: p.suspicion,
            bytes_up: p.bytes.0,
            bytes_down: p.bytes.1,
            messages: p.messages,
            reconnects: p.reconnects,
            lost: p.lost,
            executed: p.tasks.executed,
            failed: p.tasks.failed,
            checkpoints: p.tasks.checkpoints,
            running: p.tasks.running,
        }
    }
}

impl From<StoredPoint> for Point {
    fn from(p: StoredPoint) -> Point {
        Point {
            span_ms: p.span_ms,
            connected_ms: p.connected_ms,
            rtt: RttSum { count: p.rtt_count, us: p.rtt_us, max_us: p.rtt_max_us },
            suspicion: p.suspicion,
            bytes: (p.bytes_up, p.bytes_down),
            messages: p.messages,
            reconnects: p.reconnects,
            lost: p.lost,
            tasks: TaskSum {
                executed: p.executed,
                failed: p.failed,
                checkpoints: p.checkpoints,
                running: p.running,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_survive_their_encoding() {
        let rtt = RttSum { count: 12, us: 12_000, max_us: 3_000 };
        let tasks = TaskSum { executed: 5, failed: 2, checkpoints: 9, running: 3 };
        let point = Point {
            span_ms: 60_000,
            connected_ms: 59_000,
            rtt,
            suspicion: 0.5,
            bytes: (700, 800),
            messages: 20,
            reconnects: 1,
            lost: 4,
            tasks,
        };
        let bytes = StoredPoint::from(&point).encode_to_vec();
        assert!(bytes.len() < 64, "{}", bytes.len());
        assert_eq!(Point::from(StoredPoint::decode(&bytes[..]).unwrap()), point);
        // As it was stored before: one field after the other, by tag.
        assert_eq!(bytes[..3], [0x08, 0xe0, 0xd4]);
    }
}
