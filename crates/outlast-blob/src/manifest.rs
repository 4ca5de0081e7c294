//! The manifest of a blob, and its bytes on the wire and in the index.

use crate::{BlobError, Hash, MAX_CHUNK, MAX_CHUNKS};

// One byte of version, then size and count, little-endian; then per chunk its hash and its
// length in three bytes. There is one encoding of each manifest, so its hash names it.
const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 4;
const ENTRY: usize = 32 + 3;

/// The chunks of a blob, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    size: u64,
    chunks: Vec<(Hash, u32)>,
}

impl Manifest {
    /// A blob of these chunks, each with its length before compression.
    ///
    /// # Errors
    /// [`BlobError::BadManifest`] when a length is 0 or above [`MAX_CHUNK`], and
    /// [`BlobError::TooLarge`] above [`MAX_CHUNKS`].
    pub fn new(chunks: Vec<(Hash, u32)>) -> Result<Self, BlobError> {
        if chunks.len() > MAX_CHUNKS {
            return Err(BlobError::TooLarge);
        }
        let mut size = 0;
        for (hash, len) in &chunks {
            if *len == 0 || *len > MAX_CHUNK {
                return Err(bad(format!("chunk {hash} of {len} bytes")));
            }
            size += u64::from(*len);
        }
        Ok(Self { size, chunks })
    }

    /// Decodes a stored manifest, if its content has this name.
    pub(crate) fn stored(name: &Hash, body: &[u8]) -> Result<Manifest, BlobError> {
        let damaged = |detail: String| BlobError::ManifestDamaged { manifest: *name, detail };
        if Hash::of(body) != *name {
            return Err(damaged("its content has another hash".into()));
        }
        Manifest::decode(body).map_err(|e| damaged(e.to_string()))
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hash and length (before compression) of each chunk, in order.
    pub fn chunks(&self) -> &[(Hash, u32)] {
        &self.chunks
    }

    /// The name of this manifest: the hash of its encoding.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// The one encoding of this manifest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + ENTRY * self.chunks.len());
        out.push(VERSION);
        out.extend(self.size.to_le_bytes());
        out.extend((self.chunks.len() as u32).to_le_bytes());
        for (hash, len) in &self.chunks {
            out.extend(hash.as_bytes());
            out.extend(&len.to_le_bytes()[..3]);
        }
        out
    }

    /// The reverse of [`Manifest::encode`]; refuses whatever that cannot have written.
    ///
    /// # Errors
    /// [`BlobError::BadManifest`] says what is wrong, [`BlobError::TooLarge`] that it lists too
    /// many chunks. Memory use is bounded by the length of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlobError> {
        match bytes.first() {
            None => return Err(bad("it is empty")),
            Some(&VERSION) => {}
            Some(other) => {
                return Err(bad(format!("version {other}, this program knows {VERSION}")));
            }
        }
        let (Some(size), Some(count)) = (field::<8>(bytes, 1), field::<4>(bytes, 9)) else {
            return Err(bad("it is cut short"));
        };
        let count = u32::from_le_bytes(count) as usize;
        if count > MAX_CHUNKS {
            return Err(BlobError::TooLarge);
        }
        let body = &bytes[HEAD..];
        if body.len() != count * ENTRY {
            return Err(bad(format!("{} bytes for {count} chunks", body.len())));
        }
        let chunks = body.chunks_exact(ENTRY).filter_map(|entry| {
            let len = u32::from_le_bytes([entry[32], entry[33], entry[34], 0]);
            Some((Hash::from_bytes(field(entry, 0)?), len))
        });
        let manifest = Self::new(chunks.collect())?;
        if manifest.size != u64::from_le_bytes(size) {
            return Err(bad("its size is not that of its chunks"));
        }
        Ok(manifest)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn bad(detail: impl Into<String>) -> BlobError {
    BlobError::BadManifest { detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        Manifest::new(vec![(Hash::of(b"a"), 1), (Hash::of(b"b"), MAX_CHUNK)]).unwrap()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for manifest in [sample(), Manifest::new(vec![]).unwrap()] {
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
            assert_eq!(manifest.hash(), Hash::of(&bytes));
        }
    }

    #[test]
    fn lengths_counts_and_versions_are_checked() {
        let good = sample().encode();
        let refused = |bytes: &[u8]| Manifest::decode(bytes).unwrap_err().to_string();
        for len in 0..good.len() {
            refused(&good[..len]);
        }
        refused(&[&good[..], &[0]].concat());
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert!(refused(&with(0, 9)).contains("version 9"));
        assert!(refused(&with(1, 7)).contains("size"));
        assert!(refused(&with(9, 3)).contains("3 chunks"));
        assert!(matches!(Manifest::decode(&with(12, 255)), Err(BlobError::TooLarge)));
        assert!(refused(&with(HEAD + 32, 0)).contains("0 bytes"));
        assert!(refused(&with(HEAD + 34, 255)).contains("bytes"));
    }

    proptest! {
        #[test]
        fn bytes_from_outside_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
