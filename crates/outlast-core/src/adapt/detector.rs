//! Failure detector: the heartbeat interval and the timeout. Uses φ-accrual suspicion (as in
//! `quality::phi`) of the next answer, within bounds of the configured values, and the longest
//! silences that ended by themselves.

use super::{Change, Setting};
use crate::Millis;

/// The suspicion at which a silence is too long is 8, as in Akka's detector: the answer is that
/// late once in 10^8 times, 5.612 deviations of a normal distribution.
const DEVIATIONS: f64 = 5.612;
/// Share of a new round-trip time in their mean, and in their deviation where it is less: what
/// was uneven is not even for a few quiet minutes.
const WEIGHT: (f64, f64) = (0.125, 0.02);
/// The deviation is taken to be at least this share of the interval.
const LEAST_DEVIATION: f64 = 0.2;
/// The timeout is never less, or more, of the configured one.
const BOUNDS: (f64, f64) = (0.6, 4.0);
/// A silence that ended may last this much longer the next time.
const MARGIN: f64 = 1.5;
/// Answers in a row before less than what is configured will do; it doubles each time that this
/// was too soon, up to the second.
const CALM: (u32, u32) = (60, 960);
/// A silence that ended is remembered for one to two of these, in milliseconds.
const MEMORY: Millis = 1_800_000;
/// Time in milliseconds: a new link within this time after a silent one was closed may mean that the
/// old one was only slow.
const SOON: Millis = 5_000;
/// Between two times that the timeout is raised on that suspicion alone, in milliseconds; it
/// doubles, up to the second, each time that this did not help.
const REST: (Millis, Millis) = (3_600_000, 86_400_000);
/// Between two improvements, in milliseconds.
const SLOWLY: Millis = 60_000;
/// Without work for so long, beats are half as many.
const IDLE: Millis = 60_000;

#[derive(Debug, Clone, Copy)]
struct Trial {
    timeout: f32,
    at: Millis,
}

/// Failure detector of one side for its links to one peer.
#[derive(Debug, Clone)]
pub struct FailureDetector {
    base: (Millis, Millis),
    adapts: bool,
    now: (Millis, Millis),
    /// Mean and deviation of round-trip times in milliseconds.
    rtt: Option<(f32, f32)>,
    /// Answers since the last trouble, and how many are enough.
    calm: u32,
    enough: u32,
    silences: Silences,
    trials: Trials,
    /// Time of the last change for the better.
    eased: Millis,
    /// Time since which there is no work.
    idle: Option<Millis>,
}

/// The longest silences that ended by themselves.
#[derive(Debug, Clone)]
struct Silences {
    /// In milliseconds, of this half hour and of the one before.
    longest: [u32; 2],
    /// End of this half hour.
    turn: Millis,
}

/// Trials of a longer timeout, on the suspicion that a link that was closed for silence was only slow.
#[derive(Debug, Clone)]
struct Trials {
    current: Option<Trial>,
    not_before: Millis,
    /// Time until the next one where one did not help.
    rest: Millis,
    /// Timeout with which the previous link was closed for silence.
    silent: Option<Millis>,
}

impl FailureDetector {
    /// Interval and timeout as configured, in milliseconds; fixed where it does not adapt.
    pub fn new(interval: Millis, timeout: Millis, adapts: bool, now: Millis) -> FailureDetector {
        FailureDetector {
            base: (interval, timeout),
            adapts,
            now: (interval, timeout),
            rtt: None,
            calm: 0,
            enough: CALM.0,
            silences: Silences { longest: [0; 2], turn: now + MEMORY },
            trials: Trials { current: None, not_before: 0, rest: REST.0, silent: None },
            eased: now,
            idle: None,
        }
    }

    /// (interval, timeout) in milliseconds.
    pub fn current(&self) -> (Millis, Millis) {
        self.now
    }

    /// The timeout where it is longer than configured; else 0.
    pub fn longer(&self) -> Millis {
        if self.now.1 > self.base.1 && !self.is_stretched() { self.now.1 } else { 0 }
    }

    /// Returns true if heartbeats are less frequent because there is no work.
    pub fn is_stretched(&self) -> bool {
        self.now.0 > self.base.0
    }

    /// A heartbeat was answered after so many milliseconds.
    pub fn answered(&mut self, rtt: Millis) {
        let ms = rtt as f64;
        let (mean, dev) = match self.rtt {
            None => (ms, ms / 2.0),
            Some((mean, dev)) => {
                let (mean, dev) = (f64::from(mean), f64::from(dev));
                let off = (ms - mean).abs();
                let weight = if off > dev { WEIGHT.0 } else { WEIGHT.1 };
                (mean + WEIGHT.0 * (ms - mean), dev + weight * (off - dev))
            }
        };
        self.rtt = Some((mean as f32, dev as f32));
        self.calm = self.calm.saturating_add(1);
        self.trials.silent = None;
    }

    /// A silence of so long ended, and the link with it did not.
    pub fn survived(&mut self, silence: Millis, now: Millis) {
        if silence * 2 <= self.now.0 * 3 {
            return;
        }
        self.remember(now);
        self.silences.longest[0] =
            self.silences.longest[0].max(u32::try_from(silence).unwrap_or(u32::MAX));
        if silence > self.now.0 * 2 {
            self.calm = 0;
        }
        if self.trials.current.is_some_and(|t| silence * 3 / 2 >= t.timeout as Millis) {
            (self.trials.current, self.trials.rest) = (None, REST.0);
        }
    }

    /// The link ended; because of silence, or otherwise.
    pub fn lost(&mut self, silent: bool) {
        self.calm = 0;
        self.trials.silent = silent.then_some(self.now.1);
    }

    /// Records a new link, `outage` milliseconds after the previous one was closed.
    pub fn back(&mut self, outage: Millis, now: Millis) {
        let Some(timeout) = self.trials.silent.take() else { return };
        if outage > SOON {
            // The network was away, and not slow.
            self.trials.current = None;
            return;
        }
        if self.trials.current.take().is_some() {
            // It is not slow: links that fall silent stay so, and are replaced at once.
            self.trials.not_before = now + self.trials.rest;
            (self.trials.rest, self.enough) = ((self.trials.rest * 2).min(REST.1), CALM.0);
        } else if now >= self.trials.not_before {
            if timeout < self.base.1 {
                self.enough = (self.enough * 2).min(CALM.1);
            }
            let timeout = timeout.max(self.base.1) as f32 * MARGIN as f32;
            self.trials.current = Some(Trial { timeout, at: now });
        }
    }

    fn remember(&mut self, now: Millis) {
        if now >= self.silences.turn {
            let long_ago = now >= self.silences.turn + MEMORY;
            self.silences.longest = [0, if long_ago { 0 } else { self.silences.longest[0] }];
            self.silences.turn = now + MEMORY;
        }
        if self.trials.current.is_some_and(|t| now >= t.at + REST.0) {
            self.trials.current = None;
        }
    }

    /// Recomputes interval and timeout, when a heartbeat is sent or something happened. `busy`: the peer
    /// has, or does, work for which an early discovery of its loss matters.
    pub fn decide(&mut self, busy: bool, now: Millis) -> Option<Change> {
        if !self.adapts {
            return None;
        }
        self.remember(now);
        let calm = self.calm >= self.enough;
        self.idle = if busy { None } else { self.idle.or(Some(now)) };
        let idle = calm && self.idle.is_some_and(|at| now >= at + IDLE);
        let interval = if idle { self.base.0.saturating_mul(2) } else { self.base.0 };
        let (wanted, why) = self.wanted(interval, calm);
        let old = self.now;
        let paced = interval != old.0;
        let (longer, shorter) = (wanted > old.1 + old.1 / 20, wanted < old.1 - old.1 / 5);
        let wait = !paced && now < self.eased + SLOWLY;
        if !paced && (!(longer || shorter) || (shorter && wait)) {
            return None;
        }
        if !longer {
            self.eased = now;
        }
        self.now = (interval, wanted);
        let words = |(interval, timeout): (Millis, Millis)| {
            format!("every {} s, silent after {} s", seconds(interval), seconds(timeout))
        };
        let why = match (paced, idle) {
            (true, true) => "nothing runs there, and the link is calm".into(),
            (true, false) => format!("it is needed again; {}", self.because(why)),
            _ => self.because(why),
        };
        Some(Change {
            setting: Setting::Heartbeat,
            from: words(old),
            to: words(self.now),
            why,
            configured: self.now == self.base,
            minor: paced,
        })
    }

    /// The timeout, and what it comes from.
    fn wanted(&self, interval: Millis, calm: bool) -> (Millis, &'static str) {
        let base = self.base.1 as f64;
        let (mean, dev) = self.rtt.map_or((0.0, 0.0), |(m, d)| (f64::from(m), f64::from(d)));
        let every = interval as f64;
        let expected = every + mean + DEVIATIONS * dev.max(every * LEAST_DEVIATION);
        let survived = f64::from(self.silences.longest[0].max(self.silences.longest[1])) * MARGIN;
        let trial = self.trials.current.map_or(0.0, |t| f64::from(t.timeout));
        let configured = if calm { 0.0 } else { base };
        let all = [
            (configured, "configured"),
            (expected, if expected > base { "uneven" } else { "calm" }),
            (survived, "survived"),
            (trial, "trial"),
        ];
        let first = all[0];
        let (most, why) = all.into_iter().fold(first, |a, b| if b.0 > a.0 { b } else { a });
        // Idle links may be twice as quiet, whatever is configured for the others.
        let stretch = interval as f64 / self.base.0.max(1) as f64;
        let ms = most.clamp(base * BOUNDS.0 * stretch, base * BOUNDS.1);
        ((ms / 100.0).round() as Millis * 100, why)
    }

    fn because(&self, why: &str) -> String {
        let (mean, dev) = self.rtt.unwrap_or_default();
        match why {
            "configured" => "as configured: the link has not been calm for long enough".into(),
            "calm" => format!(
                "{} heartbeats in a row were answered, in {mean:.0} ms, give or take {dev:.0}",
                self.calm
            ),
            "uneven" => format!("answers take {mean:.0} ms, give or take {dev:.0}"),
            "survived" => {
                let longest = self.silences.longest[0].max(self.silences.longest[1]);
                format!("a silence of {} s ended by itself", seconds(longest.into()))
            }
            _ => "a link was closed for silence, and the next one was there at once".into(),
        }
    }
}

/// With one decimal where it matters.
fn seconds(ms: Millis) -> String {
    if ms.is_multiple_of(1000) {
        (ms / 1000).to_string()
    } else {
        format!("{:.1}", ms as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: (Millis, Millis) = (5_000, 15_000);

    fn detector() -> FailureDetector {
        FailureDetector::new(BASE.0, BASE.1, true, 0)
    }

    /// Answers `beats` heartbeats, five seconds apart; returns the time afterwards.
    fn calm(p: &mut FailureDetector, from: Millis, beats: u64, busy: bool) -> Millis {
        for n in 1..=beats {
            p.answered(20);
            p.decide(busy, from + n * 5_000);
        }
        from + beats * 5_000
    }

    #[test]
    fn a_calm_link_is_suspected_sooner_and_one_surprise_undoes_it() {
        let mut p = detector();
        let now = calm(&mut p, 0, 59, true);
        assert_eq!(p.current(), BASE, "not calm for long enough");
        let now = calm(&mut p, now, 20, true);
        assert_eq!(p.current(), (5_000, 10_600));
        // Eight seconds are long for it, and not too long.
        p.survived(11_000, now);
        let change = p.decide(true, now).unwrap();
        assert_eq!(p.current(), (5_000, 16_500));
        assert!(change.why.contains("silence of 11 s") && !change.minor, "{change:?}");
        let now = calm(&mut p, now, 600, true);
        assert_eq!(p.current(), (5_000, 16_500), "it is remembered for half an hour and more");
        let now = calm(&mut p, now, 100, true);
        assert_eq!(p.current(), (5_000, 10_600), "and forgotten: {now}");
    }

    #[test]
    fn an_idle_link_beats_half_as_often() {
        let mut p = detector();
        let now = calm(&mut p, 0, 100, false);
        assert_eq!(p.current(), (10_000, 21_200));
        assert!(p.is_stretched());
        let change = p.decide(true, now + 1).unwrap();
        assert!(change.minor, "it comes and goes with the work");
        assert_eq!(p.current(), (5_000, 10_600));
    }

    #[test]
    fn a_slow_link_is_given_more_time_and_a_dead_one_is_not() {
        let mut p = detector();
        // It was closed, and the next one was there at once: the timeout is raised.
        p.lost(true);
        p.back(900, 100_000);
        p.decide(true, 100_000);
        assert_eq!(p.current().1, 22_500);
        // The silence ends this time: that is remembered instead.
        let mut slow = p.clone();
        slow.survived(20_000, 200_000);
        slow.decide(true, 200_000);
        assert_eq!(slow.current().1, 30_000);
        // It does not: back to what is configured, and no more trials for an hour.
        for _ in 0..3 {
            p.lost(true);
            p.back(900, 300_000);
            p.decide(true, 400_000);
        }
        assert_eq!(p.current(), BASE);
        // An outage says nothing of slowness.
        p.lost(true);
        p.back(60_000, 9_000_000);
        p.decide(true, 9_000_000);
        assert_eq!(p.current(), BASE);
    }

    #[test]
    fn uneven_answers_are_waited_for_within_bounds() {
        let (mut p, mut changes) = (detector(), 0);
        for n in 0..200u64 {
            p.answered(if n % 2 == 0 { 200 } else { 9_000 });
            changes += u32::from(p.decide(true, n * 5_000).is_some());
        }
        assert!(changes <= 8, "it flaps: {changes}");
        let (interval, timeout) = p.current();
        assert!(interval == 5_000 && (25_000..45_000).contains(&timeout), "{timeout}");
        p.survived(50_000, 1_000_000);
        p.decide(true, 1_000_000);
        assert_eq!(p.current().1, 60_000, "never more than four times");
        let mut pinned = FailureDetector::new(BASE.0, BASE.1, false, 0);
        calm(&mut pinned, 0, 1_000, false);
        assert_eq!((pinned.decide(false, 9_999_999), pinned.current()), (None, BASE));
        // No overflow, whatever is configured.
        let mut endless = FailureDetector::new(u64::MAX / 4, u64::MAX / 4, true, 0);
        endless.survived(1_000, 5);
        endless.decide(true, 10);
        assert!(endless.current().1 > 1 << 60);
    }

    #[test]
    fn the_timeout_has_a_floor_and_grows_shorter_slowly() {
        let mut p = FailureDetector::new(5_000, 60_000, true, 0);
        calm(&mut p, 0, 100, true);
        assert_eq!(p.current().1, 36_000, "0.6 times what is configured");
        let mut p = detector();
        (0..60).for_each(|_| p.answered(20));
        assert!(p.decide(true, 30_000).is_none());
        assert!(p.decide(true, 61_000).is_some());
    }
}
