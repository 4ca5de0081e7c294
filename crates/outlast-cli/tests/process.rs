//! The long-running processes as the system's: signals, limits, folders in use, a machine's shutdown,
//! being a container's first process, and a drain without a coordinator.

mod common;

use common::{Base, Process};
use outlast::{NewTask, Run, TaskSpec};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// For what takes as long as the machine is slow.
const MINUTES: Duration = Duration::from_secs(180);

fn shell(id: &str, line: &str) -> NewTask {
    NewTask { id: id.into(), spec: TaskSpec::new(Run::Shell(line.into())) }
}

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            match found().await {
                Some(found) => return found,
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    timeout(MINUTES, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn outlast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
    command.stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Processes whose line in `/proc` says so: pid, parent, state and command.
fn processes() -> Vec<(i32, i32, String, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest = stat.rsplit_once(')')?.1;
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some((pid, parent, state, command))
    })
    .collect()
}

/// The keeper of a worker's state folder.
async fn keeper_of(folder: &Path) -> i32 {
    let root = folder.join("tasks").display().to_string();
    until("a keeper", async || {
        let is = |(_, _, state, c): &&(i32, i32, String, String)| {
            state != "Z" && c.contains(" keeper --root") && c.contains(&root)
        };
        processes().iter().find(is).map(|p| p.0)
    })
    .await
}

fn kill(pid: i32, signal: &str) {
    let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_mean_nothing_end_nobody_and_tasks_end_as_a_shell_says() {
    let base = Base::new();
    let coordinator = base.coordinator();
    let worker = base.worker("w", &base.url(), &["--slots", "2", "--no-browser"]);
    base.connected("w").await;
    let keeper = keeper_of(&base.dir.path().join("w")).await;
    for signal in ["HUP", "USR1", "USR2"] {
        coordinator.signal(signal);
        worker.signal(signal);
        kill(keeper, signal);
    }
    sleep(Duration::from_millis(500)).await;
    let submit = |more: &[&str]| {
        let url = base.url();
        let args = [&["submit", "--coordinator", &url, "--wait", "--max-retries", "0"], more];
        outlast(&args.concat()).output().unwrap()
    };
    for (line, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ] {
        let output = submit(&["--shell", line]);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", stderr(&output));
    }
    let output = submit(&["--id", "killed", "--shell", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
    let url = base.url();
    let result = outlast(&["task", "result", "killed", "--coordinator", &url]).output().unwrap();
    assert_eq!(result.status.code(), Some(137));
    assert_eq!(keeper_of(&base.dir.path().join("w")).await, keeper);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_more_descriptors_than_it_was_given_and_its_tasks_have_what_it_was_given() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let state = base.dir.path().join("w");
    let line = format!(
        "ulimit -Sn 100; exec {} worker --name w --slots 150 --no-browser --coordinator {} \
         --state-dir {} 2>{}.log",
        env!("CARGO_BIN_EXE_outlast"),
        base.url(),
        state.display(),
        state.display()
    );
    let mut shell_line = Command::new("bash");
    shell_line.args(["-c", &line]).env("OUTLAST_CONFIG", "/dev/null").stdin(Stdio::null());
    let _worker = Process(shell_line.spawn().unwrap());
    base.connected("w").await;
    let tasks: Vec<_> = (0..150).map(|n| shell(&format!("t{n}"), "ulimit -Sn; sleep 3")).collect();
    base.client.submit_all(&tasks).await.unwrap();
    for task in &tasks {
        let result = timeout(MINUTES, base.client.wait(&task.id)).await.unwrap().unwrap();
        let got = (result.state.as_str(), result.stdout.trim(), result.attempt);
        assert_eq!(got, ("succeeded", "100", 1), "{}", result.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shutdown_of_a_machine_ends_runs_elsewhere() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let going = base.worker("going", &base.url(), &["--slots", "3", "--no-browser"]);
    base.connected("going").await;
    let started = base.dir.path().join("started");
    let line = |id: &str, line: &str| {
        let file = started.display();
        shell(id, &format!("echo $$ >>{file}; [ $OUTLAST_WORKER_ID = stays ] && exit 0; {line}"))
    };
    let tasks = [
        line("plain", "sleep 100"),
        line("program", "exec sleep 100"),
        line("tidy", "trap 'sleep 0.3; exit 1' TERM; while :; do sleep 0.1; done"),
    ];
    base.client.submit_all(&tasks).await.unwrap();
    until("them to run", async || {
        let text = std::fs::read_to_string(&started).unwrap_or_default();
        (text.lines().count() == 3).then_some(())
    })
    .await;
    let _stays = base.worker("stays", &base.url(), &["--slots", "3", "--no-browser"]);
    base.connected("stays").await;
    // As a service manager does: all that belongs to the worker, in any order.
    let keeper = keeper_of(&base.dir.path().join("going")).await;
    let all = processes();
    let mut tree = vec![keeper];
    while let Some(more) = all.iter().find(|p| tree.contains(&p.1) && !tree.contains(&p.0)) {
        tree.push(more.0);
    }
    tree.reverse();
    tree.iter().for_each(|&pid| kill(pid, "TERM"));
    going.signal("TERM");
    for task in &tasks {
        let result = timeout(MINUTES, base.client.wait(&task.id)).await.unwrap().unwrap();
        let got = (result.state.as_str(), result.attempt);
        assert_eq!(got, ("succeeded", 2), "{}: {}", task.id, result.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_ever_for_a_coordinator_and_says_who_has_a_folder() {
    let base = Base::new();
    let mut coordinator = base.coordinator();
    let more = ["--no-browser", "--drain-timeout", "6s"];
    let mut worker = base.worker("w", &base.url(), &more);
    base.connected("w").await;
    let go = base.dir.path().join("go");
    let line = format!("while ! [ -e {} ]; do sleep 0.1; done; echo kept", go.display());
    base.client.submit(&shell("t", &line)).await.unwrap();
    until("it to start", async || base.client.task("t").await.ok()?.started_at).await;
    coordinator.kill();
    worker.signal("TERM");
    // Another worker on its folder reports which process uses it, and what to do.
    let state = base.dir.path().join("w").display().to_string();
    let args = ["worker", "--name", "w", "--state-dir", &state, "--no-browser"];
    let second = outlast(&args).output().unwrap();
    let (text, pid) = (stderr(&second), worker.0.id());
    assert!(!second.status.success());
    assert!(text.contains(&format!("in use by process {pid} (outlast worker) on ")), "{text}");
    assert!(text.contains("a second SIGTERM"), "{text}");
    // What runs is waited for, however long it takes.
    sleep(Duration::from_secs(8)).await;
    assert!(matches!(worker.0.try_wait(), Ok(None)));
    std::fs::write(go, "").unwrap();
    let ended = until("the worker to leave", async || worker.0.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(5));
    let log = std::fs::read_to_string(base.dir.path().join("w.log")).unwrap();
    assert!(log.contains("drained, except for 1 results: the coordinator http://"), "{log}");
    // The result is safe, and the next worker delivers it.
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &more);
    let result = timeout(MINUTES, base.client.wait("t")).await.unwrap().unwrap();
    assert_eq!((result.stdout.trim(), result.attempt), ("kept", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_disk_comes_back_under_its_name_without_crashing() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let mut worker = base.worker("w", &base.url(), &["--no-browser"]);
    base.connected("w").await;
    let line = "test $OUTLAST_ATTEMPT != 1 || exec sleep 1000";
    base.client.submit(&shell("t", line)).await.unwrap();
    until("it to start", async || base.client.task("t").await.ok()?.started_at).await;
    let state = base.dir.path().join("w");
    let keeper = keeper_of(&state).await;
    // While the former one is there, the newcomer waits.
    let state_of_new = base.dir.path().join("new").display().to_string();
    let url = base.url();
    let args = ["worker", "--name", "w", "--coordinator", &url, "--no-browser"];
    let args = [&args[..], &["--state-dir", &state_of_new]].concat();
    let mut new = Process::spawn(base.dir.path(), "new", &args);
    let log = base.dir.path().join("new.log");
    until("it to be refused", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("that is connected; this one waits until that has left").then_some(())
    })
    .await;
    // The machine is gone, with its disk.
    worker.kill();
    kill(keeper, "KILL");
    let began = Instant::now();
    let result = timeout(MINUTES, base.client.wait("t")).await.unwrap().unwrap();
    // Ten minutes is the reconnect window.
    assert!(began.elapsed() < MINUTES);
    assert_eq!((result.state.as_str(), result.attempt), ("succeeded", 2), "{}", result.message);
    assert!(matches!(new.0.try_wait(), Ok(None)), "it never ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_a_former_machine_name_are_not_left_behind_in_silence() {
    let base = Base::new();
    let mut coordinator = base.coordinator();
    let home = base.dir.path().join("home");
    let url = base.url();
    let start = |name: Option<&str>, log: &str| {
        let mut command = outlast(&["worker", "--no-browser", "--coordinator", &url]);
        command.args(name.map(|name| ["--name", name]).into_iter().flatten());
        command.env("XDG_STATE_HOME", &home).env_remove("OUTLAST_WORKER_NAME");
        command.env_remove("OUTLAST_STATE_DIR");
        let log = std::fs::File::create(base.dir.path().join(log)).unwrap();
        Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    };
    let mut former = start(Some("former"), "former.log");
    base.connected("former").await;
    let go = base.dir.path().join("go");
    let line = format!("while ! [ -e {} ]; do sleep 0.1; done", go.display());
    base.client.submit(&shell("t", &line)).await.unwrap();
    until("it to start", async || base.client.task("t").await.ok()?.started_at).await;
    coordinator.kill();
    std::fs::write(go, "").unwrap();
    sleep(Duration::from_secs(3)).await;
    former.signal("TERM");
    sleep(Duration::from_millis(300)).await;
    former.signal("TERM");
    until("it to end", async || former.0.try_wait().unwrap()).await;
    let _now = start(None, "now.log");
    let log = base.dir.path().join("now.log");
    until("a word of what is left", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("1 results of worker former were never delivered").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_containers_first_process_a_worker_leaves_no_zombies() {
    let possible = Command::new("unshare").args(["-pf", "--mount-proc", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no process namespace can be made here");
        return;
    }
    let base = Base::new();
    let _coordinator = base.coordinator();
    let state = base.dir.path().join("w");
    let log = std::fs::File::create(base.dir.path().join("w.log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-pf", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_outlast")]);
    command.args(["worker", "--name", "w", "--no-browser", "--coordinator", &base.url()]);
    command.arg("--state-dir").arg(&state).env("OUTLAST_CONFIG", "/dev/null").stderr(log);
    let unshare = Process(command.stdin(Stdio::null()).spawn().unwrap());
    base.connected("w").await;
    let keeper = keeper_of(&state).await;
    let first = processes().iter().find(|p| p.1 == unshare.0.id() as i32).unwrap().0;
    let line = "test $OUTLAST_ATTEMPT != 1 || { (setsid sleep 500 &) ; (setsid sleep 501 &) ; sleep 502; }";
    base.client.submit(&shell("t", line)).await.unwrap();
    let below = |parent: i32| processes().into_iter().filter(move |p| p.1 == parent);
    until("its orphans to be the keeper's", async || {
        (below(keeper).filter(|p| p.3.starts_with("sleep 50")).count() >= 2).then_some(())
    })
    .await;
    // Whose children are the first process's from now on.
    kill(keeper, "KILL");
    let result = timeout(MINUTES, base.client.wait("t")).await.unwrap().unwrap();
    assert_eq!(result.state, "succeeded", "{}", result.message);
    until("no zombie to be left", async || {
        let left: Vec<_> = below(first).filter(|p| p.2 == "Z").collect();
        left.is_empty().then_some(())
    })
    .await;
    kill(first, "TERM");
    kill(first, "TERM");
}
