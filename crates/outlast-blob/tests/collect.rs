//! Collection: wanted data is never collected; unwanted data is, and its space is freed.

mod common;

use common::*;
use outlast_blob::{Blobs, Hash};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};
use tempfile::tempdir;

#[test]
fn what_is_wanted_stays_and_the_rest_gives_its_space_back() {
    let dir = tempdir().unwrap();
    let blobs = open_small(dir.path());
    let keep = blobs.put(&noise(1, 2 << 20)[..]).unwrap().manifest;
    let go = blobs.put(&noise(2, 6 << 20)[..]).unwrap().manifest;
    let before = blobs.usage();
    a_moment();
    let none = blobs.collect(&|_| false, LONG).unwrap();
    assert_eq!(none, Default::default(), "all of it is young");

    let done = blobs.collect(&|m| *m == keep, NO_GRACE).unwrap();
    assert_eq!(done.manifests, 1);
    assert!(done.bytes >= 6 << 20);
    assert!(blobs.usage().disk_bytes < before.disk_bytes - (5 << 20));
    assert!(!blobs.has_manifest(&go).unwrap());
    assert!(read(&blobs, &keep) == noise(1, 2 << 20));
    let on_disk: u64 = packs(dir.path()).iter().map(|(_, bytes)| bytes).sum();
    assert!(on_disk < 3 << 20);
    drop(blobs);
    let blobs = open_small(dir.path());
    assert!(read(&blobs, &keep) == noise(1, 2 << 20));
}

#[test]
fn a_question_pins_its_answer() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let data = [noise(1, 1 << 20), noise(2, 1 << 20)];
    let [a, b] = [0, 1].map(|i| blobs.put(&data[i][..]).unwrap().manifest);
    let of_b: Vec<Hash> =
        blobs.manifest(&b).unwrap().unwrap().chunks().iter().map(|(hash, _)| *hash).collect();
    std::thread::sleep(Duration::from_millis(60));
    assert!(blobs.has_manifest(&a).unwrap());
    assert!(blobs.missing(&of_b).unwrap().is_empty());
    let body = blobs.manifest(&b).unwrap().unwrap().encode();
    let done = blobs.collect(&|_| false, Duration::from_millis(50)).unwrap();
    assert_eq!((done.manifests, done.chunks), (1, 0));
    assert!(read(&blobs, &a) == data[0]);
    blobs.accept_manifest(&body).unwrap();
    assert!(read(&blobs, &b) == data[1]);
    // Pins end too.
    std::thread::sleep(Duration::from_millis(60));
    blobs.collect(&|_| false, Duration::from_millis(50)).unwrap();
    assert_eq!((blobs.usage().manifest_count, blobs.usage().chunk_count), (0, 0));
    assert!(packs(dir.path()).is_empty());
}

#[test]
fn open_readers_and_ingests_keep_what_they_use() {
    let dir = tempdir().unwrap();
    let blobs = open_small(dir.path());
    let data = noise(1, 4 << 20);
    let put = blobs.put(&data[..]).unwrap();
    let mut reader = blobs.reader(&put.manifest).unwrap();
    let mut out = vec![0; 1 << 20];
    reader.read_exact(&mut out).unwrap();
    a_moment();
    assert_eq!(blobs.collect(&|_| false, NO_GRACE).unwrap(), Default::default());
    reader.read_to_end(&mut out).unwrap();
    assert!(out == data);
    let chunk = reader.manifest().chunks()[0].0;
    let packed = blobs.load(&chunk).unwrap();
    let mut ingest = blobs.ingest();
    assert!(!ingest.add(chunk, packed).unwrap(), "it is here, and held from now on");
    drop(reader);
    a_moment();
    blobs.collect(&|_| false, NO_GRACE).unwrap();
    assert_eq!(blobs.usage().chunk_count, 1);
    a_moment();
    ingest.commit().unwrap();
    blobs.load(&chunk).unwrap();
    a_moment();
    blobs.collect(&|_| false, NO_GRACE).unwrap();
    assert_eq!(blobs.usage().chunk_count, 0);
}

#[test]
fn a_reader_survives_its_packs_being_rewritten() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    // Two blobs in one pack's worth of chunks each way: most of the pack dies.
    let keep = noise(1, 1 << 20);
    let whole = blobs.put((&keep[..]).chain(&noise(2, 8 << 20)[..])).unwrap().manifest;
    let part = blobs.put(&keep[..]).unwrap().manifest;
    let mut reader = blobs.reader(&part).unwrap();
    let mut out = vec![0; 1000];
    reader.read_exact(&mut out).unwrap();
    a_moment();
    let done = blobs.collect(&|m| *m != whole, NO_GRACE).unwrap();
    assert!(done.bytes > 7 << 20 && done.packs >= 1);
    reader.read_to_end(&mut out).unwrap();
    assert!(out == keep);
}

#[test]
fn many_small_packs_are_merged() {
    let dir = tempdir().unwrap();
    let blobs = open(dir.path());
    let stored: Vec<Hash> =
        (0..100).map(|seed| blobs.put(&noise(seed, 3000)[..]).unwrap().manifest).collect();
    assert_eq!(packs(dir.path()).len(), 100);
    blobs.collect(&|_| true, LONG).unwrap();
    assert_eq!(packs(dir.path()).len(), 1);
    for (seed, manifest) in stored.iter().enumerate() {
        assert!(read(&blobs, manifest) == noise(seed as u64, 3000));
    }
}

/// Blobs that share most of their content, so that chunks have many referrers.
fn shared_content(blob: u8) -> Vec<u8> {
    let part = |i: u8| noise(u64::from(i), 150_000);
    let parts = [blob % 4, blob % 3 + 10, blob % 5 + 20, blob % 2 + 30];
    parts.into_iter().flat_map(part).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Root(u8, bool),
    Collect,
    Ask(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12u8).prop_map(Step::Put),
        3 => (0..12u8, any::<bool>()).prop_map(|(b, r)| Step::Root(b, r)),
        3 => Just(Step::Collect),
        1 => (0..12u8).prop_map(Step::Ask),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn roots_always_read_back(steps in steps()) {
        let dir = tempdir().unwrap();
        let mut blobs = open_small(dir.path());
        let mut names: HashMap<u8, Hash> = HashMap::new();
        let mut here: HashSet<u8> = HashSet::new();
        let mut roots: HashSet<u8> = HashSet::new();
        for step in steps {
            match step {
                Step::Put(b) => {
                    names.insert(b, blobs.put(&shared_content(b)[..]).unwrap().manifest);
                    here.insert(b);
                }
                Step::Root(b, true) if here.contains(&b) => { roots.insert(b); }
                Step::Root(b, _) => { roots.remove(&b); }
                Step::Collect => {
                    a_moment();
                    let wanted: HashSet<Hash> = roots.iter().map(|b| names[b]).collect();
                    blobs.collect(&|m| wanted.contains(m), NO_GRACE).unwrap();
                    here = roots.clone();
                }
                Step::Ask(b) => if let Some(name) = names.get(&b) {
                    prop_assert_eq!(blobs.has_manifest(name).unwrap(), here.contains(&b));
                },
                Step::Reopen => {
                    drop(blobs);
                    blobs = open_small(dir.path());
                }
            }
            let on_disk: u64 = packs(dir.path()).iter().map(|(_, bytes)| bytes).sum();
            prop_assert!(on_disk <= blobs.usage().disk_bytes);
            prop_assert_eq!(blobs.usage().manifest_count, here.len() as u64);
        }
        for b in &here {
            prop_assert!(read(&blobs, &names[b]) == shared_content(*b));
        }
        a_moment();
        blobs.collect(&|_| false, NO_GRACE).unwrap();
        prop_assert_eq!((blobs.usage().manifest_count, blobs.usage().chunk_count), (0, 0));
        prop_assert!(packs(dir.path()).is_empty());
    }
}

/// Putters make roots of what they put, check it, and let go of it; a collector runs without a
/// pause and without grace. Chunks die and are put again all the time.
#[test]
fn puts_that_reuse_chunks_never_lose_to_a_collection() {
    let dir = tempdir().unwrap();
    let blobs = open_small(dir.path());
    let roots: RwLock<HashMap<Hash, u32>> = RwLock::default();
    let stop = AtomicBool::new(false);
    let (collected, puts) = (AtomicU64::new(0), AtomicU64::new(0));
    let failure = Mutex::new(None);
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let (blobs, roots, puts, failure) = (&blobs, &roots, &puts, &failure);
            scope.spawn(move || {
                let mut round = thread;
                while Instant::now() < until && failure.lock().unwrap().is_none() {
                    round = round.wrapping_mul(5).wrapping_add(7);
                    if let Err(error) = one_round(blobs, roots, round % 12) {
                        *failure.lock().unwrap() = Some(error);
                    }
                    puts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let is_root = |m: &Hash| roots.read().unwrap().contains_key(m);
                let done = blobs.collect(&is_root, NO_GRACE).unwrap();
                collected.fetch_add(done.chunks, Ordering::Relaxed);
            }
        });
        while Instant::now() < until && failure.lock().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
    });
    if let Some(error) = failure.into_inner().unwrap() {
        panic!("{error}");
    }
    assert!(puts.into_inner() > 20);
    assert!(collected.into_inner() > 20, "the race was run");
}

fn one_round(blobs: &Blobs, roots: &RwLock<HashMap<Hash, u32>>, blob: u8) -> Result<(), String> {
    let data = shared_content(blob);
    let put = blobs.put(&data[..]).map_err(|e| format!("put: {e}"))?;
    // The put's own youth does not cover this: a collection may begin right now. So, as any
    // caller would, become a root first and make sure of it then.
    *roots.write().unwrap().entry(put.manifest).or_default() += 1;
    let mut checked = Ok(());
    if blobs.has_manifest(&put.manifest).map_err(|e| e.to_string())? {
        for _ in 0..3 {
            let mut out = Vec::new();
            let read = blobs.reader(&put.manifest).map_err(|e| e.to_string());
            let read = read.and_then(|mut r| r.read_to_end(&mut out).map_err(|e| e.to_string()));
            checked = checked.and(read.map(drop).map_err(|e| format!("a root was lost: {e}")));
            if checked.is_ok() && out != data {
                checked = Err("a root reads back as something else".into());
            }
        }
    }
    let mut roots = roots.write().unwrap();
    let count = roots.get_mut(&put.manifest).ok_or("roots")?;
    *count -= 1;
    if *count == 0 {
        roots.remove(&put.manifest);
    }
    checked
}
