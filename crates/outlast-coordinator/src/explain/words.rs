//! Words for times, durations, sizes and causes.

use crate::clock::text;
use outlast_model::{Cause, LinkCause};

/// Times of one story: those of its first day without the day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    day: i64,
}

const DAY: i64 = 86_400_000;

impl Clock {
    pub fn new(first: i64) -> Clock {
        Clock { day: first.div_euclid(DAY) }
    }
    pub fn time(self, at: i64) -> String {
        match at.div_euclid(DAY) == self.day {
            true => text(at).get(11..19).unwrap_or_default().to_owned(),
            false => self.full(at),
        }
    }
    pub fn full(self, at: i64) -> String {
        let text = text(at);
        format!("{} at {} UTC", text.get(..10).unwrap_or(&text), text.get(11..19).unwrap_or(""))
    }
}

pub(super) fn duration(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..10_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms @ 10_000..120_000 => format!("{} s", ms / 1000),
        ms @ 120_000..7_200_000 => format!("{} min", ms / 60_000),
        ms => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

pub(super) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "bytes" => format!("{n} bytes"),
                _ if value < 10.0 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Returns why an attempt ended, as what follows "until"; `window` is in seconds.
pub(super) fn until(cause: Cause, worker: &str, window: f64, reason: &str) -> String {
    let what = match cause {
        Cause::Network => format!("{worker} could not be reached for {window} s"),
        Cause::WorkerCrashed => format!("the process of {worker} ended, and its own with it"),
        Cause::Stopped => format!("{worker} was stopped"),
        Cause::Drained => format!("{worker} was drained and gave it back"),
        Cause::Forgotten => format!("{worker} was removed by a person"),
        Cause::Lost => format!("{worker} did not know it any more"),
        Cause::AskedBack => format!("{worker} gave it back because another worker was idle"),
        Cause::Moved => "a person moved it".into(),
        Cause::Superseded => "another attempt was current".into(),
        Cause::OutOfMemory => "it ran out of memory".into(),
        Cause::TimedOut => "its time was up".into(),
        Cause::Disk => "it took too much of the disk".into(),
        Cause::Machine => format!("the machine of {worker} was at fault: {reason}"),
        Cause::NotStarted => format!("it could not be started: {reason}"),
        Cause::Exit | Cause::Signal => format!("it failed: {reason}"),
        Cause::Done | Cause::Cancelled | Cause::Unspecified if reason.is_empty() => {
            "it ended".into()
        }
        Cause::Done | Cause::Cancelled | Cause::Unspecified => reason.to_owned(),
    };
    match cause.word() {
        "" => what,
        word => format!("{what} ({word})"),
    }
}

/// Returns why a worker's link is down.
pub(super) fn gone(cause: LinkCause) -> &'static str {
    match cause {
        LinkCause::Unspecified => "",
        LinkCause::Closed => " (its connection broke: network)",
        LinkCause::Silent => " (nothing came from it any more: silent)",
        LinkCause::Stopped => " (it was stopped)",
        LinkCause::TakenOver => " (a newer connection of it took over)",
        LinkCause::Refused => " (it was refused)",
        LinkCause::Slow => " (it did not read what it was sent: slow)",
        LinkCause::Slept => " (its machine slept)",
        LinkCause::Restarted => " (the coordinator was restarted)",
    }
}
