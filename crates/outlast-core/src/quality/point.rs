//! A point of a worker's history: measurements of one interval, and how points of shorter intervals make one of
//! a longer.

/// Measurements of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Milliseconds of the interval that were measured.
    pub span_ms: u32,
    /// Milliseconds of these with a link.
    pub connected_ms: u32,
    /// Round-trip times.
    pub rtt: RttSum,
    /// The highest suspicion.
    pub suspicion: f32,
    /// Bytes from the worker, and to it.
    pub bytes: (u64, u64),
    /// Messages in both directions.
    pub messages: u32,
    /// Times that it came back.
    pub reconnects: u32,
    /// Heartbeats that never arrived.
    pub lost: u32,
    /// Tasks of the worker.
    pub tasks: TaskSum,
}

/// Round-trip times of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RttSum {
    /// Number of measurements.
    pub count: u32,
    /// Sum of the measurements, in microseconds.
    pub us: u64,
    /// The longest in microseconds.
    pub max_us: u32,
}

/// Tasks of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskSum {
    /// Attempts that ran to an end of their own.
    pub executed: u32,
    /// Tasks of these that did not succeed.
    pub failed: u32,
    /// Checkpoints that took effect.
    pub checkpoints: u32,
    /// Tasks that ran at the end.
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
        sum(&mut self.rtt.count, later.rtt.count);
        sum(&mut self.messages, later.messages);
        sum(&mut self.reconnects, later.reconnects);
        sum(&mut self.lost, later.lost);
        sum(&mut self.tasks.executed, later.tasks.executed);
        sum(&mut self.tasks.failed, later.tasks.failed);
        sum(&mut self.tasks.checkpoints, later.tasks.checkpoints);
        self.rtt.us = self.rtt.us.saturating_add(later.rtt.us);
        self.bytes.0 = self.bytes.0.saturating_add(later.bytes.0);
        self.bytes.1 = self.bytes.1.saturating_add(later.bytes.1);
        self.rtt.max_us = self.rtt.max_us.max(later.rtt.max_us);
        self.suspicion = self.suspicion.max(later.suspicion);
        self.tasks.running = later.tasks.running;
    }
    /// Mean round-trip time in milliseconds.
    pub fn rtt_ms(&self) -> Option<f64> {
        (self.rtt.count > 0).then(|| self.rtt.us as f64 / f64::from(self.rtt.count) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up() {
        let one = Point {
            span_ms: 60_000,
            connected_ms: 60_000,
            rtt: RttSum { count: 12, us: 12_000, max_us: 3_000 },
            suspicion: 0.5,
            bytes: (700, 0),
            tasks: TaskSum { running: 3, ..TaskSum::default() },
            ..Point::default()
        };
        let mut two = one;
        let rtt = RttSum { max_us: 9_000, ..one.rtt };
        let tasks = TaskSum { running: 1, ..one.tasks };
        two.merge(&Point { rtt, tasks, lost: 2, ..one });
        assert_eq!((two.span_ms, two.rtt.count, two.rtt.max_us), (120_000, 24, 9_000));
        assert_eq!((two.bytes.0, two.tasks.running, two.lost), (1400, 1, 2));
        assert_eq!(two.rtt_ms(), Some(1.0));
        assert!(Point { span_ms: 9, ..Point::default() }.is_blank() && !one.is_blank());
    }
}
