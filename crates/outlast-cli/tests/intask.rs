//! The commands of a task's own script, before the real server and a host in memory.

#[path = "../../outlast-worker/tests/local/fake.rs"]
mod fake;

use fake::{Fake, start};
use outlast_worker::local::{Control, LocalServer};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Rig {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    server: LocalServer,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let server = start(dir.path(), &fake);
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Rig { dir, fake, server }
    }
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path().join("work"))
            // Of no concern to a task.
            .env("OUTLAST_CONFIG", "/no/such/file")
            .env("OUTLAST_SOCKET", self.server.path())
            .env("OUTLAST_TASK_ID", "t")
            .env("OUTLAST_ATTEMPT", "2")
            .stdin(Stdio::null());
        command
    }
    fn task(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_outlast")).arg("task").args(args).output().unwrap()
    }
    /// (exit code, stdout, stderr)
    fn said(&self, args: &[&str]) -> (i32, String, String) {
        said(self.task(args))
    }
}

fn said(out: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_checkpoints_and_goes_on() {
    let rig = Rig::new();
    let script = r#"
        set -e
        outlast task restore model && exit 9
        code=0; outlast task restore model || code=$?; [ $code = 3 ]
        echo 1 > model
        first=$(outlast task checkpoint model --meta '{"epoch": 1}')
        mkdir -p out/sub && echo deep > out/sub/x
        outlast task checkpoint out --name "step 2"
        echo 2 > model
        outlast task restore model --id "$first"
        [ "$(cat model)" = 1 ]
        outlast task restore fresh/../back
        [ "$(cat back/sub/x)" = deep ]
        code=0; outlast task restore back || code=$?; [ $code = 6 ]
        echo old > back/y
        outlast task restore back --force
        [ ! -e back/y ]
        outlast task progress 85% --message "almost" --data '{"loss": 0.5}'
        outlast task state note=hello n=3 gone=1
        outlast task state gone=null
        outlast task state
        outlast task artifact model --name best
        outlast task checkpoints
    "#;
    std::fs::create_dir(rig.dir.path().join("work/fresh")).unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_outlast")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = rig.command("sh").args(["-c", script]).env("PATH", path).output().unwrap();
    let (code, stdout, stderr) = said(out);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let expected = "c2\nprogress 85.0%\nloss=0.5\nmessage=almost\nnote=hello\nn=3\nbest\n\
                    ID  TRY  SIZE   DELIVERED  NAME\nc1  2    2 B    not yet    model\n";
    assert!(stdout.starts_with(expected), "{stdout}");
    assert!(stdout.ends_with("step 2"), "{stdout}");
    assert_eq!(rig.fake.artifacts.lock().unwrap()["best"], b"1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_and_words() {
    let rig = Rig::new();
    let is = |args: &[&str], code: i32, word: &str| {
        let (got, _, stderr) = rig.said(args);
        assert!(got == code && stderr.contains(word), "{args:?}: {got} {stderr}");
    };
    is(&["checkpoint", "nothing"], 2, "nothing: No such file");
    is(&["checkpoint", "/dev/null"], 2, "neither file nor folder");
    is(&["checkpoint", "x", "--meta", "3"], 2, "--meta is not a JSON object");
    is(&["progress", "7"], 2, "0 to 1");
    is(&["restore", "x", "--id", "c9"], 7, "no checkpoint \"c9\"");
    is(&["restore", "x", "--id", "damaged"], 8, "its data is damaged");
    is(&["restore", "x", "--id", "breaks"], 8, "its data is damaged");
    is(&["restore", "."], 2, "working directory");
    is(&["control", "--wait", "0", "--seen", "x"], 2, "--seen");
    let run = |change: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = rig.command(env!("CARGO_BIN_EXE_outlast"));
        change(command.args(["task", "state", "--no-wait"]));
        said(command.output().unwrap())
    };
    let (code, _, stderr) = run(&|c| c.env_remove("OUTLAST_SOCKET"));
    assert_eq!(code, 2);
    let expected = "outlast: not inside an Outlast task: OUTLAST_SOCKET is not set; run this from \
                    a task's script";
    assert_eq!(stderr, expected);
    let (code, _, stderr) = run(&|c| c.env("OUTLAST_ATTEMPT", "1"));
    assert!(code == 6 && stderr.contains("ended: it was cancelled"), "{code} {stderr}");
    let (code, _, stderr) = run(&|c| c.env("OUTLAST_TASK_ID", "other"));
    assert!(code == 6 && stderr.contains("no such attempt"), "{code} {stderr}");
    let (code, _, stderr) = run(&|c| c.env("OUTLAST_TASK_ID", "full"));
    assert!(code == 5 && stderr.contains("9 of 10 bytes"), "{code} {stderr}");
    let (code, _, stderr) = run(&|c| c.env("OUTLAST_SOCKET", "/no/such/socket"));
    assert!(code == 5 && stderr.contains("the worker is away"), "{code} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_and_json() {
    let rig = Rig::new();
    let nothing = r#"{"cancel":false,"pause":false,"checkpoint_request":0}"#;
    assert_eq!(rig.said(&["control"]), (0, nothing.into(), String::new()));
    assert_eq!(rig.said(&["control", "--wait", "100ms"]).0, 3);
    let waiting = rig
        .command(env!("CARGO_BIN_EXE_outlast"))
        .args(["task", "control", "--wait", "20s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.fake.control.send_modify(|c| *c = Control { pause: true, ..*c });
    let (code, seen, _) = said(waiting.wait_with_output().unwrap());
    assert_eq!((code, seen.contains("\"pause\":true")), (0, true));
    assert_eq!(rig.said(&["control", "--wait", "100ms", "--seen", &seen]).0, 3);
    std::fs::write(rig.dir.path().join("work/f"), "x").unwrap();
    for args in [
        &["checkpoint", "f", "--json"][..],
        &["restore", "f", "--json"],
        &["checkpoints", "--json"],
        &["progress", "0.5", "--json"],
        &["state", "--json"],
        &["state", "a=1", "--json"],
        &["artifact", "f", "--json"],
    ] {
        let (code, stdout, stderr) = rig.said(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_the_next_worker() {
    let rig = Rig::new();
    let Rig { dir, fake, server } = rig;
    let path = server.path().to_owned();
    server.shutdown().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(["task", "state", "a=1", "--patience", "20s"]).env("OUTLAST_SOCKET", &path);
    command.env("OUTLAST_TASK_ID", "t").env("OUTLAST_ATTEMPT", "2").stderr(Stdio::piped());
    let started = Instant::now();
    let waiting = command.spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _server = start(dir.path(), &fake);
    let (code, _, stderr) = said(waiting.wait_with_output().unwrap());
    assert!(code == 0 && stderr.contains("waiting for the worker"), "{code} {stderr}");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(fake.state.lock().unwrap().updates, 1);
}
