//! Output of tasks whose keeper dies.

use super::*;
use outlast_worker::exec::logs::{self, Stream};

#[test]
fn what_was_written_outlives_the_keeper() {
    let place = Place::new();
    let agent = place.agent(1);
    agent.start("writer", shell("seq 1 50000; echo aside > /dev/stderr; exec sleep 60"));
    let log = |stream| {
        let part = logs::read(&place.1, "writer", 1, stream, 0, 1 << 20).unwrap();
        String::from_utf8(part.data).unwrap()
    };
    let expected: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    until("the output", || (log(Stream::Stderr) == "aside\n").then_some(()));
    kill(agent.keeper.pid(), "-KILL");
    let outcome = loop {
        if let Event::Finished(outcome) = agent.next() {
            break outcome;
        }
    };
    assert_eq!(outcome.kind, OutcomeKind::Interrupted);
    assert!(log(Stream::Stdout) == expected);
    assert_eq!(log(Stream::Stderr), "aside\n");
}
