//! The newest round-trip times, and what is said of them.

/// Round-trip times that are kept.
pub const RTT_SAMPLES: usize = 100;

/// The newest round-trip times of a link, in milliseconds. Takes no room before the first.
#[derive(Debug, Clone, Default)]
pub struct RttWindow {
    /// A ring once it is full; `next` is the place of the oldest then.
    samples: Vec<f32>,
    next: u8,
}

/// Summary of round-trip times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rtt {
    /// Number of samples.
    pub samples: u32,
    /// Newest sample.
    pub last: f64,
    /// The shortest.
    pub min: f64,
    /// Half are not longer.
    pub median: f64,
    /// 95th percentile (nearest rank).
    pub p95: f64,
    /// Mean difference between one and the next: RFC 3550's jitter, with a plain mean.
    pub jitter: f64,
    /// Mean.
    pub mean: f64,
}

impl RttWindow {
    /// Adds one, in milliseconds; the oldest makes room.
    pub fn push(&mut self, ms: f32) {
        if self.samples.len() < RTT_SAMPLES {
            if self.samples.len() == self.samples.capacity() {
                // Doubling would end with room for 128.
                let room = if self.samples.is_empty() { 10 } else { RTT_SAMPLES };
                self.samples.reserve_exact(room - self.samples.len());
            }
            self.samples.push(ms);
        } else {
            self.samples[usize::from(self.next)] = ms;
            self.next = ((usize::from(self.next) + 1) % RTT_SAMPLES) as u8;
        }
    }
    /// Returns the newest sample.
    pub fn last(&self) -> Option<f32> {
        self.newest().next()
    }
    /// Iterates from the newest to the oldest sample.
    fn newest(&self) -> impl Iterator<Item = f32> + '_ {
        let (new, old) = self.samples.split_at(usize::from(self.next));
        new.iter().rev().chain(old.iter().rev()).copied()
    }
    /// Mean of the newest `n`, and how many there are.
    pub fn recent(&self, n: usize) -> (f64, u32) {
        let (sum, count) =
            self.newest().take(n).fold((0.0, 0), |(s, c), ms| (s + f64::from(ms), c + 1));
        (if count == 0 { 0.0 } else { sum / f64::from(count) }, count)
    }
    /// Summarizes the samples; none before the first.
    pub fn summary(&self) -> Option<Rtt> {
        let last = f64::from(self.last()?);
        let mut sorted = self.samples.clone();
        sorted.sort_by(f32::total_cmp);
        let n = sorted.len();
        let rank = |q: f64| f64::from(sorted[((q * n as f64).ceil() as usize).clamp(1, n) - 1]);
        let steps = self.newest().zip(self.newest().skip(1));
        let moved: f64 = steps.map(|(a, b)| f64::from((a - b).abs())).sum();
        Some(Rtt {
            samples: n as u32,
            last,
            min: rank(0.0),
            median: rank(0.5),
            p95: rank(0.95),
            jitter: if n > 1 { moved / (n - 1) as f64 } else { 0.0 },
            mean: self.recent(n).0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_hundred_are_summed_up() {
        let mut w = RttWindow::default();
        assert!(w.summary().is_none() && w.last().is_none());
        for n in 1..=150 {
            w.push(n as f32);
        }
        let s = w.summary().unwrap();
        assert_eq!((s.samples, s.min, s.median, s.p95), (100, 51.0, 100.0, 145.0));
        assert_eq!((s.last, s.jitter, s.mean), (150.0, 1.0, 100.5));
        assert_eq!(w.recent(10), (145.5, 10));
        assert_eq!(w.samples.capacity(), RTT_SAMPLES);
    }

    #[test]
    fn a_lone_sample_has_no_jitter() {
        let mut w = RttWindow::default();
        w.push(7.0);
        let s = w.summary().unwrap();
        assert_eq!((s.min, s.median, s.p95, s.jitter), (7.0, 7.0, 7.0, 0.0));
    }
}
