//! The configuration file: what it may hold, and what to say when it holds something else.

use std::path::PathBuf;
use toml::{Table, Value};

/// Sections and their keys.
const KNOWN: &[(&str, &[&str])] = &[
    ("client", &["coordinator", "api_key", "ca"]),
    (
        "worker",
        &[
            "name",
            "slots",
            "prefetch",
            "state_dir",
            "labels",
            "capabilities",
            "heartbeat_interval",
            "heartbeat_timeout",
            "initial_reconnect_delay",
            "max_reconnect_delay",
            "reconnect_jitter",
            "max_reconnect_attempts",
            "pin",
            "on_term",
            "blob_budget",
            "browser",
        ],
    ),
    (
        "coordinator",
        &[
            "listen",
            "data_dir",
            "tls_cert",
            "tls_key",
            "heartbeat_interval",
            "heartbeat_timeout",
            "pin",
            "max_unfinished",
            "blob_store",
            "blob_budget",
            "blob_grace",
            "gc_interval",
            "checkpoint_ttl",
            "task_ttl",
            "max_ended",
            "admit_per_second",
            "recovery",
            "history_budget",
            "otlp_endpoint",
        ],
    ),
];

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct File {
    table: Table,
}

impl File {
    /// Reads `$OUTLAST_CONFIG`, or `~/.config/outlast/config.toml` if it is there.
    pub fn load() -> Result<File, String> {
        let (path, wanted) = match std::env::var_os("OUTLAST_CONFIG") {
            Some(path) => (PathBuf::from(path), true),
            None => match folder("XDG_CONFIG_HOME", ".config") {
                Some(home) => (home.join("outlast/config.toml"), false),
                None => return Ok(File::default()),
            },
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => File::parse(&text).map_err(|e| format!("{}: {e}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !wanted => Ok(File::default()),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<File, String> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let sections = KNOWN.iter().map(|(section, _)| *section).chain(["alerts"]);
        let sections: Vec<&str> = sections.collect();
        for (section, content) in &table {
            if let ("alerts", Value::Table(content)) = (section.as_str(), content) {
                crate::alerts::check(content)?;
                continue;
            }
            let Some((_, keys)) = KNOWN.iter().find(|(name, _)| name == section) else {
                return Err(unknown("section", section, &sections));
            };
            let Value::Table(content) = content else {
                return Err(format!("{section} must be a section: write [{section}]"));
            };
            for (key, value) in content {
                if !keys.contains(&key.as_str()) {
                    return Err(format!("[{section}]: {}", unknown("key", key, keys)));
                }
                check(section, key, value)?;
            }
        }
        Ok(File { table })
    }

    /// A section that has its own rules.
    pub fn section(&self, section: &str) -> Option<&Table> {
        self.table.get(section)?.as_table()
    }
    fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.table.get(section)?.get(key)
    }
    /// A string, or a number as it is written.
    pub fn text(&self, section: &str, key: &str) -> Option<String> {
        match self.get(section, key)? {
            Value::String(text) => Some(text.clone()),
            Value::Integer(n) => Some(n.to_string()),
            Value::Float(n) => Some(n.to_string()),
            _ => None,
        }
    }
    /// A number.
    pub fn number<T: std::str::FromStr>(&self, section: &str, key: &str) -> Option<T> {
        self.text(section, key)?.parse().ok()
    }
    /// A duration in seconds.
    pub fn seconds(&self, section: &str, key: &str) -> Option<f64> {
        crate::args::seconds(&self.text(section, key)?).ok()
    }
    /// A size in bytes.
    pub fn bytes(&self, section: &str, key: &str) -> Option<u64> {
        crate::args::bytes(&self.text(section, key)?).ok()
    }
    /// A table.
    pub fn table(&self, section: &str, key: &str) -> Option<&Table> {
        self.get(section, key)?.as_table()
    }
}

/// Whether the value is of the kind that its key needs.
fn check(section: &str, key: &str, value: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("[{section}] {key}: must be {what}"));
    match key {
        "labels" | "capabilities" if !value.is_table() => wrong("a table: { key = \"value\" }"),
        "labels" | "capabilities" => Ok(()),
        "slots" | "prefetch" | "max_unfinished" | "max_reconnect_attempts" | "admit_per_second" => {
            match value.as_integer() {
                Some(n) if (0..=1_000_000_000).contains(&n) => Ok(()),
                _ => wrong("a whole number"),
            }
        }
        "reconnect_jitter" if value.as_float().is_none() => wrong("a number such as 0.2"),
        "reconnect_jitter" => Ok(()),
        _ if ["interval", "timeout", "delay", "grace", "ttl"].iter().any(|e| key.ends_with(e)) => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Integer(n) => n.to_string(),
                Value::Float(n) => n.to_string(),
                _ => return wrong("a duration such as \"15s\""),
            };
            crate::args::seconds(&text).map(drop).map_err(|e| format!("[{section}] {key}: {e}"))
        }
        _ if key.ends_with("budget") => {
            let text = value.as_str().map(ToOwned::to_owned);
            let text = text.or_else(|| value.as_integer().map(|n| n.to_string()));
            match text.as_deref().map(crate::args::bytes) {
                Some(Ok(_)) => Ok(()),
                _ => wrong("a size such as \"20G\""),
            }
        }
        _ if !value.is_str() => wrong("a string"),
        _ => Ok(()),
    }
}

pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let near = known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, word));
    match near.filter(|k| strsim::damerau_levenshtein(k, word) <= 3) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`; known are {}", known.join(", ")),
    }
}

/// A folder of the user's: from the environment, or below home.
pub(crate) fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_names_the_nearest() {
        let error = |text| File::parse(text).unwrap_err();
        assert!(error("[worker]\nsolts = 3").contains("did you mean `slots`"));
        assert!(error("[wroker]\nslots = 3").contains("did you mean `worker`"));
        assert!(error("[worker]\nslots = \"x\"").contains("whole number"));
        assert!(error("[worker]\nheartbeat_timeout = \"soon\"").contains("duration"));
        assert!(error("[coordinator]\nadmit_per_second = \"many\"").contains("whole number"));
        assert!(error("[coordinator]\nblob_grace = \"soon\"").contains("duration"));
        assert!(error("[client]\nzzzzzzzz = 1").contains("known are"));
        let file =
            "[coordinator]\nadmit_per_second = 500\nblob_grace = 3600\ncheckpoint_ttl = \"7d\"";
        let file = File::parse(file).unwrap();
        assert_eq!(file.number("coordinator", "admit_per_second"), Some(500));
        assert_eq!(file.seconds("coordinator", "blob_grace"), Some(3600.0));
        assert_eq!(file.seconds("coordinator", "checkpoint_ttl"), Some(604_800.0));
        let file = File::parse("[worker]\nslots = 3\nheartbeat_timeout = \"1m\"").unwrap();
        assert_eq!(file.number("worker", "slots"), Some(3));
        assert_eq!(file.seconds("worker", "heartbeat_timeout"), Some(60.0));
    }
}
