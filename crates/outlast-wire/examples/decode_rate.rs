//! Time to count and decode a batch of outcomes:
//! `cargo run --release -p outlast-wire --example decode_rate`.

use outlast_wire::frame::{Packing, encode_sized, open};
use outlast_wire::v2::{self, body::Kind, outbox_item};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 2_000;

fn batch(tail: usize) -> Kind {
    let outcome = |n: usize| v2::TaskOutcome {
        task_id: format!("0199c2a5-7d32-7c3e-8f52-{n:012}"),
        epoch: 1,
        kind: v2::OutcomeKind::OutcomeSucceeded.into(),
        started_at_ms: 1_795_530_048_500,
        finished_at_ms: 1_795_530_048_507,
        max_rss_bytes: 3_000_000,
        stdout_tail: vec![b'x'; tail].into(),
        has_exit_code: true,
        ..Default::default()
    };
    let item = |n| v2::OutboxItem { kind: Some(outbox_item::Kind::Outcome(outcome(n))) };
    let items = (0..1_000).map(item).collect();
    Kind::Outbox(v2::OutboxBatch { lane: 1, first_seq: 1, items, ..Default::default() })
}

fn main() {
    for (tail, above) in [(0, usize::MAX), (0, 1024), (200, usize::MAX), (200, 1024)] {
        let (frame, _) = encode_sized(batch(tail), Packing { level: 1, above });
        let (mut opening, mut decoding) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let opened = open(frame.clone()).expect("a frame");
            opening += began.elapsed();
            let began = Instant::now();
            let kind = opened.decode().expect("a message");
            decoding += began.elapsed();
            drop(kind);
        }
        let each = |time: Duration| time.as_nanos() as f64 / f64::from(ROUNDS) / 1_000.0;
        println!(
            "1000 outcomes, {tail} bytes of output, {} bytes on the wire: opened and counted in \
             {:.0} ns each, decoded in {:.0} ns each",
            frame.len(),
            each(opening),
            each(decoding)
        );
    }
}
