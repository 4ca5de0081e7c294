//! Faults by the clock: `10s cut; 20s heal`, `every 30s cut for 5s`,
//! `random cut for 1s..10s every 20s..60s seed 7`.

use crate::fault::{Span, duration};
use crate::{Faults, Handle, ParseError};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    /// Faults from then on.
    At(Duration, Faults),
    /// Faults again and again.
    Every(Duration, Faults, Duration),
    Random {
        faults: Faults,
        lasts: (Duration, Duration),
        every: (Duration, Duration),
        seed: u64,
    },
}

/// A plan of faults over time. Rules are parted by `;`; where several hold, all of their faults do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule(Vec<Rule>);

/// The faults changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Time since the schedule began.
    pub at: Duration,
    /// The faults that hold now.
    pub faults: Faults,
}

fn range(text: &str) -> Result<(Duration, Duration), ParseError> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (duration(from)?, duration(to)?);
    if from > to {
        return Err(ParseError(format!("{text:?} ends before it begins")));
    }
    Ok((from, to))
}

impl FromStr for Schedule {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut rules = Vec::new();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let words: Vec<&str> = part.split_whitespace().collect();
            rules.push(match words[..] {
                ["every", period, faults, "for", lasts] => {
                    let (period, lasts) = (duration(period)?, duration(lasts)?);
                    if lasts >= period || period.is_zero() {
                        let text = format!("{part:?}: a fault must be shorter than its period");
                        return Err(ParseError(text));
                    }
                    Rule::Every(period, faults.parse()?, lasts)
                }
                ["random", faults, "for", lasts, "every", every, ref rest @ ..] => {
                    let seed = match rest {
                        [] => 0,
                        ["seed", seed] => {
                            seed.parse().map_err(|_| ParseError(format!("{seed:?} is no seed")))?
                        }
                        _ => return Err(ParseError(format!("{part:?}: write seed 7 at the end"))),
                    };
                    let (lasts, every) = (range(lasts)?, range(every)?);
                    if every.1.is_zero() {
                        return Err(ParseError(format!("{part:?}: the pauses are empty")));
                    }
                    Rule::Random { faults: faults.parse()?, lasts, every, seed }
                }
                [at, faults] => Rule::At(duration(at)?, faults.parse()?),
                _ => {
                    return Err(ParseError(format!(
                        "{part:?} is no rule; write `10s cut`, `every 30s cut for 5s` or \
                         `random cut for 1s..10s every 20s..60s seed 7`"
                    )));
                }
            });
        }
        if rules.is_empty() {
            return Err(ParseError("the schedule is empty; write `10s cut; 20s heal`".into()));
        }
        Ok(Schedule(rules))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, rule) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { "; " } else { "" })?;
            match rule {
                Rule::At(at, faults) => write!(f, "{} {faults}", Span(*at)),
                Rule::Every(period, faults, lasts) => {
                    write!(f, "every {} {faults} for {}", Span(*period), Span(*lasts))
                }
                Rule::Random { faults, lasts, every, seed } => write!(
                    f,
                    "random {faults} for {}..{} every {}..{} seed {seed}",
                    Span(lasts.0),
                    Span(lasts.1),
                    Span(every.0),
                    Span(every.1)
                ),
            }?;
        }
        Ok(())
    }
}

/// A rule at work.
struct Active {
    rule: Rule,
    rng: SmallRng,
    /// Time at which it changes next; none: never again.
    next: Option<Duration>,
    on: bool,
}

impl Active {
    fn new(rule: Rule) -> Active {
        let seed = if let Rule::Random { seed, .. } = &rule { *seed } else { 0 };
        let mut rng = SmallRng::seed_from_u64(seed);
        let first = match &rule {
            Rule::At(at, _) => *at,
            Rule::Every(period, ..) => *period,
            Rule::Random { every, .. } => rng.random_range(every.0..=every.1),
        };
        Active { rule, rng, next: Some(first), on: false }
    }
    fn flip(&mut self, at: Duration) {
        self.on = !self.on;
        let wait = match &self.rule {
            Rule::At(..) => {
                self.next = None;
                return;
            }
            Rule::Every(_, _, lasts) if self.on => *lasts,
            Rule::Every(period, _, lasts) => *period - *lasts,
            Rule::Random { lasts, .. } if self.on => self.rng.random_range(lasts.0..=lasts.1),
            Rule::Random { every, .. } => self.rng.random_range(every.0..=every.1),
        };
        self.next = Some(at + wait.max(Duration::from_millis(1)));
    }
}

impl Handle {
    /// Follows a schedule from now on; returns when it has no more changes.
    pub async fn run(&self, schedule: &Schedule, mut on_event: impl FnMut(Event)) {
        let start = Instant::now();
        let mut rules: Vec<Active> = schedule.0.iter().cloned().map(Active::new).collect();
        let mut base = Faults::none();
        while let Some(at) = rules.iter().filter_map(|r| r.next).min() {
            tokio::time::sleep_until(start + at).await;
            for rule in rules.iter_mut().filter(|r| r.next == Some(at)) {
                rule.flip(at);
                if let Rule::At(_, faults) = &rule.rule {
                    base = faults.clone();
                }
            }
            let mut faults = base.clone();
            for rule in rules.iter().filter(|r| r.on) {
                if let Rule::Every(_, more, _) | Rule::Random { faults: more, .. } = &rule.rule {
                    faults = faults.union(more);
                }
            }
            self.set(faults.clone());
            on_event(Event { at, faults });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for text in [
            "10s cut; 20s none",
            "every 30s cut for 5s",
            "random up:delay=50ms~20ms for 1s..10s every 20s..60s seed 7",
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "cut", "every 5s cut for 5s", "random cut for 9s..1s every 1s", "5 cut"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rules_overlap_and_a_finite_schedule_ends() {
        let proxy = crate::Proxy::bind("127.0.0.1:0", "127.0.0.1:9").await.unwrap();
        let (handle, mut seen) = (proxy.handle(), Vec::new());
        let schedule: Schedule = "1s stall; 3s heal".parse().unwrap();
        handle.run(&schedule, |e| seen.push((e.at.as_secs(), e.faults.to_string()))).await;
        assert_eq!(seen, [(1, "stall".to_owned()), (3, "none".to_owned())]);
        let schedule: Schedule = "1s stall; every 2s cut for 1s".parse().unwrap();
        seen.clear();
        let run = handle.run(&schedule, |e| seen.push((e.at.as_secs(), e.faults.to_string())));
        let _ = tokio::time::timeout(Duration::from_millis(4500), run).await;
        let expected = [(1, "stall"), (2, "stall,cut"), (3, "stall"), (4, "stall,cut")]
            .map(|(t, f)| (t, f.to_owned()));
        assert_eq!(seen, expected);
    }
}
