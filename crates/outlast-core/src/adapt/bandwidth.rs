//! Bandwidth policy: compression, states and checkpoints on narrow links, and more checkpoints on
//! unsteady ones.

use super::{Change, Pins, Setting};
use crate::Millis;
use outlast_model::packing::Packing;
use std::collections::VecDeque;

/// Bytes per second below which a link counts as narrow, and as thin.
const BELOW: [f64; 2] = [512_000.0, 64_000.0];
/// Samples in a row that say so.
const ENTER: u32 = 2;
/// To be wider again it must carry this much more, for so long, in milliseconds.
const LEAVE: (f64, Millis) = (2.0, 60_000);
/// States of tasks may take this share of a link that is not wide.
const STATES: f64 = 0.1;
/// No state waits longer, in milliseconds.
const MOST_WAIT: Millis = 10_000;
/// Number of lost links within a time in milliseconds from which on a worker counts as unsteady.
const UNSTEADY: (usize, Millis) = (3, 600_000);
/// Checkpoints are asked for twice as often then, but not more often than this, in milliseconds.
const LEAST_ASK: Millis = 10_000;
/// Longest time in intervals for which requests are skipped while the last checkpoint is being
/// uploaded.
const MOST_SKIPS: Millis = 4;

/// Capacity of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// Less than 64 kB/s.
    Thin,
    /// Less than 512 kB/s.
    Narrow,
    /// A wide link, or one of unknown capacity.
    Wide,
}

impl Width {
    /// Compression costs processor time once, and saves time on the link.
    pub fn packing(self) -> Packing {
        match self {
            Width::Wide => Packing::default(),
            Width::Narrow => Packing { level: 6, above: 512 },
            Width::Thin => Packing { level: 12, above: 256 },
        }
    }
    fn word(self) -> &'static str {
        match self {
            Width::Thin => "less than 64 kB/s",
            Width::Narrow => "less than 512 kB/s",
            Width::Wide => "enough again",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct BandwidthPolicy {
    pins: Pins,
    width: Width,
    low: u32,
    high_since: Option<Millis>,
    losses: VecDeque<Millis>,
    unsteady: bool,
    /// Time from which on states may be sent again.
    states_after: Millis,
}

impl BandwidthPolicy {
    /// Creates the policy of a link without measurements.
    pub fn new(pins: Pins) -> BandwidthPolicy {
        BandwidthPolicy {
            pins,
            width: Width::Wide,
            low: 0,
            high_since: None,
            losses: VecDeque::new(),
            unsteady: false,
            states_after: 0,
        }
    }

    /// Returns the capacity of the link.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Returns the compression of frames.
    pub fn packing(&self) -> Packing {
        let pinned = self.pins.has(Setting::Compression);
        if pinned { Width::Wide } else { self.width }.packing()
    }

    /// The link carried so many bytes per second just now.
    pub fn learn(&mut self, goodput: f64, now: Millis) -> Vec<Change> {
        let fits = match goodput {
            g if g < BELOW[1] => Width::Thin,
            g if g < BELOW[0] => Width::Narrow,
            _ => Width::Wide,
        };
        let limit = match self.width {
            Width::Thin => BELOW[1] * LEAVE.0,
            _ => BELOW[0] * LEAVE.0,
        };
        let old = self.width;
        if fits < old {
            (self.low, self.high_since) = (self.low + 1, None);
            if self.low >= ENTER {
                (self.width, self.low) = (fits, 0);
            }
        } else if fits > old && goodput >= limit {
            self.low = 0;
            let since = *self.high_since.get_or_insert(now);
            if now >= since + LEAVE.1 {
                (self.width, self.high_since) = (fits, None);
            }
        } else {
            (self.low, self.high_since) = (0, None);
        }
        if self.width == old { Vec::new() } else { self.changes(old) }
    }

    fn changes(&self, old: Width) -> Vec<Change> {
        let why = format!("the link carries {}", self.width.word());
        let mut all = Vec::new();
        let mut add = |setting, from: String, to: String| {
            if !self.pins.has(setting) {
                let configured = self.width == Width::Wide;
                all.push(Change { setting, from, to, why: why.clone(), configured, minor: false });
            }
        };
        let packing = |w: Width| {
            let p = w.packing();
            format!("zstd {} above {} bytes", p.level, p.above)
        };
        add(Setting::Compression, packing(old), packing(self.width));
        let states = |w| if w == Width::Wide { "states at once" } else { "states at a tenth" };
        if (old == Width::Wide) != (self.width == Width::Wide) {
            add(Setting::Telemetry, states(old).into(), states(self.width).into());
        }
        all
    }

    /// Returns the time from which on states may be sent, in milliseconds of `Now::mono`.
    pub fn states_after(&self) -> Millis {
        self.states_after
    }

    /// States of so many bytes were sent.
    pub fn states_sent(&mut self, bytes: usize, goodput: Option<f64>, now: Millis) {
        let spared = self.width != Width::Wide && !self.pins.has(Setting::Telemetry);
        let Some(goodput) = goodput.filter(|_| spared) else { return };
        let wait = bytes as f64 * 1000.0 / (goodput * STATES).max(1.0);
        self.states_after = now + (wait as Millis).min(MOST_WAIT);
    }

    /// The link was lost.
    pub fn lost(&mut self, now: Millis) {
        if self.losses.len() == UNSTEADY.0 {
            self.losses.pop_front();
        }
        self.losses.push_back(now);
    }

    /// Updates whether the link was lost often lately; returns the change, if any.
    pub fn steadiness(&mut self, now: Millis) -> Option<Change> {
        let recent = self.losses.iter().filter(|at| **at + UNSTEADY.1 > now).count();
        // Unsteady at once; steady only once all of it is long ago.
        let unsteady = recent >= UNSTEADY.0 || (self.unsteady && recent > 0);
        let changed = std::mem::replace(&mut self.unsteady, unsteady) != unsteady;
        if !changed || self.pins.has(Setting::Checkpoints) {
            return None;
        }
        let words = ["checkpoints as configured", "checkpoints twice as often"].map(String::from);
        let [calm, often] = words;
        let (from, to) = if unsteady { (calm, often) } else { (often, calm) };
        let why = if unsteady {
            format!("the link was lost {recent} times within {} minutes", UNSTEADY.1 / 60_000)
        } else {
            format!("the link has held for {} minutes", UNSTEADY.1 / 60_000)
        };
        let (setting, configured) = (Setting::Checkpoints, !unsteady);
        Some(Change { setting, from, to, why, configured, minor: false })
    }

    /// Returns true if checkpoints are requested more often, since the link may be lost for good at any
    /// time.
    pub fn is_unsteady(&self) -> bool {
        self.unsteady && !self.pins.has(Setting::Checkpoints)
    }
    /// The interval between checkpoints then, instead of this, both in milliseconds.
    pub fn shortened(interval: Millis) -> Millis {
        (interval / 2).max(LEAST_ASK.min(interval))
    }

    /// Returns true if a request should be skipped, since the last checkpoint (made `waiting` ago) has not
    /// reached the coordinator.
    pub fn skips(&self, interval: Millis, waiting: Option<Millis>) -> bool {
        let spared = self.width != Width::Wide && !self.pins.has(Setting::Checkpoints);
        spared && waiting.is_some_and(|ms| ms < interval.saturating_mul(MOST_SKIPS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_at_once_and_wide_slowly() {
        let mut t = BandwidthPolicy::new(Pins::NONE);
        assert!(t.learn(40_000.0, 0).is_empty(), "one sample says nothing");
        assert_eq!(t.learn(40_000.0, 1_000).len(), 2);
        assert_eq!((t.width(), t.packing().level), (Width::Thin, 12));
        // It flickers about the limit, and stays.
        for n in 0..200u64 {
            let goodput = if n % 2 == 0 { 30_000.0 } else { 100_000.0 };
            assert!(t.learn(goodput, 2_000 + n * 1_000).is_empty());
        }
        let at = 300_000;
        assert!(t.learn(200_000.0, at).is_empty());
        assert!(t.learn(200_000.0, at + 59_000).is_empty());
        let changes = t.learn(200_000.0, at + 60_000);
        assert_eq!((t.width(), changes.len()), (Width::Narrow, 1));
        let _ = (t.learn(5e6, at + 70_000), t.learn(5e6, at + 140_000));
        assert_eq!(t.width(), Width::Wide);
    }

    #[test]
    fn states_take_their_share_and_pins_hold() {
        let mut t = BandwidthPolicy::new("compression".parse().unwrap());
        t.states_sent(64_000, Some(1e6), 0);
        assert_eq!(t.states_after(), 0, "a wide link is not spared");
        let _ = (t.learn(50_000.0, 0), t.learn(50_000.0, 0));
        t.states_sent(500, Some(50_000.0), 1_000);
        assert_eq!(t.states_after(), 1_100);
        t.states_sent(500_000, Some(50_000.0), 1_000);
        assert_eq!(t.states_after(), 11_000);
        assert_eq!(t.packing(), Width::Wide.packing());
        assert!(t.skips(60_000, Some(100_000)) && !t.skips(60_000, Some(240_000)));
        assert!(!t.skips(60_000, None));
    }

    #[test]
    fn an_unsteady_link_asks_for_checkpoints_more_often() {
        let mut t = BandwidthPolicy::new(Pins::NONE);
        for at in [0, 100_000] {
            t.lost(at);
            assert!(t.steadiness(at).is_none());
        }
        t.lost(200_000);
        assert!(t.steadiness(200_000).unwrap().why.contains("3 times within 10 minutes"));
        assert!(t.is_unsteady());
        assert_eq!(
            [300_000, 12_000, 4_000].map(BandwidthPolicy::shortened),
            [150_000, 10_000, 4_000]
        );
        assert!(t.steadiness(750_000).is_none(), "one loss is recent enough");
        assert!(t.steadiness(800_001).unwrap().configured);
        assert!(!t.is_unsteady());
    }
}
