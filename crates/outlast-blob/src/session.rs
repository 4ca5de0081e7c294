//! One put or ingest on its way to the index: which chunks it relies on, and its commit.

use crate::index::CHUNK_ROW;
use crate::open::OpenStore;
use crate::packer::Packer;
use crate::{BlobError, Hash, Manifest};
use std::collections::HashSet;
use std::sync::Arc;

/// Memory: about 100 bytes for each chunk.
pub(crate) struct Session {
    shared: Arc<OpenStore>,
    seen: HashSet<Hash>,
    /// Chunks that were here before; held until we are dropped.
    held: Vec<Hash>,
}

impl Session {
    pub fn new(shared: &Arc<OpenStore>) -> Self {
        Self { shared: shared.clone(), seen: HashSet::new(), held: Vec::new() }
    }

    /// For each chunk, whether it is new to the store and to this session. Those that the store
    /// has are held.
    pub fn sort(&mut self, chunks: &[Hash]) -> Result<Vec<bool>, BlobError> {
        let mut state = self.shared.state();
        let mut new = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let unseen = self.seen.insert(*chunk);
            let here = unseen && state.sound(chunk)?.is_some();
            if here {
                state.hold(*chunk);
                self.held.push(*chunk);
            }
            new.push(unseen && !here);
        }
        Ok(new)
    }

    /// Makes durable what the packer wrote, and the manifest.
    pub fn commit(
        self,
        mut packer: Packer,
        manifest: Option<(&Hash, &Manifest, &[u8])>,
    ) -> Result<(), BlobError> {
        let rows = packer.chunk_count() * CHUNK_ROW;
        let body = manifest.map_or(0, |(_, _, body)| body.len() as u64);
        self.shared.budget.check(rows + body, packer.bytes())?;
        let packs = packer.finish()?;
        if packs.is_empty() && manifest.is_none() && self.held.is_empty() {
            return Ok(());
        }
        // In order of hash, neighbours in the tree are written together.
        for pack in &mut *packs {
            pack.rows.sort_unstable_by_key(|row| row.hash);
        }
        let mut state = self.shared.state();
        // A manifest keeps its chunks alive by itself.
        let relied_on = if manifest.is_none() { &self.held[..] } else { &[] };
        let done = state.commit(packs, manifest, relied_on, self.shared.clock.now());
        if !matches!(done, Err(BlobError::DiskFull)) {
            packer.hand_over();
        }
        self.shared.index_grew(&state);
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.shared.state().release(&self.held);
        }
    }
}
