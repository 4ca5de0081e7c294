//! Data to store, and ways to look at a store from outside.
#![allow(dead_code)]

use outlast_blob::{Blobs, Config, Hash};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

pub const NO_GRACE: Duration = Duration::ZERO;
pub const LONG: Duration = Duration::from_secs(3600);

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that do.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = noise(seed, len / 8 + 1);
    words.iter().flat_map(|b| format!("{b:07} ").into_bytes()).take(len).collect()
}

pub fn open(dir: &Path) -> Blobs {
    Blobs::open(dir, Config::default()).unwrap()
}

/// Small packs, so that little data makes many.
pub fn open_small(dir: &Path) -> Blobs {
    Blobs::open(dir, Config { pack_bytes: Some(1 << 20), ..Config::default() }).unwrap()
}

pub fn read(blobs: &Blobs, manifest: &Hash) -> Vec<u8> {
    let mut out = Vec::new();
    blobs.reader(manifest).unwrap().read_to_end(&mut out).unwrap();
    out
}

/// Names and sizes of the pack files.
pub fn packs(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut packs: Vec<_> = std::fs::read_dir(dir.join("packs"))
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.path(), e.metadata().unwrap().len()))
        .collect();
    packs.sort();
    packs
}

/// Past the present millisecond: with no grace, what was stored before is then old.
pub fn a_moment() {
    std::thread::sleep(Duration::from_millis(3));
}
