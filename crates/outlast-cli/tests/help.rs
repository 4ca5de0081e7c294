//! Snapshot of all help texts. `UPDATE=1 cargo test -p outlast-cli --test help` writes it again.

use std::process::Command;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/help.txt");

/// Returns the help of a command and, recursively, of its subcommands.
fn help(path: &[&str], all: &mut String) {
    let out = Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(path)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(out.status.success() && !out.stdout.is_empty(), "{path:?}: {out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    *all +=
        &format!("$ outlast {}\n{}\n\n", [path, &["--help"]].concat().join(" "), text.trim_end());
    let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        // Further lines of a description are indented by more.
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
        match name.and_then(|line| line.split(' ').next()) {
            Some("help") | None => {}
            Some(name) => help(&[path, &[name]].concat(), all),
        }
    }
}

#[test]
fn the_help_is_as_recorded() {
    let mut now = String::new();
    help(&[], &mut now);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(SNAPSHOT, &now).unwrap();
    }
    let then = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let changed = now.lines().zip(then.lines()).find(|(now, then)| now != then);
    assert!(
        now == then,
        "a help text differs from tests/help.txt; check it, then run this test with UPDATE=1: \
         {changed:?}"
    );
}
