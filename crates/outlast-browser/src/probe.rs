//! Capabilities of a browser on this machine: tried out, and cached.
//!
//! A browser takes seconds to start, so the result is cached in a file until the program, its flags or
//! the machine's boot changes (and with that maybe the graphics driver). A failed probe is repeated
//! after some minutes.

use crate::launch::{Browser, Launch};
use crate::page::{OWN, Page};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep, timeout};

/// Time limit of a probe.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Time in seconds for which a failure is cached.
const RETRY: u64 = 300;
/// Draws a pixel, multiplies a matrix' worth of nothing: what is only said to be there does not
/// count.
const QUESTIONS: &str = include_str!("probe.js");

/// Implementation of a graphics interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acceleration {
    /// A GPU.
    Hardware,
    /// The processor.
    Software,
}

/// Capabilities of a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// `chromium`, `chrome` or `edge`.
    pub name: String,
    /// Version, such as `156.0.8078.79`.
    pub version: String,
    /// WebGL, if a pixel could be drawn with it.
    pub webgl: Option<Acceleration>,
    /// Name of the WebGL renderer.
    pub webgl_renderer: String,
    /// WebGPU, if a shader ran.
    pub webgpu: Option<Acceleration>,
    /// Name of the WebGPU adapter.
    pub webgpu_adapter: String,
    /// WebNN: the device types that a context could be made for.
    pub webnn: Vec<String>,
}

/// Answers of probe.js.
#[derive(Deserialize)]
struct Answers {
    webgl: Option<String>,
    webgpu: Option<String>,
    fallback: bool,
    webnn: Vec<String>,
}

/// Returns true if a renderer's name is that of an emulation by the processor.
fn emulated(renderer: &str) -> bool {
    let name = renderer.to_ascii_lowercase();
    ["swiftshader", "llvmpipe", "softpipe", "basic render", "lavapipe"]
        .iter()
        .any(|known| name.contains(known))
}

fn by(renderer: &str, fallback: bool) -> Acceleration {
    match fallback || emulated(renderer) {
        true => Acceleration::Software,
        false => Acceleration::Hardware,
    }
}

/// Starts the browser and finds out.
///
/// # Errors
/// Why the browser is of no use here.
pub async fn ask(launch: &Launch) -> Result<Found, String> {
    match timeout(LIMIT, question(launch)).await {
        Ok(found) => found,
        Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
    }
}

async fn question(launch: &Launch) -> Result<Found, String> {
    let mut browser = Browser::launch(launch).await.map_err(|e| e.to_string())?;
    let name = launch.program.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = ["chromium", "edge"].into_iter().find(|n| name.contains(n)).unwrap_or("chrome");
    let version = browser.product().rsplit('/').next().unwrap_or_default().to_owned();
    let answers = {
        let (cdp, events) = (browser.cdp.clone(), &mut browser.events);
        let asked = async {
            let page = Page::open(&cdp, "<!doctype html>").await.map_err(|e| e.to_string())?;
            let own = json!({"patterns": [{"urlPattern": format!("{OWN}*")}]});
            page.call("Fetch.enable", own).await.map_err(|e| e.to_string())?;
            let text = |e| match e {
                crate::page::EvalError::Thrown(thrown) => thrown.message,
                crate::page::EvalError::Cdp(error) => error.to_string(),
            };
            let (went, served) = tokio::join!(page.go(OWN), async {
                while let Some(event) = events.recv().await {
                    if event.method == "Fetch.requestPaused" {
                        return page.serve(&event.params).await;
                    }
                }
                Err(crate::cdp::CdpError::Closed)
            });
            went.map_err(text)?;
            served.map_err(|e| e.to_string())?;
            // Later events are ignored, but have to be received.
            let answers = tokio::select! {
                answers = page.value(QUESTIONS) => answers.map_err(text)?,
                () = async { while events.recv().await.is_some() {} } => {
                    return Err("the browser died of it".to_owned());
                }
            };
            serde_json::from_value::<Answers>(answers).map_err(|e| e.to_string())
        };
        asked.await
    };
    browser.close().await;
    let Answers { webgl, webgpu, fallback, webnn } = answers?;
    Ok(Found {
        name: name.into(),
        version,
        webgl: webgl.as_deref().map(|r| by(r, false)),
        webgl_renderer: webgl.unwrap_or_default(),
        webgpu: webgpu.as_deref().map(|r| by(r, fallback)),
        webgpu_adapter: webgpu.unwrap_or_default(),
        webnn,
    })
}

/// Content of the cache file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Identity of the probed browser.
    of: Value,
    /// Time of the probe in Unix seconds.
    at: u64,
    found: Result<Found, String>,
}

/// Returns the cached capabilities from `file`, or else probes and caches them. Of several concurrent
/// callers only one probes. A cache that cannot be written is not an error.
///
/// # Errors
/// The reason why the browser cannot be used here.
pub async fn cached(launch: &Launch, file: &Path) -> Result<Found, String> {
    let of = identity(launch);
    if let Some(found) = known(file, &of) {
        return found;
    }
    let lock = file.with_extension("lock");
    let lock = file
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| File::options().create(true).append(true).open(lock))
        .ok();
    let deadline = Instant::now() + LIMIT;
    while let Some(lock) = &lock {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            break;
        }
        if Instant::now() > deadline {
            return Err("another process has been finding out for too long".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    if let Some(found) = known(file, &of) {
        return found;
    }
    let found = ask(launch).await;
    let kept = Kept { of, at: now(), found: found.clone() };
    let new = file.with_extension("new");
    let written = serde_json::to_vec(&kept).map_err(std::io::Error::other);
    let written = written.and_then(|bytes| fs::write(&new, bytes));
    if let Err(error) = written.and_then(|()| fs::rename(&new, file)) {
        tracing::debug!(file = %file.display(), %error, "could not keep what was found");
    }
    found
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn known(file: &Path, of: &Value) -> Option<Result<Found, String>> {
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let fresh = kept.found.is_ok() || (kept.at..kept.at + RETRY).contains(&now());
    (kept.of == *of && fresh).then_some(kept.found)
}

/// Returns everything that the capabilities depend on.
fn identity(launch: &Launch) -> Value {
    let file = fs::metadata(&launch.program).ok();
    let file = file.map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    json!([env!("CARGO_PKG_VERSION"), launch.program, launch.flags, file, boot.trim()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn what_fails_is_believed_for_a_while_and_for_this_program_only() {
        let folder = tempfile::tempdir().unwrap();
        let (program, file) = (folder.path().join("chromium"), folder.path().join("kept.json"));
        let count = folder.path().join("count");
        let script = format!("#!/bin/sh\necho x >> {}\nexit 1\n", count.display());
        let write = |text: &str| {
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(&script);
        let launch =
            Launch { program: program.clone(), flags: vec![], folder: folder.path().into() };
        for _ in 0..2 {
            let error = cached(&launch, &file).await.unwrap_err();
            assert!(error.contains("exit code 1"), "{error}");
        }
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\n");
        write(&(script + "# another\n"));
        cached(&launch, &file).await.unwrap_err();
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\nx\n");
    }

    #[test]
    fn emulations_are_told_from_gpus() {
        let angle = "ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device), SwiftShader driver)";
        assert_eq!(by(angle, false), Acceleration::Software);
        assert_eq!(by("ANGLE (NVIDIA, NVIDIA A100, OpenGL)", false), Acceleration::Hardware);
        assert_eq!(by("google", true), Acceleration::Software);
    }
}
