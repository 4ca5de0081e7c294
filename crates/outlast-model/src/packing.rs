//! Sizes of frames, and how they are compressed.

/// Messages smaller than this (bytes) are sent as they are; zstd would cost more than it saves.
pub const COMPRESS_ABOVE: usize = 1024;
/// The largest message accepted from the link, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Senders split batches so that a frame stays near this size, in bytes: a heartbeat never waits
/// behind more than this.
pub const BULK_TARGET: usize = 64 << 10;

/// Compression of outgoing frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Compression level of zstd.
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
