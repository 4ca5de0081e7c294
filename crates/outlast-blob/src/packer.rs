//! The writer of chunks into packs. It owns the packs until the index knows them: one that is dropped
//! before that takes its packs with it.

use crate::BlobError;
use crate::frame::{FRAME, MAGIC, Piece};
use crate::index::{ChunkRow, Spot};
use crate::open::OpenStore;
use crate::packs::PackWriter;
use crate::state::NewPack;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Packs that are being written.
pub(crate) struct Packer {
    shared: Arc<OpenStore>,
    /// The budget applies; compaction must work when it is used up.
    budgeted: bool,
    packs: Vec<NewPack>,
    /// Writes the last of `packs`.
    writer: Option<Box<dyn PackWriter>>,
    /// Makes the one before it durable meanwhile.
    sealing: Option<JoinHandle<io::Result<()>>>,
    /// Bytes that were charged to the budget for the packs.
    charged: u64,
    /// Time spent on writing and syncing them.
    spent: Duration,
    /// The index may know the packs by now.
    keep: bool,
}

impl Packer {
    pub fn new(shared: &Arc<OpenStore>, budgeted: bool) -> Self {
        Self {
            shared: shared.clone(),
            budgeted,
            packs: Vec::new(),
            writer: None,
            sealing: None,
            charged: 0,
            spent: Duration::ZERO,
            keep: false,
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.charged
    }

    /// Chunks written so far.
    pub fn chunk_count(&self) -> u64 {
        self.packs.iter().map(|pack| pack.rows.len() as u64).sum()
    }

    /// Appends these chunks, in this order.
    pub fn append(&mut self, mut pieces: &[Piece<'_>]) -> Result<(), BlobError> {
        while !pieces.is_empty() {
            if self.writer.is_none() {
                self.begin()?;
            }
            let limit = self.shared.pack_limit;
            let Some(pack) = self.packs.last_mut() else { return Ok(()) };
            let mut end = pack.bytes;
            let fitting = pieces.iter().take_while(|piece| {
                end += (FRAME + piece.bytes.len()) as u64;
                end <= limit
            });
            let count = fitting.count();
            // A pack has room for one chunk at least: see OpenStore::pack_limit.
            if count == 0 && !pack.rows.is_empty() {
                self.roll()?;
                continue;
            }
            let (now, later) = pieces.split_at(count.max(1));
            self.write(now)?;
            pieces = later;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BlobError> {
        let name = self.shared.new_pack_name()?;
        let writer = self.shared.packs.create(&name).map_err(|e| failed(&name, e))?;
        self.packs.push(NewPack { name, bytes: 0, rows: Vec::new() });
        self.writer = Some(writer);
        self.emit(&mut [IoSlice::new(MAGIC)])
    }

    fn write(&mut self, pieces: &[Piece<'_>]) -> Result<(), BlobError> {
        let heads: Vec<[u8; FRAME]> = pieces.iter().map(Piece::frame).collect();
        let mut parts = Vec::with_capacity(pieces.len() * 2);
        for (head, piece) in heads.iter().zip(pieces) {
            parts.push(IoSlice::new(head));
            parts.push(IoSlice::new(piece.bytes));
        }
        let mut pos = self.packs.last().map_or(0, |pack| pack.bytes);
        self.emit(&mut parts)?;
        if let Some(pack) = self.packs.last_mut() {
            pack.rows.extend(pieces.iter().map(|piece| {
                let stored = piece.bytes.len() as u32;
                let spot = Spot { pack: 0, pos: pos + FRAME as u64, stored, raw: piece.raw_len };
                pos = spot.pos + u64::from(stored);
                ChunkRow { hash: piece.hash, spot }
            }));
        }
        Ok(())
    }

    fn emit(&mut self, parts: &mut [IoSlice<'_>]) -> Result<(), BlobError> {
        let (Some(pack), Some(writer)) = (self.packs.last_mut(), &mut self.writer) else {
            return Ok(());
        };
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.shared.budget.charge(bytes, self.charged, self.budgeted)?;
        self.charged += bytes;
        pack.bytes += bytes;
        let began = Instant::now();
        let done = writer.append(parts).map_err(|e| failed(&pack.name, e));
        self.spent += began.elapsed();
        done
    }

    /// Lets another thread sync the pack while the next one is being written. One at a time:
    /// that is what slows us down to the speed of the disk.
    fn roll(&mut self) -> Result<(), BlobError> {
        let began = Instant::now();
        self.join()?;
        self.spent += began.elapsed();
        if let Some(writer) = self.writer.take() {
            let sealing = thread::Builder::new().name("outlast-blob-sync".into());
            let sealing = sealing.spawn(move || writer.seal());
            self.sealing = Some(sealing.map_err(|e| BlobError::io("thread", e))?);
        }
        Ok(())
    }

    fn join(&mut self) -> Result<(), BlobError> {
        let Some(sealing) = self.sealing.take() else { return Ok(()) };
        let sealed = sealing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sealed.map_err(|e| BlobError::io("sync of a pack", e))
    }

    /// Makes all packs durable, names included. They are then ready for the index.
    pub fn finish(&mut self) -> Result<&mut Vec<NewPack>, BlobError> {
        let began = Instant::now();
        if let Some(writer) = self.writer.take() {
            writer.seal().map_err(|e| BlobError::io("sync of a pack", e))?;
        }
        self.join()?;
        self.shared.disk.saw(self.charged, self.spent + began.elapsed());
        if !self.packs.is_empty() {
            self.shared.packs.sync_names().map_err(|e| BlobError::io("sync of pack names", e))?;
        }
        Ok(&mut self.packs)
    }

    /// The index knows the packs now, or may know them: after a sync that failed, the commit can
    /// still turn out to have reached the disk. Then the next opening decides.
    pub fn hand_over(&mut self) {
        self.keep = true;
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        drop(self.writer.take());
        let _ = self.join();
        if self.keep {
            return;
        }
        // The next opening deletes the rest.
        for pack in &self.packs {
            let _ = self.shared.packs.delete(&pack.name);
        }
        self.shared.budget.discharge(self.charged);
    }
}

fn failed(name: &str, error: io::Error) -> BlobError {
    BlobError::io(format_args!("pack {name}"), error)
}
