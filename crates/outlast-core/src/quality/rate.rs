//! Amounts that fade: rates and recent sums without a window to keep.

use super::Micros;

/// A sum whose parts fade by half-life-like decay: what came `fade` ago counts 1/e.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    sum: f64,
    at: Micros,
}

impl Rate {
    /// Adds an amount.
    pub fn add(&mut self, amount: f64, now: Micros, fade: Micros) {
        self.sum = self.sum(now, fade) + amount;
        self.at = self.at.max(now);
    }
    /// Returns the faded sum of all amounts.
    pub fn sum(&self, now: Micros, fade: Micros) -> f64 {
        let age = now.saturating_sub(self.at) as f64 / fade as f64;
        self.sum * (-age).exp()
    }
    /// Amount per second, over about `fade`.
    pub fn per_second(&self, now: Micros, fade: Micros) -> f64 {
        self.sum(now, fade) * 1e6 / fade as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate_and_fades() {
        let (fade, mut rate) = (10_000_000, Rate::default());
        for n in 0..1000u64 {
            rate.add(100.0, n * 100_000, fade);
        }
        let now = 99_900_000;
        assert!((rate.per_second(now, fade) - 1000.0).abs() < 10.0);
        assert!(rate.per_second(now + 10 * fade, fade) < 0.1);
        // A clock that seems to go back does no harm.
        rate.add(1.0, 5, fade);
        assert!(rate.sum(now, fade).is_finite());
    }
}
