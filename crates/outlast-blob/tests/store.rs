//! Stored data is read back, once, within its limits, and damage is reported.

mod common;

use common::*;
use outlast_blob::{BlobError, Blobs, Config, Hash, MAX_CHUNK, Manifest};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use tempfile::tempdir;

#[test]
fn blobs_of_every_size_come_back_also_after_reopening() {
    let dir = tempdir().unwrap();
    let sizes = [0, 1, 16 << 10, (16 << 10) + 1, 64 << 10, 1 << 20, (1 << 20) + 1, 5 << 20];
    let blobs = open_small(dir.path());
    let mut stored = Vec::new();
    for (seed, size) in sizes.into_iter().enumerate() {
        for data in [noise(seed as u64, size), text(seed as u64, size)] {
            let put = blobs.put(&data[..]).unwrap();
            assert_eq!(put.size, size as u64);
            assert_eq!(
                put.chunks,
                blobs.manifest(&put.manifest).unwrap().unwrap().chunks().len() as u64
            );
            assert!(read(&blobs, &put.manifest) == data);
            stored.push((put.manifest, data));
        }
    }
    assert!(packs(dir.path()).iter().all(|(_, bytes)| *bytes <= 1 << 20));
    let before = blobs.usage();
    drop(blobs);
    let blobs = open_small(dir.path());
    assert_eq!(blobs.usage(), before);
    for (manifest, data) in stored {
        assert!(blobs.has_manifest(&manifest).unwrap());
        assert!(read(&blobs, &manifest) == data);
    }
}

#[test]
fn what_is_here_is_not_stored_again() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let data = noise(1, 8 << 20);
    let first = blobs.put(&data[..]).unwrap();
    assert_eq!(first.new_bytes, 8 << 20);
    let again = blobs.put(&data[..]).unwrap();
    assert_eq!((again.manifest, again.new_chunks, again.stored_bytes), (first.manifest, 0, 0));
    assert_eq!(packs(dir.path()).len(), 1);

    let shifted = blobs.put((&b"in front"[..]).chain(&data[..])).unwrap();
    assert!(shifted.new_bytes < 512 << 10, "{}", shifted.new_bytes);

    // The same chunk many times in one blob, and compressible.
    let zeros = blobs.put_small(io::repeat(0).take(64 << 20)).unwrap();
    assert_eq!(zeros.new_chunks, 1);
    assert!(zeros.stored_bytes < 1024);
    let mut sum = 0;
    io::copy(
        &mut blobs.reader(&zeros.manifest).unwrap().inspect(|b| sum += b.len()),
        &mut io::sink(),
    )
    .unwrap();
    assert_eq!(sum, 64 << 20);
}

/// Looks at what passes.
trait Inspect: Read + Sized {
    fn inspect(self, look: impl FnMut(&[u8])) -> impl Read {
        struct Inspected<R, F>(R, F);
        impl<R: Read, F: FnMut(&[u8])> Read for Inspected<R, F> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = self.0.read(buf)?;
                (self.1)(&buf[..n]);
                Ok(n)
            }
        }
        Inspected(self, look)
    }
}
impl<R: Read> Inspect for R {}

#[test]
fn a_reader_can_be_moved() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let data = noise(2, 3 << 20);
    let put = blobs.put(&data[..]).unwrap();
    let mut reader = blobs.reader(&put.manifest).unwrap();
    let mut part = [0; 1000];
    for at in [2_000_000, 5, 0, 3_000_000, 99_999] {
        assert_eq!(reader.seek(SeekFrom::Start(at)).unwrap(), at);
        reader.read_exact(&mut part).unwrap();
        assert_eq!(part, data[at as usize..][..1000]);
        assert_eq!(reader.stream_position().unwrap(), at + 1000);
    }
    reader.seek(SeekFrom::End(-10)).unwrap();
    let mut tail = Vec::new();
    reader.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, data[data.len() - 10..]);
    reader.seek(SeekFrom::End(10)).unwrap();
    assert_eq!(reader.read(&mut part).unwrap(), 0);
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    struct Breaks(usize);
    impl Read for Breaks {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(self.0);
            self.0 -= n;
            buf[..n].copy_from_slice(&noise(self.0 as u64, n));
            if n == 0 { Err(io::Error::other("the cable")) } else { Ok(n) }
        }
    }
    let dir = tempdir().unwrap();
    let blobs = open_small(dir.path());
    let before = blobs.usage();
    for size in [0, 1000, 10 << 20] {
        let failed = blobs.put(Breaks(size)).unwrap_err();
        assert!(matches!(failed, BlobError::Source(_)), "{failed}");
        assert_eq!(blobs.usage(), before);
        assert!(packs(dir.path()).is_empty());
    }
}

#[test]
fn a_budget_is_kept_and_room_can_be_made() {
    let dir = tempdir().unwrap();
    let budget = Some(4 << 20);
    let blobs = Blobs::open(dir.path(), Config { budget, ..Config::default() }).unwrap();
    let first = blobs.put(&noise(1, 2 << 20)[..]).unwrap();
    let refused = blobs.put(&noise(2, 8 << 20)[..]).unwrap_err();
    let BlobError::Full { used, budget: 4_194_304, needed } = refused else { panic!("{refused}") };
    assert!((2 << 20..3 << 20).contains(&used) && used + needed > 4 << 20);
    assert_eq!(packs(dir.path()).len(), 1);
    assert_eq!(blobs.usage().refused, 1);
    assert_eq!(blobs.put(&noise(1, 2 << 20)[..]).unwrap().stored_bytes, 0, "costs nothing");
    assert!(read(&blobs, &first.manifest) == noise(1, 2 << 20));

    a_moment();
    let collected = blobs.collect(&|_| false, NO_GRACE).unwrap();
    assert_eq!((collected.manifests, collected.packs), (1, 1));
    blobs.put(&noise(2, 3 << 20)[..]).unwrap();
    let usage = blobs.usage();
    assert!(usage.disk_bytes <= 4 << 20);
    assert_eq!(usage.refused, 1);
}

#[test]
fn one_owner_at_a_time() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let second = Blobs::open(dir.path(), Config::default()).err().unwrap();
    assert!(matches!(second, BlobError::Locked { .. }));
    drop(blobs);
    open(dir.path());
}

#[test]
fn a_damaged_chunk_is_named_and_repaired_by_the_next_put() {
    let dir = tempdir().unwrap();
    let data = noise(3, 1 << 20);
    let blobs = open(dir.path());
    let put = blobs.put(&data[..]).unwrap();
    drop(blobs);
    let (path, _) = packs(dir.path()).remove(0);
    let mut pack = fs::read(&path).unwrap();
    let middle = pack.len() / 2;
    pack[middle] ^= 1;
    fs::write(&path, &pack).unwrap();

    let blobs = open(dir.path());
    let mut out = Vec::new();
    let error = blobs.reader(&put.manifest).unwrap().read_to_end(&mut out).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(out == data[..out.len()], "what came before it is sound");
    let error = error.into_inner().unwrap().downcast::<BlobError>().unwrap();
    let BlobError::ChunkDamaged { chunk, .. } = *error else { panic!("{error}") };
    let manifest = blobs.manifest(&put.manifest).unwrap().unwrap();
    let all: Vec<Hash> = manifest.chunks().iter().map(|(hash, _)| *hash).collect();
    assert_eq!(blobs.missing(&all).unwrap(), [chunk]);
    assert!(matches!(blobs.load(&chunk), Err(BlobError::ChunkDamaged { .. })));
    let refused = blobs.accept_manifest(&manifest.encode()).unwrap_err();
    assert!(matches!(refused, BlobError::Missing(m) if m == [chunk]));
    assert_eq!(blobs.usage().damaged, 1);

    assert_eq!(blobs.put(&data[..]).unwrap().new_chunks, 1);
    assert_eq!((blobs.usage().damaged, blobs.usage().chunk_count), (0, all.len() as u64));
    assert!(read(&blobs, &put.manifest) == data);
}

#[test]
fn packs_that_are_gone_or_cut_short_are_noticed_when_opening() {
    let dir = tempdir().unwrap();
    let data = noise(4, 4 << 20);
    let blobs = open_small(dir.path());
    let put = blobs.put(&data[..]).unwrap();
    drop(blobs);
    let found = packs(dir.path());
    assert!(found.len() >= 4);
    fs::remove_file(&found[0].0).unwrap();
    let cut = fs::OpenOptions::new().write(true).open(&found[1].0).unwrap();
    cut.set_len(found[1].1 - 1).unwrap();

    let blobs = open_small(dir.path());
    let damaged = blobs.usage().damaged;
    assert!(damaged > 2 && damaged < put.chunks);
    let error = io::copy(&mut blobs.reader(&put.manifest).unwrap(), &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    // A collection spares the rest, and does not fail.
    a_moment();
    blobs.collect(&|_| true, NO_GRACE).unwrap();
    assert_eq!(blobs.put(&data[..]).unwrap().new_chunks, damaged);
    assert!(read(&blobs, &put.manifest) == data);
}

#[test]
fn an_index_that_is_damaged_newer_or_something_else_is_left_alone() {
    let refused = |change: &dyn Fn(&std::path::Path)| {
        let dir = tempdir().unwrap();
        let blobs = open(dir.path());
        blobs.put(&noise(1, 3 << 20)[..]).unwrap();
        drop(blobs);
        let index = dir.path().join("index.db");
        change(&index);
        let before = fs::read(&index).unwrap();
        let error = Blobs::open(dir.path(), Config::default()).err().unwrap();
        assert!(fs::read(&index).unwrap() == before);
        assert_eq!(packs(dir.path()).len(), 1, "nothing was taken for a leftover");
        error
    };
    let sql = |statement: &'static str| {
        move |path: &std::path::Path| {
            rusqlite::Connection::open(path).unwrap().execute_batch(statement).unwrap();
        }
    };
    let newer = refused(&sql("PRAGMA user_version = 99"));
    assert!(matches!(newer, BlobError::Newer { found: 99, .. }), "{newer}");
    let foreign = refused(&sql("PRAGMA application_id = 1"));
    assert!(matches!(foreign, BlobError::Foreign { .. }), "{foreign}");
    let garbage = refused(&|path| fs::write(path, noise(0, 100_000)).unwrap());
    assert!(matches!(garbage, BlobError::Damaged { .. }), "{garbage}");
    let torn = refused(&|path| {
        let mut bytes = fs::read(path).unwrap();
        let len = bytes.len();
        bytes[len / 2..].fill(0xFF);
        fs::write(path, bytes).unwrap();
    });
    assert!(matches!(torn, BlobError::Damaged { .. }), "{torn}");
}

#[test]
fn a_damaged_manifest_is_named_and_stops_a_collection() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let put = blobs.put(&noise(1, 100_000)[..]).unwrap();
    drop(blobs);
    let conn = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    conn.execute("UPDATE manifests SET body = zeroblob(20)", []).unwrap();
    drop(conn);
    let blobs = open(dir.path());
    let is_damaged = |e: Option<BlobError>| matches!(e, Some(BlobError::ManifestDamaged { .. }));
    assert!(is_damaged(blobs.manifest(&put.manifest).err()));
    assert!(is_damaged(blobs.reader(&put.manifest).err()));
    a_moment();
    assert!(is_damaged(blobs.collect(&|_| true, NO_GRACE).err()));
    assert!(blobs.usage().chunk_count > 0);
    blobs.put(&noise(1, 100_000)[..]).unwrap();
    assert!(read(&blobs, &put.manifest) == noise(1, 100_000), "repaired");
}

#[test]
fn what_is_not_here_is_said_to_be_unknown() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let nothing = Hash::of(b"nothing");
    assert!(!blobs.has_manifest(&nothing).unwrap());
    assert_eq!(blobs.manifest(&nothing).unwrap(), None);
    assert!(matches!(blobs.reader(&nothing), Err(BlobError::Unknown(h)) if h == nothing));
    assert!(matches!(blobs.load(&nothing), Err(BlobError::Missing(h)) if h == [nothing]));
    assert_eq!(blobs.missing(&[nothing, nothing]).unwrap(), [nothing]);
    let manifest = Manifest::new(vec![(nothing, MAX_CHUNK)]).unwrap();
    let refused = blobs.accept_manifest(&manifest.encode()).unwrap_err();
    assert!(matches!(refused, BlobError::Missing(h) if h == [nothing]));
}
