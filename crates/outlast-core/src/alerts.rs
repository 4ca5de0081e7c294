//! Alerts: rules, and their evaluation, which neither flaps nor takes a missing sample for a good one.
//! Pure: values and times come in.
//!
//! A rule has two limits. A value beyond the threshold for `hold` fires the alert; a value within the
//! clear limit for `clear_hold` clears it; values in between change nothing.

use crate::Millis;

/// Severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Look at it.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|s| s.as_str() == word)
    }
}

/// Value that a rule evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Times that a worker came back within the last minute.
    Reconnects,
    /// Seconds for which a worker has not come back, against its will.
    ReconnectFailed,
    /// Mean of the newest dozen round-trip times, in milliseconds.
    Latency,
    /// Share of the newest 100 ends of attempts that were successes.
    TaskSuccess,
    /// Compression ratio of recent messages.
    Compression,
    /// Seconds since a worker said that it cannot work.
    Unfit,
    /// Processes with a copy of its state folder that were refused within the last hour.
    Copies,
}

impl Measure {
    /// All measures, in order.
    pub const ALL: [Measure; 7] = [
        Self::Reconnects,
        Self::ReconnectFailed,
        Self::Latency,
        Self::TaskSuccess,
        Self::Compression,
        Self::Unfit,
        Self::Copies,
    ];
    /// The name of its rule.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconnects => "reconnects",
            Self::ReconnectFailed => "reconnect_failed",
            Self::Latency => "latency",
            Self::TaskSuccess => "task_success",
            Self::Compression => "compression",
            Self::Unfit => "unfit",
            Self::Copies => "copies",
        }
    }
    /// Describes the measure, with its unit.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Reconnects => "times that it came back within a minute",
            Self::ReconnectFailed => "seconds without a link, against its will",
            Self::Latency => "mean round-trip time in milliseconds",
            Self::TaskSuccess => "share of its newest 100 ended tasks that succeeded",
            Self::Compression => "compression ratio of its messages",
            Self::Unfit => "seconds since its machine is at fault: its disk, its processes",
            Self::Copies => {
                "processes with a copy of its state folder that were refused, the last one within an hour"
            }
        }
    }
    /// Returns the mark of its alerts in the log.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Reconnects | Self::ReconnectFailed => "RECONNECT",
            Self::Latency => "CONNECT",
            Self::TaskSuccess => "TASK",
            Self::Compression => "COMPRESS",
            Self::Unfit => "UNFIT",
            Self::Copies => "SECURITY",
        }
    }
}

/// Condition of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Value that it evaluates.
    pub measure: Measure,
    /// Values above the threshold are bad; else those below it.
    pub above: bool,
    /// Beyond this it is bad.
    pub threshold: f64,
    /// Up to this it is good again.
    pub clear: f64,
    /// Time in milliseconds beyond the threshold before the alert fires.
    pub hold: Millis,
    /// Time in milliseconds within the clear limit before the alert is cleared.
    pub clear_hold: Millis,
    /// Fewer samples say nothing.
    pub min_samples: u32,
    /// Severity of an alert.
    pub severity: Severity,
    /// True if the rule is evaluated.
    pub enabled: bool,
    /// True if alerts are logged.
    pub log: bool,
    /// True if alerts are sent to the webhook, if there is one.
    pub webhook: bool,
}

impl Rule {
    /// The rules of the replaced system, with limits that keep them from flapping.
    pub fn of(measure: Measure) -> Rule {
        use Severity::{Critical, Info, Warning};
        let (above, threshold, clear, hold, clear_hold, min_samples, severity) = match measure {
            Measure::Reconnects => (true, 3.0, 1.0, 0, 30_000, 1, Warning),
            Measure::ReconnectFailed => (true, 60.0, 0.0, 0, 5_000, 1, Critical),
            Measure::Latency => (true, 200.0, 150.0, 10_000, 30_000, 3, Warning),
            Measure::TaskSuccess => (false, 0.95, 0.97, 0, 10_000, 20, Critical),
            Measure::Compression => (false, 1.5, 1.6, 60_000, 60_000, 20, Info),
            Measure::Unfit => (true, 0.5, 0.0, 0, 5_000, 1, Critical),
            Measure::Copies => (true, 0.0, 0.0, 0, 0, 1, Critical),
        };
        Rule {
            measure,
            above,
            threshold,
            clear,
            hold,
            clear_hold,
            min_samples,
            severity,
            enabled: true,
            log: true,
            webhook: true,
        }
    }

    /// Checks that the limits can be used.
    pub fn check(&self) -> Result<(), String> {
        let (name, word) = (self.measure.name(), if self.above { "above" } else { "below" });
        if !self.threshold.is_finite() || !self.clear.is_finite() {
            return Err(format!("{name}: the limits must be numbers"));
        }
        let good =
            if self.above { self.clear <= self.threshold } else { self.clear >= self.threshold };
        if good {
            return Ok(());
        }
        Err(format!(
            "{name}: clear = {} cannot be {word} the threshold of {}",
            self.clear, self.threshold
        ))
    }

    fn is_bad(&self, value: f64) -> bool {
        if self.above { value > self.threshold } else { value < self.threshold }
    }
    fn is_good(&self, value: f64) -> bool {
        if self.above { value <= self.clear } else { value >= self.clear }
    }
    fn worse(&self, a: f64, b: f64) -> f64 {
        if self.above { a.max(b) } else { a.min(b) }
    }
}

/// Phase of a rule for one worker; none: no violation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Violated since this time, and not firing yet.
    Pending(Millis),
    /// The alert is firing.
    Firing {
        /// The worst value so far.
        worst: f64,
        /// Good since then, if it is.
        good_since: Option<Millis>,
    },
}

/// Change to report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// The alert fires, with this value.
    Fired(f64),
    /// With the worst value while it stood.
    Cleared(f64),
}

/// Judges a value (with its number of samples; none: nothing was measured) at a time.
pub fn judge(
    rule: &Rule,
    phase: Option<Phase>,
    sample: Option<(f64, u32)>,
    now: Millis,
) -> (Option<Phase>, Option<Change>) {
    let value = sample.filter(|(v, n)| *n >= rule.min_samples && !v.is_nan()).map(|(v, _)| v);
    match (phase, value) {
        (None | Some(Phase::Pending(_)), None) => (None, None),
        (None | Some(Phase::Pending(_)), Some(v)) if !rule.is_bad(v) => (None, None),
        (None | Some(Phase::Pending(_)), Some(v)) => {
            let since = match phase {
                Some(Phase::Pending(since)) => since,
                _ => now,
            };
            if now.saturating_sub(since) >= rule.hold {
                (Some(Phase::Firing { worst: v, good_since: None }), Some(Change::Fired(v)))
            } else {
                (Some(Phase::Pending(since)), None)
            }
        }
        // No news is no good news.
        (Some(Phase::Firing { worst, .. }), None) => {
            (Some(Phase::Firing { worst, good_since: None }), None)
        }
        (Some(Phase::Firing { worst, good_since }), Some(v)) if rule.is_good(v) => {
            let since = good_since.unwrap_or(now);
            if now.saturating_sub(since) >= rule.clear_hold {
                (None, Some(Change::Cleared(worst)))
            } else {
                (Some(Phase::Firing { worst, good_since: Some(since) }), None)
            }
        }
        (Some(Phase::Firing { worst, .. }), Some(v)) => {
            let worst = rule.worse(worst, v);
            (Some(Phase::Firing { worst, good_since: None }), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The changes that a series leads to, one value a second; `None` is no sample.
    fn run(rule: &Rule, series: &[Option<f64>]) -> Vec<(usize, Change)> {
        let (mut phase, mut told) = (None, Vec::new());
        for (second, value) in series.iter().enumerate() {
            let sample = value.map(|v| (v, 100));
            let (next, change) = judge(rule, phase, sample, second as Millis * 1000);
            phase = next;
            told.extend(change.map(|c| (second, c)));
        }
        told
    }

    fn series(parts: &[(f64, usize)]) -> Vec<Option<f64>> {
        let part = |(v, n): &(f64, usize)| vec![(!v.is_nan()).then_some(*v); *n];
        parts.iter().flat_map(part).collect()
    }

    #[test]
    fn each_rule_fires_and_clears_as_its_table_says() {
        use Change::{Cleared, Fired};
        let none = f64::NAN;
        type Case<'a> = (Measure, &'a [(f64, usize)], &'a [(usize, Change)]);
        let cases: &[Case<'_>] = &[
            // Above 3 a minute at once; between the limits it stands; cleared 30 s after it is good.
            (
                Measure::Reconnects,
                &[(3.0, 5), (4.0, 3), (6.0, 2), (2.0, 50), (1.0, 40)],
                &[(5, Fired(4.0)), (90, Cleared(6.0))],
            ),
            (
                Measure::ReconnectFailed,
                &[(60.0, 1), (61.0, 1), (80.0, 1), (0.0, 10)],
                &[(1, Fired(61.0)), (8, Cleared(80.0))],
            ),
            // 9 s are too short; 10 s are not.
            (Measure::Latency, &[(100.0, 5), (250.0, 9), (100.0, 60)], &[]),
            (
                Measure::Latency,
                &[(250.0, 20), (180.0, 100), (140.0, 20), (180.0, 1), (140.0, 40)],
                &[(10, Fired(250.0)), (171, Cleared(250.0))],
            ),
            // While nothing is measured it stands, and the time is not counted as good.
            (
                Measure::Latency,
                &[(300.0, 12), (100.0, 20), (none, 500), (100.0, 31)],
                &[(10, Fired(300.0)), (562, Cleared(300.0))],
            ),
            (
                Measure::TaskSuccess,
                &[(0.95, 5), (0.94, 1), (0.9, 1), (0.96, 30), (0.98, 20)],
                &[(5, Fired(0.94)), (47, Cleared(0.9))],
            ),
            (Measure::Compression, &[(1.4, 59), (1.5, 1), (1.4, 60), (none, 9)], &[]),
            (Measure::Compression, &[(1.4, 61)], &[(60, Fired(1.4))]),
            // At once, and cleared once it has worked for a while. Away it tells nothing.
            (
                Measure::Unfit,
                &[(0.0, 3), (1.0, 1), (2.0, 1), (none, 9), (0.0, 4), (1.0, 1), (0.0, 9)],
                &[(3, Fired(1.0)), (24, Cleared(2.0))],
            ),
        ];
        for (measure, parts, want) in cases {
            assert_eq!(run(&Rule::of(*measure), &series(parts)), *want, "{measure:?} {parts:?}");
        }
    }

    #[test]
    fn too_few_samples_say_nothing() {
        let rule = Rule::of(Measure::TaskSuccess);
        assert_eq!(judge(&rule, None, Some((0.0, 19)), 0), (None, None));
        assert!(matches!(judge(&rule, None, Some((0.0, 20)), 0).1, Some(Change::Fired(_))));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        assert!(Measure::ALL.iter().all(|m| Rule::of(*m).check().is_ok()));
        let wrong = Rule { clear: 300.0, ..Rule::of(Measure::Latency) };
        assert!(wrong.check().unwrap_err().contains("clear = 300 cannot be above"));
        let wrong = Rule { clear: 0.5, ..Rule::of(Measure::TaskSuccess) };
        assert!(wrong.check().is_err());
    }

    proptest! {
        /// However the values move, fired and cleared take turns, and neither follows the other
        /// sooner than the rule says.
        #[test]
        fn it_never_flaps_faster_than_its_rule(
            which in 0..Measure::ALL.len(),
            values in proptest::collection::vec(proptest::option::weighted(0.9, 0.0..1.5f64), 1..400),
            hold in 0..20u64,
            clear_hold in 0..20u64,
        ) {
            let base = Rule::of(Measure::ALL[which]);
            let rule = Rule { hold: hold * 1000, clear_hold: clear_hold * 1000, ..base };
            // Around both limits.
            let near = |v: f64| rule.threshold * (0.4 + 0.8 * v);
            let series: Vec<_> = values.iter().map(|v| v.map(near)).collect();
            let told = run(&rule, &series);
            for pair in told.windows(2) {
                let gap = (pair[1].0 - pair[0].0) as u64;
                match (pair[0].1, pair[1].1) {
                    (Change::Fired(_), Change::Cleared(_)) => prop_assert!(gap > 0 && gap >= clear_hold),
                    (Change::Cleared(_), Change::Fired(_)) => prop_assert!(gap > 0 && gap >= hold),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert!(!matches!(told.first(), Some((_, Change::Cleared(_)))));
        }
    }
}
