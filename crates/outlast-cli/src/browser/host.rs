//! Requests of a script in a browser, forwarded to the task's worker.

use outlast_browser::{Answer, Host, Level, MAX_MESSAGE, Saved, Wish};
use outlast_worker::local::{Client, Control, MAX_WAIT, Progress};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Metadata key of a checkpoint's type, since JSON cannot be recognized from its bytes.
const CONTENT: &str = "content_type";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The worker of a task, or none if a script is run locally.
pub(super) struct TaskHost {
    client: Option<Client>,
    /// Folder for data that is passed in a file.
    folder: PathBuf,
    /// Requests to the task that were seen so far.
    seen: Arc<Mutex<Control>>,
    files: AtomicU64,
}

impl TaskHost {
    pub fn new(client: Option<Client>, folder: PathBuf) -> TaskHost {
        let note = |why: &str| eprintln!("outlast: waiting for the worker: {why}");
        let client = client.map(|c| c.on_outage(note));
        TaskHost { client, folder, seen: Arc::default(), files: AtomicU64::new(0) }
    }

    /// Returns an unused path.
    fn place(&self) -> Result<PathBuf, String> {
        let n = self.files.fetch_add(1, Ordering::Relaxed);
        let name = format!("outlast-browser-{}-{n}", std::process::id());
        std::path::absolute(self.folder.join(name)).map_err(|e| e.to_string())
    }
}

impl Host for TaskHost {
    fn grant(&self, wish: Wish) -> Answer {
        let (client, place) = (self.client.clone(), self.place());
        Box::pin(async move {
            match client {
                Some(client) => {
                    let place = place?;
                    let done = grant(&client, &place, wish).await;
                    let _ = std::fs::remove_file(&place);
                    done
                }
                None => by_hand(wish),
            }
        })
    }

    fn checkpoint_wanted(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (client, seen) = (self.client.clone(), self.seen.clone());
        Box::pin(async move {
            let Some(client) = client else { return std::future::pending().await };
            let read = || *seen.lock();
            loop {
                let before = read();
                let Ok(now) = client.control(before, Duration::from_secs(MAX_WAIT)).await else {
                    // The worker is away, or the attempt has ended: then this process ends soon.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                };
                *seen.lock() = now;
                if now.checkpoint_request > before.checkpoint_request {
                    return;
                }
            }
        })
    }

    fn console(&self, level: Level, text: &str) {
        // A closed output must not end the task.
        let _ = match level {
            Level::Out => writeln!(std::io::stdout(), "{text}"),
            Level::Error => writeln!(std::io::stderr(), "{text}"),
        };
    }
}

async fn grant(client: &Client, place: &Path, wish: Wish) -> Result<Option<Saved>, String> {
    let text = |e: outlast_worker::local::client::ClientError| e.to_string();
    match wish {
        Wish::Checkpoint { data, name, mut meta } => {
            let (kind, bytes) = match data {
                Saved::Json(text) => (JSON, text.into_bytes()),
                Saved::Bytes(bytes) => (BYTES, bytes),
            };
            meta.insert(CONTENT.into(), kind.into());
            let made = client.checkpoint_bytes(bytes.into(), name.as_deref(), &meta).await;
            made.map_err(text)?;
        }
        Wish::Restore => {
            let Some(found) = client.restore(place, None, true).await.map_err(text)? else {
                return Ok(None);
            };
            if found.view.bytes > MAX_MESSAGE as u64 {
                let n = found.view.bytes;
                return Err(format!("the checkpoint has {n} bytes, the limit is {MAX_MESSAGE}"));
            }
            let bytes = std::fs::read(place).map_err(|e| format!("the checkpoint: {e}"))?;
            let json = found.view.meta.user.get(CONTENT) == Some(&Value::from(JSON));
            return Ok(Some(match json {
                true => Saved::Json(String::from_utf8(bytes).map_err(|e| e.to_string())?),
                false => Saved::Bytes(bytes),
            }));
        }
        Wish::Progress { value, message, data } => {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("progress is {value}, not 0 to 1"));
            }
            let said = Progress { progress: value, data, message };
            client.progress(&said).await.map_err(text)?;
        }
        Wish::State(changes) => drop(client.update_state(&changes).await.map_err(text)?),
        Wish::Artifact { name, data } => {
            std::fs::write(place, data.as_bytes()).map_err(|e| format!("the artifact: {e}"))?;
            client.artifact(place, Some(&name)).await.map_err(text)?;
        }
    }
    Ok(None)
}

/// Prints requests that cannot be carried out without a worker.
fn by_hand(wish: Wish) -> Result<Option<Saved>, String> {
    let show = |map: &Map<String, Value>| match map.is_empty() {
        true => String::new(),
        false => format!(" {}", Value::Object(map.clone())),
    };
    match wish {
        Wish::Checkpoint { data, .. } => {
            eprintln!("outlast: checkpoint of {} bytes, not saved", data.as_bytes().len());
        }
        Wish::Restore => {}
        Wish::Progress { value, message, data } => {
            let message = message.map(|m| format!(" {m}")).unwrap_or_default();
            eprintln!("outlast: {:.0}%{message}{}", value * 100.0, show(&data));
        }
        Wish::State(changes) => eprintln!("outlast: state{}", show(&changes)),
        Wish::Artifact { name, data } => {
            eprintln!("outlast: artifact {name} of {} bytes, not saved", data.as_bytes().len());
        }
    }
    Ok(None)
}
