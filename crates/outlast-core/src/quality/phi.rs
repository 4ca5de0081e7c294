//! Suspicion by the φ-accrual failure detector (Hayashibara et al., SRDS 2004): how improbable
//! the present silence is, given how evenly heartbeats came before.

use super::Micros;

/// No suspicion is higher.
pub const MAX_PHI: f64 = 40.0;
/// Share of a new interval in the mean: about twenty heartbeats are remembered.
const WEIGHT: f32 = 0.1;
/// The deviation is taken to be at least this share of the mean, and this long in milliseconds:
/// a perfectly even past must not make a small delay an alarm.
const LEAST_DEVIATION: (f32, f32) = (0.2, 100.0);

/// The detector of one link. Learns from heartbeats alone, since other frames come in bursts; any
/// frame ends the silence.
#[derive(Debug, Clone, Copy)]
pub struct Phi {
    /// Milliseconds between heartbeats.
    mean: f32,
    variance: f32,
    /// Time of the last heartbeat; 0: none on this link.
    beat: Micros,
}

impl Phi {
    /// Heartbeats are expected every so many milliseconds; a quarter is the first guess at their
    /// deviation.
    pub fn new(expected: f32) -> Phi {
        let deviation = expected / 4.0;
        Phi { mean: expected, variance: deviation * deviation, beat: 0 }
    }
    /// A new link: the time without one is no interval.
    pub fn restart(&mut self) {
        self.beat = 0;
    }
    /// The next heartbeats are expected so many milliseconds apart, and as evenly as before.
    pub fn expect(&mut self, interval: f32) {
        let share = interval / self.mean.max(1.0);
        self.mean *= share;
        self.variance *= share * share;
    }
    /// A heartbeat came.
    pub fn beat(&mut self, now: Micros) {
        if self.beat > 0 {
            let interval = now.saturating_sub(self.beat) as f32 / 1000.0;
            let off = interval - self.mean;
            self.mean += WEIGHT * off;
            self.variance = (1.0 - WEIGHT) * (self.variance + WEIGHT * off * off);
        }
        self.beat = now.max(1);
    }
    /// The suspicion after so many milliseconds of silence: −log10 of the probability that it
    /// lasts longer. The logistic approximation of the normal distribution is good to 0.0002.
    pub fn suspicion(&self, silent: f64) -> f64 {
        let mean = f64::from(self.mean);
        let least = f64::from((self.mean * LEAST_DEVIATION.0).max(LEAST_DEVIATION.1));
        let deviation = f64::from(self.variance).sqrt().max(least);
        let y = (silent - mean) / deviation;
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        let later = if y > 0.0 { e / (1.0 + e) } else { 1.0 - 1.0 / (1.0 + e) };
        (-later.log10()).clamp(0.0, MAX_PHI)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_grows_with_silence_and_less_where_beats_are_uneven() {
        let (mut even, mut uneven) = (Phi::new(5000.0), Phi::new(5000.0));
        for n in 1..200u64 {
            even.beat(n * 5_000_000);
            uneven.beat(n * 5_000_000 + if n % 2 == 0 { 3_000_000 } else { 0 });
        }
        assert!(even.suspicion(1000.0) < 0.01);
        let at = |s: f64| even.suspicion(s * 1000.0);
        assert!((0.2..0.4).contains(&at(5.0)), "half of all beats come later: {}", at(5.0));
        assert!(at(7.0) > 1.0 && at(8.0) > 2.5 && at(9.0) > at(8.0));
        assert!(uneven.suspicion(8000.0) < 1.0 && at(8.0) > 2.0 * uneven.suspicion(8000.0));
        assert_eq!(even.suspicion(1e9), MAX_PHI);
    }

    #[test]
    fn it_learns_another_pace_and_ignores_outages() {
        let mut phi = Phi::new(5000.0);
        for n in 1..100u64 {
            phi.beat(n * 1_000_000);
        }
        assert!(phi.suspicion(4000.0) > 3.0);
        phi.restart();
        phi.beat(3_600_000_000);
        phi.beat(3_601_000_000);
        assert!(phi.suspicion(4000.0) > 3.0, "the hour without a link is no interval");
    }
}
