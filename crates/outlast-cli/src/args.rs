//! Values as people write them on a command line.

use crate::{Usage, config};
use outlast_core::adapt::{Pins, Setting};
use outlast_net::pulse::PingConfig;
use std::time::Duration;

/// Seconds from `90`, `1.5s`, `10m`, `2h`, `1d` or `250ms`.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(format!("{text:?} is no duration; write 90s, 10m or 2h")),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n >= 0.0 && n.is_finite() => Ok(n * factor),
        _ => Err(format!("{text:?} is no duration; write 90s, 10m or 2h")),
    }
}

/// Seconds that are not 0: of an interval, or a timeout.
pub(crate) fn interval(text: &str) -> Result<f64, String> {
    match seconds(text)? {
        // Less would be none when it is rounded to milliseconds.
        s if s < 0.001 => Err(format!("{text:?} is too short; write 5s or 250ms")),
        s => Ok(s),
    }
}

/// The most slots of a worker.
pub(crate) const MAX_SLOTS: u32 = 1_000_000;
/// What a worker may do when it is asked to end.
pub(crate) const ON_TERM: [&str; 2] = ["drain", "stop"];

/// What does not adapt to links: the flag, or else the file's section, and a heartbeat that
/// either gives (interval, timeout).
pub(crate) fn pins(
    file: &config::File,
    section: &str,
    pin: Option<Pins>,
    (interval, timeout): (Option<f64>, Option<f64>),
) -> Result<Pins, Usage> {
    let pins = match (pin, file.text(section, "pin")) {
        (Some(pins), _) => pins,
        (None, Some(text)) => text.parse().map_err(|e| Usage(format!("[{section}] pin: {e}")))?,
        (None, None) => Pins::NONE,
    };
    let interval = interval.or(file.seconds(section, "heartbeat_interval"));
    let timeout = timeout.or(file.seconds(section, "heartbeat_timeout"));
    let given = interval.or(timeout).is_some();
    Ok(if given { pins.with(Setting::Heartbeat) } else { pins })
}

/// WebSocket pings as flags, or else the file's section, say.
pub(crate) fn pings(
    file: &config::File,
    section: &str,
    (interval, timeout): (Option<f64>, Option<f64>),
) -> Result<PingConfig, Usage> {
    let default = PingConfig::default();
    let time = |flag: Option<f64>, key, default| match flag.or(file.seconds(section, key)) {
        None => Ok(default),
        Some(s) => {
            Duration::try_from_secs_f64(s).map_err(|_| Usage(format!("{key}: {s} is no such time")))
        }
    };
    let interval = time(interval, "ws_ping_interval", default.interval)?;
    let timeout = time(timeout, "ws_ping_timeout", default.timeout)?;
    if timeout.is_zero() && !interval.is_zero() {
        return Err(Usage(
            "ws_ping_timeout: 0 would end every link; set the interval to 0 to send \
                          no pings"
                .into(),
        ));
    }
    Ok(PingConfig { interval, timeout })
}

/// Bytes from `512`, `64k`, `20M`, `1.5G` or `2T` (powers of 1024; `GB` and `GiB` mean the same).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size; write 512M or 20G");
    let text = text.trim();
    let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let power = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(bad()),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n >= 0.0 && n.is_finite() => Ok((n * 1024f64.powi(power)) as u64),
        _ => Err(bad()),
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

/// A knob and its values: `batch_size=64,32`. What reads as a number or a boolean is one.
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
    let bad = || format!("{text:?} is no array; write 1-1000, 1,3,5-9 or 0-100:5");
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
        assert_eq!(interval("1ms"), Ok(0.001));
        assert!(interval("0s").is_err() && interval("0.1ms").is_err());
        assert_eq!((bytes("1.5k"), bytes("2GiB"), bytes("7")), (Ok(1536), Ok(2 << 30), Ok(7)));
        assert!(bytes("-1").is_err() && bytes("3 x").is_err());
        assert!(seconds("x").is_err() && seconds("-1").is_err() && seconds("3 weeks").is_err());
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
