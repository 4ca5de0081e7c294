//! Both cores with arbitrary messages: the decoded size is bounded, and so is the memory that a core
//! takes for it.

use super::json::v1_texts;
use super::wire::kinds;
use crate::memory::measure;
use crate::mutate::{Mutator, varint};
use crate::target::{Run, Target};
use outlast_core::coord::{
    self, CoordConfig, Coordinator, Fact, Given, Owner, PastAttempt, Query, Request, Submission,
};
use outlast_core::records::{CoordSnapshot, WorkerSnapshot};
use outlast_core::worker::{Worker, WorkerConfig};
use outlast_core::{Machine, Now, Step, TaskId};
use outlast_model::message::{ToCoordinator, ToWorker};
use outlast_wire::v2::body::Kind;
use outlast_wire::{Run as What, TaskSpec, frame, v1, v2};
use prost::Message;
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

/// Memory in bytes that a core may use itself.
const OWN: usize = 4 << 20;
/// Messages of one input.
const MESSAGES: usize = 8;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "coordinator",
            what: "the coordinator's core, fed by a worker",
            seeds: sequences,
            words: &[],
            make: Some(|rng| make(rng, &[0, 1])),
            run: |input| run(input, Said::Coordinator),
        },
        Target {
            name: "worker",
            what: "the worker's core, fed by a coordinator",
            seeds: sequences,
            words: &[],
            make: Some(|rng| make(rng, &[WELCOME])),
            run: |input| run(input, Said::Worker),
        },
        Target {
            name: "coordinator-v1",
            what: "the coordinator's core, fed by a v1 worker",
            seeds: v1_texts,
            words: &["\n", "\"t\"", "\"c\"", "null", "{", "}"],
            make: None,
            run: run_v1,
        },
    ]
}

enum Said {
    Coordinator(Vec<Kind>),
    Worker(Vec<Kind>),
}

/// Messages, each with its length before it.
fn join(kinds: &[Kind]) -> Vec<u8> {
    let mut out = Vec::new();
    for kind in kinds {
        let frame = frame::encode(kind.clone());
        push(&mut out, &frame);
    }
    out
}

fn push(out: &mut Vec<u8>, frame: &[u8]) {
    out.extend((frame.len() as u32).to_le_bytes());
    out.extend_from_slice(frame);
}

/// The place of the welcome among the kinds.
const WELCOME: usize = 11;

/// A few messages after those with which a link begins, some of them changed within.
fn make(rng: &mut SmallRng, first: &[usize]) -> Vec<u8> {
    let all = kinds();
    let bodies: Vec<Vec<u8>> =
        all.iter().map(|kind| v2::Body::from(kind.clone()).encode_to_vec()).collect();
    let mut which = first.to_vec();
    which.extend((0..rng.random_range(1..6)).map(|_| rng.random_range(0..all.len())));
    let mut out = Vec::new();
    for (n, which) in which.into_iter().enumerate() {
        let mut body = bodies[which].clone();
        if rng.random_ratio(1, if n < first.len() { 8 } else { 2 }) {
            let mut mutator = Mutator { rng, words: &[] };
            body = mutator.mutated(std::slice::from_ref(&body));
        }
        let frame = [vec![0x0a], varint(body.len() as u64), body].concat();
        push(&mut out, &frame);
    }
    out
}

fn sequences() -> Vec<Vec<u8>> {
    let all = kinds();
    let pairs = all.iter().map(|kind| join(&[all[0].clone(), all[1].clone(), kind.clone()]));
    let whole = all[2..].chunks(MESSAGES - 2).map(|few| {
        let begun: Vec<Kind> = all[..2].iter().chain(few).cloned().collect();
        join(&begun)
    });
    let welcomed = |kind: &Kind| join(&[all[WELCOME].clone(), kind.clone()]);
    let downward = all[WELCOME..].iter().map(welcomed);
    pairs.chain(whole).chain(downward).collect()
}

/// Those messages of an input that can be read, and what they may take.
fn read(mut input: &[u8]) -> (Vec<Kind>, usize) {
    let (mut kinds, mut weight) = (Vec::new(), 0);
    while let Some((len, rest)) = input.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at((u32::from_le_bytes(*len) as usize).min(rest.len()));
        input = rest;
        if let Ok(opened) = frame::open(frame.to_vec().into()) {
            weight += opened.weight();
            kinds.extend(opened.decode());
        }
        if kinds.len() >= MESSAGES {
            break;
        }
    }
    (kinds, weight)
}

fn run(input: &[u8], of: fn(Vec<Kind>) -> Said) -> Run {
    let (kinds, weight) = read(input);
    let (said, peak) = match of(kinds) {
        Said::Coordinator(kinds) => {
            let mut core = coordinator();
            measure(|| {
                let messages =
                    kinds.into_iter().filter_map(|kind| ToCoordinator::try_from(kind).ok());
                messages.for_each(|message| core.on_message(NOW, 1, message));
                settle(&mut core)
            })
        }
        Said::Worker(kinds) => {
            let config = WorkerConfig { slots: 2, ..Default::default() };
            let snapshot =
                WorkerSnapshot { store_id: "s".into(), incarnation: 1, ..Default::default() };
            let mut core = Worker::new(config, snapshot, Vec::new(), 1, NOW);
            core.on_connected(NOW);
            finish(&mut core, &mut String::new());
            measure(|| {
                let messages = kinds.into_iter().filter_map(|kind| ToWorker::try_from(kind).ok());
                messages.for_each(|message| core.on_message(NOW, message));
                let mut said = String::new();
                finish(&mut core, &mut said);
                said
            })
        }
    };
    // Records and outputs have copies of what was said; specs are read once more.
    Run { said, peak, bound: 8 * weight + 2 * outlast_wire::spec::MAX_SPEC_WEIGHT + OWN }
}

const NOW: Now = Now { mono: 1_000, wall: 1_000_000 };

/// Creates a coordinator with a link and a waiting task.
fn coordinator() -> Coordinator {
    let snapshot = CoordSnapshot { coordinator_id: "c".into(), ..Default::default() };
    let mut core = Coordinator::new(CoordConfig::default(), snapshot, NOW);
    let spec = Arc::new(TaskSpec::new(What::Command(vec!["true".into()])));
    let task = Submission { id: "t".into(), spec, chosen: false };
    core.on_request(NOW, 1, Request::Submit(vec![task], Owner::default()));
    core.on_open(NOW, 1);
    core.on_open_v1(NOW, 2, "w1");
    carry_out(&mut core, &mut String::new());
    core
}

/// Carries out outputs until there are none left; returns their kinds.
fn settle(core: &mut Coordinator) -> String {
    let mut said = String::new();
    carry_out(core, &mut said);
    // Windows pass, links are silent.
    for minutes in [1, 20] {
        let passed = minutes * 60_000;
        core.on_tick(Now { mono: NOW.mono + passed, wall: NOW.wall + passed as i64 });
        carry_out(core, &mut said);
    }
    said
}

/// Does what is to be done, and notes it.
fn finish(core: &mut Worker, said: &mut String) {
    while let Some(step) = core.poll() {
        if let Step::Persist(batch) = &step {
            core.on_persisted(NOW, batch.number);
        }
        note(said, &step);
    }
}

/// The same for the coordinator.
fn carry_out(core: &mut Coordinator, said: &mut String) {
    while let Some(step) = core.poll() {
        match &step {
            Step::Persist(batch) => core.on_persisted(batch.number),
            Step::Perform(coord::Output::Load(load, queries)) => {
                core.on_loaded(NOW, *load, queries.iter().map(known).collect());
            }
            Step::Perform(_) => {}
        }
        note(said, &step);
    }
}

/// The kind of an output.
fn note(said: &mut String, output: &impl std::fmt::Debug) {
    use std::fmt::Write;
    struct First<'a>(&'a mut String, usize);
    impl Write for First<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let fits = text.len().min(self.1);
            self.0.extend(text.chars().filter(char::is_ascii_alphabetic).take(fits));
            self.1 -= fits;
            if self.1 == 0 { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    if said.len() < 400 {
        let _ = write!(First(said, 30), "{output:?}");
    }
}

fn run_v1(input: &[u8]) -> Run {
    let text = String::from_utf8_lossy(input);
    let messages: Vec<v1::FromWorker> =
        text.lines().take(MESSAGES).filter_map(|line| v1::parse(line, "w").ok()).collect();
    let mut core = coordinator();
    let (said, peak) = measure(|| {
        for message in messages {
            core.on_v1(NOW, 2, message, Some(vec![1; 32].into()));
        }
        settle(&mut core)
    });
    // States and capabilities are values, several times.
    Run { said, peak, bound: 40 * input.len() + (24 << 20) + OWN }
}

/// The fact of a store that knows everything.
fn known(query: &Query) -> Fact {
    match query {
        Query::Blob(manifest, _) => Fact::Is(manifest.len() == 32),
        Query::Given(..) => Fact::Given(Given::To("s".into())),
        Query::Attempts(task, _) => {
            let known = *task == TaskId::from("t");
            let past = known.then(|| PastAttempt { epoch: 1, outcomes: Vec::new() });
            Fact::Attempts(past.into_iter().collect())
        }
        other => other.unknown(),
    }
}
