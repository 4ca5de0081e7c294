//! The browser's process: found, started, watched, ended.

use crate::cdp::{Cdp, CdpError, Event};
use serde_json::json;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Names under which Chromium and its relatives are installed, the preferred ones first.
const NAMES: [&str; 6] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge",
];
/// Time for a browser's first answer, which can be long on a busy machine.
const START: Duration = Duration::from_secs(60);
/// Time for a browser to end on request.
const LEAVE: Duration = Duration::from_secs(3);
/// Longest time until a process is seen as dead after its pipe was closed.
const DEATH: Duration = Duration::from_secs(5);
/// Lines of its own log that are kept for the case that it dies, and the longest of them.
const KEPT: (usize, u64) = (16, 1000);

/// Chromium does without a window, without the network's idle chatter, and with WebGL, WebGPU and
/// WebNN also where only the processor can do them.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-ipc-flooding-protection",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--enable-features=WebMachineLearningNeuralNetwork",
    "--enable-unsafe-swiftshader",
    "--enable-unsafe-webgpu",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
    "--log-level=2",
];

/// There is no browser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// There is no browser at the given path.
    #[error("{} is no program", .0.display())]
    Here(PathBuf),
    /// Nowhere on the path.
    #[error("none of {} is in PATH; install chromium, or name a browser", NAMES.join(", "))]
    Anywhere,
}

/// The program: the one that is named, or the first known one on `path`.
///
/// # Errors
/// [`NotFound`] says where it was looked for.
pub fn find(named: Option<&Path>, path: &OsStr) -> Result<PathBuf, NotFound> {
    let runs = |program: &Path| {
        program.is_file() && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let on_path =
        |name: &OsStr| std::env::split_paths(path).map(|f| f.join(name)).find(|p| runs(p));
    match named {
        None => NAMES.iter().find_map(|n| on_path(OsStr::new(n))).ok_or(NotFound::Anywhere),
        // A bare name is looked for as a shell would.
        Some(name) if name.components().count() == 1 && !name.is_absolute() => {
            on_path(name.as_os_str()).ok_or_else(|| NotFound::Here(name.to_owned()))
        }
        Some(program) if runs(program) => Ok(program.to_owned()),
        Some(program) => Err(NotFound::Here(program.to_owned())),
    }
}

/// Start parameters of a browser.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Flags beside our own; the later ones win.
    pub flags: Vec<String>,
    /// Folder of its profile, which is removed with the browser.
    pub folder: PathBuf,
}

/// Reason why no browser is running.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A folder or a process could not be had.
    #[error("cannot start {}: {error}", program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The browser ended before it answered.
    #[error("browser crashed at its start: {exit}{}", said.iter().map(|l| format!("\n  {l}")).collect::<String>())]
    Died {
        /// End of its process.
        exit: Exit,
        /// Last lines of its output.
        said: Vec<String>,
    },
    /// The browser does not answer.
    #[error("browser crashed or hangs: no answer in {} s", START.as_secs())]
    Silent,
}

/// End of a browser's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(Option<ExitStatus>);

impl Exit {
    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        self.0.and_then(|s| s.signal())
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("it closed its connection"),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit code {code}"),
                (None, Some(9)) => f.write_str("killed by signal 9 (SIGKILL)"),
                (None, Some(signal)) => write!(f, "killed by signal {signal}"),
                (None, None) => write!(f, "{status}"),
            },
        }
    }
}

/// A running browser; it is killed when this is dropped.
pub struct Browser {
    child: Child,
    pub(crate) cdp: Cdp,
    pub(crate) events: mpsc::Receiver<Event>,
    said: Arc<Mutex<VecDeque<String>>>,
    product: String,
    // Dropped after the process.
    _profile: TempDir,
}

impl Browser {
    /// Starts one and waits until it answers. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LaunchError`], with the browser's last words if it had any.
    pub async fn launch(launch: &Launch) -> Result<Browser, LaunchError> {
        let program = launch.program.clone();
        let failed = |error| LaunchError::System { program: program.clone(), error };
        let profile = tempfile::Builder::new().prefix("browser-").tempdir_in(&launch.folder);
        let profile = profile.map_err(failed)?;
        // The browser speaks on descriptors 3 and 4, which a shell moves our pipes to.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2"#])
            .arg(&launch.program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            // Chromium's sandbox refuses to start for root.
            command.arg("--no-sandbox");
        }
        command
            .args(&launch.flags)
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(words)) = pipes else {
            return Err(failed(std::io::Error::other("it has no pipes")));
        };
        let said = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(listen(words, said.clone()));
        let (cdp, events) = Cdp::new(input, output);
        let product = String::new();
        let mut browser = Browser { child, cdp, events, said, product, _profile: profile };
        let asked = browser.cdp.call(None, "Browser.getVersion", json!({}));
        let answer = match timeout(START, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                let exit = browser.exit().await;
                return Err(LaunchError::Died { exit, said: browser.last_words() });
            }
            Err(_) => return Err(LaunchError::Silent),
        };
        let product = answer["product"].as_str().unwrap_or_default();
        browser.product = product.trim_start_matches("Headless").to_owned();
        let discover = json!({"discover": true});
        let told = browser.cdp.call(None, "Target.setDiscoverTargets", discover).await;
        told.map_err(|e| failed(std::io::Error::other(e)))?;
        Ok(browser)
    }

    /// Product name and version, such as `Chrome/156.0.8078.79`.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// Process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until its process has ended, or is as good as gone since its pipe is closed.
    pub(crate) async fn exit(&mut self) -> Exit {
        Exit(timeout(DEATH, self.child.wait()).await.ok().and_then(Result::ok))
    }

    /// The last lines that it wrote for its own log.
    pub fn last_words(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Discards the output so far.
    pub(crate) fn forget_words(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns true if the output shows that a page's JavaScript engine ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let told = ["V8 javascript OOM", "V8 process OOM", "heap out of memory"];
        self.last_words().iter().any(|line| told.iter().any(|t| line.contains(t)))
    }

    /// Asks it to end, and sees to it.
    pub async fn close(mut self) {
        let asked = async {
            let _: Result<_, CdpError> = self.cdp.call(None, "Browser.close", json!({})).await;
            let _ = self.child.wait().await;
        };
        if timeout(LEAVE, asked).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Keeps the end of what the browser says of itself.
async fn listen(words: impl tokio::io::AsyncRead + Unpin, said: Arc<Mutex<VecDeque<String>>>) {
    let mut words = BufReader::new(words);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut words).take(KEPT.1).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        // Every machine without a desktop lacks it.
        if text.is_empty() || text.contains("dbus") {
            continue;
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT.0 {
            said.pop_front();
        }
        said.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_browser_is_found_by_path_by_name_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("google-chrome");
        std::fs::write(&path, "").unwrap();
        let on = folder.path().as_os_str();
        assert_eq!(find(None, on), Err(NotFound::Anywhere));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(None, on), Ok(path.clone()));
        assert_eq!(find(Some(Path::new("google-chrome")), on), Ok(path.clone()));
        assert_eq!(find(Some(&path), OsStr::new("")), Ok(path));
        let error = find(Some(Path::new("/no/browser")), on).unwrap_err();
        assert!(error.to_string().contains("/no/browser"), "{error}");
    }

    #[tokio::test]
    async fn one_that_dies_at_once_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("chromium");
        std::fs::write(&program, "#!/bin/sh\necho 'no usable sandbox' >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let launch = Launch { program, flags: vec![], folder: folder.path().into() };
        let error = Browser::launch(&launch).await.err().unwrap().to_string();
        assert!(error.contains("exit code 3") && error.contains("no usable sandbox"), "{error}");
    }
}
