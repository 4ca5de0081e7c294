//! One long task with real processes: checkpointed, fetched, paused, moved to another worker,
//! backed up and restored while it runs; it ends once, with every step done once or again from a
//! checkpoint.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A process of ours, and whether it ends by SIGKILL.
struct Process(Child, bool);

impl Drop for Process {
    fn drop(&mut self) {
        // A worker that ends by itself takes its keeper with it.
        if !self.1 {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            for _ in 0..50 {
                if matches!(self.0.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rig {
    dir: tempfile::TempDir,
    url: String,
    at: String,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let at = outlast_chaos::free_address().unwrap().to_string();
        Rig { dir, url: format!("http://{at}"), at }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
        command.env("OUTLAST_NO_KEYS", "1");
        command.env("OUTLAST_COORDINATOR", &self.url);
        command
    }
    fn spawn(&self, name: &str, args: &[&str]) -> Process {
        let path = self.at(&format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = self.command(args);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Process(child, name == "coordinator")
    }
    fn coordinator(&self, data: &str) -> Process {
        self.spawn("coordinator", &["coordinator", "--listen", &self.at, "--data-dir", data])
    }
    fn worker(&self, name: &str) -> Process {
        self.spawn(name, &["worker", "--name", name, "--slots", "1", "--state-dir", name])
    }
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    /// Runs a command that must succeed; returns its output.
    fn said(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }
    /// Waits until a command succeeds and prints something that contains this.
    fn until(&self, args: &[&str], says: &str) -> String {
        let started = Instant::now();
        loop {
            let out = self.run(args);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            if out.status.success() && text.contains(says) {
                return text;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "{args:?}: {text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

const JOB: &str = r#"
    set -e
    echo "try $OUTLAST_ATTEMPT of $OUTLAST_WORKER_ID"
    outlast task restore ckpt || { [ $? = 3 ]; mkdir ckpt; echo 0 > ckpt/n; }
    n=$(cat ckpt/n)
    while [ ! -e "$STOP" ]; do
        n=$((n+1)); echo $n > ckpt/n
        outlast task checkpoint ckpt --meta "{\"n\":$n}" > /dev/null
        outlast task progress 0.5 --data "{\"n\":$n}"
        sleep 0.3
    done
    echo $n > report.txt; outlast task artifact report.txt > /dev/null
"#;

fn number(path: &Path) -> u32 {
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn a_task_is_steered_and_survives_a_restore() {
    let rig = Rig::new();
    let coordinator = rig.coordinator("data");
    let _w1 = rig.worker("w1");
    let bin = Path::new(env!("CARGO_BIN_EXE_outlast")).parent().unwrap();
    let path = format!("PATH={}:{}", bin.display(), std::env::var("PATH").unwrap());
    let stop = format!("STOP={}", rig.at("stop").display());
    rig.until(&["workers"], "connected");
    let submit = ["submit", "--id", "t", "--env", &path, "--env", &stop, "--keep-checkpoints", "2"];
    rig.said(&[&submit[..], &["--shell", JOB]].concat());
    // It reports progress and checkpoints.
    // At the beginning of a line: dates have such parts too.
    rig.until(&["task", "checkpoints", "t"], "\n1-3 ");
    assert!(rig.said(&["tasks"]).contains("50%"));
    assert!(rig.said(&["task", "state", "t"]).contains("progress 50.0%\nn="));
    let shown = rig.said(&["task", "show", "t"]);
    assert!(shown.contains("; 2 of "), "{shown}");
    rig.said(&["task", "fetch", "t", "-o", "got"]);
    let fetched = number(&rig.at("got/n"));
    assert!(fetched >= 3);
    assert_eq!(rig.run(&["task", "fetch", "t", "-o", "got"]).status.code(), Some(2), "is there");
    let gone = rig.run(&["task", "fetch", "t", "--checkpoint", "1-1", "-o", "old"]);
    assert_eq!(gone.status.code(), Some(3));
    // It is paused where it is, and goes on.
    rig.said(&["task", "pause", "t"]);
    rig.until(&["task", "explain", "t"], "paused\n");
    assert!(rig.said(&["tasks"]).contains("assigned, paused"));
    rig.said(&["task", "resume", "t"]);
    rig.until(&["task", "explain", "t"], "goes on\n");
    // It goes on at another worker.
    let _w2 = rig.worker("w2");
    rig.until(&["workers"], "w2    connected");
    rig.said(&["task", "move", "t", "--to", "w2"]);
    rig.until(&["task", "checkpoints", "t"], "\n2-2 ");
    let story = rig.said(&["task", "explain", "t"]);
    assert!(story.contains("until a person moved it (moved); it had a checkpoint 1-"), "{story}");
    assert!(story.contains("now: attempt 2 runs on w2, going on from checkpoint 1-"), "{story}");
    // Each attempt's log is where it ran.
    let [first, second] = ["1", "2"].map(|n| rig.said(&["task", "logs", "t", "--attempt", n]));
    assert!(first.starts_with("try 1 of w1\n"), "{first}");
    assert!(second.starts_with("try 2 of w2\n"), "{second}");
    assert_eq!(rig.run(&["task", "logs", "t", "--attempt", "9"]).status.code(), Some(3));
    // The coordinator is lost with its disk, and comes back from a backup.
    rig.said(&["backup", "copy", "--data-dir", "data"]);
    drop(coordinator);
    std::fs::remove_dir_all(rig.at("data")).unwrap();
    rig.said(&["restore", "copy", "--data-dir", "new"]);
    let _coordinator = rig.coordinator("new");
    rig.until(
        &["task", "explain", "t"],
        "now: attempt 1002 runs on w2, going on from checkpoint 2-",
    );
    rig.until(&["task", "checkpoints", "t"], "\n1002-2 ");
    std::fs::write(rig.at("stop"), "").unwrap();
    assert!(rig.said(&["task", "result", "--wait", "t"]).contains("succeeded"));
    // It may come after the result, which goes first.
    rig.until(&["task", "artifacts", "t"], "report.txt");
    rig.said(&["task", "fetch", "t", "--artifact", "report.txt", "-o", "report.txt"]);
    assert!(number(&rig.at("report.txt")) > fetched);
    let history = rig.said(&["--json", "task", "history", "t"]);
    assert_eq!(history.matches("\"event\":\"succeeded\"").count(), 1, "{history}");
    // A worker that is drained takes nothing.
    rig.said(&["workers", "drain", "w1", "w2"]);
    rig.said(&["submit", "--id", "u", "--", "true"]);
    rig.until(&["task", "explain", "u"], "all workers are drained");
    rig.said(&["workers", "undrain", "w1"]);
    assert!(rig.said(&["task", "result", "--wait", "u"]).contains("succeeded"));
}
