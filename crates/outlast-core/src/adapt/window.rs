//! Send window: limits unacknowledged data to about half a second of the link's capacity, so that urgent
//! frames never wait long behind others.

use super::{Change, Setting};
use crate::Millis;
use outlast_model::packing::BULK_TARGET;
use std::collections::VecDeque;

/// Time in milliseconds that the unacknowledged data may take on the link.
const HORIZON: f64 = 500.0;
/// The least, the first and the most bytes on their way in one lane.
const LEAST: usize = 16 << 10;
const FIRST: usize = 256 << 10;
const MOST: usize = 4 << 20;
/// With this many bytes on their way frames have their usual size.
const USUAL: usize = 4 * BULK_TARGET;
/// No frame is meant to be smaller.
const LEAST_FRAME: usize = 4 << 10;
/// Fewer bytes say little about a link.
const SAMPLE: u64 = 32 << 10;
/// Share of a new sample in the mean.
const WEIGHT: f64 = 0.4;
/// Number of lanes.
const LANES: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct LaneWindow {
    flying: VecDeque<Sent>,
    bytes: usize,
    /// Start of the current period in which data was always in flight, with the bytes acknowledged in it.
    round: Option<Millis>,
    acked: u64,
    /// True if the window limited what was sent.
    full: bool,
}

/// Send window of a link: unacknowledged data of each lane, and the measured goodput.
#[derive(Debug)]
pub struct SendWindow {
    adapts: bool,
    lanes: [LaneWindow; LANES],
    window: usize,
    reported: usize,
    goodput: Option<f64>,
    samples: u64,
}

impl SendWindow {
    /// Creates a window. Without adaptation, frames have their usual size and only the credit limits them.
    pub fn new(adapts: bool) -> SendWindow {
        SendWindow {
            adapts,
            lanes: Default::default(),
            window: FIRST,
            reported: FIRST,
            goodput: None,
            samples: 0,
        }
    }

    /// A new link: nothing is on its way. What the former one carried is the first guess.
    pub fn open(&mut self) {
        self.lanes = Default::default();
    }

    /// Bytes per second that the link carried lately, if there was enough to say.
    pub fn goodput(&self) -> Option<f64> {
        self.goodput
    }

    /// Returns the number of measurements.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The size of the next frame in this lane; none: first what is on its way must arrive.
    pub fn frame(&mut self, lane: usize) -> Option<usize> {
        if !self.adapts {
            return Some(BULK_TARGET);
        }
        let lane = &mut self.lanes[lane];
        // Whatever the size of one record, it goes when nothing else is on its way.
        if lane.bytes > 0 && lane.bytes >= self.window {
            lane.full = true;
            return None;
        }
        Some((self.window / 4).clamp(LEAST_FRAME, BULK_TARGET))
    }

    /// A frame was sent, up to this sequence.
    pub fn sent(&mut self, lane: usize, seq: u64, bytes: usize, now: Millis) {
        let lane = &mut self.lanes[lane];
        if lane.flying.is_empty() {
            (lane.round, lane.acked, lane.full) = (Some(now), 0, false);
        }
        lane.flying.push_back(Sent { seq, bytes });
        lane.bytes += bytes;
    }

    /// Up to this sequence all has arrived.
    pub fn acked(&mut self, lane: usize, seq: u64, now: Millis) -> Option<Change> {
        let lane = &mut self.lanes[lane];
        while let Some(sent) = lane.flying.front().filter(|s| s.seq <= seq) {
            lane.bytes -= sent.bytes;
            lane.acked += sent.bytes as u64;
            lane.flying.pop_front();
        }
        let began = lane.round?;
        let over = lane.flying.is_empty();
        let enough = lane.acked >= SAMPLE.max(self.window as u64 / 2);
        if !over && !enough {
            return None;
        }
        let (bytes, took) = (std::mem::take(&mut lane.acked), now.saturating_sub(began));
        lane.round = (!over).then_some(now);
        self.carried(bytes, took)
    }

    /// Resets a lane whose data is sent again: none of it is in flight.
    pub fn again(&mut self, lane: usize) {
        self.lanes[lane] = LaneWindow::default();
    }

    /// Adds a measurement: `bytes` took `took` milliseconds.
    pub fn carried(&mut self, bytes: u64, took: Millis) -> Option<Change> {
        if bytes < SAMPLE {
            return None;
        }
        let rate = bytes as f64 * 1000.0 / took.max(1) as f64;
        let mean = self.goodput.map_or(rate, |old| old + WEIGHT * (rate - old));
        self.goodput = Some(mean);
        self.samples += 1;
        if !self.adapts {
            return None;
        }
        let wanted = (mean * HORIZON / 1000.0) as usize;
        // Twice as much at a time, so that one good moment does not flood a poor link.
        self.window = wanted.clamp(LEAST, MOST.min(self.window * 2));
        // Reported only if frames change by more than a little.
        let (old, new) = (self.reported.min(USUAL), self.window.min(USUAL));
        if new * 2 > old && new < old * 2 {
            return None;
        }
        self.reported = self.window;
        let words = |window: usize| {
            let frame = (window / 4).clamp(LEAST_FRAME, BULK_TARGET);
            format!("{} kB on their way, frames of {} kB", window >> 10, frame >> 10)
        };
        Some(Change {
            setting: Setting::Batch,
            from: words(old),
            to: words(new),
            why: format!("the link carries {:.0} kB/s", mean / 1000.0),
            configured: new == USUAL,
            minor: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much as it may through a link of so many bytes per second; milliseconds of the
    /// longest time that a byte waited.
    fn through(w: &mut SendWindow, rate: u64, total: u64) -> Millis {
        let (mut now, mut free, mut seq, mut sent, mut worst) = (0, 0, 0, 0, 0);
        let mut arriving: VecDeque<(Millis, u64)> = VecDeque::new();
        while sent < total {
            while let Some(size) = w.frame(0) {
                seq += 1;
                w.sent(0, seq, size, now);
                free = free.max(now) + size as u64 * 1000 / rate;
                worst = worst.max(free - now);
                arriving.push_back((free + 10, seq));
                sent += size as u64;
            }
            let (at, seq) = arriving.pop_front().unwrap();
            now = at;
            let _ = w.acked(0, seq, now);
        }
        for (at, seq) in arriving {
            let _ = w.acked(0, seq, at);
        }
        worst
    }

    #[test]
    fn a_thin_link_is_not_flooded_and_a_wide_one_is_not_held_back() {
        let mut w = SendWindow::new(true);
        through(&mut w, 100_000, 4 << 20);
        assert!((80_000.0..110_000.0).contains(&w.goodput().unwrap()), "{:?}", w.goodput());
        w.open();
        let worst = through(&mut w, 100_000, 4 << 20);
        assert!(worst < 1_000, "{worst} ms behind");
        assert!(w.frame(1).unwrap() <= 16 << 10);
        // It widens again.
        through(&mut w, 50_000_000, 400 << 20);
        assert_eq!(w.frame(1), Some(BULK_TARGET));
        assert!(w.window == MOST, "{}", w.window);
    }

    #[test]
    fn a_lane_that_is_never_acknowledged_holds_up_no_other() {
        let mut w = SendWindow::new(true);
        let mut seq = 0;
        while let Some(size) = w.frame(1) {
            seq += 1;
            w.sent(1, seq, size, 0);
        }
        assert!(w.frame(0).is_some() && w.frame(2).is_some());
        w.again(1);
        assert!(w.frame(1).is_some());
        // One large record goes, whatever the window.
        w.open();
        w.sent(1, 1, MOST * 2, 0);
        assert!(w.frame(1).is_none());
        let _ = w.acked(1, 1, 10);
        assert!(w.frame(1).is_some());
        assert_eq!(SendWindow::new(false).frame(0), Some(BULK_TARGET));
    }

    #[test]
    fn a_change_is_reported_once() {
        let mut w = SendWindow::new(true);
        let changes = (0..50).filter_map(|_| w.carried(100_000, 1_000)).count();
        assert_eq!(changes, 1);
        assert!(w.carried(100, 60_000).is_none(), "too little to say");
    }

    #[test]
    fn a_window_doubles_at_most() {
        let mut w = SendWindow::new(true);
        let _ = w.carried(64 << 20, 100);
        assert_eq!(w.window, 2 * FIRST);
    }
}
