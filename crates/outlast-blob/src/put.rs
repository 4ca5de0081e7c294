//! From a stream to a durable blob, in three stages that overlap: read and cut (the caller's
//! thread), hash and compress, write.

use crate::chunker::{Block, Chunker};
use crate::frame::Piece;
use crate::open::OpenStore;
use crate::packed::Squeezer;
use crate::packer::Packer;
use crate::session::Session;
use crate::{BlobError, Hash, MAX_CHUNKS, Manifest};
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

/// Blocks that wait between two stages: enough to ride out a hiccup of the disk.
const DEPTH: usize = 4;

/// The result of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The blob's name.
    pub manifest: Hash,
    /// The bytes.
    pub size: u64,
    /// The chunks.
    pub chunks: u64,
    /// Those among them that were not here.
    pub new_chunks: u64,
    /// The bytes before compression.
    pub new_bytes: u64,
    /// Bytes that packs grew by.
    pub stored_bytes: u64,
}

/// With `small`, everything is compressed that shrinks, however fast the disk is.
pub(crate) fn put(
    shared: &Arc<OpenStore>,
    source: impl Read,
    small: bool,
) -> Result<Put, BlobError> {
    let mut chunker = Chunker::new(source);
    let mut packer = Packer::new(shared, true);
    let first = chunker.next(Block::default())?;
    let mut sorter = if small || chunker.ended() || shared.budget.is_tight() {
        Sorter::new(shared, Squeezer::new()?)
    } else {
        Sorter::new(shared, Squeezer::hasty(shared.disk.bytes_per_second())?)
    };
    if chunker.ended() {
        // Small blobs are not worth a thread.
        packer.append(&sorter.sort(first)?.pieces())?;
    } else {
        (sorter, packer) = pipeline(chunker, first, sorter, packer)?;
    }

    let Sorter { session, chunks, new_chunks, new_bytes, .. } = sorter;
    let manifest = Manifest::new(chunks)?;
    let body = manifest.encode();
    let put = Put {
        manifest: Hash::of(&body),
        size: manifest.size(),
        chunks: manifest.chunks().len() as u64,
        new_chunks,
        new_bytes,
        stored_bytes: packer.bytes(),
    };
    session.commit(packer, Some((&put.manifest, &manifest, &body)))?;
    Ok(put)
}

/// Runs the stages until the stream ends or one of them fails; then the others find their
/// channels closed and end too.
fn pipeline<R: Read>(
    mut chunker: Chunker<R>,
    first: Block,
    mut sorter: Sorter,
    mut packer: Packer,
) -> Result<(Sorter, Packer), BlobError> {
    thread::scope(|scope| {
        let (to_sorter, blocks) = sync_channel::<Block>(DEPTH);
        let (to_packer, sorted) = sync_channel::<Sorted>(DEPTH);
        let (to_chunker, used) = channel::<Block>();
        let sorting = stage(scope, "outlast-blob-hash", move || {
            for block in blocks {
                if to_packer.send(sorter.sort(block)?).is_err() {
                    break;
                }
            }
            Ok(sorter)
        })?;
        let packing = stage(scope, "outlast-blob-write", move || {
            for sorted in sorted {
                packer.append(&sorted.pieces())?;
                let _ = to_chunker.send(sorted.block);
            }
            Ok(packer)
        })?;

        let read = || -> Result<(), BlobError> {
            let mut block = first;
            while to_sorter.send(block).is_ok() && !chunker.ended() {
                block = chunker.next(used.try_recv().unwrap_or_default())?;
            }
            Ok(())
        };
        let read = read();
        drop(to_sorter);
        let sorter = join(sorting);
        let packer = join(packing);
        read?;
        Ok((sorter?, packer?))
    })
}

fn stage<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> Result<T, BlobError> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, BlobError>>, BlobError> {
    let thread = thread::Builder::new().name(name.into());
    thread.spawn_scoped(scope, run).map_err(|e| BlobError::io("thread", e))
}

fn join<T>(stage: ScopedJoinHandle<'_, Result<T, BlobError>>) -> Result<T, BlobError> {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The middle stage: names chunks, finds out which are new, compresses those.
struct Sorter {
    session: Session,
    squeezer: Squeezer,
    chunks: Vec<(Hash, u32)>,
    new_chunks: u64,
    new_bytes: u64,
}

/// A block and what of it is to be written.
struct Sorted {
    block: Block,
    /// For each chunk of the block: if it is new, its name, and itself compressed if that helps.
    new: Vec<Option<(Hash, Option<Vec<u8>>)>>,
}

impl Sorter {
    fn new(shared: &Arc<OpenStore>, squeezer: Squeezer) -> Self {
        let session = Session::new(shared);
        Self { session, squeezer, chunks: Vec::new(), new_chunks: 0, new_bytes: 0 }
    }

    fn sort(&mut self, block: Block) -> Result<Sorted, BlobError> {
        let hashes: Vec<Hash> = block.chunks().map(Hash::of).collect();
        if self.chunks.len() + hashes.len() > MAX_CHUNKS {
            return Err(BlobError::TooLarge);
        }
        let is_new = self.session.sort(&hashes)?;
        let mut new = Vec::with_capacity(hashes.len());
        for ((chunk, hash), is_new) in block.chunks().zip(hashes).zip(is_new) {
            self.chunks.push((hash, chunk.len() as u32));
            new.push(is_new.then(|| {
                self.new_chunks += 1;
                self.new_bytes += chunk.len() as u64;
                (hash, self.squeezer.squeeze(chunk))
            }));
        }
        Ok(Sorted { block, new })
    }
}

impl Sorted {
    fn pieces(&self) -> Vec<Piece<'_>> {
        let pieces = self.block.chunks().zip(&self.new).filter_map(|(chunk, new)| {
            let (hash, squeezed) = new.as_ref()?;
            let bytes = squeezed.as_deref().unwrap_or(chunk);
            Some(Piece { hash: *hash, raw_len: chunk.len() as u32, bytes })
        });
        pieces.collect()
    }
}
