//! The fuzzer: it feeds nonsense to every reader of bytes from outside, and measures the memory that it takes: a
//! reader may refuse, but neither panic, nor take more than it says, nor take long.
//!
//! Inputs are made from seeds, by mutation. One that makes a reader say something that it has not said
//! yet, or take more memory than any before, is mutated further: both say as well as coverage would
//! that something else was reached.

pub mod memory;
pub mod mutate;
mod target;
pub mod targets;

pub use target::{Run, Target};

use mutate::Mutator;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;

/// The longest that one input may take, on a machine that is busy with other things too.
const SLOW: Duration = Duration::from_secs(30);
/// Inputs that are kept to be mutated, at most, and the longest of them in bytes.
const KEPT: (usize, usize) = (1000, 64 << 10);

/// The result of a target.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs that were tried.
    pub runs: u64,
    /// Inputs that were kept.
    pub kept: usize,
    /// Largest memory that an input took, and the bound for it, in bytes.
    pub peak: (usize, usize),
    /// Longest time that one took.
    pub slowest: Duration,
    /// The error, with the input that shows it.
    pub wrong: Option<(String, Vec<u8>)>,
}

/// Tries one input.
///
/// # Errors
/// What is wrong: a panic, too much memory, too much time.
pub fn check(target: &Target, input: &[u8]) -> Result<(Run, Duration), String> {
    let began = Instant::now();
    let run = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = began.elapsed();
    let run = run.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        format!("it panics: {text}")
    })?;
    if run.peak > run.bound {
        return Err(format!(
            "it takes {} bytes for an input of {}, the bound is {}; it says {:?}",
            run.peak,
            input.len(),
            run.bound,
            run.said
        ));
    }
    if took > SLOW {
        return Err(format!("it takes {} s", took.as_secs()));
    }
    Ok((run, took))
}

/// The inputs that were once found to do harm, or that are worth beginning with.
pub fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
    paths.sort();
    let found = paths.iter().filter_map(|path| std::fs::read(path).ok());
    (target.seeds)().into_iter().chain(found).collect()
}

/// Hashes a result's text without its numbers and quotes.
fn feature(said: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let letters = said.chars().filter(|c| c.is_ascii_alphabetic());
    letters.take(400).for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

/// Tries inputs for so long.
pub fn fuzz(target: &Target, seed: u64, time: Duration) -> Report {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut report = Report::default();
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    let (mut seen, mut most) = (HashSet::new(), 0);
    let mut seeds = corpus(target).into_iter();
    let deadline = Instant::now() + time;
    loop {
        let seeded = seeds.next();
        let fresh = seeded.is_some();
        let input = match seeded {
            Some(seed) => seed,
            None if Instant::now() >= deadline => break,
            None => match target.make {
                Some(make) if inputs.is_empty() || rng.random_ratio(1, 4) => make(&mut rng),
                _ => Mutator { rng: &mut rng, words: target.words }.mutated(&inputs),
            },
        };
        report.runs += 1;
        match check(target, &input) {
            Ok((run, took)) => {
                report.slowest = report.slowest.max(took);
                if run.peak > report.peak.0 {
                    report.peak = (run.peak, run.bound);
                }
                let new = seen.insert(feature(&run.said)) | (run.peak > most);
                most = most.max(run.peak);
                if fresh || (new && input.len() <= KEPT.1) {
                    if inputs.len() >= KEPT.0 {
                        let at = rng.random_range(0..inputs.len());
                        inputs.swap_remove(at);
                    }
                    inputs.push(input);
                }
            }
            Err(why) => {
                report.wrong = Some((why, input));
                break;
            }
        }
    }
    report.kept = inputs.len();
    report
}
