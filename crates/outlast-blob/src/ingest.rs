//! The receiving side of a transfer: chunks come in packed and go to disk as they are.

use crate::frame::Piece;
use crate::open::OpenStore;
use crate::packed::{Packed, unpack};
use crate::packer::Packer;
use crate::session::Session;
use crate::{BlobError, Hash};
use std::sync::Arc;

/// Chunks are written when so many bytes of them have come.
const BATCH: usize = 1 << 20;

/// Receives chunks. They are durable, and seen by others, after [`Ingest::commit`]; one that is
/// dropped leaves nothing. A long transfer commits from time to time and begins another: what
/// was committed need not be sent again.
pub struct Ingest {
    shared: Arc<OpenStore>,
    session: Session,
    packer: Packer,
    /// Checked and not yet written.
    waiting: Vec<(Hash, Packed)>,
    waiting_bytes: usize,
    room: Vec<u8>,
    done: Ingested,
}

/// The result of an ingest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Chunks that were not here before.
    pub new_chunks: u64,
    /// The bytes before compression.
    pub new_bytes: u64,
    /// Bytes that packs grew by.
    pub stored_bytes: u64,
}

impl Ingest {
    pub(crate) fn new(shared: &Arc<OpenStore>) -> Self {
        Self {
            shared: shared.clone(),
            session: Session::new(shared),
            packer: Packer::new(shared, true),
            waiting: Vec::new(),
            waiting_bytes: 0,
            room: Vec::new(),
            done: Ingested::default(),
        }
    }

    /// Takes a chunk if it is what its name says; returns whether it is new.
    ///
    /// # Errors
    /// [`BlobError::BadChunk`] refuses this chunk, and others can follow. No room, or what is
    /// wrong with the store: then this ingest is of no more use and should be dropped.
    pub fn add(&mut self, chunk: Hash, packed: Packed) -> Result<bool, BlobError> {
        unpack(&chunk, &packed.bytes, packed.compressed, packed.raw_len, &mut self.room)
            .map_err(|detail| BlobError::BadChunk { chunk, detail })?;
        if self.session.sort(&[chunk])? != [true] {
            return Ok(false);
        }
        self.done.new_chunks += 1;
        self.done.new_bytes += u64::from(packed.raw_len);
        self.waiting_bytes += packed.bytes.len();
        self.waiting.push((chunk, packed));
        if self.waiting_bytes >= BATCH {
            let written = self.write();
            self.shared.budget.note(written)?;
        }
        Ok(true)
    }

    /// Makes all chunks durable.
    ///
    /// # Errors
    /// No room, or what is wrong with the store. Nothing is kept then.
    pub fn commit(mut self) -> Result<Ingested, BlobError> {
        let shared = self.shared.clone();
        let written = self.write();
        self.done.stored_bytes = self.packer.bytes();
        let Self { session, packer, done, .. } = self;
        shared.budget.note(written.and_then(|()| session.commit(packer, None)))?;
        Ok(done)
    }

    fn write(&mut self) -> Result<(), BlobError> {
        let pieces = self.waiting.iter().map(|(hash, packed)| Piece {
            hash: *hash,
            raw_len: packed.raw_len,
            bytes: &packed.bytes,
        });
        self.packer.append(&pieces.collect::<Vec<_>>())?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }
}
