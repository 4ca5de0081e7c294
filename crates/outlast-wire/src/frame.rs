//! Envelope framing: one message, compressed above a threshold, never larger than its limits.
//!
//! A message is counted before it is decoded: first its bytes, then what they decompress to, then what
//! that takes as values (`weight`). Whoever reads a link waits with what is over its peer's share.

use crate::v2::{self, envelope::Payload};
use crate::weight::{self, Damaged};
use bytes::Bytes;
pub use outlast_model::packing::{BULK_TARGET, COMPRESS_ABOVE, MAX_MESSAGE, Packing};
use prost::Message;
use std::cell::RefCell;
use std::io::Read;
use zstd::bulk::Decompressor;

/// The largest message after decompression, in bytes. Bounds what a small frame can make us hold.
pub const MAX_DECOMPRESSED: usize = 8 << 20;
/// The most memory that one message takes once it is decoded, in bytes, those that it came in
/// included.
pub const MAX_WEIGHT: usize = 16 << 20;
/// Powers of two of bytes that a compressed message may look back.
const WINDOW_LOG: u32 = 23;
/// A message that claims to be no larger, in bytes, is given that much room at once.
const TRUSTED: usize = 512 << 10;

/// Reason why a frame could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than the limit.
    #[error("message of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes are not a protobuf `Envelope`.
    #[error("malformed message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Bytes that are no message at all.
    #[error("malformed message: it is damaged")]
    Damaged,
    /// The message would take more memory than allowed.
    #[error(
        "a message of {size} bytes has so many parts that it takes more than {limit} bytes of memory"
    )]
    TooHeavy {
        /// Size in bytes before compression.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The compressed part is damaged or decompresses to too much.
    #[error("compressed message cannot be read: {0}")]
    Compression(std::io::Error),
    /// An envelope or a body without content that this version knows.
    #[error("message has no content that protocol {} knows", crate::PROTOCOL)]
    Empty,
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
/// See [`FrameError`]. Never takes more than [`MAX_WEIGHT`] bytes beside what it is given.
pub fn decode(data: Bytes) -> Result<v2::body::Kind, FrameError> {
    decode_sized(data).map(|(kind, _)| kind)
}

/// The same, and how many bytes it was before, if it was compressed or large enough for that: what
/// did not get smaller counts on both sides.
///
/// # Errors
/// Like [`decode`].
pub fn decode_sized(data: Bytes) -> Result<(v2::body::Kind, Option<usize>), FrameError> {
    let opened = open(data)?;
    let raw = opened.raw;
    Ok((opened.decode()?, raw))
}

/// A message that was counted and is not decoded yet.
#[derive(Debug)]
pub struct Opened {
    body: Bytes,
    weight: usize,
    /// Size before compression, as returned by [`decode_sized`].
    pub raw: Option<usize>,
}

impl Opened {
    /// Returns the size before compression.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The most bytes of memory that it takes once it is decoded, those included.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] and [`FrameError::Empty`].
    pub fn decode(self) -> Result<v2::body::Kind, FrameError> {
        v2::Body::decode(self.body)?.kind.ok_or(FrameError::Empty)
    }
}

/// Decompresses one message and counts what it takes.
///
/// # Errors
/// See [`FrameError`].
pub fn open(data: Bytes) -> Result<Opened, FrameError> {
    if data.len() > MAX_MESSAGE {
        return Err(FrameError::TooLarge { size: data.len(), limit: MAX_MESSAGE });
    }
    let (packed, range) = weight::payload(&data)?.ok_or(FrameError::Empty)?;
    let body = data.slice(range);
    let (body, raw) = match packed {
        true => {
            let raw = Bytes::from(unpack(&body)?);
            let size = raw.len();
            (raw, Some(size))
        }
        false => {
            let size = body.len();
            (body, (size > COMPRESS_ABOVE).then_some(size))
        }
    };
    let weight = body.len() + weight::of_body(&body, MAX_WEIGHT)?;
    if weight > MAX_WEIGHT {
        return Err(FrameError::TooHeavy { size: body.len(), limit: MAX_WEIGHT });
    }
    Ok(Opened { body, weight, raw })
}

impl From<Damaged> for FrameError {
    fn from(Damaged: Damaged) -> FrameError {
        FrameError::Damaged
    }
}

thread_local! {
    /// Decompressor of this thread, reused because its tables take longer to set up than most messages to
    /// decompress.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses a frame; the memory grows with the actual data, not with the size claimed in the header.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, FrameError> {
    let claimed = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let claimed = claimed.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    match claimed {
        Some(size) if size > MAX_DECOMPRESSED => {
            Err(FrameError::TooLarge { size, limit: MAX_DECOMPRESSED })
        }
        Some(size) if size <= TRUSTED => UNPACKER.with_borrow_mut(|unpacker| {
            let unpacker = match unpacker {
                Some(unpacker) => unpacker,
                None => unpacker.insert(Decompressor::new().map_err(FrameError::Compression)?),
            };
            unpacker.decompress(packed, size).map_err(FrameError::Compression)
        }),
        _ => unpack_slowly(packed),
    }
}

fn unpack_slowly(packed: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut decoder = zstd::Decoder::new(packed).map_err(FrameError::Compression)?;
    decoder.window_log_max(WINDOW_LOG).map_err(FrameError::Compression)?;
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

    /// Empty items take two bytes each on the wire, and almost none compressed.
    #[test]
    fn many_empty_parts_are_refused_before_they_are_decoded() {
        let items = vec![v2::OutboxItem::default(); 100_000];
        let batch = v2::OutboxBatch { items, ..Default::default() };
        let bomb = encode(v2::body::Kind::Outbox(batch));
        assert!(bomb.len() < 1_000);
        let refused = decode(bomb).unwrap_err();
        assert!(matches!(refused, FrameError::TooHeavy { size: 200_000.., .. }), "{refused}");
        // As many as one batch has, with what they have.
        let outcome = v2::TaskOutcome {
            task_id: "a".repeat(36),
            stdout_tail: vec![b'x'; 2_000].into(),
            ..Default::default()
        };
        let item = v2::OutboxItem { kind: Some(v2::outbox_item::Kind::Outcome(outcome)) };
        let batch = v2::OutboxBatch { items: vec![item; 1_000], ..Default::default() };
        let kind = v2::body::Kind::Outbox(batch);
        let bytes = encode(kind.clone());
        let opened = open(bytes).unwrap();
        assert!((2_000_000..4_000_000).contains(&opened.weight()), "{}", opened.weight());
        assert_eq!(opened.decode().unwrap(), kind);
    }

    #[test]
    fn what_claims_no_size_is_unpacked_as_far_as_it_goes() {
        let raw = v2::Body::from(big(TRUSTED * 2)).encode_to_vec();
        let packed = zstd::stream::encode_all(&raw[..], 3).unwrap();
        assert!(matches!(zstd::zstd_safe::get_frame_content_size(&packed), Ok(None)));
        let frame = envelope(Payload::Zstd(packed.into()));
        assert_eq!(decode(frame).unwrap(), big(TRUSTED * 2));
        let zeros = zstd::stream::encode_all(&vec![0; MAX_DECOMPRESSED + 1][..], 3).unwrap();
        let refused = decode(envelope(Payload::Zstd(zeros.into()))).unwrap_err();
        assert!(matches!(refused, FrameError::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn an_envelope_has_one_payload() {
        let one = encode(big(3));
        let two = [&one[..], &one[..]].concat();
        assert!(matches!(decode(two.into()), Err(FrameError::Damaged)));
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
