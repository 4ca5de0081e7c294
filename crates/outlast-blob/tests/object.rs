//! The same store with its packs in a bucket.

mod common;

use common::*;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use outlast_blob::packs::ObjectPacks;
use outlast_blob::{Blobs, Config};
use std::path::Path;
use std::sync::Arc;
use tempfile::tempdir;

fn open_in(bucket: &Arc<dyn ObjectStore>, dir: &Path) -> Blobs {
    let packs = ObjectPacks::new(bucket.clone()).unwrap();
    Blobs::open(dir, Config { packs: Some(Arc::new(packs)), ..Config::default() }).unwrap()
}

fn objects(bucket: &Arc<dyn ObjectStore>) -> usize {
    let packs = ObjectPacks::new(bucket.clone()).unwrap();
    let mut count = 0;
    outlast_blob::packs::PackStore::list(&packs, "", &mut |_, _| count += 1).unwrap();
    count
}

/// Everything that a store does with its packs; two stores share the bucket.
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

/// Needs a server, for example `moto_server`, and a bucket there.
#[cfg(feature = "s3")]
#[test]
#[ignore = "set OUTLAST_S3_ENDPOINT, OUTLAST_S3_BUCKET and the usual AWS_ variables"]
fn packs_in_s3() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let bucket = object_store::aws::AmazonS3Builder::from_env()
        .with_endpoint(var("OUTLAST_S3_ENDPOINT"))
        .with_bucket_name(var("OUTLAST_S3_BUCKET"))
        .with_allow_http(true)
        .build()
        .unwrap();
    lifetime(Arc::new(bucket));
}
