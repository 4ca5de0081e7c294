//! `outlast worker --run-as USER` with real processes: what tasks of another user may do, and what they
//! may not. It needs root, and a user `nobody`: else these tests are skipped, and say so.

mod common;

use common::{Base, Process};
use outlast_spawn::{User, effective_uid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const O: &str = env!("CARGO_BIN_EXE_outlast");
const PATIENCE: Duration = Duration::from_secs(120);

/// The user of the tasks, if this process may start some as that.
fn nobody() -> Option<User> {
    let user = User::find("nobody").ok().filter(|_| effective_uid() == 0);
    if user.is_none() {
        eprintln!("skipped: only root can run tasks as another user");
    }
    user
}

/// A coordinator and a worker whose tasks run as nobody.
struct Rig {
    base: Base,
    _coordinator: Process,
    worker: Option<Process>,
}

impl Rig {
    async fn new() -> Rig {
        let base = Base::new();
        fs::set_permissions(base.dir.path(), Permissions::from_mode(0o711)).unwrap();
        let coordinator = base.coordinator();
        let mut rig = Rig { base, _coordinator: coordinator, worker: None };
        rig.start().await;
        rig
    }

    async fn start(&mut self) {
        let args = ["--no-browser", "--slots", "4", "--run-as", "nobody"];
        self.worker = Some(self.base.worker("w", &self.base.url(), &args));
        self.base.connected("w").await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.dir.path().join(name)
    }

    /// A file that only root may read, in a folder that others may go through.
    fn secret(&self) -> PathBuf {
        let secret = self.path("secret");
        fs::write(&secret, "a secret").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        secret
    }

    fn outlast(&self, args: &[&str]) -> Output {
        let mut command = Command::new(O);
        command.args(args).current_dir(self.base.dir.path()).stdin(Stdio::null());
        command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_COORDINATOR", self.base.url());
        command.output().unwrap()
    }

    /// Submits a task and waits for it: its exit code, and what it said.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.outlast(&[&["submit", "--wait"], args].concat());
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    /// Standard output of a shell's task that succeeds.
    fn shell(&self, script: &str) -> String {
        let (code, out, err) = self.run(&["--shell", script]);
        assert_eq!(code, 0, "{script}: {out}{err}{}", self.log());
        out
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("w.log")).unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// The exit code of a worker that should end by itself, and what it said.
fn ends(mut command: Command, log: &Path) -> (Option<i32>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log).unwrap());
    let mut process = Process(command.spawn().unwrap());
    let begun = Instant::now();
    let code = loop {
        match process.0.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if begun.elapsed() > PATIENCE => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    (code, fs::read_to_string(log).unwrap())
}

/// Waits until a condition holds.
fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_their_users_rights_and_no_others() {
    let Some(nobody) = nobody() else { return };
    let rig = Rig::new().await;
    let secret = rig.secret();
    let groups: Vec<_> = nobody.groups.iter().map(u32::to_string).collect();
    let said = rig.shell(
        "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL; grep CapEff /proc/self/status; \
         env | grep -c '^XDG_'; true",
    );
    let wanted = format!(
        "{}\n{}\n{}\n{} nobody nobody {}\nCapEff:\t0000000000000000\n0\n",
        nobody.uid,
        nobody.gid,
        groups.join(" "),
        nobody.home,
        nobody.shell
    );
    assert_eq!(said, wanted);
    // Its folder is its own, and so are its streams.
    let script = "echo 1 >f && mkdir d && echo 2 >d/f && cat f d/f; stat -c %U . f; \
                  echo to stdout >/dev/stdout; echo to stderr >/dev/stderr";
    let (code, out, err) = rig.run(&["--shell", script]);
    assert_eq!((code, &*out), (0, "1\n2\nnobody\nnobody\nto stdout\n"), "{err}");
    assert!(err.contains("to stderr"), "{err}");
    // What is its worker's is not. The paths are right: root finds what is there.
    assert!(
        rig.outlast(&["submit", "--id", "other", "--wait", "--", "echo", "hidden"])
            .status
            .success()
    );
    let state = rig.path("w");
    let logs = fs::read_dir(state.join("tasks/logs")).unwrap().flatten();
    let log = logs.map(|e| e.path().join("other.1.out")).find(|path| path.exists()).unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "hidden\n");
    let files = ["worker.db", "task-key", "tasks/lock", "tasks/id", "tasks/keeper/log"];
    let files = files.map(|name| state.join(name)).into_iter().chain([log, secret.clone()]);
    let files: Vec<_> =
        files.inspect(|file| assert!(file.exists(), "{}", file.display())).collect();
    let agent = rig.worker.as_ref().unwrap().0.id();
    let script = files.iter().map(|file| format!("cat {0}; echo x >>{0}; ", file.display()));
    let script = script.collect::<String>()
        + &format!(
            "for d in {0} {0}/tasks {0}/tasks/work {0}/tasks/logs {0}/blobs; do ls $d; touch $d/x; done; \
             for p in {agent} $PPID; do kill -KILL $p && echo killed; cat /proc/$p/environ; done; true",
            state.display()
        );
    let (code, out, err) = rig.run(&["--shell", &script]);
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(!state.join("x").exists());
    // What it cannot get at it cannot run, nor be run in; what comes later in the path it can.
    let closed = rig.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("id"), "#!/bin/sh\necho wrong").unwrap();
    fs::set_permissions(closed.join("id"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let path = format!("PATH={}:/usr/bin:/bin", closed.display());
    let (_, out, err) = rig.run(&["--env", &path, "--", "id", "-un"]);
    assert_eq!(out, "nobody\n", "{err}");
    let program = closed.join("id").display().to_string();
    let (code, _, err) = rig.run(&["--", &program]);
    assert!(code != 0 && err.contains("permission denied for user nobody"), "{code} {err}");
    let (code, _, err) = rig.run(&["--cwd", &closed.display().to_string(), "--", "id"]);
    assert!(code != 0 && err.contains("may not be entered by user nobody"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_and_written_with_the_tasks_rights() {
    let Some(nobody) = nobody() else { return };
    let rig = Rig::new().await;
    let secret = rig.secret();
    let closed = rig.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("open"), "behind a closed door").unwrap();
    fs::set_permissions(closed.join("open"), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let key = rig.path("w/task-key");
    // What is the task's comes back, and is the task's again.
    let script = format!(
        "set -e; echo one >f; mkdir d; echo two >d/f; ln -s {0} d/link
         {O} task checkpoint d; {O} task artifact f --name result
         {O} task restore back; cat back/f; readlink back/link; stat -c '%U %a' back back/f
         {O} task checkpoint f; {O} task restore sub/deep/f; cat sub/deep/f; stat -c '%U %a' sub sub/deep/f",
        secret.display()
    );
    let said = rig.shell(&script);
    let wanted = format!(
        "1-1\nresult\ntwo\n{}\nnobody 755\nnobody 644\n1-2\none\nnobody 755\nnobody 644\n",
        secret.display()
    );
    assert_eq!(said.replace("1-3\n", "1-2\n"), wanted);
    // What is not is refused, whatever link leads there.
    let shadow = PathBuf::from("/etc/shadow");
    for target in [&secret, &key, &closed.join("open"), &shadow] {
        assert!(fs::read(target).is_ok(), "{}", target.display());
        let script = format!(
            "ln -s {} link; for what in checkpoint artifact; do \
             {O} task $what link && echo taken; {O} task $what \"$(readlink link)\" && echo taken; done; \
             true",
            target.display()
        );
        let (code, out, err) = rig.run(&["--shell", &script]);
        assert_eq!((code, &*out), (0, ""), "{err}");
        assert_eq!(err.matches("Permission denied").count(), 4, "{err}");
        assert_eq!(err.matches("with the rights of user nobody").count(), 4, "{err}");
    }
    // A folder that holds something of others, likewise.
    let mixed = rig.path("mixed");
    fs::create_dir(&mixed).unwrap();
    fs::copy(&secret, mixed.join("secret")).unwrap();
    fs::set_permissions(&mixed, Permissions::from_mode(0o755)).unwrap();
    let (code, out, err) =
        rig.run(&["--shell", &format!("{O} task checkpoint {}", mixed.display())]);
    assert!(
        code != 0 && out.is_empty() && err.contains("secret: Permission denied"),
        "{out} {err}"
    );
    // Nothing is written where the task may not write, whatever link leads there.
    symlink(&closed, rig.path("way")).unwrap();
    let script = format!(
        "echo forged >f; {O} task checkpoint f; ln -s {0} link; ln -s {1} file
         for to in link/new {0}/open {2}/way/new /etc/outlast-forged {3}; do \
         {O} task restore $to --force && echo written; done
         {O} task restore file; cat file
         head -c 3000000 /dev/zero >large; {O} task checkpoint large; {O} task restore /etc/outlast-forged",
        closed.display(),
        secret.display(),
        rig.base.dir.path().display(),
        key.display()
    );
    let (code, out, err) = rig.run(&["--shell", &script]);
    // A link itself is replaced: its folder is the task's.
    assert_eq!((code, &*out), (2, "1-1\nforged\n1-2\n"), "{err}");
    assert_eq!(err.matches("Permission denied").count(), 6, "{err}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret");
    assert_eq!(fs::read_to_string(closed.join("open")).unwrap(), "behind a closed door");
    assert!(!closed.join("new").exists() && !Path::new("/etc/outlast-forged").exists());
    // What the worker has of itself cannot be named by its process either.
    let agent = rig.worker.as_ref().unwrap().0.id();
    let script = format!(
        "for f in /proc/{agent}/environ /proc/{agent}/cwd/secret /proc/{agent}/fd; do \
         {O} task artifact $f --name x && echo taken; done; true"
    );
    assert_eq!(rig.shell(&script), "");
    // No process is left over from all this.
    let left = |state: &dyn Fn(&str) -> bool| {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let children = all.filter(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
            let parent = rest.split_whitespace().nth(1).and_then(|p| p.parse().ok());
            parent == Some(agent)
                && state(&rest)
                && entry.metadata().is_ok_and(|meta| meta.uid() == nobody.uid)
        });
        children.count()
    };
    until("the processes for files end", || left(&|_| true) == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_over_a_restart_of_their_worker() {
    let Some(_) = nobody() else { return };
    let mut rig = Rig::new().await;
    let script = format!(
        "echo before >f; {O} task checkpoint f; echo ready >ready
         while [ ! -e go ]; do sleep 0.1; done
         {O} task restore back && cat back; echo after >f; {O} task checkpoint f
         {O} task artifact f; echo again >/dev/stdout; id -un"
    );
    let out = rig.outlast(&["submit", "--id", "long", "--shell", &script]);
    assert!(out.status.success(), "{out:?}");
    let work = rig.path("w/tasks/work");
    let folder = || {
        let mut all = fs::read_dir(&work).ok()?.flatten().map(|entry| entry.path());
        all.find(|path| path.join("ready").exists())
    };
    until("the task is ready", || folder().is_some());
    let folder = folder().unwrap();
    rig.worker.take().unwrap().kill();
    // A worker whose tasks run as somebody else cannot take these over.
    let mut other = Command::new(O);
    let state = rig.path("w");
    other.args(["worker", "--name", "w", "--no-browser", "--state-dir"]).arg(&state);
    other.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_COORDINATOR", rig.base.url());
    let (code, said) = ends(other, &rig.path("other.log"));
    assert!(code == Some(1) && said.contains("still runs 1 tasks as user number"), "{said}");
    // And it has left them their way.
    assert_eq!([mode(&state), mode(&state.join("tasks"))], [0o711, 0o711]);
    rig.start().await;
    fs::write(folder.join("go"), "").unwrap();
    let out = rig.outlast(&["task", "result", "long", "--wait"]);
    let out = if out.status.success() { out } else { panic!("{out:?} {}", rig.log()) };
    drop(out);
    let logs = text(&rig.outlast(&["task", "logs", "long"]).stdout);
    assert_eq!(logs, "1-1\nbefore\n1-2\nf\nagain\nnobody\n");
    // Another attempt, which begins in a folder of its own, has the checkpoint too.
    let script = format!(
        "{O} task restore f && cat f && exit 0; echo kept >f; {O} task checkpoint f; exit 1"
    );
    let (code, out, err) = rig.run(&["--max-retries", "1", "--retry-failures", "--shell", &script]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.ends_with("kept\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_another_user_are_stopped_as_any() {
    let Some(nobody) = nobody() else { return };
    let rig = Rig::new().await;
    let stubborn = |name: &str| {
        format!("trap '' TERM; (trap '' TERM; setsid sleep 987{name}) & while :; do sleep 1; done")
    };
    let alive = |name: &str| {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let sought = format!("sleep\0987{name}\0");
        all.filter(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|l| l == sought.as_bytes())
        })
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == nobody.uid))
        .count()
    };
    let args = ["submit", "--id", "c", "--kill-grace", "1s", "--shell", &stubborn("11")];
    assert!(rig.outlast(&args).status.success());
    until("the task runs", || alive("11") == 1);
    assert!(rig.outlast(&["task", "cancel", "c"]).status.success());
    until("the cancelled task is gone", || alive("11") == 0);
    let limits = ["--timeout", "2s", "--kill-grace", "1s", "--shell", &stubborn("12")];
    let (code, _, err) = rig.run(&limits);
    assert!(code != 0 && err.contains("time"), "{code} {err}");
    until("the timed out task is gone", || alive("12") == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_hold_is_refused_at_the_start() {
    let Some(nobody) = nobody() else { return };
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("w");
    let file = dir.path().join("config.toml");
    fs::write(&file, "[worker]\nrun_as = \"root\"").unwrap();
    let start = |run_as: &str, who: u32| {
        let mut command = Command::new(O);
        command.args(["worker", "--no-browser", "--coordinator", "http://127.0.0.1:9"]);
        command.arg("--state-dir").arg(&state).current_dir("/");
        match run_as {
            "" => command.env("OUTLAST_CONFIG", &file),
            _ => command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_RUN_AS", run_as),
        };
        command.env_remove("OUTLAST_API_KEY");
        if who != 0 {
            command.uid(who).gid(who);
        }
        ends(command, &dir.path().join("log"))
    };
    for (run_as, who, says) in [
        ("nobody", 1, "only root can run tasks as another user"),
        ("nobody", nobody.uid, "this worker already runs as that user"),
        ("root", 0, "that is root"),
        ("0", 0, "that is root"),
        ("", 0, "that is root"),
        ("no-such-user", 0, "there is no user"),
    ] {
        let (code, said) = start(run_as, who);
        assert_eq!(code, Some(2), "{run_as} {who}: {said}");
        assert!(said.contains(says), "{run_as} {who}: {said}");
        assert!(!state.exists(), "{run_as} {who}");
    }
    // The way to the folders of tasks is closed to them, or theirs to change.
    for (mode, owner, why) in [
        (0o700, 0, " (mode 700): Permission denied"),
        (0o777, 0, "could put something else in the place"),
        (0o755, nobody.uid, "could put something else in the place"),
    ] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(owner), None).unwrap();
        let (code, said) = start("nobody", 0);
        let place = dir.path().display().to_string();
        assert!(code == Some(1) && said.contains(why) && said.contains(&place), "{code:?} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_is_open_no_further_than_tasks_need() {
    let Some(_) = nobody() else { return };
    let mut rig = Rig::new().await;
    rig.shell("echo mine >f");
    let open = |rig: &Rig| {
        let mut find = Command::new("find");
        let links = ["!", "-type", "l"];
        let found = find.arg(rig.path("w")).args(links).args(["-perm", "/077"]).output().unwrap();
        let mut lines: Vec<_> = text(&found.stdout).lines().map(ToOwned::to_owned).collect();
        lines.sort();
        let start = format!("{}/w", rig.base.dir.path().display());
        lines.iter().map(|line| line.replacen(&start, "w", 1)).collect::<Vec<_>>()
    };
    let passable = ["w", "w/tasks", "w/tasks/results", "w/tasks/work"];
    let ours = |open: Vec<String>| {
        let folders = open.into_iter().filter(|line| !line.starts_with("w/tasks/work/"));
        folders.collect::<Vec<_>>()
    };
    assert_eq!(ours(open(&rig)), passable);
    assert_eq!(mode(&rig.path("w")), 0o711);
    // As a former version left it, without --run-as: open to all.
    drop(rig.worker.take());
    let old = rig.path("w/tasks/work/old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("f"), "of root").unwrap();
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(rig.path("w")).status();
    assert!(opened.unwrap().success());
    rig.start().await;
    assert_eq!(rig.shell(&format!("cat {}/f; ls {}; true", old.display(), old.display())), "");
    assert_eq!([mode(&rig.path("w")), mode(&old)], [0o711, 0o700]);
    for file in ["worker.db", "task-key", "blobs", "tmp", "tasks/logs", "tasks/id", "tasks/keeper"]
    {
        assert_eq!(mode(&rig.path("w").join(file)) & 0o077, 0, "{file}");
    }
    // Without it again, nobody gets through.
    drop(rig.worker.take());
    rig.worker = Some(rig.base.worker("w", &rig.base.url(), &["--no-browser"]));
    rig.base.connected("w").await;
    assert_eq!(rig.shell("id -u"), "0\n");
    assert_eq!([mode(&rig.path("w")), mode(&rig.path("w/tasks"))], [0o700, 0o700]);
}
