//! Faults as people write them: `up:delay=100ms~20ms,bandwidth=32kB`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Reason why a text is no fault, schedule or command. It says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the upstream.
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Refuse,
    Cut,
    HalfOpen,
    Stall,
    Delay(Duration, Duration),
    Bandwidth(u64),
    Corrupt(f64),
    Truncate(u64),
    SlowClose(Duration),
}

const NAMES: [&str; 9] = [
    "refuse",
    "cut",
    "half-open",
    "stall",
    "delay",
    "bandwidth",
    "corrupt",
    "truncate",
    "slow-close",
];

/// A set of faults, each for both ways or one.
///
/// `refuse` resets new connections; `cut` those that are open too; `half-open` swallows bytes
/// silently, and once that ends resets the connections that lost some; `stall` stops forwarding
/// without loss; `delay=50ms~20ms` delays by 50 ms give or take 20, in order;
/// `bandwidth=64kB` limits bytes per second; `corrupt=0.1` flips a bit in one of ten chunks (4 KiB
/// or less); `truncate=1000` resets a connection after so many bytes; `slow-close=2s` passes an
/// end on only later. `up:` or `down:` before a name limits it to one way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Faults(Vec<(Option<Way>, Kind)>);

/// The effects of all faults of one direction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effects {
    pub half_open: bool,
    pub stall: bool,
    pub delay: Option<(Duration, Duration)>,
    pub bandwidth: Option<u64>,
    pub corrupt: f64,
    pub truncate: Option<u64>,
    pub slow_close: Option<Duration>,
}

impl Faults {
    /// No fault.
    pub fn none() -> Self {
        Self::default()
    }
    /// Returns whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
    pub(crate) fn refuses(&self) -> bool {
        self.0.iter().any(|(_, k)| matches!(k, Kind::Refuse | Kind::Cut))
    }
    pub(crate) fn cuts(&self) -> bool {
        self.0.iter().any(|(_, k)| matches!(k, Kind::Cut))
    }
    pub(crate) fn half_open(&self) -> bool {
        self.0.iter().any(|(_, k)| matches!(k, Kind::HalfOpen))
    }
    pub(crate) fn way(&self, way: Way) -> Effects {
        let mut e = Effects::default();
        for (_, kind) in self.0.iter().filter(|(of, _)| of.is_none_or(|of| of == way)) {
            match *kind {
                Kind::Refuse | Kind::Cut => {}
                Kind::HalfOpen => e.half_open = true,
                Kind::Stall => e.stall = true,
                Kind::Delay(base, jitter) => e.delay = Some((base, jitter)),
                Kind::Bandwidth(rate) => e.bandwidth = Some(rate),
                Kind::Corrupt(share) => e.corrupt = share,
                Kind::Truncate(bytes) => e.truncate = Some(bytes),
                Kind::SlowClose(time) => e.slow_close = Some(time),
            }
        }
        e
    }
    /// Adds the faults of both.
    pub fn union(&self, other: &Faults) -> Faults {
        let mut all = self.clone();
        all.0.extend(other.0.iter().filter(|f| !self.0.contains(f)));
        all
    }
}

impl FromStr for Faults {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut faults = Vec::new();
        for word in text.split([',', '+']).map(str::trim) {
            if matches!(word, "none" | "heal") {
                continue;
            }
            let (way, rest) = match word.split_once(':') {
                Some(("up", rest)) => (Some(Way::Up), rest),
                Some(("down", rest)) => (Some(Way::Down), rest),
                Some((other, _)) => {
                    return Err(ParseError(format!(
                        "{other:?} is no direction; write up: or down:"
                    )));
                }
                None => (None, word),
            };
            faults.push((way, kind(rest)?));
        }
        Ok(Faults(faults))
    }
}

fn kind(text: &str) -> Result<Kind, ParseError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text, None),
    };
    let needs = |example: &str| {
        value.ok_or_else(|| ParseError(format!("{name} needs a value, such as {name}={example}")))
    };
    let kind = match name {
        "refuse" => Kind::Refuse,
        "cut" => Kind::Cut,
        "half-open" => Kind::HalfOpen,
        "stall" => Kind::Stall,
        "delay" => {
            let value = needs("50ms~20ms")?;
            let (base, jitter) = value.split_once('~').unwrap_or((value, "0ms"));
            return Ok(Kind::Delay(duration(base)?, duration(jitter)?));
        }
        "bandwidth" => return Ok(Kind::Bandwidth(size(needs("64kB")?)?.max(1))),
        "corrupt" => match value.map(str::parse::<f64>) {
            None => return Ok(Kind::Corrupt(1.0)),
            Some(Ok(share)) if (0.0..=1.0).contains(&share) => return Ok(Kind::Corrupt(share)),
            Some(_) => return Err(ParseError("corrupt needs a share from 0 to 1".into())),
        },
        "truncate" => return Ok(Kind::Truncate(size(needs("1000B")?)?)),
        "slow-close" => return Ok(Kind::SlowClose(duration(needs("2s")?)?)),
        _ => {
            let near = NAMES.iter().min_by_key(|n| strsim::damerau_levenshtein(n, name));
            let all = NAMES.join(", ");
            let near = near.copied().unwrap_or_default();
            let text = format!("unknown fault {name:?}; did you mean {near:?}? Known: {all}");
            return Err(ParseError(text));
        }
    };
    match value {
        None => Ok(kind),
        Some(_) => Err(ParseError(format!("{name} takes no value"))),
    }
}

/// `50ms`, `2s`, `1.5s`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, ParseError> {
    let wrong = || ParseError(format!("{text:?} is no duration; write 50ms, 2s or 1m"));
    let text = text.trim();
    let at = text.find(|c: char| c.is_alphabetic()).ok_or_else(wrong)?;
    let factor = match &text[at..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..at].trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

fn size(text: &str) -> Result<u64, ParseError> {
    let wrong = || ParseError(format!("{text:?} is no size; write 512B, 64kB or 1MB"));
    let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let factor = match &text[at..] {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(wrong()),
    };
    match text[..at].trim().parse::<f64>() {
        Ok(n) if n >= 0.0 && n.is_finite() => Ok((n * factor) as u64),
        _ => Err(wrong()),
    }
}

pub(crate) struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1000.0;
        if ms >= 1000.0 && ms % 1000.0 == 0.0 {
            write!(f, "{}s", ms / 1000.0)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (n, (way, kind)) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            f.write_str(match way {
                Some(Way::Up) => "up:",
                Some(Way::Down) => "down:",
                None => "",
            })?;
            match kind {
                Kind::Refuse => f.write_str("refuse"),
                Kind::Cut => f.write_str("cut"),
                Kind::HalfOpen => f.write_str("half-open"),
                Kind::Stall => f.write_str("stall"),
                Kind::Delay(base, jitter) => write!(f, "delay={}~{}", Span(*base), Span(*jitter)),
                Kind::Bandwidth(rate) => write!(f, "bandwidth={rate}B"),
                Kind::Corrupt(share) => write!(f, "corrupt={share}"),
                Kind::Truncate(bytes) => write!(f, "truncate={bytes}B"),
                Kind::SlowClose(time) => write!(f, "slow-close={}", Span(*time)),
            }?;
        }
        Ok(())
    }
}

impl From<Faults> for String {
    fn from(faults: Faults) -> String {
        faults.to_string()
    }
}

impl TryFrom<String> for Faults {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("cutt", "did you mean \"cut\""),
            ("left:cut", "no direction"),
            ("delay", "needs a value"),
            ("delay=5", "no duration"),
            ("bandwidth=fast", "no size"),
            ("corrupt=2", "from 0 to 1"),
            ("cut=1", "takes no value"),
            ("", "unknown fault"),
        ] {
            let error = text.parse::<Faults>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    fn any_fault() -> impl Strategy<Value = String> {
        let kind = prop_oneof![
            Just("refuse".to_owned()),
            Just("cut".to_owned()),
            Just("half-open".to_owned()),
            Just("stall".to_owned()),
            (0u64..100_000, 0u64..1000).prop_map(|(a, b)| format!("delay={a}ms~{b}ms")),
            (1u64..1 << 40).prop_map(|n| format!("bandwidth={n}B")),
            (0u32..=100).prop_map(|n| format!("corrupt={}", f64::from(n) / 100.0)),
            (0u64..1 << 40).prop_map(|n| format!("truncate={n}")),
            (0u64..100_000).prop_map(|n| format!("slow-close={n}ms")),
        ];
        (prop_oneof![Just(""), Just("up:"), Just("down:")], kind)
            .prop_map(|(w, k)| w.to_owned() + &k)
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(texts in proptest::collection::vec(any_fault(), 0..5)) {
            let text = if texts.is_empty() { "none".into() } else { texts.join("+") };
            let faults: Faults = text.parse().unwrap();
            prop_assert_eq!(&faults.to_string().parse::<Faults>().unwrap(), &faults);
        }
        #[test]
        fn nonsense_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Faults>();
            let _ = text.parse::<crate::Schedule>();
            let _ = text.parse::<crate::Command>();
        }
    }
}
