//! Output: tables or JSON.
//!
//! Control characters in foreign texts are escaped in one place: here. JSON, and the output of tasks,
//! are copied unchanged.

use outlast_wire::text::{visible, visible_lines};
use serde::Serialize;
use std::io::{self, Write};

/// Prints a document as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    exactly(&text)
}

/// Prints a line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    exactly(&visible(text))
}

/// Prints a text that may have several lines.
pub(crate) fn text(text: &str) -> io::Result<()> {
    exactly(&visible_lines(text))
}

/// Prints a line unchanged: JSON, or a drawing of texts that are safe to print.
pub(crate) fn exactly(text: &str) -> io::Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes. A closed reader (`| head`) ends the process without an error.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(io::Error::new(e.kind(), format!("standard output: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Standard output, as used by [`raw`].
pub(crate) struct Raw;

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        raw(bytes).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints aligned columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    let shown = |row: &Vec<String>| row.iter().map(|cell| visible(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let format = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text += &format!("{cell:width$}  ");
        }
        text.trim_end().to_owned()
    };
    line(&format(&mut head.iter().copied()))?;
    for row in &rows {
        line(&format(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}

/// Formats a time of the API for display.
pub(crate) fn time(text: Option<&str>) -> String {
    text.unwrap_or("-").replacen('T', " ", 1).trim_end_matches('Z').to_owned()
}

/// Formats Unix milliseconds as date and time of day in UTC.
pub(crate) fn clock(unix_ms: i64) -> String {
    let (days, ms) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    // The inverse of `unix_ms` below, from the same source.
    let doe = (days + 719_468).rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let s = ms / 1000;
    format!("{m:02}-{d:02} {:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// Shortens a text for a column, with control characters escaped.
pub(crate) fn short(text: &str, width: usize) -> String {
    let text = text.replace(['\n', '\t'], " ");
    let text = visible(&text);
    if text.chars().count() <= width {
        return text.into_owned();
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut + "…"
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Formats a task's command in one line.
pub(crate) fn command(spec: &outlast::TaskSpec) -> String {
    match &spec.run {
        outlast::Run::Command(argv) => argv.join(" "),
        outlast::Run::Shell(line) => line.clone(),
        outlast::Run::Call(call) => format!("{}()", call.function),
        outlast::Run::Browser(browser) => format!("browser: {}", one_line(&browser.script)),
    }
}

/// Formats milliseconds for display.
pub(crate) fn duration(ms: i64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Formats a number of bytes for display.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Parses an RFC 3339 time in UTC, as in the API, to Unix milliseconds.
pub(crate) fn unix_ms(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|n| n.parse::<i64>().ok());
    let (y, m, d) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':').map(|n| n.parse::<i64>().ok());
    let (h, min, s) = (clock.next()??, clock.next()??, clock.next()??);
    let ms = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    // Days since 1970 of the proleptic Gregorian calendar (Hinnant, "chrono-compatible
    // low-level date algorithms").
    let y = if m <= 2 { y - 1 } else { y };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some((((days * 24 + h) * 60 + min) * 60 + s) * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(unix_ms("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(unix_ms("2026-11-24T14:20:48.5Z"), Some(1_795_530_048_500));
        assert_eq!(unix_ms("nonsense"), None);
        assert_eq!(clock(1_795_530_048_500), "11-24 14:20:48");
        assert_eq!(clock(0), "01-01 00:00:00");
        assert_eq!(clock(1_709_164_800_000), "02-29 00:00:00");
    }
}
