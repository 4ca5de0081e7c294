//! Reading blobs back: neighbouring chunks in one go, each checked before it is given out.

use crate::frame::FRAME;
use crate::index::Spot;
use crate::open::OpenStore;
use crate::packed::unpack;
use crate::{BlobError, Hash, Manifest, index};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Bytes read at a time, if chunks lie one behind the other.
const RUN_BYTES: u64 = 2 << 20;
const RUN_CHUNKS: usize = 64;
/// Number of times that a pack may be gone because its chunks were just moved to another.
const TRIES: usize = 8;

/// Some chunks as they are stored.
#[derive(Debug, Default)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    /// Place where each begins in `bytes`, its stored and its raw length.
    chunks: Vec<(usize, u32, u32)>,
}

impl Run {
    /// Reads the first of these chunks and those after it that lie behind it. Each comes with
    /// its raw length, if the caller knows one.
    pub fn load(shared: &OpenStore, wanted: &[(Hash, Option<u32>)]) -> Result<Self, BlobError> {
        let Some((first, _)) = wanted.first() else { return Ok(Self::default()) };
        let mut wanted = wanted;
        let mut gone = 0;
        loop {
            let (name, spots) = plan(shared, wanted)?;
            let start = spots[0].pos;
            let end = spots.last().map_or(start, |s| s.pos + u64::from(s.stored));
            let mut bytes = vec![0; (end - start) as usize];
            match shared.packs.read_at(&name, start, &mut bytes) {
                Ok(()) => {
                    let chunk = |s: &Spot| ((s.pos - start) as usize, s.stored, s.raw);
                    return Ok(Self { bytes, chunks: spots.iter().map(chunk).collect() });
                }
                // Moved since we looked; the index knows where to.
                Err(e) if e.kind() == io::ErrorKind::NotFound && gone < TRIES => gone += 1,
                // Whatever ails the neighbours, this chunk may be sound.
                Err(_) if spots.len() > 1 => wanted = &wanted[..1],
                Err(e) => {
                    use io::ErrorKind as K;
                    return Err(match e.kind() {
                        K::NotFound => shared.damaged(*first, format!("pack {name} is gone")),
                        K::UnexpectedEof => {
                            shared.damaged(*first, format!("pack {name} is cut short"))
                        }
                        _ => BlobError::io(format_args!("pack {name}"), e),
                    });
                }
            }
        }
    }

    /// Raw length and stored bytes of the n-th chunk.
    pub fn stored(&self, n: usize) -> Option<(u32, &[u8])> {
        let (from, stored, raw) = *self.chunks.get(n)?;
        Some((raw, self.bytes.get(from..from + stored as usize)?))
    }
}

/// In which pack the first chunk lies, and where in it that and those behind it do. There is at
/// least one.
fn plan(
    shared: &OpenStore,
    wanted: &[(Hash, Option<u32>)],
) -> Result<(String, Vec<Spot>), BlobError> {
    let conn = shared.reads();
    let mut name = String::new();
    let mut spots: Vec<Spot> = Vec::new();
    for (hash, raw) in wanted.iter().take(RUN_CHUNKS) {
        let Some((pack, spot)) = index::place(&conn, hash)? else {
            if spots.is_empty() {
                return Err(BlobError::Missing(vec![*hash]));
            }
            break;
        };
        match (spots.first(), spots.last()) {
            (Some(first), Some(last)) => {
                let follows = spot.pack == last.pack
                    && spot.pos == last.pos + u64::from(last.stored) + FRAME as u64;
                if !follows || spot.pos + u64::from(spot.stored) - first.pos > RUN_BYTES {
                    break;
                }
            }
            _ => {
                if raw.is_some_and(|raw| raw != spot.raw) || spot.stored > spot.raw {
                    drop(conn);
                    return Err(shared.damaged(*hash, "the index has another length for it"));
                }
                name = pack;
            }
        }
        spots.push(spot);
    }
    Ok((name, spots))
}

/// Reads one blob. Memory: 3 MiB and the manifest.
pub struct BlobReader {
    shared: Arc<OpenStore>,
    name: Hash,
    manifest: Manifest,
    /// The next chunk to unpack, and how many of its bytes to skip.
    next: usize,
    skip: usize,
    /// Chunks from `run_from` on.
    run: Run,
    run_from: usize,
    /// The chunk that is being given out, from `at` on.
    chunk: Vec<u8>,
    at: usize,
    room: Vec<u8>,
}

impl BlobReader {
    pub(crate) fn open(shared: &Arc<OpenStore>, name: &Hash) -> Result<Self, BlobError> {
        let mut state = shared.state();
        let body = index::manifest(state.conn(), name)?.ok_or(BlobError::Unknown(*name))?;
        let manifest = Manifest::stored(name, &body)?;
        state.begin_reading(*name);
        Ok(Self {
            shared: shared.clone(),
            name: *name,
            manifest,
            next: 0,
            skip: 0,
            run: Run::default(),
            run_from: 0,
            chunk: Vec::new(),
            at: 0,
            room: Vec::new(),
        })
    }

    /// The manifest that is being read.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Gives out the next chunk; false at the end.
    fn advance(&mut self) -> Result<bool, BlobError> {
        let chunks = self.manifest.chunks();
        let Some((hash, len)) = chunks.get(self.next) else { return Ok(false) };
        let in_run = self.next.checked_sub(self.run_from).and_then(|n| self.run.stored(n));
        if in_run.is_none() {
            let ahead = chunks[self.next..].iter().take(RUN_CHUNKS);
            let ahead: Vec<_> = ahead.map(|(hash, len)| (*hash, Some(*len))).collect();
            self.run = Run::load(&self.shared, &ahead)?;
            self.run_from = self.next;
        }
        let Some((_, stored)) = self.run.stored(self.next - self.run_from) else {
            return Err(BlobError::Missing(vec![*hash]));
        };
        let compressed = stored.len() < *len as usize;
        let raw = unpack(hash, stored, compressed, *len, &mut self.room)
            .map_err(|detail| self.shared.damaged(*hash, detail))?;
        self.chunk.clear();
        self.chunk.extend_from_slice(raw);
        self.at = self.skip;
        self.next += 1;
        self.skip = 0;
        Ok(true)
    }

    fn position(&self) -> u64 {
        let given = &self.manifest.chunks()[..self.next];
        let before: u64 = given.iter().map(|(_, len)| u64::from(*len)).sum();
        before + self.skip as u64 - (self.chunk.len() - self.at) as u64
    }
}

impl Read for BlobReader {
    /// Fails with a [`BlobError`] inside the [`io::Error`].
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.chunk.len() {
            if buf.is_empty() || !self.advance()? {
                return Ok(0);
            }
        }
        let given = buf.len().min(self.chunk.len() - self.at);
        buf[..given].copy_from_slice(&self.chunk[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(pos) => Some(pos),
            SeekFrom::End(by) => self.manifest.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position().checked_add_signed(by),
        };
        let target = target.ok_or(io::ErrorKind::InvalidInput)?;
        // As in a file, one may go beyond the end; there is nothing to read there.
        let mut left = target.min(self.manifest.size());
        self.chunk.clear();
        self.at = 0;
        self.next = 0;
        for (_, len) in self.manifest.chunks() {
            if left < u64::from(*len) {
                break;
            }
            left -= u64::from(*len);
            self.next += 1;
        }
        self.skip = left as usize;
        Ok(target)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.shared.state().end_reading(&self.name);
    }
}
