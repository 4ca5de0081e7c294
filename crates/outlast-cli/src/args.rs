//! Parsers of values on the command line and in the configuration file, and suggestions for mistyped
//! names. Durations and sizes are printed as they are parsed.

use jiff::{Span, SpanRelativeTo, SpanRound, Unit};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A duration: `90` (seconds), `1.5s`, `10m`, `1h 30m`, `1d` or `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub Duration);

impl Time {
    pub fn from_ms(ms: u64) -> Time {
        Time(Duration::from_millis(ms))
    }
    /// Whole milliseconds.
    pub fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let text = text.trim();
        let number = |text: &str| text.trim().parse::<f64>().ok();
        // A library's durations have no fractions of days.
        let days = text.strip_suffix('d').and_then(number).map(|days| days * 86_400.0);
        let duration = match number(text).or(days) {
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            None => text
                .parse::<Span>()
                .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok()),
        };
        duration.map(Time).ok_or_else(|| format!("invalid duration {text:?}; write 90s, 10m or 2h"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = SpanRound::new().largest(Unit::Day).days_are_24_hours();
        let span = Span::try_from(self.0).and_then(|span| span.round(days));
        match span {
            Ok(span) => write!(f, "{span:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

/// Seconds of a duration.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse().map(|Time(duration)| duration.as_secs_f64())
}

/// Parses the duration of an interval or timeout, which is not 0.
pub(crate) fn interval(text: &str) -> Result<Time, String> {
    match text.parse::<Time>()? {
        // Less is 0 when it is rounded to milliseconds.
        time if time.ms() == 0 => Err(format!("{text:?} is too short; write 5s or 250ms")),
        time => Ok(time),
    }
}

/// Bytes: `512`, `64k`, `20M`, `1.5G` or `2T`. Units are powers of 1024; `G`, `GB` and `GiB` are the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let text = text.trim();
        let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let unit = unit.trim().trim_end_matches("iB").trim_end_matches('B').replace('k', "K");
        let power = ["", "K", "M", "G", "T"].iter().position(|u| *u == unit);
        match (number.trim().parse::<f64>(), power) {
            (Ok(n), Some(power)) if n >= 0.0 && n.is_finite() => {
                Ok(Size((n * 1024f64.powi(power as i32)) as u64))
            }
            _ => Err(format!("invalid size {text:?}; write 512M or 20G")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
        let mut unit = units.next().unwrap_or_default();
        for larger in units.take_while(|_| self.0 >= 1024) {
            if value < 1024.0 {
                break;
            }
            (value, unit) = (value / 1024.0, larger);
        }
        let digits = usize::from(value < 10.0 && unit != "B" && value.fract() != 0.0);
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Returns a parser of whole numbers within a range.
pub(crate) fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.trim().parse().ok().filter(|n| range.contains(n));
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| match range.end() {
            &u64::MAX => "must be a whole number".to_owned(),
            most => format!("must be a whole number from {} to {most}", range.start()),
        })
    }
}

/// Parses a share, from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.trim().parse().ok().filter(|n| (0.0..=1.0).contains(n));
    number.ok_or_else(|| "must be a number from 0 to 1, such as 0.2".into())
}

/// Parses the address of a listener.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} must be ADDRESS:PORT, as in 127.0.0.1:7117"))
}

/// Parses an IP address.
pub(crate) fn ip(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// The most slots of a worker.
pub(crate) const MAX_SLOTS: u64 = 1_000_000;
/// The largest number of 32 bits.
pub(crate) const MAX_U32: u64 = u32::MAX as u64;

/// The error for an unknown word: the nearest known one, or all of them.
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let near = known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, word));
    match near.filter(|k| strsim::damerau_levenshtein(k, word) <= 3) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`; known are {}", known.join(", ")),
    }
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{text:?} must be KEY=VALUE")),
    }
}

/// A demand on a worker: `gpu`, `gpu=*`, `os=linux`, `cores>=8`.
pub(crate) fn demand(text: &str) -> Result<(String, String), String> {
    let at = text.find(['=', '<', '>', '!']).unwrap_or(text.len());
    let (key, rest) = text.split_at(at);
    if key.trim().is_empty() {
        return Err(format!("{text:?} must be like gpu, os=linux or cores>=8"));
    }
    let value = match rest.strip_prefix('=') {
        _ if rest.is_empty() => "*",
        Some(value) => value,
        None => rest,
    };
    Ok((key.trim().into(), value.trim().into()))
}

/// A knob and its values: `batch_size=64,32`. Texts of numbers and booleans become such values.
pub(crate) fn knob(text: &str) -> Result<(String, Vec<serde_json::Value>), String> {
    let (name, values) = pair(text).map_err(|_| format!("{text:?} must be NAME=V1,V2,…"))?;
    let value = |v: &str| match serde_json::from_str(v.trim()) {
        Ok(plain @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => plain,
        _ => v.trim().into(),
    };
    Ok((name, values.split(',').map(value).collect()))
}

/// The most members of an array.
pub(crate) const MAX_ARRAY: usize = 1_000_000;

/// Numbers from `1-1000`, `1,3,5-9` or `0-100:5`.
pub(crate) fn array(text: &str) -> Result<Vec<u64>, String> {
    let bad = || format!("{text:?} is not an array; write 1-1000, 1,3,5-9 or 0-100:5");
    let number = |n: &str| n.trim().parse::<u64>().map_err(|_| bad());
    let mut all = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once(':') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(range)?, number(range)?),
        };
        if step == 0 || from > to {
            return Err(bad());
        }
        if ((to - from) / step) as usize >= MAX_ARRAY - all.len() {
            return Err(format!("{text:?} has more than {MAX_ARRAY} members"));
        }
        all.extend((from..=to).step_by(step as usize));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(seconds("1.5m"), Ok(90.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        assert_eq!((seconds("1.5d"), seconds("1h 30m")), (Ok(129_600.0), Ok(5400.0)));
        assert_eq!(interval("1ms"), Ok(Time::from_ms(1)));
        assert!(interval("0s").is_err() && interval("0.1ms").is_err());
        assert!("x".parse::<Time>().is_err() && "-1".parse::<Time>().is_err());
        assert!("-5s".parse::<Time>().is_err() && "1e99".parse::<Time>().is_err());
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (5_000, "5s"),
            (90_000, "1m 30s"),
            (5_400_000, "1h 30m"),
            (90 * 86_400_000, "90d"),
        ] {
            assert_eq!(Time::from_ms(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Time::from_ms(ms)), "{text}");
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (256 << 20, "256 MiB"),
            (20 << 30, "20 GiB"),
            (2 << 40, "2 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(["1.5k", "1.5K", "1.5KB"].map(str::parse), [const { Ok(Size(1536)) }; 3]);
        assert_eq!("20G".parse::<Size>().unwrap().to_string(), "20 GiB");
        assert!("-1".parse::<Size>().is_err() && "3 x".parse::<Size>().is_err());
        assert_eq!(array("1,3,5-9:2").unwrap(), [1, 3, 5, 7, 9]);
        assert!(array("9-1").is_err() && array("1-9:0").is_err() && array("0-99999999").is_err());
        let (name, values) = knob("b=64, 32,fp16,true").unwrap();
        assert_eq!((name.as_str(), values.len()), ("b", 4));
        assert_eq!(serde_json::to_string(&values).unwrap(), r#"[64,32,"fp16",true]"#);
        assert!(knob("b").is_err());
        let is = |k: &str, v: &str| Ok((k.to_owned(), v.to_owned()));
        assert_eq!(demand("gpu"), is("gpu", "*"));
        assert_eq!(demand("os=linux"), is("os", "linux"));
        assert_eq!(demand("cores>=8"), is("cores", ">=8"));
        assert!(demand(">=8").is_err() && pair("a").is_err());
    }
}
