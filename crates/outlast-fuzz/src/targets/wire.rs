//! Frames of v2 in both directions, compressed and not, what agent and keeper say, chunks, manifests.

use crate::memory::measure;
use crate::mutate::varint;
use crate::target::{Run, Target, said};
use bytes::Bytes;
use outlast_blob::Manifest;
use outlast_wire::blobframe::{self, Decoder};
use outlast_wire::frame::{self, MAX_DECOMPRESSED};
use outlast_wire::v2::{self, body::Kind, outbox_item};
use rand::Rng;
use rand::rngs::SmallRng;

/// Texts of errors and the like, in bytes.
const TALK: usize = 4 << 10;
/// Memory in bytes that unpacking allocates at once.
const ROOM: usize = 512 << 10;

/// The targets of this module.
pub(super) fn targets() -> Vec<Target> {
    vec![
        frame_target(),
        zstd_target(),
        keeper_target(),
        files_target(),
        chunks_target(),
        manifest_target(),
    ]
}

fn frame_target() -> Target {
    Target {
        name: "frame",
        what: "frames of v2, both ways",
        seeds: || {
            // A kilobyte that would be gigabytes.
            let items = vec![v2::OutboxItem::default(); 2_000_000];
            let bomb = Kind::Outbox(v2::OutboxBatch { items, ..Default::default() });
            let all = kinds().into_iter().chain([bomb]);
            all.map(|kind| frame::encode(kind).to_vec()).collect()
        },
        words: &[],
        make: Some(make_frame),
        run: run_frame,
    }
}

fn zstd_target() -> Target {
    Target {
        name: "zstd",
        what: "compressed bodies",
        seeds: || {
            let one = |raw: &[u8]| zstd::bulk::compress(raw, 3).unwrap_or_default();
            vec![one(b"\x0a\0"), one(&[0; 5_000]), one(&vec![0x1a; 9 << 20])]
        },
        words: &[],
        make: None,
        run: |packed| {
            let envelope = v2::envelope::Payload::Zstd(Bytes::copy_from_slice(packed));
            let envelope = v2::Envelope { payload: Some(envelope) };
            run_frame(&prost::Message::encode_to_vec(&envelope))
        },
    }
}

fn keeper_target() -> Target {
    Target {
        name: "keeper",
        what: "what agent and keeper say",
        seeds: outlast_worker::fuzz::keeper_seeds,
        words: &[],
        make: Some(|rng| {
            let message = message(rng, 4);
            [&(message.len() as u32).to_le_bytes()[..], &message].concat()
        }),
        run: |input| {
            let (said, peak) = measure(|| outlast_worker::fuzz::keeper(input));
            // Its buffer doubles; then 262,144 fields of 48 bytes, in lists that double.
            let bound = 4 * input.len() + (256 << 10) + 3 * 48 * (1 << 18);
            Run { said, peak, bound }
        },
    }
}

fn files_target() -> Target {
    Target {
        name: "files",
        what: "what a process with a task's rights says",
        seeds: outlast_worker::fuzz::files_seeds,
        words: &[],
        make: None,
        run: |input| {
            let (said, peak) = measure(|| outlast_worker::fuzz::files(input));
            // A frame at a time, whose buffer doubles; as text, and as text that is cut.
            Run { said, peak, bound: 8 * input.len() + (64 << 10) }
        },
    }
}

fn chunks_target() -> Target {
    Target {
        name: "chunks",
        what: "chunks of blobs",
        seeds: || {
            let mut body = Vec::new();
            blobframe::encode(&[7; 32], 5, false, b"hello", &mut body);
            blobframe::encode(&[8; 32], 100, true, b"", &mut body);
            vec![body]
        },
        words: &[],
        make: None,
        run: |input| {
            let read = || {
                let mut decoder = Decoder::default();
                let mut frames = Vec::new();
                for piece in input.chunks(1000) {
                    decoder.push(piece);
                    while let Some(frame) = decoder.next()? {
                        frames.push(frame);
                    }
                }
                decoder.end().map(|()| frames)
            };
            let (done, peak) = measure(read);
            // A frame has 41 bytes, and takes twice that in a list that doubles.
            let bound = 12 * input.len() + TALK;
            Run { said: said(done, |_| "chunks".into()), peak, bound }
        },
    }
}

fn manifest_target() -> Target {
    Target {
        name: "manifest",
        what: "manifests of blobs",
        seeds: || {
            let chunk = |n: u8| (outlast_blob::Hash::of(&[n]), u32::from(n) + 1);
            let some = |count| Manifest::new((0..count).map(chunk).collect());
            [0, 1, 200].into_iter().filter_map(|n| some(n).ok()).map(|m| m.encode()).collect()
        },
        words: &[],
        make: None,
        run: |input| {
            let (done, peak) = measure(|| Manifest::decode(input));
            Run { said: said(done, |_| "a manifest".into()), peak, bound: 4 * input.len() + TALK }
        },
    }
}

fn run_frame(input: &[u8]) -> Run {
    let data = Bytes::copy_from_slice(input);
    let (opened, peak) = measure(|| frame::open(data));
    let opened = match opened {
        Ok(opened) => opened,
        // What it came to is not known; it grew up to the limit.
        Err(error) => {
            let bound = 3 * MAX_DECOMPRESSED + ROOM + TALK;
            return Run { said: error.to_string(), peak, bound };
        }
    };
    let bytes = opened.body_len();
    let bound = 3 * bytes + ROOM + TALK;
    if peak > bound {
        return Run { said: "unpacking".into(), peak, bound };
    }
    let bound = opened.weight() - bytes + TALK;
    let (done, peak) = measure(|| opened.decode());
    Run { said: said(done, |kind| format!("{kind:.0?}").chars().take(30).collect()), peak, bound }
}

/// A message of each kind that has parts.
pub(super) fn kinds() -> Vec<Kind> {
    from_workers().into_iter().chain(from_coordinators()).collect()
}

fn checkpoint() -> v2::Checkpoint {
    v2::Checkpoint {
        task_id: "t".into(),
        epoch: 1,
        number: 1,
        manifest: vec![1; 32].into(),
        meta_json: r#"{"kind":"raw"}"#.into(),
        ..Default::default()
    }
}

fn attempt() -> v2::AttemptRef {
    v2::AttemptRef { task_id: "t".into(), epoch: 1 }
}

fn from_workers() -> Vec<Kind> {
    let outcome = v2::TaskOutcome {
        task_id: "t".into(),
        epoch: 1,
        kind: v2::OutcomeKind::OutcomeFailed.into(),
        message: "a".repeat(20),
        started_at_ms: 1,
        stderr_tail: "a".repeat(2_000).into(),
        value_json: r#"{"message":"m"}"#.into(),
        ..Default::default()
    };
    let state = v2::StateUpdate {
        task_id: "t".into(),
        epoch: 1,
        version: 1,
        state_json: r#"{"a":1}"#.into(),
        ..Default::default()
    };
    let batch = |lane: v2::Lane, kind, seqs| {
        let (lane, items) = (lane.into(), vec![v2::OutboxItem { kind: Some(kind) }]);
        Kind::Outbox(v2::OutboxBatch { lane, first_seq: 1, items, seqs, prev_seq: 0 })
    };
    let hello = v2::Hello {
        protocol: 2,
        worker_id: "w".into(),
        store_id: "s".into(),
        incarnation: 1,
        connection: 1,
        slots: 2,
        capabilities_json: r#"{"gpu":true,"cores":8}"#.into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        link: Some(Box::default()),
        ..Default::default()
    };
    let holding = v2::Holding { task_id: "t".into(), epoch: 1, state: 1, ..Default::default() };
    vec![
        Kind::Hello(hello),
        Kind::Inventory(v2::Inventory { holdings: vec![holding], last: true }),
        batch(v2::Lane::Results, outbox_item::Kind::Outcome(outcome), vec![]),
        batch(v2::Lane::Checkpoints, outbox_item::Kind::Checkpoint(checkpoint()), vec![]),
        batch(v2::Lane::State, outbox_item::Kind::State(state), vec![1]),
        Kind::Started(v2::Started { attempts: vec![attempt()], at_ms: vec![1] }),
        Kind::LogData(v2::LogData { data: vec![b'a'; 100].into(), ..Default::default() }),
        Kind::Happened(v2::Happened { attempt: Some(attempt()), kind: 1, ..Default::default() }),
        Kind::Adapted(v2::Adapted { setting: "batch".into(), ..Default::default() }),
        Kind::Heartbeat(v2::Heartbeat { seq: 1, running: 1, ..Default::default() }),
        Kind::Bye(v2::Bye { reason: "a".repeat(2_000) }),
    ]
}

fn from_coordinators() -> Vec<Kind> {
    let assignment = v2::Assignment {
        task_id: "u".into(),
        epoch: 1,
        spec_json: r#"{"command":["true"]}"#.into(),
        checkpoint: Some(checkpoint()),
        ..Default::default()
    };
    let (cursor, attempts) = (v2::Cursor { lane: 1, seq: 1 }, vec![attempt()]);
    vec![
        Kind::Welcome(v2::Welcome {
            protocol: 2,
            coordinator_id: "c".into(),
            cursors: vec![cursor],
            credit: 100,
            ..Default::default()
        }),
        Kind::Refused(v2::Refused { code: 5, retry: true, ..Default::default() }),
        Kind::Assign(v2::Assign { tasks: vec![assignment] }),
        Kind::Stop(v2::Stop { attempts: attempts.clone(), reason: 0 }),
        Kind::Control(v2::Control { attempts, kind: 0 }),
        Kind::Ack(v2::Ack { cursors: vec![cursor] }),
        Kind::BlobMissing(v2::BlobMissing { manifest: vec![1; 32].into() }),
    ]
}

/// Fields as a protobuf message has them, of any number and kind, some of them very often.
fn message(rng: &mut SmallRng, depth: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.random_range(0..4) {
        let number =
            if rng.random_ratio(1, 8) { rng.random_range(1..160) } else { rng.random_range(1..18) };
        let field = match rng.random_range(0..4) {
            0 => [varint(number << 3), varint(rng.random())].concat(),
            1 => {
                let bytes = vec![rng.random::<u8>() & 0x7f; rng.random_range(0..40)];
                [varint(number << 3 | 2), varint(bytes.len() as u64), bytes].concat()
            }
            _ => {
                let inner = if depth > 0 { message(rng, depth - 1) } else { Vec::new() };
                [varint(number << 3 | 2), varint(inner.len() as u64), inner].concat()
            }
        };
        let often = if rng.random_ratio(1, 4) { 1 << rng.random_range(0..17) } else { 1 };
        out.extend(field.repeat(often.min((1 << 20) / field.len().max(1))));
        if out.len() > 1 << 20 {
            break;
        }
    }
    out
}

fn make_frame(rng: &mut SmallRng) -> Vec<u8> {
    // The kinds of a body.
    let kind = rng.random_range(1..42);
    let inner = message(rng, 3);
    let body = [varint(kind << 3 | 2), varint(inner.len() as u64), inner].concat();
    let (tag, payload) = match rng.random() {
        true => (0x0a, body),
        false => (0x12, zstd::bulk::compress(&body, 1).unwrap_or_default()),
    };
    [vec![tag], varint(payload.len() as u64), payload].concat()
}
