//! The space of dead chunks is given back: packs without living ones are deleted, the living ones
//! of others are moved together. This decides on packs only, never on whether a chunk lives.

use crate::BlobError;
use crate::frame::Piece;
use crate::index::{self, ChunkRow, PackRow};
use crate::open::OpenStore;
use crate::packed::unpack;
use crate::packer::Packer;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Packs of about the same small size are merged when there are so many.
const MERGE: usize = 16;
/// Packs this large are not merged with others.
const LARGE: u64 = 8 << 20;
/// Rows read at a time.
const BATCH: usize = 4096;

/// A pack, and the bytes of its living chunks.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub pack: PackRow,
    pub bytes: u64,
}

/// The result of a compaction.
#[derive(Debug, Default)]
pub(crate) struct Compacted {
    /// Bytes by which packs shrank.
    pub bytes: u64,
    /// Packs deleted, those included whose rest was moved to new ones.
    pub packs: u64,
}

/// Deletes empty packs; rewrites those that are more than half dead, and many small ones.
pub(crate) fn compact(shared: &Arc<OpenStore>, packs: Vec<Live>) -> Result<Compacted, BlobError> {
    let mut done = Compacted::default();
    // No commit adds chunks to a pack that it did not write: what is empty remains so.
    let (empty, packs): (Vec<_>, Vec<_>) = packs.into_iter().partition(|p| p.bytes == 0);
    let ids: Vec<i64> = empty.iter().map(|p| p.pack.id).collect();
    if !ids.is_empty() {
        shared.state().drop_packs(&ids)?;
    }
    delete(shared, &empty, &mut done);

    let groups = groups(packs, shared.pack_limit);
    if groups.is_empty() {
        return Ok(done);
    }
    let mut rows = rows_of(shared, &groups)?;
    for group in groups {
        match rewrite(shared, &group, &mut rows, &mut done) {
            // Without room for a copy nothing more can be gained; the next time perhaps.
            Err(BlobError::DiskFull) => return Ok(done),
            other => other?,
        }
    }
    Ok(done)
}

/// The packs to rewrite, in groups of which each fits into one new pack.
fn groups(packs: Vec<Live>, limit: u64) -> Vec<Vec<Live>> {
    let mut chosen = Vec::new();
    // By power of 16, so that a byte is moved a few times at most, however small the puts.
    let mut tiers: BTreeMap<u32, Vec<Live>> = BTreeMap::new();
    for live in packs {
        if live.bytes * 2 < live.pack.bytes {
            chosen.push(live);
        } else if live.pack.bytes < LARGE.min(limit / 2) {
            tiers.entry(live.pack.bytes.max(1).ilog2() / 4).or_default().push(live);
        }
    }
    chosen.extend(tiers.into_values().filter(|tier| tier.len() >= MERGE).flatten());
    // Oldest first: what came together stays together.
    chosen.sort_by_key(|live| live.pack.id);
    let mut groups: Vec<Vec<Live>> = Vec::new();
    let mut room = 0;
    for live in chosen {
        if live.bytes > room || groups.is_empty() {
            groups.push(Vec::new());
            room = limit.saturating_sub(8);
        }
        room = room.saturating_sub(live.bytes);
        if let Some(group) = groups.last_mut() {
            group.push(live);
        }
    }
    groups
}

/// The chunks in these packs, in the order in which they lie there. Memory: 60 bytes for each.
fn rows_of(
    shared: &OpenStore,
    groups: &[Vec<Live>],
) -> Result<HashMap<i64, Vec<ChunkRow>>, BlobError> {
    let mut rows: HashMap<i64, Vec<ChunkRow>> =
        groups.iter().flatten().map(|live| (live.pack.id, Vec::new())).collect();
    let mut after = None;
    loop {
        let page = index::chunks_after(&shared.reads(), after, BATCH)?;
        let Some(last) = page.last() else { break };
        after = Some(last.hash);
        for row in page {
            if let Some(of_pack) = rows.get_mut(&row.spot.pack) {
                of_pack.push(row);
            }
        }
    }
    rows.values_mut().for_each(|rows| rows.sort_unstable_by_key(|row| row.spot.pos));
    Ok(rows)
}

/// Copies the chunks of a group to a new pack, and lets that take the place of the group.
fn rewrite(
    shared: &Arc<OpenStore>,
    group: &[Live],
    rows: &mut HashMap<i64, Vec<ChunkRow>>,
    done: &mut Compacted,
) -> Result<(), BlobError> {
    let mut packer = Packer::new(shared, false);
    let mut copied = Vec::new();
    let mut origin = HashMap::new();
    for live in group {
        let rows = rows.remove(&live.pack.id).unwrap_or_default();
        if copy(shared, live, &rows, &mut packer)? {
            origin.extend(rows.iter().map(|row| (row.hash, live.pack.id)));
            copied.push(live.clone());
        }
    }
    if copied.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = copied.iter().map(|live| live.pack.id).collect();
    let created = copied.iter().map(|live| live.pack.created).max().unwrap_or(0);
    let added = packer.bytes();
    let packs = packer.finish()?;
    let switched = shared.state().switch(packs, &origin, created, &ids);
    if !matches!(switched, Err(BlobError::DiskFull)) {
        packer.hand_over();
    }
    switched?;
    delete(shared, &copied, done);
    done.bytes = done.bytes.saturating_sub(added);
    Ok(())
}

/// Deletes packs that the index does not know any more. One that stays is an orphan, which the
/// next opening deletes.
fn delete(shared: &OpenStore, packs: &[Live], done: &mut Compacted) {
    for live in packs {
        if shared.packs.delete(&live.pack.name).is_ok() {
            shared.budget.discharge(live.pack.bytes);
            done.bytes += live.pack.bytes;
            done.packs += 1;
        }
    }
}

/// Copies chunks after checking each. False when one is damaged: then their pack has to stay,
/// for what is sound in it.
fn copy(
    shared: &OpenStore,
    live: &Live,
    rows: &[ChunkRow],
    packer: &mut Packer,
) -> Result<bool, BlobError> {
    let mut room = Vec::new();
    for row in rows {
        let mut bytes = vec![0; row.spot.stored as usize];
        if let Err(e) = shared.packs.read_at(&live.pack.name, row.spot.pos, &mut bytes) {
            if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
            {
                shared.damaged(row.hash, e);
                return Ok(false);
            }
            return Err(BlobError::io(format_args!("pack {}", live.pack.name), e));
        }
        let compressed = row.spot.stored < row.spot.raw;
        if let Err(detail) = unpack(&row.hash, &bytes, compressed, row.spot.raw, &mut room) {
            shared.damaged(row.hash, detail);
            return Ok(false);
        }
        let piece = Piece { hash: row.hash, raw_len: row.spot.raw, bytes: &bytes };
        packer.append(&[piece])?;
    }
    Ok(true)
}
