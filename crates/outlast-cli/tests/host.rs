//! Protection of a worker against other users of its machine and against tasks, with real processes.
//! Most tests need a second user: they are skipped, with a note, unless they run as root.

mod common;

use common::{Base, Process};
use outlast::Client;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const O: &str = env!("CARGO_BIN_EXE_outlast");
const NOBODY: u32 = 65534;

/// Returns true if a second user is available.
fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if !root {
        eprintln!("skipped: this needs a second user, and only root has one");
    }
    root
}

fn outlast(base: &Base, key: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(O);
    command.args(args).current_dir(base.dir.path()).stdin(Stdio::null());
    command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_COORDINATOR", base.url());
    command.env_remove("OUTLAST_API_KEY").env_remove("OUTLAST_API_KEY_FILE");
    if let Some(key) = key {
        command.env("OUTLAST_API_KEY", key);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes a key of the coordinator, and a client that has it.
fn key(base: &mut Base, role: &str) -> String {
    let data = base.dir.path().join("data").display().to_string();
    let out = outlast(base, None, &["keys", "add", "--data-dir", &data, "--role", role, role]);
    assert!(out.status.success(), "{out:?}");
    let key = text(&out.stdout).trim().to_owned();
    if role == "operate" {
        let client = Client::builder(&base.url()).api_key(Some(key.clone()));
        base.client = client.patience(Duration::from_secs(60)).build().unwrap();
    }
    key
}

/// Standard output of a task that succeeds.
fn run(base: &Base, key: Option<&str>, script: &str) -> String {
    let out = outlast(base, key, &["submit", "--wait", "--shell", script]);
    assert!(out.status.success(), "{script}: {out:?}");
    text(&out.stdout)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// A worker that runs as nobody, started by a shell that runs `first`.
fn as_nobody(base: &Base, name: &str, key: &str, first: &str, args: &str) -> Process {
    let dir = base.dir.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    let state = dir.join(name);
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new("/bin/sh");
    let (state, url) = (state.display(), base.url());
    command.arg("-c").arg(format!(
        "umask 022; {first} exec {O} worker --name {name} --coordinator {url} --state-dir {state} \
         --no-browser --slots 4 {args}"
    ));
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
    command.env("OUTLAST_CONFIG", "/dev/null");
    if !key.is_empty() {
        command.env("OUTLAST_API_KEY", key);
    }
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process(command.spawn().unwrap())
}

/// Searches for a word in the arguments and environments of all other processes, as a process of the
/// same user. The word is written so that the script does not find itself.
fn look(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!(
        "for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do \
         tr '\\0' '\\n' <$f 2>/dev/null | grep -q '[{first}]{rest}' && echo found $f; done; true"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_learns_nothing_of_its_workers_key_and_inherits_nothing() {
    if !is_root() {
        return;
    }
    let mut base = Base::new();
    let worker_key = key(&mut base, "worker");
    let operate = key(&mut base, "operate");
    let _coordinator = base.coordinator();
    // One has its key in the environment, one among its arguments, one in a file.
    let first = "exec 9</etc/passwd;";
    let w1 = as_nobody(&base, "w1", &worker_key, first, "--label n=1");
    let w2 = as_nobody(&base, "w2", "", first, &format!("--label n=2 --api-key {worker_key}"));
    let file = base.dir.path().join("key");
    fs::write(&file, format!("{worker_key}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let args = format!("--label n=3 --api-key-file {}", file.display());
    let w3 = as_nobody(&base, "w3", "", first, &args);
    // Something to find, as proof that the way to look for it is one.
    let decoy = Command::new("/bin/sleep")
        .arg("600")
        .env_clear()
        .env("OUTLAST_API_KEY", "decoy-key")
        .uid(NOBODY)
        .gid(NOBODY)
        .spawn()
        .unwrap();
    let _decoy = Process(decoy);
    for (name, worker) in [("w1", &w1), ("w2", &w2), ("w3", &w3)] {
        base.connected(name).await;
        let n = &name[1..];
        let on = |script: &str| {
            let label = format!("n={n}");
            let args = ["submit", "--wait", "--requires", &label, "--shell", script];
            let out = outlast(&base, Some(&operate), &args);
            assert!(out.status.success(), "{script}: {out:?}");
            text(&out.stdout)
        };
        assert!(on(&look("decoy-key")).contains("found"), "{name}");
        let secret = worker_key.rsplit('_').next().unwrap();
        assert_eq!(on(&look(secret)), "", "{name}");
        // Neither memory nor descriptors of worker and keeper are to be had.
        let agent = worker.0.id();
        for pid in [agent.to_string(), "$PPID".into()] {
            let script = format!(
                "id -u; for f in maps environ mem; do head -c 1 /proc/{pid}/$f && echo read $f; \
                 done; ls /proc/{pid}/fd && echo listed; true"
            );
            assert_eq!(on(&script), "65534\n", "{name} {pid}");
        }
        // What its shell had open does not get through, to the keeper either.
        assert_eq!(on("readlink /proc/self/fd/9; umask; true"), "0022\n", "{name}");
        let keeper: u32 = on("echo $PPID").trim().parse().unwrap();
        let open = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().flatten();
        let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        assert!(!open.iter().any(|file| file.ends_with("passwd")), "{name}: {open:?}");
        // And all that it keeps is for its own user.
        let state = base.dir.path().join(name);
        let mut find = Command::new("find");
        let found = find.arg(&state).args(["!", "-type", "l", "-perm", "/077"]).output().unwrap();
        assert_eq!(text(&found.stdout), "", "{name}");
    }
    // As the tasks of nobody's own user see it: files of theirs have their mask.
    let out = base.dir.path().join("w1").join("made");
    let script = format!("echo x > {0}; mkdir {0}.d; stat -c %a {0} {0}.d", out.display());
    let label = ["submit", "--wait", "--requires", "n=1", "--shell", &script];
    assert_eq!(text(&outlast(&base, Some(&operate), &label).stdout), "644\n755\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_neither_read_nor_lock_what_a_worker_keeps() {
    if !is_root() {
        return;
    }
    let base = Base::new();
    fs::set_permissions(base.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let state = base.dir.path().join("w");
    let nobody = |script: String| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).uid(NOBODY).gid(NOBODY).current_dir("/");
        text(&command.output().unwrap().stdout)
    };
    let attack = |which: &str| {
        let (w, data) = (state.display(), base.dir.path().join("data"));
        nobody(format!(
            "ls {w} {} && echo listed; cat {w}/tasks/logs/*/*.out; \
             for f in {w}/tasks/lock {w}/worker.db.lock {}/coordinator.db.lock; do \
             flock -n $f true && echo locked; done; echo {which}",
            data.display(),
            data.display()
        ))
    };
    let start = || {
        let coordinator = base.coordinator();
        (base.worker("w", &base.url(), &["--no-browser"]), coordinator)
    };
    let processes = start();
    base.connected("w").await;
    assert_eq!(run(&base, None, "echo a secret"), "a secret\n");
    assert_eq!(attack("new"), "new\n");
    // As a former version left it: open to all.
    drop(processes);
    let open = "chmod -R a+rX w data";
    let opened = Command::new("/bin/sh").args(["-c", open]).current_dir(base.dir.path()).status();
    assert!(opened.unwrap().success());
    let exposed = attack("open");
    assert!(exposed.contains("listed") && exposed.contains("a secret"), "{exposed}");
    let _processes = start();
    base.connected("w").await;
    assert_eq!(run(&base, None, "echo another"), "another\n");
    assert_eq!(attack("closed"), "closed\n");
    for name in ["w", "coordinator"] {
        let log = fs::read_to_string(base.dir.path().join(format!("{name}.log"))).unwrap();
        assert!(log.contains("other users could look into it (mode 755); now 700"), "{log}");
    }
    assert_eq!([mode(&state), mode(&base.dir.path().join("data"))], [0o700; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_speaks_for_itself_only() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &["--no-browser", "--slots", "2"]);
    base.connected("w").await;
    let wait = "while [ ! -e stop ]; do sleep 0.1; done";
    let out = outlast(&base, None, &["submit", "--id", "victim", "--shell", wait]);
    assert!(out.status.success(), "{out:?}");
    for _ in 0..600 {
        let task = text(&outlast(&base, None, &["task", "show", "victim", "--json"]).stdout);
        if task.contains("\"started_at\":\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let script = format!(
        "{O} task progress 0.5 --message mine && echo good
         export OUTLAST_TASK_ID=victim OUTLAST_ATTEMPT=1
         {O} task progress 0.9 --message forged; echo $?
         echo forged >f; {O} task checkpoint f; echo $?
         unset OUTLAST_TASK_TOKEN
         {O} task progress 0.9 --message forged; echo $?"
    );
    let out = outlast(&base, None, &["submit", "--id", "bad", "--wait", "--shell", &script]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(text(&out.stdout), "good\n4\n4\n4\n");
    let said = text(&out.stderr);
    assert!(said.contains("is not that of attempt 1 of task victim"), "{said}");
    assert!(said.contains("Authorization: Bearer $OUTLAST_TASK_TOKEN"), "{said}");
    let shown = text(&outlast(&base, None, &["task", "show", "victim", "--json"]).stdout);
    assert!(!shown.contains("forged"), "{shown}");
    let kept = text(&outlast(&base, None, &["task", "checkpoints", "victim", "--json"]).stdout);
    assert!(!kept.contains("\"id\""), "{kept}");
    let mine = text(&outlast(&base, None, &["task", "show", "bad", "--json"]).stdout);
    assert!(mine.contains("mine"), "{mine}");
}
