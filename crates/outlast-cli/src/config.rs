//! The configuration file: what it may hold, and what to say when it holds something else.

use crate::args::{self, MAX_SLOTS, ON_TERM};
use outlast_core::adapt::Pins;
use std::path::PathBuf;
use toml::{Table, Value};

/// What a key holds. A flag of that name takes the same.
enum Kind {
    Text,
    Table,
    /// The coordinator's address.
    Url,
    /// Where to listen.
    Listen,
    /// IP addresses, with commas between them.
    Addresses,
    Pins,
    Word(&'static [&'static str]),
    /// A whole number from and up to.
    Whole(i64, i64),
    /// A share from 0 to 1.
    Share,
    Time,
    /// A time that is not 0.
    Interval,
    Size,
}

/// Of 32 bits.
const WHOLE: Kind = Kind::Whole(0, u32::MAX as i64);

/// Sections and their keys.
const KNOWN: &[(&str, &[(&str, Kind)])] = &[
    (
        "client",
        &[
            ("coordinator", Kind::Url),
            ("api_key", Kind::Text),
            ("api_key_file", Kind::Text),
            ("ca", Kind::Text),
        ],
    ),
    (
        "worker",
        &[
            ("name", Kind::Text),
            ("slots", Kind::Whole(1, MAX_SLOTS as i64)),
            ("prefetch", WHOLE),
            ("state_dir", Kind::Text),
            ("labels", Kind::Table),
            ("capabilities", Kind::Table),
            ("heartbeat_interval", Kind::Interval),
            ("heartbeat_timeout", Kind::Interval),
            ("ws_ping_interval", Kind::Time),
            ("ws_ping_timeout", Kind::Time),
            ("initial_reconnect_delay", Kind::Time),
            ("max_reconnect_delay", Kind::Time),
            ("reconnect_jitter", Kind::Share),
            ("max_reconnect_attempts", WHOLE),
            ("pin", Kind::Pins),
            ("on_term", Kind::Word(&ON_TERM)),
            ("drain_timeout", Kind::Time),
            ("blob_budget", Kind::Size),
            ("browser", Kind::Text),
            ("run_as", Kind::Text),
        ],
    ),
    (
        "coordinator",
        &[
            ("listen", Kind::Listen),
            ("data_dir", Kind::Text),
            ("tls_cert", Kind::Text),
            ("tls_key", Kind::Text),
            ("heartbeat_interval", Kind::Interval),
            ("heartbeat_timeout", Kind::Interval),
            ("ws_ping_interval", Kind::Time),
            ("ws_ping_timeout", Kind::Time),
            ("pin", Kind::Pins),
            ("max_unfinished", Kind::Whole(0, i64::MAX)),
            ("blob_store", Kind::Text),
            ("blob_budget", Kind::Size),
            ("blob_grace", Kind::Interval),
            ("gc_interval", Kind::Interval),
            ("checkpoint_ttl", Kind::Interval),
            ("task_ttl", Kind::Interval),
            ("max_ended", Kind::Whole(0, i64::MAX)),
            ("admit_per_second", WHOLE),
            ("max_connections_per_address", WHOLE),
            ("trusted_proxies", Kind::Addresses),
            ("recovery", Kind::Text),
            ("history_budget", Kind::Size),
            ("otlp_endpoint", Kind::Text),
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
            // A home that another user owns, as under sudo or in a container, is no mistake.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !wanted => {
                eprintln!("{}: {e}; going on without it", path.display());
                Ok(File::default())
            }
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<File, String> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let sections = KNOWN.iter().map(|(section, _)| *section).chain(["alerts"]);
        let sections: Vec<&str> = sections.collect();
        for (section, content) in &table {
            if !sections.contains(&section.as_str()) {
                return Err(unknown("section", section, &sections));
            }
            let Value::Table(content) = content else {
                return Err(format!("{section} must be a section: write [{section}]"));
            };
            let Some((_, keys)) = KNOWN.iter().find(|(name, _)| name == section) else {
                crate::alerts::check(content)?;
                continue;
            };
            for (key, value) in content {
                let Some((_, kind)) = keys.iter().find(|(name, _)| name == key) else {
                    let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
                    return Err(format!("[{section}]: {}", unknown("key", key, &names)));
                };
                check(kind, value).map_err(|e| format!("[{section}] {key}: {e}"))?;
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
        args::seconds(&self.text(section, key)?).ok()
    }
    /// A size in bytes.
    pub fn bytes(&self, section: &str, key: &str) -> Option<u64> {
        args::bytes(&self.text(section, key)?).ok()
    }
    /// A table.
    pub fn table(&self, section: &str, key: &str) -> Option<&Table> {
        self.get(section, key)?.as_table()
    }
}

/// Whether the value is of the kind that its key needs; else what it must be.
fn check(kind: &Kind, value: &Value) -> Result<(), String> {
    let must = |what: &str| Err(format!("must be {what}"));
    // A number is as good as its text, as it is on a command line.
    let text = match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        _ => None,
    };
    match (kind, value.as_str()) {
        (Kind::Table, _) if value.is_table() => Ok(()),
        (Kind::Table, _) => must("a table: { key = \"value\" }"),
        (Kind::Whole(from, to), _) => match value.as_integer() {
            Some(n) if (*from..=*to).contains(&n) => Ok(()),
            _ if *to == i64::MAX => must("a whole number"),
            _ => must(&format!("a whole number from {from} to {to}")),
        },
        (Kind::Share, _) => {
            let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
            match number.filter(|n| (0.0..=1.0).contains(n)) {
                Some(_) => Ok(()),
                None => must("a number from 0 to 1, such as 0.2"),
            }
        }
        (Kind::Time | Kind::Interval, _) => {
            let Some(text) = text else { return must("a duration such as \"15s\"") };
            match kind {
                Kind::Interval => args::interval(&text).map(drop),
                _ => args::seconds(&text).map(drop),
            }
        }
        (Kind::Size, _) => match text {
            Some(text) => args::bytes(&text).map(drop),
            None => must("a size such as \"20G\""),
        },
        (_, None) => must("a string"),
        (Kind::Text, Some(_)) => Ok(()),
        (Kind::Url, Some(text)) => outlast_net::Url::parse(text).map(drop),
        (Kind::Listen, Some(text)) => match text.parse::<std::net::SocketAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{text:?} must be ADDRESS:PORT, as in 127.0.0.1:7117")),
        },
        (Kind::Addresses, Some(text)) => crate::coordinator::proxies(text).map(drop),
        (Kind::Pins, Some(text)) => text.parse::<Pins>().map(drop),
        (Kind::Word(words), Some(text)) if words.contains(&text) => Ok(()),
        (Kind::Word(words), Some(text)) => Err(format!("{text:?} must be {}", words.join(" or "))),
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
        let error = |text: &str| File::parse(text).unwrap_err();
        assert!(error("[worker]\nsolts = 3").contains("did you mean `slots`"));
        assert!(error("[wroker]\nslots = 3").contains("did you mean `worker`"));
        assert!(error("[worker]\nslots = \"x\"").contains("whole number"));
        assert!(error("[worker]\nheartbeat_timeout = \"soon\"").contains("duration"));
        assert!(error("[coordinator]\nadmit_per_second = \"many\"").contains("whole number"));
        assert!(error("[coordinator]\nblob_grace = \"soon\"").contains("duration"));
        assert!(error("[client]\nzzzzzzzz = 1").contains("known are"));
        let kept = |text: &str| assert!(File::parse(text).is_ok(), "{text}");
        let refused = |text: &str, says: &str| {
            let error = error(text);
            assert!(error.contains(says), "{text}: {error}");
        };
        kept("[coordinator]\nmax_ended = 1000\nws_ping_interval = 0\nlisten = \"[::1]:0\"");
        refused("[coordinator]\nmax_ended = \"abc\"", "max_ended: must be a whole number");
        refused("[coordinator]\nmax_ended = -1", "whole number");
        refused("[coordinator]\nlisten = \"here\"", "ADDRESS:PORT");
        refused("[coordinator]\nheartbeat_interval = 0", "heartbeat_interval");
        refused("[coordinator]\npin = \"all,hart\"", "cannot be pinned");
        refused("[coordinator]\ntls_cert = 3", "must be a string");
        kept("[coordinator]\ntrusted_proxies = \"10.0.0.1, ::1\"");
        refused("[coordinator]\ntrusted_proxies = \"10.0.0\"", "is no IP address");
        kept("[worker]\non_term = \"stop\"\nreconnect_jitter = 0\nws_ping_timeout = \"20s\"");
        refused("[worker]\non_term = \"bogus\"", "on_term: \"bogus\" must be drain or stop");
        refused("[worker]\nslots = 0", "from 1 to 1000000");
        refused("[worker]\nreconnect_jitter = 7.5", "from 0 to 1");
        refused("[worker]\nlabels = \"x\"", "must be a table");
        refused("[client]\ncoordinator = \"ftp://x\"", "http://host:7117");
        refused("alerts = 3", "alerts must be a section: write [alerts]");
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
