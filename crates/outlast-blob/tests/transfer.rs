//! From one store to another, over a link that breaks, lies and repeats.

mod common;

use common::*;
use outlast_blob::{BlobError, Blobs, Config, Hash, MAX_CHUNK, Packed};
use tempfile::tempdir;

fn hashes(blobs: &Blobs, manifest: &Hash) -> Vec<Hash> {
    let manifest = blobs.manifest(manifest).unwrap().unwrap();
    manifest.chunks().iter().map(|(hash, _)| *hash).collect()
}

fn body(blobs: &Blobs, manifest: &Hash) -> Vec<u8> {
    blobs.manifest(manifest).unwrap().unwrap().encode()
}

#[test]
fn an_interrupted_upload_goes_on_at_the_missing_chunk() {
    let (near, far) = (tempdir().unwrap(), tempdir().unwrap());
    let from = open(near.path());
    let data = [noise(1, 3 << 20), text(1, 3 << 20)].concat();
    let put = from.put(&data[..]).unwrap();
    let all = hashes(&from, &put.manifest);

    let to = open_small(far.path());
    assert_eq!(to.missing(&all).unwrap(), all);
    // One half arrives and is committed; of the other some arrives, and then the link is cut.
    let mut ingest = to.ingest();
    for chunk in &all[..all.len() / 2] {
        assert!(ingest.add(*chunk, from.load(chunk).unwrap()).unwrap());
        assert!(!ingest.add(*chunk, from.load(chunk).unwrap()).unwrap(), "repeated");
    }
    let done = ingest.commit().unwrap();
    assert_eq!(done.new_chunks, all.len() as u64 / 2);
    let half = (to.usage(), packs(far.path()));
    let mut ingest = to.ingest();
    for chunk in &all[all.len() / 2..all.len() - 3] {
        ingest.add(*chunk, from.load(chunk).unwrap()).unwrap();
    }
    drop(ingest);
    assert_eq!((to.usage(), packs(far.path())), half, "a dropped ingest leaves nothing");
    drop(to);

    let to = open_small(far.path());
    let rest = to.missing(&all).unwrap();
    assert_eq!(rest, all[all.len() / 2..]);
    let refused = to.accept_manifest(&body(&from, &put.manifest)).unwrap_err();
    assert!(matches!(refused, BlobError::Missing(missing) if missing == rest));
    assert!(!to.has_manifest(&put.manifest).unwrap());
    let mut ingest = to.ingest();
    for chunk in &rest {
        let packed = from.load(chunk).unwrap();
        assert!(packed.bytes.len() <= packed.raw_len as usize);
        ingest.add(*chunk, packed).unwrap();
    }
    ingest.commit().unwrap();
    assert_eq!(to.accept_manifest(&body(&from, &put.manifest)).unwrap(), put.manifest);
    assert_eq!(to.accept_manifest(&body(&from, &put.manifest)).unwrap(), put.manifest, "repeated");
    drop(to);
    let to = open(far.path());
    assert!(read(&to, &put.manifest) == data);
    assert_eq!(to.usage().manifest_count, 1);
}

#[test]
fn chunks_that_are_not_what_they_claim_are_refused_and_others_go_on() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let raw = noise(1, 100_000);
    let hash = Hash::of(&raw);
    let plain = |bytes: &[u8]| Packed {
        raw_len: bytes.len() as u32,
        compressed: false,
        bytes: bytes.to_vec(),
    };
    let mut ingest = blobs.ingest();
    let mut refused = |packed: Packed| {
        let error = ingest.add(hash, packed).unwrap_err();
        assert!(matches!(error, BlobError::BadChunk { chunk, .. } if chunk == hash), "{error}");
        assert!(!error.is_retryable());
    };
    let mut flipped = plain(&raw);
    flipped.bytes[500] ^= 1;
    refused(flipped);
    refused(plain(&raw[1..]));
    refused(plain(&[]));
    refused(plain(&noise(2, MAX_CHUNK as usize + 1)));
    refused(Packed { raw_len: 5, ..plain(&raw) });
    refused(Packed { compressed: true, ..plain(&raw) });
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    for raw_len in [1, MAX_CHUNK, 64 << 20, u32::MAX] {
        refused(Packed { raw_len, compressed: true, bytes: bomb.clone() });
    }
    assert!(ingest.add(hash, plain(&raw)).unwrap());
    ingest.commit().unwrap();
    assert_eq!(blobs.usage().chunk_count, 1);
    assert_eq!(blobs.load(&hash).unwrap(), plain(&raw));
}

#[test]
fn a_manifest_that_contradicts_its_chunks_is_refused() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let put = blobs.put(&noise(1, 10_000)[..]).unwrap();
    let chunk = hashes(&blobs, &put.manifest)[0];
    let lie = outlast_blob::Manifest::new(vec![(chunk, 9_999)]).unwrap().encode();
    for bytes in [&lie[..], b"", b"junk", &body(&blobs, &put.manifest)[1..]] {
        let error = blobs.accept_manifest(bytes).unwrap_err();
        assert!(matches!(error, BlobError::BadManifest { .. }), "{error}");
    }
    assert_eq!(blobs.usage().manifest_count, 1);
}

#[test]
fn an_ingest_beyond_the_budget_is_refused_whole() {
    let dir = tempdir().unwrap();
    let blobs =
        Blobs::open(dir.path(), Config { budget: Some(4 << 20), ..Config::default() }).unwrap();
    let before = blobs.usage();
    let mut ingest = blobs.ingest();
    let mut failed = None;
    for seed in 0..40 {
        let bytes = noise(seed, 200_000);
        let packed = Packed { raw_len: 200_000, compressed: false, bytes: bytes.clone() };
        if let Err(error) = ingest.add(Hash::of(&bytes), packed) {
            failed = Some(error);
            break;
        }
    }
    assert!(matches!(failed, Some(BlobError::Full { .. })));
    drop(ingest);
    assert_eq!(blobs.usage(), outlast_blob::Usage { refused: 1, ..before });
    assert!(packs(dir.path()).is_empty());
}
