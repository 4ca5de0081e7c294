//! Adaptation of a link's settings to what the link is like: when silence is too long
//! ([`FailureDetector`]), how much travels at once ([`SendWindow`]), how hard it is compressed and how often
//! states and checkpoints travel ([`BandwidthPolicy`]). Pure: times and measurements come in, settings and
//! their reasons come out. Round-trip times alone decide nothing: loss, stability and goodput do.
//! Settings get worse at once and better slowly, so that they do not flap.

mod bandwidth;
mod detector;
mod window;

pub use bandwidth::{BandwidthPolicy, Width};
pub use detector::FailureDetector;
pub use outlast_model::packing::Packing;
pub use window::SendWindow;

use std::fmt;
use std::str::FromStr;

/// Setting that adapts to the link, unless it is pinned to the configured value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Heartbeat interval and timeout.
    Heartbeat,
    /// Bytes that are sent before an acknowledgement, and bytes of a frame.
    Batch,
    /// Level of zstd, and the size above which it is tried.
    Compression,
    /// Interval of checkpoint requests to tasks.
    Checkpoints,
    /// Interval at which states of tasks are sent.
    Telemetry,
}

impl Setting {
    /// All settings, in order.
    pub const ALL: [Setting; 5] =
        [Self::Heartbeat, Self::Batch, Self::Compression, Self::Checkpoints, Self::Telemetry];

    /// The word that people write.
    pub fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Batch => "batch",
            Self::Compression => "compression",
            Self::Checkpoints => "checkpoints",
            Self::Telemetry => "telemetry",
        }
    }
}

/// Settings that stay as they are configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    /// No pinned setting.
    pub const NONE: Pins = Pins(0);
    /// All settings pinned.
    pub const ALL: Pins = Pins(u8::MAX);

    /// Adds a setting.
    #[must_use]
    pub fn with(self, setting: Setting) -> Pins {
        Pins(self.0 | 1 << setting as u8)
    }
    /// Returns true if the setting is pinned.
    pub fn has(self, setting: Setting) -> bool {
        self.0 & 1 << setting as u8 != 0
    }
}

impl FromStr for Pins {
    type Err = String;
    /// Words with commas between them; `all` and `none` too.
    fn from_str(text: &str) -> Result<Pins, String> {
        let mut pins = Pins::NONE;
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            pins = match word {
                "all" => Pins::ALL,
                "none" => pins,
                word => match Setting::ALL.into_iter().find(|s| s.word() == word) {
                    Some(setting) => pins.with(setting),
                    None => {
                        let known = Setting::ALL.map(Setting::word).join(", ");
                        return Err(format!("{word:?} cannot be pinned; {known} and all can"));
                    }
                },
            };
        }
        Ok(pins)
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> =
            Setting::ALL.into_iter().filter(|s| self.has(*s)).map(Setting::word).collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// A setting changed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The changed setting.
    pub setting: Setting,
    /// Previous value, in words.
    pub from: String,
    /// New value, in words.
    pub to: String,
    /// Reason in words.
    pub why: String,
    /// True if the setting is back at its configured value.
    pub configured: bool,
    /// True if the change comes and goes with the work, and should not be logged.
    pub minor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_words() {
        let pins: Pins = "heartbeat, batch".parse().unwrap();
        assert!(pins.has(Setting::Batch) && !pins.has(Setting::Telemetry));
        assert_eq!(pins.to_string(), "heartbeat,batch");
        assert_eq!("all".parse::<Pins>().unwrap().to_string().matches(',').count(), 4);
        assert_eq!(("".parse(), Pins::NONE.to_string()), (Ok(Pins::NONE), "none".to_owned()));
        assert!("hartbeat".parse::<Pins>().unwrap_err().contains("heartbeat, batch"));
    }
}
