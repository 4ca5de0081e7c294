//! Foreign texts cannot act on a terminal or a log, with real processes.

mod common;

use common::Base;
use outlast_net::Dialler;
use outlast_wire::v2::{self, body::Kind};
use std::process::{Command, Stdio};

/// Clears the screen, turns the direction of writing, begins another line, and ends a title.
const EVIL: &str = "\u{1b}[2J\u{202e}x\nforged: all is well\r\u{9b}1m\u{7}";

fn shown(base: &Base, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).stdin(Stdio::null());
    command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_COORDINATOR", base.url());
    command.env_remove("OUTLAST_API_KEY");
    let out = command.output().unwrap();
    String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap()
}

/// Asserts that a text has no control characters except line feeds.
fn harmless(what: &str, text: &str) {
    let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(bad, None, "{what}: {text:?}");
    let forged = text.lines().any(|line| line.starts_with("forged"));
    assert!(!forged, "{what}: {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tasks_and_workers_say_does_nothing_to_a_terminal() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &["--label", &format!("note={EVIL}")]);
    base.connected("w").await;
    let evil = format!("printf '%s' '{EVIL}' >&2; exit 3");
    shown(
        &base,
        &["submit", "--id", "evil", "--label", &format!("l={EVIL}"), "--", "sh", "-c", &evil],
    );
    base.client.wait("evil").await.unwrap();
    // A command that cannot be started is quoted in the reason.
    shown(&base, &["submit", "--id", "none", "--", &format!("/nowhere/{EVIL}")]);
    base.client.wait("none").await.unwrap();
    for args in [
        &["tasks"][..],
        &["workers"],
        &["workers", "show", "w"],
        &["watch", "--once"],
        &["task", "show", "evil"],
        &["task", "show", "none"],
        &["task", "explain", "evil"],
        &["task", "explain", "none"],
        &["task", "history", "none"],
        &["task", "result", "none"],
        &["recovery", "patterns"],
        &["task", "show", EVIL],
        &["doctor"],
    ] {
        harmless(&format!("{args:?}"), &shown(&base, args));
    }
    let tasks = shown(&base, &["tasks"]);
    assert!(tasks.contains(r"\x1b[2J\u{202e}x forged"), "{tasks}");
    // The end of an output has its own lines.
    let result = shown(&base, &["task", "result", "evil"]);
    assert!(result.contains("\\x1b[2J\\u{202e}x\nforged: all is well\\r\\x9b1m\\x07"), "{result}");
    // Raw is raw, and JSON exact.
    assert_eq!(shown(&base, &["task", "logs", "--stderr", "evil"]), EVIL);
    let json: serde_json::Value =
        serde_json::from_str(&shown(&base, &["--json", "task", "show", "evil"])).unwrap();
    assert_eq!(json["spec"]["labels"]["l"], EVIL);
    for log in ["coordinator", "w"] {
        let text = std::fs::read_to_string(base.dir.path().join(format!("{log}.log"))).unwrap();
        harmless(log, &text);
    }
}

/// The most memory that a process had, in kB.
fn highest(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_message_does_not_become_a_large_one() {
    let base = Base::new();
    let coordinator = base.coordinator();
    base.client.workers().await.unwrap();
    let before = highest(coordinator.0.id());
    // Some kilobytes on the wire, and 140 MB of items; twice that while their list grows.
    let items = vec![v2::OutboxItem::default(); 500_000];
    let bomb = v2::OutboxBatch { lane: 1, first_seq: 1, items, ..Default::default() };
    let hello = v2::Hello {
        protocol: 2,
        worker_id: "w".into(),
        store_id: "s".into(),
        incarnation: 1,
        connection: 1,
        slots: 1,
        capabilities_json: "{}".into(),
        ..Default::default()
    };
    let dialler = Dialler::new(&base.url(), "w", None, None).unwrap();
    let (mut sender, mut receiver) = dialler.dial().await.unwrap();
    sender.feed(Kind::Hello(hello)).await.unwrap();
    sender.feed(Kind::Outbox(bomb)).await.unwrap();
    sender.flush().await.unwrap();
    let said = async {
        loop {
            match receiver.next().await {
                Ok(Kind::Refused(refused)) => return refused.reason,
                Ok(_) => {}
                Err(why) => panic!("{why}"),
            }
        }
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(120), said).await.unwrap();
    assert!(said.contains("bytes of memory"), "{said}");
    let took = highest(coordinator.0.id()) - before;
    assert!(took < 60_000, "{took} kB");
}
