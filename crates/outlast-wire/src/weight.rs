//! The memory that a protobuf message takes once it is decoded, counted over its bytes before any of
//! it is allocated: an empty item takes two bytes on the wire, and some hundred as a value.
//!
//! The table of messages is made from the `.proto` at build time, with the sizes of the Rust types.

use crate::v2;

/// Representation of a field in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A number of so many bytes in memory, a varint on the wire.
    Varint(usize),
    /// A number of so many bytes, there and here.
    Fixed(usize),
    Text,
    /// Shares the memory of the message that it came in.
    Bytes,
    /// By its place in the table.
    Message(usize),
    /// Entry of a map from text to text.
    Entry,
}

#[derive(Debug)]
pub(crate) struct Field {
    number: u32,
    many: bool,
    kind: Kind,
}

#[derive(Debug)]
pub(crate) struct Type {
    size: usize,
    /// Fields in the order of their numbers.
    fields: &'static [Field],
}

/// A message of the `.proto`.
pub(crate) trait Weighed {
    /// Position in the table.
    const TYPE: usize;
}

include!(concat!(env!("OUT_DIR"), "/weights.rs"));

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The most bytes that decoding `bytes` as an `M` takes beside them: a bound, since a list that grows
/// lies in memory twice for a moment. Counting ends above `limit`.
pub(crate) fn weigh<M: Weighed>(bytes: &[u8], limit: usize) -> Result<usize, Damaged> {
    let mut counter = Counter { total: 0, limit };
    counter.message(bytes, M::TYPE)?;
    Ok(counter.total)
}

/// Values of a list that lie in memory at most for each that it has: it doubles, and is copied.
const GROWTH: usize = 3;
/// Values that a list has room for from its first one on.
const FIRST: usize = 4;
/// A node of a map, as long as it has only one.
const NODE: usize = 11 * 2 * size_of::<String>() + 128;
/// An entry of a map, whose nodes are half full at least.
const ENTRY: usize = 3 * 2 * size_of::<String>() + 32;
/// The least that is allocated for a text.
const TEXT: usize = 8;

struct Counter {
    total: usize,
    limit: usize,
}

impl Counter {
    fn message(&mut self, bytes: &[u8], of: usize) -> Result<(), Damaged> {
        let Type { size, fields } = &TYPES[of];
        self.total += size;
        let mut rest = Cursor(bytes);
        // Fields mostly come in order.
        let (mut at, mut seen) = (0, 0_u64);
        while !rest.0.is_empty() && self.total <= self.limit {
            let (number, wire) = rest.key()?;
            let content = rest.content(wire)?;
            while at < fields.len() && fields[at].number < number {
                at += 1;
            }
            if at == fields.len() || fields[at].number != number {
                match fields.binary_search_by_key(&number, |field| field.number) {
                    Ok(found) => at = found,
                    // Of a newer version: it is skipped.
                    Err(_) => {
                        at = 0;
                        continue;
                    }
                }
            }
            let field = &fields[at];
            let bit = 1_u64.checked_shl(at as u32).unwrap_or(0);
            let first = seen & bit == 0;
            seen |= bit;
            self.field(field, first, content)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, first: bool, content: Content<'_>) -> Result<(), Damaged> {
        let copies = match (field.many, first) {
            (false, _) => 1,
            (true, true) => FIRST,
            (true, false) => GROWTH,
        };
        match (field.kind, content) {
            (Kind::Message(of), Content::Bytes(bytes)) => {
                // It lies in its parent, in a box, or in a list.
                self.total += (copies - usize::from(field.many)) * TYPES[of].size;
                self.message(bytes, of)?;
            }
            (Kind::Entry, Content::Bytes(bytes)) => {
                self.total += bytes.len() + 2 * TEXT + if first { NODE } else { ENTRY };
            }
            (Kind::Text, Content::Bytes(bytes)) => {
                let slot = if field.many { copies * size_of::<String>() } else { 0 };
                self.total += bytes.len().max(TEXT) + slot;
            }
            (Kind::Bytes, Content::Bytes(_)) if field.many => {
                self.total += copies * size_of::<bytes::Bytes>();
            }
            // Packed.
            (Kind::Varint(size), Content::Bytes(bytes)) => {
                let count = bytes.iter().filter(|byte| **byte < 0x80).count();
                self.total += GROWTH * size * count + FIRST * size;
            }
            (Kind::Fixed(_), Content::Bytes(bytes)) => self.total += GROWTH * bytes.len() + 32,
            (Kind::Varint(size) | Kind::Fixed(size), Content::Number) if field.many => {
                self.total += copies * size;
            }
            // Part of its message; or of another kind than it should be, which no decoder takes.
            _ => {}
        }
        Ok(())
    }
}

enum Content<'a> {
    Number,
    Bytes(&'a [u8]),
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0_u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                // The tenth has room for one bit.
                if at == 9 && *byte > 1 {
                    return Err(Damaged);
                }
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    fn key(&mut self) -> Result<(u32, u8), Damaged> {
        let key = u32::try_from(self.varint()?).map_err(|_| Damaged)?;
        if key >> 3 == 0 { Err(Damaged) } else { Ok((key >> 3, (key & 7) as u8)) }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Damaged> {
        let len = usize::try_from(len).map_err(|_| Damaged)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn content(&mut self, wire: u8) -> Result<Content<'a>, Damaged> {
        match wire {
            0 => drop(self.varint()?),
            1 => drop(self.take(8)?),
            2 => {
                let len = self.varint()?;
                return Ok(Content::Bytes(self.take(len)?));
            }
            5 => drop(self.take(4)?),
            // Groups, which this protocol has none of.
            _ => return Err(Damaged),
        }
        Ok(Content::Number)
    }
}

/// Returns true if a message has at most `most` fields over `levels` levels, for messages whose types
/// have no table: every field that may be a message counts as one. Malformed ones are left to the
/// decoder.
pub fn has_few_fields(bytes: &[u8], levels: u32, most: usize) -> bool {
    fn count(bytes: &[u8], levels: u32, left: &mut usize) -> Result<(), Damaged> {
        let mut rest = Cursor(bytes);
        while !rest.0.is_empty() && *left > 0 {
            let (_, wire) = rest.key()?;
            let content = rest.content(wire)?;
            *left -= 1;
            if let (Content::Bytes(inner), true) = (content, levels > 1) {
                // A text is no message: what of it looks like one counts all the same.
                let _ = count(inner, levels - 1, left);
            }
        }
        Ok(())
    }
    let mut left = most + 1;
    let _ = count(bytes, levels, &mut left);
    left > 0
}

/// The most memory that a body takes once decoded, beside its bytes.
pub(crate) fn of_body(bytes: &[u8], limit: usize) -> Result<usize, Damaged> {
    weigh::<v2::Body>(bytes, limit)
}

/// Finds the payload in an envelope: true if it is compressed, and its range.
pub(crate) fn payload(bytes: &[u8]) -> Result<Option<(bool, std::ops::Range<usize>)>, Damaged> {
    let mut rest = Cursor(bytes);
    let mut found = None;
    while !rest.0.is_empty() {
        let (number, wire) = rest.key()?;
        if let (Content::Bytes(inner), 1 | 2) = (rest.content(wire)?, number) {
            let end = bytes.len() - rest.0.len();
            // Two payloads: the decoder would merge them, and no encoder writes that.
            if found.replace((number == 2, end - inner.len()..end)).is_some() {
                return Err(Damaged);
            }
        }
    }
    Ok(found)
}
