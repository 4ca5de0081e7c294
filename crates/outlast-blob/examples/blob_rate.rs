//! Rates of storing and reading blobs, compared with `dd` on the same disk in the same run.
//!
//! `cargo run --release -p outlast-blob --example blob_rate [folder]`: takes up to 10 GiB in the
//! folder (by default the system's temporary one), and deletes all of it.

use outlast_blob::{Blobs, Config, Put};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::Builder::new().prefix("blob-rate").tempdir_in(parent)?;
    let source = dir.path().join("source");
    write_noise(&source, GIB)?;
    // First, while this process has not yet asked for memory that it could use again.
    memory(dir.path())?;
    random_data(dir.path(), &source)?;
    small_puts(dir.path())
}

/// 1 GiB: new, read back, changed in one place, with something put in front.
fn random_data(dir: &Path, source: &Path) -> Result<()> {
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        // In turn, so that what the disk does at the time befalls both.
        let dd = dd(source, &dir.join("copy"))?;
        let store = dir.join("store");
        let blobs = Blobs::open(&store, Config::default())?;
        settle();
        let (took, put) = timed(|| Ok(blobs.put(File::open(source)?)?))?;
        ratios.push(dd.as_secs_f64() / took.as_secs_f64());
        println!(
            "round {round}: dd {:.2} GiB/s, put {:.2} GiB/s, ratio {:.2}",
            rate(GIB, dd),
            rate(GIB, took),
            dd.as_secs_f64() / took.as_secs_f64()
        );
        if round == ROUNDS {
            deduplicated(&blobs, source, &put)?;
        }
        drop(blobs);
        std::fs::remove_dir_all(store)?;
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "put of 1 GiB of random data / dd conv=fsync: median {:.2} (target 0.70), {:.2} to {:.2}",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    Ok(())
}

fn deduplicated(blobs: &Blobs, source: &Path, put: &Put) -> Result<()> {
    let (took, _) = timed(|| {
        let mut reader = blobs.reader(&put.manifest)?;
        Ok(io::copy(&mut reader, &mut io::sink())?)
    })?;
    println!("read back and verified: {:.2} GiB/s", rate(GIB, took));
    let report = |what: &str, took: Duration, put: Put| {
        let share = put.new_bytes as f64 / put.size as f64 * 100.0;
        println!("{what}: {share:.3}% new bytes (target 3%), {:.2} GiB/s", rate(GIB, took));
    };
    let (took, again) = timed(|| Ok(blobs.put(File::open(source)?)?))?;
    report("put again", took, again);
    let (took, changed) = timed(|| {
        let (before, part) = (GIB / 3, GIB / 100);
        let mut rest = File::open(source)?;
        io::Seek::seek(&mut rest, io::SeekFrom::Start(before + part))?;
        let front = File::open(source)?.take(before);
        Ok(blobs.put(front.chain(Noise::new(9).take(part)).chain(rest))?)
    })?;
    report("1% changed in place (1% = the least possible)", took, changed);
    let (took, shifted) =
        timed(|| Ok(blobs.put(Noise::new(8).take(1024).chain(File::open(source)?))?))?;
    report("1 KiB inserted at the front", took, shifted);
    Ok(())
}

/// 1 MiB, durable each time.
fn small_puts(dir: &Path) -> Result<()> {
    let blobs = Blobs::open(dir.join("small"), Config::default())?;
    let mut times = Vec::new();
    for seed in 0..100 {
        let mut data = vec![0; 1 << 20];
        Noise::new(100 + seed).read_exact(&mut data)?;
        times.push(timed(|| Ok(blobs.put(&data[..])?))?.0);
    }
    times.sort();
    let ms = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e3;
    println!("put of 1 MiB: p50 {:.1} ms (target 20), p99 {:.1} ms", ms(50), ms(99));
    Ok(())
}

/// 4 GiB straight out of a generator.
fn memory(dir: &Path) -> Result<()> {
    let blobs = Blobs::open(dir.join("large"), Config::default())?;
    let before = status("VmRSS")?;
    // The highest mark counts from here on.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let (took, _) = timed(|| Ok(blobs.put(Noise::new(7).take(4 * GIB))?))?;
    let grew = status("VmHWM")?.saturating_sub(before);
    println!(
        "put of 4 GiB: memory grew by {} MiB at most (target 64), {:.2} GiB/s with making it up",
        grew >> 10,
        rate(4 * GIB, took)
    );
    drop(blobs);
    Ok(std::fs::remove_dir_all(dir.join("large"))?)
}

fn dd(from: &Path, to: &Path) -> Result<Duration> {
    settle();
    let (took, status) = timed(|| {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", from.display())).arg(format!("of={}", to.display()));
        Ok(dd.args(["bs=1M", "conv=fsync", "status=none"]).status()?)
    })?;
    std::fs::remove_file(to)?;
    if status.success() { Ok(took) } else { Err("dd failed".into()) }
}

/// Lets the disk finish what came before.
fn settle() {
    let _ = Command::new("sync").status();
    std::thread::sleep(Duration::from_millis(500));
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed(), result))
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / GIB as f64 / took.as_secs_f64()
}

/// KiB.
fn status(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
    Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
}

fn write_noise(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path)?;
    io::copy(&mut Noise::new(1).take(bytes), &mut file)?;
    file.flush()?;
    Ok(file.sync_all()?)
}

/// Bytes that do not compress.
struct Noise(blake3::OutputReader);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }
}

impl Read for Noise {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.fill(buf);
        Ok(buf.len())
    }
}
