//! A chunk as it is stored and sent: whether to compress it, and how to get it back unharmed.

use crate::{BlobError, Hash, MAX_CHUNK};

/// zstd's fastest ordinary level, and most of what higher ones save.
const LEVEL: i32 = 1;
/// Approximate compression rate in bytes per second.
const SPEED: u64 = 400_000_000;
/// Bytes of a chunk that are compressed as a sample before all of it is.
const SAMPLE: usize = 16 << 10;
/// After data that does not shrink, at most so many chunks go by untried.
const MAX_PATIENCE: u32 = 32;

/// A chunk as stored, to be sent to another store without packing it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The length before compression, in bytes; at most [`MAX_CHUNK`].
    pub raw_len: u32,
    /// True if `bytes` is a zstd frame; otherwise it is the chunk itself.
    pub compressed: bool,
    /// The stored bytes.
    pub bytes: Vec<u8>,
}

/// Gives back the raw chunk after checking everything about it; `buf` is room for it. Reads no
/// more than [`MAX_CHUNK`] bytes out of a frame, whatever that claims.
pub(crate) fn unpack<'a>(
    chunk: &Hash,
    stored: &'a [u8],
    compressed: bool,
    raw_len: u32,
    buf: &'a mut Vec<u8>,
) -> Result<&'a [u8], String> {
    if raw_len == 0 || raw_len > MAX_CHUNK {
        return Err(format!("a length of {raw_len} bytes"));
    }
    let raw = if compressed {
        if stored.len() >= raw_len as usize {
            return Err("it is no shorter for being compressed".into());
        }
        buf.resize(MAX_CHUNK as usize, 0);
        let room = &mut buf[..raw_len as usize];
        let got = zstd::bulk::decompress_to_buffer(stored, room).map_err(|e| e.to_string())?;
        &buf[..got]
    } else {
        stored
    };
    if raw.len() != raw_len as usize {
        return Err(format!("{} bytes, not {raw_len}", raw.len()));
    }
    if Hash::of(raw) != *chunk {
        return Err("its content has another hash".into());
    }
    Ok(raw)
}

/// Compresses what shrinks, and soon stops trying what does not.
pub struct Squeezer {
    zstd: zstd::bulk::Compressor<'static>,
    /// Chunks to let pass before the next try.
    wait: u32,
    /// Value of `wait` after the next failure.
    patience: u32,
    trial: Vec<u8>,
    /// A sample must shrink below this many bytes for the rest to be tried.
    goal: usize,
}

impl Squeezer {
    /// Creates a packer that minimizes size, for the way to another machine.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> Result<Self, BlobError> {
        Self::with_level(LEVEL)
    }

    /// The same, at another level of zstd.
    ///
    /// # Errors
    /// Like [`Squeezer::new`].
    pub fn with_level(level: i32) -> Result<Self, BlobError> {
        let zstd =
            zstd::bulk::Compressor::new(level).map_err(|e| BlobError::io("compression", e))?;
        let goal = SAMPLE - SAMPLE / 16;
        Ok(Self { zstd, wait: 0, patience: 1, trial: Vec::new(), goal })
    }

    /// Creates a packer that minimizes time: it compresses data that is then written sooner than
    /// uncompressed, on a disk of this rate in bytes per second.
    pub(crate) fn hasty(disk: u64) -> Result<Self, BlobError> {
        let mut made = Self::new()?;
        // Of each byte, the share saved costs 1/disk more to write, all of it 1/SPEED to compress.
        let least = (disk as f64 / SPEED as f64).clamp(1.0 / 16.0, 1.0);
        made.goal = (SAMPLE as f64 * (1.0 - least)) as usize;
        Ok(made)
    }

    /// A chunk for a slow way: compressed, if it is not and that saves a sixteenth or more.
    pub fn pack(&mut self, chunk: Packed) -> Packed {
        if chunk.compressed {
            return chunk;
        }
        match self.squeeze(&chunk.bytes) {
            Some(bytes) => Packed { compressed: true, bytes, ..chunk },
            None => chunk,
        }
    }

    /// The compressed chunk when that saves a sixteenth or more.
    pub(crate) fn squeeze(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        if self.wait > 0 {
            self.wait -= 1;
            return None;
        }
        let shrunk = self.shrinks(raw).then(|| self.zstd.compress(raw).ok()).flatten();
        let shrunk = shrunk.filter(|packed| packed.len() + raw.len() / 16 < raw.len());
        if shrunk.is_some() {
            self.patience = 1;
        } else {
            self.wait = self.patience;
            self.patience = (self.patience * 2).min(MAX_PATIENCE);
        }
        shrunk
    }

    /// Judges by a piece from the middle: headers at the front say little about the rest.
    fn shrinks(&mut self, raw: &[u8]) -> bool {
        if raw.len() <= SAMPLE * 2 {
            return self.goal > 0;
        }
        let from = (raw.len() - SAMPLE) / 2;
        self.trial.resize(SAMPLE * 2, 0);
        let got = self.zstd.compress_to_buffer(&raw[from..from + SAMPLE], &mut self.trial[..]);
        got.is_ok_and(|n| n < self.goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; len];
        reader.fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_shrinks_is_compressed_and_comes_back() {
        let text = b"a line of a log, much like the next\n".repeat(2000);
        let packed = Squeezer::new().unwrap().squeeze(&text).unwrap();
        assert!(packed.len() < text.len() / 10);
        let mut buf = Vec::new();
        let hash = Hash::of(&text);
        assert_eq!(unpack(&hash, &packed, true, text.len() as u32, &mut buf).unwrap(), text);
    }

    #[test]
    fn noise_is_tried_ever_less_and_text_is_found_again() {
        let mut squeezer = Squeezer::new().unwrap();
        for seed in 0..200 {
            assert_eq!(squeezer.squeeze(&noise(64 << 10, seed)), None);
        }
        assert_eq!(squeezer.patience, MAX_PATIENCE);
        let text = vec![b'x'; 64 << 10];
        let misses = (0..100).filter(|_| squeezer.squeeze(&text).is_none()).count();
        assert!(misses <= MAX_PATIENCE as usize);
        assert!(squeezer.squeeze(b"x").is_none(), "nothing to gain");
        assert!(squeezer.squeeze(b"").is_none());
    }

    #[test]
    fn a_fast_disk_is_not_kept_waiting() {
        // Half of it shrinks to nothing.
        let half: Vec<u8> =
            noise(64 << 10, 3).chunks(32).flat_map(|n| [n, &[0; 32]].concat()).collect();
        let zeros = vec![0; 64 << 10];
        let tried = |disk: u64, raw: &[u8]| Squeezer::hasty(disk).unwrap().squeeze(raw).is_some();
        assert!(tried(100_000_000, &half) && tried(100_000_000, &zeros));
        assert!(!tried(300_000_000, &half) && tried(300_000_000, &zeros));
        assert!(!tried(2_000_000_000, &half) && !tried(2_000_000_000, &zeros));
        let chunk = Packed { raw_len: 64 << 10, compressed: false, bytes: zeros };
        let packed = Squeezer::new().unwrap().pack(chunk.clone());
        assert!(packed.compressed && packed.bytes.len() < 1000);
        assert_eq!(Squeezer::new().unwrap().pack(packed.clone()), packed);
        let loud = Packed { bytes: noise(64 << 10, 4), ..chunk };
        assert_eq!(Squeezer::new().unwrap().pack(loud.clone()), loud);
    }

    #[test]
    fn lies_are_refused() {
        let raw = vec![7u8; 100 << 10];
        let hash = Hash::of(&raw);
        let len = raw.len() as u32;
        let frame = zstd::bulk::compress(&raw, 1).unwrap();
        let mut buf = Vec::new();
        let mut check = |hash: &Hash, bytes: &[u8], compressed, len| {
            unpack(hash, bytes, compressed, len, &mut buf).map(<[u8]>::len)
        };
        assert_eq!(check(&hash, &frame, true, len), Ok(raw.len()));
        check(&hash, &frame, true, len - 1).unwrap_err();
        check(&hash, &frame, true, len + 1).unwrap_err();
        check(&hash, &frame, true, 0).unwrap_err();
        check(&hash, &frame[1..], true, len).unwrap_err();
        check(&hash, &raw[1..], false, len).unwrap_err();
        check(&hash, &raw, true, len).unwrap_err();
        check(&Hash::of(b"other"), &raw, false, len).unwrap_err();
        // A frame of a few bytes that unfolds to a gigabyte is stopped at the length it claims.
        let bomb = zstd::bulk::compress(&vec![0u8; 1 << 28], 1).unwrap();
        check(&hash, &bomb, true, MAX_CHUNK).unwrap_err();
        check(&hash, &bomb, true, MAX_CHUNK + 1).unwrap_err();
        check(&hash, &vec![0; 1 << 20], false, 1 << 20).unwrap_err();
    }
}
