//! Output: tables or JSON.
//!
//! Control characters in foreign texts are escaped in one place: here. JSON, and the output of tasks,
//! are copied unchanged.

use crate::args::Size;
use jiff::Timestamp;
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
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    at.strftime("%m-%d %H:%M:%S").to_string()
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
    Size(n).to_string()
}

/// Parses an RFC 3339 time in UTC, as in the API, to Unix milliseconds.
pub(crate) fn unix_ms(text: &str) -> Option<i64> {
    text.parse().ok().map(Timestamp::as_millisecond)
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
