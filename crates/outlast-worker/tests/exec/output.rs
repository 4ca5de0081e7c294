//! Output of real processes, however they write it.

use super::*;

/// A whole log, read in parts of `most` bytes from `offset` on, and where it ends.
fn log_of(bench: &Bench, task: &str, stream: Stream, offset: u64, most: usize) -> (String, u64) {
    let (mut all, mut offset) = (Vec::new(), offset);
    loop {
        let part = logs::read(bench.root.path(), task, 1, stream, offset, most).unwrap();
        all.extend(part.data);
        offset = part.next_offset;
        if part.end {
            return (text(&all), offset);
        }
    }
}

#[test]
fn a_stream_that_is_opened_again_loses_nothing() {
    let bench = Bench::new();
    let outcome = bench.run(shell(
        "echo 1; echo 2 > /dev/stdout; echo 3 | tee /dev/stdout; echo 4 >> /dev/stdout
         echo a >&2; echo b > /dev/stderr; echo c | tee /dev/stderr > /dev/null
         (echo d > /proc/self/fd/2); sh -c 'echo 5 > /dev/fd/1'
         dd if=/dev/null of=/dev/stdout bs=1 2> /dev/null; echo 6",
    ));
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    assert_eq!(text(&outcome.stdout_tail), "1\n2\n3\n3\n4\n5\n6\n");
    assert_eq!(text(&outcome.stderr_tail), "a\nb\nc\nd\n");
    assert_eq!(log_of(&bench, "task", Stream::Stdout, 0, 3).0, "1\n2\n3\n3\n4\n5\n6\n");
    assert_eq!(log_of(&bench, "task", Stream::Stderr, 0, 100).0, "a\nb\nc\nd\n");
}

#[test]
fn programs_that_open_their_output_by_name_write_to_its_end() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let bench = Bench::new();
    let line = "print('before', flush=True); f = open('/dev/stdout', 'w'); f.write('named\\n'); \
                f.close(); print('after')";
    let outcome = bench.run(command(&["python3", "-c", line]));
    assert_eq!(text(&outcome.stdout_tail), "before\nnamed\nafter\n", "{outcome:?}");
}

#[test]
fn a_follower_gets_every_kept_byte_once_and_one_note_for_each_loss() {
    let bench = Bench::with(|config| config.output_cap = 1 << 20);
    // Waits a little now and then, so that the follower sees it before and after it is cut.
    let running = bench.start(
        "task",
        shell("for n in 1 2 3 4 5 6 7 8; do seq ${n}000000 ${n}040000; sleep 0.1; done"),
    );
    let (mut seen, mut at, mut lost, mut notes) = (String::new(), 0, 0, 0);
    let mut over = false;
    loop {
        let part = logs::read(bench.root.path(), "task", 1, Stream::Stdout, at, 30_000).unwrap();
        if part.gap {
            let bytes = part.next_offset - at;
            assert_eq!(text(&part.data), format!("\n[outlast: {bytes} bytes cut here]\n"));
            (lost, notes) = (lost + bytes, notes + 1);
            seen.push('|');
        } else {
            assert_eq!(part.next_offset, at + part.data.len() as u64);
            seen.push_str(&text(&part.data));
        }
        at = part.next_offset;
        if part.end {
            if over {
                break;
            }
            over = bench.executor.running() == 0;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let all: String = (1..=8)
        .flat_map(|n| (0..=40_000).map(move |i| format!("{}\n", n * 1_000_000 + i)))
        .collect();
    assert_eq!(at, all.len() as u64);
    assert_eq!(seen.len() as u64, at - lost + notes);
    let mut rest = all.as_str();
    for part in seen.split('|') {
        let found = rest.find(part).expect("in order, and as it was written");
        rest = &rest[found + part.len()..];
    }
    assert!(rest.is_empty(), "the end is missing");
    running.wait();
    // Whoever comes later finds one gap.
    let (log, end) = log_of(&bench, "task", Stream::Stdout, 0, 64 << 10);
    assert_eq!((log.matches("bytes cut here").count(), end), (1, at));
    let kept = log.split("\n[outlast:").next().unwrap();
    assert_eq!(kept.len(), 512 << 10);
    assert!(all.starts_with(kept) && all.ends_with(log.rsplit("here]\n").next().unwrap()));
    let length = logs::length(bench.root.path(), "task", 1, Stream::Stdout).unwrap();
    assert_eq!(length, at);
}

#[test]
fn what_outlives_a_task_still_writes_to_its_log_and_to_nobody_elses() {
    let bench = Bench::new();
    let outcome = bench.run(shell(
        "setsid sh -c '> detached; sleep 0.5; echo late' & echo early
         while [ ! -e detached ]; do sleep 0.01; done",
    ));
    assert_eq!(text(&outcome.stdout_tail), "early\n");
    for n in 0..20 {
        bench.start(&format!("t{n}"), shell("echo mine")).wait();
    }
    until("the late line", || {
        (log_of(&bench, "task", Stream::Stdout, 0, 100).0 == "early\nlate\n").then_some(())
    });
    for n in 0..20 {
        assert_eq!(log_of(&bench, &format!("t{n}"), Stream::Stdout, 0, 100).0, "mine\n");
    }
}

#[test]
fn streams_of_many_tasks_at_once_are_kept_apart() {
    let bench = Bench::new();
    let line = |n| format!("seq {n}0000 {n}9999; sleep 0.2; seq 1 20000 >&2; echo end of {n}");
    let running: Vec<_> =
        (1..=100).map(|n| bench.start(&format!("t{n}"), shell(&line(n)))).collect();
    for (n, running) in (1..=100).zip(running) {
        assert_eq!(running.wait().kind, OutcomeKind::Succeeded);
        let (log, _) = log_of(&bench, &format!("t{n}"), Stream::Stdout, 0, 5000);
        let expected: String = (n * 10_000..(n + 1) * 10_000).map(|i| format!("{i}\n")).collect();
        assert!(log == format!("{expected}end of {n}\n"), "task {n}");
        assert_eq!(log_of(&bench, &format!("t{n}"), Stream::Stderr, 0, 5000).1, 108_894);
    }
}

#[test]
fn a_full_disk_loses_output_and_says_how_much_but_fails_no_task() {
    let bench = Bench::with(|config| config.reserve_bytes = 0);
    // Where logs are, a disk of its own that is small.
    let place = bench.file("logs");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(&place)
        .output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let full = bench.file("full");
    let line =
        format!("seq 1 100000; while [ -e {} ]; do sleep 0.05; done; echo end", full.display());
    fs::write(&full, "").unwrap();
    let running = bench.start("task", shell(&line));
    let filled = || {
        let (_, end) = log_of(&bench, "task", Stream::Stdout, 0, 64 << 10);
        (end > 100_000).then_some(end)
    };
    until("a full disk", filled);
    std::thread::sleep(Duration::from_millis(500));
    let remount =
        std::process::Command::new("mount").args(["-o", "remount,size=8m"]).arg(&place).status();
    fs::remove_file(&full).unwrap();
    let outcome = running.wait();
    let (log, end) = log_of(&bench, "task", Stream::Stdout, 0, 64 << 10);
    let _ = std::process::Command::new("umount").arg("-l").arg(&place).status();
    assert!(remount.unwrap().success());
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    let all: String = (1..=100_000).map(|n| format!("{n}\n")).chain(["end\n".to_owned()]).collect();
    assert_eq!((outcome.stdout_bytes, end), (all.len() as u64, all.len() as u64));
    assert!(text(&outcome.stdout_tail).ends_with("100000\nend\n"));
    let (before, after) = log.split_once("\n[outlast: ").expect("a note");
    let (lost, after) = after.split_once(" bytes cut here]\n").unwrap();
    assert!(all.starts_with(before) && all.ends_with(after) && after.ends_with("end\n"));
    assert_eq!(before.len() + after.len() + lost.parse::<usize>().unwrap(), all.len());
    assert!(!after.contains("outlast"), "more than one note");
}
