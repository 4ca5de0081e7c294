//! A local, durable, content-addressed store of blobs: checkpoints, large results, logs.
//!
//! A blob is a [`Manifest`]: the list of its content-defined chunks, named by BLAKE3. Chunks
//! lie in immutable **packs**; which chunk lies where, and which manifests exist, is in one
//! SQLite **index**. The store knows bytes, not tasks: the caller of [`Blobs::collect`] decides
//! what is kept, and nothing here opens a socket.
//!
//! Three rules make it safe:
//! - what the index refers to was synced before the index was (an `Ok` means durable);
//! - everything read is checked against its hash before it is given out;
//! - who relies on a chunk that is already here *holds* it under the same lock under which a
//!   collection decides that a chunk is dead, so neither can overtake the other.
//!
//! Calls block; in an asynchronous program make them in a blocking task.

#[cfg(unix)]
mod backup;
mod budget;
mod chunker;
mod clock;
mod collect;
mod compact;
mod disk;
mod error;
mod frame;
mod hash;
mod index;
mod ingest;
mod limits;
mod manifest;
mod open;
mod packed;
mod packer;
pub mod packs;
mod put;
mod reader;
mod reserve;
mod scan;
mod session;
mod state;
mod store;

#[cfg(unix)]
pub use backup::{Copied, Home, check_copy, copy_store, packs_place};
pub use collect::Collected;
pub use error::BlobError;
pub use hash::Hash;
pub use ingest::{Ingest, Ingested};
pub use limits::{MAX_CHUNK, MAX_CHUNKS};
pub use manifest::Manifest;
pub use open::Config;
pub use packed::{Packed, Squeezer};
pub use put::Put;
pub use reader::BlobReader;
pub use reserve::free_reserve;
pub use store::{Blobs, Usage};
