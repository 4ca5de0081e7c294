//! Encoding of blob chunks in bodies of HTTP requests, one after the other: 32 bytes of BLAKE3, the
//! raw length (u32, little endian), a compression flag (u8: 0 or 1),
//! the stored length (u32, little endian), and the stored bytes.

use bytes::{Buf, Bytes, BytesMut};

/// The largest chunk, in bytes before compression.
pub const MAX_RAW: usize = 256 << 10;
/// Bytes that compression may add to a chunk.
const SLACK: usize = 64;
/// Route for a manifest given by the hashes of its parts, which were sent as chunks.
pub const MANIFEST_PARTS: &str = "/api/v2/blobs/manifests/parts";
/// Bytes before the stored ones.
pub const HEAD: usize = 32 + 4 + 1 + 4;
/// The most hashes in one question, and the most chunks in one request.
pub const MAX_HASHES: usize = 4096;
/// The most chunks that may be asked for at once.
pub const MAX_WANTED: usize = 256;
/// The largest body of chunks, in bytes.
pub const MAX_BODY: usize = 16 << 20;

/// A chunk on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// BLAKE3 of the raw bytes.
    pub hash: [u8; 32],
    /// Bytes before compression.
    pub raw_len: u32,
    /// True if the bytes are compressed with zstd.
    pub compressed: bool,
    /// Stored bytes.
    pub bytes: Bytes,
}

/// A frame that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than a chunk may be.
    #[error("chunk {nth} claims {claimed} bytes; the limit is {MAX_RAW}")]
    TooLarge {
        /// Number of the frame, from 1.
        nth: u64,
        /// Claimed length in bytes.
        claimed: u64,
    },
    /// Neither compressed nor not.
    #[error("chunk {nth} is damaged")]
    Damaged {
        /// Number of the frame, from 1.
        nth: u64,
    },
    /// The body ended within a frame.
    #[error("the body ends within chunk {nth}")]
    Cut {
        /// Number of the frame, from 1.
        nth: u64,
    },
}

/// Appends a frame.
pub fn encode(hash: &[u8; 32], raw_len: u32, compressed: bool, bytes: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(hash);
    to.extend_from_slice(&raw_len.to_le_bytes());
    to.push(u8::from(compressed));
    let len = u32::try_from(bytes.len()).expect("a chunk is small");
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(bytes);
}

/// Reads frames from pieces of a body.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    seen: u64,
}

impl Decoder {
    /// Takes a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read then.
    // It may go on after a `None`, and fails: no iterator.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.len() < HEAD {
            return Ok(None);
        }
        let nth = self.seen + 1;
        let number = |at: usize| {
            let bytes: [u8; 4] = self.buffer[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        let (raw_len, packed, len) = (number(32), self.buffer[36], number(37) as usize);
        if raw_len as usize > MAX_RAW || len > MAX_RAW + SLACK {
            let claimed = u64::from(raw_len).max(len as u64);
            return Err(FrameError::TooLarge { nth, claimed });
        }
        let compressed = match packed {
            0 => false,
            1 => true,
            _ => return Err(FrameError::Damaged { nth }),
        };
        if self.buffer.len() < HEAD + len {
            return Ok(None);
        }
        let hash = self.buffer[..32].try_into().expect("32 bytes");
        self.buffer.advance(HEAD);
        let bytes = self.buffer.split_to(len).freeze();
        self.seen = nth;
        Ok(Some(Frame { hash, raw_len, compressed, bytes }))
    }

    /// The body has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`] if it ended within a frame.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Cut { nth: self.seen + 1 }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_body() {
        let mut body = Vec::new();
        encode(&[7; 32], 5, false, b"hello", &mut body);
        encode(&[8; 32], 100, true, b"", &mut body);
        for step in 1..body.len() {
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for piece in body.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    got.push((frame.hash[0], frame.raw_len, frame.compressed, frame.bytes.len()));
                }
            }
            assert_eq!(got, [(7, 5, false, 5), (8, 100, true, 0)]);
            decoder.end().unwrap();
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_held() {
        let mut decoder = Decoder::default();
        let mut head = vec![0; HEAD];
        head[37..41].copy_from_slice(&u32::MAX.to_le_bytes());
        decoder.push(&head);
        assert!(matches!(decoder.next(), Err(FrameError::TooLarge { nth: 1, .. })));
        let mut decoder = Decoder::default();
        head = vec![2; HEAD];
        head[32..36].fill(0);
        head[37..41].fill(0);
        decoder.push(&head);
        assert!(matches!(decoder.next(), Err(FrameError::Damaged { nth: 1 })));
        let mut decoder = Decoder::default();
        decoder.push(&[0; 10]);
        assert!(decoder.end().is_err());
    }
}
