//! Without room on the disk: nothing half-written, nothing lost, and it works again later.

mod common;

use common::*;
use outlast_blob::packs::{LocalPacks, PackStore, PackWriter};
use outlast_blob::{BlobError, Blobs, Config};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use tempfile::tempdir;

/// Files on a disk that has `left` bytes of room; syncs fail too when it is below zero.
struct SmallDisk {
    inner: LocalPacks,
    left: Arc<AtomicI64>,
}

struct SmallWriter {
    inner: Box<dyn PackWriter>,
    left: Arc<AtomicI64>,
}

impl PackStore for SmallDisk {
    fn place(&self) -> Option<&str> {
        None
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn PackWriter>> {
        let inner = self.inner.create(name)?;
        Ok(Box::new(SmallWriter { inner, left: self.left.clone() }))
    }
    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }
    fn read_at(&self, name: &str, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(name, pos, buf)
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.inner.delete(name)
    }
    fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        self.inner.list(prefix, each)
    }
}

impl PackWriter for SmallWriter {
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.left.fetch_sub(bytes as i64, Relaxed) < bytes as i64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.append(parts)
    }
    fn seal(self: Box<Self>) -> io::Result<()> {
        if self.left.load(Relaxed) < 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.seal()
    }
}

#[test]
fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("packs");
    std::fs::create_dir(&folder).unwrap();
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let disk = SmallDisk { inner: LocalPacks::new(&folder), left: left.clone() };
    let config =
        Config { packs: Some(Arc::new(disk)), pack_bytes: Some(1 << 20), ..Config::default() };
    let blobs = Blobs::open(dir.path(), config).unwrap();
    let first = blobs.put(&noise(1, 3 << 20)[..]).unwrap().manifest;
    let before = (blobs.usage(), packs(dir.path()));
    // At the first byte, in the middle of the pipeline, and in the last pack.
    for room in [0, 100_000, 5 << 20, (20 << 20) - 1000] {
        left.store(room, Relaxed);
        let full = blobs.put(&noise(2, 20 << 20)[..]).unwrap_err();
        assert!(matches!(full, BlobError::DiskFull), "{full}");
        assert!(full.is_retryable());
        let now = outlast_blob::Usage { refused: 0, ..blobs.usage() };
        assert_eq!((now, packs(dir.path())), before);
    }
    assert_eq!(blobs.usage().refused, 4);
    assert!(read(&blobs, &first) == noise(1, 3 << 20));
    left.store(i64::MAX, Relaxed);
    let second = blobs.put(&noise(2, 20 << 20)[..]).unwrap().manifest;
    assert!(read(&blobs, &second) == noise(2, 20 << 20));
}

/// On a file system that is really full, index and all.
#[test]
#[ignore = "set OUTLAST_SMALL_DISK to a folder on a file system of some 24 MiB"]
fn a_small_file_system() {
    let dir = std::env::var_os("OUTLAST_SMALL_DISK").expect("OUTLAST_SMALL_DISK is set");
    let dir = std::path::PathBuf::from(dir).join("store");
    let blobs = open_small(&dir);
    let mut stored = Vec::new();
    let mut refused = 0;
    for seed in 0..400 {
        let size = [3 << 20, 200_000, 1000][seed as usize % 3];
        match blobs.put(&noise(seed, size)[..]) {
            Ok(put) => stored.push((put.manifest, seed, size)),
            Err(BlobError::DiskFull) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 20);
    drop(blobs);
    let blobs = open_small(&dir);
    for (manifest, seed, size) in &stored {
        assert!(read(&blobs, manifest) == noise(*seed, *size));
    }
    let (keep, ..) = stored[0];
    a_moment();
    blobs.collect(&|m| *m == keep, NO_GRACE).unwrap();
    let again = blobs.put(&noise(1000, 3 << 20)[..]).unwrap().manifest;
    assert!(read(&blobs, &again) == noise(1000, 3 << 20));
    assert!(read(&blobs, &keep) == noise(stored[0].1, stored[0].2));
}
