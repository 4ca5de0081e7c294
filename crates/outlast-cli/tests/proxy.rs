//! Behind proxies that limit the bodies of requests, as nginx does by default: checkpoints and
//! batches arrive all the same, in smaller parts, and `doctor` names the limit.

mod common;

use common::{Base, Process};
use outlast::{Client, Error, NewTask, Run, TaskSpec};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Generous time limit: nothing here is timed.
const LONG: Duration = Duration::from_secs(180);

/// Reaction of a proxy to a body that is too large.
#[derive(Clone, Copy, PartialEq)]
enum Refuses {
    /// Answers 413, with a page of its own.
    Says,
    /// Cuts the connection in the middle of it.
    Cuts,
}

/// A proxy for HTTP.
struct Narrow {
    url: String,
    /// Bodies that were refused.
    refused: Arc<AtomicUsize>,
    /// Bytes of the largest that passed.
    largest: Arc<AtomicUsize>,
}

impl Narrow {
    async fn start(upstream: &str, limit: usize, refuses: Refuses) -> Narrow {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (refused, largest) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, seen, upstream) = (refused.clone(), largest.clone(), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (counted, seen, upstream) = (counted.clone(), seen.clone(), upstream.clone());
                tokio::spawn(async move {
                    let far = TcpStream::connect(&upstream).await?;
                    carry(near, far, limit, refuses, &counted, &seen).await
                });
            }
        });
        Narrow { url, refused, largest }
    }
}

async fn carry(
    near: TcpStream,
    far: TcpStream,
    limit: usize,
    refuses: Refuses,
    refused: &AtomicUsize,
    largest: &AtomicUsize,
) -> std::io::Result<()> {
    let (read, mut answers) = near.into_split();
    let (mut back, mut write) = far.into_split();
    let mut read = BufReader::new(read);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // Answers pass as they are.
    let answering = tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy(&mut back, &mut answers) => {}
            _ = stopped => {}
        }
        answers
    });
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let from = head.len();
            if read.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&head[from..]).to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        if length > limit {
            refused.fetch_add(1, Relaxed);
            let _ = stop.send(());
            let mut answers = answering.await?;
            let mut body = vec![0; limit];
            let _ = read.read_exact(&mut body).await;
            if refuses == Refuses::Says {
                let page = "<html><h1>413 Request Entity Too Large</h1></html>";
                let head = "HTTP/1.1 413 Request Entity Too Large\r\ncontent-type: text/html\r\n";
                let text = format!(
                    "{head}content-length: {}\r\nconnection: close\r\n\r\n{page}",
                    page.len()
                );
                answers.write_all(text.as_bytes()).await?;
                answers.shutdown().await?;
                // As nginx lingers.
                let mut nowhere = tokio::io::sink();
                let rest = tokio::io::copy(&mut read, &mut nowhere);
                let _ = timeout(Duration::from_secs(5), rest).await;
            }
            return Ok(());
        }
        largest.fetch_max(length, Relaxed);
        write.write_all(&head).await?;
        if String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket") {
            tokio::io::copy(&mut read, &mut write).await?;
            return Ok(());
        }
        tokio::io::copy(&mut (&mut read).take(length as u64), &mut write).await?;
    }
}

fn task(id: &str, line: &str) -> NewTask {
    NewTask { id: id.into(), spec: TaskSpec::new(Run::Shell(line.into())) }
}

/// A task with a checkpoint of 3 MB that nothing compresses; its bytes come out again.
async fn checkpoint_passes(limit: usize, refuses: Refuses) {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let narrow = Narrow::start(&base.at, limit, refuses).await;
    let _worker = base.worker("w", &narrow.url, &[]);
    base.connected("w").await;
    let data = base.dir.path().join("bytes");
    let outlast = env!("CARGO_BIN_EXE_outlast");
    let line = format!(
        "head -c 3000000 /dev/urandom > {0} && {outlast} task checkpoint {0}",
        data.display()
    );
    base.client.submit(&task("t", &line)).await.unwrap();
    let ended = timeout(LONG, base.client.wait("t")).await.unwrap().unwrap();
    assert_eq!(ended.state, "succeeded", "{} {}", ended.stderr, ended.message);
    let got = base.dir.path().join("got");
    let fetch = async {
        loop {
            let mut fetch = Command::new(outlast);
            fetch.args(["--coordinator", &base.url(), "task", "fetch", "t", "-o"]);
            fetch.arg(&got).env("OUTLAST_CONFIG", "/dev/null").stderr(Stdio::null());
            if tokio::task::block_in_place(|| fetch.status()).unwrap().success() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let log = || std::fs::read_to_string(base.dir.path().join("w.log")).unwrap_or_default();
    timeout(LONG, fetch).await.unwrap_or_else(|_| panic!("it never arrived:\n{}", log()));
    assert!(std::fs::read(&got).unwrap() == std::fs::read(&data).unwrap(), "other bytes");
    assert!(narrow.refused.load(Relaxed) > 0, "the proxy had nothing to refuse");
    assert!(narrow.largest.load(Relaxed) <= limit);
    // What was learned is remembered: not every request is refused first.
    let refused = narrow.refused.load(Relaxed);
    assert!(refused <= 8, "{refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_passes_a_proxy_with_a_limit_of_1_mib() {
    checkpoint_passes(1 << 20, Refuses::Says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_passes_a_proxy_that_lets_one_chunk_through_and_cuts_what_is_larger() {
    checkpoint_passes((256 << 10) + 128, Refuses::Cuts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_once_that_not_even_one_chunk_passes() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let narrow = Narrow::start(&base.at, 100 << 10, Refuses::Says).await;
    let _worker = base.worker("w", &narrow.url, &[]);
    base.connected("w").await;
    let data = base.dir.path().join("bytes");
    let line = format!(
        "head -c 3000000 /dev/urandom > {0} && {1} task checkpoint {0}",
        data.display(),
        env!("CARGO_BIN_EXE_outlast")
    );
    base.client.submit(&task("t", &line)).await.unwrap();
    let log = || std::fs::read_to_string(base.dir.path().join("w.log")).unwrap_or_default();
    let said = async {
        while !log().contains("client_max_body_size") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, said).await.unwrap_or_else(|_| panic!("{}", log()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lines: Vec<String> =
        log().lines().filter(|l| l.contains("client_max_body_size")).map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let size = lines[0].split("a request of ").nth(1).and_then(|t| t.split(' ').next()).unwrap();
    assert!(size.parse::<usize>().unwrap() > 100 << 10, "{lines:?}");
}

fn client(url: &str) -> Client {
    Client::builder(url).patience(Duration::from_secs(60)).build().unwrap()
}

#[tokio::test]
async fn batches_are_split_until_they_pass() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let tasks: Vec<NewTask> = (0..300)
        .map(|n| task(&format!("t{n}"), &format!("true # {}", "x".repeat(10_000))))
        .collect();
    base_up(&base).await;
    for refuses in [Refuses::Says, Refuses::Cuts] {
        let narrow = Narrow::start(&base.at, 200_000, refuses).await;
        let done = timeout(LONG, client(&narrow.url).submit_all(&tasks)).await.unwrap().unwrap();
        let ids: Vec<&str> = done.iter().map(|t| t.id.as_str()).collect();
        assert_eq!(ids, tasks.iter().map(|t| t.id.as_str()).collect::<Vec<_>>());
        assert!(narrow.refused.load(Relaxed) > 0);
        assert!(narrow.largest.load(Relaxed) > 50_000, "they were not sent one by one");
    }
    assert_eq!(base.client.counts().await.unwrap().pending, 300, "each is there once");
    // One that is too large by itself is named, with its size.
    let narrow = Narrow::start(&base.at, 5_000, Refuses::Says).await;
    match client(&narrow.url).submit_all(&tasks).await.unwrap_err() {
        Error::Problem(problem) => {
            assert_eq!((problem.status, problem.word()), (413, "proxy"));
            let detail = &problem.detail;
            assert!(detail.contains("task t0 alone is 10"), "{detail}");
            assert!(detail.contains("client_max_body_size"), "{detail}");
        }
        other => panic!("{other}"),
    }
}

fn doctor(url: &str) -> (bool, String) {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_outlast"));
    doctor.args(["--coordinator", url, "doctor"]).env("OUTLAST_CONFIG", "/dev/null");
    let output = doctor.env_remove("OUTLAST_API_KEY").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|l| l.contains("large requests")).unwrap_or(&text).to_owned();
    (line.starts_with('✓'), line)
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_limit_of_a_proxy() {
    let base = Base::new();
    let _coordinator: Process = base.coordinator();
    base_up(&base).await;
    let ask = |url: String| tokio::task::block_in_place(|| doctor(&url));
    let (well, line) = ask(base.url());
    assert!(well && line.contains("16 MiB pass"), "{line}");
    let narrow = Narrow::start(&base.at, 1 << 20, Refuses::Says).await;
    let (well, line) = ask(narrow.url);
    assert!(well && line.contains("1 MiB pass") && line.contains("4 MiB (413)"), "{line}");
    assert!(line.contains("client_max_body_size 32m"), "{line}");
    let narrow = Narrow::start(&base.at, 100_000, Refuses::Cuts).await;
    let (well, line) = ask(narrow.url);
    assert!(!well && line.contains("client_max_body_size 32m"), "{line}");
}

async fn base_up(base: &Base) {
    let up = async {
        while base.client.info().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, up).await.unwrap();
}

/// Runs a command with these variables; returns its exit code and output.
fn said(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .into_iter()
        .chain(["no_proxy", "NO_PROXY"])
    {
        command.env_remove(name);
    }
    let output = command.envs(env.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_named_and_not_used_for_this_machine() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    base_up(&base).await;
    // Nobody listens there.
    let gone = outlast_chaos::free_address().unwrap();
    let proxy = format!("http://me:secret@{gone}");
    let env = [("HTTP_PROXY", proxy.as_str()), ("ALL_PROXY", proxy.as_str())];
    let port = base.at.rsplit_once(':').unwrap().1;
    tokio::task::block_in_place(|| {
        for url in [base.url(), format!("http://localhost:{port}")] {
            let (code, text) = said(&["--coordinator", &url, "tasks"], &env);
            assert_eq!(code, Some(0), "{url}: {text}");
        }
        // A name that no server has: only a proxy could know it.
        let args = ["--coordinator", "http://hub.invalid:7117", "tasks"];
        let (code, text) = said(&args, &env);
        assert_eq!(code, Some(5), "{text}");
        assert!(text.contains(&format!("the proxy {gone} (HTTP_PROXY)")), "{text}");
        assert!(!text.contains("secret"), "{text}");
        let (_, text) = said(&args, &[env[0], env[1], ("NO_PROXY", "hub.invalid")]);
        assert!(!text.contains("proxy"), "{text}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_reported_at_once_with_its_owner_and_ctrl_c_ends_the_wait() {
    let base = Base::new();
    let former = base.coordinator();
    base_up(&base).await;
    let data = base.dir.path().join("other").display().to_string();
    let args = ["coordinator", "--listen", &base.at, "--data-dir", &data];
    let mut second = Process::spawn(base.dir.path(), "second", &args);
    let log = || std::fs::read_to_string(base.dir.path().join("second.log")).unwrap_or_default();
    let waits = async {
        while !log().contains("is in use") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, waits).await.unwrap_or_else(|_| panic!("{}", log()));
    second.signal("INT");
    let ended = async {
        loop {
            if let Some(status) = second.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let status = timeout(LONG, ended).await.unwrap();
    assert_eq!(status.code(), Some(130), "{}", log());
    // It was ended by that, and not because its time was over.
    assert!(!log().contains("cannot listen"), "{}", log());
    let owner = format!("{} is in use by outlast (process {})", base.at, former.0.id());
    assert!(log().contains(&owner), "{}", log());
}
