//! Envelope framing: one message, compressed above a threshold, never larger than its limits.

use crate::v2::{self, envelope::Payload};
use bytes::Bytes;
use prost::Message;

/// Messages smaller than this (bytes) are sent as they are; zstd would cost more than it saves.
pub const COMPRESS_ABOVE: usize = 1024;
/// The largest message accepted from the link, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// The largest message after decompression, in bytes. Bounds what a small frame can make us hold.
pub const MAX_DECOMPRESSED: usize = 16 << 20;
/// Senders split batches so that a frame stays near this size, in bytes: a heartbeat never waits
/// behind more than this.
pub const BULK_TARGET: usize = 64 << 10;

/// Why a frame could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than the limit.
    #[error("message of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not a protobuf `Envelope`.
    #[error("malformed message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The compressed part is damaged or decompresses to too much.
    #[error("compressed message cannot be read: {0}")]
    Compression(std::io::Error),
    /// An envelope or a body without content that this version knows.
    #[error("message has no content that protocol {} knows", crate::PROTOCOL)]
    Empty,
}

/// How what is sent is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Of zstd.
    pub level: i32,
    /// Messages of no more bytes are sent as they are.
    pub above: usize,
}

impl Default for Packing {
    /// For links that carry more than a core compresses well.
    fn default() -> Packing {
        Packing { level: 1, above: COMPRESS_ABOVE }
    }
}

/// Encodes one message, compressing it when it is large and zstd makes it smaller.
pub fn encode(kind: v2::body::Kind) -> Bytes {
    encode_sized(kind, Packing::default()).0
}

/// The same, and how many bytes it was before, if compression was tried.
pub fn encode_sized(kind: v2::body::Kind, packing: Packing) -> (Bytes, Option<usize>) {
    let body = v2::Body::from(kind);
    let plain_len = body.encoded_len();
    if plain_len <= packing.above {
        return (envelope(Payload::Plain(body)), None);
    }
    let raw = body.encode_to_vec();
    if let Ok(packed) = zstd::bulk::compress(&raw, packing.level)
        && packed.len() < raw.len()
    {
        return (envelope(Payload::Zstd(packed.into())), Some(plain_len));
    }
    (envelope(Payload::Plain(body)), Some(plain_len))
}

fn envelope(payload: Payload) -> Bytes {
    v2::Envelope { payload: Some(payload) }.encode_to_vec().into()
}

/// Decodes one message.
///
/// # Errors
/// See [`FrameError`]. Nothing larger than [`MAX_DECOMPRESSED`] is ever allocated.
pub fn decode(data: Bytes) -> Result<v2::body::Kind, FrameError> {
    decode_sized(data).map(|(kind, _)| kind)
}

/// The same, and how many bytes it was before, if it was compressed or large enough for that: what
/// did not get smaller counts on both sides.
///
/// # Errors
/// Like [`decode`].
pub fn decode_sized(data: Bytes) -> Result<(v2::body::Kind, Option<usize>), FrameError> {
    if data.len() > MAX_MESSAGE {
        return Err(FrameError::TooLarge { size: data.len(), limit: MAX_MESSAGE });
    }
    let (body, raw) = match v2::Envelope::decode(data)?.payload.ok_or(FrameError::Empty)? {
        Payload::Plain(body) => {
            let size = body.encoded_len();
            (body, (size > COMPRESS_ABOVE).then_some(size))
        }
        Payload::Zstd(packed) => {
            let raw = unpack(&packed)?;
            let size = raw.len();
            (v2::Body::decode(Bytes::from(raw))?, Some(size))
        }
    };
    Ok((body.kind.ok_or(FrameError::Empty)?, raw))
}

/// Streams, so that what is held grows with what is there and not with what the header claims.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, FrameError> {
    use std::io::Read;
    let decoder = zstd::Decoder::new(packed).map_err(FrameError::Compression)?;
    let mut raw = Vec::new();
    decoder
        .take(MAX_DECOMPRESSED as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(FrameError::Compression)?;
    if raw.len() > MAX_DECOMPRESSED {
        return Err(FrameError::TooLarge { size: raw.len(), limit: MAX_DECOMPRESSED });
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(n: usize) -> v2::body::Kind {
        v2::body::Kind::Bye(v2::Bye { reason: "a".repeat(n) })
    }

    #[test]
    fn round_trips_and_compresses_above_the_threshold() {
        for n in [0, 10, COMPRESS_ABOVE * 4] {
            let bytes = encode(big(n));
            assert!(n < COMPRESS_ABOVE || bytes.len() < n / 2);
            let (kind, raw) = decode_sized(bytes).unwrap();
            assert_eq!((kind, raw.is_some()), (big(n), n > COMPRESS_ABOVE));
            let usual = encode_sized(big(n), Packing::default());
            assert_eq!(raw, usual.1, "both sides count the same");
            let eager = encode_sized(big(n), Packing { level: 12, above: 4 });
            assert!(eager.0.len() <= usual.0.len());
            assert_eq!(decode(eager.0).unwrap(), big(n));
        }
    }

    #[test]
    fn what_compression_does_not_help_counts_on_both_sides() {
        let mut state = 1u64;
        let mut noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let data: Vec<u8> = (0..COMPRESS_ABOVE * 4).map(&mut noise).collect();
        let kind = v2::body::Kind::LogData(v2::LogData { data: data.into(), ..Default::default() });
        let (bytes, raw) = encode_sized(kind, Packing::default());
        assert!(raw.is_some_and(|raw| raw <= bytes.len()), "it did not get smaller");
        assert_eq!(decode_sized(bytes).unwrap().1, raw);
    }

    #[test]
    fn a_small_frame_cannot_make_us_hold_a_large_one() {
        let bomb = encode(big(MAX_DECOMPRESSED + 10));
        assert!(bomb.len() < 100_000);
        assert!(matches!(decode(bomb), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn damaged_frames_are_errors() {
        assert!(decode(Bytes::new()).is_err());
        assert!(decode(Bytes::from_static(b"\xff\xff\xff")).is_err());
        assert!(decode(vec![0; MAX_MESSAGE + 1].into()).is_err());
        let mut cut = encode(big(9000)).to_vec();
        cut.truncate(cut.len() - 5);
        assert!(decode(cut.into()).is_err());
    }
}
