//! Starts that fail at first, or by the machine's fault: what is tried again, who is to blame, and
//! what the executor does until it can start something again.

use super::*;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

/// Reports of fitness (`None`: fit), in order.
type Told = Arc<Mutex<Vec<Option<String>>>>;

fn watch(executor: &Executor) -> Told {
    let told = Told::default();
    let told_here = Arc::clone(&told);
    executor.set_fitness_watch(Box::new(move |reason| {
        told_here.lock().unwrap().push(reason.map(ToOwned::to_owned));
    }));
    told
}

/// Runs a test again in a process of its own, by a line for bash that ends in `"$@"`; `None` in
/// that process, or else whether the line got so far.
fn apart(test: &str, line: &str) -> Option<bool> {
    if std::env::var_os("OUTLAST_TEST_APART").is_some() {
        return None;
    }
    let output = Command::new("bash")
        .args(["-c", line, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("starts::{test}"), "--nocapture"])
        .env("OUTLAST_TEST_APART", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    if !text.contains("running 1 test") {
        eprintln!("skipped: this cannot be set up here: {text}");
        return Some(false);
    }
    assert!(output.status.success(), "{text}");
    Some(true)
}

/// A program that is being written for so long still.
fn busy(bench: &Bench, name: &str, long: Duration) -> (String, thread::JoinHandle<()>) {
    let path = bench.file(name);
    fs::copy("/bin/true", &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let writer = fs::File::options().append(true).open(&path).unwrap();
    let closes = thread::spawn(move || {
        thread::sleep(long);
        drop(writer);
    });
    (path.to_str().unwrap().to_owned(), closes)
}

#[test]
fn a_program_that_is_still_being_written_is_waited_for() {
    let bench = Bench::new();
    for (n, long) in [30, 300, 1000].into_iter().enumerate() {
        let name = format!("program-{n}");
        let (program, closes) = busy(&bench, &name, Duration::from_millis(long));
        let outcome = bench.start(&name, command(&[&program])).wait();
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{long}: {}", outcome.message);
        closes.join().unwrap();
    }
    // One that stays so is the task's mistake, and can be stopped meanwhile.
    let (program, closes) = busy(&bench, "for-ever", Duration::from_secs(8));
    let cancelled = bench.start("cancelled", command(&[&program]));
    let taken_back = bench.start("taken-back", command(&[&program]));
    let outcome = bench.start("fails", command(&[&program]));
    thread::sleep(Duration::from_millis(200));
    cancelled.handle.stop(StopKind::Cancel);
    assert_eq!(cancelled.wait().kind, OutcomeKind::Cancelled);
    until("it to wait", || taken_back.handle.recall().then_some(()));
    assert_eq!(taken_back.wait().kind, OutcomeKind::Returned);
    let outcome = outcome.wait();
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert!(outcome.message.ends_with("for-ever is open for writing"), "{}", outcome.message);
    closes.join().unwrap();
}

#[test]
fn a_working_directory_that_comes_late_is_waited_for() {
    let bench = Bench::new();
    let (late, mounted) = (bench.file("late"), bench.file("mounted"));
    fs::create_dir(&mounted).unwrap();
    let mut in_late = command(&["pwd"]);
    in_late.cwd = Some(late.to_str().unwrap().to_owned());
    // A place that is there, and empty until something is mounted.
    let mut in_mounted = command(&["./program"]);
    in_mounted.cwd = Some(mounted.to_str().unwrap().to_owned());
    let by_path = command(&[late.join("tools/program").to_str().unwrap()]);
    let specs = [("late", in_late), ("mounted", in_mounted), ("path", by_path)];
    let running = specs.map(|(name, spec)| bench.start(name, spec));
    thread::sleep(Duration::from_secs(2));
    for folder in [&mounted, &late.join("tools")] {
        let new = bench.file("new");
        fs::create_dir(&new).unwrap();
        fs::copy("/bin/true", new.join("program")).unwrap();
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        let _ = fs::remove_dir(folder);
        fs::rename(new, folder).unwrap();
    }
    for one in running {
        let outcome = one.wait();
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    }
}

#[test]
fn a_place_that_does_not_come_is_the_tasks_mistake_and_is_not_waited_for_twice() {
    let bench = Bench::with(|config| config.wait_for_folders = Duration::from_millis(700));
    let mut nowhere = command(&["true"]);
    nowhere.cwd = Some("/no/such/folder".to_owned());
    let began = Instant::now();
    let outcome = bench.run(nowhere.clone());
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert_eq!(outcome.message, "working directory /no/such/folder does not exist");
    assert!(began.elapsed() >= Duration::from_millis(700));
    let began = Instant::now();
    for n in 0..100 {
        let outcome = bench.start(&format!("t{n}"), nowhere.clone()).wait();
        assert_eq!(outcome.kind, OutcomeKind::Failed);
    }
    // 70 s, if each waited.
    assert!(began.elapsed() < Duration::from_secs(50));
}

/// Starts `count` tasks that hold what they have for a while, and returns the outcomes of those that
/// did not start. Then there is room again, and everything has to run.
fn starve(bench: &Bench, count: usize, told: &Told) -> Vec<TaskOutcome> {
    let fifo = bench.file("goes-on");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // For both, so that it needs no reader and stays open.
    let mut goes_on = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    // A line each; it needs nothing more once it runs.
    let line = format!("read line <{}", fifo.display());
    let running: Vec<_> = (0..count).map(|n| bench.start(&format!("t{n}"), shell(&line))).collect();
    until("it to be unfit", || told.lock().unwrap().first().cloned().flatten());
    let mut refused: Vec<TaskOutcome> = Vec::new();
    until("each to run or to be back", || {
        refused.extend(running.iter().filter_map(|r| r.outcome.try_recv().ok()));
        let run = running.iter().filter(|r| r.handle.started_at_ms().is_some()).count();
        (run + refused.len() >= count).then_some(())
    });
    assert!(!refused.is_empty() && bench.executor.unfit().is_some());
    for outcome in &refused {
        assert_eq!(outcome.kind, OutcomeKind::Returned, "{outcome:?}");
        assert_eq!(outcome.started_at_ms, 0);
    }
    // Nothing is tried in vain for each.
    let again = bench.start("again", shell("true")).wait();
    assert_eq!(again.kind, OutcomeKind::Returned);
    assert!(again.message.starts_with("this worker cannot start tasks for now: "), "{again:?}");
    goes_on.write_all(&vec![b'\n'; count]).unwrap();
    until("it to be fit", || {
        told.lock().unwrap().last().is_some_and(Option::is_none).then_some(())
    });
    assert_eq!(bench.run(shell("echo works")).kind, OutcomeKind::Succeeded);
    for (n, one) in running.iter().enumerate() {
        if !refused.iter().any(|o| *o.task == *format!("t{n}")) {
            assert_eq!(one.wait().kind, OutcomeKind::Succeeded);
        }
    }
    refused
}

#[test]
fn without_descriptors_nothing_fails_and_nothing_is_started() {
    let test = "without_descriptors_nothing_fails_and_nothing_is_started";
    if apart(test, "ulimit -n 160; exec \"$@\"").is_some() {
        return;
    }
    let bench = Bench::new();
    let told = watch(&bench.executor);
    let refused = starve(&bench, 80, &told);
    // 80 tasks need 160 descriptors for their output alone, and some are the executor's own.
    assert!((10..70).contains(&refused.len()), "{}", refused.len());
    let reason = told.lock().unwrap()[0].clone().unwrap();
    assert_eq!(reason, "too many open files (the limit is 160: `ulimit -n`)");
    // What runs could be ended all the while: the executor keeps some for itself.
    let outcome = bench.run(shell("exit 3"));
    assert_eq!(outcome.exit_code, Some(3));
}

#[test]
fn without_processes_nothing_fails_and_nothing_is_started() {
    let test = "without_processes_nothing_fails_and_nothing_is_started";
    // The limit holds for users other than root only, and counts all that they run.
    let line = "[ $(id -u) = 0 ] || { echo not root; exit; }; \
                setpriv --reuid=64321 --regid=64321 --clear-groups test -x \"$1\" || exit 0; \
                exec setpriv --reuid=64321 --regid=64321 --clear-groups \
                bash -c 'ulimit -u 60; exec \"$@\"' bash \"$@\"";
    if apart(test, line).is_some() {
        return;
    }
    let bench = Bench::new();
    let told = watch(&bench.executor);
    let refused = starve(&bench, 50, &told);
    assert!(refused.len() >= 5, "{}", refused.len());
}

#[test]
fn on_a_disk_that_takes_no_file_nothing_fails_and_nothing_is_started() {
    let test = "on_a_disk_that_takes_no_file_nothing_fails_and_nothing_is_started";
    let line = "exec unshare -m bash -c 'd=$(mktemp -d) && export TMPDIR=$d && \
                mount -t tmpfs -o size=16m,nr_inodes=300 none $d && exec \"$@\"' bash \"$@\"";
    if apart(test, line).is_some() {
        return;
    }
    let root = std::env::var("TMPDIR").unwrap();
    let bench = Bench::with(|config| config.reserve_bytes = 0);
    let told = watch(&bench.executor);
    let works = |name: &str| {
        until("it to be fit", || told.lock().unwrap().last()?.is_none().then_some(()));
        let outcome = bench.start(name, shell("echo works")).wait();
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    };
    let refused = |name: &str, why: &str| {
        // What is kept for the next attempt needs no new file: more than that at once do.
        let line = "sleep 4";
        let all: Vec<_> =
            (0..8).map(|n| bench.start(&format!("{name}-{n}"), shell(line))).collect();
        let kinds: Vec<_> = all.iter().map(|one| one.wait()).collect();
        assert!(kinds.iter().all(|o| o.kind != OutcomeKind::Failed), "{kinds:?}");
        assert!(kinds.iter().any(|o| o.kind == OutcomeKind::Returned), "{kinds:?}");
        let reason = bench.executor.unfit().expect("it is unfit");
        assert!(reason.contains(why), "{reason}");
    };
    assert_eq!(bench.run(shell("true")).kind, OutcomeKind::Succeeded);
    // No inodes.
    let folder = Path::new(&root).join("many");
    fs::create_dir(&folder).unwrap();
    let mut n = 0;
    while fs::write(folder.join(n.to_string()), "").is_ok() {
        n += 1;
    }
    refused("inodes", "No space left on device");
    fs::remove_dir_all(&folder).unwrap();
    works("after-inodes");
    // A disk that is read-only, as broken ones become.
    let root = bench.root.path().to_str().unwrap();
    let mount = |args: &[&str]| {
        assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "ro", "none", root]);
    refused("read-only", "Read-only file system");
    mount(&["umount", "-l", root]);
    works("after-read-only");
}

#[test]
fn in_a_folder_that_may_not_be_written_nothing_fails_and_nothing_is_started() {
    let test = "in_a_folder_that_may_not_be_written_nothing_fails_and_nothing_is_started";
    // Root may write everywhere.
    let line = "[ $(id -u) = 0 ] || exec \"$@\"; \
                setpriv --reuid=64321 --regid=64321 --clear-groups test -x \"$1\" || exit 0; \
                exec setpriv --reuid=64321 --regid=64321 --clear-groups \"$@\"";
    if apart(test, line).is_some() {
        return;
    }
    let bench = Bench::new();
    let told = watch(&bench.executor);
    let folders = ["", "work"].map(|name| bench.file(name));
    let allow = |mode: u32| {
        for folder in &folders {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    allow(0o500);
    let outcome = bench.run(shell("true"));
    assert_eq!(outcome.kind, OutcomeKind::Returned, "{outcome:?}");
    let reason = bench.executor.unfit().expect("it is unfit");
    assert!(reason.contains("Permission denied"), "{reason}");
    allow(0o700);
    until("it to be fit", || told.lock().unwrap().last()?.is_none().then_some(()));
    assert_eq!(bench.run(shell("true")).kind, OutcomeKind::Succeeded);
}
