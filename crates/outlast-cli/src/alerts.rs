//! The `[alerts]` section of the configuration file: limits and receivers of alerts.

use crate::args;
use outlast_coordinator::{AlertConfig, WebhookConfig};
use outlast_core::alerts::{Measure, Rule, Severity};
use std::time::Duration;
use toml::{Table, Value};

/// Keys of the section, in addition to the names of rules.
const KEYS: [&str; 3] = ["webhook", "webhook_token", "webhook_timeout"];
/// The longest time of a rule, in milliseconds: about 30 years.
const MOST_MS: u64 = 1_000_000_000_000;
/// Keys of a rule.
const RULE: [&str; 8] =
    ["enabled", "threshold", "clear", "hold", "clear_hold", "min_samples", "severity", "to"];

/// Applies the file's settings over the defaults.
pub(crate) fn configured(section: Option<&Table>) -> Result<AlertConfig, String> {
    section.map_or_else(|| Ok(AlertConfig::default()), read)
}

/// Validates the section.
pub(crate) fn check(table: &Table) -> Result<(), String> {
    read(table).map(drop)
}

fn read(table: &Table) -> Result<AlertConfig, String> {
    let names: Vec<&str> = Measure::ALL.iter().map(|m| m.name()).chain(KEYS).collect();
    let mut config = AlertConfig::default();
    for (key, value) in table {
        if KEYS.contains(&key.as_str()) {
            continue;
        }
        let Some(rule) = config.rules.iter_mut().find(|r| r.measure.name() == key) else {
            return Err(format!("[alerts]: {}", args::unknown("key", key, &names)));
        };
        let Value::Table(table) = value else {
            return Err(format!("[alerts] {key}: must be a section: write [alerts.{key}]"));
        };
        change(rule, table).map_err(|e| format!("[alerts.{key}] {e}"))?;
        rule.check().map_err(|e| format!("[alerts] {e}"))?;
    }
    config.webhook = webhook(table)?;
    Ok(config)
}

fn webhook(table: &Table) -> Result<Option<WebhookConfig>, String> {
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("[alerts] {key}: must be a string")),
    };
    let timeout = match table.get("webhook_timeout") {
        Some(value) => time(value).map_err(|e| format!("[alerts] webhook_timeout: {e}"))?,
        None => 5_000,
    };
    let timeout = Duration::from_millis(timeout.clamp(100, 60_000));
    let token = text("webhook_token")?;
    let Some(url) = text("webhook")? else { return Ok(None) };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err("[alerts] webhook: write an address such as https://host/path".into());
    }
    Ok(Some(WebhookConfig { url, token, timeout }))
}

fn change(rule: &mut Rule, table: &Table) -> Result<(), String> {
    for (key, value) in table {
        let wrong = |what: &str| format!("{key}: must be {what}");
        match key.as_str() {
            "enabled" => rule.enabled = value.as_bool().ok_or_else(|| wrong("true or false"))?,
            "threshold" => rule.threshold = number(value).ok_or_else(|| wrong("a number"))?,
            "clear" => rule.clear = number(value).ok_or_else(|| wrong("a number"))?,
            "hold" => rule.hold = time(value).map_err(|e| format!("{key}: {e}"))?,
            "clear_hold" => rule.clear_hold = time(value).map_err(|e| format!("{key}: {e}"))?,
            "min_samples" => {
                let n = value.as_integer().and_then(|n| u32::try_from(n).ok());
                rule.min_samples = n.ok_or_else(|| wrong("a whole number"))?;
            }
            "severity" => {
                let severity = value.as_str().and_then(Severity::parse);
                rule.severity = severity.ok_or_else(|| wrong("info, warning or critical"))?;
            }
            "to" => {
                let list = value.as_array().map(|l| l.iter().map(Value::as_str).collect());
                let list: Option<Vec<&str>> = list.unwrap_or_default();
                let known = |l: &Vec<&str>| l.iter().all(|w| ["log", "webhook"].contains(w));
                let list = list.filter(known).ok_or_else(|| {
                    wrong("a list of \"log\" and \"webhook\"; the API has all of them")
                })?;
                (rule.log, rule.webhook) = (list.contains(&"log"), list.contains(&"webhook"));
            }
            _ => return Err(args::unknown("key", key, &RULE)),
        }
    }
    // Only the threshold was changed: the limit for clearing keeps its distance.
    if table.contains_key("threshold") && !table.contains_key("clear") {
        let usual = Rule::of(rule.measure);
        rule.clear = rule.threshold * usual.clear / usual.threshold;
        if !rule.above && rule.threshold <= 1.0 {
            rule.clear = rule.clear.min(1.0);
        }
    }
    Ok(())
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).filter(|n| n.is_finite())
}

/// Parses a duration to milliseconds.
fn time(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        _ => return Err("must be a duration such as \"30s\"".into()),
    };
    text.parse().map(|time: args::Time| time.ms().min(MOST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AlertConfig, String> {
        read(&text.parse::<Table>().unwrap())
    }

    #[test]
    fn what_the_file_says_is_taken_over_the_defaults() {
        let config = parse(
            "webhook = \"https://h/x\"\nwebhook_timeout = \"2s\"\n[latency]\nthreshold = 400\n\
             hold = \"1m\"\nseverity = \"critical\"\nto = [\"webhook\"]\n[compression]\nenabled = false",
        )
        .unwrap();
        let rule = |m: Measure| config.rules.iter().find(|r| r.measure == m).unwrap();
        let latency = rule(Measure::Latency);
        assert_eq!((latency.threshold, latency.clear, latency.hold), (400.0, 300.0, 60_000));
        assert_eq!(
            (latency.severity, latency.log, latency.webhook),
            (Severity::Critical, false, true)
        );
        assert!(!rule(Measure::Compression).enabled);
        assert_eq!(*rule(Measure::Reconnects), Rule::of(Measure::Reconnects));
        assert_eq!(config.webhook.unwrap().timeout, Duration::from_secs(2));
        assert!(parse("").unwrap().webhook.is_none());
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text| parse(text).unwrap_err();
        assert!(error("[latncy]\nthreshold = 1").contains("did you mean `latency`"));
        assert!(error("[latency]\ntreshold = 1").contains("did you mean `threshold`"));
        assert!(error("latency = 5").contains("[alerts.latency]"));
        assert!(error("[latency]\nseverity = \"bad\"").contains("info, warning or critical"));
        assert!(error("[latency]\nclear = 500").contains("cannot be above"));
        assert!(error("[latency]\nto = [\"mail\"]").contains("\"log\" and \"webhook\""));
        assert!(error("webhook = \"ftp://x\"").contains("https://"));
        assert!(error("[latency]\nhold = \"soon\"").contains("hold"));
    }
}
