//! Texts of others, made safe to show: what a task, a worker or a submitter wrote must not move a
//! cursor, paint over what was said before, or pass for another line of a log.

use std::borrow::Cow;
use std::fmt;

/// Returns true if a character has an effect besides being displayed: control characters (C0, DEL,
/// C1), those that change the direction of writing, and line separators other than `\n`.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// The text in one line: what is not to be seen is written as an escape (`\n`, `\x1b`, `\u{202e}`).
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, &[])
}

/// The same for text of several lines: line feeds and tabs stay as they are.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, &['\n', '\t'])
}

fn escaped<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let hidden = |c: char| is_active(c) && !kept.contains(&c);
    let Some(first) = text.find(hidden) else { return Cow::Borrowed(text) };
    let mut out = text[..first].to_owned();
    for c in text[first..].chars() {
        match c {
            c if !hidden(c) => out.push(c),
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if u32::from(c) < 0x100 => out += &format!("\\x{:02x}", u32::from(c)),
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// Writes what it shows as [`visible`] has it, without a text of its own where nothing is hidden.
pub struct Visible<'a, W: ?Sized>(pub &'a mut W);

impl<W: fmt::Write + ?Sized> fmt::Write for Visible<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&visible(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn what_acts_is_written_out_and_what_is_seen_stays() {
        for plain in ["", "a b", "größer → ✓ 漢字 👩‍👧", r"C:\x1b"] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
        for (text, shown) in [
            ("a\u{1b}[2Jb", r"a\x1b[2Jb"),
            ("\u{9b}31m", r"\x9b31m"),
            ("a\r\nINFO b\tc\0\u{7f}", r"a\r\nINFO b\tc\x00\x7f"),
            ("x\u{202e}gpj.exe", r"x\u{202e}gpj.exe"),
            ("a\u{2028}b\u{feff}", r"a\u{2028}b\u{feff}"),
        ] {
            assert_eq!(visible(text), shown);
            let mut written = String::new();
            write!(Visible(&mut written), "{text}").unwrap();
            assert_eq!(written, shown);
        }
        assert_eq!(visible_lines("a\tb\nc\r\u{1b}"), "a\tb\nc\\r\\x1b");
    }
}
