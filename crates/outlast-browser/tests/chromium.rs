//! Tests with a real Chromium; skipped without one.

use outlast_browser::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

fn chromium() -> Option<PathBuf> {
    let found = find(None, &std::env::var_os("PATH").unwrap_or_default());
    if found.is_err() {
        eprintln!("not tested: no browser here");
    }
    found.ok()
}

fn launch(folder: &tempfile::TempDir) -> Option<Launch> {
    Some(Launch { program: chromium()?, flags: vec![], folder: folder.path().into() })
}

/// Host that records all requests.
#[derive(Default)]
struct Notes {
    saved: Mutex<Vec<Saved>>,
    told: Mutex<Vec<String>>,
    wanted: tokio::sync::Notify,
}

/// The same, as a host.
struct Keeps(Arc<Notes>);

impl Host for Keeps {
    fn grant(&self, wish: Wish) -> Answer {
        let (saved, told) = (&self.0.saved, &self.0.told);
        let answer = match wish {
            Wish::Checkpoint { data, .. } => {
                saved.lock().unwrap().push(data);
                Ok(None)
            }
            Wish::Restore => Ok(saved.lock().unwrap().last().cloned()),
            Wish::Progress { value, .. } if value > 1.0 => Err("more than all".into()),
            other => {
                told.lock().unwrap().push(format!("{other:?}"));
                Ok(None)
            }
        };
        Box::pin(async { answer })
    }
    fn checkpoint_wanted(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let notes = self.0.clone();
        Box::pin(async move { notes.wanted.notified().await })
    }
    fn console(&self, level: Level, text: &str) {
        self.0.told.lock().unwrap().push(format!("{level:?}: {text}"));
    }
}

fn script(source: &str) -> Script {
    Script { source: source.into(), task: "t".into(), attempt: 1, ..Script::default() }
}

struct Stage {
    browser: Browser,
    notes: Arc<Notes>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Option<Stage> {
        let folder = tempfile::tempdir().unwrap();
        let browser = Browser::launch(&launch(&folder)?).await.unwrap();
        Some(Stage { browser, notes: Arc::default(), _folder: folder })
    }
    async fn run(&mut self, script: &Script) -> End {
        let host = Arc::new(Keeps(self.notes.clone()));
        let ran = run(&mut self.browser, script, host);
        timeout(Duration::from_secs(60), ran).await.expect("it ends")
    }
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.told.lock().unwrap())
    }
}

fn done(json: Value) -> End {
    End::Done(json.to_string())
}

fn failure(end: End) -> (String, String) {
    match end {
        End::Failed { message, stack } => (message, stack),
        other => panic!("{other:?}"),
    }
}

/// Processes of the browser, by what kind they are.
fn children(parent: u32, kind: &str) -> Vec<String> {
    let all = Command::new("ps").args(["-eo", "pid,args"]).output().unwrap();
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    let profile = std::fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    let profile = profile.split('\0').find(|a| a.starts_with("--user-data-dir")).unwrap();
    let of = |line: &&str| line.contains(profile) && line.contains(&format!("--type={kind}"));
    let pid = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    text.lines().filter(of).map(pid).collect()
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

#[tokio::test]
async fn scripts_give_results_and_reach_their_host() {
    let Some(mut stage) = Stage::new().await else { return };
    let args = json!({"n": 20});
    let sum = Script { args, ..script("async (task) => { return task.args.n + 22 }") };
    assert_eq!(stage.run(&sum).await, done(json!(42)));
    assert_eq!(
        stage.run(&script("const x = await Promise.resolve(3); x * 2")).await,
        done(json!(6))
    );
    assert_eq!(
        stage.run(&script("function main(task) { return task.id }")).await,
        done(json!("t"))
    );
    assert_eq!(stage.run(&script("1; undefined")).await, done(Value::Null));
    assert_eq!(stage.run(&script("isSecureContext")).await, done(json!(true)));
    let html =
        "<!doctype html><title>é</title><script>window.here = outlast.attempt</script>".to_owned();
    let page = Script { page: html, ..script("[document.title, here]") };
    assert_eq!(stage.run(&page).await, done(json!(["é", 1])));

    let source = r#"async (task) => {
        console.log("hello", {a: 1}); console.error("oops");
        await task.checkpoint({step: 3});
        const first = await task.restore();
        await task.checkpoint(new Uint8Array([1, 2, 255]));
        const bytes = await task.restore();
        task.progress(0.5, "half");
        let why = ""; try { await task.progress(2) } catch (e) { why = e.message }
        await task.artifact("a.txt", "text");
        return [first.step, bytes instanceof Uint8Array, [...bytes], why];
    }"#;
    let expected = done(json!([3, true, [1, 2, 255], "more than all"]));
    assert_eq!(stage.run(&script(source)).await, expected);
    let told = stage.told();
    assert_eq!(told[..2], ["Out: hello {a: 1}", "Error: oops"]);
    assert!(told[2].contains("0.5") && told[3].contains("a.txt"), "{told:?}");

    // A checkpoint that somebody else wants.
    let listen = "task => new Promise(done => task.onCheckpoint(() => { setTimeout(() => done(1), 300); return {asked: 1} }))";
    let notes = stage.notes.clone();
    let ask = tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        notes.wanted.notify_one();
    });
    assert_eq!(stage.run(&script(listen)).await, done(json!(1)));
    ask.await.unwrap();
    assert_eq!(
        stage.notes.saved.lock().unwrap().last(),
        Some(&Saved::Json(r#"{"asked":1}"#.into()))
    );
    stage.browser.close().await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_script_is_its_own_failure() {
    let Some(mut stage) = Stage::new().await else { return };
    let thrown = "async () => {\n  null.x\n}";
    let (message, stack) = failure(stage.run(&script(thrown)).await);
    assert!(message.starts_with("TypeError: Cannot read properties of null"), "{message}");
    assert!(stack.contains("task.js:2:"), "{stack}");
    assert!(!stack.contains("outlast-api"), "{stack}");
    for (source, says) in [
        ("async () => {", "SyntaxError"),
        ("() => { throw 'plain' }", "plain"),
        ("() => Promise.reject(new RangeError('far'))", "RangeError: far"),
        ("() => 1n", "BigInt"),
        ("() => { const a = {}; a.a = a; return a }", "circular"),
        ("() => 'x'.repeat(2 << 20)", "checkpoint or an artifact"),
        ("() => { location = 'about:blank'; return new Promise(() => {}) }", "somewhere else"),
    ] {
        let (message, stack) = failure(stage.run(&script(source)).await);
        assert!(message.contains(says), "{source}: {message}");
        assert!(stack.contains(says), "{source}: {stack}");
    }
    let away = Script { page: "http://127.0.0.1:1234/x".into(), ..script("1") };
    let (message, _) = failure(stage.run(&away).await);
    assert!(message.contains("net::ERR_CONNECTION_REFUSED"), "{message}");
    // It goes on to work.
    assert_eq!(stage.run(&script("alert('hi'); 7")).await, done(json!(7)));
    assert!(stage.told().contains(&"Error: dialog: hi".to_owned()));
    stage.browser.close().await;
}

#[tokio::test]
async fn a_killed_browser_and_a_killed_page_are_crashes() {
    let Some(mut stage) = Stage::new().await else { return };
    let pid = stage.browser.pid().unwrap();
    let waits = script("new Promise(() => {})");
    let killer = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(700)).await;
            children(pid, "renderer").iter().for_each(|p| kill(p));
        }
    });
    match stage.run(&waits).await {
        End::Crashed { message, .. } => assert!(message.starts_with("page crashed: "), "{message}"),
        other => panic!("{other:?}"),
    }
    killer.abort();
    // The browser itself is well.
    assert_eq!(stage.run(&script("8")).await, done(json!(8)));
    tokio::spawn(async move {
        sleep(Duration::from_millis(500)).await;
        kill(&pid.to_string());
    });
    let message = "browser crashed: killed by signal 9 (SIGKILL)".to_owned();
    assert_eq!(stage.run(&waits).await, End::Crashed { message, signal: Some(9) });
}

#[tokio::test]
async fn lost_contexts_are_told_of() {
    let Some(mut stage) = Stage::new().await else { return };
    let lose = r#"async () => {
        const gl = document.createElement("canvas").getContext("webgl");
        gl.getExtension("WEBGL_lose_context").loseContext();
        await new Promise(() => {});
    }"#;
    assert_eq!(stage.run(&script(lose)).await, End::ContextLost("WebGL context lost".into()));
    let bears = Script {
        bears_context_loss: true,
        ..script(&lose.replace("() => {})", "done => setTimeout(done, 300))"))
    };
    assert_eq!(stage.run(&bears).await, done(Value::Null));
    assert!(stage.told().contains(&"Error: WebGL context lost".to_owned()));
    // A page that has it restored goes on.
    let restores = r#"async () => {
        const canvas = document.createElement("canvas"), gl = canvas.getContext("webgl");
        const back = new Promise(done => canvas.addEventListener("webglcontextrestored", () => done("back")));
        const lose = gl.getExtension("WEBGL_lose_context");
        canvas.addEventListener("webglcontextlost", e => { e.preventDefault(); setTimeout(() => lose.restoreContext(), 50) });
        lose.loseContext();
        return await back;
    }"#;
    assert_eq!(stage.run(&script(restores)).await, done(json!("back")));
    // Not lost but destroyed, and then really lost.
    let device = "const device = await (await navigator.gpu.requestAdapter()).requestDevice();";
    let destroyed =
        format!("async () => {{ {device} device.destroy(); await device.lost; return 1 }}");
    assert_eq!(stage.run(&script(&destroyed)).await, done(json!(1)));
    let pid = stage.browser.pid().unwrap();
    let waits =
        format!("async () => {{ {device} console.log('ready'); await new Promise(() => {{}}) }}");
    let notes = stage.notes.clone();
    let killer = tokio::spawn(async move {
        while !notes.told.lock().unwrap().contains(&"Out: ready".to_owned()) {
            sleep(Duration::from_millis(20)).await;
        }
        children(pid, "gpu-process").iter().for_each(|p| kill(p));
    });
    match stage.run(&script(&waits)).await {
        End::ContextLost(text) => assert!(text.starts_with("WebGPU device lost"), "{text}"),
        other => panic!("{other:?}"),
    }
    killer.await.unwrap();
    stage.browser.close().await;
}

#[tokio::test]
async fn a_page_that_is_too_large_is_out_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut launch) = launch(&folder) else { return };
    launch.flags.push("--js-flags=--max-old-space-size=64".into());
    let browser = Browser::launch(&launch).await.unwrap();
    let mut stage = Stage { browser, notes: Arc::default(), _folder: folder };
    let greedy =
        "() => { const all = []; for (;;) all.push(new Array(1 << 20).fill({}).map(() => ({}))) }";
    match stage.run(&script(greedy)).await {
        End::OutOfMemory(text) => assert!(text.starts_with("out of memory: the page"), "{text}"),
        other => panic!("{other:?} {:?}", stage.browser.last_words()),
    }
    stage.browser.close().await;
}

#[tokio::test]
async fn what_it_can_do_is_found_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(launch) = launch(&folder) else { return };
    let file = folder.path().join("kept/browser.json");
    let found = probe::cached(&launch, &file).await.unwrap();
    assert!(found.version.split('.').count() == 4 && !found.name.is_empty(), "{found:?}");
    assert!(found.webgl.is_some() && found.webgpu.is_some(), "{found:?}");
    let written = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let first = written();
    assert_eq!(probe::cached(&launch, &file).await, Ok(found));
    assert_eq!(written(), first);
    // Nothing is left of it but what was kept.
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1);
}
