//! Points: what was measured since the last one.

use super::{Mark, Meter, SECONDS, Seconds};
use crate::quality::{Micros, Point, RttSum, TaskSum};
use std::collections::VecDeque;

impl Meter {
    fn connected_ms(&self, now: Micros) -> u64 {
        let open = self.link.as_ref().map_or(0, |l| now.saturating_sub(l.since) / 1000);
        self.totals.connected_ms + open
    }

    /// The point since the mark, which moves to now.
    fn take(&self, mark: Mark, now: Micros) -> (Point, Mark) {
        let (new, old) = (&self.totals, &mark.totals);
        let small = |a: u64, b: u64| u32::try_from(a.saturating_sub(b)).unwrap_or(u32::MAX);
        let connected_ms = self.connected_ms(now);
        let point = Point {
            span_ms: small(now / 1000, mark.at / 1000),
            connected_ms: small(connected_ms, mark.connected_ms),
            rtt: RttSum {
                count: small(new.rtt.0, old.rtt.0),
                us: new.rtt.1 - old.rtt.1,
                max_us: mark.rtt_max_us,
            },
            suspicion: mark.suspicion,
            bytes: (
                new.bytes.up + new.bytes.bulk - old.bytes.up - old.bytes.bulk,
                new.bytes.down - old.bytes.down,
            ),
            messages: small(
                new.messages.up + new.messages.down,
                old.messages.up + old.messages.down,
            ),
            reconnects: small(new.reconnects, old.reconnects),
            lost: small(new.lost, old.lost),
            tasks: TaskSum {
                executed: small(new.tally.executed, old.tally.executed),
                failed: small(new.tally.failed(), old.tally.failed()),
                checkpoints: small(new.tally.checkpoints, old.tally.checkpoints),
                running: self.reported.running,
            },
        };
        let mark =
            Mark { at: now, totals: self.totals, connected_ms, rtt_max_us: 0, suspicion: 0.0 };
        (point, mark)
    }

    /// A second has passed, by the Unix time `second`. Says the suspicion, if there is a link.
    pub fn on_second(&mut self, now: Micros, second: i64) -> Option<f64> {
        let silent = self.link.as_ref().map(|l| now.saturating_sub(l.heard) as f64 / 1000.0);
        let phi = silent.map(|silent| self.suspect(silent));
        if let Some(mut s) = self.seconds.take() {
            let (point, mark) = self.take(s.mark, now);
            s.mark = mark;
            // Seconds that nobody measured are empty, up to a whole ring of them.
            let missed = (second - s.newest - 1).clamp(0, SECONDS as i64);
            for point in std::iter::repeat_n(Point::default(), missed as usize).chain([point]) {
                if s.points.len() == SECONDS {
                    s.points.pop_front();
                }
                s.points.push_back(point);
            }
            s.newest = second;
            self.seconds = Some(s);
        }
        phi
    }

    /// The point of the minute that ends.
    pub fn on_minute(&mut self, now: Micros) -> Point {
        let (point, mark) = self.take(self.minute, now);
        self.minute = mark;
        point
    }

    /// The point of the minute that goes on.
    pub fn this_minute(&self, now: Micros) -> Point {
        self.take(self.minute, now).0
    }

    /// Begins to keep points of seconds, or ends it.
    pub fn keep_seconds(&mut self, now: Micros, second: i64, on: bool) {
        match (on, &self.seconds) {
            (false, _) => self.seconds = None,
            (true, Some(_)) => {}
            (true, None) => {
                let (_, mark) = self.take(Mark::default(), now);
                let points = VecDeque::with_capacity(SECONDS);
                self.seconds = Some(Box::new(Seconds { mark, points, newest: second }));
            }
        }
    }

    /// Returns true if points of seconds are kept.
    pub fn keeps_seconds(&self) -> bool {
        self.seconds.is_some()
    }

    /// Points of seconds and their Unix seconds, oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = (i64, &Point)> {
        let all = self.seconds.as_deref();
        let first = all.map_or(0, |s| s.newest + 1 - s.points.len() as i64);
        (first..).zip(all.into_iter().flat_map(|s| &s.points))
    }
}
