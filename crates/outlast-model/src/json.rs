//! JSON from outside, counted before it is read: `[1,1,1]` takes two bytes a value as text, and some
//! hundred once it is in memory.

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::{self, Write};

/// Levels of nesting that are read.
pub const MAX_DEPTH: usize = 64;

/// Bytes that a value takes in a list, which doubles as it grows, and is copied.
const VALUE: usize = 3 * size_of::<Value>();
/// Bytes that a member of an object takes: its name, hash and place besides.
const MEMBER: usize = VALUE + 3 * (size_of::<String>() + 8) + 3 * 16;
/// Memory of a list or an object with its first value: it has room for four.
const CONTAINER: usize = 4 * (size_of::<Value>() + size_of::<String>() + 8) + 96;

/// Size of a JSON text's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// Values, in lists and objects too.
    pub values: usize,
    /// Members of objects.
    pub members: usize,
    /// Lists and objects.
    pub containers: usize,
    /// Levels of nesting.
    pub depth: usize,
    /// Values and members of the outermost list or object.
    pub outer: usize,
}

impl Parts {
    /// Counts without validation; every part of a valid text is counted.
    pub fn of(text: &[u8]) -> Parts {
        let mut parts = Parts { values: 1, ..Parts::default() };
        let (mut depth, mut rest) = (0_usize, text.iter());
        // Whether something was seen since the last bracket: then it is not empty.
        let mut filled = false;
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => {
                    filled = true;
                    while let Some(byte) = rest.next() {
                        match byte {
                            b'"' => break,
                            b'\\' => drop(rest.next()),
                            _ => {}
                        }
                    }
                }
                b'[' | b'{' => {
                    depth += 1;
                    parts.depth = parts.depth.max(depth);
                    parts.containers += 1;
                    // The first value of what is not empty has no comma.
                    parts.values += 1;
                    parts.outer += usize::from(depth <= 1);
                    filled = false;
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if !std::mem::replace(&mut filled, true) {
                        parts.values = parts.values.saturating_sub(1);
                        let outermost = usize::from(depth == 0);
                        parts.outer = parts.outer.saturating_sub(outermost);
                    }
                }
                b',' => {
                    parts.values += 1;
                    parts.outer += usize::from(depth <= 1);
                }
                b':' => parts.members += 1,
                b' ' | b'\n' | b'\r' | b'\t' => {}
                _ => filled = true,
            }
        }
        parts
    }

    /// The most bytes that it takes in memory as values, beside its text.
    pub fn weight(&self) -> usize {
        self.values * VALUE + self.members * (MEMBER - VALUE) + self.containers * CONTAINER
    }
}

/// The longest text of a parser's that is passed on, in characters.
const MAX_QUOTE: usize = 500;

/// Shortens a parser's message, which may quote the whole input. A quote is six times as long as the
/// input where every byte needs an escape, so no second copy is made of it.
pub fn short(error: &serde_json::Error) -> String {
    let mut quote = Quote { text: String::new(), left: MAX_QUOTE };
    // The only error is that of a full quote.
    let _ = write!(quote, "{error}");
    quote.text
}

/// The first characters of what is written; then it is full, and says so.
struct Quote {
    text: String,
    left: usize,
}

impl Write for Quote {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

/// Limits of a document.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The longest text, in bytes.
    pub bytes: usize,
    /// The most memory that its values take, in bytes, beside their text.
    pub weight: usize,
}

impl Limit {
    /// Checks a text before it is parsed to values.
    ///
    /// # Errors
    /// The exceeded limit, in words.
    pub fn check(&self, text: &[u8]) -> Result<(), String> {
        if text.len() > self.bytes {
            return Err(format!("{} bytes, the limit is {}", text.len(), self.bytes));
        }
        let parts = Parts::of(text);
        if parts.depth > MAX_DEPTH {
            let depth = parts.depth;
            return Err(format!("{depth} levels of nesting, the limit is {MAX_DEPTH}"));
        }
        let weight = parts.weight();
        if weight > self.weight {
            return Err(format!(
                "{} values, which take {weight} bytes of memory; the limit is {}",
                parts.values, self.weight
            ));
        }
        Ok(())
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub fn read<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, String> {
        self.check(text)?;
        serde_json::from_slice(text).map_err(|e| short(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_through_texts_and_blanks() {
        let of = |text: &str| {
            let p = Parts::of(text.as_bytes());
            (p.values, p.members, p.containers, p.depth, p.outer)
        };
        assert_eq!(of("1"), (1, 0, 0, 0, 0));
        assert_eq!(of("[]"), (1, 0, 1, 1, 0));
        assert_eq!(of("[ 1 , 2 ]"), (3, 0, 1, 1, 2));
        assert_eq!(of(r#"{"a":[1,{}],"b\"]":"[,:{"}"#), (5, 2, 3, 3, 2));
        assert_eq!(of(r#"["\\",[[]]]"#), (4, 0, 3, 3, 2));
        // What is no JSON is counted all the same.
        of("]]]}\"");
        of("[[[[");
    }

    #[test]
    fn what_is_over_a_limit_says_which() {
        let limit = Limit { bytes: 1000, weight: 40_000 };
        assert_eq!(limit.read::<Vec<u8>>(b"[1,2]").unwrap(), [1, 2]);
        let why = |text: &str| limit.read::<Value>(text.as_bytes()).unwrap_err();
        assert!(why(&" ".repeat(1001)).contains("limit is 1000"));
        assert!(why(&format!("[{}1]", "1,".repeat(400))).contains("402 values"));
        assert!(why(&"[".repeat(65)).contains("65 levels"));
        assert!(why("{").contains("EOF"));
        let long = format!("\"{}\"", "x".repeat(900));
        assert!(limit.read::<u8>(long.as_bytes()).unwrap_err().len() <= MAX_QUOTE);
    }
}
