//! The `[alerts]` section of the configuration file: limits and receivers of alerts. Each setting is declared
//! once, in [`WEBHOOK`] or [`RULE`]: how it is read, checked and shown.

use crate::args::{self, Time};
use outlast_coordinator::{AlertConfig, WebhookConfig};
use outlast_core::alerts::{Measure, Rule, Severity};
use std::time::Duration;
use toml::{Table, Value};

/// The longest time of a rule, in milliseconds: about 30 years.
const MOST_MS: u64 = 1_000_000_000_000;
/// Shown in place of a secret.
pub(crate) const HIDDEN: &str = "(hidden)";

/// A setting of a section whose values are in a `T`.
struct Setting<T> {
    key: &'static str,
    /// Takes the file's value.
    set: fn(&mut T, &Value) -> Result<(), String>,
    /// The value as a file has it, if there is one.
    get: fn(&T) -> Option<Value>,
}

/// The receiver of alerts.
struct Webhook {
    url: Option<String>,
    token: Option<String>,
    timeout: u64,
}

/// Settings of the section, in addition to those of rules.
const WEBHOOK: [Setting<Webhook>; 3] = [
    Setting {
        key: "webhook",
        set: |of, value| text(value).and_then(address).map(|url| of.url = Some(url)),
        get: |of| of.url.clone().map(Value::from),
    },
    Setting {
        key: "webhook_token",
        set: |of, value| text(value).map(|token| of.token = Some(token)),
        get: |of| of.token.as_ref().map(|_| HIDDEN.into()),
    },
    Setting {
        key: "webhook_timeout",
        set: |of, value| time(value).map(|ms| of.timeout = ms.clamp(100, 60_000)),
        get: |of| Some(shown_time(of.timeout)),
    },
];

/// Settings of a rule.
const RULE: [Setting<Rule>; 8] = [
    Setting {
        key: "enabled",
        set: |rule, value| put(&mut rule.enabled, value.as_bool(), "true or false"),
        get: |rule| Some(rule.enabled.into()),
    },
    Setting {
        key: "threshold",
        set: |rule, value| put(&mut rule.threshold, number(value), "a number"),
        get: |rule| Some(rule.threshold.into()),
    },
    Setting {
        key: "clear",
        set: |rule, value| put(&mut rule.clear, number(value), "a number"),
        get: |rule| Some(rule.clear.into()),
    },
    Setting {
        key: "hold",
        set: |rule, value| time(value).map(|ms| rule.hold = ms),
        get: |rule| Some(shown_time(rule.hold)),
    },
    Setting {
        key: "clear_hold",
        set: |rule, value| time(value).map(|ms| rule.clear_hold = ms),
        get: |rule| Some(shown_time(rule.clear_hold)),
    },
    Setting {
        key: "min_samples",
        set: |rule, value| {
            let count = value.as_integer().and_then(|n| u32::try_from(n).ok());
            put(&mut rule.min_samples, count, "a whole number")
        },
        get: |rule| Some(rule.min_samples.into()),
    },
    Setting {
        key: "severity",
        set: |rule, value| {
            let severity = value.as_str().and_then(Severity::parse);
            put(&mut rule.severity, severity, "info, warning or critical")
        },
        get: |rule| Some(rule.severity.as_str().into()),
    },
    Setting {
        key: "to",
        set: |rule, value| {
            let mut to = (rule.log, rule.webhook);
            put(
                &mut to,
                receivers(value),
                "a list of \"log\" and \"webhook\"; the API has all of them",
            )?;
            (rule.log, rule.webhook) = to;
            Ok(())
        },
        get: |rule| {
            let to = [("log", rule.log), ("webhook", rule.webhook)];
            Some(to.into_iter().filter(|to| to.1).map(|to| to.0).collect::<Vec<_>>().into())
        },
    },
];

/// A part of the section as it is in effect.
pub(crate) struct Section {
    /// Name of the rule; none: the section itself.
    pub rule: Option<&'static str>,
    /// Key, value if there is one, and true if it is the file's.
    pub settings: Vec<(&'static str, Option<Value>, bool)>,
}

/// Applies the file's settings over the defaults.
pub(crate) fn configured(section: Option<&Table>) -> Result<AlertConfig, String> {
    section.map_or_else(|| Ok(AlertConfig::default()), |table| read(table).map(|read| read.0))
}

/// Validates the section.
pub(crate) fn check(table: &Table) -> Result<(), String> {
    read(table).map(drop)
}

/// All settings, as they are in effect.
pub(crate) fn shown(section: Option<&Table>) -> Result<Vec<Section>, String> {
    let table = section.cloned().unwrap_or_default();
    let (config, webhook) = read(&table)?;
    let mut all = vec![Section { rule: None, settings: values(&WEBHOOK, &webhook, Some(&table)) }];
    all.extend(config.rules.iter().map(|rule| {
        let name = rule.measure.name();
        let table = table.get(name).and_then(Value::as_table);
        Section { rule: Some(name), settings: values(&RULE, rule, table) }
    }));
    Ok(all)
}

fn values<T>(
    settings: &[Setting<T>],
    of: &T,
    table: Option<&Table>,
) -> Vec<(&'static str, Option<Value>, bool)> {
    let is_set = |key| table.is_some_and(|table| table.contains_key(key));
    settings.iter().map(|one| (one.key, (one.get)(of), is_set(one.key))).collect()
}

fn read(table: &Table) -> Result<(AlertConfig, Webhook), String> {
    let rules = Measure::ALL.iter().map(|m| m.name());
    let names: Vec<&str> = rules.chain(WEBHOOK.iter().map(|one| one.key)).collect();
    let mut config = AlertConfig::default();
    for (key, value) in table {
        if WEBHOOK.iter().any(|one| one.key == key) {
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
    let mut webhook = Webhook { url: None, token: None, timeout: 5_000 };
    for Setting { key, set, .. } in &WEBHOOK {
        let Some(value) = table.get(*key) else { continue };
        set(&mut webhook, value).map_err(|e| format!("[alerts] {key}: {e}"))?;
    }
    config.webhook = webhook.url.clone().map(|url| {
        let timeout = Duration::from_millis(webhook.timeout);
        WebhookConfig { url, token: webhook.token.clone(), timeout }
    });
    Ok((config, webhook))
}

fn change(rule: &mut Rule, table: &Table) -> Result<(), String> {
    for (key, value) in table {
        let Some(setting) = RULE.iter().find(|one| one.key == key) else {
            return Err(args::unknown("key", key, &RULE.map(|one| one.key)));
        };
        (setting.set)(rule, value).map_err(|e| format!("{key}: {e}"))?;
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

/// Puts a value in its place, or returns what it must be.
fn put<T>(place: &mut T, value: Option<T>, must_be: &str) -> Result<(), String> {
    *place = value.ok_or_else(|| format!("must be {must_be}"))?;
    Ok(())
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(ToOwned::to_owned).ok_or_else(|| "must be a string".into())
}

fn address(url: String) -> Result<String, String> {
    match url.starts_with("http://") || url.starts_with("https://") {
        true => Ok(url),
        false => Err("write an address such as https://host/path".into()),
    }
}

/// Returns whether alerts go to the log, and to the webhook.
fn receivers(value: &Value) -> Option<(bool, bool)> {
    let list: Vec<&str> = value.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    let known = list.iter().all(|word| ["log", "webhook"].contains(word));
    known.then(|| (list.contains(&"log"), list.contains(&"webhook")))
}

fn shown_time(ms: u64) -> Value {
    Time::from_ms(ms).to_string().into()
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
    text.parse().map(|time: Time| time.ms().min(MOST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AlertConfig, String> {
        read(&text.parse::<Table>().unwrap()).map(|read| read.0)
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

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let file =
            "webhook = \"https://h/x\"\n[latency]\nthreshold = 400\nto = []\n[unfit]\nhold = 90";
        let table: Table = file.parse().unwrap();
        let mut again = Table::new();
        for Section { rule, settings } in shown(Some(&table)).unwrap() {
            let values =
                settings.into_iter().filter_map(|(key, value, _)| Some((key.into(), value?)));
            match rule {
                None => again.extend(values),
                Some(rule) => drop(again.insert(rule.into(), Value::Table(values.collect()))),
            }
        }
        let (first, second) = (read(&table).unwrap().0, read(&again).unwrap().0);
        assert_eq!(first.rules, second.rules);
        assert_eq!(second.webhook.unwrap().url, "https://h/x");
    }
}
