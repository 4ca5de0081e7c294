//! A copy of a store that is at work holds all that was durable before, whatever is collected
//! meanwhile.

mod common;

use common::*;
use outlast_blob::{BlobError, Blobs, Config, Hash, Home, check_copy, copy_store};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn a_copy_is_whole_while_packs_come_go_and_move() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let blobs = open_small(&store);
    let kept: Arc<Mutex<HashSet<Hash>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let worker = {
        let (blobs, kept) = (blobs.clone(), kept.clone());
        let (stop, done) = (stop.clone(), done.clone());
        std::thread::spawn(move || {
            for seed in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                done.store(seed, Ordering::Relaxed);
                let put = blobs.put(&noise(seed, 200_000)[..]).unwrap();
                // Every third stays: the others make holes, so that packs are rewritten.
                if seed % 3 == 0 {
                    kept.lock().unwrap().insert(put.manifest);
                }
                if seed % 4 == 3 {
                    a_moment();
                    let roots = kept.lock().unwrap().clone();
                    blobs.collect(&|hash| roots.contains(hash), NO_GRACE).unwrap();
                }
            }
        })
    };
    let mut last = 0;
    while last < 12 || done.load(Ordering::Relaxed) < 60 {
        last += 1;
        let before: Vec<Hash> = kept.lock().unwrap().iter().copied().collect();
        let copy = dir.path().join(format!("copy-{last}"));
        copy_store(Home::local(&store), Home::local(&copy)).unwrap();
        check_copy(Home::local(&copy), &before, true).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    drop(blobs);
    // The last one is a store like any other, whatever becomes of the first.
    std::fs::remove_dir_all(&store).unwrap();
    let copy = Blobs::open(dir.path().join(format!("copy-{last}")), Config::default()).unwrap();
    assert_eq!(read(&copy, &copy.put(&noise(0, 200_000)[..]).unwrap().manifest), noise(0, 200_000));
}

#[test]
fn a_check_finds_what_is_missing_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let blobs = open(&store);
    let put = blobs.put(&noise(1, 300_000)[..]).unwrap();
    drop(blobs);
    copy_store(Home::local(&store), Home::local(&copy)).unwrap();
    let all = [put.manifest];
    check_copy(Home::local(&copy), &all, true).unwrap();
    let unknown = [Hash::of(b"x")];
    assert!(matches!(check_copy(Home::local(&copy), &unknown, false), Err(BlobError::Unknown(_))));
    let (pack, len) = packs(&copy).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[len as usize / 2] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, &bytes).unwrap();
    check_copy(Home::local(&copy), &all, false).unwrap();
    assert!(matches!(
        check_copy(Home::local(&copy), &all, true),
        Err(BlobError::ChunkDamaged { .. })
    ));
    std::fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(
        check_copy(Home::local(&copy), &all, false),
        Err(BlobError::ChunkDamaged { .. })
    ));
    std::fs::remove_file(&pack).unwrap();
    assert!(matches!(
        check_copy(Home::local(&copy), &all, false),
        Err(BlobError::ChunkDamaged { .. })
    ));
    // A copy of that copy says what it lacks, and where.
    let error = copy_store(Home::local(&copy), Home::local(&dir.path().join("again")));
    let error = error.unwrap_err().to_string();
    let name = pack.file_name().unwrap().to_str().unwrap();
    let says = format!("pack {name}, which its index names, is not in {}", copy.display());
    assert!(error.contains(&says), "{error}");
    // The store was not touched by all that.
    assert_eq!(read(&open(&store), &put.manifest), noise(1, 300_000));
}
