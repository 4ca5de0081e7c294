//! The same store with its packs in a bucket.

mod common;

use common::*;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use outlast_blob::packs::{ObjectPacks, PackStore};
use outlast_blob::{BlobError, Blobs, Config, Home, check_copy, copy_store, packs_place};
use std::path::Path;
use std::sync::Arc;
use tempfile::tempdir;

fn open_in(bucket: &Arc<dyn ObjectStore>, dir: &Path) -> Blobs {
    let packs = ObjectPacks::new(bucket.clone(), "bucket").unwrap();
    Blobs::open(dir, Config { packs: Some(Arc::new(packs)), ..Config::default() }).unwrap()
}

fn objects(bucket: &Arc<dyn ObjectStore>) -> usize {
    let packs = ObjectPacks::new(bucket.clone(), "bucket").unwrap();
    let mut count = 0;
    outlast_blob::packs::PackStore::list(&packs, "", &mut |_, _| count += 1).unwrap();
    count
}

/// Performs all operations of a store on its packs; two stores share the bucket.
fn lifetime(bucket: Arc<dyn ObjectStore>) {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let neighbour = open_in(&bucket, other.path());
    let theirs = neighbour.put(&noise(0, 1 << 20)[..]).unwrap().manifest;
    drop(neighbour);

    let blobs = open_in(&bucket, dir.path());
    let small = blobs.put(&noise(1, 1 << 20)[..]).unwrap().manifest;
    let keep = noise(2, 3 << 20);
    // More than one part, and more than one pack.
    let large = blobs.put(&[&keep[..], &noise(3, 80 << 20)].concat()[..]).unwrap().manifest;
    assert_eq!(objects(&bucket), 4);
    assert!(!dir.path().join("packs").exists());
    drop(blobs);

    let blobs = open_in(&bucket, dir.path());
    assert!(read(&blobs, &small) == noise(1, 1 << 20));
    assert!(read(&blobs, &large)[..3 << 20] == keep);
    let part = blobs.put(&keep[..]).unwrap();
    assert!(part.new_chunks <= 1);
    a_moment();
    let done = blobs.collect(&|m| *m == part.manifest, NO_GRACE).unwrap();
    assert_eq!(done.manifests, 2);
    assert!(read(&blobs, &part.manifest) == keep);
    assert!(blobs.usage().disk_bytes < 5 << 20);
    assert!(objects(&bucket) <= 3);
    drop(blobs);
    assert!(read(&open_in(&bucket, other.path()), &theirs) == noise(0, 1 << 20));
}

#[test]
fn packs_in_memory() {
    lifetime(Arc::new(InMemory::new()));
}

#[test]
fn leftovers_of_a_killed_put_are_deleted_and_those_of_others_are_not() {
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let copy = tempdir().unwrap();
    drop(open_in(&bucket, dir.path()));
    std::fs::copy(dir.path().join("index.db"), copy.path().join("index.db")).unwrap();
    let theirs = open_in(&bucket, other.path()).put(&noise(1, 1000)[..]).unwrap().manifest;
    open_in(&bucket, dir.path()).put(&noise(2, 1000)[..]).unwrap();
    assert_eq!(objects(&bucket), 2);
    // To an index from before the put its pack is a leftover.
    drop(open_in(&bucket, copy.path()));
    assert_eq!(objects(&bucket), 1);
    assert!(read(&open_in(&bucket, other.path()), &theirs) == noise(1, 1000));
}

fn in_bucket(bucket: &Arc<dyn ObjectStore>, place: &str) -> ObjectPacks {
    ObjectPacks::new(bucket.clone(), place).unwrap()
}

#[test]
fn a_store_finds_its_packs_in_its_own_place_only() {
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (dir, local) = (tempdir().unwrap(), tempdir().unwrap());
    let put = open_in(&bucket, dir.path()).put(&noise(1, 1000)[..]).unwrap();
    drop(open(local.path()));
    let elsewhere = |result: Result<Blobs, BlobError>| match result.err() {
        Some(BlobError::Elsewhere { at, asked }) => (at, asked),
        other => panic!("{other:?}"),
    };
    let folder = "the folder beside its index".to_owned();
    let opened = Blobs::open(dir.path(), Config::default());
    assert_eq!(elsewhere(opened), ("bucket".into(), folder.clone()));
    let other: Arc<dyn PackStore> = Arc::new(in_bucket(&bucket, "other"));
    for (place, at) in [(dir.path(), "bucket".to_owned()), (local.path(), folder)] {
        let config = Config { packs: Some(other.clone()), ..Config::default() };
        assert_eq!(elsewhere(Blobs::open(place, config)), (at, "other".into()));
    }
    assert!(read(&open_in(&bucket, dir.path()), &put.manifest) == noise(1, 1000));
}

#[test]
fn copies_go_out_of_a_bucket_and_into_another_one() {
    let (first, second): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) =
        (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let blobs = open_in(&first, &at("store"));
    let large = blobs.put(&noise(1, 70 << 20)[..]).unwrap().manifest;
    let bucket = in_bucket(&first, "bucket");
    let store = at("store");
    let from = Home { folder: &store, bucket: Some(&bucket) };
    let (backup, back) = (at("backup"), at("back"));
    // The store is open, and its packs are where it says.
    assert!(matches!(
        copy_store(Home::local(&store), Home::local(&backup)),
        Err(BlobError::Elsewhere { .. })
    ));
    let copied = copy_store(from, Home::local(&backup)).unwrap();
    assert_eq!(copied.packs, 2);
    check_copy(Home::local(&backup), &[large], true).unwrap();
    assert_eq!(packs_place(&backup).unwrap(), None);
    assert!(read(&open(&backup), &large) == noise(1, 70 << 20));

    // Not among its own packs.
    let again = copy_store(Home::local(&backup), Home { folder: &back, bucket: Some(&bucket) });
    assert!(matches!(again, Err(BlobError::Io { transient: false, .. })), "{again:?}");
    assert_eq!(objects(&first), 2);

    let other = in_bucket(&second, "other");
    let to = Home { folder: &back, bucket: Some(&other) };
    assert_eq!(copy_store(Home::local(&backup), to).unwrap(), copied);
    check_copy(to, &[large], true).unwrap();
    assert_eq!(packs_place(&back).unwrap().as_deref(), Some("other"));
    drop(blobs);
    let config = Config { packs: Some(Arc::new(other)), ..Config::default() };
    assert!(read(&Blobs::open(&back, config).unwrap(), &large) == noise(1, 70 << 20));
}

#[test]
fn it_can_be_used_and_dropped_in_an_asynchronous_program() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let dir = tempdir().unwrap();
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let blobs = open_in(&bucket, dir.path());
        let put = blobs.put(&noise(1, 10 << 20)[..]).unwrap();
        assert!(read(&blobs, &put.manifest) == noise(1, 10 << 20));
    });
}
