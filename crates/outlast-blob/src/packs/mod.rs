//! The places of packs: files that are written once, synced, read anywhere and deleted whole.
//! Knows nothing of chunks or the index.

#[cfg(feature = "s3")]
mod bucket;
mod local;
#[cfg(feature = "object-store")]
mod object;

#[cfg(feature = "s3")]
pub use bucket::open_bucket;
pub use local::LocalPacks;
#[cfg(feature = "object-store")]
pub use object::ObjectPacks;

use std::io::{self, IoSlice};

/// A place for packs. Names are unique, contain only `[0-9a-z-]`, and are never reused.
///
/// Errors are [`io::Error`]s with a significant kind: `NotFound` when there is no such
/// pack, `UnexpectedEof` when it is shorter than asked for, `StorageFull` when there is no room.
pub trait PackStore: Send + Sync {
    /// Names this place as a person would, such as `s3://bucket/prefix`, if it is not the folder
    /// beside the index. An index knows the place of its packs, and refuses any other.
    fn place(&self) -> Option<&str>;

    /// Starts a pack. What is written may become visible at any time, but is durable only when
    /// [`PackWriter::seal`] and then [`PackStore::sync_names`] have returned.
    ///
    /// # Errors
    /// When it cannot be created, or exists.
    fn create(&self, name: &str) -> io::Result<Box<dyn PackWriter>>;

    /// Makes the names of all sealed packs durable.
    ///
    /// # Errors
    /// When that cannot be promised.
    fn sync_names(&self) -> io::Result<()>;

    /// Fills `buf` from this place in a pack.
    ///
    /// # Errors
    /// `NotFound` and `UnexpectedEof` as above.
    fn read_at(&self, name: &str, pos: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Deletes a pack, sealed or not; one that is not there is no error. Reads that are under
    /// way may fail with `NotFound`.
    ///
    /// # Errors
    /// When it is still there.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Calls `each` with name and bytes of all packs whose name begins with `prefix`.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> io::Result<()>;
}

/// A pack that is being written.
pub trait PackWriter: Send {
    /// Appends these bytes.
    ///
    /// # Errors
    /// `StorageFull` when there is no room; the pack is then of no use.
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes the content durable. The pack never changes again.
    ///
    /// # Errors
    /// When that cannot be promised; the pack is then of no use.
    fn seal(self: Box<Self>) -> io::Result<()>;
}
