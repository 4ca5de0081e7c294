//! The key that a coordinator makes at its first start, and to whom keys are sent, with real processes.

mod common;

use common::{Base, Process};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const O: &str = env!("CARGO_BIN_EXE_outlast");
const NOBODY: u32 = 65534;
/// Generous time limit: nothing here is timed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user with a home of their own.
struct Home {
    base: Base,
    port: u16,
}

impl Home {
    fn new() -> Home {
        let base = Base::new();
        let port = base.at.rsplit(':').next().unwrap().parse().unwrap();
        Home { base, port }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.base.dir.path().join(name)
    }
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(O);
        command.args(args).current_dir(self.base.dir.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path("home"));
        command.env("OUTLAST_COORDINATOR", self.base.url());
        command
    }
    fn start(&self, name: &str, args: &[&str]) -> Process {
        let log = self.path(&format!("{name}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        Process(self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
    fn coordinator(&self, more: &[&str]) -> Process {
        let args = ["coordinator", "--listen", &self.base.at, "--data-dir", "data"];
        self.start("coordinator", &[&args[..], more].concat())
    }
    fn worker(&self, name: &str, more: &[&str]) -> Process {
        let args = ["worker", "--no-browser", "--name", name, "--state-dir", name];
        self.start(name, &[&args[..], more].concat())
    }
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    fn key_file(&self) -> PathBuf {
        self.path(&format!("home/.local/share/outlast/local/{}.key", self.port))
    }
    fn key(&self) -> String {
        let started = Instant::now();
        loop {
            match fs::read_to_string(self.key_file()) {
                Ok(key) => return key.trim().to_owned(),
                Err(_) if started.elapsed() < PATIENCE => pause(),
                Err(e) => panic!("{e}: {}", self.log("coordinator")),
            }
        }
    }
    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }
    /// Waits until a log says something, for the n-th time.
    fn says(&self, name: &str, text: &str, times: usize) {
        let started = Instant::now();
        while self.log(name).matches(text).count() < times {
            assert!(started.elapsed() < PATIENCE, "no {text:?}: {}", self.log(name));
            pause();
        }
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

fn said(out: &Output) -> (i32, String) {
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn the_first_session_works_for_its_user_and_for_nobody_else() {
    let home = Home::new();
    let coordinator = home.coordinator(&[]);
    let _worker = home.worker("w", &[]);
    let hello = ["submit", "--wait", "--", "echo", "hello"];
    let out = home.run(&hello);
    assert_eq!(out.stdout, b"hello\n", "{out:?} {}", home.log("w"));
    let key = home.key();
    assert_eq!([mode(&home.key_file()), mode(&home.path("data/local.key"))], [0o600; 2]);
    assert!(!home.log("coordinator").contains(&key));
    assert_eq!(home.run(&["keys", "local"]).stdout, format!("{key}\n").as_bytes());
    // Without it nothing is had, not even from this machine.
    let bare = |key: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
        if let Some(key) = key {
            curl.args(["-H", &format!("Authorization: Bearer {key}")]);
        }
        let out = curl.arg(format!("{}/api/v1/tasks", home.base.url())).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!([bare(None), bare(Some("olk_x_y")), bare(Some(&key))], ["401", "401", "200"]);
    if mode(Path::new("/")) & 1 == 1 && fs::metadata("/proc/self").unwrap().uid() == 0 {
        fs::set_permissions(home.base.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut other = home.command(&["submit", "--", "true"]);
        let out = other.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent").output().unwrap();
        let (code, text) = said(&out);
        assert!(code == 4 && text.contains("an API key is needed"), "{code} {text}");
    } else {
        eprintln!("skipped: there is no second user to try it as");
    }
    // By way of a proxy on another port, and after a restart.
    let via = outlast_chaos::free_address().unwrap().to_string();
    let to = home.base.at.clone();
    let proxy = home.start("proxy", &["chaos", "--listen", &via, "--upstream", &to]);
    let far = home.worker("far", &["--coordinator", &format!("http://{via}")]);
    home.says("far", "connected", 1);
    drop((far, proxy, coordinator));
    let _coordinator = home.coordinator(&[]);
    let out = home.run(&hello);
    assert_eq!(out.stdout, b"hello\n", "{out:?}");
    assert_eq!(home.key(), key);
    // Who wants none says so, and hears what that means.
    let open = Home::new();
    let _coordinator = open.coordinator(&["--no-keys"]);
    let _worker = open.worker("w", &[]);
    let out = open.run(&hello);
    assert_eq!(out.stdout, b"hello\n", "{out:?}");
    assert!(!open.key_file().exists());
    open.says("coordinator", "every user of this machine can run commands as this one", 1);
}

/// Process that listens in a coordinator's place: sends a fixed answer and records each request.
struct Impostor {
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    fn at(at: &str, answer: &'static str) -> Impostor {
        let started = Instant::now();
        let listener = loop {
            match TcpListener::bind(at) {
                Ok(listener) => break listener,
                Err(e) => assert!(started.elapsed() < PATIENCE, "{e}"),
            }
            pause();
        };
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || {
                    let (mut stream, mut part) = (stream, [0; 4096]);
                    while let Ok(n @ 1..) = stream.read(&mut part) {
                        kept.lock().unwrap().extend_from_slice(&part[..n]);
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        Impostor { heard }
    }
    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
    /// Waits until it was spoken to.
    fn was_met(&self) -> String {
        let started = Instant::now();
        while self.heard().is_empty() {
            assert!(started.elapsed() < PATIENCE, "nobody came");
            pause();
        }
        // And whatever follows at once.
        std::thread::sleep(Duration::from_millis(500));
        self.heard()
    }
}

const WRONG: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n\
                     {\"proof\":\"00\"}";
const NONE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n\
                    {\"proof\":\"\"}\n";
const OLD: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn whoever_takes_the_port_gets_no_key() {
    for (answer, given) in [(WRONG, false), (NONE, false), (OLD, false), (WRONG, true)] {
        let home = Home::new();
        let coordinator = home.coordinator(&[]);
        let key = home.key();
        let secret = key.rsplit('_').next().unwrap().to_owned();
        let args: &[&str] = if given { &["--api-key", &key] } else { &[] };
        if given {
            fs::remove_file(home.key_file()).unwrap();
        }
        let _worker = home.worker("w", args);
        home.says("w", "connected", 1);
        drop(coordinator);
        let impostor = Impostor::at(&home.base.at, answer);
        home.says("w", "not sent", 1);
        assert!(!impostor.was_met().contains(&secret), "{answer} {given}");
        let (code, text) = said(&home.run(&[args, &["tasks"]].concat()));
        assert!(code != 0 && text.contains("not sent"), "{text}");
        let (code, text) = said(&home.run(&[args, &["submit", "--", "true"]].concat()));
        assert!(code != 0 && text.contains("is not the coordinator"), "{text}");
        assert!(!impostor.heard().contains(&secret), "{answer} {given}");
        assert!(impostor.heard().contains("/api/v1/prove"));
    }
}

#[test]
fn a_worker_that_knows_its_coordinator_believes_in_no_older_one() {
    for answer in [OLD, NONE] {
        let home = Home::new();
        let coordinator = home.coordinator(&[]);
        let key = home.key();
        let secret = key.rsplit('_').next().unwrap().to_owned();
        fs::remove_file(home.key_file()).unwrap();
        let worker = home.worker("w", &["--api-key", &key]);
        home.says("w", "connected", 1);
        drop((worker, coordinator));
        // Also after a restart.
        let impostor = Impostor::at(&home.base.at, answer);
        let _worker = home.worker("w", &["--api-key", &key]);
        home.says("w", "was not sent", 1);
        assert!(!impostor.was_met().contains(&secret), "{answer}");
    }
}

#[test]
fn keys_that_travel_in_the_open_are_warned_of() {
    let home = Home::new();
    // An address of nobody.
    let args = ["--coordinator", "http://192.0.2.1:7117", "--api-key", "olk_a_b"];
    let _worker = home.worker("w", &args);
    home.says("w", "unencrypted", 1);
    let _coordinator = home.coordinator(&[]);
    let _near = home.worker("near", &[]);
    home.says("near", "connected", 1);
    assert!(!home.log("near").contains("unencrypted"));
}
