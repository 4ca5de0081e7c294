//! Workers whose disk is full, or read-only, beside one that is well. Needs to mount; skips where
//! that is not allowed.

mod common;

use common::{Base, Process};
use outlast::api::Worker;
use outlast::{NewTask, Run, TaskSpec};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A mounted file system, gone with the test.
struct Mount(PathBuf);

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Mount {
    /// A file system in memory of so many bytes.
    fn memory(at: PathBuf, size: &str) -> Option<Mount> {
        std::fs::create_dir_all(&at).unwrap();
        let (size, place) = (format!("size={size}"), at.display().to_string());
        let mounted = succeeds("mount", &["-t", "tmpfs", "-o", &size, "outlast-test", &place]);
        if !mounted {
            eprintln!("skipped: a file system of its own cannot be mounted here");
        }
        mounted.then_some(Mount(at))
    }
    /// Takes all the room that is left.
    fn fill(&self) {
        let file = std::fs::File::create(self.0.join("fill")).unwrap();
        let mut size = 1 << 20;
        while size >= 512 {
            let block = vec![1u8; size];
            while std::io::Write::write_all(&mut &file, &block).is_ok() {}
            size /= 2;
        }
    }
    fn free(&self) {
        std::fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let place = self.0.display().to_string();
        let _ = succeeds("umount", &["-l", &place]);
    }
}

/// An ext4 file system in a file, which can turn read-only, or hang.
struct Disk(Mount);

impl Disk {
    fn new(image: &Path, at: PathBuf) -> Option<Disk> {
        std::fs::create_dir_all(&at).unwrap();
        let (file, place) = (image.display().to_string(), at.display().to_string());
        std::fs::File::create(image).and_then(|f| f.set_len(48 << 20)).unwrap();
        let options = "loop,errors=remount-ro";
        let made = succeeds("mkfs.ext4", &["-q", &file])
            && succeeds("mount", &["-t", "ext4", "-o", options, &file, &place]);
        if !made {
            eprintln!("skipped: a file system in a file cannot be mounted here");
        }
        made.then(|| Disk(Mount(at)))
    }
    fn place(&self) -> String {
        self.0.0.display().to_string()
    }
    /// Remounts read-only, as after a device error; false if the kernel has no such switch.
    fn turn_read_only(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let place = self.place();
        let line = mounts.lines().find(|l| l.split(' ').nth(1) == Some(&place)).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        let switch = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(switch, "1").is_ok()
    }
    /// Makes every write hang until the file system is thawed.
    fn freeze(&self) -> bool {
        succeeds("fsfreeze", &["-f", &self.place()])
    }
    fn thaw(&self) {
        succeeds("fsfreeze", &["-u", &self.place()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// A coordinator, a worker `a` whose state folder is `disk`, and a healthy worker `b`.
struct Rig {
    base: Base,
    _coordinator: Process,
    a: Option<Process>,
    _b: Process,
}

const SLOTS: [&str; 4] = ["--slots", "4", "--max-reconnect-delay", "1s"];

impl Rig {
    async fn new(base: Base) -> Rig {
        let _coordinator = base.coordinator();
        let a = Some(base.worker("a", &base.url(), &SLOTS));
        let _b = base.worker("b", &base.url(), &SLOTS);
        for name in ["a", "b"] {
            base.connected(name).await;
        }
        Rig { base, _coordinator, a, _b }
    }
    async fn submit(&self, ids: impl Iterator<Item = String>, line: &str) {
        let task = |id: String| NewTask { id, spec: TaskSpec::new(Run::Shell(line.to_owned())) };
        self.base.client.submit_all(&ids.map(task).collect::<Vec<_>>()).await.unwrap();
    }
    async fn succeed(&self, ids: impl Iterator<Item = String>, within: u64) {
        let all = async {
            for id in ids {
                let result = self.base.client.wait(&id).await.unwrap();
                assert_eq!(result.state, "succeeded", "{id}: {result:?}");
                let history = self.base.client.history(&id).await.unwrap();
                let ends = history.events.iter().filter(|e| e.event == "succeeded").count();
                assert_eq!(ends, 1, "{history:?}");
            }
        };
        timeout(Duration::from_secs(within), all).await.expect("tasks wait for a broken worker");
    }
    async fn worker(&self, name: &str) -> Worker {
        self.base.client.worker(name).await.unwrap()
    }
    async fn until(&self, what: &str, name: &str, is: impl Fn(&Worker) -> bool) -> Worker {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let worker = self.worker(name).await;
            if is(&worker) {
                return worker;
            }
            assert!(Instant::now() < deadline, "{what}: {worker:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    /// Runs the command line; returns its output and exit code.
    fn says(&self, args: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(["--coordinator", &self.base.url()]).args(args);
        command.env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.code())
    }
}

const FULL: &str = "cannot write its store: No space left on device";

/// Waits until so many lines are in this file.
async fn lines(file: &Path, n: usize) {
    let written = async {
        while std::fs::read_to_string(file).unwrap_or_default().lines().count() < n {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(90), written).await.expect("the tasks do not run");
}

fn ids(prefix: &str, n: u32) -> impl Iterator<Item = String> {
    (0..n).map(move |i| format!("{prefix}{i}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_do_not_wait_for_a_worker_whose_disk_is_full() {
    let base = Base::new();
    let state = base.dir.path().join("a");
    let Some(disk) = Mount::memory(state.clone(), "24m") else { return };
    let mut rig = Rig::new(base).await;
    // Some run there already when the disk fills, and end while nothing can be written.
    let begun = rig.base.dir.path().join("begun");
    let line = format!("echo >> '{}'; sleep 6; echo done", begun.display());
    rig.submit(ids("early", 8), &line).await;
    lines(&begun, 8).await;
    disk.fill();
    rig.submit(ids("t", 100), "sleep 0.1").await;
    rig.until("a says why", "a", |w| w.state == "unfit" && w.unfit.contains(FULL)).await;
    rig.succeed(ids("t", 100), 60).await;
    rig.succeed(ids("early", 8), 60).await;
    // Everybody names the cause.
    let (text, _) = rig.says(&["workers"]);
    assert!(text.contains("unfit") && text.contains(FULL), "{text}");
    let (text, _) = rig.says(&["workers", "show", "a"]);
    assert!(text.contains(FULL), "{text}");
    let (text, code) = rig.says(&["doctor"]);
    assert!(text.contains(&format!("a {FULL}")) && code == Some(1), "{text}");
    let alerts = rig.base.client.alerts(None).await.unwrap().alerts;
    let alert = alerts.iter().find(|a| a.rule == "unfit").unwrap_or_else(|| panic!("{alerts:?}"));
    assert_eq!((&*alert.worker, &*alert.severity, &*alert.state), ("a", "critical", "firing"));
    assert!(alert.message.contains(FULL), "{alert:?}");
    // What only it could run waits, and `explain` says for whom; a cancel takes effect.
    let mut only = TaskSpec::new(Run::Shell("true".into()));
    only.requires.insert("worker".into(), "a".into());
    rig.base.client.submit(&NewTask { id: "only".into(), spec: only.clone() }).await.unwrap();
    rig.base.client.submit(&NewTask { id: "gone".into(), spec: only }).await.unwrap();
    let (text, _) = rig.says(&["task", "explain", "only"]);
    assert!(text.contains(&format!("a {FULL}")), "{text}");
    rig.base.client.cancel("gone").await.unwrap();
    let gone = timeout(Duration::from_secs(60), rig.base.client.wait("gone")).await.unwrap();
    assert_eq!(gone.unwrap().state, "cancelled");
    // Room again: it is back by itself.
    disk.free();
    rig.until("a is fit again", "a", |w| w.state == "connected" && w.unfit.is_empty()).await;
    rig.succeed(ids("only", 0).chain(["only".to_owned()]), 60).await;
    let cleared = async {
        loop {
            let alerts = rig.base.client.alerts(None).await.unwrap().alerts;
            if alerts.iter().any(|a| a.rule == "unfit" && a.state == "cleared") {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), cleared).await.expect("the alert stays");
    rig.until("all results are acknowledged", "a", |w| w.unacked == 0).await;
    drop(rig.a.take());
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_full_disk_count_once_also_after_a_crash() {
    let base = Base::new();
    let state = base.dir.path().join("a");
    let Some(disk) = Mount::memory(state.clone(), "24m") else { return };
    let mut rig = Rig::new(base).await;
    let ledger = rig.base.dir.path().join("ledger").display().to_string();
    let begun = rig.base.dir.path().join("begun");
    let line =
        format!("echo >> '{}'; sleep 6; echo $OUTLAST_TASK_ID >> '{ledger}'", begun.display());
    let once = |id: String| {
        let mut spec = TaskSpec::new(Run::Shell(line.clone()));
        spec.rerun = outlast::Rerun::Never;
        NewTask { id, spec }
    };
    let tasks: Vec<NewTask> = ids("once", 24).map(once).collect();
    rig.base.client.submit_all(&tasks).await.unwrap();
    lines(&begun, 8).await;
    disk.fill();
    // More arrives, so that something must be written, and is given back.
    rig.submit(ids("more", 20), "sleep 0.1").await;
    rig.until("a says that it is unfit", "a", |w| w.state == "unfit").await;
    rig.succeed(ids("once", 24), 120).await;
    // It crashes with all that its store has missed, its keeper too, and comes back.
    let mut a = rig.a.take().unwrap();
    a.kill();
    kill_keeper(&state);
    disk.free();
    rig.a = Some(rig.base.worker("a", &rig.base.url(), &SLOTS));
    rig.until("a is back", "a", |w| w.state == "connected" && w.incarnation > 1).await;
    rig.submit(ids("after", 20), "sleep 0.1").await;
    rig.succeed(ids("after", 20).chain(ids("once", 24)).chain(ids("more", 20)), 60).await;
    rig.until("all results are acknowledged", "a", |w| w.unacked == 0 && w.held == 0).await;
    let text = std::fs::read_to_string(&ledger).unwrap();
    let mut ran: Vec<&str> = text.lines().collect();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!((text.lines().count(), ran.len()), (24, 24), "some ran twice: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_do_not_wait_for_a_worker_whose_disk_is_read_only() {
    let base = Base::new();
    let (image, state) = (base.dir.path().join("image"), base.dir.path().join("a"));
    let Some(disk) = Disk::new(&image, state) else { return };
    let rig = Rig::new(base).await;
    rig.submit(ids("before", 8), "true").await;
    rig.succeed(ids("before", 8), 60).await;
    if !disk.turn_read_only() {
        return eprintln!("skipped: this kernel cannot be asked for an error of a file system");
    }
    rig.submit(ids("t", 100), "sleep 0.1").await;
    let says = "cannot write its store: Read-only file system";
    let a = rig.until("a says why", "a", |w| w.state == "unfit" && w.unfit.contains(says)).await;
    rig.succeed(ids("t", 100), 60).await;
    let (text, code) = rig.says(&["doctor"]);
    assert!(text.contains(&format!("a {}", a.unfit)) && code == Some(1), "{text}");
    // Its process lives, and can be asked to end: the coordinator has everything.
    drop(rig);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_noticed_and_what_hangs_with_it_goes_elsewhere() {
    let base = Base::new();
    let (image, state) = (base.dir.path().join("image"), base.dir.path().join("a"));
    let Some(disk) = Disk::new(&image, state) else { return };
    let rig = Rig::new(base).await;
    rig.submit(ids("before", 8), "true").await;
    rig.succeed(ids("before", 8), 60).await;
    if !disk.freeze() {
        return eprintln!("skipped: this file system cannot be made to hang");
    }
    let task = |id: String| {
        let mut spec = TaskSpec::new(Run::Shell("sleep 0.1".into()));
        spec.reconnect_window = 5.0;
        NewTask { id, spec }
    };
    let tasks: Vec<NewTask> = ids("t", 100).map(task).collect();
    rig.base.client.submit_all(&tasks).await.unwrap();
    let a = rig.until("a says that it is unfit", "a", |w| w.state == "unfit").await;
    assert!(a.unfit.contains("cannot write its store: a write has not returned for"), "{a:?}");
    rig.succeed(ids("t", 100), 180).await;
    disk.thaw();
    rig.until("a is fit again", "a", |w| w.state == "connected" && w.unfit.is_empty()).await;
    rig.until("all results are acknowledged", "a", |w| w.unacked == 0 && w.held == 0).await;
    drop(rig);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_before_anybody_needs_it_and_so_are_lost_checkpoints() {
    let base = Base::new();
    let (state, blobs) = (base.dir.path().join("a"), base.dir.path().join("a/blobs"));
    let Some(disk) = Mount::memory(state, "24m") else { return };
    let Some(blobs) = Mount::memory(blobs, "12m") else { return };
    let rig = Rig::new(base).await;
    // Nothing is given to it, and nothing is written.
    disk.fill();
    let says = "has no room for tasks: No space left on device";
    rig.until("a says why", "a", |w| w.state == "unfit" && w.unfit.contains(says)).await;
    let (text, code) = rig.says(&["doctor"]);
    assert!(text.contains(&format!("a {says}")) && code == Some(1), "{text}");
    disk.free();
    rig.until("a is fit again", "a", |w| w.state == "connected" && w.unfit.is_empty()).await;
    // The store is well, and the folder of blobs is not: it works, and says what it cannot do.
    blobs.fill();
    let outlast = env!("CARGO_BIN_EXE_outlast");
    let line = format!(
        "head -c 3000000 /dev/urandom > f; timeout 5 '{outlast}' task checkpoint f; exit 0"
    );
    let mut spec = TaskSpec::new(Run::Shell(line));
    spec.requires.insert("worker".into(), "a".into());
    rig.base.client.submit(&NewTask { id: "c".into(), spec }).await.unwrap();
    rig.succeed(ids("c", 0).chain(["c".to_owned()]), 90).await;
    let says = "cannot keep checkpoints: No space left on device";
    rig.until("a says why", "a", |w| w.state == "connected" && w.unfit == says).await;
    rig.submit(ids("t", 20), "sleep 0.1").await;
    rig.succeed(ids("t", 20), 60).await;
    blobs.free();
    rig.until("a is fit again", "a", |w| w.unfit.is_empty()).await;
    drop(rig);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_when_the_coordinator_cannot_write() {
    let base = Base::new();
    let (image, data) = (base.dir.path().join("image"), base.dir.path().join("data"));
    let Some(disk) = Disk::new(&image, data) else { return };
    let rig = Rig::new(base).await;
    let (text, code) = rig.says(&["doctor"]);
    assert!(text.contains("All checks passed") && code == Some(0), "{text}");
    disk.0.fill();
    let (text, code) = rig.says(&["doctor"]);
    let says = "coordinator's store: the store cannot be written";
    assert!(text.contains("✗ coordinator's store") && code == Some(1), "{says}: {text}");
    disk.0.free();
    if disk.freeze() {
        let client = rig.base.client.clone();
        let task = NewTask::new(TaskSpec::new(Run::Shell("true".into())));
        let submitted = tokio::spawn(async move { client.submit(&task).await });
        let named = async {
            loop {
                let (text, _) = rig.says(&["doctor"]);
                if text.contains("a write to the store has not returned for") {
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
        };
        timeout(Duration::from_secs(90), named).await.expect("doctor says nothing of it");
        disk.thaw();
        timeout(Duration::from_secs(90), submitted).await.unwrap().unwrap().unwrap();
    }
    drop(rig);
}

fn kill_keeper(state: &Path) {
    let root = state.join("tasks").display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(" keeper ") && line.contains(&root) {
            let pid = entry.file_name().into_string().unwrap();
            succeeds("kill", &["-9", &pid]);
        }
    }
}
