//! The format of packs: a mark, then the chunks, each behind its frame.

use crate::Hash;

/// The mark at the beginning of a pack.
pub(crate) const MAGIC: &[u8; 8] = b"OLPACK1\n";
/// Length of the frame before each chunk: its hash, its raw and its stored length. The index does not
/// need it, but could be built again from it.
pub(crate) const FRAME: usize = 32 + 4 + 4;

/// A chunk to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub hash: Hash,
    pub raw_len: u32,
    /// Compressed when it is shorter than `raw_len`.
    pub bytes: &'a [u8],
}

impl Piece<'_> {
    /// The frame before this chunk.
    pub fn frame(&self) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[..32].copy_from_slice(self.hash.as_bytes());
        frame[32..36].copy_from_slice(&self.raw_len.to_le_bytes());
        frame[36..].copy_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        frame
    }
}
