//! The limits of blobs.

/// The longest chunk, in bytes, before compression.
pub const MAX_CHUNK: u32 = 256 << 10;
/// The most chunks that one manifest lists: about 300 GiB of ordinary data, 140 MiB of manifest.
pub const MAX_CHUNKS: usize = 1 << 22;
