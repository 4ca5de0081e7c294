//! A process that stores without a pause is killed again and again. What it acknowledged is
//! there, what it left half-written is not.
#![cfg(unix)]

mod common;

use common::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::tempdir;

const CHILD: &str = "OUTLAST_BLOB_CRASH_DIR";

/// Work of the child process until it is killed; not a test by itself.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let blobs = open_small(dir.as_ref());
    let mut out = std::io::stdout();
    let first = u64::from(std::process::id()) << 20;
    for seed in first.. {
        let size = 1 + (seed.wrapping_mul(7_919_171) % (5 << 20)) as usize;
        let manifest = blobs.put(&noise(seed, size)[..]).unwrap().manifest;
        writeln!(out, "\nacknowledged {seed} {size} {manifest}").unwrap();
        out.flush().unwrap();
        if seed % 4 == 3 {
            // Half of them go, so that compaction is killed too.
            blobs.collect(&|m| m.as_bytes()[0] % 2 == 0, NO_GRACE).unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_kill_9() {
    let dir = tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut orphans = 0;
    for round in 0..100u64 {
        if round >= 12 && orphans > 0 {
            break;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (stores, storing) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let heard = |line: &String| {
                line.starts_with("acknowledged ").then(|| stores.send(()));
            };
            lines.map_while(Result::ok).inspect(heard).collect::<Vec<_>>()
        });
        // The next ones are killed.
        storing.recv_timeout(Duration::from_secs(120)).expect("it stores nothing");
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            if let Some(line) = line.strip_prefix("acknowledged ") {
                let [seed, size, manifest] = line.split(' ').collect::<Vec<_>>()[..] else {
                    continue; // the last line, cut short
                };
                let Ok(manifest) = manifest.parse::<outlast_blob::Hash>() else { continue };
                let (seed, size): (u64, usize) = (seed.parse().unwrap(), size.parse().unwrap());
                acknowledged.push((manifest, seed, size));
            }
        }
        let before = packs(dir.path()).len();
        let blobs = open_small(dir.path());
        orphans += before - packs(dir.path()).len();
        for (manifest, seed, size) in &acknowledged {
            let wanted = manifest.as_bytes()[0] % 2 == 0;
            if wanted || blobs.has_manifest(manifest).unwrap() {
                assert!(read(&blobs, manifest) == noise(*seed, *size), "round {round}");
            }
        }
        let usage = blobs.usage();
        assert_eq!(usage.damaged, 0);
        let on_disk: u64 = packs(dir.path()).iter().map(|(_, bytes)| bytes).sum();
        assert!(on_disk < usage.disk_bytes, "no orphans are left");
        drop(blobs);
        let conn = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
        let known: isize = conn.query_row("SELECT count(*) FROM packs", [], |r| r.get(0)).unwrap();
        assert_eq!(packs(dir.path()).len() as isize, known);
    }
    assert!(acknowledged.len() > 12, "{}", acknowledged.len());
    assert!(orphans > 0, "no kill hit a put");
}
