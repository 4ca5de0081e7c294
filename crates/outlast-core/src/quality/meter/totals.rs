//! Counts of a worker's link and tasks since the coordinator started.

use crate::coord::Tally;

/// Counts since the coordinator started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Bytes.
    pub bytes: ByteCounts,
    /// Messages.
    pub messages: MessageCounts,
    /// Round-trip times, and their sum in microseconds.
    pub rtt: (u64, u64),
    /// Times that it came back.
    pub reconnects: u64,
    /// Heartbeats that never arrived.
    pub lost: u64,
    /// Milliseconds with a link, up to the end of the last one.
    pub(super) connected_ms: u64,
    /// Compression.
    pub compression: Compression,
    /// Connection attempts, as far as the worker reports failed ones; and accepted ones.
    pub dials: (u64, u64),
    /// Times without a link that ended with a new one: how many, their sum, and the longest, in
    /// milliseconds.
    pub outages: (u64, u64, u64),
    /// Checkpoints that its tasks read back.
    pub restored: u64,
    /// Outcomes of its tasks.
    pub tally: Tally,
}

/// Bytes of a worker's link and beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Bytes from the worker.
    pub up: u64,
    /// Bytes to the worker.
    pub down: u64,
    /// Bytes of data that came beside the link.
    pub bulk: u64,
}

/// Messages of a worker's link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Messages from the worker.
    pub up: u64,
    /// Messages to the worker.
    pub down: u64,
    /// Messages that could not be decoded.
    pub errors: u64,
}

/// Compression of a worker's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compression {
    /// Nanoseconds for compressing, and for decompressing.
    pub nanos: (u64, u64),
    /// Bytes of messages worth compressing, before and after.
    pub bytes: (u64, u64),
}

fn plus(a: &mut (u64, u64), b: (u64, u64)) {
    *a = (a.0 + b.0, a.1 + b.1);
}

fn minus(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 - b.0, a.1 - b.1)
}

impl Totals {
    /// Adds what was counted of another worker.
    pub fn add(&mut self, other: &Totals) {
        plus(&mut self.rtt, other.rtt);
        plus(&mut self.compression.nanos, other.compression.nanos);
        plus(&mut self.compression.bytes, other.compression.bytes);
        plus(&mut self.dials, other.dials);
        let ((n, sum, most), o) = (self.outages, other.outages);
        self.outages = (n + o.0, sum + o.1, most.max(o.2));
        self.restored += other.restored;
        self.connected_ms += other.connected_ms;
        self.tally.merge(&other.tally);
        self.bytes.up += other.bytes.up;
        self.bytes.down += other.bytes.down;
        self.bytes.bulk += other.bytes.bulk;
        self.messages.up += other.messages.up;
        self.messages.down += other.messages.down;
        self.messages.errors += other.messages.errors;
        self.reconnects += other.reconnects;
        self.lost += other.lost;
    }

    /// Returns the counts of the link since `base`; outcomes of tasks are unchanged.
    pub(super) fn since(&self, base: &Totals) -> Totals {
        Totals {
            bytes: ByteCounts {
                up: self.bytes.up - base.bytes.up,
                down: self.bytes.down - base.bytes.down,
                bulk: self.bytes.bulk - base.bytes.bulk,
            },
            messages: MessageCounts {
                up: self.messages.up - base.messages.up,
                down: self.messages.down - base.messages.down,
                errors: self.messages.errors - base.messages.errors,
            },
            rtt: minus(self.rtt, base.rtt),
            reconnects: self.reconnects - base.reconnects,
            lost: self.lost - base.lost,
            compression: Compression {
                nanos: minus(self.compression.nanos, base.compression.nanos),
                bytes: minus(self.compression.bytes, base.compression.bytes),
            },
            dials: minus(self.dials, base.dials),
            ..*self
        }
    }
}
